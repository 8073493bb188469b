//! Counts the records of the flow tables at one moment, and sorts by age those whose verdict depends on their
//! age. Pure: the time is passed in.
//!
//! ```text
//! tags of 64 slots ─▶ two words: held, and to be read ─▶ the briefs of those ─▶ Ages by row of the service table
//! ```
//!
//! A table is far larger than the processor's caches, so a scan takes as long as the memory does, provided
//! that no access waits for the one before. The tag alone decides most slots: free, or in a state whose
//! verdict no age changes. The tag is one word, consistent by itself, and becomes two bits without a branch.
//! Only records whose verdict depends on their age are read, by the table's protocol, and of them only what is
//! counted ([`Brief`]): whole records are copied for an onlooker that [needs](Look::needs_whole) them.

mod kept;

use std::collections::{HashMap, HashSet};
use std::ops::AddAssign;
use std::sync::Arc;

use handshake_common::abi::{BUCKETS, CONNECT_WORDS, ControlGroups, NO_POINT, TcpRecord, tag};
use handshake_common::flow::Side;
use handshake_common::interface::GROUPS;
use handshake_common::latency::{bucket, nearest_place};
use handshake_common::record::{Brief, Clocks, Detail, Now, Record, SILENT, Stage, State};
use handshake_common::table::{self, Beside, BesideTable, Slot};
use handshake_common::verdict::{Cause, Seat, UdpVerdict};

use super::local::HostAddresses;
use super::patience::Patience;
use super::{Placed, placed};

/// The number of slots examined together: one bit each in a word.
const BATCH: usize = u64::BITS as usize;
/// How many slots ahead memory is prefetched. The processor's own prefetching ends at each page, and a page
/// holds 64 IPv4 slots. From 32 on the number makes no difference; without prefetching, a scan takes a third
/// longer.
const AHEAD: usize = 48;
/// The states whose verdict depends on the record's age, one bit each.
const AGEING: u64 = State::OPEN as u64 | 1 << State::UdpWaiting as u32;

/// Looks at records while they are scanned.
pub trait Look {
    /// Whether it needs the whole of a record. Asked again where the record changes while it is read, so what it
    /// is asked of may be halves of two records.
    fn needs_whole(&self, brief: &Brief) -> bool;
    /// Looks at a record, which is there as a whole if it was needed.
    fn see(&mut self, brief: &Brief, whole: Option<&Record>);
}

impl<F: FnMut(&Record)> Look for F {
    fn needs_whole(&self, _: &Brief) -> bool {
        true
    }

    fn see(&mut self, _: &Brief, whole: Option<&Record>) {
        whole.into_iter().for_each(self);
    }
}

/// Observes a scan: counts every record by state, and shows the records in some states.
pub struct Onlooker<'a> {
    states: u64,
    /// Whether it is also shown the connections that may be silent.
    may_be_silent: bool,
    /// How many more records it is shown of the states that no age changes.
    left: u64,
    look: &'a mut dyn Look,
    /// The number of slots in each state, free ones included, in parts.
    occupancy: [Occupancy; PARTS],
}

/// Parts of a count whose additions need not wait for each other.
const PARTS: usize = 4;

/// The number of records in each state.
pub type Occupancy = [u64; State::ALL.len()];

