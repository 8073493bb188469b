//! The flow table: a set-associative cache over any slots, without allocation.
//!
//! A key has two sets of four slots, chosen by two hashes with random factors. A slot belongs to
//! the CPU that took its [`Tag`] from unlocked to locked by compare-and-swap; it is given back by a swap
//! to a tag of a new generation. Both are full barriers, so the stores between them are plain.
//! The insertion of one key is serialised by a lock word chosen by its hash ([`crate::engine`]).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, transmute};

use crate::abi::{self, ControlGroups, HASH_WORDS, MAKER_WORDS, TICK_SHIFT, TcpRecord, UdpRecord, WAYS, tag};
use crate::flow::{Address, Family, FlowKey};
use crate::record::{Clocks, Now, State, jiffies_since, provisional_states};
use crate::shared::{Shared32, Shared64};
use crate::{below, low_half};

/// The slot's tag, as a value: [`abi::tag`] draws it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag(pub u64);

impl Tag {
    /// How the record stands.
    #[inline(always)]
    #[must_use]
    pub const fn state(self) -> State {
        State::from_number((self.0 >> tag::STATE_SHIFT & 0xf) as u8)
    }

    /// Bits of [`abi::tag`].
    #[inline(always)]
    #[must_use]
    pub const fn flags(self) -> u32 {
        low_half(self.0 >> tag::FLAGS_SHIFT) & tag::FLAGS
    }

    /// The row of the service table.
    #[inline(always)]
    #[must_use]
    pub const fn service(self) -> u16 {
        (self.0 >> tag::SERVICE_SHIFT & 0xfff) as u16
    }

    /// Is an owner of one of its ends known?
    #[inline(always)]
    #[must_use]
    pub const fn is_attributed(self) -> bool {
        self.0 & tag::ATTRIBUTED != 0
    }

    /// The same, of a record whose owners are not known.
    #[inline(always)]
    #[must_use]
    pub const fn unattributed(self) -> Self {
        Self(self.0 & !tag::ATTRIBUTED)
    }

    /// The same, of a record with an owner if the bit is set.
    #[inline(always)]
    #[must_use]
    pub const fn attributed(self, bit: u64) -> Self {
        Self(self.0 | bit)
    }

    /// Does a CPU own the slot just now?
    #[inline(always)]
    #[must_use]
    pub const fn is_locked(self) -> bool {
        self.0 & tag::LOCKED != 0
    }

    /// Is it a state of this set, as bits, unlocked, and does the connection wait for no first byte? One look:
    /// the three lie side by side.
    #[inline(always)]
    #[must_use]
    pub const fn is_in(self, states: u32) -> bool {
        let states = spread(states);
        states >> (self.0 & 0x3f) & 1 != 0
    }

    /// Is it a state of UDP, or else of TCP, locked or not?
    #[inline(always)]
    #[must_use]
    pub const fn is_of(self, udp: bool) -> bool {
        const UDP: u64 = locked_or_not(State::UDP);
        const TCP: u64 = locked_or_not(State::TCP) | locked_or_not(State::TCP) << tag::WAITING;
        (if udp { UDP } else { TCP }) >> (self.0 & 0x3f) & 1 != 0
    }

    /// Is the slot free, and unlocked?
    #[inline(always)]
    #[must_use]
    pub const fn is_free(self) -> bool {
        self.0 & 0xff == 0
    }

    /// What differs from one publication of the slot to the next.
    #[inline(always)]
    #[must_use]
    pub const fn generation(self) -> u64 {
        self.0 >> tag::GENERATION_SHIFT
    }

    /// Is it a state of this set, unlocked, waiting for first bytes or not?
    #[inline(always)]
    #[must_use]
    pub const fn is_or_waits_in(self, states: u32) -> bool {
        let states = spread(states);
        (states | states << tag::WAITING) >> (self.0 & 0x3f) & 1 != 0
    }

    /// Does the connection wait for first bytes?
    #[inline(always)]
    #[must_use]
    pub const fn waits(self) -> bool {
        self.0 & tag::WAITING as u64 != 0
    }

