//! The owners as a report asks for them: one book for the whole run, and an empty one where there is no tree.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::{Owner, Owners};

/// Names the owners of control groups by their ids. Copies are one book.
#[derive(Clone, Debug, Default)]
pub struct OwnerBook {
    owners: Option<Arc<Mutex<Owners>>>,
    /// Those that a recording has.
    fixed: HashMap<u64, Arc<Owner>>,
}

impl OwnerBook {
    /// Of this machine, and begins to read the tree; empty where no tree of cgroup v2 is mounted.
    #[must_use]
    pub fn open() -> Self {
        let owners = Owners::open().ok().map(|owners| Arc::new(Mutex::new(owners)));
        let book = Self { owners, fixed: HashMap::new() };
        book.refresh();
        book
    }

    /// These owners, by the ids of their groups.
    #[must_use]
    pub fn fixed(owners: impl IntoIterator<Item = (u64, Owner)>) -> Self {
        let fixed = owners.into_iter().map(|(group, owner)| (group, Arc::new(owner))).collect();
        Self { owners: None, fixed }
    }

    /// The owner of a group, as far as it is known by now; a later question may know more.
    #[must_use]
    pub fn of(&self, group: u64) -> Option<Arc<Owner>> {
        if let Some(owner) = self.fixed.get(&group) {
            return Some(Arc::clone(owner));
        }
        self.ask(|owners| owners.of(group, Instant::now()))?
    }

    /// Reads on in the tree, so that groups that live shortly are known when they are asked for.
    pub fn refresh(&self) {
        self.ask(|owners| owners.refresh(Instant::now()));
    }

    fn ask<T>(&self, ask: impl FnOnce(&mut Owners) -> T) -> Option<T> {
        let owners = self.owners.as_ref()?;
        Some(ask(&mut owners.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}
