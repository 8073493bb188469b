//! What makes a report inexact: one list, which `exact`, `inexact` and every output derive from.

use handshake_common::verdict::{UdpVerdict, Verdict};

use crate::model::context::{CaptureOrigin, Origin};
use crate::model::snapshot::Snapshot;

pub(super) const UNTRACKED: &str =
    "SYNs and first UDP packets without a record: the table is full. Look at: --max-flows";
pub(super) const CONTENDED: &str = "segments not tracked because another CPU held the record";
pub(super) const LOST_EVENTS: &str =
    "ended attempts for which the event ring had no room. Look at: the reader of --events";
pub(super) const LOST_BEFORE_HOOK: &str =
    "packets that the interface lost before the hook. Look at: ethtool -S, ring sizes";

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

const fn loss(reason: &'static str, count: u64, sentence: &'static str) -> Loss {
    Loss { reason, count, sentence }
}

/// Every reason that a report of this origin can have, in the order of reports.
pub(super) fn all(snapshot: &Snapshot) -> Vec<Loss> {
    let mut all = vec![
        loss("untracked", snapshot.untracked, UNTRACKED),
        loss("contended", snapshot.contended, CONTENDED),
        loss("evicted", snapshot.tcp.verdict(Verdict::Evicted), Verdict::Evicted.sentence()),
        loss("udp.evicted", snapshot.udp.books.verdict(UdpVerdict::Evicted), UdpVerdict::Evicted.sentence()),
        loss("lost_events", snapshot.lost_events, LOST_EVENTS),
        loss("lost_before_hook", snapshot.lost_before_hook, LOST_BEFORE_HOOK),
    ];
    if let Origin::Capture(capture) = &snapshot.context.origin {
        all.extend(of_capture(capture));
    }
    all
}

fn of_capture(capture: &CaptureOrigin) -> [Loss; 5] {
    let condition = &capture.condition;
    [
        loss(
            "capture_damaged",
            condition.damaged.into(),
            "the capture is damaged, and only the packets before the damage were read",
        ),
        loss(
            "capture_truncated",
            condition.truncated.into(),
            "the capture ends in the middle of a record, and what followed is not known",
        ),
        loss(
            "capture_dropped",
            condition.dropped.unwrap_or(0),
            "packets that were dropped while capturing, by the capture's own statistics. \
             Look at: the buffer size of the capturing program",
        ),
        loss(
            "skipped_link_type",
            condition.skipped(),
            "packets that were not read because their link type is not supported",
        ),
        loss(
            "cut_headers",
            capture.cut_headers,
            "packets whose headers are cut by the capture's snap length. Look at: tcpdump -s",
        ),
    ]
}
