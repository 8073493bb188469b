//! Maps the values of a BPF map into memory, read-only: reading a million flows takes no system call. Also
//! freezes maps, which makes the kernel's programs their only writer.

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
/// Every byte must belong to a [`shared`](handshake_common::shared) word, because the kernel writes while the
/// agent reads. The size must be a multiple of eight, as the kernel lays out an array's values.
pub(super) unsafe trait SharedValue {}

// SAFETY: an array of shared words has no other bytes.
unsafe impl<const N: usize> SharedValue for [Shared64; N] {}
// SAFETY: made of shared words; its layout is asserted equal to `abi::Flow4`, 64 bytes.
unsafe impl SharedValue for Slot4 {}
// SAFETY: made of shared words; its layout is asserted equal to `abi::Flow6`, 128 bytes.
unsafe impl SharedValue for Slot6 {}

// SAFETY: made of shared words; 128 bytes, as asserted of `abi::Service`.
unsafe impl SharedValue for ServiceRow {}

/// The values of an array map created with `BPF_F_MMAPABLE`. They stay readable while this lives, because it
/// keeps the map alive.
#[derive(Debug)]
pub(super) struct Mapping<T> {
    start: NonNull<T>,
    count: usize,
    // The values belong to the kernel: they are not owned, and reached through `&self` only.
    values: PhantomData<*const T>,
}

// SAFETY: the memory is only read, by whole-word loads, and any thread may unmap it.
unsafe impl<T: SharedValue> Send for Mapping<T> {}
// SAFETY: as above; `&Mapping` gives access to shared words only.
unsafe impl<T: SharedValue> Sync for Mapping<T> {}

impl<T: SharedValue> Mapping<T> {
    /// Maps the first `count` values of `map`, whose values must be `T`s. Fails with `EINVAL` or `EPERM` if
    /// the map is smaller or not mappable.
    ///
    /// `MAP_POPULATE` would gain nothing: the kernel enters all pages when it maps an array (the first access
    /// to each page of 32 MiB takes 0.2 ms with it and without).
    pub(super) fn new(map: BorrowedFd<'_>, count: usize) -> io::Result<Self> {
        const { assert!(size_of::<T>() > 0 && size_of::<T>().is_multiple_of(8)) };
        let length = byte_length::<T>(count)?;
        // SAFETY: a new mapping, at an address that the kernel chooses, touches no memory in use.
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
        // SAFETY: `new` mapped `count` values at a page's start, which suits every alignment up to a page;
        // they stay mapped while `self` lives. The kernel writes meanwhile, but `T` consists of shared words,
        // which are read word by word.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.count) }
    }
}

impl<T> Drop for Mapping<T> {
    fn drop(&mut self) {
        // SAFETY: `new` created the mapping with this length, and the borrows that `deref` gave out have
        // ended.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.count * size_of::<T>()) };
    }
}

fn byte_length<T>(count: usize) -> io::Result<usize> {
    // The kernel rounds a length up to whole pages, and compares it with the map's size, rounded likewise.
    count.checked_mul(size_of::<T>()).filter(|length| *length > 0).ok_or(io::ErrorKind::InvalidInput.into())
}

/// `BPF_MAP_FREEZE` of `enum bpf_cmd` in linux/bpf.h (Linux 5.2).
const BPF_MAP_FREEZE: libc::c_long = 22;

/// Freezes the map: from here on no system call can change it, not even from this process; programs still
/// can.
pub(super) fn freeze(map: BorrowedFd<'_>) -> io::Result<()> {
    /// The start of `union bpf_attr`; the kernel treats the rest as zeroes.
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
    fn impossible_lengths_are_errors() {
        assert_eq!(byte_length::<[u64; 8]>(64).ok(), Some(4096));
        assert!(byte_length::<[u64; 8]>(0).is_err());
        assert!(byte_length::<[u64; 8]>(usize::MAX / 8).is_err());
    }
}