    /// The same, owned.
    #[inline(always)]
    #[must_use]
    pub const fn locked(self) -> Self {
        Self(self.0 | tag::LOCKED)
    }

    /// The next generation, not owned; attributed as before.
    #[inline(always)]
    #[must_use]
    pub const fn next(self, state: State, flags: u32, service: u16) -> Self {
        let generation = self.generation().wrapping_add(1) << tag::GENERATION_SHIFT;
        let waits = (flags & tag::AWAITS) / tag::AWAITS;
        Self(
            generation
                | self.0 & tag::ATTRIBUTED
                | (waits as u64) << tag::WAITING.ilog2()
                | (service as u64) << tag::SERVICE_SHIFT
                | (flags as u64) << tag::FLAGS_SHIFT
                | (state as u64) << tag::STATE_SHIFT,
        )
    }
}

/// The bits of a word, each with a zero behind it.
const fn spread(bits: u32) -> u64 {
    let (mut spread, mut i) = (0, 0);
    while i < u32::BITS {
        spread |= (bits as u64 >> i & 1) << (2 * i);
        i += 1;
    }
    spread
}

/// The lowest bits of tags in these states, as places of bits.
const fn locked_or_not(states: u32) -> u64 {
    let states = spread(states);
    states | states << 1
}

/// A record's body as plain words.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Words {
    wide: [u64; 3],
    narrow: [u32; 4],
}

/// A record's body as shared words: the bytes of [`abi::Body`].
#[repr(C)]
pub struct SlotBody {
    wide: [Shared64; 3],
    narrow: [Shared32; 4],
}

/// Places in `SlotBody`, of what is read or changed alone.
mod place {
    use core::mem::offset_of;

    use crate::abi::{TcpRecord, UdpRecord};

    const NARROW: usize = 24;
    pub(super) const OPENED: usize = offset_of!(TcpRecord, opened_ns) / 8;
    pub(super) const BYTES: usize = offset_of!(UdpRecord, bytes) / 8;
    pub(super) const PACKETS: usize = (offset_of!(UdpRecord, packets) - NARROW) / 4;
    pub(super) const LATEST: usize = (offset_of!(TcpRecord, latest_after) - NARROW) / 4;
    pub(super) const ACK: usize = (offset_of!(TcpRecord, ack) - NARROW) / 4;
    pub(super) const REQUEST_PORT: usize = (offset_of!(UdpRecord, request_port) - NARROW) / 4;
    pub(super) const POINTS: usize = (offset_of!(TcpRecord, points) - NARROW) / 4;
    /// `points` is the last byte of its word.
    pub(super) const POINTS_SHIFT: u32 = if cfg!(target_endian = "little") { 24 } else { 0 };
    /// `request_port` is the first half of its word.
    pub(super) const REQUEST_PORT_SHIFT: u32 = if cfg!(target_endian = "little") { 0 } else { 16 };
}

impl SlotBody {
    /// An empty body.
    #[must_use]
    pub const fn new() -> Self {
        Self { wide: [const { Shared64::new(0) }; 3], narrow: [const { Shared32::new(0) }; 4] }
    }

    #[inline(always)]
    fn load(&self) -> Words {
        let (w, n) = (&self.wide, &self.narrow);
        Words {
            wide: [w[0].load(), w[1].load(), w[2].load()],
            narrow: [n[0].load(), n[1].load(), n[2].load(), n[3].load()],
        }
    }

    #[inline(always)]
    fn store(&self, words: &Words) {
        self.wide[0].store(words.wide[0]);
        self.wide[1].store(words.wide[1]);
        self.wide[2].store(words.wide[2]);
        self.narrow[0].store(words.narrow[0]);
        self.narrow[1].store(words.narrow[1]);
        self.narrow[2].store(words.narrow[2]);
        self.narrow[3].store(words.narrow[3]);
    }

    /// The body of a TCP state.
    #[inline(always)]
    #[must_use]
    pub fn tcp(&self) -> TcpRecord {
        transmute!(self.load())
    }

