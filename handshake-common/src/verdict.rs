//! Every verdict, cause, sign and flag: its name, and the sentence that says what it means and where to look.
//!
//! [`TCP`] and [`UDP`] are the tables of verdicts. Whatever lists verdicts is derived from them: gauges, the
//! ends that events tell, reports, metrics, and what tests sum up. What a table must hold is asserted behind
//! it, and in [`record`](crate::record) for the states.

use crate::counter::Counter;

/// A verdict in the table of its protocol.
#[derive(Clone, Copy, Debug)]
pub struct Row<V: 'static> {
    /// The verdict: its number is the row's.
    pub verdict: V,
    /// Its name in reports, expressions and metrics.
    pub name: &'static str,
    /// What it counts for.
    pub role: Role,
    /// The gauges that count it: one, or one per cause.
    pub gauges: &'static [Gauge],
    /// How reports show it.
    pub shown: Shown,
    /// Whether it is good news, of which reports say no more than the tone.
    pub assessment: Assessment,
    /// Does an attempt with it have a problem that the verdict itself names?
    pub problem: bool,
    /// How its entries are counted, if attempts or flows leave it again: its gauge may fall, this never does.
    pub entered: Option<Entries>,
    /// What it means, and where to look.
    pub sentence: &'static str,
}

/// What a verdict counts for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A term of the identity, and the end of an attempt as far as is known: an event tells it.
    End,
    /// A term of the identity, and no end that an event tells.
    Term,
    /// A term of the identity that shares its gauges with others: the age of the record decides.
    ByAge,
    /// Outside the identity.
    Outside,
}

/// How reports show the figure of a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// As one figure under its name.
    Whole,
    /// One figure per cause, below its name.
    ByCause,
    /// One figure per cause below its name, and before them their sum as `now`.
    NowAndByCause,
}

/// What a verdict says of the attempt or flow that has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Assessment {
    /// It got what it asked for.
    Good,
    /// Nothing is known for or against it.
    Neutral,
    /// It did not get what it asked for.
    Bad,
}

/// A gauge of a verdict.
#[derive(Clone, Copy, Debug)]
pub struct Gauge {
    /// Its word in the counter block.
    pub counter: Counter,
    /// Which part of the verdict it counts, if the verdict is counted by cause.
    pub cause: Option<Cause>,
}

/// The entries into a verdict.
#[derive(Clone, Copy, Debug)]
pub struct Entries {
    /// Their word in the counter block.
    pub counter: Counter,
    /// What they count.
    pub sentence: &'static str,
}

const fn one(counter: Counter) -> Gauge {
    Gauge { counter, cause: None }
}

const EXPIRED: &[Gauge] = &[
    Gauge { counter: Counter::ExpiredNoSynAck, cause: Some(Cause::NoSynAck) },
    Gauge { counter: Counter::ExpiredNoAck, cause: Some(Cause::NoAck) },
    Gauge { counter: Counter::ExpiredAnswerUnseen, cause: Some(Cause::AnswerUnseen) },
];
const OPEN: &[Gauge] = &[
    Gauge { counter: Counter::OpenNoSynAck, cause: Some(Cause::NoSynAck) },
    Gauge { counter: Counter::OpenNoAck, cause: Some(Cause::NoAck) },
    Gauge { counter: Counter::OpenAnswerUnseen, cause: Some(Cause::AnswerUnseen) },
];
const WAITING: &[Gauge] = &[one(Counter::UdpWaiting)];

impl<V: Copy> Row<V> {
    /// Is it a term of its protocol's identity?
    #[must_use]
    pub const fn is_term(&self) -> bool {
        !matches!(self.role, Role::Outside)
    }

    /// Can its figure fall? Then it is no counter to those who ask for rates.
    #[must_use]
    pub const fn can_fall(&self) -> bool {
        matches!(self.role, Role::ByAge) || self.entered.is_some()
    }

    /// Is it counted in this gauge, at least in part?
    #[must_use]
    pub const fn has_gauge(&self, place: usize) -> bool {
        let mut i = 0;
        while i < self.gauges.len() {
            if self.gauges[i].counter as usize == place {
                return true;
            }
            i += 1;
        }
        false
    }
}

