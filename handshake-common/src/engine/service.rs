//! The row of a service, and changes of the books in balanced pairs, in the totals and in the row.
//!
//! A service without a free row is counted in `other`, and [`settle`] looks for a row that is worth less:
//!
//! ```text
//! nothing completed < something open < completed, far responder < completed, local responder
//! ```
//!
//! A row with something open stays. Each row keeps when something last came for it, and gives way once
//! nothing has for as long as a copy of a packet may take. What it had counted goes to `other`, and so do the
//! times of its completions.

use core::hint::cold_path;

use super::platform::slot_of;
use super::{Entry, Lookup, NewRecord, Platform, Table, veil};
use crate::abi::{Config, Counter, SERVICES, UNTIMED_CONNECTS, WAYS, WORKLOADS, tag};
use crate::books::{Claim, ServiceKey, ServiceRow, count_connect, move_connects};
use crate::flow::{Address, FlowKey, Side};
use crate::record::{State, TcpState, connect_ticks, jiffies_since};
use crate::table::{Slot, Tag};
use crate::tcp::Change;
use crate::wire::{self, Class, Packet};
use crate::{below, latency, low_half};

/// Rows of the service table that are looked at for one service.
const SERVICE_PROBES: u32 = 8;
/// Rows of each half of the service table.
const SERVICE_HALF: u32 = SERVICES / 2;

/// Rows for keys of one kind. The first is `other`, of those that have no row of their own.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    /// The number of its `other`.
    pub(super) other: u32,
    /// A power of two.
    rows: u32,
}

impl Part {
    const TCP: Self = Self { other: 0, rows: SERVICE_HALF };
    const UDP: Self = Self { other: SERVICE_HALF, rows: SERVICE_HALF };
    /// Behind both halves.
    pub(super) const WORKLOADS: Self = Self { other: SERVICES, rows: WORKLOADS };

    /// That of services of UDP, or else of TCP.
    #[inline(always)]
    const fn of_services(udp: bool) -> Self {
        if udp { Self::UDP } else { Self::TCP }
    }

    /// Where the rows begin that a key may have. A workload's key has few words that differ.
    #[inline(always)]
    fn start(self, key: &ServiceKey, config: &Config) -> u32 {
        let factors = &config.factors[0];
        if self.other == Self::WORKLOADS.other { key.mix_of_group(factors) } else { key.mix(factors) }
    }

    /// The `i`-th row that a key may have: `start` is its [`start`](Self::start).
    #[inline(always)]
    pub(super) fn probe(self, start: u32, i: u32) -> u32 {
        self.other + (start.wrapping_add(i) & (self.rows - 1)).max(1)
    }
}

/// Above the number of a row: the flow has no service.
const NO_SERVICE: u32 = 1 << 31;
/// From here on an offer is none.
const NO_OFFER: u32 = 1 << 31;
/// Where the row's worth begins in an offer, behind how often it was used and the place for its probe.
const OFFER_WORTH_SHIFT: u32 = 28;
/// Rows that were used more often than this are alike in an offer.
const MOST_USED: u64 = (1 << (OFFER_WORTH_SHIFT - SERVICE_PROBES.ilog2())) - 1;

/// The first port that Linux gives to a client by itself (net.ipv4.ip_local_port_range); IANA's range begins
/// above it (RFC 6335 §6).
pub(super) const EPHEMERAL: u16 = 32_768;
/// Below it are the ports that no client is given (RFC 6335 §6: system ports).
const SYSTEM_PORTS: i64 = 1_024;

