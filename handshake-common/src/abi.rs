//! What crosses the boundary between the kernel and the agent: maps' keys and values, the counters'
//! order, the configuration. Sizes and offsets are asserted here, and nowhere else.
//!
//! No `bool`, no `Option`, no Rust enum inside, no hidden padding: every bit pattern is a value.

use core::mem::{offset_of, size_of};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub use crate::counter::{COUNTERS, Counter};
use crate::flow::Address;
use crate::verdict::Leg;
use crate::wire::Class;

/// Interfaces one agent watches at most, each with its own class block.
pub const MAX_INTERFACES: usize = 1024;
/// The hook point of a side that has not been seen.
pub const NO_POINT: u8 = 0xf;
/// `--net` filters at most.
pub const MAX_NETS: usize = 16;
/// Ways of a set, in both tables.
pub const WAYS: u32 = 4;
/// Lock words that serialise the insertion of one key.
pub const STRIPES: u32 = 4096;
/// Words in each of which the latest UDP flow of a client is remembered, by a hash of its address and port.
pub const CLIENTS: u32 = 16_384;
/// Rows of the service table: the lower half TCP, the upper UDP; the first of each half is `other`.
pub const SERVICES: u32 = 4096;
/// Rows behind those of the services: of each control group whose sockets opened attempts, and of each whose
/// sockets were asked. The first is `other`.
pub const WORKLOADS: u32 = 1024;
/// Rows of both kinds.
pub const ROWS: u32 = SERVICES + WORKLOADS;
/// Records are in units of 64 ns: a u32 of them is 274 s, past Linux's longest handshake with defaults (127
/// s).
pub const TICK_SHIFT: u32 = 6;

/// The map that holds the [`Config`]: a section of the object, whose address the programs know.
pub const CONFIG_MAP: &str = ".data.config";
/// The map that holds the [`PortSet`], likewise.
pub const PORTS_MAP: &str = ".data.ports";

/// The ports of the filter: bit `p % 64` of word `p / 64`.
pub type PortSet = [u64; PORT_WORDS];
/// Words of a [`PortSet`].
pub const PORT_WORDS: usize = 65_536 / 64;

/// Written once by the agent, before the programs attach. In the order of use: what every packet needs comes
/// first, in two cache lines (the map's first value begins eight bytes before a line: kernel/bpf/arraymap.c).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Config {
    /// T1: from this age an open attempt is half-open. Below 2⁶¹, as all times are.
    pub half_open_after_ns: u64,
    /// One of [`option`], or several.
    pub options: u32,
    /// Sets of the IPv4 table, less one. A power of two, less one.
    pub mask4: u32,
    /// The same of the IPv6 table.
    pub mask6: u32,
    /// A UDP flow without a packet for this long has expired.
    pub udp_idle_jiffies: u32,
    /// Random factors of the two hash functions: [`table`](crate::table) says which is whose.
    pub factors: [[u64; HASH_WORDS]; 2],
    /// T2: this long after its last SYN or SYN+ACK an open attempt's record expires. Below 2⁶¹, as all times
    /// are.
    pub expire_after_ns: u64,
    /// A completed connection without a packet for this long counts as closed.
    pub idle_after_jiffies: u32,
    /// A segment at another hook point this long after the side's latest is no repeat.
    pub repeat_within_jiffies: u32,
    /// Flows with neither end in one of these are filtered out, where [`option::NETS`] asks for it. The first
    /// without a family ends them.
    pub nets: [Net; MAX_NETS],
}

/// An address of this host: the key of the map `LOCAL`.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct LocalAddress {
    /// The address.
    pub address: Address,
    /// [`Family`](crate::flow::Family) as a number.
    pub family: u64,
}

/// Addresses of this host that are known to the programs, at most: the lowest of them.
pub const LOCAL_ADDRESSES: usize = 4096;

/// Words a hash takes: an offset, ten key words (two IPv6 addresses, the ports, the protocol) and one of
/// padding.
pub const HASH_WORDS: usize = 12;