/// The first row that is counted in the gauge at a place of the counter block.
#[must_use]
pub const fn row_of<V: Copy>(table: &'static [Row<V>], place: usize) -> Option<&'static Row<V>> {
    let mut i = 0;
    while i < table.len() {
        if table[i].has_gauge(place) {
            return Some(&table[i]);
        }
        i += 1;
    }
    None
}

listed! {
    /// How an attempt stands or ended. Exactly one per attempt, except that one still open is either
    /// [`Opening`](Verdict::Opening) or [`HalfOpen`](Verdict::HalfOpen) by its age.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub enum Verdict {
        /// SYN(J), SYN+ACK(K, ack J+1), ACK(K+1), each proven by its numbers.
        Completed,
        /// The responder's RST acknowledged J+1 before any SYN+ACK.
        Refused,
        /// An ICMP error quoted the SYN before any SYN+ACK.
        Unreachable,
        /// The initiator's RST at the expected sequence number, before completion.
        InitiatorAborted,
        /// SYN+ACK, then the responder's RST at the expected sequence number, before completion.
        ResponderAborted,
        /// A SYN with another J on the same tuple while the attempt was open.
        Superseded,
        /// Still open when its record expired.
        HalfOpenExpired,
        /// Pushed out of a full set while open.
        Evicted,
        /// A SYN that got no record: the table was full of better ones, or another CPU held its slot.
        Untracked,
        /// Open, and younger than T1.
        Opening,
        /// Open for longer than T1 (RFC 4987 §2).
        HalfOpen,
        /// Outside the books: a connection whose SYN was not seen.
        Midstream,
        /// Outside the books: a SYN+ACK whose SYN was not seen.
        OrphanSynAck,
    }
}