/// The service of a flow: its responder. Not of a UDP flow that goes from a lower port to an ephemeral one,
/// for its first packet may have been an answer: there a system port names the service, and of two other
/// ports neither does.
#[inline(always)]
fn service_of(
    initiator: (&Address, u16),
    responder: (&Address, u16),
    protocol: u8,
    family: u8,
) -> ServiceKey {
    if protocol != wire::UDP {
        return ServiceKey::new(*responder.0, responder.1, protocol, family);
    }
    let ephemeral = EPHEMERAL as i64;
    let is_answer = below(initiator.1 as i64, ephemeral) & below(ephemeral - 1, responder.1 as i64);
    let by_initiator = is_answer & below(initiator.1 as i64, SYSTEM_PORTS);
    let either = 0_u64.wrapping_sub(by_initiator);
    let address = responder.0.or(*initiator.0, either);
    let port = responder.1 ^ (responder.1 ^ initiator.1) & (low_half(either) & 0xffff) as u16;
    let none = is_answer ^ by_initiator;
    ServiceKey::new(address, port, protocol, family).unless(none)
}

/// The service of the flow that a packet begins. `request_port`: where the packet answers a request of
/// another flow, the port that it was sent to.
#[inline(always)]
fn service_of_new(packet: &Packet, request_port: u16) -> ServiceKey {
    let (source, destination) =
        ((&packet.source, packet.source_port), (&packet.destination, packet.destination_port));
    if request_port != 0 {
        return ServiceKey::new(packet.source, request_port, packet.protocol, packet.family);
    }
    let from_responder = packet.class == Class::SynAck as u8;
    let (initiator, responder) = if from_responder { (destination, source) } else { (source, destination) };
    service_of(initiator, responder, packet.protocol, packet.family)
}

/// The row of the service of the flow that a packet begins; the row `other` if none of the rows it may have
/// is free. `request_port` as in [`insert`](super::insert).
#[inline(always)]
pub fn service_row<P: Platform>(platform: &P, packet: &Packet, request_port: u16) -> u32 {
    row_for(platform, packet, &service_of_new(packet, request_port), platform.jiffies())
}

/// The first row that a TCP service may have.
#[inline(always)]
pub(super) fn first_row(config: &Config, key: &ServiceKey) -> u32 {
    Part::TCP.probe(Part::TCP.start(key, config), 0)
}

/// [`service_row`] of a service.
#[inline(always)]
fn row_for<P: Platform>(platform: &P, packet: &Packet, key: &ServiceKey, jiffies: u32) -> u32 {
    let part = Part::of_services(packet.protocol == wire::UDP);
    if key.is_none() {
        return part.other;
    }
    let start = part.start(key, platform.config());
    let mut i = 0;
    while i < SERVICE_PROBES {
        let row = part.probe(start, i);
        if let Some(service) = platform.service(row) {
            match service.claim(key, jiffies) {
                Claim::Ours => return row,
                Claim::Unsettled => return part.other,
                Claim::Foreign => {}
            }
        }
        i += 1;
    }
    part.other
}

/// The row of a key, which may have been another's until now; `other` for none. `worth` is the least [`RowWorth`]
/// of a row that does not give way to it.
#[inline(always)]
fn search<P: Platform>(platform: &P, part: Part, key: &ServiceKey, worth: u32, jiffies: u32) -> u32 {
    let start = part.start(key, platform.config());
    let (mut least, mut i) = (NO_OFFER as u64, 0);
    while i < SERVICE_PROBES {
        let row = part.probe(start, i);
        if let Some(service) = platform.service(row) {
            match service.claim(key, jiffies) {
                Claim::Ours => return row,
                // It may become this one's: another row would be its second.
                Claim::Unsettled => return part.other,
                Claim::Foreign => {
                    let offer = (platform.offer(row, worth) | i) as u64;
                    least ^= (least ^ offer) & 0_u64.wrapping_sub(below(offer as i64, least as i64));
                }
            }
        }
        i += 1;
    }
    let least = low_half(veil(platform.config(), least));
    if least >= NO_OFFER {
        return part.other;
    }
    let row = part.probe(start, least & (SERVICE_PROBES - 1));
    if give(platform, row, key, part, jiffies) { row } else { part.other }
}

