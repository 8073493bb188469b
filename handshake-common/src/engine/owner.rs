//! Whose an attempt is: the control group of the socket that sent its SYN, and of the one that sent its SYN+ACK,
//! and where that is asked for the processes that made them.
//!
//! The kernel tells it at TC of a packet that a socket of this host has sent, wherever it passes on its way
//! between namespaces, and not once it was routed. The groups are kept beside the record; each has a row for
//! what it began, and one for what it was asked, with the gauges of a service.

use super::service::{first_row_of_workload, row_of_workload, workload_that_counts};
use super::{Lookup, NewOwner, Platform, Table};
use crate::abi::{ControlGroups, Counter, MAKER_WORDS, WAYS, WORKLOAD, address_of_group, tag};
use crate::books::ServiceKey;
use crate::flow::{Family, Side};
use crate::record::State;
use crate::table::{MakerWords, Tag};
use crate::wire::{Class, quote};

/// The key of the row of a control group on this side of its attempts.
#[inline(always)]
fn workload(group: u64, side: usize) -> ServiceKey {
    ServiceKey::new(address_of_group(group), u16::from(side != 0), WORKLOAD, 0)
}

/// Notes the control group that sent the packet as the owner of an end of a record, and the maker of its socket,
/// and counts the record in the group's row, in which it stands at a gauge. The first owner of an end stays. The
/// slot is locked.
#[inline(always)]
pub fn attribute<P: Platform>(platform: &P, family: Family, number: u32, end: NewOwner) {
    let Some(owners) = platform.owners(family, number) else { return };
    let (group, side) = (platform.control_group(), end.side());
    let makers = platform.makers(family, number);
    if end.is_first() {
        owners[1 - side].store(0);
        if let Some(makers) = makers {
            makers[(1 - side) * MAKER_WORDS].store(0);
        }
    } else if owners[side].load() != 0 || makers.is_some_and(|makers| makers[side * MAKER_WORDS].load() != 0)
    {
        return;
    }
    owners[side].store(group);
    if let Some(makers) = makers {
        let ([pid, name, rest], first) = (platform.maker(), side * MAKER_WORDS);
        makers[first].store(pid);
        makers[first + 1].store(name);
        makers[first + 2].store(rest);
    }
    if group == 0 {
        return;
    }
    if let Some(row) = row_of_workload(platform, &workload(group, side)) {
        row.bump(Counter::Attempts as usize, 1);
        row.bump(end.gauge(), 1);
    }
}

/// Moves a record that is [`tag::ATTRIBUTED`] from one gauge to another in the rows of its owners. The slot is
/// locked.
#[inline(always)]
pub fn move_owned<P: Platform>(platform: &P, family: Family, number: u32, from: usize, to: usize) {
    let Some(owners) = platform.owners(family, number) else { return };
    let mut side = 0;
    while side < 2 {
        let group = owners[side].load();
        if group != 0
            && let Some(row) = workload_that_counts(platform, &workload(group, side), from)
        {
            row.bump(from, u64::MAX);
            row.bump(to, 1);
        }
        side += 1;
    }
}

impl<P: Platform> Lookup<'_, P> {
    /// Notes the owner of the packet's sender, if it is known and the record is an attempt's: returns the record's
    /// [`tag::ATTRIBUTED`], which was `before`.
    #[inline(always)]
    pub(super) fn attribute<S: Table>(&self, number: u32, side: Side, before: u64, state: State) -> u64 {
        let class = self.packet.class;
        let opens = class == Class::Syn as u8 || class == Class::SynAck as u8;
        if !opens || self.packet.quote != quote::NONE {
            return before;
        }
        if self.platform.control_group() == 0 && self.platform.maker()[0] == 0 {
            return before;
        }
        if !state.is_attempt() {
            return before;
        }
        let (is_first, gauge) = (before == 0, state.gauge_place());
        if !self.attribute_straight::<S>(number, side, is_first, gauge) {
            self.platform.attribute(S::FAMILY, number, NewOwner::new(side, is_first, gauge));
        }
        tag::ATTRIBUTED
    }

    /// Has memory fetch the owners of both sets while it fetches the sets: the owner is written before an atomic
    /// operation, which waits for it.
    #[inline(always)]
    pub(super) fn fetch_owners<S: Table>(&self, places: [u32; 2]) {
        if self.platform.control_group() == 0 {
            return;
        }
        // The owners of a set lie side by side.
        for place in places {
            if let Some(owners) = self.platform.owners(S::FAMILY, place * WAYS) {
                owners[0].load();
            }
        }
    }

    /// Does what [`attribute`] does, where only groups are kept and that of the packet has the first of the rows
    /// that it may have; else nothing, and says `false`.
    #[inline(always)]
    fn attribute_straight<S: Table>(&self, number: u32, side: Side, is_first: bool, gauge: usize) -> bool {
        if self.platform.makers(S::FAMILY, number).is_some() {
            return false;
        }
        let (group, side) = (self.platform.control_group(), side as usize);
        let Some(owners) = self.platform.owners(S::FAMILY, number) else { return false };
        // The first owner of an end stays.
        if !is_first && owners[side].load() != 0 {
            return true;
        }
        let Some(row) = first_row_of_workload(self, &workload(group, side)) else { return false };
        if is_first {
            owners[1 - side].store(0);
        }
        owners[side].store(group);
        row.bump(Counter::Attempts as usize, 1);
        row.bump(gauge, 1);
        true
    }

    /// Has the packet the number that the record has of this side? Another SYN, or an answer that fits no SYN, may
    /// be a stranger's, whose socket owns nothing of the attempt.
    #[inline(always)]
    pub(super) fn is_of_attempt<S: Table>(&self, slot: &S, side: Side) -> bool {
        let record = slot.body().tcp();
        let number = if let Side::Initiator = side { record.isn_initiator } else { record.isn_responder };
        self.packet.seq == number
    }

    /// The owners of a record.
    #[inline(always)]
    pub(super) fn owners_of<S: Table>(&self, number: u32, tag: Tag) -> ControlGroups {
        if !tag.is_attributed() {
            return ControlGroups::default();
        }
        let Some(owners) = self.platform.owners(S::FAMILY, number) else { return ControlGroups::default() };
        ControlGroups { ids: [owners[0].load(), owners[1].load()] }
    }

    /// The makers of a record.
    #[inline(always)]
    pub(super) fn makers_of<S: Table>(&self, number: u32, tag: Tag) -> Option<&MakerWords> {
        if tag.is_attributed() { self.platform.makers(S::FAMILY, number) } else { None }
    }

    /// Moves a record in the rows of its owners, if it has any.
    #[inline(always)]
    pub(super) fn move_owned<S: Table>(&self, number: u32, tag: Tag, from: usize, to: usize) {
        if tag.is_attributed() && from != to {
            self.platform.move_owned(S::FAMILY, number, from, to);
        }
    }
}
