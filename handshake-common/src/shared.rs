//! Words of memory that several CPUs change at once: the one place that names an atomic operation.
//!
//! The host has `core::sync::atomic`. The BPF target has atomic read-modify-write operations as
//! compiler intrinsics only, and plain loads and stores, which are whole for aligned words.
//! `swap` and `compare_exchange` are full barriers in the kernel's memory model on every
//! architecture (Documentation/atomic_t.txt, "fully ordered"), which is what the flow table's
//! protocol rests on.

macro_rules! shared_word {
    ($name:ident, $word:ty, $atomic:ty, $what:literal) => {
        #[doc = $what]
        #[repr(transparent)]
        pub struct $name(Cell<$word, $atomic>);

        impl $name {
            /// A word that holds `value`.
            #[must_use]
            pub const fn new(value: $word) -> Self {
                Self(Cell::<$word, $atomic>::new(value))
            }

            /// The word as it is; what other words held before it was written is seen after this.
            #[inline(always)]
            pub fn load(&self) -> $word {
                self.0.load()
            }

            /// Writes the word. Ordered by the tag's operations only.
            #[inline(always)]
            pub fn store(&self, value: $word) {
                self.0.store(value);
            }

            /// Adds, without a barrier.
            #[inline(always)]
            pub fn add(&self, value: $word) {
                self.0.add(value);
            }
        }
    };
}

impl Default for Shared64 {
    fn default() -> Self {
        Self::new(0)
    }
}

impl Default for Shared32 {
    fn default() -> Self {
        Self::new(0)
    }
}

shared_word!(Shared64, u64, host::AtomicU64, "A shared word of 64 bits.");
shared_word!(Shared32, u32, host::AtomicU32, "A shared word of 32 bits.");

impl Shared64 {
    /// Writes `new` if the word is `old`, and says whether it did. A full barrier.
    #[inline(always)]
    pub fn compare_exchange(&self, old: u64, new: u64) -> bool {
        self.0.compare_exchange(old, new)
    }

    /// Writes `new`, and gives what was there. A full barrier.
    #[inline(always)]
    pub fn swap(&self, new: u64) -> u64 {
        self.0.swap(new)
    }
}

#[cfg(target_arch = "bpf")]
use bpf::Cell;
#[cfg(not(target_arch = "bpf"))]
use host::Cell;

/// Orders the loads before it before the loads after it: a reader's copy lies between two loads of the tag.
#[cfg(not(target_arch = "bpf"))]
pub fn read_fence() {
    core::sync::atomic::fence(core::sync::atomic::Ordering::Acquire);
}

#[cfg(not(target_arch = "bpf"))]
mod host {
    use core::marker::PhantomData;
    use core::sync::atomic::Ordering;
    pub(super) use core::sync::atomic::{AtomicU32, AtomicU64};

    #[repr(transparent)]
    pub(super) struct Cell<W, A>(A, PhantomData<W>);

    macro_rules! cell {
        ($word:ty, $atomic:ty) => {
            impl Cell<$word, $atomic> {
                pub(super) const fn new(value: $word) -> Self {
                    Self(<$atomic>::new(value), PhantomData)
                }
                pub(super) fn load(&self) -> $word {
                    self.0.load(Ordering::Acquire)
                }
                pub(super) fn store(&self, value: $word) {
                    self.0.store(value, Ordering::Relaxed);
                }
                pub(super) fn add(&self, value: $word) {
                    self.0.fetch_add(value, Ordering::Relaxed);
                }
            }
        };
    }
    cell!(u32, AtomicU32);
    cell!(u64, AtomicU64);

    impl Cell<u64, AtomicU64> {
        pub(super) fn compare_exchange(&self, old: u64, new: u64) -> bool {
            self.0.compare_exchange(old, new, Ordering::SeqCst, Ordering::Relaxed).is_ok()
        }
        pub(super) fn swap(&self, new: u64) -> u64 {
            self.0.swap(new, Ordering::SeqCst)
        }
    }
}

#[cfg(target_arch = "bpf")]
mod host {
    /// Names the width; BPF's cell holds the plain word.
    pub(super) struct AtomicU32;
    /// Names the width; BPF's cell holds the plain word.
    pub(super) struct AtomicU64;
}

#[cfg(target_arch = "bpf")]
mod bpf {
    use core::cell::UnsafeCell;
    use core::intrinsics::{AtomicOrdering, atomic_cxchg, atomic_xadd, atomic_xchg};
    use core::marker::PhantomData;

    #[repr(transparent)]
    pub(super) struct Cell<W, A>(UnsafeCell<W>, PhantomData<A>);

    // SAFETY: every access is a whole aligned load or store, or an atomic operation.
    unsafe impl<W, A> Sync for Cell<W, A> {}

    macro_rules! cell {
        ($word:ty, $atomic:ty) => {
            impl Cell<$word, $atomic> {
                pub(super) const fn new(value: $word) -> Self {
                    Self(UnsafeCell::new(value), PhantomData)
                }
                #[inline(always)]
                pub(super) fn load(&self) -> $word {
                    // SAFETY: the cell is aligned and alive; volatile keeps it one load.
                    unsafe { self.0.get().read_volatile() }
                }
                #[inline(always)]
                pub(super) fn store(&self, value: $word) {
                    // SAFETY: the cell is aligned and alive; volatile keeps it one store.
                    unsafe { self.0.get().write_volatile(value) }
                }
                #[inline(always)]
                pub(super) fn add(&self, value: $word) {
                    // SAFETY: the cell is aligned and alive.
                    unsafe {
                        atomic_xadd::<$word, $word, { AtomicOrdering::Relaxed }>(self.0.get(), value);
                    }
                }
            }
        };
    }
    cell!(u32, super::host::AtomicU32);
    cell!(u64, super::host::AtomicU64);

    impl Cell<u64, super::host::AtomicU64> {
        #[inline(always)]
        pub(super) fn compare_exchange(&self, old: u64, new: u64) -> bool {
            // SAFETY: the cell is aligned and alive.
            unsafe {
                atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::Relaxed }>(
                    self.0.get(),
                    old,
                    new,
                )
                .1
            }
        }
        #[inline(always)]
        pub(super) fn swap(&self, new: u64) -> u64 {
            // SAFETY: the cell is aligned and alive.
            unsafe { atomic_xchg::<u64, { AtomicOrdering::SeqCst }>(self.0.get(), new) }
        }
    }
}
