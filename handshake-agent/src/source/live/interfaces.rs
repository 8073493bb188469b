//! The watched interfaces as the programs look them up: which row of the table each has, and which class
//! block. Pure; [`Live`](super::Live) writes the rows and reads the blocks.
//!
//! A block is never cleared, because the programs alone write it. What it had counted when an interface got
//! its number is taken off, and what an interface counted stays in the sum of those that are gone.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use handshake_common::abi::{CLASS_WORDS, ClassBlock};
use handshake_common::interface::{INTERFACE_PLACES, Interface, row_of};

use crate::source::settings::WatchedInterface;

/// How long a program that was just taken off an interface may still count there: far less.
const SETTLED_AFTER: Duration = Duration::from_millis(100);

/// The interfaces in the table, and those that were.
pub(super) struct Interfaces {
    /// In the order in which they came.
    watched: Vec<TableEntry>,
    /// Those that left a moment ago: their blocks are not final.
    leaving: Vec<(Instant, TableEntry)>,
    /// Numbers that nothing has; those that were never used come first.
    free: VecDeque<u16>,
    rows: BTreeSet<u32>,
    /// The packets of all that left, but for those in `leaving`.
    gone: ClassBlock,
}

/// An interface in the table.
#[derive(Clone, Debug)]
pub(super) struct TableEntry {
    /// The number of its class block.
    pub(super) number: u16,
    /// Its row in the table.
    pub(super) row: u32,
    index: u32,
    facts: Interface,
    /// What its block had counted before.
    before: ClassBlock,
}

impl TableEntry {
    /// What the row says.
    pub(super) const fn word(&self) -> u64 {
        self.facts.row(self.index)
    }

    fn counted(&self, block: &ClassBlock) -> ClassBlock {
        let mut packets = block.packets;
        packets.iter_mut().zip(self.before.packets).for_each(|(now, before)| *now = now.wrapping_sub(before));
        ClassBlock { packets }
    }
}

const NONE: ClassBlock = ClassBlock { packets: [0; CLASS_WORDS] };

impl Interfaces {
    /// An empty table with so many class blocks.
    pub(super) fn new(blocks: u16) -> Self {
        Self {
            watched: Vec::new(),
            leaving: Vec::new(),
            free: (0..blocks).collect(),
            rows: BTreeSet::new(),
            gone: NONE,
        }
    }

    /// The number that the next interface gets; `None` if there is no room.
    pub(super) fn next_number(&self) -> Option<u16> {
        self.free.front().copied()
    }

    /// Adds an interface, whose gate is closed. `before` is what the block of the next number has counted.
    /// `None` if there is no row or no number for it.
    pub(super) fn enter(&mut self, interface: WatchedInterface, before: ClassBlock) -> Option<&TableEntry> {
        let WatchedInterface { index, group, raw } = interface;
        let row =
            (0..INTERFACE_PLACES).map(|place| row_of(index, place)).find(|row| !self.rows.contains(row))?;
        let number = self.free.pop_front()?;
        self.rows.insert(row);
        let facts = Interface::new(number, group, raw);
        self.watched.push(TableEntry { number, row, index, facts, before });
        self.watched.last()
    }

    /// Opens or closes the gate of an interface. `None` if nothing changes.
    pub(super) fn set_gate(&mut self, number: u16, open: bool) -> Option<&TableEntry> {
        let entry = self.watched.iter_mut().find(|entry| entry.number == number)?;
        if entry.facts.is_open() == open {
            return None;
        }
        entry.facts = entry.facts.with_gate(open);
        Some(entry)
    }

    /// Removes an interface. Returns its row, which is free from then on.
    pub(super) fn leave(&mut self, number: u16, now: Instant) -> Option<u32> {
        let place = self.watched.iter().position(|entry| entry.number == number)?;
        let entry = self.watched.remove(place);
        let row = entry.row;
        self.rows.remove(&row);
        self.leaving.push((now, entry));
        Some(row)
    }

