//! Counts the records of the flow tables at one moment, and sorts by age those whose verdict depends on their
//! age. Pure: the time is passed in.
//!
//! ```text
//! tags of 64 slots ─▶ two words: held, and to be read ─▶ those records, whole ─▶ Ages by row of the service table
//! ```
//!
//! A table is far larger than the processor's caches, so a scan takes as long as the memory does, provided
//! that no access waits for the one before. The tag alone decides most slots: free, or in a state whose
//! verdict no age changes. The tag is one word, consistent by itself, and becomes two bits without a branch.
//! Only records whose verdict depends on their age are read, by the table's protocol.

mod kept;

use std::collections::{HashMap, HashSet};
use std::ops::AddAssign;
use std::sync::Arc;

use handshake_common::abi::{BUCKETS, CONNECT_WORDS, NO_POINT, TcpRecord, tag};
use handshake_common::flow::Side;
use handshake_common::interface::GROUPS;
use handshake_common::latency::{bucket, nearest_place};
use handshake_common::record::{Clocks, Detail, Now, Record, SILENT, State};
use handshake_common::table::{self, BesideTable, Slot};
use handshake_common::verdict::{Cause, Seat, UdpVerdict, Verdict};

use super::local::HostAddresses;
use super::{Placed, patience, placed};

/// The number of slots examined together: one bit each in a word.
const BATCH: usize = u64::BITS as usize;
/// How many slots ahead memory is prefetched. The processor's own prefetching ends at each page, and a page
/// holds 64 IPv4 slots. From 32 on the number makes no difference; without prefetching, a scan takes a third
/// longer.
const AHEAD: usize = 48;
/// The states whose verdict depends on the record's age, one bit each.
const AGEING: u64 = State::OPEN as u64 | 1 << State::UdpWaiting as u32;

/// Observes a scan: counts every record by state, and passes the records in some states to a function.
pub struct Onlooker<'a> {
    states: u64,
    /// Whether it is also shown the connections that may be silent.
    may_be_silent: bool,
    /// How many more records it is shown of the states that no age changes.
    left: u64,
    show: &'a mut dyn FnMut(&Record),
    occupancy: Occupancy,
}

/// The number of records in each state.
pub type Occupancy = [u64; State::ALL.len()];

impl<'a> Onlooker<'a> {
    /// Calls `show` with each record in one of `states`, one bit each.
    pub const fn new(states: u64, show: &'a mut dyn FnMut(&Record)) -> Self {
        let states = states & !(1 << State::Empty as u32);
        Self { states, may_be_silent: false, left: u64::MAX, show, occupancy: [0; State::ALL.len()] }
    }

    /// The same, shown so many records at most of the states whose verdict no age changes. A scan would not
    /// read them otherwise.
    #[must_use]
    pub fn limited(self, most: u64) -> Self {
        Self { left: most, ..self }
    }

    /// The same, shown the connections that may be silent as well, which a scan reads anyway.
    #[must_use]
    pub fn with_silent(self) -> Self {
        Self { may_be_silent: true, ..self }
    }

    /// The number of records in each state, shown or not.
    pub const fn occupancy(&self) -> Occupancy {
        self.occupancy
    }

    /// The same where another scan has counted the records.
    pub(crate) const fn count_as(&mut self, occupancy: Occupancy) {
        self.occupancy = occupancy;
    }

    /// Counts and shows a record that is in no table.
    pub(crate) fn meet(&mut self, record: &Record) {
        self.occupancy[record.state as usize] += 1;
        self.look_at(record);
    }

    fn look_at(&mut self, record: &Record) {
        if self.states >> record.state as u32 & 1 == 0 {
            if self.may_be_silent && may_be_silent(record.flags) {
                (self.show)(record);
            }
            return;
        }
        if !is_ageing(record.state) {
            self.left = self.left.saturating_sub(1);
            if self.left == 0 {
                self.states &= AGEING;
            }
        }
        (self.show)(record);
    }

