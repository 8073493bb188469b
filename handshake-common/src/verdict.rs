//! Every verdict, cause, sign and flag: its name, the sentence that says what it means and where to
//! look, and its place in the identity. Reports, help and expectations read them here.

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
    /// Open, and younger than T1.
    Opening,
    /// Open for longer than T1 (RFC 4987 §2).
    HalfOpen,
    /// Outside the books: a connection whose SYN was not seen.
    Midstream,
    /// Outside the books: a SYN+ACK whose SYN was not seen.
    OrphanSynAck,
}

impl Verdict {
    /// In the order of reports.
    pub const ALL: [Self; 12] = [
        Self::Completed,
        Self::Refused,
        Self::Unreachable,
        Self::InitiatorAborted,
        Self::ResponderAborted,
        Self::Superseded,
        Self::HalfOpenExpired,
        Self::Evicted,
        Self::Opening,
        Self::HalfOpen,
        Self::Midstream,
        Self::OrphanSynAck,
    ];

    /// The name in reports, expressions and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::InitiatorAborted => "initiator_aborted",
            Self::ResponderAborted => "responder_aborted",
            Self::Superseded => "superseded",
            Self::HalfOpenExpired => "half_open_expired",
            Self::Evicted => "evicted",
            Self::Opening => "opening",
            Self::HalfOpen => "half_open",
            Self::Midstream => "midstream",
            Self::OrphanSynAck => "orphan_syn_ack",
        }
    }

    /// What it means, and where to look.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Completed => {
                "both ends are established: SYN, SYN+ACK and ACK fit by their sequence numbers"
            }
            Self::Refused => {
                "the responder answers the SYN with RST. Look at: is the service listening on that address and port, a rejecting firewall"
            }
            Self::Unreachable => {
                "a router or host answers the SYN with an ICMP error. Look at: routing, the address, a rejecting firewall"
            }
            Self::InitiatorAborted => {
                "the client gave up with RST before the handshake was done. Look at: client timeouts, a port scan"
            }
            Self::ResponderAborted => {
                "the server sent SYN+ACK, then RST. Look at: a listener closed meanwhile, accept queue overflow with abort, a middlebox"
            }
            Self::Superseded => {
                "the client began anew from the same port before the attempt was done. Look at: client retries, port reuse behind NAT"
            }
            Self::HalfOpenExpired => "still half-open when its record expired. Look at: its cause",
            Self::Evicted => {
                "pushed out of a full table while open: its end is not known. Look at: --max-flows"
            }
            Self::Opening => "open and young: nothing is wrong with it yet",
            Self::HalfOpen => "open for longer than --half-open-after. Look at: its cause",
            Self::Midstream => "its handshake was before our time",
            Self::OrphanSynAck => {
                "a SYN+ACK whose SYN did not pass this hook. Look at: asymmetric routes, --direction"
            }
        }
    }

    /// Is it a term of the identity `attempts = …`?
    #[must_use]
    pub const fn is_in_books(self) -> bool {
        !matches!(self, Self::Midstream | Self::OrphanSynAck)
    }
}

/// Why an open attempt does not get on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// No valid SYN+ACK.
    NoSynAck,
    /// A valid SYN+ACK, but no valid ACK.
    NoAck,
}

impl Cause {
    /// In the order of reports.
    pub const ALL: [Self; 2] = [Self::NoSynAck, Self::NoAck];

    /// The name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoSynAck => "no_syn_ack",
            Self::NoAck => "no_ack",
        }
    }

    /// What it means, and where to look.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::NoSynAck => {
                "nothing answers the SYN. Look at: local firewall, no route back, dropped by the listener"
            }
            Self::NoAck => {
                "our SYN+ACKs leave and no ACK returns. Look at: return path, client firewall, spoofed flood"
            }
        }
    }
}

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
    /// A refused, unreachable or aborted attempt went on after all.
    Revised,
}

impl Sign {
    /// In the order of reports.
    pub const ALL: [Self; 6] = [
        Self::SynRetransmit,
        Self::SynAckRetransmit,
        Self::BadSynAck,
        Self::BadAck,
        Self::AckIgnored,
        Self::Revised,
    ];

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
                "the server did not take the client's ACK. Look at: accept queue full (ss -ltn, ListenOverflows), deferred accept"
            }
            Self::Revised => {
                "an attempt that had been answered by RST or ICMP went on: the answer was forged or early. Look at: a middlebox that resets"
            }
        }
    }
}

/// How a UDP flow stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UdpVerdict {
    /// A packet came back.
    Answered,
    /// None came back for longer than T1.
    Unanswered,
    /// An ICMP port unreachable quoted it.
    Unreachable,
    /// Sent to a multicast or broadcast address: an answer cannot match.
    Multicast,
    /// No answer yet, younger than T1.
    Pending,
    /// Pushed out of a full set.
    Evicted,
}

impl UdpVerdict {
    /// In the order of reports.
    pub const ALL: [Self; 6] =
        [Self::Answered, Self::Unanswered, Self::Unreachable, Self::Multicast, Self::Pending, Self::Evicted];

    /// The name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Unanswered => "unanswered",
            Self::Unreachable => "unreachable",
            Self::Multicast => "multicast",
            Self::Pending => "pending",
            Self::Evicted => "evicted",
        }
    }

    /// What it means, and where to look.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Answered => "a packet came back",
            Self::Unanswered => {
                "nothing came back. Look at: is an answer expected at all, a filter, the service"
            }
            Self::Unreachable => "the far host has nothing on that port and says so (ICMP port unreachable)",
            Self::Multicast => "sent to a group: an answer cannot be matched",
            Self::Pending => "young: an answer may still come",
            Self::Evicted => "pushed out of a full table: its end is not known. Look at: --max-flows",
        }
    }
}

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
}

impl FlowFlag {
    /// In the order of reports.
    pub const ALL: [Self; 4] = [Self::Late, Self::FastOpen, Self::Simultaneous, Self::OneSided];

    /// The name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Late => "late",
            Self::FastOpen => "fast_open",
            Self::Simultaneous => "simultaneous_open",
            Self::OneSided => "one_sided",
        }
    }
}

/// The three times of a handshake, stamped where the packet is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Leg {
    /// SYN → SYN+ACK.
    SynToSynAck = 0,
    /// SYN+ACK → ACK.
    SynAckToAck,
    /// First SYN → completing ACK, retransmissions included: what the client waited.
    Connect,
}

impl Leg {
    /// In the order of their numbers.
    pub const ALL: [Self; 3] = [Self::SynToSynAck, Self::SynAckToAck, Self::Connect];

    /// The name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::SynToSynAck => "syn_to_syn_ack",
            Self::SynAckToAck => "syn_ack_to_ack",
            Self::Connect => "connect",
        }
    }
}