    /// The packets of each interface, in the order in which they came, and of all that left. `read` reads the
    /// block of a number.
    pub(super) fn count<E>(
        &mut self,
        now: Instant,
        mut read: impl FnMut(u16) -> Result<ClassBlock, E>,
    ) -> Result<(Vec<ClassBlock>, ClassBlock), E> {
        let watched = self.watched.iter().map(|entry| Ok(entry.counted(&read(entry.number)?)));
        let watched = watched.collect::<Result<Vec<_>, E>>()?;
        let mut recent = NONE;
        for (left, entry) in std::mem::take(&mut self.leaving) {
            let counted = read(entry.number).map(|block| entry.counted(&block));
            let is_settled = now.saturating_duration_since(left) >= SETTLED_AFTER;
            match counted {
                Ok(counted) if is_settled => {
                    super::add(&mut self.gone.packets, &counted.packets);
                    self.free.push_back(entry.number);
                    continue;
                }
                Ok(counted) => super::add(&mut recent.packets, &counted.packets),
                Err(_) => {}
            }
            self.leaving.push((left, entry));
            counted?;
        }
        super::add(&mut recent.packets, &self.gone.packets);
        Ok((watched, recent))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const fn interface(index: u32) -> WatchedInterface {
        WatchedInterface { index, group: 0, raw: false }
    }

    fn block(packets: u64) -> ClassBlock {
        let mut block = NONE;
        block.packets[7] = packets;
        block
    }

    /// The blocks of a kernel, of which only the sum matters.
    #[derive(Default)]
    struct Blocks(BTreeMap<u16, u64>);

    impl Blocks {
        fn read(&self, number: u16) -> Result<ClassBlock, ()> {
            Ok(block(self.0.get(&number).copied().unwrap_or(0)))
        }

        fn count(&self, interfaces: &mut Interfaces, now: Instant) -> (Vec<u64>, u64) {
            let (watched, gone) =
                interfaces.count(now, |number| self.read(number)).expect("they can be read");
            (watched.iter().map(|block| block.packets[7]).collect(), gone.packets[7])
        }
    }

    fn enter(interfaces: &mut Interfaces, blocks: &Blocks, index: u32) -> u16 {
        let next = interfaces.next_number().expect("a number is free");
        let before = blocks.read(next).expect("they can be read");
        interfaces.enter(interface(index), before).expect("there is room").number
    }

    #[test]
    fn packets_stay_with_their_interface_and_those_of_one_that_is_gone_in_the_sum() {
        let start = Instant::now();
        let (mut interfaces, mut blocks) = (Interfaces::new(2), Blocks::default());
        let first = enter(&mut interfaces, &blocks, 10);
        let second = enter(&mut interfaces, &blocks, 11);
        assert!(interfaces.enter(interface(12), NONE).is_none(), "there are two numbers");
        blocks.0.extend([(first, 5), (second, 7)]);
        assert_eq!(blocks.count(&mut interfaces, start), (vec![5, 7], 0));
        assert!(interfaces.leave(first, start).is_some());
        assert_eq!(blocks.count(&mut interfaces, start), (vec![7], 5));
        assert_eq!(interfaces.next_number(), None, "its program may still be running");
        // A program that was running.
        blocks.0.insert(first, 6);
        let later = start + SETTLED_AFTER;
        assert_eq!(blocks.count(&mut interfaces, later), (vec![7], 6));
        assert_eq!(enter(&mut interfaces, &blocks, 12), first, "the number is free again");
        assert_eq!(blocks.count(&mut interfaces, later), (vec![7, 0], 6));
        blocks.0.insert(first, 16);
        assert_eq!(blocks.count(&mut interfaces, later), (vec![7, 10], 6));
        assert!(interfaces.leave(first, later).is_some());
        assert_eq!(blocks.count(&mut interfaces, later + SETTLED_AFTER), (vec![7], 16));
    }

    #[test]
    fn a_block_that_cannot_be_read_is_read_the_next_time() {
        let start = Instant::now();
        let (mut interfaces, mut blocks) = (Interfaces::new(1), Blocks::default());
        let number = enter(&mut interfaces, &blocks, 1);
        blocks.0.insert(number, 3);
        interfaces.leave(number, start).expect("it is there");
        let later = start + SETTLED_AFTER;
        assert!(interfaces.count(later, |_| Err(())).is_err());
        assert_eq!(blocks.count(&mut interfaces, later), (vec![], 3));
    }

    #[test]
    fn interfaces_whose_first_row_is_the_same_stand_in_rows_of_their_own() {
        let mut interfaces = Interfaces::new(100);
        let same: Vec<u32> = (1..).filter(|index| row_of(*index, 0) == row_of(1, 0)).take(33).collect();
        let places = usize::try_from(INTERFACE_PLACES).expect("a small number");
        let entered = |index: &u32| interfaces.enter(interface(*index), NONE).map(|entry| entry.row);
        let rows: Vec<Option<u32>> = same.iter().map(entered).collect();
        let taken: BTreeSet<u32> = rows.iter().flatten().copied().collect();
        assert_eq!((taken.len(), rows[places]), (places, None), "there is no row for one more");
        let number = interfaces.watched[3].number;
        let row = interfaces.leave(number, Instant::now()).expect("it is there");
        let again = interfaces.enter(interface(same[places]), NONE).expect("a row is free");
        assert_eq!(again.row, row);
    }

    #[test]
    fn a_gate_changes_its_row_alone_and_once() {
        let mut interfaces = Interfaces::new(2);
        let number = interfaces.enter(interface(5), NONE).expect("there is room").number;
        let closed = interfaces.watched[0].word();
        let open = interfaces.set_gate(number, true).expect("it changes").word();
        assert_ne!(open, closed);
        assert!(interfaces.set_gate(number, true).is_none());
        assert_eq!(interfaces.set_gate(number, false).expect("it changes").word(), closed);
        assert!(interfaces.set_gate(number + 1, true).is_none());
    }
}
