//! Where a packet's bytes come from in the kernel. The only raw reads of packets.
//!
//! Headers nearly always lie in the frame's linear part, which is read directly. The rare frame whose
//! headers run past it is read once more through the kernel's helpers: one branch a packet instead
//! of one a read, which the verifier would have to follow both ways each time.

use core::ffi::c_void;
use core::mem::MaybeUninit;

use aya_ebpf::bindings::{__sk_buff, xdp_md};
use aya_ebpf::helpers::{
    bpf_skb_load_bytes, bpf_skb_load_bytes_relative, bpf_xdp_get_buff_len, bpf_xdp_load_bytes,
};
use handshake_common::flow::Family;
use handshake_common::wire::{
    Class, Frame, Link, OFFSET_LIMIT, Packet, Truncated, parse_into, quote, sealed, sum_by, sum_of_part,
};
use handshake_common::{end_of, masked};
use zerocopy::FromBytes;

/// `BPF_HDR_START_NET` (include/uapi/linux/bpf.h): count from the network header.
const FROM_NETWORK_HEADER: u32 = 1;

/// What the kernel hands a program: it knows how long the whole frame is.
pub(crate) trait Context: Copy {
    /// Bytes of the frame, beyond the linear part too. At XDP that is a helper's answer, and expensive.
    fn frame_length(self) -> u32;
    /// Does the frame hold a TCP segment with a wrong checksum? A super-packet's is not there yet, or was the
    /// segments' own.
    fn has_wrong_checksum(self) -> bool;
    /// Copies the frame's first bytes; 0 where they are there. Of a `raw` one from its IP header on.
    ///
    /// # Safety
    ///
    /// There is room for them.
    unsafe fn load(self, to: *mut c_void, size: u32, raw: bool) -> i64;
}

impl Context for *mut xdp_md {
    #[inline(always)]
    fn frame_length(self) -> u32 {
        // SAFETY: the kernel calls the program with a context that lives as long as the run.
        unsafe { bpf_xdp_get_buff_len(self) as u32 }
    }

    #[inline(always)]
    fn has_wrong_checksum(self) -> bool {
        xdp_checksum(self) != 0
    }

    #[inline(always)]
    unsafe fn load(self, to: *mut c_void, size: u32, _: bool) -> i64 {
        // SAFETY: as above, and the caller's.
        unsafe { bpf_xdp_load_bytes(self, 0, to, size) }
    }
}

impl Context for *mut __sk_buff {
    #[inline(always)]
    fn frame_length(self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self).len }
    }

    #[inline(always)]
    fn has_wrong_checksum(self) -> bool {
        // SAFETY: as above.
        let is_super = unsafe { (*self).gso_size } != 0;
        if is_super {
            return false;
        }
        // Where the kernel says that it is IP, it says where that begins too.
        if ip_family(self) != 0 { network_checksum(self) != 0 } else { skb_checksum(self) != 0 }
    }

    #[inline(always)]
    unsafe fn load(self, to: *mut c_void, size: u32, raw: bool) -> i64 {
        if raw {
            // SAFETY: as above, and the caller's.
            return unsafe { bpf_skb_load_bytes_relative(self.cast(), 0, to, size, FROM_NETWORK_HEADER) };
        }
        // SAFETY: likewise.
        unsafe { bpf_skb_load_bytes(self.cast(), 0, to, size) }
    }
}

/// The linear part of a frame.
pub(crate) struct Linear<C> {
    data: usize,
    end: usize,
    ctx: C,
}

impl Linear<*mut xdp_md> {
    #[inline(always)]
    pub(crate) fn xdp(ctx: *mut xdp_md) -> Self {
        // SAFETY: the kernel calls the program with a context that lives as long as the run.
        unsafe { Self { data: (*ctx).data as usize, end: (*ctx).data_end as usize, ctx } }
    }
}

