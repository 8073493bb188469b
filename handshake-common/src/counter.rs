//! The words of the per-CPU counter block.

listed! {
    /// A word of the per-CPU counter block. Its number is its place.
    ///
    /// The first and the last word are the block's markers: the writer raises `Begin` before a
    /// balanced pair of changes and `End` after it; a reader that copies from the first word to
    /// the last and finds them equal has a block without half a pair.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    #[repr(u8)]
    pub enum Counter {
        /// Marker, raised after a pair.
        End = 0,
        /// Attempts: SYNs with a new identity.
        Attempts,
        /// Gauge of the identity.
        Completed,
        /// Gauge of the identity.
        Refused,
        /// Gauge of the identity.
        Unreachable,
        /// Gauge of the identity.
        InitiatorAborted,
        /// Gauge of the identity.
        ResponderAborted,
        /// Gauge of the identity.
        Superseded,
        /// Gauge of the identity: half-open when it expired, without a SYN+ACK.
        ExpiredNoSynAck,
        /// Gauge of the identity: half-open when it expired, without an ACK.
        ExpiredNoAck,
        /// Gauge of the identity: half-open when it expired, its answer unseen.
        ExpiredAnswerUnseen,
        /// Gauge of the identity.
        Evicted,
        /// Gauge of the identity: SYNs that got no record.
        Untracked,
        /// Gauge of the identity: open, no valid SYN+ACK.
        OpenNoSynAck,
        /// Gauge of the identity: open, no valid ACK.
        OpenNoAck,
        /// Gauge of the identity: open, acknowledged by the initiator, and no SYN+ACK seen.
        OpenAnswerUnseen,
        /// UDP flows.
        UdpFlows,
        /// Gauge of UDP's identity.
        UdpAnswered,
        /// Gauge of UDP's identity: unanswered and pending together.
        UdpWaiting,
        /// Gauge of UDP's identity.
        UdpUnreachable,
        /// Gauge of UDP's identity.
        UdpMulticast,
        /// Gauge of UDP's identity.
        UdpEvicted,
        /// Gauge of UDP's identity: packets of unknown flows that got no record.
        UdpUntracked,
        /// Attempts completed more than T1 after the first SYN.
        Late,
        /// Flows whose SYN was not seen.
        Midstream,
        /// Gauge: SYN+ACKs whose SYN was not seen.
        OrphanSynAck,
        /// [`Sign::SynRetransmit`](crate::verdict::Sign::SynRetransmit).
        SynRetransmits,
        /// [`Sign::SynAckRetransmit`](crate::verdict::Sign::SynAckRetransmit).
        SynAckRetransmits,
        /// [`Sign::BadSynAck`](crate::verdict::Sign::BadSynAck).
        BadSynAck,
        /// [`Sign::BadAck`](crate::verdict::Sign::BadAck).
        BadAck,
        /// [`Sign::AckIgnored`](crate::verdict::Sign::AckIgnored).
        AckIgnored,
        /// [`Sign::Revised`](crate::verdict::Sign::Revised).
        Revised,
        /// [`Sign::ForeignSyn`](crate::verdict::Sign::ForeignSyn).
        ForeignSyn,
        /// [`Sign::ForeignIcmp`](crate::verdict::Sign::ForeignIcmp).
        ForeignIcmp,
        /// [`Sign::BadChecksum`](crate::verdict::Sign::BadChecksum).
        BadChecksum,
        /// [`Sign::WasSilent`](crate::verdict::Sign::WasSilent).
        WasSilent,
        /// Segments given up because another CPU held the slot.
        Contended,
        /// Events that the ring had no room for.
        LostEvents,
        /// Packets of flows that the filter leaves out.
        Filtered,
        /// UDP packets of tracked flows.
        UdpPackets,
        /// Bytes of their IP packets.
        UdpBytes,
        /// Attempts left out of the leg SYN → SYN+ACK.
        ExcludedSynToSynAck,
        /// Attempts left out of the leg SYN+ACK → ACK.
        ExcludedSynAckToAck,
        /// Attempts left out of `connect`.
        ExcludedConnect,
        /// Completed connections left out of the leg ACK → first byte.
        ExcludedAckToFirstByte,
        /// The longest SYN → SYN+ACK, ns. Not a sum: the largest of the CPUs' counts.
        MaxSynToSynAck,
        /// The longest SYN+ACK → ACK, ns.
        MaxSynAckToAck,
        /// The longest connect, ns.
        MaxConnect,
        /// The longest ACK → first byte, ns.
        MaxAckToFirstByte,
        /// Records evicted that had expired.
        EvictedExpired,
        /// Records evicted of closed connections and ended attempts.
        EvictedClosed,
        /// Records evicted of flows seen from the middle and of orphans.
        EvictedMidstream,
        /// Records evicted of UDP flows.
        EvictedUdp,
        /// Records evicted of open attempts.
        EvictedHalfOpen,
        /// Records evicted of completed connections.
        EvictedCompleted,
        /// Entries into `refused`: only rises.
        EnteredRefused,
        /// Entries into `unreachable`.
        EnteredUnreachable,
        /// Entries into `initiator_aborted`.
        EnteredInitiatorAborted,
        /// Entries into `responder_aborted`.
        EnteredResponderAborted,
        /// Entries into `orphan_syn_ack`.
        EnteredOrphanSynAck,
        /// Entries into UDP's `answered`.
        EnteredUdpAnswered,
        /// Entries into UDP's `unreachable`.
        EnteredUdpUnreachable,
        /// Entries into UDP's `multicast`.
        EnteredUdpMulticast,
        /// IPv6 packets with more extension headers than are walked.
        ExtensionChains,
        /// First fragments of TCP or UDP without the whole header.
        SplitHeaders,
        /// SYNs and SYN+ACKs that are copies of one seen at the same hook point.
        Copies,
        /// Rows of the service table that were given to another service.
        ServicesEvicted,
        /// Marker, raised before a pair.
        Begin = 127,
    }
}

impl Counter {
    /// The last gauge of TCP's identity.
    pub const LAST_TCP: Self = Self::OpenAnswerUnseen;
    /// The last gauge of UDP's identity.
    pub const LAST_UDP: Self = Self::UdpUntracked;
}

/// Words of a counter block.
pub const COUNTERS: usize = 128;

const _: () = assert!(Counter::Begin as usize == COUNTERS - 1);