    fn count<S: Slot>(&mut self, batch: &[S]) {
        for slot in batch {
            let state = state_of(slot.tag().load());
            if let Some(count) = self.occupancy.get_mut(state).filter(|_| state != State::Empty as usize) {
                *count += 1;
            }
        }
    }
}

/// The records of the tables, counted by age.
#[derive(Clone)]
pub struct Scan {
    now: Now,
    clocks: Clocks,
    host: Arc<HostAddresses>,
    used: u64,
    /// The ages by row of the service table, up to the highest row found.
    rows: Vec<Ages>,
    /// Open attempts younger than T1, and older ones, by cause.
    flagged: [[Flagged; Cause::ALL.len()]; 2],
    lost: LostHere,
    /// The ages of open attempts younger than T1, and of older ones that have not expired, by bucket of
    /// [`latency`](handshake_common::latency); empty while there is none.
    ages: [Vec<u64>; 2],
    /// The same by row of the service table, and by the place of a service's times to connect.
    ages_by_row: Vec<Option<Box<[RowAges; 2]>>>,
    /// The ages of the attempts of each workload: of a control group on one side.
    workloads: HashMap<(u64, Side), Ages>,
}

/// Ages by their [place](handshake_common::latency::nearest_place).
type RowAges = [u64; CONNECT_WORDS];

/// Open attempts: how many of them have each flag of [`Cause::BESIDE`], and how many are seen from each seat.
#[derive(Clone, Copy, Default)]
struct Flagged {
    all: u64,
    with: [u64; Cause::BESIDE.len()],
    seats: BySeat,
}

impl Flagged {
    fn add(&mut self, flags: u32, seat: Seat) {
        self.all += 1;
        self.seats.0[seat as usize] += 1;
        for (count, flag) in self.with.iter_mut().zip(Cause::BESIDE) {
            *count += u64::from(flags & flag != 0);
        }
    }

    /// The flags of at least half of them.
    fn usual(&self) -> u32 {
        let is_usual = |count: u64| self.all != 0 && 2 * count >= self.all;
        let flags = self.with.iter().zip(Cause::BESIDE);
        flags.filter(|(count, _)| is_usual(**count)).fold(0, |flags, (_, flag)| flags | flag)
    }
}

impl AddAssign for Flagged {
    fn add_assign(&mut self, other: Self) {
        self.all += other.all;
        self.with.iter_mut().zip(other.with).for_each(|(sum, number)| *sum += number);
        self.seats += other.seats;
    }
}

/// One number per seat, in the order of [`Seat::ALL`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BySeat([u64; Seat::ALL.len()]);

impl BySeat {
    /// The seat of most; `None` where there is none at all.
    #[must_use]
    pub fn most(self) -> Option<Seat> {
        let seats = Seat::ALL.into_iter().zip(self.0).filter(|(_, count)| *count != 0);
        // Of several with as many, the one whose sentence claims the least.
        seats.max_by_key(|(seat, count)| (*count, *seat as usize)).map(|(seat, _)| seat)
    }
}

impl AddAssign for BySeat {
    fn add_assign(&mut self, other: Self) {
        self.0.iter_mut().zip(other.0).for_each(|(sum, number)| *sum += number);
    }
}

/// Half-open attempts between two other hosts whose latest SYN or SYN+ACK came into this host and was seen at no
/// other hook.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LostHere {
    candidates: Vec<Candidate>,
    /// J of the open attempts whose SYN was first seen where it left. Address translation gives an attempt other
    /// addresses on its way, and leaves its numbers: what came in with such a J has left.
    left: HashSet<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Candidate {
    isn_initiator: u32,
    path: LostPath,
}

/// What an attempt has lost, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LostPath {
    /// Its SYN, which came in by this group of interfaces.
    Syn(usize),
    /// Its SYN+ACK, which came in by the first group; its SYN came in by the second.
    SynAck(usize, usize),
}

impl LostHere {
    /// Most attempts that are kept of either kind.
    const MOST: usize = 4096;