    /// The body of a UDP state.
    #[inline(always)]
    #[must_use]
    pub fn udp(&self) -> UdpRecord {
        transmute!(self.load())
    }

    /// Writes a TCP body; the slot is owned.
    #[inline(always)]
    pub fn set_tcp(&self, record: TcpRecord) {
        self.store(&transmute!(record));
    }

    /// Writes what of a TCP body the SYN+ACK of a handshake without incident changes; the slot is owned.
    #[inline(always)]
    pub fn set_answer(&self, record: TcpRecord) {
        let words: Words = transmute!(record);
        self.wide[1].store(words.wide[1]);
        self.wide[2].store(words.wide[2]);
        self.narrow[0].store(words.narrow[0]);
        self.narrow[1].store(words.narrow[1]);
        self.narrow[3].store(words.narrow[3]);
    }

    /// The same of its third segment.
    #[inline(always)]
    pub fn set_completion(&self, record: TcpRecord) {
        let words: Words = transmute!(record);
        self.wide[2].store(words.wide[2]);
        self.narrow[1].store(words.narrow[1]);
        self.narrow[2].store(words.narrow[2]);
    }

    /// Writes a UDP body; the slot is owned.
    #[inline(always)]
    pub fn set_udp(&self, record: UdpRecord) {
        self.store(&transmute!(record));
    }

    /// [`TcpRecord::latest_ns`], of a record of TCP.
    #[inline(always)]
    fn latest_ns(&self) -> u64 {
        self.wide[place::OPENED].load().wrapping_add((self.latest_after() as u64) << TICK_SHIFT)
    }

    /// [`TcpRecord::latest_after`], of a record of TCP.
    #[inline(always)]
    #[must_use]
    pub fn latest_after(&self) -> u32 {
        self.narrow[place::LATEST].load()
    }

    /// The hook points of both sides: initiator in the low nibble.
    #[inline(always)]
    #[must_use]
    pub fn points(&self) -> u8 {
        (self.narrow[place::POINTS].load() >> place::POINTS_SHIFT & 0xff) as u8
    }

    /// [`UdpRecord::request_port`], of a record of UDP.
    #[inline(always)]
    pub fn request_port(&self) -> u16 {
        (self.narrow[place::REQUEST_PORT].load() >> place::REQUEST_PORT_SHIFT & 0xffff) as u16
    }

    /// Packets that a UDP flow's responder sent.
    #[inline(always)]
    pub fn answers(&self) -> u32 {
        self.narrow[place::PACKETS + 1].load()
    }

    /// Counts packets of class ack. The slot need not be owned: it may, very rarely, be the next flow's.
    #[inline(always)]
    pub fn add_acks(&self, acks: u32) {
        self.narrow[place::ACK].add(acks);
    }

    /// Counts UDP packets of one side, under the same terms.
    #[inline(always)]
    pub fn add_udp(&self, responder: bool, packets: u32, bytes: u64) {
        if responder {
            self.wide[place::BYTES + 1].add(bytes);
            self.narrow[place::PACKETS + 1].add(packets);
        } else {
            self.wide[place::BYTES].add(bytes);
            self.narrow[place::PACKETS].add(packets);
        }
    }
}

impl Default for SlotBody {
    fn default() -> Self {
        Self::new()
    }
}

/// A slot of either table.
pub trait Slot {
    /// Which table it is of.
    const FAMILY: Family;
    /// The tag.
    fn tag(&self) -> &Shared64;
    /// Jiffies of the latest packet.
    fn last(&self) -> &Shared32;
    /// The body.
    fn body(&self) -> &SlotBody;
    /// Is the key in it? Counts only under the tag that was loaded before.
    fn holds(&self, key: &FlowKey) -> bool;
    /// Writes the key; the slot is owned.
    fn set_key(&self, key: &FlowKey);
    /// The key in it, of a flow whose state is UDP's or not.
    fn key(&self, udp: bool) -> FlowKey;
    /// Who made the flow unreachable; zeros where the record has it.
    fn reporter(&self) -> Address;
    /// Keeps it, where there is room beside the record; the slot is owned.
    fn set_reporter(&self, reporter: Address);
}

