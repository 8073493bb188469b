//! What makes a report inexact: the one table of the reasons, which text, JSON, terminal and check show.

use std::borrow::Cow;

use handshake_common::abi::{Counter, CounterBlock};
use handshake_common::verdict::{UdpVerdict, Verdict};

use super::books::word;
use super::context::{CaptureOrigin, Origin};
use crate::source::sight::{Lapse, Sight};

/// The sentences that a figure of the same name shares.
pub(super) const SPLIT_HEADERS: &str = "first fragments of TCP or UDP without the whole header, which are in no flow (tiny fragments, RFC 1858). \
     Look at: an evasion attack";
pub(super) const EXTENSION_CHAINS: &str = "IPv6 packets with too many extension headers, which count as ip_other and are in no flow. Look at: an evasion \
     attack";
pub(super) const CONTENDED: &str = "segments not tracked because another CPU held the record";
pub(super) const LOST_EVENTS: &str =
    "ended attempts for which the event ring had no room. Look at: the reader of --events";
pub(super) const LOST_BEFORE_HOOK: &str =
    "packets that the interface lost before the hook. Look at: ethtool -S, ring sizes";

/// The figures of a snapshot that tell a loss.
pub(super) struct LossFigures<'a> {
    pub(super) origin: &'a Origin,
    pub(super) counters: &'a CounterBlock,
    pub(super) sight: &'a Sight,
    pub(super) lost_before_hook: u64,
    pub(super) unreadable_counters: u64,
    pub(super) missed_snapshots: u64,
}

/// A reason why the verdicts may differ from the wire, and how often it occurred.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// The name in reports.
    pub reason: &'static str,
    /// How often it occurred; 0 where it did not.
    pub count: u64,
    /// What is counted, and where to look.
    pub sentence: Cow<'static, str>,
    /// When it was first and last found, on the records' clock. Live, these are the times of readings; of a
    /// capture, those of packets. `None` where it did not occur.
    pub found_ns: Option<(u64, u64)>,
    words: [&'static str; 2],
}

impl Loss {
    /// The reason in a few words, with its count as `number` writes it: `3 tiny fragments`.
    pub fn words(&self, number: impl Fn(u64) -> String) -> String {
        let [one, several] = self.words;
        if self.count == 1 { one } else { several }.replace('#', &number(self.count))
    }
}