    /// The attempts by what they have lost; nothing where more have left than are kept.
    pub fn counts(&self) -> HashMap<LostPath, u64> {
        let mut counts = HashMap::new();
        let lost = self.candidates.iter().filter(|one| self.is_lost(one.isn_initiator));
        lost.for_each(|one| *counts.entry(one.path).or_default() += 1);
        counts
    }

    /// What this half-open attempt between two other hosts has lost.
    pub fn of(&self, record: &Record) -> Option<LostPath> {
        let Detail::Tcp(tcp) = &record.detail else { return None };
        path(record, tcp).filter(|_| self.is_lost(tcp.isn_initiator))
    }

    /// Whether no attempt with this J is known to have left.
    fn is_lost(&self, isn_initiator: u32) -> bool {
        self.left.len() < Self::MOST && !self.left.contains(&isn_initiator)
    }

    fn add(&mut self, record: &Record, is_lost: bool) {
        let Detail::Tcp(tcp) = &record.detail else { return };
        let initiator = tcp.points & 0xf;
        if initiator != NO_POINT && initiator & 1 == 1 && self.left.len() < Self::MOST {
            self.left.insert(tcp.isn_initiator);
        }
        if !is_lost || self.candidates.len() >= Self::MOST {
            return;
        }
        let isn_initiator = tcp.isn_initiator;
        self.candidates.extend(path(record, tcp).map(|path| Candidate { isn_initiator, path }));
    }
}

/// What came in last of an open attempt and was seen at no other hook.
fn path(record: &Record, tcp: &TcpRecord) -> Option<LostPath> {
    let [initiator, responder] = [tcp.points & 0xf, tcp.points >> 4].map(came_in);
    match (record.state.cause(), initiator, responder) {
        _ if record.flags & tag::PASSED_ON != 0 => None,
        (Cause::NoSynAck, Some(from), _) => Some(LostPath::Syn(from)),
        (Cause::NoAck, Some(to), Some(from)) if from != to => Some(LostPath::SynAck(from, to)),
        (Cause::NoSynAck | Cause::NoAck | Cause::AnswerUnseen, ..) => None,
    }
}

/// The group of a hook point where packets come in.
fn came_in(point: u8) -> Option<usize> {
    Some(usize::from(point >> 1)).filter(|group| point != NO_POINT && point & 1 == 0 && *group < GROUPS)
}

/// One number per cause, in the order of [`Cause::ALL`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByCause(pub [u64; Cause::ALL.len()]);

impl ByCause {
    /// The number for one cause.
    #[must_use]
    pub const fn of(self, cause: Cause) -> u64 {
        self.0[cause as usize]
    }

    /// The sum of all.
    pub fn total(self) -> u64 {
        self.0.iter().sum()
    }

    /// A reference to the number for one cause.
    pub const fn at(&mut self, cause: Cause) -> &mut u64 {
        &mut self.0[cause as usize]
    }
}

impl AddAssign for ByCause {
    fn add_assign(&mut self, other: Self) {
        self.0.iter_mut().zip(other.0).for_each(|(sum, number)| *sum += number);
    }
}

/// Open attempts, waiting UDP flows and silent connections by age.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ages {
    /// Open attempts younger than T1.
    pub opening: ByCause,
    /// Open attempts older than T1.
    pub half_open: ByCause,
    /// Open attempts past T2.
    pub expired: ByCause,
    /// Those older than T1 whose SYN came once, though every stack would have repeated it.
    pub never_repeated: ByCause,
    /// Those older than T1 whose initiator has repeated its SYN.
    pub repeated: ByCause,
    /// Those older than T1 whose initiator has stopped repeating.
    pub gave_up: u64,
    /// Open attempts by the seat from which this host sees them.
    pub seats: BySeat,
    /// UDP flows without an answer, younger than T1.
    pub pending: u64,
    /// Completed connections whose responder has sent no byte for T1 since the initiator's data.
    pub silent: u64,
}