/// Bits of [`Config::options`].
pub mod option {
    /// Send a record to the ring for each finished attempt.
    pub const EVENTS: u32 = 1;
    /// Infer completion from the initiator's packets alone.
    pub const ONE_SIDED: u32 = 2;
    /// Flows with neither port in the port set are filtered out.
    pub const PORTS: u32 = 4;
    /// Flows with neither end in one of the prefixes are filtered out.
    pub const NETS: u32 = 8;
    /// Both clocks stand where a test put them.
    pub const TEST_CLOCK: u32 = 16;
    /// Segments that come in with a wrong TCP checksum prove nothing.
    pub const CHECKSUMS: u32 = 32;
    /// Handshakes take the general way alone: it explains their segments, and keeps the makers of their sockets.
    pub const GENERAL: u32 = 64;
    /// Never set, which the verifier does not know: what is mixed with it is any number to it.
    pub const VEIL: u32 = 1 << 31;
}

/// An address prefix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Net {
    /// The prefix.
    pub address: Address,
    /// Ones where `address` counts.
    pub mask: Address,
    /// [`Family`](crate::flow::Family) as a number; 0: no prefix.
    pub family: u64,
}

/// What the tracker knows of a TCP conversation, beside key and tag. 40 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct TcpRecord {
    /// Time of the first packet: an attempt's first SYN.
    pub opened_ns: u64,
    /// J, the initiator's initial sequence number.
    pub isn_initiator: u32,
    /// K: of the latest SYN+ACK that fits, after completion of the one that was acknowledged; with
    /// [`tag::KEPT_K`] that of the SYN in `other_ack`. Of an unreachable attempt over IPv4 without a SYN of
    /// the responder: who sent the ICMP error.
    pub isn_responder: u32,
    /// The other K of two ([`tag::SECOND_K`]), what an early ACK acknowledged ([`tag::EARLY_ACK`]), or the
    /// number of another SYN ([`tag::OTHER_J`]). Of a completed connection with [`tag::EARLY_ACK`] a time: while
    /// it [waits](tag::AWAITS), the initiator's latest data, in units of 2²⁰ ns after `opened_ns`; then the
    /// responder's first byte, in ticks of 64 ns after the completion.
    pub other_ack: u32,
    /// Bytes of data in the SYN ([`tag::FAST_OPEN`]), one segment's at most; after a SYN+ACK those that it
    /// acknowledged. Of an answered attempt without such data, and of every completed one: the time of the
    /// SYN in `other_ack`; without one, of the latest SYN or SYN+ACK, whichever is the older one before
    /// completion; as [`mark_of`](crate::tcp::mark_of) has it.
    pub syn_data: u16,
    /// Bytes the responder sent from K+1 on before completion, saturating: the window of a SYN is never
    /// scaled (RFC 7323 §2.2), so it cannot have sent more. Of a completed one with another SYN in
    /// `other_ack`: the low half of `ack` when that SYN came.
    pub responder_sent: u16,
    /// The first valid SYN+ACK, in ticks of 64 ns after `opened_ns`; 0 while there was none. With
    /// [`tag::OTHER_K`] a sequence number.
    pub syn_ack_after: u32,
    /// The latest SYN or SYN+ACK, then what completed or ended the attempt, in ticks of 64 ns after
    /// `opened_ns`.
    pub latest_after: u32,
    /// Packets of class ack, both ways.
    pub ack: u32,
    /// Packets of class syn, both ways, saturating.
    pub syn: u8,
    /// Packets of class syn_ack, both ways, saturating.
    pub syn_ack: u8,
    /// SYN+ACKs with a K already seen, saturating.
    pub syn_ack_retransmits: u8,
    /// The hook point that first saw the initiator (low nibble) and the responder (high nibble).
    pub points: u8,
}

/// What the tracker knows of a UDP flow, beside key and tag. 40 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct UdpRecord {
    /// Time of the first packet.
    pub opened_ns: u64,
    /// Bytes of IP packets from the initiator, and from the responder.
    pub bytes: [u64; 2],
    /// Packets from the initiator, and from the responder; modulo 2³².
    pub packets: [u32; 2],
    /// The first answer, in ticks of 64 ns after `opened_ns`; 0 where there was none, or its time is not
    /// known. Of an unreachable flow over IPv4: who sent the ICMP error.
    pub answer_after: u32,
    /// Of a flow that answers the request of another one: the port that the request was sent to. Else 0.
    pub request_port: u16,
    /// No meaning; zero.
    pub reserved: u8,
    /// The hook point that sees the initiator (low nibble) and the responder (high nibble).
    pub points: u8,
}

/// The part of a slot that its protocol gives a meaning; which one the tag's state says.
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub union Body {
    /// States of TCP.
    pub tcp: TcpRecord,
    /// States of UDP.
    pub udp: UdpRecord,
}