/// Gives a row to another key, unless something came for it just now. What it counted goes to `other`.
#[inline(always)]
fn give<P: Platform>(platform: &P, row: u32, key: &ServiceKey, part: Part, jiffies: u32) -> bool {
    let (Some(given), Some(other)) = (platform.service(row), platform.service(part.other)) else {
        return false;
    };
    let Some(state) = quiet_state(platform, given) else { return false };
    if !given.take(state, other) {
        return false;
    }
    platform.empty(row);
    given.give(state, key, jiffies);
    platform.books().add(Counter::ServicesEvicted, (part.other < SERVICES) as u64);
    true
}

/// The row of a workload, which may have been another's until now: one with nothing open gives way. `other` where
/// none does.
#[inline(always)]
pub(super) fn row_of_workload<'a, P: Platform>(platform: &'a P, key: &ServiceKey) -> Option<&'a ServiceRow> {
    let (part, jiffies) = (Part::WORKLOADS, platform.jiffies());
    let start = part.start(key, platform.config());
    let mut i = 0;
    while i < SERVICE_PROBES {
        let row = platform.service(part.probe(start, i))?;
        if row.claim(key, jiffies) as u8 == Claim::Ours as u8 {
            return Some(row);
        }
        i += 1;
    }
    cold_path();
    let other = platform.service(part.other)?;
    let Some(exchange) = other.begin_exchange() else { return Some(other) };
    let row = search(platform, part, key, RowWorth::Local as u32, jiffies);
    other.end_exchange(exchange, row != part.other);
    platform.service(row)
}

/// The first row that a workload may have, if it is its own.
#[inline(always)]
pub(super) fn first_row_of_workload<'a, P: Platform>(
    lookup: &Lookup<'a, P>,
    key: &ServiceKey,
) -> Option<&'a ServiceRow> {
    let part = Part::WORKLOADS;
    let row = lookup.platform.service(part.probe(part.start(key, lookup.config), 0))?;
    row.is_of_group(key, lookup.jiffies).then_some(row)
}

/// The row of a workload in which something is counted at a gauge, else `other`.
#[inline(always)]
pub(super) fn workload_that_counts<'a, P: Platform>(
    platform: &'a P,
    key: &ServiceKey,
    gauge: usize,
) -> Option<&'a ServiceRow> {
    let (part, jiffies) = (Part::WORKLOADS, platform.jiffies());
    let start = part.start(key, platform.config());
    let mut i = 0;
    while i < SERVICE_PROBES {
        let row = platform.service(part.probe(start, i))?;
        if row.counts(key, gauge, jiffies) {
            return Some(row);
        }
        i += 1;
    }
    cold_path();
    platform.service(part.other)
}

/// Counts a SYN or a UDP packet that got no record though it would begin one; `row` is its [`new_row`].
#[inline(always)]
pub(super) fn enter_untracked<P: Platform>(platform: &P, row: u32, jiffies: u32, new: NewRecord) {
    let (total, gauge) = match new {
        NewRecord::Attempt => (Counter::Attempts, Counter::Untracked),
        NewRecord::Udp => (Counter::UdpFlows, Counter::UdpUntracked),
        NewRecord::Orphan | NewRecord::Midstream | NewRecord::Nothing => return,
    };
    enter(platform, row, jiffies, total, gauge as usize);
}

/// Counts a new attempt or UDP flow, in the books and in its service's row: `found` is its [`new_row`]. Returns
/// the row's number, and 1 if that is `other`, though the flow has a service, and no flow has looked for a row
/// in this jiffy.
#[inline(always)]
fn enter<P: Platform>(platform: &P, found: u32, jiffies: u32, total: Counter, gauge: usize) -> (u16, u64) {
    let total = total as usize;
    platform.books().enter(total, gauge);
    let row = found & (SERVICES - 1);
    let mut first = 0;
    if let Some(service) = platform.service(row) {
        service.bump(total, 1);
        service.bump(gauge, 1);
        first = service.is_first_search(jiffies);
    }
    let row = (row & 0xffff) as u16;
    let has_service = (!found & NO_SERVICE) / NO_SERVICE;
    (row, is_other(row) & first & has_service as u64)
}