/// TCP: the verdicts in the order of reports.
pub const TCP: [Row<Verdict>; Verdict::ALL.len()] = [
    Row {
        verdict: Verdict::Completed,
        name: "completed",
        role: Role::End,
        gauges: &[one(Counter::Completed)],
        shown: Shown::Whole,
        assessment: Assessment::Good,
        problem: false,
        entered: None,
        sentence: "SYN, SYN+ACK and ACK match by their sequence numbers: the connection is established",
    },
    Row {
        verdict: Verdict::Refused,
        name: "refused",
        role: Role::End,
        gauges: &[one(Counter::Refused)],
        shown: Shown::Whole,
        assessment: Assessment::Bad,
        problem: true,
        entered: Some(Entries {
            counter: Counter::EnteredRefused,
            sentence: "attempts that became refused, including those that continued later: never falls",
        }),
        sentence: "the responder answers the SYN with RST. Look at: is the service listening on that address and port, a rejecting firewall",
    },
    Row {
        verdict: Verdict::Unreachable,
        name: "unreachable",
        role: Role::End,
        gauges: &[one(Counter::Unreachable)],
        shown: Shown::Whole,
        assessment: Assessment::Bad,
        problem: true,
        entered: Some(Entries {
            counter: Counter::EnteredUnreachable,
            sentence: "attempts that became unreachable, including those that continued later: never falls",
        }),
        sentence: "a router or host answers the SYN with an ICMP error. Look at: routing, the address, a rejecting firewall",
    },
    Row {
        verdict: Verdict::InitiatorAborted,
        name: "initiator_aborted",
        role: Role::End,
        gauges: &[one(Counter::InitiatorAborted)],
        shown: Shown::Whole,
        assessment: Assessment::Bad,
        problem: true,
        entered: Some(Entries {
            counter: Counter::EnteredInitiatorAborted,
            sentence: "attempts that the client aborted, including those that continued later: never falls",
        }),
        sentence: "the client sent RST before the handshake completed. Look at: client timeouts, a port scan",
    },
    Row {
        verdict: Verdict::ResponderAborted,
        name: "responder_aborted",
        role: Role::End,
        gauges: &[one(Counter::ResponderAborted)],
        shown: Shown::Whole,
        assessment: Assessment::Bad,
        problem: true,
        entered: Some(Entries {
            counter: Counter::EnteredResponderAborted,
            sentence: "attempts that the server aborted, including those that continued later: never falls",
        }),
        sentence: "the server sent SYN+ACK, then RST. Look at: a listener that was closed, tcp_abort_on_overflow, a middlebox",
    },
    Row {
        verdict: Verdict::Superseded,
        name: "superseded",
        role: Role::End,
        gauges: &[one(Counter::Superseded)],
        shown: Shown::Whole,
        assessment: Assessment::Bad,
        problem: false,
        entered: None,
        sentence: "the client began a new attempt from the same port before this one ended. Look at: client retries, port reuse behind NAT",
    },
    Row {
        verdict: Verdict::HalfOpenExpired,
        name: "half_open_expired",
        role: Role::End,
        gauges: EXPIRED,
        shown: Shown::ByCause,
        assessment: Assessment::Bad,
        problem: false,
        entered: None,
        sentence: "the attempt was half-open until its record expired. Look at: its cause",
    },
    Row {
        verdict: Verdict::Evicted,
        name: "evicted",
        role: Role::End,
        gauges: &[one(Counter::Evicted)],
        shown: Shown::Whole,
        assessment: Assessment::Bad,
        problem: false,
        entered: None,
        sentence: "evicted from a full table while open: how it ended is unknown. Look at: --max-flows",
    },
    Row {
        verdict: Verdict::Untracked,
        name: "untracked",
        role: Role::Term,
        gauges: &[one(Counter::Untracked)],
        shown: Shown::Whole,
        assessment: Assessment::Bad,
        problem: false,
        entered: None,
        sentence: "a SYN found no room in the table: how it ended is unknown, and the same SYN again counts again. Look at: --max-flows",
    },
    Row {
        verdict: Verdict::Opening,
        name: "opening",
        role: Role::ByAge,
        gauges: OPEN,
        shown: Shown::Whole,
        assessment: Assessment::Neutral,
        problem: false,
        entered: None,
        sentence: "open for less than --half-open-after: not a problem yet",
    },
    Row {
        verdict: Verdict::HalfOpen,
        name: "half_open",
        role: Role::ByAge,
        gauges: OPEN,
        shown: Shown::NowAndByCause,
        assessment: Assessment::Bad,
        problem: false,
        entered: None,
        sentence: "open for longer than --half-open-after. Look at: its cause",
    },
    Row {
        verdict: Verdict::Midstream,
        name: "midstream",
        role: Role::Outside,
        gauges: &[one(Counter::Midstream)],
        shown: Shown::Whole,
        assessment: Assessment::Neutral,
        problem: false,
        entered: None,
        sentence: "the handshake took place before the watch began",
    },
    Row {
        verdict: Verdict::OrphanSynAck,
        name: "orphan_syn_ack",
        role: Role::Outside,
        gauges: &[one(Counter::OrphanSynAck)],
        shown: Shown::Whole,
        assessment: Assessment::Neutral,
        problem: false,
        entered: Some(Entries {
            counter: Counter::EnteredOrphanSynAck,
            sentence: "SYN+ACKs whose SYN was not seen, including those whose SYN came later: never falls",
        }),
        sentence: "a SYN+ACK whose SYN was not seen at this hook. Look at: asymmetric routes, --direction",
    },
];

impl Verdict {
    /// Its row in [`TCP`].
    #[must_use]
    pub const fn row(self) -> &'static Row<Self> {
        const TABLE: &[Row<Verdict>] = &TCP;
        &TABLE[self as usize]
    }

    /// The name in reports, expressions and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.row().name
    }

    /// What it means, and where to look.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        self.row().sentence
    }

    /// Is it a term of the identity `attempts = …`?
    #[must_use]
    pub const fn is_in_books(self) -> bool {
        self.row().is_term()
    }

    /// Whether the cause stands beside it: it does where the attempt was open when it came to this verdict.
    #[must_use]
    pub const fn has_cause(self) -> bool {
        match self {
            Self::HalfOpen | Self::HalfOpenExpired | Self::Superseded | Self::Evicted => true,
            Self::Completed
            | Self::Refused
            | Self::Unreachable
            | Self::InitiatorAborted
            | Self::ResponderAborted
            | Self::Untracked
            | Self::Opening
            | Self::Midstream
            | Self::OrphanSynAck => false,
        }
    }

    /// The verdict that is counted in the gauge at a place of the counter block; none where age decides.
    #[must_use]
    pub const fn of_gauge(place: usize) -> Option<Self> {
        const TABLE: &[Row<Verdict>] = &TCP;
        match row_of(TABLE, place) {
            Some(row) if !matches!(row.role, Role::ByAge) => Some(row.verdict),
            Some(_) | None => None,
        }
    }
}

