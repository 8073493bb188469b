//! Words of memory that several CPUs change at once: the one place that names an atomic operation.
//!
//! Loads and stores are whole and carry no order. What order the protocols of table, books and service rows
//! need comes from these operations, and from nothing else. What each promises is what the host does; the
//! kernel's operation keeps at least as much:
//!
//! | operation | host | BPF | BPF where stores and loads keep their order (x86) |
//! |---|---|---|---|
//! | `compare_exchange`, when it succeeds | acquire, then a release fence | full barrier | the same |
//! | `swap` | release | full barrier | the same |
//! | `release`, behind a swap or an exchange | release | plain store: the barrier before it orders | the same |
//! | `store_in_order` | release fence, store, release fence | exchange: full barrier | plain store |
//! | `load_in_order` | load, acquire fence | fetch and or: full barrier | plain load |
//! | `load`, `store`, `add` | relaxed | plain, atomic without order | the same |
//!
//! The release fence behind an operation that takes is for the plain stores that follow: C11 would let one be
//! seen before even a sequentially consistent exchange, and a reader would copy half of the next record
//! between two equal tags.
//!
//! The host has `core::sync::atomic`. Its loads are relaxed ones and fences, for no other atomic load may
//! touch memory that is mapped read-only. The BPF target has atomic read-modify-write operations as compiler
//! intrinsics only, and plain loads and stores, which are whole for aligned words. Those operations that
//! return a value are full barriers in the kernel's memory model on every architecture
//! (Documentation/atomic_t.txt, "fully ordered"). BPF's own loads that acquire and stores that release (Linux
//! 6.15) are not used: older kernels refuse a program with one, and no packet that only counts needs an order.
//!
//! BPF has no fences, so only the host can name one. `tests/model` checks all of this with every order that
//! C11 allows, and that no order can be left out.

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

            /// The word as it is.
            #[inline(always)]
            pub fn load(&self) -> $word {
                self.0.load()
            }

            /// Writes the word.
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

    /// Writes 0: gives what the word guards. What has to be seen by then was written before the latest
    /// [`swap`](Self::swap) or exchange of the same CPU, which ordered it.
    #[inline(always)]
    pub fn release(&self) {
        self.0.release();
    }

    /// Writes the word behind all that the same CPU wrote before, and before all that it writes after.
    #[inline(always)]
    pub fn store_in_order(&self, value: u64) {
        self.0.store_in_order(value);
    }

    /// The word as it is, and what is read after it is read after it.
    #[inline(always)]
    pub fn load_in_order(&self) -> u64 {
        self.0.load_in_order()
    }
}

#[cfg(not(target_arch = "bpf"))]
use crate::atomic;
#[cfg(target_arch = "bpf")]
use bpf::{Cell, atomic};
#[cfg(not(target_arch = "bpf"))]
use host::Cell;

/// Orders the loads before it before the loads and stores after it.
#[cfg(not(target_arch = "bpf"))]
#[inline(always)]
pub fn read_fence() {
    atomic::fence(atomic::Ordering::Acquire);
}

#[cfg(not(target_arch = "bpf"))]
mod host {
    use core::marker::PhantomData;

    use crate::atomic::{AtomicU32, AtomicU64, Ordering, fence};

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
            fence(Ordering::Release);
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
        #[inline(always)]
        pub(super) fn store_in_order(&self, value: u64) {
            fence(Ordering::Release);
            self.store(value);
            fence(Ordering::Release);
        }
        #[inline(always)]
        pub(super) fn load_in_order(&self) -> u64 {
            let word = self.load();
            fence(Ordering::Acquire);
            word
        }
    }
}

#[cfg(target_arch = "bpf")]
mod bpf {
    use core::cell::UnsafeCell;
    use core::intrinsics::{AtomicOrdering, atomic_cxchg, atomic_or, atomic_xadd, atomic_xchg};
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
        #[inline(always)]
        pub(super) fn store_in_order(&self, value: u64) {
            if keeps_order() {
                self.store(value);
            } else {
                self.swap(value);
            }
        }
        #[inline(always)]
        pub(super) fn load_in_order(&self) -> u64 {
            if keeps_order() {
                return self.load();
            }
            // SAFETY: the cell is aligned and alive.
            unsafe { atomic_or::<u64, u64, { AtomicOrdering::SeqCst }>(self.0.get(), 0) }
        }
    }

    /// Whether this machine lets every CPU see the stores of another in their order, and keeps that of loads.
    /// The agent says so before it loads, and the verifier leaves out what the machine does not need. An
    /// object that was told nothing has the barriers.
    #[unsafe(no_mangle)]
    static HANDSHAKE_KEEPS_ORDER: u64 = 0;

    #[inline(always)]
    fn keeps_order() -> bool {
        // SAFETY: a static is there and aligned; volatile keeps the compiler from taking its value for known.
        unsafe { (&raw const HANDSHAKE_KEEPS_ORDER).read_volatile() != 0 }
    }
}