/// A slot of the IPv4 table: the bytes of [`abi::Flow4`].
#[repr(C, align(64))]
#[derive(Default)]
pub struct Slot4 {
    tag: Shared64,
    low: Shared32,
    high: Shared32,
    ports: Shared32,
    last: Shared32,
    body: SlotBody,
}

/// A slot of the IPv6 table: the bytes of [`abi::Flow6`].
#[repr(C, align(64))]
#[derive(Default)]
pub struct Slot6 {
    tag: Shared64,
    ports: Shared32,
    last: Shared32,
    low: [Shared64; 2],
    high: [Shared64; 2],
    body: SlotBody,
    reporter: [Shared64; 2],
    reserved: [Shared64; 3],
}

const _: () = {
    use core::mem::offset_of;
    assert!(size_of::<Slot4>() == size_of::<abi::Flow4>() && size_of::<Slot6>() == size_of::<abi::Flow6>());
    assert!(size_of::<SlotBody>() == size_of::<abi::Body>());
    assert!(offset_of!(Slot4, body) == offset_of!(abi::Flow4, body));
    assert!(offset_of!(Slot6, body) == offset_of!(abi::Flow6, body));
    assert!(offset_of!(Slot4, ports) == offset_of!(abi::Flow4, ports));
    assert!(offset_of!(Slot4, last) == offset_of!(abi::Flow4, last_jiffies));
    assert!(offset_of!(Slot6, ports) == offset_of!(abi::Flow6, ports));
    assert!(offset_of!(Slot6, last) == offset_of!(abi::Flow6, last_jiffies));
    assert!(offset_of!(Slot6, low) == offset_of!(abi::Flow6, low));
    assert!(offset_of!(Slot6, high) == offset_of!(abi::Flow6, high));
    assert!(offset_of!(Slot6, reporter) == offset_of!(abi::Flow6, reporter));
};

impl Slot for Slot4 {
    const FAMILY: Family = Family::V4;

    #[inline(always)]
    fn tag(&self) -> &Shared64 {
        &self.tag
    }
    #[inline(always)]
    fn last(&self) -> &Shared32 {
        &self.last
    }
    #[inline(always)]
    fn body(&self) -> &SlotBody {
        &self.body
    }
    #[inline(always)]
    fn holds(&self, key: &FlowKey) -> bool {
        self.low.load() == key.low.first()
            && self.high.load() == key.high.first()
            && self.ports.load() == key.ports
    }
    #[inline(always)]
    fn set_key(&self, key: &FlowKey) {
        self.low.store(key.low.first());
        self.high.store(key.high.first());
        self.ports.store(key.ports);
    }
    #[inline(always)]
    fn key(&self, udp: bool) -> FlowKey {
        FlowKey {
            low: Address::of_first(self.low.load()),
            high: Address::of_first(self.high.load()),
            ports: self.ports.load(),
            udp,
        }
    }
    #[inline(always)]
    fn reporter(&self) -> Address {
        Address::default()
    }
    #[inline(always)]
    fn set_reporter(&self, _reporter: Address) {}
}

impl Slot for Slot6 {
    const FAMILY: Family = Family::V6;

    #[inline(always)]
    fn tag(&self) -> &Shared64 {
        &self.tag
    }
    #[inline(always)]
    fn last(&self) -> &Shared32 {
        &self.last
    }
    #[inline(always)]
    fn body(&self) -> &SlotBody {
        &self.body
    }
    #[inline(always)]
    fn holds(&self, key: &FlowKey) -> bool {
        self.ports.load() == key.ports && equal(&self.low, key.low) && equal(&self.high, key.high)
    }
    #[inline(always)]
    fn set_key(&self, key: &FlowKey) {
        self.ports.store(key.ports);
        set(&self.low, key.low);
        set(&self.high, key.high);
    }
    #[inline(always)]
    fn key(&self, udp: bool) -> FlowKey {
        FlowKey { low: get(&self.low), high: get(&self.high), ports: self.ports.load(), udp }
    }
    #[inline(always)]
    fn reporter(&self) -> Address {
        get(&self.reporter)
    }
    #[inline(always)]
    fn set_reporter(&self, reporter: Address) {
        set(&self.reporter, reporter);
    }
}