impl Linear<*mut __sk_buff> {
    #[inline(always)]
    pub(crate) fn skb(ctx: *mut __sk_buff) -> Self {
        // SAFETY: as in `xdp`.
        unsafe { Self { data: (*ctx).data as usize, end: (*ctx).data_end as usize, ctx } }
    }
}

impl<C: Context> Linear<C> {
    /// May the packet have been cut by the end of the linear part only? An ICMP packet whose quote is
    /// cut is no truncated one, it merely quotes nothing.
    #[inline(always)]
    fn goes_on(&self, packet: &Packet) -> bool {
        let quotes_nothing = packet.class == Class::Icmp as u8 && packet.quote == quote::NONE;
        let cut = packet.class == Class::Truncated as u8 || quotes_nothing;
        cut && self.end - self.data < self.ctx.frame_length() as usize
    }
}

impl<C: Context> Frame for Linear<C> {
    #[inline(always)]
    fn read<T: FromBytes>(&self, offset: u32) -> Result<T, Truncated> {
        // The parser keeps below the limit; the verifier has to see it.
        let start = self.data + masked::<{ OFFSET_LIMIT as usize }>(offset as usize);
        if end_of(start, offset, size_of::<T>()) > self.end {
            return Err(Truncated);
        }
        // SAFETY: `start .. start + size` lies between the packet's `data` and `data_end`, checked above;
        // every bit pattern is a `T`, and the read needs no alignment.
        Ok(unsafe { (start as *const T).read_unaligned() })
    }

    #[inline(always)]
    fn length(&self) -> u32 {
        self.ctx.frame_length()
    }
}

/// A whole frame, through a helper that copies from wherever the bytes lie.
struct Copied<L> {
    load: L,
    length: u32,
}

impl<L: Fn(u32, *mut c_void, u32) -> i64> Frame for Copied<L> {
    #[inline(always)]
    fn read<T: FromBytes>(&self, offset: u32) -> Result<T, Truncated> {
        let mut value = MaybeUninit::<T>::zeroed();
        if (self.load)(offset, value.as_mut_ptr().cast(), size_of::<T>() as u32) < 0 {
            return Err(Truncated);
        }
        // SAFETY: zeroed, then written by the helper; every bit pattern is a `T`.
        Ok(unsafe { value.assume_init() })
    }

    #[inline(always)]
    fn length(&self) -> u32 {
        self.length
    }
}

/// Parses a frame at XDP.
#[inline(always)]
pub(crate) fn parse_xdp(ctx: *mut xdp_md, packet: &mut Packet) {
    xdp_linear(ctx, packet);
    if Linear::xdp(ctx).goes_on(packet) {
        xdp_copied(ctx, packet);
    }
}

/// Parses a frame at TC. `raw`: it has no link header, or not where `data` says.
///
/// The link header may be missing without that being known: a generic XDP program that came later makes the
/// kernel copy the frame (`skb_pp_cow_data` in net/core/skbuff.c), and the copy begins at the IP header. So
/// where the kernel says that a frame is IP, and there is none of that family behind a link header, it is
/// read from the IP header.
#[inline(always)]
pub(crate) fn parse_skb(ctx: *mut __sk_buff, raw: bool, packet: &mut Packet) {
    let family = ip_family(ctx);
    if raw {
        if family == 0 {
            *packet = Packet { class: Class::NonIp as u8, ..Packet::unread(0, 1) };
            return;
        }
        skb_network(ctx, packet);
        return;
    }
    skb_linear(ctx, packet);
    if Linear::skb(ctx).goes_on(packet) {
        skb_copied(ctx, packet);
    }
    if family != 0 && packet.family != family {
        skb_network(ctx, packet);
    }
}

/// The family of what begins at the network header, as the kernel says; 0: it is not IP. Of a frame without a
/// link header nothing else says so: ARP would be taken for a wrong version.
#[inline(always)]
pub(crate) fn ip_family(ctx: *mut __sk_buff) -> u8 {
    // SAFETY: the context is the program's own.
    let protocol = unsafe { (*ctx).protocol } as u16;
    match u16::from_be(protocol) {
        0x0800 => Family::V4 as u8,
        0x86dd => Family::V6 as u8,
        _ => 0,
    }
}