listed! {
    /// Why an open attempt does not get on.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub enum Cause {
        /// No valid SYN+ACK.
        NoSynAck,
        /// A valid SYN+ACK, but no valid ACK.
        NoAck,
        /// No SYN+ACK passed here, and the initiator acknowledges one.
        AnswerUnseen,
    }
}

impl Cause {
    /// The gauge of what is open with this cause.
    #[must_use]
    pub const fn open(self) -> Counter {
        OPEN[self as usize].counter
    }

    /// The gauge of what was open with this cause when it expired.
    #[must_use]
    pub const fn expired(self) -> Counter {
        EXPIRED[self as usize].counter
    }

    /// The name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoSynAck => "no_syn_ack",
            Self::NoAck => "no_ack",
            Self::AnswerUnseen => "answer_unseen",
        }
    }

    /// What it means, and where to look, as seen from a seat.
    #[must_use]
    pub const fn sentence(self, seat: Seat) -> &'static str {
        match (self, seat) {
            (Self::NoSynAck, Seat::Responder) => {
                "SYNs arrive and this host answers none. Look at: the listener's queue, a local firewall, the route back"
            }
            (Self::NoSynAck, Seat::Initiator) => {
                "our SYNs leave and nothing comes back. Look at: the path, the far firewall, the far listener"
            }
            (Self::NoSynAck, Seat::Between) => "SYNs pass and no SYN+ACK does. Look at: the responder's side",
            (Self::NoAck, Seat::Responder) => {
                "our SYN+ACKs leave and no ACK returns. Look at: the return path, the client's firewall, a spoofed flood"
            }
            (Self::NoAck, Seat::Initiator) => {
                "SYN+ACKs arrive and this host sends no ACK. Look at: a local firewall, a program that died"
            }
            (Self::NoAck, Seat::Between) => "SYN+ACKs pass and no ACK follows. Look at: the initiator's side",
            (Self::AnswerUnseen, _) => {
                "the initiator acknowledges an answer that did not pass here: only one direction passes this interface. See --direction, --one-sided, or add the other interface"
            }
        }
    }
}

listed! {
    /// From where a host sees an attempt.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub enum Seat {
        /// The responder's address is one of this host's.
        Responder,
        /// The initiator's address is one of this host's, and the responder's is not.
        Initiator,
        /// Neither is: a router, a bridge, a mirror, a capture.
        Between,
    }
}

impl Seat {
    /// The name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Responder => "responder",
            Self::Initiator => "initiator",
            Self::Between => "between",
        }
    }
}

listed! {
    /// What is counted beside the verdicts and ends nothing.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub enum Sign {
        /// A SYN with the J of its attempt again.
        SynRetransmit,
        /// A SYN+ACK with a K already seen, before the final ACK.
        SynAckRetransmit,
        /// A SYN+ACK that does not acknowledge J+1.
        BadSynAck,
        /// An initiator's ACK that acknowledges something else than K+1.
        BadAck,
        /// The same SYN+ACK again after a valid final ACK.
        AckIgnored,
        /// A refused, unreachable or aborted attempt continued after all, or the first of two Js was the real
        /// one.
        Revised,
        /// A SYN with another number on a connection that was answered or established already.
        ForeignSyn,
        /// An ICMP error that came in about a packet sent to this host.
        ForeignIcmp,
        /// A handshake segment that came in with a wrong TCP checksum.
        BadChecksum,
        /// A connection ended its silence: the responder's first byte came, or the connection closed, more
        /// than T1 after the initiator's latest data.
        WasSilent,
    }
}

impl Sign {
    /// The counter of its occurrences.
    #[inline(always)]
    #[must_use]
    pub const fn counter(self) -> Counter {
        match self {
            Self::SynRetransmit => Counter::SynRetransmits,
            Self::SynAckRetransmit => Counter::SynAckRetransmits,
            Self::BadSynAck => Counter::BadSynAck,
            Self::BadAck => Counter::BadAck,
            Self::AckIgnored => Counter::AckIgnored,
            Self::Revised => Counter::Revised,
            Self::ForeignSyn => Counter::ForeignSyn,
            Self::ForeignIcmp => Counter::ForeignIcmp,
            Self::BadChecksum => Counter::BadChecksum,
            Self::WasSilent => Counter::WasSilent,
        }
    }