/// [`service_row`], and [`NO_SERVICE`] where the flow has no service.
#[inline(always)]
pub fn new_row<P: Platform>(platform: &P, packet: &Packet, request_port: u16, jiffies: u32) -> u32 {
    let key = service_of_new(packet, request_port);
    let none = if key.is_none() { NO_SERVICE } else { 0 };
    row_for(platform, packet, &key, jiffies) & (SERVICES - 1) | none
}

/// The row in which the record of a packet's flow is counted: that of its tag, or `other` where that row went
/// to another service. `from_responder`: the packet is the responder's.
#[inline(always)]
pub fn own_row<P: Platform>(
    platform: &P,
    packet: &Packet,
    tag: Tag,
    from_responder: bool,
    jiffies: u32,
) -> u16 {
    let (source, destination) =
        ((&packet.source, packet.source_port), (&packet.destination, packet.destination_port));
    let (initiator, responder) = if from_responder { (destination, source) } else { (source, destination) };
    let key = service_of(initiator, responder, packet.protocol, packet.family);
    row_by_key(platform, &key, tag, tag.state().gauge_place(), jiffies)
}

#[inline(always)]
fn row_by_key<P: Platform>(platform: &P, key: &ServiceKey, tag: Tag, place: usize, now: u32) -> u16 {
    match platform.service(tag.service() as u32) {
        Some(service) if service.counts(key, place, now) => tag.service(),
        Some(_) | None => (other_row(tag.state()) & 0xffff) as u16,
    }
}

/// The row `other` of a record's protocol.
#[inline(always)]
const fn other_row(state: State) -> u32 {
    if state.is_udp() { SERVICE_HALF } else { 0 }
}

/// 1 for a row `other`, else 0.
#[inline(always)]
fn is_other(row: u16) -> u64 {
    below((row as u32 & (SERVICE_HALF - 1)) as i64, 1)
}

/// The service of a record's flow.
#[inline(always)]
fn service_at<S: Slot>(slot: &S, tag: Tag) -> ServiceKey {
    let udp = tag.state().is_udp();
    let key = slot.key(udp);
    let [(initiator, port), responder] = ends(&key, tag);
    let protocol = if udp { wire::UDP } else { wire::TCP };
    let request_port = slot.body().request_port();
    if udp && request_port != 0 {
        return ServiceKey::new(responder.0, request_port, protocol, S::FAMILY as u8);
    }
    service_of((&initiator, port), (&responder.0, responder.1), protocol, S::FAMILY as u8)
}

/// Address and port of the initiator, and of the responder, by a record's key and flags. By value and without
/// a branch: otherwise the key would be on the stack.
#[inline(always)]
pub(super) fn ends(key: &FlowKey, tag: Tag) -> [(Address, u16); 2] {
    let swap = 0_u64.wrapping_sub(((tag.flags() & tag::INITIATOR_HIGH) / tag::INITIATOR_HIGH) as u64);
    let (low, high) = (key.ports >> 16, key.ports & 0xffff);
    let ports = (low ^ high) & low_half(swap);
    [
        (key.low.or(key.high, swap), ((low ^ ports) & 0xffff) as u16),
        (key.high.or(key.low, swap), ((high ^ ports) & 0xffff) as u16),
    ]
}

/// States that prove a service: it answered.
const PROVEN: u32 = 1 << State::Established as u32 | 1 << State::UdpAnswered as u32;
/// States in which a record's service may look for a row.
const SEARCHES: u32 = PROVEN | State::OPEN | 1 << State::UdpWaiting as u32;

/// The state of a row that nothing has come for within the time of repeats: no CPU that found the row is
/// still about to count in it.
#[inline(always)]
fn quiet_state<P: Platform>(platform: &P, row: &ServiceRow) -> Option<u64> {
    let (state, used) = row.last_use()?;
    (jiffies_since(platform.jiffies(), used) >= platform.config().repeat_within_jiffies).then_some(state)
}