impl Scan {
    /// An empty scan at `now`, on the host with these addresses.
    pub fn at(now: Now, clocks: Clocks, host: Arc<HostAddresses>) -> Self {
        let (flagged, lost, ages, ages_by_row, workloads) = Default::default();
        Self { now, clocks, host, used: 0, rows: Vec::new(), flagged, lost, ages, ages_by_row, workloads }
    }

    /// Adds all records of a table, `beside` being what is kept beside its slots. `onlooker` sees them as well.
    pub fn add_table<S: Slot>(
        &mut self,
        slots: &[S],
        beside: BesideTable<'_>,
        mut onlooker: Option<&mut Onlooker<'_>>,
    ) {
        for (batch, first) in slots.chunks(BATCH).zip((0..).step_by(BATCH)) {
            let states = AGEING | onlooker.as_ref().map_or(0, |onlooker| onlooker.states);
            let Survey { held, mut to_be_read } = Survey::of(batch, states);
            self.used += u64::from(held.count_ones());
            if let Some(onlooker) = &mut onlooker {
                onlooker.count(batch);
            }
            while to_be_read != 0 {
                let place = to_be_read.trailing_zeros() as usize;
                to_be_read &= to_be_read - 1;
                if let Some(record) = table::read_beside(&batch[place], beside.slot(first + place)) {
                    self.add(&record);
                    if let Some(onlooker) = &mut onlooker {
                        onlooker.look_at(&record);
                    }
                }
            }
        }
    }

    /// Adds a record.
    pub fn add(&mut self, record: &Record) {
        self.used += 1;
        if !is_ageing(record.state) && !may_be_silent(record.flags) {
            return;
        }
        let row = usize::from(record.service);
        if row >= self.rows.len() {
            self.rows.resize(row + 1, Ages::default());
        }
        self.rows[row].add(record, self.now, &self.clocks);
        for (side, group) in Side::BOTH.into_iter().zip(record.control_groups.ids) {
            if group != 0 {
                self.workloads.entry((group, side)).or_default().add(record, self.now, &self.clocks);
            }
        }
        if let Some(verdict) = record.verdict(self.now, &self.clocks).filter(|_| record.state.is_open()) {
            let (is_old, seat) = (usize::from(verdict != Verdict::Opening), self.host.seat(record));
            self.rows[row].seats.0[seat as usize] += 1;
            self.flagged[is_old][record.state.cause() as usize].add(record.flags, seat);
            self.lost.add(record, seat == Seat::Between && verdict == Verdict::HalfOpen);
            if verdict != Verdict::HalfOpenExpired {
                let ages = &mut self.ages[is_old];
                ages.resize(BUCKETS, 0);
                let bucket = bucket(record.age_ns(self.now));
                ages[bucket as usize] += 1;
                self.ages_of_row(row)[is_old][nearest_place(bucket) as usize] += 1;
            }
        }
    }

    fn ages_of_row(&mut self, row: usize) -> &mut [RowAges; 2] {
        if row >= self.ages_by_row.len() {
            self.ages_by_row.resize(row + 1, None);
        }
        self.ages_by_row[row].get_or_insert_with(|| Box::new([[0; CONNECT_WORDS]; 2]))
    }

    /// The flags of [`Cause::BESIDE`] that at least half of the half-open attempts of a cause have; of all
    /// open ones where time has `stopped`.
    pub fn usual_flags(&self, cause: Cause, stopped: bool) -> u32 {
        self.stuck(cause, stopped).usual()
    }

    /// The seat from which most of the half-open attempts of a cause are seen; of all open ones where time has
    /// `stopped`, or where none is half-open.
    pub fn usual_seat(&self, cause: Cause, stopped: bool) -> Option<Seat> {
        let stuck = self.stuck(cause, stopped).seats.most();
        stuck.or_else(|| self.stuck(cause, true).seats.most())
    }

    fn stuck(&self, cause: Cause, stopped: bool) -> Flagged {
        let [young, mut counted] = self.flagged.map(|by_cause| by_cause[cause as usize]);
        if stopped {
            counted += young;
        }
        counted
    }

