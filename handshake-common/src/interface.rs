//! The interface table: which interfaces are watched, and what the programs must know of each. The agent
//! writes it while programs run; a program looks for the interface of each packet.
//!
//! ```text
//! a row of the map INTERFACES, one word; 0 where it is free
//! 63         32 31     17 16      15     14    13       4 3     1 0
//! │ index      │         │ known │ open │ raw │ number   │ group │ egress │
//! ```
//!
//! The row is found by a hash of the index: a multiplication spreads the kernel's indexes, which follow each
//! other, over the table (Knuth, The Art of Computer Programming, volume 3, section 6.4). An interface whose
//! first row is taken stands in one of the next, and a search looks at all of these: rows are freed and taken
//! in any order.

use crate::abi::MAX_INTERFACES;
use crate::{low_half, opaque};

/// Rows of the table: twice the interfaces, so that most stand in their first row.
pub const INTERFACE_ROWS: u32 = 2048;
/// Rows that an index may stand in.
pub const INTERFACE_PLACES: u32 = 32;
/// Groups of interfaces: a hook point is a nibble of the record, and one value means "none yet".
pub const GROUPS: usize = 7;

/// The upper bits of the product that choose among the rows.
const ROW_SHIFT: u32 = u32::BITS - INTERFACE_ROWS.trailing_zeros();
/// 2³² divided by the golden ratio.
const SPREAD: u32 = 0x9e37_79b1;
const INDEX_SHIFT: u32 = 32;
/// The hook point is the lowest nibble: a program has it without a register of its own.
const EGRESS: u32 = 1;
const GROUP_SHIFT: u32 = 1;
const GROUP: u32 = 7;
const POINT: u32 = 0xf;
const NUMBER_SHIFT: u32 = 4;
const NUMBER: u32 = (1 << 10) - 1;
const RAW: u32 = 1 << 14;
const OPEN: u32 = 1 << 15;
const KNOWN: u32 = 1 << 16;

const _: () = assert!(MAX_INTERFACES == NUMBER as usize + 1 && RAW == (NUMBER + 1) << NUMBER_SHIFT);
const _: () = assert!(INTERFACE_ROWS.is_power_of_two() && GROUPS <= GROUP as usize);

/// The hook point of a group of interfaces and a direction. The interfaces of a group are one place: where
/// the same segment is seen twice in one direction, it is a copy.
#[inline(always)]
#[must_use]
pub const fn point(group: u8, egress: bool) -> u8 {
    group << 1 | egress as u8
}

/// A row that an index may stand in, by its place among those.
#[inline(always)]
#[must_use]
pub const fn row_of(index: u32, place: u32) -> u32 {
    (index.wrapping_mul(SPREAD) >> ROW_SHIFT).wrapping_add(place) & (INTERFACE_ROWS - 1)
}

/// What the programs know of an interface: the lower half of its row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interface(pub u32);

impl Interface {
    /// An interface whose gate is closed. `number` chooses its class block, `raw` says that its frames begin
    /// at the IP header.
    #[must_use]
    pub const fn new(number: u16, group: u8, raw: bool) -> Self {
        let raw = if raw { RAW } else { 0 };
        let (number, group) = (number as u32 & NUMBER, group as u32 & GROUP);
        Self(number << NUMBER_SHIFT | group << GROUP_SHIFT | raw | KNOWN)
    }

    /// The same with its gate open, or closed: attempts begin once all its hooks are on. Before, half of a
    /// handshake may have passed unseen.
    #[must_use]
    pub const fn with_gate(self, open: bool) -> Self {
        Self(self.0 & !OPEN | if open { OPEN } else { 0 })
    }

    /// The same, seen by a hook for what leaves or for what comes in. One word from then on: the compiler
    /// would keep the number and the point apart, and each takes a place on BPF's stack.
    #[inline(always)]
    #[must_use]
    pub fn at(self, egress: bool) -> Self {
        Self(low_half(opaque((self.0 | if egress { EGRESS } else { 0 }) as u64)))
    }

    /// What a row says of the interface with this index, if it is that one's.
    #[inline(always)]
    #[must_use]
    pub const fn of_row(row: u64, index: u32) -> Option<Self> {
        if row >> INDEX_SHIFT == index as u64 { Some(Self(low_half(row))) } else { None }
    }

    /// The row of the interface with this index.
    #[must_use]
    pub const fn row(self, index: u32) -> u64 {
        (index as u64) << INDEX_SHIFT | self.0 as u64
    }

    /// Is it in the table?
    #[inline(always)]
    #[must_use]
    pub const fn is_known(self) -> bool {
        self.0 & KNOWN != 0
    }

    /// Where its packets are counted by class.
    #[inline(always)]
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0 >> NUMBER_SHIFT & NUMBER
    }

    /// The hook point.
    #[inline(always)]
    #[must_use]
    pub const fn point(self) -> u8 {
        (self.0 & POINT) as u8
    }

    /// Do its frames begin at the IP header?
    #[inline(always)]
    #[must_use]
    pub const fn is_raw(self) -> bool {
        self.0 & RAW != 0
    }

    /// Do attempts begin there?
    #[inline(always)]
    #[must_use]
    pub const fn is_open(self) -> bool {
        self.0 & OPEN != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::NO_POINT;

    #[test]
    fn a_row_gives_back_what_it_was_made_of() {
        for (number, group, raw) in [(0, 0, false), (1023, 6, true), (7, 3, false)] {
            let interface = Interface::new(number, group, raw);
            assert!(interface.is_known() && !interface.is_open());
            let open = interface.with_gate(true);
            let found = Interface::of_row(open.row(0xffff_fffe), 0xffff_fffe).expect("it is this one's");
            assert_eq!(found, open);
            assert_eq!((found.number(), found.is_raw(), found.is_open()), (u32::from(number), raw, true));
            assert_eq!(
                (found.at(false).point(), found.at(true).point()),
                (point(group, false), point(group, true))
            );
            assert!(found.at(true).point() < NO_POINT);
            assert_eq!(found.with_gate(false), interface);
            assert_eq!(Interface::of_row(open.row(5), 6), None);
        }
        assert!(!Interface::default().is_known());
    }

    /// The kernel numbers interfaces one after the other: a thousand that follow each other, with and without
    /// gaps, have nearly all a row of their own.
    #[test]
    fn indexes_that_follow_each_other_rarely_share_a_row() {
        for (first, step) in [(1, 1), (1_000_000, 1), (2, 2), (7, 3), (1, 2048)] {
            let mut taken = [0_u8; INTERFACE_ROWS as usize];
            let rows = (0..1024_u32).map(|each| row_of(each.wrapping_mul(step).wrapping_add(first), 0));
            let mut shared = 0;
            for row in rows {
                shared += u32::from(taken[row as usize] > 0);
                taken[row as usize] += 1;
            }
            assert!(shared <= 256, "from {first} by {step}: {shared} share a row");
            assert!(taken.iter().all(|taken| *taken <= 4), "from {first} by {step}");
        }
    }

    #[test]
    fn the_rows_of_an_index_follow_each_other_around_the_table() {
        for index in [1, 2, 2047, u32::MAX] {
            let rows = [0, 1, INTERFACE_PLACES - 1].map(|place| row_of(index, place));
            assert!(rows.iter().all(|row| *row < INTERFACE_ROWS));
            assert_eq!((rows[0] + 1) % INTERFACE_ROWS, rows[1]);
        }
    }
}
