//! Atomic words of the model, and faults for the tests that want the check to fail.
//!
//! A word has the size of the host's, for the layouts are asserted, and a `const` constructor; loom's has
//! neither. So a word is only the place of one of loom's, which is made when it is first touched.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::panic::Location;
use std::ptr;
use std::rc::Rc;

pub(crate) use loom::sync::atomic::Ordering;

/// What is broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// There are no acquire fences: a reader's loads have no order.
    NoReadFence,
    /// There are no release fences: the stores behind a taken slot or a marker may be seen before it.
    NoWriteFence,
    /// A word is taken by a load and a store.
    NoExchange,
    /// What stands in this line of `shared.rs` has no order: a fence is none, an exchange or a swap is relaxed.
    NoOrderIn(u32),
}

thread_local! {
    /// Loom runs all threads of a model on the one that runs the test.
    static FAULT: Cell<Fault> = const { Cell::new(Fault::None) };
    /// Loads give the latest value only.
    static IN_ORDER: Cell<bool> = const { Cell::new(false) };
    /// Loom's words, by the addresses of ours.
    static WORDS: RefCell<HashMap<usize, Rc<dyn Any>>> = RefCell::default();
}

/// Forgets the words of a run, whose memory is gone.
pub(crate) fn forget() {
    let words = WORDS.take();
    drop(words);
}

/// Breaks the words of this test.
pub(crate) fn inject(fault: Fault) {
    FAULT.set(fault);
}

/// From here on this test's loads give the latest value: all orders of accesses, but not all orders of
/// memory, for scenarios that read so much beside each other that loom would never end.
pub(crate) fn keep_memory_in_order() {
    IN_ORDER.set(true);
}

fn strengthen(order: Ordering) -> Ordering {
    if IN_ORDER.get() { Ordering::AcqRel } else { order }
}

/// Is the order of the line that asks for it left out?
fn is_left_out(by: &Location<'_>) -> bool {
    FAULT.get() == Fault::NoOrderIn(by.line()) && by.file().ends_with("shared.rs")
}

/// A fence, unless it is the fault that there is none.
#[track_caller]
pub(crate) fn fence(order: Ordering) {
    let is_missing = match FAULT.get() {
        Fault::NoReadFence => order == Ordering::Acquire,
        Fault::NoWriteFence => order == Ordering::Release,
        Fault::NoOrderIn(_) => is_left_out(Location::caller()),
        Fault::None | Fault::NoExchange => false,
    };
    if !is_missing {
        loom::sync::atomic::fence(order);
    }
}

macro_rules! word {
    ($name:ident, $word:ty) => {
        #[repr(transparent)]
        pub(crate) struct $name($word);

        impl $name {
            pub(crate) const fn new(value: $word) -> Self {
                Self(value)
            }
            /// Loom's word. The map is not borrowed while it is used: then loom may run another thread.
            fn word(&self) -> Rc<loom::sync::atomic::$name> {
                let make = || Rc::new(loom::sync::atomic::$name::new(self.0)) as Rc<dyn Any>;
                let address = ptr::from_ref(self).addr();
                let word =
                    WORDS.with_borrow_mut(|words| Rc::clone(words.entry(address).or_insert_with(make)));
                word.downcast().expect("memory keeps its type for a run")
            }
            pub(crate) fn load(&self, order: Ordering) -> $word {
                if IN_ORDER.get() {
                    return self.word().fetch_add(0, Ordering::AcqRel);
                }
                self.word().load(order)
            }
            #[track_caller]
            pub(crate) fn store(&self, value: $word, order: Ordering) {
                let order = if is_left_out(Location::caller()) { Ordering::Relaxed } else { order };
                if IN_ORDER.get() {
                    self.word().swap(value, Ordering::AcqRel);
                } else {
                    self.word().store(value, order);
                }
            }
            pub(crate) fn fetch_add(&self, value: $word, order: Ordering) -> $word {
                self.word().fetch_add(value, strengthen(order))
            }
        }
    };
}
word!(AtomicU32, u32);
word!(AtomicU64, u64);

impl AtomicU64 {
    #[track_caller]
    pub(crate) fn compare_exchange(
        &self,
        old: u64,
        new: u64,
        yes: Ordering,
        no: Ordering,
    ) -> Result<u64, u64> {
        if FAULT.get() == Fault::NoExchange {
            let found = self.load(yes);
            if found == old {
                self.store(new, Ordering::Release);
            }
            return if found == old { Ok(old) } else { Err(found) };
        }
        let yes = if is_left_out(Location::caller()) { Ordering::Relaxed } else { strengthen(yes) };
        self.word().compare_exchange(old, new, yes, no)
    }
    #[track_caller]
    pub(crate) fn swap(&self, new: u64, order: Ordering) -> u64 {
        let order = if is_left_out(Location::caller()) { Ordering::Relaxed } else { strengthen(order) };
        self.word().swap(new, order)
    }
}
