//! Whose the ends of flows are, for one picture: each control group is asked for once, because the answer is read
//! in the tree of groups. The next picture asks again, and may know more.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use handshake_agent::owner::{Owner, OwnerBook};
use handshake_common::flow::Side;
use handshake_common::record::Record;

/// The owners of the groups that were asked for.
#[derive(Debug, Default)]
pub(crate) struct Owners {
    book: OwnerBook,
    known: RefCell<HashMap<u64, Option<Arc<Owner>>>>,
}

impl Owners {
    /// Of a run's book.
    pub(crate) fn of_book(book: &OwnerBook) -> Self {
        Self { book: book.clone(), known: RefCell::default() }
    }

    /// Whose an end is, as far as it is known; `None` for the root of all groups, which says nothing.
    pub(crate) fn of(&self, record: &Record, side: Side) -> Option<Arc<Owner>> {
        let group = record.control_groups.ids[side as usize];
        self.known(group).filter(|owner| !owner.is_root())
    }

    fn known(&self, group: u64) -> Option<Arc<Owner>> {
        if group == 0 {
            return None;
        }
        self.known.borrow_mut().entry(group).or_insert_with(|| self.book.of(group)).clone()
    }

    /// Whether an end has a group whose owner is not known: a later picture may know it.
    pub(crate) fn may_know_more(&self, record: &Record) -> bool {
        record.control_groups.ids.iter().any(|group| *group != 0 && self.known(*group).is_none())
    }
}
