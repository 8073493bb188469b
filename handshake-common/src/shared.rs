//! Words of memory that several CPUs change at once: the one place that names an atomic operation.
//!
//! Loads and stores are whole and carry no order; what order the flow table's protocol needs comes
//! from five operations:
//!
//! - `compare_exchange`, when it succeeds, takes: what comes after it is seen after it. Reads *and
//!   writes*: C++11 would let a plain store after even a sequentially consistent exchange be seen
//!   before it, so the host adds a release fence. Without it a reader copies half of the next record
//!   between two equal tags.
//! - `swap` gives: what came before it is seen before it.
//! - `release` gives too, where a swap comes before it.
//! - [`write_fence`] between plain stores, [`read_fence`] between plain loads: where no ownership changes.
//!
//! The host has `core::sync::atomic`. Its loads are relaxed ones and fences, for no other atomic
//! load may touch memory that is mapped read-only. The BPF target has atomic read-modify-write
//! operations as compiler intrinsics only, and plain loads and stores, which are whole for aligned
//! words. `swap` and `compare_exchange` are full barriers in the kernel's memory model on every
//! architecture (Documentation/atomic_t.txt, "fully ordered"). Its fences are none but for the
//! compiler: on x86 the processor keeps the order of loads and that of stores. The fences matter for
//! the counter block's markers and the service rows only, not for the table.
//!
//! `tests/model` checks all of this with every order that C++11 allows.

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

            /// The word as it is. Ordered by [`read_fence`] and by the operations that take and give.
            #[inline(always)]
            pub fn load(&self) -> $word {
                self.0.load()
            }

            /// Writes the word. Ordered by [`write_fence`] and by the operations that take and give.
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

shared_word!(Shared64, u64, atomic::AtomicU64, "A shared word of 64 bits.");
shared_word!(Shared32, u32, atomic::AtomicU32, "A shared word of 32 bits.");

impl Shared64 {
    /// Writes `new` if the word is `old`, and says whether it did: takes what the word guards.
    #[inline(always)]
    pub fn compare_exchange(&self, old: u64, new: u64) -> bool {
        self.0.compare_exchange(old, new)
    }

    /// Writes `new`, and says what was there: gives what the word guards.
    #[inline(always)]
    pub fn swap(&self, new: u64) -> u64 {
        self.0.swap(new)
    }

    /// Writes 0 behind a [`swap`](Self::swap) of the same CPU, or behind nothing that has to be seen: gives
    /// what the word guards. The swap has ordered all before it, so a plain store is enough for BPF.
    #[inline(always)]
    pub fn release(&self) {
        self.0.release();
    }
}

#[cfg(not(target_arch = "bpf"))]
use crate::atomic;
#[cfg(target_arch = "bpf")]
use bpf::{Cell, atomic};
#[cfg(not(target_arch = "bpf"))]
use host::Cell;

/// Orders the loads before it before the loads and stores after it.
#[inline(always)]
pub fn read_fence() {
    #[cfg(not(target_arch = "bpf"))]
    atomic::fence(atomic::Ordering::Acquire);
}

/// Orders the loads and stores before it before the stores after it.
#[inline(always)]
pub fn write_fence() {
    #[cfg(not(target_arch = "bpf"))]
    atomic::fence(atomic::Ordering::Release);
}

#[cfg(not(target_arch = "bpf"))]
mod host {
    use core::marker::PhantomData;

    use crate::atomic::{AtomicU32, AtomicU64, Ordering};

    #[repr(transparent)]
    pub(super) struct Cell<W, A>(A, PhantomData<W>);

    macro_rules! cell {
        ($word:ty, $atomic:ty) => {
            impl Cell<$word, $atomic> {
                #[inline(always)]
                pub(super) const fn new(value: $word) -> Self {
                    Self(<$atomic>::new(value), PhantomData)
                }
                #[inline(always)]
                pub(super) fn load(&self) -> $word {
                    self.0.load(Ordering::Relaxed)
                }
                #[inline(always)]
                pub(super) fn store(&self, value: $word) {
                    self.0.store(value, Ordering::Relaxed);
                }
                #[inline(always)]
                pub(super) fn add(&self, value: $word) {
                    self.0.fetch_add(value, Ordering::Relaxed);
                }
            }
        };
    }
    cell!(u32, AtomicU32);
    cell!(u64, AtomicU64);

    impl Cell<u64, AtomicU64> {
        #[inline(always)]
        pub(super) fn compare_exchange(&self, old: u64, new: u64) -> bool {
            let taken = self.0.compare_exchange(old, new, Ordering::Acquire, Ordering::Relaxed).is_ok();
            super::write_fence();
            taken
        }
        #[inline(always)]
        pub(super) fn swap(&self, new: u64) -> u64 {
            self.0.swap(new, Ordering::Release)
        }
        #[inline(always)]
        pub(super) fn release(&self) {
            self.0.store(0, Ordering::Release);
        }
    }
}

#[cfg(target_arch = "bpf")]
mod bpf {
    use core::cell::UnsafeCell;
    use core::intrinsics::{AtomicOrdering, atomic_cxchg, atomic_xadd, atomic_xchg};
    use core::marker::PhantomData;

    /// What the host has as atomic types only names the width here: the cell holds the plain word.
    pub(super) mod atomic {
        pub(in super::super) struct AtomicU32;
        pub(in super::super) struct AtomicU64;
    }

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
    cell!(u32, atomic::AtomicU32);
    cell!(u64, atomic::AtomicU64);

    impl Cell<u64, atomic::AtomicU64> {
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
        #[inline(always)]
        pub(super) fn release(&self) {
            self.store(0);
        }
    }
}