    /// The name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::SynRetransmit => "syn_retransmits",
            Self::SynAckRetransmit => "syn_ack_retransmits",
            Self::BadSynAck => "bad_syn_ack",
            Self::BadAck => "bad_ack",
            Self::AckIgnored => "ack_ignored",
            Self::Revised => "revised",
            Self::ForeignSyn => "foreign_syn",
            Self::ForeignIcmp => "foreign_icmp",
            Self::BadChecksum => "bad_checksum",
            Self::WasSilent => "was_silent",
        }
    }

    /// What it means, and where to look.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::SynRetransmit => {
                "the client repeats its SYN: no SYN+ACK reached it in time. Look at: loss, a slow or full listener"
            }
            Self::SynAckRetransmit => {
                "the server repeats its SYN+ACK: no ACK reached it in time. Look at: loss on the way back, spoofed sources"
            }
            Self::BadSynAck => {
                "a SYN+ACK acknowledges another SYN. Look at: an old duplicate, a middlebox, an injected answer"
            }
            Self::BadAck => {
                "the client acknowledges another SYN+ACK. Look at: an old duplicate, a middlebox, a SYN cookie mismatch"
            }
            Self::AckIgnored => {
                "the server ignored the client's ACK. Look at: accept queue full (ss -ltn, ListenOverflows), deferred accept"
            }
            Self::Revised => {
                "an attempt continued after RST, ICMP or another SYN: that packet was forged or early. Look at: a middlebox that sends RST, a stranger that sends SYNs"
            }
            Self::ForeignSyn => {
                "a SYN with another number met a connection that was answered already, and nothing answered that SYN. Look at: a stranger that sends SYNs, a client that restarted"
            }
            Self::ForeignIcmp => {
                "an ICMP error came in about a packet to this host, which this host alone can refuse. Look at: a stranger that forges ICMP"
            }
            Self::BadChecksum => {
                "a handshake segment has a wrong TCP checksum: its receiver drops it. Look at: an insertion attack, checksum offload of a sender on this host"
            }
            Self::WasSilent => {
                "the server sent no byte for longer than --half-open-after, then answered or the connection closed. Look at: the application's threads, its backends"
            }
        }
    }
}

/// What it means that completed connections are silent, and where to look.
pub const SILENT_SENTENCE: &str = "established, the client's data is acknowledged, and the server has sent no byte for longer than --half-open-after: the application accepts and does not answer. Look at: the application's threads, its backends";

listed! {
    /// How a UDP flow stands.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub enum UdpVerdict {
        /// A packet came back.
        Answered,
        /// None came back for longer than T1.
        Unanswered,
        /// An ICMP error quoted it.
        Unreachable,
        /// Sent to a multicast or broadcast address, and no unicast came back.
        Multicast,
        /// No answer yet, younger than T1.
        Pending,
        /// Pushed out of a full set.
        Evicted,
        /// Packets of unknown flows that got no record.
        Untracked,
    }
}