    /// What came into this host and has not left it.
    pub const fn lost(&self) -> &LostHere {
        &self.lost
    }

    /// The addresses of the host.
    pub const fn host(&self) -> &Arc<HostAddresses> {
        &self.host
    }

    /// The ages of half-open attempts by bucket of [`latency`](handshake_common::latency); of all open ones
    /// where time has `stopped`.
    pub fn half_open_ages(&self, stopped: bool) -> Vec<u64> {
        let [young, old] = &self.ages;
        let mut ages = old.clone();
        if stopped {
            ages.resize(old.len().max(young.len()), 0);
            ages.iter_mut().zip(young).for_each(|(sum, count)| *sum += count);
        }
        ages
    }

    /// The same of one row of the service table, by place.
    pub fn half_open_ages_of(&self, row: u16, stopped: bool) -> Placed {
        let ages = self.ages_by_row.get(usize::from(row)).and_then(Option::as_deref);
        let ages = ages.into_iter().flat_map(|[young, old]| young.iter().zip(old));
        placed(ages.map(|(young, old)| old + if stopped { *young } else { 0 }))
    }

    /// The times that ages were compared with.
    pub const fn clocks(&self) -> Clocks {
        self.clocks
    }

    /// The number of slots that hold a record.
    pub const fn used(&self) -> u64 {
        self.used
    }

    /// The ages of all records together.
    pub fn all(&self) -> Ages {
        self.rows.iter().fold(Ages::default(), |mut sum, ages| {
            sum += *ages;
            sum
        })
    }

    /// The ages of the records of one row of the service table.
    pub fn row(&self, row: u16) -> Ages {
        self.rows.get(usize::from(row)).copied().unwrap_or_default()
    }

    /// The ages of the records of a workload.
    pub fn workload(&self, group: u64, side: Side) -> Ages {
        self.workloads.get(&(group, side)).copied().unwrap_or_default()
    }
}

/// The result of reading the tags of a batch, one bit per slot.
struct Survey {
    /// Slots with a record whose tag suffices.
    held: u64,
    /// Slots whose record must be read, or that a CPU has locked at the moment.
    to_be_read: u64,
}

impl Survey {
    /// Reads the tags of a batch. `states`: the states whose records are to be read, one bit each.
    #[inline]
    fn of<S: Slot>(batch: &[S], states: u64) -> Self {
        let mut survey = Self { held: 0, to_be_read: 0 };
        for (place, slot) in batch.iter().enumerate() {
            fetch(batch.as_ptr().wrapping_add(place + AHEAD));
            let tag = slot.tag().load();
            let state = state_of(tag);
            let to_be_read = (states >> state | waits(tag) | tag & tag::LOCKED) & 1;
            survey.to_be_read |= to_be_read << place;
            survey.held |= u64::from(state != 0) << place;
        }
        survey.held &= !survey.to_be_read;
        survey
    }
}

/// A state's number, without a branch.
#[inline(always)]
const fn state_of(tag: u64) -> usize {
    (tag >> tag::STATE_SHIFT & 0xf) as usize
}

const fn is_ageing(state: State) -> bool {
    AGEING >> state as u32 & 1 != 0
}

/// Whether a record with these flags may be silent at some age. Only TCP's have all of them.
const fn may_be_silent(flags: u32) -> bool {
    flags & SILENT == SILENT
}

/// The same of a tag, as 0 or 1, without a branch.
#[inline(always)]
const fn waits(tag: u64) -> u64 {
    const PLACES: [u32; 3] = [tag::AWAITS.ilog2(), tag::EARLY_ACK.ilog2(), tag::INITIATOR_ACKED.ilog2()];
    const _: () = assert!(SILENT == 1 << PLACES[0] | 1 << PLACES[1] | 1 << PLACES[2]);
    let flags = tag >> tag::FLAGS_SHIFT;
    (flags >> PLACES[0] & flags >> PLACES[1] & flags >> PLACES[2]) & 1
}