#[inline(always)]
fn equal(words: &[Shared64; 2], Address(address): Address) -> bool {
    words[0].load() == address[0] && words[1].load() == address[1]
}

#[inline(always)]
fn set(words: &[Shared64; 2], Address(address): Address) {
    words[0].store(address[0]);
    words[1].store(address[1]);
}

#[inline(always)]
fn get(words: &[Shared64; 2]) -> Address {
    Address([words[0].load(), words[1].load()])
}

/// Multilinear hashing: one multiplication a word, strongly universal in the upper 32 bits of the sum
/// (Lemire and Kaser, "Strongly universal string hashing is fast", 2014), so that without knowing
/// the factors no sender can aim keys at one set. Two words of IPv6 are multiplied as one: the upper of them has
/// the sum of its factor and the lower one's times 2³² then, which is as random.
///
/// Mixed at the end: keys in arithmetic progression, as ports and addresses that are given out in turn, would
/// have hashes in progression, which for a few factors falls in clumps.
#[inline(always)]
#[must_use]
pub fn hash(key: &FlowKey, family: Family, factors: &[u64; HASH_WORDS]) -> u32 {
    let word = |sum: u64, word: u32, i: usize| sum.wrapping_add((word as u64).wrapping_mul(factors[i]));
    let mut sum = factors[0];
    sum = word(sum, key.ports, 3);
    sum = word(sum, key.udp as u32, 4);
    match family {
        Family::V4 => {
            sum = word(sum, key.low.first(), 1);
            sum = word(sum, key.high.first(), 2);
        }
        Family::V6 => {
            // Two words at once: the lower is not cut out, which leaves its factor in the sum of two for the upper.
            let two = |sum: u64, pair: u64, i: usize| {
                let lower = pair.wrapping_mul(factors[i]);
                word(sum.wrapping_add(lower), low_half(pair >> 32), i + 1)
            };
            sum = two(sum, key.low.0[0], 1);
            sum = two(sum, key.high.0[0], 5);
            sum = two(sum, key.low.0[1], 7);
            sum = two(sum, key.high.0[1], 9);
        }
    }
    mix((sum >> 32) as u32)
}

/// Multiplicative hashing by 2³² over the golden ratio between two shifts (Knuth, TAOCP 3, §6.4). Each step
/// can be taken back, so a strongly universal hash stays one.
#[inline(always)]
const fn mix(hash: u32) -> u32 {
    let mixed = (hash ^ hash >> 16).wrapping_mul(0x9e37_79b1);
    mixed ^ mixed >> 15
}

/// The slots that one hash chooses. The kernel's tables are arrays of sets: one lookup finds four slots.
pub type Set<S> = [S; WAYS as usize];

/// The set a hash chooses in a table of `mask` + 1 sets.
#[inline(always)]
#[must_use]
pub const fn set_of(hash: u32, mask: u32) -> u32 {
    hash & mask
}

/// What a record is worth keeping, from the least. A UDP flow, an orphan and a flow seen from the middle take
/// the place of one of their own worth or less. An attempt takes any place, that of the least worth first;
/// but where more than six of the eight slots hold records that answered or completed, it takes the place of
/// the least of those. So no flood of one kind pushes out a better kind, and none leaves attempts without a
/// record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Worth {
    /// Nothing there.
    Free = 0,
    /// Past its time.
    Expired,
    /// Closed connections and ended attempts.
    Ended,
    /// Flows whose SYN was not seen.
    Midstream,
    /// UDP that nothing came back for.
    UdpUnanswered,
    /// Half-open, no SYN+ACK.
    HalfOpenNoSynAck,
    /// Half-open, no ACK.
    HalfOpenNoAck,
    /// UDP that was answered.
    UdpAnswered,
    /// Completed connections.
    Completed,
}

