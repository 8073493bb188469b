//! The bytes of a frame: the only raw packet reads and writes of this crate.

/// The linear part of a frame, from `start` to before `end`.
#[derive(Clone, Copy)]
pub(crate) struct LinearPacket {
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// A type for which every bit pattern is a value.
///
/// # Safety
///
/// Every bit pattern of the type's size must be a valid value.
pub(crate) unsafe trait AnyBits: Copy {}

// SAFETY: every bit pattern is an integer.
unsafe impl AnyBits for u8 {}
// SAFETY: every bit pattern is an integer.
unsafe impl AnyBits for u16 {}
// SAFETY: every bit pattern is an integer.
unsafe impl AnyBits for u32 {}
// SAFETY: every bit pattern is an integer.
unsafe impl AnyBits for [u32; 4] {}

impl LinearPacket {
    /// The value at an offset, in the frame's own byte order; `None` if the frame is shorter.
    #[inline(always)]
    pub(crate) fn read<T: AnyBits>(self, offset: usize) -> Option<T> {
        let place = self.start + offset;
        if place + size_of::<T>() > self.end {
            return None;
        }
        // SAFETY: within the packet's `data` and `data_end`, checked above; the read needs no alignment.
        Some(unsafe { (place as *const T).read_unaligned() })
    }

    /// Writes a value at an offset, unless the frame is shorter.
    #[inline(always)]
    pub(crate) fn write(self, offset: usize, value: u32) {
        let place = self.start + offset;
        if place + size_of::<u32>() <= self.end {
            // SAFETY: as in `read`; no other program accesses the packet during this run.
            unsafe { (place as *mut u32).write_unaligned(value) };
        }
    }
}