/// A slot of the IPv4 table: one cache line. The type of the map, which tools print;
/// the tracker reaches the same bytes as [`table::Slot4`](crate::table::Slot4).
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout)]
#[repr(C, align(64))]
pub struct Flow4 {
    /// [`tag`].
    pub tag: u64,
    /// The word that the smaller address is in memory.
    pub low: u32,
    /// The larger address.
    pub high: u32,
    /// The port of `low` in the upper half, of `high` in the lower.
    pub ports: u32,
    /// Jiffies of the latest packet.
    pub last_jiffies: u32,
    /// What is known of the flow.
    pub body: Body,
}

/// A slot of the IPv6 table: two cache lines.
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout)]
#[repr(C, align(64))]
pub struct Flow6 {
    /// [`tag`].
    pub tag: u64,
    /// The port of `low` in the upper half, of `high` in the lower.
    pub ports: u32,
    /// Jiffies of the latest packet.
    pub last_jiffies: u32,
    /// The smaller address.
    pub low: Address,
    /// The larger address.
    pub high: Address,
    /// What is known of the flow.
    pub body: Body,
    /// Who sent the ICMP error that made the flow unreachable.
    pub reporter: Address,
    /// No meaning; zero.
    pub reserved: [u64; 3],
}

/// The control groups of the sockets that sent a record's SYN and its SYN+ACK: those of the initiator and of the
/// responder, as far as they are on this host. 0 is not known. Written under the slot's lock; those of a slot
/// that is not [`tag::ATTRIBUTED`] are an earlier record's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ControlGroups {
    /// Ids of groups: the initiator's, then the responder's.
    pub ids: [u64; 2],
}

/// The process that made a socket. Its socket storage has one, and each end of a record in whose packets the
/// socket was seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Maker {
    /// Its number among all processes of the machine; 0 is not known.
    pub pid: u64,
    /// The name of the thread that made the socket, up to a zero byte.
    pub command: [u8; COMMAND],
}

/// Bytes of a thread's name with the zero byte at its end (`TASK_COMM_LEN`).
pub const COMMAND: usize = 16;
/// Words of a [`Maker`].
pub const MAKER_WORDS: usize = size_of::<Maker>() / 8;

/// The makers of the sockets at a record's ends: the initiator's, then the responder's. Under the terms of
/// [`ControlGroups`]; behind an [`Event`] where makers are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Makers {
    /// Of each end.
    pub ends: [Maker; 2],
}

impl Makers {
    /// Without the names that earlier records have left.
    #[must_use]
    pub fn known(self) -> Self {
        Self { ends: self.ends.map(|maker| if maker.pid == 0 { Maker::default() } else { maker }) }
    }
}

/// The slot's tag: one word that says who owns the slot and how the flow stands.
///
/// ```text
/// 63         44 43     32 31    8       7        6     5     4     1     0
/// │ generation  │ service │ flags │ attributed │   │ waits │ state │ locked │
/// ```
pub mod tag {
    /// Set while one CPU changes the slot.
    pub const LOCKED: u64 = 1;
    /// Where the state begins; 4 bits.
    pub const STATE_SHIFT: u32 = 1;
    /// Set beside [`AWAITS`], where one look at the tag finds it with the state.
    pub const WAITING: u32 = 1 << 5;
    /// Set where one of the record's [`ControlGroups`](super::ControlGroups) or [`Makers`](super::Makers) is
    /// known; without it they have no meaning.
    pub const ATTRIBUTED: u64 = 1 << 7;
    /// Where the flags begin; 24 bits.
    pub const FLAGS_SHIFT: u32 = 8;
    /// The flags' bits, as they lie from [`FLAGS_SHIFT`] on.
    pub const FLAGS: u32 = (1 << (SERVICE_SHIFT - FLAGS_SHIFT)) - 1;
    /// Where the service's row begins; 12 bits.
    pub const SERVICE_SHIFT: u32 = 32;
    /// Where the generation begins; 20 bits. It rises with every publication.
    pub const GENERATION_SHIFT: u32 = 44;