impl Worth {
    /// What a record in `state` is worth while it lives.
    #[must_use]
    pub const fn of(state: State) -> Self {
        match state {
            State::Empty => Self::Free,
            State::Closed | provisional_states!(State) => Self::Ended,
            State::Midstream | State::OrphanSynAck => Self::Midstream,
            State::UdpWaiting | State::UdpUnreachable | State::UdpMulticast => Self::UdpUnanswered,
            State::SynSent | State::AnswerUnseen => Self::HalfOpenNoSynAck,
            State::SynReceived => Self::HalfOpenNoAck,
            State::UdpAnswered => Self::UdpAnswered,
            State::Established => Self::Completed,
        }
    }

    /// What a record in `state` is worth once it is past the limit of its clock.
    const fn late(state: State) -> Self {
        match state {
            State::Established => Self::Ended,
            State::Empty
            | State::SynSent
            | State::SynReceived
            | State::AnswerUnseen
            | State::Closed
            | State::Refused
            | State::Unreachable
            | State::InitiatorAborted
            | State::ResponderAborted
            | State::Midstream
            | State::OrphanSynAck
            | State::UdpWaiting
            | State::UdpAnswered
            | State::UdpUnreachable
            | State::UdpMulticast => Self::Expired,
        }
    }
}

/// What is known of each state, four bits a state.
mod nibbles {
    use super::Worth;
    use crate::record::State;

    /// The clocks of [`clock_of`].
    pub(super) const OPEN: u64 = 1;
    pub(super) const UDP_SHIFT: u32 = 1;
    pub(super) const IDLE_SHIFT: u32 = 2;

    pub(super) const WORTHS: u64 = {
        let (mut all, mut i) = (0, 0);
        while i < State::ALL.len() {
            all |= (Worth::of(State::ALL[i]) as u64) << (i * 4);
            i += 1;
        }
        all
    };
    /// Where the worth of a record that is late differs.
    pub(super) const LATE: u64 = {
        let (mut all, mut i) = (0, 0);
        while i < State::ALL.len() {
            all |= (Worth::late(State::ALL[i]) as u64) << (i * 4);
            i += 1;
        }
        all ^ WORTHS
    };
    pub(super) const CLOCKS: u64 = {
        let (mut all, mut i) = (0, 0);
        while i < State::ALL.len() {
            all |= clock_of(State::ALL[i]) << (i * 4);
            i += 1;
        }
        all
    };

    /// The clock whose limit a state has, as a bit; 0 for none.
    const fn clock_of(state: State) -> u64 {
        if state.is_open() {
            OPEN
        } else if state.is_udp() {
            1 << UDP_SHIFT
        } else if matches!(state, State::Established) {
            1 << IDLE_SHIFT
        } else {
            0
        }
    }
}

/// Has the record in this slot outlived its time? The same question as
/// [`Record::expired`](crate::record::Record::expired), asked without copying the whole.
#[inline(always)]
pub fn expired<S: Slot>(slot: &S, state: State, now: Now, clocks: &Clocks) -> bool {
    if state.is_udp() {
        return jiffies_since(now.jiffies, slot.last().load()) > clocks.udp_idle_jiffies;
    }
    state.is_open() && slot.body().tcp().expired(now.ns, clocks)
}

/// What the record in a slot is worth at `now`, [`Worth`] as a number, and how young it is, of two the
/// younger by the higher number. Written without branches, for the survey asks it of eight slots in a row and
/// the verifier would follow each combination.
#[inline(always)]
pub fn worth_and_youth<S: Slot>(slot: &S, tag: Tag, now: Now, clocks: &Clocks) -> (u64, u64) {
    /// The youth of what was used just now. What was used later is younger.
    const NOW: u32 = (1 << 31) - 1;
    // The state, four bits each.
    let place = tag.0 << (2 - tag::STATE_SHIFT) & 0x3c;
    let youth = slot.last().load().wrapping_add(NOW.wrapping_sub(now.jiffies)) as u64;
    let late = |limit: u32| below(youth.cast_signed(), NOW as i64 - limit as i64);
    let latest = slot.body().latest_ns();
    let open_late = below(clocks.expire_after_ns.cast_signed(), now.ns.wrapping_sub(latest).cast_signed());
    let clocks_late = (open_late * nibbles::OPEN)
        | late(clocks.udp_idle_jiffies) << nibbles::UDP_SHIFT
        | late(clocks.idle_after_jiffies) << nibbles::IDLE_SHIFT;
    // A product, not a mask: the verifier of 6.18 follows both values of a mask that is all bits or none.
    let is_late = below(0, (nibbles::CLOCKS >> place & clocks_late).cast_signed());
    let (worth, change) = (nibbles::WORTHS >> place & 0xf, nibbles::LATE >> place & 0xf);
    (worth ^ change.wrapping_mul(is_late), youth)
}