/// What a row is worth to the services that look for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
enum RowWorth {
    /// Nothing completed or answered, and nothing open.
    Nothing,
    /// Something open. UDP has nothing open: what is not answered may stay so for ever.
    Open,
    /// Completed or answered by a far responder.
    Far,
    /// Completed or answered by this host.
    Local,
}

/// Gives the service of a packet's flow a row, if the flow is counted in `other` and there is a row that is
/// worth less; the flow's pair of counts moves there. Rarely called: the kernel side has it as a function of
/// its own.
#[inline(always)]
pub fn settle<P: Platform, S: Table>(platform: &P, packet: &Packet) {
    let lookup = Lookup::new::<S>(platform, packet);
    let Some(index) = lookup.locate::<S>() else { return };
    let index = low_half(lookup.veil(index as u64));
    if let Some(set) = S::set(platform, index / WAYS) {
        lookup.settle(slot_of(set, index));
    }
}

/// How soon a row gives way to a service of this [`RowWorth`], the lowest first: the row's worth, then how
/// often it was used. The lowest bits are free for the row's place among those of the service. From
/// [`NO_OFFER`] on: not now.
#[inline(always)]
pub fn offer<P: Platform>(platform: &P, number: u32, worth: u32) -> u32 {
    let Some(row) = platform.service(number) else { return NO_OFFER };
    let is_udp = number & (SERVICE_HALF | SERVICES) == SERVICE_HALF;
    let (total, good) = if is_udp {
        (Counter::UdpFlows, Counter::UdpAnswered)
    } else {
        (Counter::Attempts, Counter::Completed)
    };
    let open = |counter: Counter| row.count(counter as usize) > 0;
    let is_open = !is_udp
        && (open(Counter::OpenNoSynAck) || open(Counter::OpenNoAck) || open(Counter::OpenAnswerUnseen));
    let own = if row.count(good as usize) <= 0 {
        RowWorth::Nothing
    } else if worth == RowWorth::Local as u32 && is_row_local(platform, row) {
        RowWorth::Local
    } else {
        RowWorth::Far
    };
    if is_open || own as u32 >= worth {
        return NO_OFFER;
    }
    if quiet_state(platform, row).is_none() {
        return NO_OFFER;
    }
    let used = row.count(total as usize).cast_unsigned().min(MOST_USED);
    (own as u32) << OFFER_WORTH_SHIFT | low_half(used) << SERVICE_PROBES.ilog2()
}

#[inline(always)]
fn is_row_local<P: Platform>(platform: &P, row: &ServiceRow) -> bool {
    let key = row.key();
    platform.is_local(&key.address, key.family())
}

/// Moves the completions of a row that is given to another service to `other`, bucket by bucket. A function of
/// its own on the kernel side, as [`offer`].
#[inline(always)]
pub fn empty<P: Platform>(platform: &P, row: u32) {
    if let (Some(from), Some(other)) = (platform.connects(row), platform.connects(0)) {
        move_connects(from, other);
    }
}

/// Where the completion of a record in this state is counted among those of its service, by its `latest_after`.
#[inline(always)]
fn connect_place(state: TcpState, flags: u32, latest_after: u32) -> u32 {
    match connect_ticks(state, flags, latest_after) {
        Some(ticks) => latency::connect_place(latency::bucket_of_ticks(ticks)),
        None => low_half(UNTIMED_CONNECTS as u64),
    }
}

