//! Where a packet's bytes come from in the kernel. The only raw reads of packets.

use core::mem::MaybeUninit;

use aya_ebpf::bindings::{__sk_buff, xdp_md};
use aya_ebpf::helpers::{
    bpf_skb_load_bytes, bpf_skb_load_bytes_relative, bpf_xdp_get_buff_len, bpf_xdp_load_bytes,
};
use handshake_common::wire::{Frame, OFFSET_LIMIT, Truncated};
use zerocopy::FromBytes;

/// `BPF_HDR_START_NET` (include/uapi/linux/bpf.h): count from the network header.
const FROM_NETWORK_HEADER: u32 = 1;

/// A frame at XDP; with frags its tail may lie in further buffers.
pub(crate) struct XdpFrame {
    ctx: *mut xdp_md,
    data: usize,
    end: usize,
}

impl XdpFrame {
    #[inline(always)]
    pub(crate) fn new(ctx: *mut xdp_md) -> Self {
        // SAFETY: the kernel calls the program with a context that lives as long as the run.
        let (data, end) = unsafe { ((*ctx).data as usize, (*ctx).data_end as usize) };
        Self { ctx, data, end }
    }
}

impl Frame for XdpFrame {
    #[inline(always)]
    fn read<T: FromBytes>(&self, offset: u32) -> Result<T, Truncated> {
        match linear(self.data, self.end, offset) {
            Some(value) => Ok(value),
            // SAFETY: `to` has the size that is passed; the helper writes all of it or fails.
            None => read_by_helper(|to, size| unsafe { bpf_xdp_load_bytes(self.ctx, offset, to, size) }),
        }
    }

    #[inline(always)]
    fn length(&self) -> u32 {
        // SAFETY: the context is the program's own.
        let length = unsafe { bpf_xdp_get_buff_len(self.ctx) };
        (length & 0xffff_ffff) as u32
    }
}

/// A frame at TC, which begins at the link header or, where there is none, at the IP header.
pub(crate) struct SkbFrame {
    ctx: *mut __sk_buff,
    data: usize,
    end: usize,
    /// Read from the network header: the link header is not there, or not where `data` says.
    from_network: bool,
}

impl SkbFrame {
    #[inline(always)]
    pub(crate) fn new(ctx: *mut __sk_buff, from_network: bool) -> Self {
        // SAFETY: the kernel calls the program with a context that lives as long as the run.
        let (data, end) = unsafe { ((*ctx).data as usize, (*ctx).data_end as usize) };
        Self { ctx, data, end, from_network }
    }
}

impl Frame for SkbFrame {
    #[inline(always)]
    fn read<T: FromBytes>(&self, offset: u32) -> Result<T, Truncated> {
        if self.from_network {
            // SAFETY: `to` has the size that is passed; the helper writes all of it or fails.
            return read_by_helper(|to, size| unsafe {
                bpf_skb_load_bytes_relative(self.ctx.cast(), offset, to, size, FROM_NETWORK_HEADER)
            });
        }
        match linear(self.data, self.end, offset) {
            Some(value) => Ok(value),
            // SAFETY: as above.
            None => {
                read_by_helper(|to, size| unsafe { bpf_skb_load_bytes(self.ctx.cast(), offset, to, size) })
            }
        }
    }

    #[inline(always)]
    fn length(&self) -> u32 {
        // SAFETY: the context is the program's own.
        unsafe { (*self.ctx).len }
    }
}

/// A value in the linear part of a packet; `None` where it runs past that.
#[inline(always)]
fn linear<T: FromBytes>(data: usize, end: usize, offset: u32) -> Option<T> {
    // The parser keeps below the limit; the verifier has to see it.
    if offset > OFFSET_LIMIT {
        return None;
    }
    let start = data + offset as usize;
    if start + size_of::<T>() > end {
        return None;
    }
    // SAFETY: `start .. start + size` lies between the packet's `data` and `data_end`, checked above;
    // every bit pattern is a `T`, and the read needs no alignment.
    Some(unsafe { (start as *const T).read_unaligned() })
}

/// A value that a helper copies from wherever it lies.
#[inline(always)]
fn read_by_helper<T: FromBytes>(
    load: impl FnOnce(*mut core::ffi::c_void, u32) -> i64,
) -> Result<T, Truncated> {
    let mut value = MaybeUninit::<T>::zeroed();
    if load(value.as_mut_ptr().cast(), size_of::<T>() as u32) < 0 {
        return Err(Truncated);
    }
    // SAFETY: zeroed, then written by the helper; every bit pattern is a `T`.
    Ok(unsafe { value.assume_init() })
}
