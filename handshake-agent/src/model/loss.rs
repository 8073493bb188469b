//! What makes a report inexact: each reason with its name and sentence.

use crate::model::context::CaptureOrigin;

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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// The name in reports.
    pub reason: &'static str,
    /// How often it occurred; 0 where it did not.
    pub count: u64,
    /// What is counted, and where to look.
    pub sentence: &'static str,
}

impl Loss {
    pub(super) const fn new(reason: &'static str, count: u64, sentence: &'static str) -> Self {
        Self { reason, count, sentence }
    }
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
