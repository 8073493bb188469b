//! A scan as rows of words, and back: what a recording has of it.

use std::collections::HashSet;
use std::sync::Arc;

use handshake_common::abi::CONNECT_WORDS;
use handshake_common::flow::Side;
use handshake_common::record::{Clocks, Detail, Now, Record};

use super::{Ages, ByCause, BySeat, Candidate, Flagged, LostHere, LostPath, Scan};
use crate::delta::{Rows, Taking, Worded, worded};
use crate::source::local::HostAddresses;

/// The kinds of a scan's rows.
mod kind {
    pub(super) const SCAN: u8 = 0x20;
    pub(super) const AGES: u8 = 0x21;
    pub(super) const BUCKETS: u8 = 0x22;
    pub(super) const BY_ROW: u8 = 0x23;
    pub(super) const WORKLOADS: u8 = 0x24;
    pub(super) const LOST: u8 = 0x25;
    pub(super) const LEFT: u8 = 0x26;
}

worded!(Flagged { all, with, seats });
worded!(Ages { opening, half_open, expired, never_repeated, repeated, gave_up, seats, pending, silent });

impl Worded for ByCause {
    fn put(&self, to: &mut Vec<u64>) {
        self.0.put(to);
    }

    fn take(from: &mut Taking<'_>) -> Option<Self> {
        Worded::take(from).map(Self)
    }
}

impl Worded for BySeat {
    fn put(&self, to: &mut Vec<u64>) {
        self.0.put(to);
    }

    fn take(from: &mut Taking<'_>) -> Option<Self> {
        Worded::take(from).map(Self)
    }
}

impl Worded for LostPath {
    fn put(&self, to: &mut Vec<u64>) {
        let [from, over] = match *self {
            Self::Syn(from) => [from, usize::MAX],
            Self::SynAck(from, over) => [from, over],
        };
        to.extend([from as u64, over as u64]);
    }

    fn take(from: &mut Taking<'_>) -> Option<Self> {
        let [group, over] = [usize::try_from(from.word()?).ok()?, usize::try_from(from.word()?).ok()?];
        Some(if over == usize::MAX { Self::Syn(group) } else { Self::SynAck(group, over) })
    }
}

impl Scan {
    /// Puts it into rows; `shown` are the records that go with it.
    pub(crate) fn keep<'a>(&self, rows: &mut Rows, shown: impl Iterator<Item = &'a Record>) {
        let [young, old] = self.flagged.map(|flagged| flagged.to_vec());
        rows.set(kind::SCAN, 0, &(self.used, (young, old)));
        for (counts, row) in self.rows.iter().zip(0..).filter(|(row, _)| row.ages != Ages::default()) {
            rows.set(kind::AGES, row, &counts.ages);
        }
        for (ages, old) in self.ages.iter().zip(0..) {
            rows.set_words(kind::BUCKETS, old, ages.iter().flat_map(|ages| ages.iter().copied()).collect());
        }
        for (counts, row) in self.rows.iter().zip(0_u64..) {
            let both = counts.by_place.iter().flat_map(|both| both.iter().zip(0..));
            for (ages, old) in both.filter(|(ages, _)| ages.iter().any(|age| *age != 0)) {
                rows.set_words(kind::BY_ROW, row << 1 | old, ages.to_vec());
            }
        }
        for ((group, side), ages) in &self.workloads.ages {
            rows.set(kind::WORKLOADS, group << 1 | *side as u64, ages);
        }
        self.lost.keep(rows, shown);
    }

    /// Takes it out of rows; `None` where they hold none.
    pub(crate) fn kept(rows: &Rows, now: Now, clocks: Clocks, host: Arc<HostAddresses>) -> Option<Self> {
        let (used, (young, old)): (u64, (Vec<Flagged>, Vec<Flagged>)) = rows.get(kind::SCAN, 0)?;
        let mut scan = Self::at(now, clocks, host);
        scan.used = used;
        scan.flagged = [young.try_into().ok()?, old.try_into().ok()?];
        for (row, ages) in rows.each::<Ages>(kind::AGES)? {
            let row = usize::from(u16::try_from(row).ok()?);
            Self::row_mut(&mut scan.rows, row).ages = ages;
        }
        for (old, ages) in rows.each_words(kind::BUCKETS) {
            let ages = if ages.is_empty() { None } else { Some(Box::new(ages.try_into().ok()?)) };
            *scan.ages.get_mut(usize::try_from(old).ok()?)? = ages;
        }
        for (number, ages) in rows.each_words(kind::BY_ROW) {
            let ages: [u64; CONNECT_WORDS] = ages.try_into().ok()?;
            let row = usize::from(u16::try_from(number >> 1).ok()?);
            Self::row_mut(&mut scan.rows, row).by_place()[usize::from(number & 1 != 0)] = ages;
        }
        for (number, ages) in rows.each::<Ages>(kind::WORKLOADS)? {
            let side = if number & 1 == Side::Initiator as u64 { Side::Initiator } else { Side::Responder };
            *scan.workloads.of((number >> 1, side), &mut 0) = ages;
        }
        scan.lost = LostHere::kept(rows)?;
        Some(scan)
    }
}

impl LostHere {
    /// Keeps what is lost, and of the rest what the shown records ask.
    fn keep<'a>(&self, rows: &mut Rows, shown: impl Iterator<Item = &'a Record>) {
        let lost = self.candidates.iter().filter(|one| self.is_lost(one.isn_initiator));
        for (one, number) in lost.zip(0_u64..) {
            // Two attempts may have the same J.
            rows.set(kind::LOST, u64::from(one.isn_initiator) << 16 | number & 0xffff, &one.path);
        }
        for record in shown {
            if let Detail::Tcp(tcp) = &record.detail
                && !self.is_lost(tcp.isn_initiator)
            {
                rows.set_words(kind::LEFT, u64::from(tcp.isn_initiator), Vec::new());
            }
        }
    }

    fn kept(rows: &Rows) -> Option<Self> {
        let isn = |number: u64| u32::try_from(number).ok();
        let lost = rows.each::<LostPath>(kind::LOST)?.into_iter();
        let candidates =
            lost.map(|(number, path)| Some(Candidate { isn_initiator: isn(number >> 16)?, path }));
        let left: Option<HashSet<u32>> = rows.each_words(kind::LEFT).map(|(number, _)| isn(number)).collect();
        Some(Self { candidates: candidates.collect::<Option<_>>()?, left: left? })
    }
}