    /// Flag: the initiator is the key's high end.
    pub const INITIATOR_HIGH: u32 = 1;
    /// Flag of a UDP flow: its first packet went to a group, or its frame did.
    pub const TO_GROUP: u32 = 1 << 1;
    /// Flag: completed more than T1 after its first SYN. Before completion [`SYN_LATEST`].
    pub const LATE: u32 = 1 << 1;
    /// Flag of an answered attempt: of its SYNs and SYN+ACKs the latest was a SYN.
    pub const SYN_LATEST: u32 = LATE;
    /// Flag: the SYN carried data.
    pub const FAST_OPEN: u32 = 1 << 2;
    /// Flag: both ends sent a SYN.
    pub const SIMULTANEOUS: u32 = 1 << 3;
    /// Flag: completed by inference.
    pub const ONE_SIDED: u32 = 1 << 4;
    /// Flag: `other_ack` is the K of an earlier SYN+ACK. Of these and the next flag at most one is set alone.
    pub const SECOND_K: u32 = 1 << 5;
    /// Flag: `other_ack` is what an ACK acknowledged before its SYN+ACK was seen; of a completed connection
    /// the time of a first byte.
    pub const EARLY_ACK: u32 = 1 << 6;
    /// Both flags: `other_ack` is the number of another SYN.
    pub const OTHER_J: u32 = SECOND_K | EARLY_ACK;
    /// Flag: segments came out of order; its times are left out.
    pub const UNTIMED: u32 = 1 << 7;
    /// Flag: of a simultaneous open, the initiator's SYN is acknowledged; of another connection that
    /// [waits](AWAITS), data of the initiator's.
    pub const INITIATOR_ACKED: u32 = 1 << 8;
    /// Flag: of a simultaneous open, the responder's SYN is acknowledged.
    pub const RESPONDER_ACKED: u32 = 1 << 9;
    /// Flag: a SYN of the responder is among the record's `syn`: of a simultaneous open, or a split
    /// handshake.
    pub const RESPONDER_SYN: u32 = 1 << 10;
    /// Flag: a RST was seen, valid or not. No rule depends on it: a cause's sentence and Wireshark's
    /// completeness do.
    pub const RESET: u32 = 1 << 11;
    /// Flag: taken up again after a provisional end, or the first of two Js was the real one.
    pub const REVISED: u32 = 1 << 12;
    /// Flag: a SYN+ACK came that fits no J.
    pub const BAD_SYN_ACK: u32 = 1 << 13;
    /// Flag: an initiator's ACK came that fits no K.
    pub const BAD_ACK: u32 = 1 << 14;
    /// Flag: the time from SYN to SYN+ACK is known: it is in the histogram.
    pub const SYN_ACK_TIMED: u32 = 1 << 15;
    /// Flag: the time from SYN+ACK to ACK is known: it is in the histogram. Before completion [`PASSED_ON`].
    pub const ACK_TIMED: u32 = 1 << 16;
    /// Flag of an open attempt: its SYN, once it is answered the SYN+ACK, was seen at another hook point too, the
    /// latest of them: this host has passed it on.
    pub const PASSED_ON: u32 = ACK_TIMED;
    /// Flag, with [`COUNTED_J`]: more than two Js were seen. Without it: the SYN in `other_ack` is the
    /// responder's.
    pub const FURTHER_J: u32 = 1 << 17;
    /// Flag: taken up after the initiator's RST, and no SYN+ACK came since.
    pub const INITIATOR_RESET: u32 = 1 << 18;
    /// Flag: taken up after the responder's RST, and no SYN+ACK came since.
    pub const RESPONDER_RESET: u32 = 1 << 19;
    /// The completion of an attempt that was taken up again so may yet be denied.
    pub const DENIABLE: u32 = INITIATOR_RESET | RESPONDER_RESET;
    /// Flag: the SYN in `other_ack` is in the books as an attempt.
    pub const COUNTED_J: u32 = 1 << 20;
    /// Flag: `syn_ack_after` is the K of the SYN+ACK that acknowledges the SYN in `other_ack`.
    pub const OTHER_K: u32 = 1 << 21;
    /// Flag: `isn_responder` is that K, of an attempt without a SYN+ACK.
    pub const KEPT_K: u32 = 1 << 22;
    /// Flag: completed, and no byte of the responder was seen yet. The only packets of such a connection that
    /// do more than count are those that bring a first byte, or acknowledge one.
    pub const AWAITS: u32 = 1 << 23;
}

/// The per-CPU counter block, in the order of [`Counter`].
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CounterBlock {
    /// One word a counter.
    pub words: [u64; COUNTERS],
}