/// Copies a slot's record, whole: between two equal, unlocked tags. `None`: free, or changed all the time.
#[cfg(not(target_arch = "bpf"))]
pub fn read<S: Slot>(slot: &S) -> Option<crate::record::Record> {
    read_beside(slot, Beside::default())
}

/// The words of the [`Makers`](abi::Makers) of a slot's record.
pub type MakerWords = [Shared64; 2 * MAKER_WORDS];

/// What is kept beside a slot.
#[derive(Clone, Copy, Default)]
pub struct Beside<'a> {
    /// The owners of its record.
    pub owners: Option<&'a [Shared64; 2]>,
    /// Their makers.
    pub makers: Option<&'a MakerWords>,
}

/// What is kept beside the slots of a table: one each, or none.
#[derive(Clone, Copy, Default)]
pub struct BesideTable<'a> {
    /// The owners.
    pub owners: &'a [[Shared64; 2]],
    /// The makers.
    pub makers: &'a [MakerWords],
}

impl<'a> BesideTable<'a> {
    /// What is beside the slot of this number.
    #[must_use]
    pub fn slot(&self, number: usize) -> Beside<'a> {
        Beside { owners: self.owners.get(number), makers: self.makers.get(number) }
    }
}

/// The makers that these words are.
#[cfg(not(target_arch = "bpf"))]
fn makers_of(words: &MakerWords) -> abi::Makers {
    let makers: abi::Makers = zerocopy::transmute!(words.each_ref().map(Shared64::load));
    makers.known()
}

/// The same, with what is kept beside it.
#[cfg(not(target_arch = "bpf"))]
pub fn read_beside<S: Slot>(slot: &S, beside: Beside<'_>) -> Option<crate::record::Record> {
    read_with(slot, |tag| record_under(slot, tag, beside))
}

/// What `read` makes of a slot's words, all of one record: between two equal, unlocked tags. `read` is called
/// again where they differ, so it may see halves of two records. `None`: free, or changed all the time.
#[cfg(not(target_arch = "bpf"))]
#[inline(always)]
pub fn read_with<S: Slot, T>(slot: &S, mut read: impl FnMut(Tag) -> T) -> Option<T> {
    use crate::shared::read_fence;
    for _ in 0..crate::spin::READ_TRIES {
        let before = Tag(slot.tag().load());
        if before.is_locked() {
            core::hint::spin_loop();
            continue;
        }
        if matches!(before.state(), State::Empty) {
            return None;
        }
        read_fence();
        let made = read(before);
        read_fence();
        if slot.tag().load() == before.0 {
            return Some(made);
        }
    }
    None
}

/// The sets that the key of the record in a slot chooses in a table of `mask` + 1 sets.
#[cfg(not(target_arch = "bpf"))]
pub fn sets_of<S: Slot>(slot: &S, mask: u32, factors: &[[u64; HASH_WORDS]; 2]) -> [u32; 2] {
    let key = slot.key(Tag(slot.tag().load()).state().is_udp());
    factors.each_ref().map(|factors| set_of(hash(&key, S::FAMILY, factors), mask))
}

/// A free slot of a set, by its place.
#[cfg(not(target_arch = "bpf"))]
pub fn free_way<S: Slot>(set: &Set<S>) -> Option<u32> {
    (0..WAYS).zip(set).find(|(_, slot)| is_free(*slot)).map(|(way, _)| way)
}

