//! Where an attempt was lost, from what two accounts saw of it.

use handshake_common::verdict::{Cause, Seat, Verdict};

use crate::attempt::Attempt;

/// No segment comes to the other place later than this after the first SYN came there, ns, if it takes the same way.
const LATE_NS: u64 = 1_000_000_000;

/// One of two accounts, by its place on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Which {
    /// The first.
    First,
    /// The second.
    Second,
}

impl Which {
    /// Both, in order.
    pub const BOTH: [Self; 2] = [Self::First, Self::Second];

    /// Its name in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Second => "second",
        }
    }

    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }
}

/// A segment of a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Segment {
    /// The SYN.
    Syn,
    /// The SYN+ACK.
    SynAck,
    /// The completing ACK.
    Ack,
}

impl Segment {
    /// All, in order.
    pub const ALL: [Self; 3] = [Self::Syn, Self::SynAck, Self::Ack];

    /// Its name in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Syn => "syn",
            Self::SynAck => "syn_ack",
            Self::Ack => "ack",
        }
    }

    /// Its name in text.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Syn => "SYN",
            Self::SynAck => "SYN+ACK",
            Self::Ack => "ACK",
        }
    }
}

/// Why two accounts do not say what became of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Doubt {
    /// It was open when an account ended, and not for long.
    Open,
    /// An account lost its record.
    Evicted,
    /// An account sees one direction alone.
    OneWay,
    /// An account has a verdict that is not known here.
    Unknown,
}

impl Doubt {
    /// All.
    pub const ALL: [Self; 4] = [Self::Open, Self::Evicted, Self::OneWay, Self::Unknown];

    /// Its name in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Evicted => "evicted",
            Self::OneWay => "one_way",
            Self::Unknown => "unknown",
        }
    }

    /// What it means.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Open => "still open, and not for long, when an account ended",
            Self::Evicted => "an account lost its record",
            Self::OneWay => "an account sees one direction alone",
            Self::Unknown => "an account has a verdict that this version does not know",
        }
    }
}

/// What became of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It was established.
    Completed,
    /// This segment left one place and did not reach the other.
    LostBetween(Segment),
    /// It reached the place of this account, and what should follow did not leave there.
    LostIn(Which),
    /// A RST or an ICMP error ended it.
    Ended(Verdict),
    /// A RST ended it, and came from between the two places: it did not pass the one that it should come from.
    ResetBetween(Verdict),
    /// Something between answers in the responder's place.
    AnsweredBetween,
    /// The accounts do not say.
    Undecided(Doubt),
    /// One account alone has it, and the other need not.
    Alone,
}

impl Outcome {
    /// Its name in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::LostBetween(_) => "lost_between",
            Self::LostIn(Which::First) => "lost_in_first",
            Self::LostIn(Which::Second) => "lost_in_second",
            Self::Ended(_) => "ended",
            Self::ResetBetween(_) => "reset_between",
            Self::AnsweredBetween => "answered_between",
            Self::Undecided(_) => "undecided",
            Self::Alone => "alone",
        }
    }
}

/// What became of an attempt that both accounts have. `near` is that of the account which is closer to the
/// initiator, and `near_is` says which that is.
pub(crate) fn of_both(near: &Attempt, far: &Attempt, near_is: Which) -> Outcome {
    if far.is_completed() {
        return Outcome::Completed;
    }
    if near.is_completed() {
        return completed_near(far);
    }
    for (attempt, other) in [(far, near), (near, far)] {
        if let Some(verdict) = attempt.verdict.filter(|_| attempt.was_ended()) {
            let is_between =
                comes_from_other(attempt, std::ptr::eq(other, near)) && would_have_seen(other, attempt);
            return if is_between { Outcome::ResetBetween(verdict) } else { Outcome::Ended(verdict) };
        }
    }
    let sees_one_way = |attempt: &Attempt| attempt.cause == Some(Cause::AnswerUnseen);
    match (near.is_answered(), far.is_answered()) {
        _ if sees_one_way(near) || sees_one_way(far) => Outcome::Undecided(Doubt::OneWay),
        (true, true) => stuck(near, Outcome::LostIn(near_is)),
        (false, true) => stuck(near, Outcome::LostBetween(Segment::SynAck)),
        (true, false) => Outcome::AnsweredBetween,
        (false, false) => stuck(far, Outcome::LostIn(near_is.other())),
    }
}

/// Whether the RST that ended an attempt at one place comes there from the other place, which is `near` or not.
fn comes_from_other(ended: &Attempt, other_is_near: bool) -> bool {
    if other_is_near {
        ended.verdict == Some(Verdict::InitiatorAborted)
    } else {
        ended.is_reset_by_responder()
    }
}

/// Whether a place that had the attempt open would have seen what ended it at the other: it was open there for longer.
fn would_have_seen(open: &Attempt, ended: &Attempt) -> bool {
    let lives = open.life_ns().zip(ended.life_ns());
    open.is_stuck()
        && open.cause != Some(Cause::AnswerUnseen)
        && lives.is_some_and(|(open, ended)| open > ended.saturating_add(LATE_NS))
}

/// The near account saw it complete, and the far one did not.
fn completed_near(far: &Attempt) -> Outcome {
    match (far.cause, far.verdict) {
        // It sees the initiator go on.
        (Some(Cause::AnswerUnseen), _) => Outcome::Completed,
        (_, Some(verdict @ (Verdict::InitiatorAborted | Verdict::ResponderAborted))) if far.is_answered() => {
            Outcome::Ended(verdict)
        }
        _ if far.is_answered() => stuck(far, Outcome::LostBetween(Segment::Ack)),
        _ => Outcome::AnsweredBetween,
    }
}

/// The outcome, if the account that lacks a segment would have it.
pub(crate) fn stuck(lacking: &Attempt, outcome: Outcome) -> Outcome {
    match lacking.verdict {
        _ if lacking.is_stuck() => outcome,
        Some(Verdict::Opening) => Outcome::Undecided(Doubt::Open),
        Some(Verdict::Evicted) => Outcome::Undecided(Doubt::Evicted),
        Some(_) | None => Outcome::Undecided(Doubt::Unknown),
    }
}

/// Which account is closer to the initiator, by the seat from which one of them saw the attempt.
pub(crate) fn by_seat(attempt: &Attempt, which: Which) -> Option<Which> {
    match attempt.seat? {
        Seat::Initiator => Some(which),
        Seat::Responder => Some(which.other()),
        Seat::Between => None,
    }
}

/// Which of two accounts is closer to the initiator, as far as this attempt tells.
pub(crate) fn nearer([first, second]: [&Attempt; 2]) -> Option<Which> {
    match [by_seat(first, Which::First), by_seat(second, Which::Second)] {
        [Some(one), Some(other)] if one == other => return Some(one),
        [Some(one), None] | [None, Some(one)] => return Some(one),
        [Some(_), Some(_)] | [None, None] => {}
    }
    // The way there and back takes longer from further away, whatever the clocks say.
    let [of_first, of_second] = [first, second].map(Attempt::syn_to_syn_ack_ns);
    match (of_first?, of_second?) {
        (of_first, of_second) if of_first > of_second => Some(Which::First),
        (of_first, of_second) if of_first < of_second => Some(Which::Second),
        _ => None,
    }
}