/// Packets of an interface by class and address family, per CPU.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ClassBlock {
    /// Indexed by [`class_index`].
    pub packets: [u64; CLASS_WORDS],
}

/// All that a CPU counts of its packets but for their times, where there are few interfaces: one lookup a
/// packet, and one system call a reading.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CpuCounts {
    /// First, so that a reader copies the block's words in their order.
    pub counters: CounterBlock,
    /// The class blocks of the first numbers; those of the others are a map of their own.
    pub classes: [ClassBlock; NEAR_BLOCKS],
    /// The packet in hand, of the programs alone. Here because they look this value up anyway.
    pub current: [u64; CURRENT_WORDS],
}

/// Room for the packet in hand: whole cache lines.
pub const CURRENT_WORDS: usize = 24;

/// Class blocks beside the counters. A value per CPU is 32 KiB at most, and more of them would be another
/// page.
pub const NEAR_BLOCKS: usize = 8;

/// Words of a class block: sixteen a family, of which [`Class`] uses thirteen.
pub const CLASS_WORDS: usize = 64;

/// Where a packet of `class` and `family` (0: neither) is counted.
#[inline(always)]
#[must_use]
pub const fn class_index(class: u8, family: u8) -> usize {
    (((family & 3) << 4) | (class & 15)) as usize
}

/// Buckets of a latency histogram: sixteen a power of two.
pub const BUCKETS: usize = 1024;

/// A latency histogram of one CPU.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Histogram {
    /// Samples a bucket; [`latency`](crate::latency) says which.
    pub buckets: [u64; BUCKETS],
}

/// Buckets of the times to connect to a service: four a power of two, from the shortest that a record can have.
pub const CONNECT_BUCKETS: usize = 128;
/// Words that count the completions of a service: those [left out](UNTIMED_CONNECTS), then its buckets.
pub const CONNECT_WORDS: usize = 1 + CONNECT_BUCKETS;
/// The place of the completions without a known time.
pub const UNTIMED_CONNECTS: usize = 0;
/// Rows of the service table that are TCP's.
pub const TCP_SERVICES: u32 = SERVICES / 2;

/// The completions of a TCP service by their time, of all CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ConnectTimes {
    /// Indexed by [`connect_place`](crate::latency::connect_place).
    pub words: [u64; CONNECT_WORDS],
}

/// What is counted for a service: its words are gauges of the identity, in [`Counter`]'s order.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(64))]
pub struct Service {
    /// The low byte: 0 free, 1 being written, 2 valid. Above it a generation of 24 bits, which rises when the
    /// row is given to another service, and then the jiffies at which something last came for the row. Of
    /// `other`: bit 0 while rows are exchanged, above it the number of exchanges.
    pub state: u64,
    /// The responder's address. Of a workload the id of the control group, most significant byte first.
    pub address: Address,
    /// The responder's port; of a workload its [`Side`](crate::flow::Side) as a number.
    pub port: u16,
    /// [`TCP`](crate::wire::TCP) or [`UDP`](crate::wire::UDP); of a workload [`WORKLOAD`].
    pub protocol: u8,
    /// [`Family`](crate::flow::Family) as a number.
    pub family: u8,
    /// Of `other`: jiffies of the latest search for a row by a flow that proves nothing yet.
    pub searched_jiffies: u32,
    /// TCP: [`Counter::Attempts`] to [`Counter::OpenAnswerUnseen`]; UDP: [`Counter::UdpFlows`] to
    /// [`Counter::UdpUntracked`]; each less the first. Of TCP also [`SERVICE_WAS_SILENT`].
    pub gauges: [u64; SERVICE_GAUGES],
}

/// The protocol of a row that is a workload's (RFC 3692 §2.1: for experiments, so no service has it).
pub const WORKLOAD: u8 = 253;

/// The id of a control group in the place of a row's address.
#[inline(always)]
#[must_use]
pub const fn address_of_group(id: u64) -> Address {
    Address([id.to_be(), 0])
}

/// The id of the control group whose row has this address.
#[inline(always)]
#[must_use]
pub const fn group_of_address(Address([id, _]): Address) -> u64 {
    u64::from_be(id)
}

/// Room for the gauges of a service; TCP's identity uses fifteen words of it.
pub const SERVICE_GAUGES: usize = 20;
/// The place of [`Counter::WasSilent`] among the gauges of a TCP service: behind the identity's.
pub const SERVICE_WAS_SILENT: usize = Counter::LAST_TCP as usize - Counter::Attempts as usize + 1;