/// Prefetches a slot without waiting. The slot need not exist.
#[inline(always)]
fn fetch<S>(slot: *const S) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch is a hint that fails for no address.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(slot.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = slot;
}

impl Ages {
    /// Adds a record whose state is in [`AGEING`], or that is silent; any other adds nothing.
    fn add(&mut self, record: &Record, now: Now, clocks: &Clocks) {
        self.silent += u64::from(record.is_silent(now, clocks));
        // The other verdicts do not change by age: their gauge counts them.
        let ages = match record.verdict(now, clocks) {
            Some(Verdict::Opening) => &mut self.opening,
            Some(Verdict::HalfOpen) => {
                *self.never_repeated.at(record.state.cause()) +=
                    u64::from(patience::never_repeated(record, now));
                *self.repeated.at(record.state.cause()) += u64::from(patience::repeated(record));
                self.gave_up += u64::from(patience::gave_up(record, now));
                &mut self.half_open
            }
            Some(Verdict::HalfOpenExpired) => &mut self.expired,
            None if record.udp_verdict(now, clocks) == Some(UdpVerdict::Pending) => {
                self.pending += 1;
                return;
            }
            Some(_) | None => return,
        };
        *ages.at(record.state.cause()) += 1;
    }
}

impl AddAssign for Ages {
    fn add_assign(&mut self, other: Self) {
        self.opening += other.opening;
        self.half_open += other.half_open;
        self.expired += other.expired;
        self.never_repeated += other.never_repeated;
        self.repeated += other.repeated;
        self.gave_up += other.gave_up;
        self.seats += other.seats;
        self.pending += other.pending;
        self.silent += other.silent;
    }
}

#[cfg(test)]
mod tests {
    use handshake_common::abi::UdpRecord;
    use handshake_common::flow::{Address, FlowKey};
    use handshake_common::table::{Slot4, Slot6, Tag};
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const NOW: Now = Now { ns: 1_000 * SECOND, jiffies: 250_000 };
    const CLOCKS: Clocks = Clocks {
        half_open_after_ns: 3 * SECOND,
        expire_after_ns: 75 * SECOND,
        udp_idle_jiffies: 15_000,
        idle_after_jiffies: 900_000,
    };

    fn empty() -> Scan {
        Scan::at(NOW, CLOCKS, Arc::default())
    }

    /// Stores a record of one packet in a slot.
    fn put(slot: &impl Slot, state: State, opened_ns: u64, service: u16) {
        slot.set_key(&FlowKey { low: Address([1; 2]), high: Address([2; 2]), ports: 3, udp: state.is_udp() });
        if state.is_udp() {
            slot.body().set_udp(UdpRecord { opened_ns, ..UdpRecord::default() });
        } else {
            slot.body().set_tcp(TcpRecord { opened_ns, ..TcpRecord::default() });
        }
        slot.tag().swap(Tag(0).next(state, 0, service).0);
    }

    fn table<S: Slot + Default>(records: &[(usize, u64, u16)]) -> Vec<S> {
        let made = |(state, age, service): &(usize, u64, u16)| {
            let slot = S::default();
            put(&slot, State::ALL[*state], NOW.ns - age * SECOND, *service);
            slot
        };
        records.iter().map(made).collect()
    }

    /// A state that is decided by its tag has the same verdict at every age, and any other state has more
    /// than one.
    #[test]
    fn a_state_is_read_when_its_verdict_depends_on_its_age() {
        for state in State::ALL {
            let verdicts = [0, 10, 100].map(|age| {
                let [slot] = &table::<Slot4>(&[(state as usize, age, 0)])[..] else { panic!("one slot") };
                table::read(slot).map(|r| (r.verdict(NOW, &CLOCKS), r.udp_verdict(NOW, &CLOCKS)))
            });
            let depends = verdicts[0] != verdicts[1] || verdicts[1] != verdicts[2];
            assert_eq!(is_ageing(state), depends, "{state:?}: {verdicts:?}");
        }
    }