impl<P: Platform> Lookup<'_, P> {
    /// The slot of the packet's flow. Counts nothing.
    #[inline(always)]
    fn locate<S: Table>(&self) -> Option<u32> {
        let mut probe = 0;
        while probe < 2 * WAYS {
            let place = self.place_of::<S>(self.hash::<S>(&self.key, (probe / WAYS) as usize));
            if let Some(set) = S::set(self.platform, place) {
                let slot = slot_of(set, probe);
                if self.is_at(slot, Tag(slot.tag().load())) {
                    return Some(place * WAYS + (probe & (WAYS - 1)));
                }
            }
            probe += 1;
        }
        None
    }

    #[inline(always)]
    fn settle<S: Slot>(&self, slot: &S) {
        let tag = Tag(slot.tag().load());
        let state = tag.state();
        let proven = PROVEN >> state as u32 & 1;
        let Some(other) = self.platform.service(Part::of_services(self.key.udp).other) else { return };
        if proven == 0 {
            other.begin_search(self.jiffies);
        }
        if tag.is_locked() || SEARCHES >> state as u32 & 1 == 0 {
            return;
        }
        if !self.is_at(slot, tag) || !slot.tag().compare_exchange(tag.0, tag.locked().0) {
            return;
        }
        let key = service_at(slot, tag);
        let mut row = 0;
        if is_other(self.row_by_key(&key, tag)) != 0
            && let Some(exchange) = other.begin_exchange()
        {
            row = low_half(self.veil(self.find_row(&key, proven) as u64));
            self.move_counts(state, other, row);
            self.move_completion(slot, tag, row);
            other.end_exchange(exchange, row != 0);
        }
        let moved = tag.next(state, tag.flags(), (row & (SERVICES - 1)) as u16);
        slot.tag().swap(if row == 0 { tag.0 } else { moved.0 });
    }

    /// The service's row, which may have been another's until now; 0 for none.
    #[inline(always)]
    fn find_row(&self, key: &ServiceKey, proven: u32) -> u32 {
        if key.is_none() {
            return 0;
        }
        let is_local = self.platform.is_local(&key.address, key.family()) as u32;
        // Something open, completed by a far responder, or by this host.
        let worth = low_half(self.veil((RowWorth::Open as u32 + proven + (proven & is_local)) as u64));
        let part = Part::of_services(self.key.udp);
        let row = search(self.platform, part, key, worth, self.jiffies);
        if row == part.other { 0 } else { row }
    }

    /// Moves the pair of counts of a record from `other` to its row.
    #[inline(always)]
    fn move_counts(&self, state: State, other: &ServiceRow, row: u32) {
        let total = if self.key.udp { Counter::UdpFlows } else { Counter::Attempts } as usize;
        let (total, gauge) = (self.veiled_place(total), self.veiled_place(state.gauge_place()));
        if row == 0 {
            return;
        }
        if let Some(service) = self.platform.service(row) {
            other.bump(total, u64::MAX);
            other.bump(gauge, u64::MAX);
            service.bump(total, 1);
            service.bump(gauge, 1);
        }
    }

    /// Moves the completion of a record from those of `other` to those of its row: it was counted there a
    /// step before.
    #[inline(always)]
    fn move_completion<S: Slot>(&self, slot: &S, tag: Tag, row: u32) {
        if row == 0 || tag.state() as u8 != State::Established as u8 {
            return;
        }
        let place = connect_place(TcpState::Established, tag.flags(), slot.body().latest_after());
        if let (Some(other), Some(own)) = (self.platform.connects(0), self.platform.connects(row)) {
            count_connect(other, place, u64::MAX);
            count_connect(own, place, 1);
        }
    }

    /// Counts a completion in the row of its service.
    #[inline(always)]
    pub(super) fn count_connect(&self, row: u16, change: &Change, latest_after: u32) {
        if let Some(connects) = self.platform.connects(row as u32) {
            count_connect(connects, connect_place(change.state, change.flags, latest_after), 1);
        }
    }

    /// Counts in the row of its service that the server of a record's connection was silent.
    #[inline(always)]
    pub(super) fn count_silence(&self, tag: Tag) {
        if let Some(service) = self.platform.service(self.own_row(tag) as u32) {
            service.count_silence();
        }
    }

    /// The row in which a record is counted: that of its tag, or `other` where that row went to another
    /// service.
    #[inline(always)]
    pub(super) fn row_of<S: Slot>(&self, slot: &S, tag: Tag) -> u16 {
        self.row_by_key(&service_at(slot, tag), tag)
    }

    /// The same of the record of the packet's flow.
    #[inline(always)]
    pub(super) fn own_row(&self, tag: Tag) -> u16 {
        let from_responder = matches!(self.side(tag.flags()), Side::Responder);
        self.platform.own_row(self.packet, tag, from_responder, self.jiffies)
    }

    #[inline(always)]
    fn row_by_key(&self, key: &ServiceKey, tag: Tag) -> u16 {
        row_by_key(self.platform, key, tag, self.veiled_place(tag.state().gauge_place()), self.jiffies)
    }

    /// Notes that a flow that is proven by now is counted in `other`.
    #[inline(always)]
    pub(super) fn note_proof(&self, row: u16, state: State) {
        let proven = (PROVEN >> state as u32 & 1) as u64;
        self.rowless.set(self.rowless.get() | low_half(is_other(row) & proven));
    }

    /// The row of a new record's service, [`new_row`]; 0 of one that has none.
    #[inline(always)]
    pub(super) fn new_row(&self, new: NewRecord) -> u32 {
        match new {
            NewRecord::Attempt | NewRecord::Udp => {
                self.platform.new_row(self.packet, self.request_port, self.jiffies)
            }
            NewRecord::Orphan | NewRecord::Midstream | NewRecord::Nothing => 0,
        }
    }

    /// [`enter_untracked`] of this packet.
    #[inline(always)]
    pub(super) fn enter_untracked(&self, row: u32, new: NewRecord) {
        enter_untracked(self.platform, row, self.jiffies, new);
    }

    /// Counts a new attempt or UDP flow in the books and in its service's row, whose number it returns.
    #[inline(always)]
    pub(super) fn enter(&self, total: Counter, state: State, entry: Entry) -> u16 {
        let row = match entry {
            Entry::Of(row) => row,
            Entry::Counted(row) => return row,
        };
        let (row, searches) = enter(self.platform, row, self.jiffies, total, state.gauge_place());
        self.rowless.set(self.rowless.get() | low_half(searches));
        row
    }

    /// Is the open attempt in a slot counted in this row, which is the one of the service that the packet, a SYN,
    /// goes to?
    #[inline(always)]
    pub(super) fn is_of_row<S: Slot>(&self, slot: &S, tag: Tag, row: u32) -> bool {
        let number = tag.service();
        if number as u32 != row || is_other(number) != 0 {
            return false;
        }
        let [_, (address, port)] = ends(&slot.key(false), tag);
        address == self.packet.destination
            && port == self.packet.destination_port
            && self.platform.service(row).is_some_and(|row| row.count(Counter::OpenNoSynAck as usize) > 0)
    }

    /// Counts a new attempt and the end of an open one that it evicts, both of the service of this row.
    #[inline(always)]
    pub(super) fn replace_attempt(&self, row: u16) {
        let (new, end) = (Counter::Attempts as usize, Counter::Evicted as usize);
        self.platform.books().enter(new, end);
        if let Some(service) = self.platform.service(row as u32) {
            service.bump(new, 1);
            service.bump(end, 1);
        }
    }

    /// Moves an attempt or flow from one gauge to another, in the books and in its service's row.
    #[inline(always)]
    pub(super) fn transfer(&self, row: u16, from: usize, to: usize) {
        let (from, to) = (self.veiled_place(from), self.veiled_place(to));
        self.platform.books().transfer(from, to);
        if let Some(service) = self.platform.service(row as u32) {
            service.bump(from, u64::MAX);
            service.bump(to, 1);
        }
    }

    /// A place in a counter block behind the veil: the verifier checks the change of the books once, not once
    /// per verdict.
    #[inline(always)]
    fn veiled_place(&self, place: usize) -> usize {
        low_half(self.veil(place as u64)) as usize
    }
}