/// One finished attempt, through the ring. Eight-byte aligned: the ring's memory is no more.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Event {
    /// The record's [`tag`].
    pub tag: u64,
    /// When it ended.
    pub ended_ns: u64,
    /// The smaller address.
    pub low: Address,
    /// The larger address.
    pub high: Address,
    /// The port of `low` in the upper half, of `high` in the lower.
    pub ports: u32,
    /// Jiffies of the latest packet.
    pub last_jiffies: u32,
    /// What is known of the attempt.
    pub tcp: TcpRecord,
    /// The control groups that own its ends.
    pub control_groups: ControlGroups,
    /// [`Counter`] of the verdict as a number. In words: BPF would clear the bytes beside one by a call,
    /// whose frame is one too many.
    pub verdict: u32,
    /// [`Family`](crate::flow::Family) as a number.
    pub family: u32,
}

/// Bytes of the event ring: a power of two, and whole pages.
pub const RING_BYTES: usize = 4 << 20;

/// A packet of an open attempt, as the programs keep it. In a map that the agent has in its memory: it copies a slot
/// whose time is the same before and after.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct KeptPacket {
    /// When it was seen, ns of CLOCK_MONOTONIC; 0 while it is written.
    pub ns: u64,
    /// Bytes of the frame.
    pub length: u32,
    /// The [`Interface`](crate::interface::Interface) where it was seen.
    pub interface: u32,
    /// The first of them; those behind the frame are an earlier one's.
    pub bytes: [u8; EVIDENCE_BYTES],
}

/// Bytes of a kept packet: all headers of nearly every segment.
pub const EVIDENCE_BYTES: usize = 256;
/// Kept packets of all CPUs together: 4 MiB.
pub const KEPT_PACKETS: usize = (4 << 20) / size_of::<KeptPacket>();

/// What the agent's `clock` program reads in one run: the two clocks of the records.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ClockPair {
    /// CLOCK_MONOTONIC.
    pub now_ns: u64,
    /// The kernel's jiffies.
    pub jiffies: u64,
}

/// A number that differs when the layout differs: the object carries it, the agent compares it.
pub const LAYOUT: u64 = {
    let parts = [
        size_of::<Config>(),
        size_of::<Flow4>(),
        size_of::<Flow6>(),
        size_of::<TcpRecord>(),
        size_of::<CounterBlock>(),
        size_of::<CpuCounts>(),
        MAX_INTERFACES,
        offset_of!(Config, factors),
        size_of::<Service>(),
        size_of::<ConnectTimes>(),
        size_of::<Event>(),
        offset_of!(Config, options),
        offset_of!(TcpRecord, ack),
        offset_of!(UdpRecord, answer_after),
        Counter::ALL.len(),
        Class::ALL.len(),
        Leg::ALL.len(),
        STRIPES as usize,
        CLIENTS as usize,
        SERVICES as usize,
        WORKLOADS as usize,
        size_of::<ControlGroups>(),
        size_of::<KeptPacket>(),
        size_of::<Makers>(),
        // Raised by hand when a meaning changes and no size does.
        7,
    ];
    // FNV-1a, a 64-bit word a step.
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut i = 0;
    while i < parts.len() {
        hash = (hash ^ parts[i] as u64).wrapping_mul(0x0000_0100_0000_01b3);
        i += 1;
    }
    hash
};

const _: () = {
    assert!(size_of::<TcpRecord>() == 40 && size_of::<UdpRecord>() == 40);
    assert!(size_of::<Flow4>() == 64 && size_of::<Flow6>() == 128);
    assert!(offset_of!(Flow4, body) == 24 && offset_of!(Flow6, body) == 48);
    assert!(offset_of!(TcpRecord, opened_ns) == offset_of!(UdpRecord, opened_ns));
    assert!(offset_of!(TcpRecord, points) == offset_of!(UdpRecord, points));
    assert!(size_of::<CounterBlock>() == 8 * COUNTERS);
    assert!(size_of::<Service>() == 192 && size_of::<Event>() == 120);
    assert!(size_of::<Makers>() == 16 * MAKER_WORDS);
    assert!(SERVICE_WAS_SILENT < SERVICE_GAUGES);
    assert!(Counter::LAST_UDP as usize - (Counter::UdpFlows as usize) < SERVICE_GAUGES);
};