impl<'a> Onlooker<'a> {
    /// Shows `look` each record in one of `states`, one bit each.
    pub const fn new(states: u64, look: &'a mut dyn Look) -> Self {
        let states = states & !(1 << State::Empty as u32);
        Self { states, may_be_silent: false, left: u64::MAX, look, occupancy: [[0; State::ALL.len()]; PARTS] }
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
    pub fn occupancy(&self) -> Occupancy {
        let mut sum: Occupancy =
            std::array::from_fn(|state| self.occupancy.iter().map(|part| part[state]).sum());
        sum[State::Empty as usize] = 0;
        sum
    }

    /// The same where another scan has counted the records.
    pub(crate) const fn count_as(&mut self, occupancy: Occupancy) {
        self.occupancy = [[0; State::ALL.len()]; PARTS];
        self.occupancy[0] = occupancy;
    }

    /// Counts and shows a record that is in no table.
    pub(crate) fn meet(&mut self, record: &Record) {
        self.occupancy[0][record.state as usize] += 1;
        self.show(&record.brief(), Some(record));
    }

    const fn is_shown(&self, brief: &Brief) -> bool {
        self.states >> brief.state as u32 & 1 != 0 || self.may_be_silent && may_be_silent(brief.flags)
    }

    fn needs_whole(&self, brief: &Brief) -> bool {
        self.is_shown(brief) && self.look.needs_whole(brief)
    }

    fn show(&mut self, brief: &Brief, whole: Option<&Record>) {
        if !self.is_shown(brief) {
            return;
        }
        if self.states >> brief.state as u32 & 1 != 0 && !is_ageing(brief.state) {
            self.left = self.left.saturating_sub(1);
            if self.left == 0 {
                self.states &= AGEING;
            }
        }
        self.look.see(brief, whole);
    }

    fn count<S: Slot>(&mut self, batch: &[S]) {
        for slots in batch.chunks(PARTS) {
            for (slot, part) in slots.iter().zip(&mut self.occupancy) {
                part[state_of(slot.tag().load())] += 1;
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
    /// By row of the service table, up to the highest row found.
    rows: Vec<RowCounts>,
    /// Open attempts younger than T1, and older ones, by cause.
    flagged: [[Flagged; Cause::ALL.len()]; 2],
    lost: LostHere,
    /// The ages of open attempts younger than T1, and of older ones that have not expired, by bucket of
    /// [`latency`](handshake_common::latency); none while there is none.
    ages: [Option<Box<[u64; BUCKETS]>>; 2],
    workloads: Workloads,
}

/// The ages of the attempts of each workload: of a control group on one side.
#[derive(Clone, Default)]
struct Workloads {
    ages: Vec<(Workload, Ages)>,
    places: HashMap<Workload, usize>,
}

type Workload = (u64, Side);

impl Workloads {
    /// Those of one workload. `latest` is where that of the caller's latest question is, which mostly is the same.
    #[inline(always)]
    fn of(&mut self, workload: Workload, latest: &mut usize) -> &mut Ages {
        if self.ages.get(*latest).is_none_or(|(known, _)| *known != workload) {
            *latest = self.place(workload);
        }
        &mut self.ages[*latest].1
    }

    fn place(&mut self, workload: Workload) -> usize {
        *self.places.entry(workload).or_insert_with(|| {
            self.ages.push((workload, Ages::default()));
            self.ages.len() - 1
        })
    }
}

/// The records of a row of the service table.
#[derive(Clone, Default)]
struct RowCounts {
    ages: Ages,
    /// The ages of open attempts as in [`Scan::ages`], by the place of a service's times to connect.
    by_place: Option<Box<[RowAges; 2]>>,
    /// Where the workloads of its latest record are, by side.
    latest: [usize; 2],
}

impl RowCounts {
    fn by_place(&mut self) -> &mut [RowAges; 2] {
        self.by_place.get_or_insert_with(|| Box::new([[0; CONNECT_WORDS]; 2]))
    }
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
    #[inline(always)]
    fn add(&mut self, flags: u32, seat: Seat) {
        const ANY: u32 = Cause::BESIDE[0] | Cause::BESIDE[1] | Cause::BESIDE[2] | Cause::BESIDE[3];
        self.all += 1;
        self.seats.0[seat as usize] += 1;
        // Most have none.
        if flags & ANY != 0 {
            for (count, flag) in self.with.iter_mut().zip(Cause::BESIDE) {
                *count += u64::from(flags & flag != 0);
            }
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
        path(record.flags, record.state.cause(), tcp.points).filter(|_| self.is_lost(tcp.isn_initiator))
    }

    /// Whether no attempt with this J is known to have left.
    fn is_lost(&self, isn_initiator: u32) -> bool {
        self.left.len() < Self::MOST && !self.left.contains(&isn_initiator)
    }

    #[inline(always)]
    fn add(&mut self, flags: u32, cause: Cause, tcp: &TcpRecord, is_lost: bool) {
        let (initiator, isn_initiator) = (tcp.points & 0xf, tcp.isn_initiator);
        if initiator != NO_POINT && initiator & 1 == 1 && self.left.len() < Self::MOST {
            self.left.insert(isn_initiator);
        }
        if is_lost && self.candidates.len() < Self::MOST {
            let path = path(flags, cause, tcp.points);
            self.candidates.extend(path.map(|path| Candidate { isn_initiator, path }));
        }
    }
}

/// What came in last of an open attempt with these flags and hook points and was seen at no other hook.
fn path(flags: u32, cause: Cause, points: u8) -> Option<LostPath> {
    let [initiator, responder] = [points & 0xf, points >> 4].map(came_in);
    match (cause, initiator, responder) {
        _ if flags & tag::PASSED_ON != 0 => None,
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
        let (flagged, lost, ages, workloads) = Default::default();
        Self { now, clocks, host, used: 0, rows: Vec::new(), flagged, lost, ages, workloads }
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
                self.add_slot(&batch[place], beside.slot(first + place), onlooker.as_deref_mut());
            }
        }
    }

    /// Adds the record of a slot.
    #[inline(always)]
    fn add_slot<S: Slot>(&mut self, slot: &S, beside: Beside<'_>, onlooker: Option<&mut Onlooker<'_>>) {
        let mut whole = None;
        let read = |tag| {
            let brief = table::brief_under(slot, tag);
            if let Some(onlooker) = &onlooker {
                // A copy, as below: one that a function is called with is in memory, for every record.
                let asked = brief;
                whole = onlooker.needs_whole(&asked).then(|| table::record_under(slot, tag, beside));
            }
            (brief, table::owners_under(tag, beside))
        };
        let Some((brief, owners)) = table::read_with(slot, read) else { return };
        self.count(&brief, owners);
        if let Some(onlooker) = onlooker {
            let shown = brief;
            onlooker.show(&shown, whole.as_ref());
        }
    }

    /// Adds a record.
    pub fn add(&mut self, record: &Record) {
        self.count(&record.brief(), record.control_groups);
    }

    #[inline(always)]
    fn count(&mut self, record: &Brief, owners: ControlGroups) {
        self.used += 1;
        match &record.detail {
            Detail::Tcp(tcp) if record.state.is_open() => self.count_open(record, tcp, owners),
            Detail::Tcp(_) if may_be_silent(record.flags) && record.is_silent(self.now, &self.clocks) => {
                self.count_as(Counted::Silent, record.service, owners);
            }
            Detail::Udp(_) if record.udp_verdict(self.now, &self.clocks) == Some(UdpVerdict::Pending) => {
                self.count_as(Counted::Pending, record.service, owners);
            }
            Detail::Tcp(_) | Detail::Udp(_) => {}
        }
    }

    #[inline(always)]
    fn count_open(&mut self, record: &Brief, tcp: &TcpRecord, owners: ControlGroups) {
        let (stage, age_ns) = (tcp.stage(self.now.ns, &self.clocks), record.age_ns(self.now));
        let (cause, seat) = (record.state.cause(), self.host.seat(record));
        let patience = if stage == Stage::HalfOpen {
            Patience::of(tcp, record.state, record.flags, age_ns)
        } else {
            Patience::default()
        };
        let is_old = usize::from(stage != Stage::Opening);
        self.flagged[is_old][cause as usize].add(record.flags, seat);
        self.lost.add(record.flags, cause, tcp, seat == Seat::Between && stage == Stage::HalfOpen);
        let bucket = (stage != Stage::Expired).then(|| bucket(age_ns));
        if let Some(bucket) = bucket {
            self.ages[is_old].get_or_insert_with(|| Box::new([0; BUCKETS]))[bucket as usize] += 1;
        }
        let row = self.count_as(Counted::Open { stage, cause, patience }, record.service, owners);
        row.ages.seats.0[seat as usize] += 1;
        if let Some(bucket) = bucket {
            row.by_place()[is_old][nearest_place(bucket) as usize] += 1;
        }
    }

    #[inline(always)]
    fn count_as(&mut self, counted: Counted, service: u16, owners: ControlGroups) -> &mut RowCounts {
        let row = Self::row_mut(&mut self.rows, usize::from(service));
        row.ages.add(counted);
        for ((side, group), latest) in Side::BOTH.into_iter().zip(owners.ids).zip(&mut row.latest) {
            if group != 0 {
                self.workloads.of((group, side), latest).add(counted);
            }
        }
        row
    }

    #[inline(always)]
    fn row_mut(rows: &mut Vec<RowCounts>, row: usize) -> &mut RowCounts {
        if row >= rows.len() {
            rows.resize(row + 1, RowCounts::default());
        }
        &mut rows[row]
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
        let [young, old] = self.ages.each_ref().map(|ages| ages.as_deref().map_or(&[][..], |ages| &ages[..]));
        let mut ages = old.to_vec();
        if stopped {
            ages.resize(old.len().max(young.len()), 0);
            ages.iter_mut().zip(young).for_each(|(sum, count)| *sum += count);
        }
        ages
    }

    /// The same of one row of the service table, by place.
    pub fn half_open_ages_of(&self, row: u16, stopped: bool) -> Placed {
        let ages = self.rows.get(usize::from(row)).and_then(|row| row.by_place.as_deref());
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
        self.rows.iter().fold(Ages::default(), |mut sum, row| {
            sum += row.ages;
            sum
        })
    }

    /// The ages of the records of one row of the service table.
    pub fn row(&self, row: u16) -> Ages {
        self.rows.get(usize::from(row)).map(|row| row.ages).unwrap_or_default()
    }

    /// The ages of the records of a workload.
    pub fn workload(&self, group: u64, side: Side) -> Ages {
        let place = self.workloads.places.get(&(group, side));
        place.map(|place| self.workloads.ages[*place].1).unwrap_or_default()
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

/// What a record counts as at one moment. The other verdicts do not change by age: their gauge counts them.
#[derive(Clone, Copy)]
enum Counted {
    /// An open attempt; the patience is that of a half-open one.
    Open { stage: Stage, cause: Cause, patience: Patience },
    /// A UDP flow that may yet be answered.
    Pending,
    /// A silent connection.
    Silent,
}

impl Ages {
    #[inline(always)]
    fn add(&mut self, counted: Counted) {
        let (stage, cause, patience) = match counted {
            Counted::Open { stage, cause, patience } => (stage, cause, patience),
            Counted::Pending => {
                self.pending += 1;
                return;
            }
            Counted::Silent => {
                self.silent += 1;
                return;
            }
        };
        let ages = match stage {
            Stage::Opening => &mut self.opening,
            Stage::HalfOpen => &mut self.half_open,
            Stage::Expired => &mut self.expired,
        };
        *ages.at(cause) += 1;
        *self.never_repeated.at(cause) += u64::from(patience.never_repeated);
        *self.repeated.at(cause) += u64::from(patience.repeated);
        self.gave_up += u64::from(patience.gave_up);
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
    use handshake_common::shared::Shared64;
    use handshake_common::table::{Slot4, Slot6, Tag};
    use proptest::prelude::*;

    use super::*;
    use crate::delta::Rows;

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

    /// A record that takes every way through a scan, by random words.
    fn fill(slot: &impl Slot, owners: &[Shared64; 2], (words, service): ([u32; 4], u16)) {
        let [state, flags, addresses, rest] = words;
        let state = State::ALL[state as usize % State::ALL.len()];
        // One end of some is this host's.
        let end = |shift: u32| Address::v4(10 << 24 | addresses >> shift & 7);
        slot.set_key(&FlowKey { low: end(0), high: end(3), ports: 3, udp: state.is_udp() });
        let opened_ns = NOW.ns - u64::from(rest % 100) * SECOND;
        if state.is_udp() {
            slot.body().set_udp(UdpRecord { opened_ns, ..UdpRecord::default() });
        } else {
            let [syn, points, ..] = rest.to_be_bytes();
            let tcp = TcpRecord {
                opened_ns,
                isn_initiator: addresses,
                latest_after: flags >> 8,
                ..TcpRecord::default()
            };
            slot.body().set_tcp(TcpRecord { syn: syn % 8, points, other_ack: rest >> 20, ..tcp });
        }
        slot.last().store(NOW.jiffies.wrapping_sub(rest & 0xf_ffff));
        owners
            .iter()
            .zip([addresses >> 6 & 1, addresses >> 7 & 3])
            .for_each(|(owner, id)| owner.store(id.into()));
        let attributed = if addresses >> 9 & 1 == 0 { 0 } else { tag::ATTRIBUTED };
        slot.tag().swap(Tag(0).next(state, flags & tag::FLAGS, service).attributed(attributed).0);
    }

    /// Needs every second record, and notes all that it sees.
    #[derive(Default)]
    struct Half(Vec<(Brief, Option<Record>)>);

    impl Look for Half {
        fn needs_whole(&self, brief: &Brief) -> bool {
            brief.service.is_multiple_of(2)
        }

        fn see(&mut self, brief: &Brief, whole: Option<&Record>) {
            self.0.push((*brief, whole.copied()));
        }
    }

    fn rows_of(scan: &Scan, records: &[Record]) -> Rows {
        let mut rows = Rows::default();
        scan.keep(&mut rows, records.iter());
        rows
    }

    /// The table has what its records tell one by one, read whole; an onlooker sees those that it asked for, and
    /// changes nothing.
    fn assert_scanned<S: Slot + Default>(records: &[([u32; 4], u16)]) {
        let host =
            || Arc::new(HostAddresses::of(["10.0.0.1", "10.0.0.5"].map(|text| text.parse().expect("IPv4"))));
        let scan = || Scan::at(NOW, CLOCKS, host());
        let slots: Vec<S> = records.iter().map(|_| S::default()).collect();
        let owners: Vec<[Shared64; 2]> = records.iter().map(|_| Default::default()).collect();
        slots.iter().zip(&owners).zip(records).for_each(|((slot, owners), words)| fill(slot, owners, *words));
        let beside = BesideTable { owners: &owners, makers: &[] };
        let whole =
            slots.iter().zip(0..).filter_map(|(slot, place)| table::read_beside(slot, beside.slot(place)));
        let whole: Vec<Record> = whole.collect();
        let (mut expected, mut scanned, mut seen_scan) = (scan(), scan(), scan());
        whole.iter().for_each(|record| expected.add(record));
        scanned.add_table(&slots, beside, None);
        let (mut half, asked) = (Half::default(), u64::from(State::OPEN | 1 << State::Closed as u32));
        seen_scan.add_table(&slots, beside, Some(&mut Onlooker::new(asked, &mut half).with_silent()));
        assert_eq!(rows_of(&scanned, &whole), rows_of(&expected, &whole));
        assert_eq!(rows_of(&seen_scan, &whole), rows_of(&expected, &whole));
        let is_seen = |record: &&Record| asked >> record.state as u32 & 1 != 0 || may_be_silent(record.flags);
        let expected = whole.iter().filter(is_seen).map(|record| {
            let needed = record.service.is_multiple_of(2);
            (record.brief(), needed.then_some(*record))
        });
        assert_eq!(half.0, expected.collect::<Vec<_>>());
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

        /// The few words that a scan reads of a slot tell what the whole record does.
        #[test]
        fn a_scan_counts_what_whole_records_tell(
            records in prop::collection::vec((any::<[u32; 4]>(), 0_u16..6), 0..200),
        ) {
            assert_scanned::<Slot4>(&records);
            assert_scanned::<Slot6>(&records);
        }
    }
}