/// A row of the table.
struct Row {
    reason: &'static str,
    /// The reason in a few words, where it occurred once, and more often; `#` is the count.
    words: [&'static str; 2],
    figure: Figure,
    sentence: &'static str,
}

/// How often a reason occurred, and in reports of which origin it can.
enum Figure {
    /// In every report.
    Every(Counter),
    /// In reports of interfaces.
    Live(fn(&LossFigures<'_>) -> u64),
    /// In reports of interfaces, with what the looks at them found before the sentence.
    Looks(fn(&Sight) -> &Lapse),
    /// In reports of captures.
    Capture(fn(&CaptureOrigin) -> u64),
}

/// The reasons, the most important first: what can hide any number of packets, then what is counted.
const TABLE: [Row; 18] = [
    Row {
        reason: "hook_lost",
        words: ["hook lost at 1 look", "hook lost at # looks"],
        figure: Figure::Looks(|sight| &sight.hook_lost),
        sentence: "packets that passed meanwhile are in no figure. Look at: bpftool net",
    },
    Row {
        reason: "interface_down",
        words: ["interface down at 1 look", "interface down at # looks"],
        figure: Figure::Looks(|sight| &sight.interface_down),
        sentence: "no packet passes an interface that is down. Look at: ip link",
    },
    Row {
        reason: "capture_damaged",
        words: ["capture damaged"; 2],
        figure: Figure::Capture(|capture| capture.condition.damaged.into()),
        sentence: "the capture is damaged, and only the packets before the damage were read",
    },
    Row {
        reason: "capture_truncated",
        words: ["capture truncated"; 2],
        figure: Figure::Capture(|capture| capture.condition.truncated.into()),
        sentence: "the capture ends in the middle of a record, and what followed is not known",
    },
    Row {
        reason: "capture_dropped",
        words: ["1 dropped while capturing", "# dropped while capturing"],
        figure: Figure::Capture(|capture| capture.condition.dropped.unwrap_or(0)),
        sentence: "packets that were dropped while capturing, by the capture's own statistics. Look at: the \
                   buffer size of the capturing program",
    },
    Row {
        reason: "skipped_link_type",
        words: ["1 packet of an unknown link type", "# packets of an unknown link type"],
        figure: Figure::Capture(|capture| capture.condition.skipped()),
        sentence: "packets that were not read because their link type is not supported",
    },
    Row {
        reason: "lost_before_hook",
        words: ["1 lost before the hook", "# lost before the hook"],
        figure: Figure::Live(|figures| figures.lost_before_hook),
        sentence: LOST_BEFORE_HOOK,
    },
    Row {
        reason: "unreadable_counters",
        words: ["loss counters unreadable once", "loss counters unreadable # times"],
        figure: Figure::Live(|figures| figures.unreadable_counters),
        sentence: "readings of the interfaces' loss figures that failed, or found them begun anew: packets may \
                   have been lost",
    },
    Row {
        reason: "tcp.untracked",
        words: ["1 untracked attempt", "# untracked attempts"],
        figure: Figure::Every(Counter::Untracked),
        sentence: Verdict::Untracked.sentence(),
    },
    Row {
        reason: "evicted",
        words: ["1 evicted attempt", "# evicted attempts"],
        figure: Figure::Every(Counter::Evicted),
        sentence: Verdict::Evicted.sentence(),
    },
    Row {
        reason: "contended",
        words: ["1 contended segment", "# contended segments"],
        figure: Figure::Every(Counter::Contended),
        sentence: CONTENDED,
    },
    Row {
        reason: "cut_headers",
        words: ["1 cut header", "# cut headers"],
        figure: Figure::Capture(|capture| capture.cut_headers),
        sentence: "packets whose headers are cut by the capture's snap length. Look at: tcpdump -s",
    },
    Row {
        reason: "split_headers",
        words: ["1 tiny fragment", "# tiny fragments"],
        figure: Figure::Every(Counter::SplitHeaders),
        sentence: SPLIT_HEADERS,
    },
    Row {
        reason: "extension_chains",
        words: ["1 long chain of headers", "# long chains of headers"],
        figure: Figure::Every(Counter::ExtensionChains),
        sentence: EXTENSION_CHAINS,
    },
    Row {
        reason: "udp.untracked",
        words: ["1 untracked UDP flow", "# untracked UDP flows"],
        figure: Figure::Every(Counter::UdpUntracked),
        sentence: UdpVerdict::Untracked.sentence(),
    },
    Row {
        reason: "udp.evicted",
        words: ["1 evicted UDP flow", "# evicted UDP flows"],
        figure: Figure::Every(Counter::UdpEvicted),
        sentence: UdpVerdict::Evicted.sentence(),
    },
    Row {
        reason: "lost_events",
        words: ["1 lost event", "# lost events"],
        figure: Figure::Live(|figures| word(figures.counters, Counter::LostEvents)),
        sentence: LOST_EVENTS,
    },
    Row {
        reason: "missed_snapshot",
        words: ["1 missed snapshot", "# missed snapshots"],
        figure: Figure::Live(|figures| figures.missed_snapshots),
        sentence: "snapshots that the kernel had no descriptor, memory or time for. Look at: ulimit -n, free \
                   memory, load",
    },
];

/// The reasons that the engine counts itself, each with its counter.
pub fn counted() -> impl Iterator<Item = (&'static str, Counter)> {
    TABLE.iter().filter_map(|row| match row.figure {
        Figure::Every(counter) => Some((row.reason, counter)),
        Figure::Live(_) | Figure::Looks(_) | Figure::Capture(_) => None,
    })
}

/// The rows that a report of this origin can have, whether they occurred or not. `found_ns` tells the times
/// of a reason that are not the looks'.
pub(super) fn of(figures: &LossFigures<'_>, found_ns: impl Fn(&str) -> Option<(u64, u64)>) -> Vec<Loss> {
    TABLE.iter().filter_map(|row| row.of(figures, &found_ns)).collect()
}

impl Row {
    fn of(&self, figures: &LossFigures<'_>, found_ns: &impl Fn(&str) -> Option<(u64, u64)>) -> Option<Loss> {
        let plain = |count| (count, Cow::Borrowed(self.sentence), found_ns(self.reason));
        let (count, sentence, found_ns) = match (&self.figure, figures.origin) {
            (Figure::Every(counter), _) => plain(word(figures.counters, *counter)),
            (Figure::Live(figure), Origin::Live(_)) => plain(figure(figures)),
            (Figure::Capture(figure), Origin::Capture(capture)) => plain(figure(capture)),
            (Figure::Looks(lapse), Origin::Live(_)) => {
                let lapse = lapse(figures.sight);
                let sentence = format!("{}: {}", lapse.words(), self.sentence);
                (lapse.count, Cow::Owned(sentence), Some((lapse.first_ns, lapse.last_ns)))
            }
            (Figure::Live(_) | Figure::Looks(_), Origin::Capture(_))
            | (Figure::Capture(_), Origin::Live(_)) => return None,
        };
        let found_ns = found_ns.filter(|_| count != 0);
        Some(Loss { reason: self.reason, count, sentence, found_ns, words: self.words })
    }
}