    #[test]
    fn a_record_is_counted_in_the_row_of_its_service() {
        let mut scan = empty();
        let slots: Vec<Slot4> = table(&[
            (State::SynSent as usize, 1, 7),
            (State::SynReceived as usize, 4, 7),
            (State::SynReceived as usize, 80, 9),
            (State::UdpWaiting as usize, 2, 2_048),
            (State::Established as usize, 5, 7),
            (State::Empty as usize, 0, 0),
        ]);
        scan.add_table(&slots, BesideTable::default(), None);
        let (no_syn_ack, no_ack) = (ByCause([1, 0, 0]), ByCause([0, 1, 0]));
        assert_eq!(scan.used(), 5);
        let between = |count| BySeat([0, 0, count]);
        let seven =
            Ages { opening: no_syn_ack, half_open: no_ack, never_repeated: no_ack, ..Ages::default() };
        assert_eq!(scan.row(7), Ages { seats: between(2), ..seven });
        assert_eq!(scan.row(9), Ages { expired: no_ack, seats: between(1), ..Ages::default() });
        assert_eq!(scan.row(2_048), Ages { pending: 1, ..Ages::default() });
        assert_eq!((scan.row(8), scan.row(u16::MAX)), (Ages::default(), Ages::default()));
        let all = scan.all();
        assert_eq!((all.opening, all.half_open, all.expired, all.pending), (no_syn_ack, no_ack, no_ack, 1));
        assert_eq!(all.seats.most(), Some(Seat::Between), "the addresses are no host's");
    }

    /// Of the connections that wait for an answer those are silent that have asked for longer than T1, and were
    /// acknowledged. No other record with a flag of theirs is read.
    #[test]
    fn a_connection_is_silent_by_the_time_of_its_request() {
        let waiting = |state: State, flags: u32, asked_seconds_ago: u64| {
            let slot = Slot4::default();
            put(&slot, state, NOW.ns - 100 * SECOND, 7);
            let mark = u32::try_from(((100 - asked_seconds_ago) * SECOND) >> 20).expect("a short time");
            slot.body().set_tcp(TcpRecord { other_ack: mark, ..slot.body().tcp() });
            slot.last().store(NOW.jiffies);
            slot.tag().swap(Tag(0).next(state, flags, 7).0);
            slot
        };
        let unread = SILENT & !tag::INITIATOR_ACKED;
        let slots = [
            waiting(State::Established, SILENT, 10),
            waiting(State::Established, SILENT, 4),
            waiting(State::Established, SILENT, 2),
            waiting(State::Established, unread, 10),
            waiting(State::Established, SILENT & !tag::AWAITS, 10),
            waiting(State::Established, SILENT & !tag::EARLY_ACK, 10),
            waiting(State::Closed, SILENT, 10),
        ];
        let mut scan = empty();
        scan.add_table(&slots, BesideTable::default(), None);
        assert_eq!((scan.row(7), scan.used()), (Ages { silent: 2, ..Ages::default() }, 7));
        let read = Survey::of(&slots, AGEING).to_be_read;
        assert_eq!(read, 0b100_0111, "by the tag alone");
        slots[0].last().store(NOW.jiffies.wrapping_sub(CLOCKS.idle_after_jiffies + 1));
        let mut idle = empty();
        idle.add_table(&slots, BesideTable::default(), None);
        assert_eq!(idle.all().silent, 1, "it counts as closed");
    }

    /// A flag that half of the attempts of a cause have is told of that cause, and of no other.
    #[test]
    fn flags_are_those_of_the_attempts_that_are_stuck() {
        let mut scan = empty();
        let rows = [
            (State::SynSent, 4, tag::RESET),
            (State::SynSent, 80, 0),
            (State::SynSent, 1, tag::BAD_SYN_ACK),
            (State::SynReceived, 4, tag::BAD_ACK | tag::UNTIMED),
            (State::SynReceived, 4, 0),
            (State::SynReceived, 4, tag::RESET),
            (State::Established, 4, tag::RESET),
        ];
        for (state, age, flags) in rows {
            let [slot] = &table::<Slot4>(&[(state as usize, age, 0)])[..] else { panic!("one slot") };
            let record = table::read(slot).expect("it holds a record");
            scan.add(&Record { flags, ..record });
        }
        let flags = |stopped| Cause::ALL.map(|cause| scan.usual_flags(cause, stopped));
        assert_eq!(flags(false), [tag::RESET, 0, 0]);
        assert_eq!(flags(true), [0; 3], "one in three");
    }

