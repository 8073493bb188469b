//! A map's values as they lie in the kernel, mapped read-only: reading a million flows is no system call.
//! And the freeze that makes the kernel their only writer.

use std::io;
use std::marker::PhantomData;
use std::ops::Deref;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::ptr::NonNull;

use handshake_common::books::ServiceRow;
use handshake_common::shared::Shared64;
use handshake_common::table::{Slot4, Slot6};

/// A value made of shared words only.
///
/// # Safety
///
/// Every byte must belong to a [`shared`](handshake_common::shared) word: the kernel writes while we read.
/// The size must be a multiple of eight, as the kernel lays an array's values out.
pub(super) unsafe trait SharedValue {}

// SAFETY: an array of shared words has no byte beside them.
unsafe impl<const N: usize> SharedValue for [Shared64; N] {}
// SAFETY: made of shared words; its layout is asserted equal to `abi::Flow4`, 64 bytes.
unsafe impl SharedValue for Slot4 {}
// SAFETY: made of shared words; its layout is asserted equal to `abi::Flow6`, 128 bytes.
unsafe impl SharedValue for Slot6 {}

// SAFETY: made of shared words; 128 bytes, as asserted of `abi::Service`.
unsafe impl SharedValue for ServiceRow {}

/// The values of an array map made with `BPF_F_MMAPABLE`, readable while it lives. It keeps the map alive by itself.
#[derive(Debug)]
pub(super) struct Mapping<T> {
    start: NonNull<T>,
    count: usize,
    // The kernel's values, shared with it: not owned, and reached through `&self` only.
    values: PhantomData<*const T>,
}

// SAFETY: the memory is only read, by whole-word loads, and any thread may unmap it.
unsafe impl<T: SharedValue> Send for Mapping<T> {}
// SAFETY: as above; `&Mapping` gives out nothing but shared words.
unsafe impl<T: SharedValue> Sync for Mapping<T> {}

impl<T: SharedValue> Mapping<T> {
    /// Maps the first `count` values of `map`, whose values must be `T`s. Fails with `EINVAL` or `EPERM` when the
    /// map is smaller or not mappable.
    ///
    /// `MAP_POPULATE` would bring nothing: the kernel enters all pages when it maps an array (the first look at each page
    /// of 32 MiB takes 0.2 ms with it and without).
    pub(super) fn new(map: BorrowedFd<'_>, count: usize) -> io::Result<Self> {
        const { assert!(size_of::<T>() > 0 && size_of::<T>().is_multiple_of(8)) };
        let length = byte_length::<T>(count)?;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours.
        let start = unsafe {
            libc::mmap(std::ptr::null_mut(), length, libc::PROT_READ, libc::MAP_SHARED, map.as_raw_fd(), 0)
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Self { start, count, values: PhantomData })
    }
}

impl<T: SharedValue> Deref for Mapping<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `new` mapped `count` values at a page's start, which suits every alignment up to a page; they
        // stay mapped while `self` lives. The kernel writes meanwhile, but `T` is shared words, read word by word.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.count) }
    }
}

impl<T> Drop for Mapping<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and the borrows that `deref` gave out have ended.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.count * size_of::<T>()) };
    }
}

fn byte_length<T>(count: usize) -> io::Result<usize> {
    // The kernel rounds a length up to whole pages, and compares it with the map's size, rounded likewise.
    count.checked_mul(size_of::<T>()).filter(|length| *length > 0).ok_or(io::ErrorKind::InvalidInput.into())
}

/// `BPF_MAP_FREEZE` of `enum bpf_cmd` in linux/bpf.h (Linux 5.2).
const BPF_MAP_FREEZE: libc::c_long = 22;

/// No system call may change the map from here on, ours included; programs still may.
pub(super) fn freeze(map: BorrowedFd<'_>) -> io::Result<()> {
    /// The start of `union bpf_attr`: what is shorter than the kernel's counts as zeroes.
    #[repr(C)]
    struct Attributes {
        map: RawFd,
    }
    let attributes = Attributes { map: map.as_raw_fd() };
    // SAFETY: the kernel reads `size_of::<Attributes>()` bytes of `attributes`, which outlives the call.
    let done = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_MAP_FREEZE, &raw const attributes, size_of::<Attributes>())
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::byte_length;

    #[test]
    fn lengths_that_cannot_be_are_errors() {
        assert_eq!(byte_length::<[u64; 8]>(64).ok(), Some(4096));
        assert!(byte_length::<[u64; 8]>(0).is_err());
        assert!(byte_length::<[u64; 8]>(usize::MAX / 8).is_err());
    }
}