/// UDP: the verdicts in the order of reports.
pub const UDP: [Row<UdpVerdict>; UdpVerdict::ALL.len()] = [
    Row {
        verdict: UdpVerdict::Answered,
        name: "answered",
        role: Role::Term,
        gauges: &[one(Counter::UdpAnswered)],
        shown: Shown::Whole,
        assessment: Assessment::Good,
        problem: false,
        entered: Some(Entries {
            counter: Counter::EnteredUdpAnswered,
            sentence: "flows that became answered, including those evicted since: never falls",
        }),
        sentence: "a packet came back",
    },
    Row {
        verdict: UdpVerdict::Unanswered,
        name: "unanswered",
        role: Role::ByAge,
        gauges: WAITING,
        shown: Shown::Whole,
        assessment: Assessment::Bad,
        problem: false,
        entered: None,
        sentence: "no packet came back. Look at: is an answer expected at all, a filter, the service",
    },
    Row {
        verdict: UdpVerdict::Unreachable,
        name: "unreachable",
        role: Role::Term,
        gauges: &[one(Counter::UdpUnreachable)],
        shown: Shown::Whole,
        assessment: Assessment::Bad,
        problem: false,
        entered: Some(Entries {
            counter: Counter::EnteredUdpUnreachable,
            sentence: "flows that became unreachable, including those answered or evicted since: never falls",
        }),
        sentence: "a router or host answers with an ICMP error. Look at: is the service listening on that port, routing, a rejecting firewall",
    },
    Row {
        verdict: UdpVerdict::Multicast,
        name: "multicast",
        role: Role::Term,
        gauges: &[one(Counter::UdpMulticast)],
        shown: Shown::Whole,
        assessment: Assessment::Neutral,
        problem: false,
        entered: Some(Entries {
            counter: Counter::EnteredUdpMulticast,
            sentence: "flows to a multicast or broadcast address, including those evicted since: never falls",
        }),
        sentence: "sent to a multicast or broadcast address, and no host answered it by unicast",
    },
    Row {
        verdict: UdpVerdict::Pending,
        name: "pending",
        role: Role::ByAge,
        gauges: WAITING,
        shown: Shown::Whole,
        assessment: Assessment::Neutral,
        problem: false,
        entered: None,
        sentence: "sent less than --half-open-after ago: an answer may still come",
    },
    Row {
        verdict: UdpVerdict::Evicted,
        name: "evicted",
        role: Role::Term,
        gauges: &[one(Counter::UdpEvicted)],
        shown: Shown::Whole,
        assessment: Assessment::Neutral,
        problem: false,
        entered: None,
        sentence: "evicted from a full table: how it ended is unknown. Look at: --max-flows",
    },
    Row {
        verdict: UdpVerdict::Untracked,
        name: "untracked",
        role: Role::Term,
        gauges: &[one(Counter::UdpUntracked)],
        shown: Shown::Whole,
        assessment: Assessment::Neutral,
        problem: false,
        entered: None,
        sentence: "a packet of an unknown flow found no room in the table, and each further one counts again. Look at: --max-flows",
    },
];

impl UdpVerdict {
    /// Its row in [`UDP`].
    #[must_use]
    pub const fn row(self) -> &'static Row<Self> {
        const TABLE: &[Row<UdpVerdict>] = &UDP;
        &TABLE[self as usize]
    }

    /// The name in reports, expressions and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.row().name
    }

    /// What it means, and where to look.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        self.row().sentence
    }

    /// The verdict that is counted in the gauge at a place of the counter block; none where age decides.
    #[must_use]
    pub const fn of_gauge(place: usize) -> Option<Self> {
        const TABLE: &[Row<UdpVerdict>] = &UDP;
        match row_of(TABLE, place) {
            Some(row) if !matches!(row.role, Role::ByAge) => Some(row.verdict),
            Some(_) | None => None,
        }
    }
}

/// What holds for a table whose identity is `total` = the gauges from `first` to `last`.
const fn assert_table<V: Copy>(table: &[Row<V>], first: Counter, last: Counter) {
    let mut place = first as usize;
    while place <= last as usize {
        let (mut alone, mut shared, mut i) = (0, 0, 0);
        while i < table.len() {
            let row = &table[i];
            if row.has_gauge(place) {
                assert!(row.is_term(), "a gauge of the identity counts a term");
                alone += !matches!(row.role, Role::ByAge) as u32;
                shared += matches!(row.role, Role::ByAge) as u32;
            }
            i += 1;
        }
        assert!(
            (alone == 1 && shared == 0) || (alone == 0 && shared > 1),
            "a gauge counts one verdict, or age divides it between several"
        );
        place += 1;
    }
    let mut i = 0;
    while i < table.len() {
        assert_row(&table[i], first, last);
        i += 1;
    }
}

