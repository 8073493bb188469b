//! What the times of two accounts say of their clocks.
//!
//! A segment arrives after it left. So each SYN bounds from one side how far one clock is ahead of the other,
//! and each SYN+ACK from the other side; what lies between the bounds is as much as two accounts can tell.

use crate::attempt::Attempt;
use crate::matching::later;

/// No segment is on its way for so long.
const LONG_NS: i64 = 5 * 1_000_000_000;

/// How far the second account's clock is ahead of the first's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clocks {
    /// At least this, ns; negative where it is behind. `None` where no segment tells.
    pub least_ns: Option<i64>,
    /// At most this.
    pub most_ns: Option<i64>,
}

/// What is said of two clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockFinding {
    /// No attempt tells.
    Unknown,
    /// They may be the same, and are no further apart than this, ns.
    Agree(u64),
    /// The second is ahead by something between these, ns; negative where it is behind.
    Differ(i64, i64),
    /// The second is ahead by about this, ns; negative where it is behind. Segments of one direction alone
    /// tell.
    About(i64),
    /// The difference changed meanwhile: it was at least and at most this at some time, and not at one time.
    Changed(i64, i64),
}

impl ClockFinding {
    /// Its name in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Agree(_) => "agree",
            Self::Differ(..) => "differ",
            Self::About(_) => "about",
            Self::Changed(..) => "changed",
        }
    }
}

impl Clocks {
    /// Takes a pair in: `near` is closer to the initiator; `second_is_far` says whose clock is whose.
    pub(crate) fn note(&mut self, near: &Attempt, far: &Attempt, second_is_far: bool) {
        // One that the near account saw less often than the far one was not seen from its beginning.
        if near.syn >= far.syn {
            self.bound(later(near.started_ns, far.started_ns), second_is_far);
        }
        if far.syn_ack >= near.syn_ack
            && let (Some(at_near), Some(at_far)) = (syn_ack_ns(near), syn_ack_ns(far))
        {
            self.bound(later(at_far, at_near), !second_is_far);
        }
    }

    /// A segment took no less than nothing from one clock to the other.
    fn bound(&mut self, took_ns: i64, to_second: bool) {
        if to_second {
            self.most_ns = Some(self.most_ns.map_or(took_ns, |most| most.min(took_ns)));
        } else {
            self.least_ns = Some(self.least_ns.map_or(-took_ns, |least| least.max(-took_ns)));
        }
    }

    /// What that comes to. No way takes as long as [`LONG_NS`], so a larger bound tells alone.
    #[must_use]
    pub fn finding(&self) -> ClockFinding {
        match (self.least_ns, self.most_ns) {
            (Some(least), Some(most)) if least > most => ClockFinding::Changed(most, least),
            (Some(least), Some(most)) if least <= 0 && most >= 0 => {
                ClockFinding::Agree(least.unsigned_abs().max(most.unsigned_abs()))
            }
            (Some(least), Some(most)) => ClockFinding::Differ(least, most),
            (None, Some(one)) | (Some(one), None) if one.abs() >= LONG_NS => ClockFinding::About(one),
            (None, _) | (_, None) => ClockFinding::Unknown,
        }
    }
}

/// When the SYN+ACK passed, by the account's own clock.
pub(crate) fn syn_ack_ns(attempt: &Attempt) -> Option<u64> {
    attempt.syn_to_syn_ack_ns().map(|after| attempt.started_ns + after)
}