/// Defines a parser as a global function: the verifier checks it once, for any arguments,
/// instead of once a path that leads to it.
macro_rules! parser {
    ($name:ident, $ctx:ty, $link:expr, $frame:expr) => {
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $name(ctx: *mut $ctx, packet: *mut Packet) -> i32 {
            if packet.is_null() {
                return 0;
            }
            let frame = $frame;
            // SAFETY: not null, and the verifier holds callers to a whole `Packet`.
            parse_into(&frame(ctx), $link, unsafe { &mut *packet });
            0
        }
    };
}

parser!(xdp_linear, xdp_md, Link::Ethernet, Linear::xdp);
parser!(skb_linear, __sk_buff, Link::Ethernet, Linear::skb);
parser!(xdp_copied, xdp_md, Link::Ethernet, copied_xdp);
parser!(skb_copied, __sk_buff, Link::Ethernet, copied_skb);
parser!(skb_network, __sk_buff, Link::Ip, copied_network);

/// Defines the verification of a TCP checksum as three global functions, so that the verifier follows each
/// loop once: the first says 1 when it is wrong; the others sum the segment and a part of it, or say -1 when
/// not all of the bytes are there.
macro_rules! checksum {
    ($name:ident, $sum:ident, $part:ident, $ctx:ty, $link:expr, $frame:expr) => {
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $name(ctx: *mut $ctx) -> i32 {
            let Some(segment) = sealed(&$frame(ctx), $link) else { return 0 };
            let sum = $sum(ctx, segment.offset, segment.end);
            (sum >= 0 && segment.is_wrong(sum as u32)) as i32
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $sum(ctx: *mut $ctx, offset: u32, end: u32) -> i32 {
            let part = |offset, end| u32::try_from($part(ctx, offset, end)).map_err(|_| Truncated);
            sum_by(offset, end, part).map_or(-1, |sum| sum as i32)
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $part(ctx: *mut $ctx, offset: u32, end: u32) -> i32 {
            sum_of_part(&$frame(ctx), offset, end).map_or(-1, |sum| sum as i32)
        }
    };
}

checksum!(xdp_checksum, xdp_sum, xdp_part, xdp_md, Link::Ethernet, copied_xdp);
checksum!(skb_checksum, skb_sum, skb_part, __sk_buff, Link::Ethernet, copied_skb);
checksum!(network_checksum, network_sum, network_part, __sk_buff, Link::Ip, copied_network);

#[inline(always)]
fn copied_xdp(ctx: *mut xdp_md) -> Copied<impl Fn(u32, *mut c_void, u32) -> i64> {
    // SAFETY: `to` has the size that is passed; the helper writes all of it or fails.
    let load = move |offset, to, size| unsafe { bpf_xdp_load_bytes(ctx, offset, to, size) };
    Copied { load, length: ctx.frame_length() }
}

#[inline(always)]
fn copied_skb(ctx: *mut __sk_buff) -> Copied<impl Fn(u32, *mut c_void, u32) -> i64> {
    // SAFETY: as above.
    let load = move |offset, to, size| unsafe { bpf_skb_load_bytes(ctx.cast(), offset, to, size) };
    Copied { load, length: ctx.frame_length() }
}

/// From the network header on.
#[inline(always)]
fn copied_network(ctx: *mut __sk_buff) -> Copied<impl Fn(u32, *mut c_void, u32) -> i64> {
    // SAFETY: as above.
    let load = move |offset, to, size| unsafe {
        bpf_skb_load_bytes_relative(ctx.cast(), offset, to, size, FROM_NETWORK_HEADER)
    };
    Copied { load, length: ctx.frame_length() }
}