const fn assert_row<V: Copy>(row: &Row<V>, first: Counter, last: Counter) {
    assert!(!row.name.is_empty() && !row.sentence.is_empty(), "a verdict has a name and a sentence");
    assert!(!row.gauges.is_empty(), "a verdict is counted");
    assert!(!row.problem || matches!(row.assessment, Assessment::Bad), "a problem is bad news");
    assert!(row.gauges.len() == 1 || row.gauges.len() == Cause::ALL.len(), "one gauge, or one per cause");
    assert!(
        matches!(row.shown, Shown::Whole) || row.gauges.len() == Cause::ALL.len(),
        "it has causes to show"
    );
    assert!(!(matches!(row.role, Role::ByAge) && row.entered.is_some()), "age alone enters nothing");
    let mut i = 0;
    while i < row.gauges.len() {
        let (place, cause) = (row.gauges[i].counter as usize, row.gauges[i].cause);
        let is_in = place >= first as usize && place <= last as usize;
        assert!(is_in == row.is_term(), "terms alone are in the identity");
        assert!(match cause {
            Some(cause) => cause as usize == i,
            None => row.gauges.len() == 1,
        });
        i += 1;
    }
}

const _: () = {
    let mut i = 0;
    while i < TCP.len() {
        assert!(TCP[i].verdict as usize == i, "a row has its verdict's number");
        i += 1;
    }
    let mut i = 0;
    while i < UDP.len() {
        assert!(UDP[i].verdict as usize == i, "a row has its verdict's number");
        assert!(!matches!(UDP[i].role, Role::End | Role::Outside), "no event tells the end of a UDP flow");
        i += 1;
    }
    assert_table(&TCP, Counter::Completed, Counter::LAST_TCP);
    assert_table(&UDP, Counter::UdpAnswered, Counter::LAST_UDP);
    assert!(Counter::Attempts as usize + 1 == Counter::Completed as usize, "a total stands before its terms");
    assert!(
        Counter::UdpFlows as usize + 1 == Counter::UdpAnswered as usize,
        "a total stands before its terms"
    );
};

listed! {
    /// What is worth knowing of a flow beside its verdict: bits in the record's tag.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum FlowFlag {
        /// Completed more than T1 after its first SYN.
        Late,
        /// The SYN carried data (RFC 7413).
        FastOpen,
        /// Both ends sent a SYN (RFC 9293 §3.5, figure 7).
        Simultaneous,
        /// Completed by inference, from the initiator's packets alone.
        OneSided,
        /// Taken up again after a provisional end, or the first of two Js was the real one.
        Revised,
        /// Established, and the responder has sent no byte for T1 since the initiator's data.
        Silent,
    }
}

impl FlowFlag {
    /// The name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Late => "late",
            Self::FastOpen => "fast_open",
            Self::Simultaneous => "simultaneous_open",
            Self::OneSided => "one_sided",
            Self::Revised => "revised",
            Self::Silent => "silent",
        }
    }
}

listed! {
    /// The times of a handshake and of what it opened, stamped where the packet is seen.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    #[repr(u8)]
    pub enum Leg {
        /// SYN → SYN+ACK.
        SynToSynAck = 0,
        /// SYN+ACK → ACK.
        SynAckToAck,
        /// First SYN → completing ACK, retransmissions included: what the client waited.
        Connect,
        /// Completing ACK → the responder's first byte of data.
        AckToFirstByte,
    }
}

impl Leg {
    /// The counter of the attempts that are left out of it.
    #[inline(always)]
    #[must_use]
    pub const fn excluded(self) -> Counter {
        match self {
            Self::SynToSynAck => Counter::ExcludedSynToSynAck,
            Self::SynAckToAck => Counter::ExcludedSynAckToAck,
            Self::Connect => Counter::ExcludedConnect,
            Self::AckToFirstByte => Counter::ExcludedAckToFirstByte,
        }
    }

    /// The counter of its longest sample.
    #[inline(always)]
    #[must_use]
    pub const fn longest(self) -> Counter {
        match self {
            Self::SynToSynAck => Counter::MaxSynToSynAck,
            Self::SynAckToAck => Counter::MaxSynAckToAck,
            Self::Connect => Counter::MaxConnect,
            Self::AckToFirstByte => Counter::MaxAckToFirstByte,
        }
    }

    /// The name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::SynToSynAck => "syn_to_syn_ack",
            Self::SynAckToAck => "syn_ack_to_ack",
            Self::Connect => "connect",
            Self::AckToFirstByte => "ack_to_first_byte",
        }
    }
}
