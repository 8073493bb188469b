//! The bytes of a frame: the only raw reads and writes of packets here.

/// The linear part of a frame.
#[derive(Clone, Copy)]
pub(crate) struct Linear {
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// A value that every pattern of bits is one of.
///
/// # Safety
///
/// That is the promise.
pub(crate) unsafe trait Plain: Copy {}

// SAFETY: integers.
unsafe impl Plain for u8 {}
// SAFETY: integers.
unsafe impl Plain for u16 {}
// SAFETY: integers.
unsafe impl Plain for u32 {}
// SAFETY: integers.
unsafe impl Plain for [u32; 4] {}

impl Linear {
    /// The value at an offset, in the frame's own order of bytes.
    #[inline(always)]
    pub(crate) fn read<T: Plain>(self, offset: usize) -> Option<T> {
        let place = self.start + offset;
        if place + size_of::<T>() > self.end {
            return None;
        }
        // SAFETY: within the packet's `data` and `data_end`, checked above; the read needs no alignment.
        Some(unsafe { (place as *const T).read_unaligned() })
    }

    /// Writes a value at an offset; nothing, where the frame is shorter.
    #[inline(always)]
    pub(crate) fn write(self, offset: usize, value: u32) {
        let place = self.start + offset;
        if place + size_of::<u32>() <= self.end {
            // SAFETY: as in `read`; the packet is this run's alone.
            unsafe { (place as *mut u32).write_unaligned(value) };
        }
    }
}
