//! What a packet changes in the record of its flow, and in the books.

use core::hint::cold_path;

use super::{Entry, Explanation, Lookup, NewRecord, Platform, Table};
use crate::abi::{Config, Counter, NO_POINT, TICK_SHIFT, TcpRecord, option, tag};
use crate::flow::{Family, Side};
use crate::record::{HOLDS_K, Now, State, TcpState, UdpState, jiffies_since};
use crate::table::{self, Slot, Tag};
use crate::tcp::{self, Change, Segment};
use crate::verdict::{Leg, Sign};
use crate::wire::{Class, Packet, mark, quote};
use crate::{latency, low_half, udp};

impl<P: Platform> Lookup<'_, P> {
    /// A UDP flow is answered, found unreachable, or seen at its other hook point. The slot is locked.
    /// `false`: the flow has expired, and the packet begins another.
    #[inline(always)]
    pub(super) fn change_udp<S: Table>(&self, slot: &S, old: Tag, now: Now) -> bool {
        let state = UdpState::from_number(old.state() as u8);
        if table::expired(slot, state.state(), now, &self.clocks()) {
            self.platform.on_evict(slot, old, None);
            return false;
        }
        let side = self.side(old.flags());
        let after = udp::step(state, side, self.packet.quote);
        if self.packet.quote == quote::NONE {
            let mut record = slot.body().udp();
            record.points = with_point(record.points, side, self.packet.point, self.is_late(slot));
            if after as u8 != state as u8 && matches!(after, UdpState::Answered) {
                record.answer_after = udp::answer_after(record.opened_ns, now.ns, self.packet.marks);
            }
            slot.body().set_udp(record);
            if is_point_of(record.points, side, self.packet.point) {
                self.count_packet(slot, matches!(side, Side::Responder));
                slot.last().store(now.jiffies);
            }
        } else if after as u8 != state as u8 {
            let mut record = slot.body().udp();
            record.answer_after = self.reporter_word::<S>();
            slot.body().set_udp(record);
            slot.set_reporter(self.packet.reporter);
        }
        let mut service = old.service();
        if after as u8 != state as u8 {
            service = self.own_row(old);
            self.move_between(service, state.state(), after.state());
        }
        slot.tag().swap(old.next(after.state(), old.flags(), service).0);
        true
    }

    /// A segment that may change a TCP record. The slot is locked. `false`: the record's attempt has ended,
    /// and the segment is judged as if there were no record.
    #[inline(always)]
    pub(super) fn change_tcp<S: Table>(&self, slot: &S, number: u32, old: Tag, now: Now) -> bool {
        let clocks = self.clocks();
        let before = old.state();
        let mut state = TcpState::from_number(before as u8);
        let mut record = slot.body().tcp();
        if before.is_open() && record.expired(now.ns, &clocks) {
            self.close((slot, number), old, self.own_row(old), expired_as(before), now);
            return false;
        }
        let idle = jiffies_since(now.jiffies, slot.last().load());
        if matches!(state, TcpState::Established) && idle > clocks.idle_after_jiffies {
            state = TcpState::Closed;
        }
        if self.packet.class == Class::Ack as u8 && idle > self.config.repeat_within_jiffies {
            record.points = with_point(record.points, self.side(old.flags()), self.packet.point, true);
        }
        let answered_after = record.syn_ack_after;
        let admits = self.packet.marks & mark::GATED == 0;
        let stand = Stand { state, flags: old.flags(), side: self.side(old.flags()), admits };
        let change = self.platform.judge(stand.pack(), &mut record, self.packet, now.ns);
        let change = Change::unpack(self.veil(change));
        let after = change.state.state();
        self.platform.meet(after.is_open() || before.is_open() && !after.is_completed());
        let (before, old) =
            if change.new_attempt { self.replace((slot, number), old, now) } else { (before, old) };
        if self.packet.quote != quote::NONE && change.state as u8 != state as u8 {
            cold_path();
            if change.flags & HOLDS_K == 0 {
                record.isn_responder = self.reporter_word::<S>();
            }
            slot.set_reporter(self.packet.reporter);
        }
        slot.body().set_tcp(record);
        slot.last().store(now.jiffies);
        if self.platform.wants_explanations() {
            self.explain(before, &change, &record, self.side(change.flags));
        }
        self.revoke(&change, answered_after);
        self.publish((slot, number), old, before, &change, now);
        true
    }

    /// Who sent the ICMP error, as a record has it: there is room for an IPv4 address.
    #[inline(always)]
    fn reporter_word<S: Slot>(&self) -> u32 {
        if let Family::V4 = S::FAMILY { self.packet.reporter.number() } else { 0 }
    }

    /// Ends the record of a slot in which another attempt begins: the slot is free from then on.
    #[inline(always)]
    fn replace<S: Table>(&self, at: (&S, u32), old: Tag, now: Now) -> (State, Tag) {
        cold_path();
        if old.state().is_open() {
            self.close(at, old, self.own_row(old), Counter::Superseded, now);
        } else {
            self.platform.on_evict(at.0, old, None);
        }
        (State::Empty, old.unattributed())
    }

    /// Tells the platform what the segment did.
    #[inline(always)]
    pub(super) fn explain(&self, before: State, change: &Change, record: &TcpRecord, side: Side) {
        cold_path();
        let without_syn_ack = change.flags & (tag::SIMULTANEOUS | tag::ONE_SIDED) != 0;
        let after = change.state.state();
        let is_orphan = matches!(after, State::OrphanSynAck);
        let knows_k = record.is_answered(change.flags) || without_syn_ack || is_orphan;
        self.platform.explain(&Explanation {
            before,
            after,
            signs: change.signs.bits(),
            side,
            isn_initiator: (after.is_attempt() || is_orphan).then_some(record.isn_initiator),
            isn_responder: knows_k.then_some(record.isn_responder),
        });
    }

    /// Ends the open attempt of a record that is about to be replaced.
    #[inline(always)]
    pub(super) fn close<S: Table>(
        &self,
        (slot, number): (&S, u32),
        tag: Tag,
        service: u16,
        verdict: Counter,
        now: Now,
    ) {
        self.transfer(service, tag.state().gauge_place(), verdict as usize);
        self.move_owned::<S>(number, tag, tag.state().gauge_place(), verdict as usize);
        self.send_end((slot, number), tag, verdict as usize, now);
        self.platform.on_evict(slot, tag, Some(verdict));
    }

    /// Counts what a segment changed, and publishes the record.
    #[inline(always)]
    fn publish<S: Table>(
        &self,
        (slot, number): (&S, u32),
        old: Tag,
        before: State,
        change: &Change,
        now: Now,
    ) {
        let after = change.state.state();
        let mut service = old.service();
        if change.copy {
            self.platform.books().add(Counter::Copies, 1);
        }
        if after as u8 != before as u8 {
            if !before.is_attempt() && after.is_attempt() {
                if matches!(before, State::OrphanSynAck) {
                    // Its SYN came after its SYN+ACK: the orphan was an attempt.
                    self.platform.books().add(Counter::OrphanSynAck, u64::MAX);
                }
                service = self.enter(Counter::Attempts, after, Entry::Of(self.new_row(NewRecord::Attempt)));
            } else {
                service = self.own_row(old);
                self.move_between(service, before, after);
                self.move_owned::<S>(number, old, before.gauge_place(), after.gauge_place());
            }
        }
        let mut owned = old.0 & tag::ATTRIBUTED;
        let side = self.side(change.flags);
        if self.is_of_attempt(slot, side) {
            owned = self.attribute::<S>(number, side, owned, after);
        }
        self.count_signs(change);
        if change.signs.has_sign(Sign::WasSilent) {
            cold_path();
            self.count_silence(old);
        }
        self.count_legs(change, &slot.body().tcp(), service);
        let published = old.next(after, change.flags, service).attributed(owned);
        if is_end(before, after) {
            self.send_end((slot, number), published, after.gauge_place(), now);
        }
        slot.tag().swap(published.0);
    }

    /// Moves an attempt or a flow from the gauge of one state to that of another, and counts the entry.
    #[inline(always)]
    pub(super) fn move_between(&self, service: u16, before: State, after: State) {
        let (from, to) = (before.gauge_place(), after.gauge_place());
        if from != to {
            self.transfer(service, from, to);
            self.count_entry(after);
            self.note_proof(service, after);
        }
    }

    /// Counts an entry into the verdict of this state, if flows leave it again.
    #[inline(always)]
    pub(super) fn count_entry(&self, state: State) {
        let place = state.entered_place();
        if place != 0 {
            self.platform.books().add_at(place);
        }
    }

    #[inline(always)]
    fn count_signs(&self, change: &Change) {
        if change.signs.is_empty() {
            return;
        }
        let books = self.platform.books();
        let mut i = 0;
        while i < Sign::ALL.len() {
            if change.signs.has_sign(Sign::ALL[i]) {
                books.add(Sign::ALL[i].counter(), 1);
            }
            i += 1;
        }
    }

    /// Takes the sample of the first leg away again, where its time is not known any more: `ticks`, as it
    /// was.
    #[inline(always)]
    fn revoke(&self, change: &Change, ticks: u32) {
        if change.revoked {
            cold_path();
            self.platform.sample(Leg::SynToSynAck, latency::bucket_of_ticks(ticks), u64::MAX);
            self.platform.books().add(Counter::ExcludedSynToSynAck, 1);
        }
    }

    #[inline(always)]
    fn count_legs(&self, change: &Change, record: &TcpRecord, service: u16) {
        if change.timed.is_empty() && change.excluded.is_empty() {
            return;
        }
        let mut i = 0;
        while i < Leg::ALL.len() {
            self.count_leg(change, Leg::ALL[i], record);
            i += 1;
        }
        if change.timed.has_leg(Leg::Connect) || change.excluded.has_leg(Leg::Connect) {
            let late = change.flags & tag::LATE != 0;
            self.platform.books().add(Counter::Late, late as u64);
            self.count_connect(service, change, record.latest_after);
        }
    }

    #[inline(always)]
    fn count_leg(&self, change: &Change, leg: Leg, record: &TcpRecord) {
        if change.timed.has_leg(leg) {
            self.time_leg(leg, record.leg(change.state, change.flags, leg).unwrap_or(0));
        } else if change.excluded.has_leg(leg) {
            self.platform.books().add(leg.excluded(), 1);
        }
    }

    /// Counts the time of a leg; returns its bucket.
    #[inline(always)]
    pub(super) fn time_leg(&self, leg: Leg, ticks: u32) -> u32 {
        let bucket = latency::bucket_of_ticks(ticks);
        self.platform.sample(leg, bucket, 1);
        self.platform.books().raise(leg.longest(), (ticks as u64) << TICK_SHIFT);
        bucket
    }

    /// Sends the event of an attempt's end, if events were asked for.
    #[inline(always)]
    fn send_end<S: Table>(&self, (slot, number): (&S, u32), tag: Tag, verdict: usize, now: Now) {
        if self.config.options & option::EVENTS == 0 {
            return;
        }
        let owners = self.owners_of::<S>(number, tag);
        let makers = self.makers_of::<S>(number, tag);
        let sent = self.platform.emit(makers, |event| {
            event.write(table::event(slot, tag, owners, verdict, now.ns));
        });
        if !sent {
            self.platform.books().add(Counter::LostEvents, 1);
        }
    }
}