/// Does the slot hold no record?
#[cfg(not(target_arch = "bpf"))]
pub fn is_free<S: Slot>(slot: &S) -> bool {
    matches!(Tag(slot.tag().load()).state(), State::Empty)
}

/// Moves a record to a free slot, and frees its own. No other thread uses either.
#[cfg(not(target_arch = "bpf"))]
pub fn relocate<S: Slot>(from: &S, to: &S) {
    let tag = Tag(from.tag().load());
    to.set_key(&from.key(tag.state().is_udp()));
    to.last().store(from.last().load());
    to.body().store(&from.body().load());
    to.set_reporter(from.reporter());
    to.tag().swap(tag.0);
    from.tag().swap(tag.next(State::Empty, 0, 0).0);
}

/// Copies what tells how a slot's record stands, under a tag that is known to be its own.
#[cfg(not(target_arch = "bpf"))]
#[inline(always)]
pub fn brief_under<S: Slot>(slot: &S, tag: Tag) -> crate::record::Brief {
    use crate::record::{Brief, Detail};
    let state = tag.state();
    let detail = if state.is_udp() { Detail::Udp(slot.body().udp()) } else { Detail::Tcp(slot.body().tcp()) };
    Brief {
        family: S::FAMILY,
        key: slot.key(state.is_udp()),
        state,
        flags: tag.flags(),
        service: tag.service(),
        last_jiffies: slot.last().load(),
        detail,
    }
}

/// The owners of a slot's record, under the same terms; zeros of one without.
#[cfg(not(target_arch = "bpf"))]
#[inline(always)]
pub fn owners_under(tag: Tag, beside: Beside<'_>) -> ControlGroups {
    let ids = beside.owners.filter(|_| tag.is_attributed()).map(|ids| ids.each_ref().map(Shared64::load));
    ControlGroups { ids: ids.unwrap_or_default() }
}

/// Copies a slot's record with what is kept beside it, under the same terms.
#[cfg(not(target_arch = "bpf"))]
pub fn record_under<S: Slot>(slot: &S, tag: Tag, beside: Beside<'_>) -> crate::record::Record {
    let crate::record::Brief { family, key, state, flags, service, last_jiffies, detail } =
        brief_under(slot, tag);
    crate::record::Record {
        family,
        key,
        state,
        flags,
        service,
        last_jiffies,
        detail,
        reporter: slot.reporter(),
        control_groups: owners_under(tag, beside),
        makers: beside.makers.filter(|_| tag.is_attributed()).map(makers_of).unwrap_or_default(),
    }
}

/// The event of an attempt that ended: its record under the tag given, and how.
#[inline(always)]
pub fn event<S: Slot>(
    slot: &S,
    tag: Tag,
    owners: ControlGroups,
    verdict: usize,
    ended_ns: u64,
) -> abi::Event {
    let key = slot.key(false);
    abi::Event {
        tag: tag.0,
        ended_ns,
        low: key.low,
        high: key.high,
        ports: key.ports,
        last_jiffies: slot.last().load(),
        tcp: slot.body().tcp(),
        control_groups: owners,
        verdict: low_half(verdict as u64),
        family: S::FAMILY as u32,
    }
}

/// The record that an event carries, with the makers that came behind it.
#[cfg(not(target_arch = "bpf"))]
#[must_use]
pub fn record_of(event: &abi::Event, makers: abi::Makers) -> crate::record::Record {
    let tag = Tag(event.tag);
    crate::record::Record {
        family: if event.family == Family::V6 as u32 { Family::V6 } else { Family::V4 },
        key: FlowKey { low: event.low, high: event.high, ports: event.ports, udp: false },
        state: tag.state(),
        flags: tag.flags(),
        service: tag.service(),
        last_jiffies: event.last_jiffies,
        detail: crate::record::Detail::Tcp(event.tcp),
        reporter: Address::default(),
        control_groups: event.control_groups,
        makers,
    }
}

#[cfg(test)]
mod tests;
