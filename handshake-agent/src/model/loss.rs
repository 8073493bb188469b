//! What makes a report inexact: each reason with its name and sentence.

use std::borrow::Cow;

use crate::model::context::CaptureOrigin;
use crate::source::sight::{Lapse, Sight};

pub(super) const SPLIT_HEADERS: &str = "first fragments of TCP or UDP without the whole header, which are in no flow. Look at: an evasion attack";
pub(super) const CONTENDED: &str = "segments not tracked because another CPU held the record";
pub(super) const LOST_EVENTS: &str =
    "ended attempts for which the event ring had no room. Look at: the reader of --events";
pub(super) const LOST_BEFORE_HOOK: &str =
    "packets that the interface lost before the hook. Look at: ethtool -S, ring sizes";
pub(super) const UNREADABLE_COUNTERS: &str = "readings of the interfaces' loss figures that failed, or found them begun anew: packets may have been lost";
pub(super) const MISSED_SNAPSHOT: &str =
    "snapshots that the kernel had no descriptor, memory or time for. Look at: ulimit -n, free memory, load";

/// A reason why the verdicts may differ from the wire, and how often it occurred.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// The name in reports.
    pub reason: &'static str,
    /// How often it occurred; 0 where it did not.
    pub count: u64,
    /// What is counted, and where to look.
    pub sentence: Cow<'static, str>,
    /// When it was first and last found, on the records' clock: the times of readings. `None` where it did
    /// not occur, and of a capture, which is read once.
    pub found_ns: Option<(u64, u64)>,
}

impl Loss {
    pub(super) const fn new(reason: &'static str, count: u64, sentence: &'static str) -> Self {
        Self { reason, count, sentence: Cow::Borrowed(sentence), found_ns: None }
    }
}

/// What the looks at the hooks found wrong.
pub(super) fn of_sight(sight: &Sight) -> [Loss; 2] {
    let of = |reason, lapse: &Lapse, rest| Loss {
        reason,
        count: lapse.count,
        sentence: Cow::Owned(format!("{}: {rest}", lapse.words())),
        found_ns: Some((lapse.first_ns, lapse.last_ns)).filter(|_| lapse.count != 0),
    };
    [
        of(
            "hook_lost",
            &sight.hook_lost,
            "packets that passed meanwhile are in no figure. Look at: bpftool net",
        ),
        of("interface_down", &sight.interface_down, "no packet passes. Look at: ip link"),
    ]
}

/// What a capture lacks.
pub(super) fn of_capture(capture: &CaptureOrigin) -> [Loss; 5] {
    let condition = &capture.condition;
    [
        Loss::new(
            "capture_damaged",
            condition.damaged.into(),
            "the capture is damaged, and only the packets before the damage were read",
        ),
        Loss::new(
            "capture_truncated",
            condition.truncated.into(),
            "the capture ends in the middle of a record, and what followed is not known",
        ),
        Loss::new(
            "capture_dropped",
            condition.dropped.unwrap_or(0),
            "packets that were dropped while capturing, by the capture's own statistics. \
             Look at: the buffer size of the capturing program",
        ),
        Loss::new(
            "skipped_link_type",
            condition.skipped(),
            "packets that were not read because their link type is not supported",
        ),
        Loss::new(
            "cut_headers",
            capture.cut_headers,
            "packets whose headers are cut by the capture's snap length. Look at: tcpdump -s",
        ),
    ]
}