    /// A slot that stays locked is left out itself, but none of its neighbours.
    #[test]
    fn a_slot_that_stays_locked_is_left_out() {
        for state in [State::Empty, State::SynSent, State::Established] {
            let slots: Vec<Slot4> = table(&[(State::Established as usize, 0, 0); 70]);
            put(&slots[65], state, NOW.ns, 0);
            let tag = Tag(slots[65].tag().load());
            slots[65].tag().swap(tag.locked().0);
            let mut scan = empty();
            scan.add_table(&slots, BesideTable::default(), None);
            assert_eq!((scan.used(), scan.all()), (69, Ages::default()), "{state:?}");
        }
    }

    /// An onlooker is shown the records in the states it asked for, and counts them all.
    #[test]
    fn an_onlooker_is_shown_the_states_it_asked_for() {
        let states: Vec<_> = (0..State::ALL.len()).map(|state| (state, 1, 0)).collect();
        let slots: Vec<Slot4> = table(&states);
        for asked in [1 << State::Established as u64, State::OPEN as u64, u64::MAX] {
            let (mut shown, mut scan) = (Vec::new(), empty());
            let mut show = |record: &Record| shown.push(record.state);
            let mut onlooker = Onlooker::new(asked, &mut show);
            scan.add_table(&slots, BesideTable::default(), Some(&mut onlooker));
            assert_eq!(onlooker.occupancy().iter().sum::<u64>(), scan.used());
            assert!(onlooker.occupancy()[1..].iter().all(|count| *count == 1));
            let wanted = State::ALL.into_iter().skip(1).filter(|state| asked >> *state as u32 & 1 != 0);
            assert!(shown.iter().copied().eq(wanted), "{shown:?}");
        }
    }

    /// A limited onlooker is shown so many of the records that are read for it alone; what is read anyway it
    /// is shown as a whole.
    #[test]
    fn an_onlooker_may_be_limited() {
        let states = [State::Refused as usize, State::SynSent as usize].map(|state| (state, 1, 0));
        let slots: Vec<Slot4> = table(&states.repeat(500));
        let (mut shown, mut scan) = ([0; State::ALL.len()], empty());
        let mut show = |record: &Record| shown[record.state as usize] += 1;
        let mut onlooker = Onlooker::new(u64::MAX, &mut show).limited(70);
        scan.add_table(&slots, BesideTable::default(), Some(&mut onlooker));
        assert_eq!((shown[State::Refused as usize], shown[State::SynSent as usize]), (70, 500));
        assert_eq!(scan.all().opening.total() + scan.all().half_open.total(), 500);
    }

    proptest! {
        /// Examining tags in batches finds the same as reading slot by slot, wherever a table ends.
        #[test]
        fn a_scan_is_the_sum_of_its_records(
            records in prop::collection::vec((0..State::ALL.len(), 0_u64..120, 0_u16..20), 0..200),
        ) {
            let (slots4, slots6) = (table::<Slot4>(&records), table::<Slot6>(&records));
            let mut scan = empty();
            scan.add_table(&slots4, BesideTable::default(), None);
            scan.add_table(&slots6, BesideTable::default(), None);
            let mut expected = empty();
            slots4.iter().filter_map(table::read).for_each(|record| expected.add(&record));
            slots6.iter().filter_map(table::read).for_each(|record| expected.add(&record));
            prop_assert_eq!(scan.used(), expected.used());
            prop_assert_eq!(scan.all(), expected.all());
            for row in 0..20 {
                prop_assert_eq!(scan.row(row), expected.row(row));
            }
        }
    }
}
