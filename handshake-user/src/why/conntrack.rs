//! What connection tracking lost, by `/proc/net/stat/nf_conntrack` and its table's size, of one network namespace.

use std::fs::File;
use std::io::{Read as _, Seek as _};

/// A figure of the losses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loss {
    Drop,
    EarlyDrop,
    InsertFailed,
    Invalid,
}

impl Loss {
    const ALL: [Self; 4] = [Self::Drop, Self::EarlyDrop, Self::InsertFailed, Self::Invalid];

    /// The title of its column.
    const fn column(self) -> &'static str {
        match self {
            Self::Drop => "drop",
            Self::EarlyDrop => "early_drop",
            Self::InsertFailed => "insert_failed",
            Self::Invalid => "invalid",
        }
    }
}

/// The files, opened before this program gives up its privileges.
pub(crate) struct ConntrackFiles {
    losses: File,
    entries: File,
    limit: File,
    first: [u32; Loss::ALL.len()],
    /// The most entries at a look.
    most: u64,
}

/// What connection tracking lost in a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Conntrack {
    /// The most entries of its table at a look.
    pub(crate) entries: u64,
    /// The most that the table may have.
    pub(crate) limit: u64,
    /// Packets that it dropped: for the most part because the table was full.
    pub(crate) dropped: u32,
    /// Entries that it gave up early to make room.
    pub(crate) dropped_early: u32,
    /// Entries that it could not keep.
    pub(crate) insert_failed: u32,
    /// Packets that belong to no connection that it knows.
    pub(crate) invalid: u32,
}

impl Conntrack {
    /// Whether its table had no room at a look.
    pub(crate) const fn was_full(&self) -> bool {
        self.limit != 0 && self.entries >= self.limit
    }
}

impl ConntrackFiles {
    /// Opens those of this thread's network namespace; `None` where the kernel has none.
    pub(crate) fn open() -> Option<Self> {
        let table = |name: &str| File::open(format!("/proc/sys/net/netfilter/nf_conntrack_{name}")).ok();
        let mut losses = File::open("/proc/thread-self/net/stat/nf_conntrack").ok()?;
        let first = sums(&text(&mut losses)?)?;
        Some(Self { losses, entries: table("count")?, limit: table("max")?, first, most: 0 })
    }

    /// Looks how full the table is.
    pub(crate) fn look(&mut self) {
        self.most = self.most.max(number(&mut self.entries).unwrap_or(0));
    }

    /// What was lost since the files were opened.
    pub(crate) fn lost(&mut self) -> Option<Conntrack> {
        self.look();
        let last = sums(&text(&mut self.losses)?)?;
        let lost = |loss: Loss| last[loss as usize].wrapping_sub(self.first[loss as usize]);
        Some(Conntrack {
            entries: self.most,
            limit: number(&mut self.limit)?,
            dropped: lost(Loss::Drop),
            dropped_early: lost(Loss::EarlyDrop),
            insert_failed: lost(Loss::InsertFailed),
            invalid: lost(Loss::Invalid),
        })
    }
}

fn text(file: &mut File) -> Option<String> {
    let mut text = String::new();
    file.rewind().and_then(|()| file.read_to_string(&mut text)).ok()?;
    Some(text)
}

fn number(file: &mut File) -> Option<u64> {
    text(file)?.trim().parse().ok()
}

/// The losses in such a text: titles, and a line of hexadecimal numbers for each CPU. A number may wrap.
fn sums(text: &str) -> Option<[u32; Loss::ALL.len()]> {
    let (titles, cpus) = text.split_once('\n')?;
    let mut sums = [0_u32; Loss::ALL.len()];
    for loss in Loss::ALL {
        let place = titles.split_whitespace().position(|title| title == loss.column())?;
        for cpu in cpus.lines() {
            let value = u32::from_str_radix(cpu.split_whitespace().nth(place)?, 16).ok()?;
            sums[loss as usize] = sums[loss as usize].wrapping_add(value);
        }
    }
    Some(sums)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TITLES: &str = "entries  searched found new invalid ignore delete delete_list insert insert_failed \
                          drop early_drop icmp_error  expect_new expect_create expect_delete search_restart";

    #[test]
    fn losses_are_summed_over_the_cpus() {
        let cpu = |invalid: u32, failed: u32, drop: u32, early: u32| {
            format!("00000007 0 1 2 {invalid:08x} 0 3 0 0 {failed:08x} {drop:08x} {early:08x} 9 9 9 9 9\n")
        };
        let text = format!("{TITLES}\n{}{}", cpu(26, 2, u32::MAX, 1), cpu(1, 0, 5, 0));
        assert_eq!(sums(&text), Some([4, 1, 2, 27]));
        assert_eq!(sums(&text.replace("early_drop", "later_drop")), None, "a kernel without the column");
        assert_eq!(sums(&text.replace("00000005", "x")), None);
        assert_eq!(sums(""), None);
    }

    #[test]
    fn a_table_is_full_at_its_limit() {
        let table = [(0, 0, false), (7, 8, false), (8, 8, true), (9, 8, true)];
        for (entries, limit, full) in table {
            let seen = Conntrack { entries, limit, ..Conntrack::default() };
            assert_eq!(seen.was_full(), full, "{entries} of {limit}");
        }
    }
}