/// How a record stands, and which side the segment is from.
#[derive(Clone, Copy)]
struct Stand {
    state: TcpState,
    flags: u32,
    side: Side,
    admits: bool,
}

impl Stand {
    #[inline(always)]
    const fn pack(self) -> u64 {
        let from_responder = matches!(self.side, Side::Responder) as u64;
        self.state as u64 | (self.flags as u64) << 8 | from_responder << 32 | (self.admits as u64) << 33
    }

    #[inline(always)]
    const fn unpack(word: u64) -> Self {
        Self {
            state: TcpState::from_number((word & 0xff) as u8),
            flags: low_half(word >> 8) & tag::FLAGS,
            side: if word >> 32 & 1 == 0 { Side::Initiator } else { Side::Responder },
            admits: word >> 33 & 1 != 0,
        }
    }
}

/// Applies the rules of TCP ([`tcp::step`]) to a record that stands as `stand` says. Numbers in and out, so
/// that the kernel side can make a function of it, which the verifier checks once.
#[inline(always)]
pub fn judge(config: &Config, stand: u64, record: &mut TcpRecord, packet: &Packet, now_ns: u64) -> u64 {
    let Stand { state, flags, side, admits } = Stand::unpack(stand);
    let never = (config.options & option::VEIL) / option::VEIL;
    let context = tcp::Conditions {
        now_ns,
        half_open_after_ns: config.half_open_after_ns,
        one_sided: config.options & option::ONE_SIDED != 0,
        admits,
        veil: 0_u64.wrapping_sub(never as u64),
    };
    tcp::step(state, flags, record, side, &Segment::of(packet), &context).pack()
}

/// The gauge of an open attempt that expired.
#[inline(always)]
pub(super) const fn expired_as(state: State) -> Counter {
    state.cause().expired()
}

/// Does this change end an attempt, as far as is known?
#[inline(always)]
const fn is_end(before: State, after: State) -> bool {
    before as u8 != after as u8
        && (after.is_provisional() || (after.is_completed() && !before.is_completed()))
}

/// The points of a record after `side` was seen at `point`: the one that it has is kept, unless it `moves`.
#[inline(always)]
const fn with_point(points: u8, side: Side, point: u8, moves: bool) -> u8 {
    let shift = if matches!(side, Side::Initiator) { 0 } else { 4 };
    if moves || points >> shift & 0xf == NO_POINT {
        points & !(0xf << shift) | (point & 0xf) << shift
    } else {
        points
    }
}

/// Do the packets of `side` count at `point`?
#[inline(always)]
const fn is_point_of(points: u8, side: Side, point: u8) -> bool {
    let shift = if matches!(side, Side::Initiator) { 0 } else { 4 };
    points >> shift & 0xf == point & 0xf
}
