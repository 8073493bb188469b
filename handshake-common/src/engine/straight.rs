//! The straight way of a handshake without incident: each of its three segments in one piece, from the packet to
//! the published record.
//!
//! ```text
//! SYN      a set with room, or full ones of unanswered attempts of its service ─▶ the record of an attempt
//! SYN+ACK  the record of an attempt that nothing came back for ─▶ an answered one
//! ACK      the record of an answered attempt ─▶ a completed connection
//! ```
//!
//! It does what the general way does with them, and leaves the questions out whose answers are known. Wherever
//! one answer is another than expected it changes nothing and says `false`, and the general way follows. Tests
//! hold the two equal. The counting by class is its caller's.

use core::cell::Cell;
use core::hint::cold_path;

use super::place::{Home, Score};
use super::{Lookup, Platform, Table};
use crate::abi::{Config, TICK_SHIFT, TcpRecord, option, tag};
use crate::books::{ServiceKey, ServiceRow, count_connect};
use crate::flow::{Address, End, FlowKey, Side};
use crate::latency;
use crate::low_half;
use crate::record::{Now, State, TcpState};
use crate::table::{Set, Tag, Worth};
use crate::tcp::{self, Change, Conditions, Segment};
use crate::verdict::Leg;
use crate::wire::{self, Packet, mark};

/// Settings under which there is no straight way.
const DETOURS: u32 = option::PORTS | option::NETS | option::CHECKSUMS | option::GENERAL;

/// May the segment be one of a handshake without incident: alone, without data, and without these marks?
#[inline(always)]
const fn is_simple(packet: &Packet, marks: u8) -> bool {
    packet.payload == 0 && packet.segments == 1 && packet.marks & (mark::UNTIMED | marks) == 0
}

#[inline(always)]
const fn has_detours(config: &Config, more: u32) -> bool {
    config.options & (DETOURS | more) != 0
}

/// Opens an attempt for a SYN.
#[inline(always)]
pub fn open_straight<P: Platform, S: Table>(platform: &P, packet: &Packet) -> bool {
    is_simple(packet, mark::GATED)
        && !has_detours(platform.config(), 0)
        && Lookup::of::<S>(platform, packet, false).open_straight::<S>()
}

/// Answers an attempt by a SYN+ACK.
#[inline(always)]
pub fn answer_straight<P: Platform, S: Table>(platform: &P, packet: &Packet) -> bool {
    is_simple(packet, 0)
        && !has_detours(platform.config(), 0)
        && Lookup::of::<S>(platform, packet, false).answer_straight::<S>()
}

/// Completes the attempt in a slot by an ACK of its initiator, which was found there under this tag.
#[inline(always)]
pub fn complete_straight<P: Platform, S: Table>(platform: &P, packet: &Packet, slot: &S, tag: Tag) -> bool {
    // Events are told in one place.
    if !is_simple(packet, 0) || has_detours(platform.config(), option::EVENTS) {
        return false;
    }
    // The key was found under this tag: it need not be put in order again.
    let key = FlowKey { low: Address([0; 2]), high: Address([0; 2]), ports: 0, udp: false };
    let (config, jiffies) = (platform.config(), platform.jiffies());
    let lookup = Lookup {
        platform,
        config,
        packet,
        key,
        end: End::LOW,
        jiffies,
        request_port: 0,
        rowless: Cell::new(0),
    };
    lookup.complete_straight(slot, tag)
}

/// A tag's state and flags of an attempt that had no incident: unlocked, and but for these flags.
#[inline(always)]
const fn stands(tag: Tag, state: State, flags: u32) -> bool {
    let asked = (tag::FLAGS & !flags) as u64;
    let asked = asked << tag::FLAGS_SHIFT | 0xf << tag::STATE_SHIFT | tag::LOCKED;
    tag.0 & asked == (state as u64) << tag::STATE_SHIFT
}

impl<'a, P: Platform> Lookup<'a, P> {
    #[inline(always)]
    fn open_straight<S: Table>(&self) -> bool {
        let now = self.now();
        let Some(Home { sets, places, lock }) = self.home::<S>() else { return false };
        // A lock word that another CPU holds is waited for elsewhere.
        if lock.load() != 0 || !lock.compare_exchange(0, 1) {
            cold_path();
            return false;
        }
        let is_open = self.open_in(sets, places, now);
        lock.release();
        is_open
    }

    /// The lock word of the key is held.
    #[inline(always)]
    fn open_in<S: Table>(&self, sets: [&Set<S>; 2], places: [u32; 2], now: Now) -> bool {
        let Some(states) = self.states(sets) else { return false };
        let is_full = states.free() == 0;
        if is_full && !states.are_unanswered() {
            return false;
        }
        let key = self.destination::<S>();
        let Some((row, service)) = self.first_row(&key) else { return false };
        let place = if is_full {
            let score = Score::from_bits(self.platform.survey(sets, now, true, true));
            if low_half(score.worth()) != Worth::HalfOpenNoSynAck as u32 {
                return false;
            }
            (score.way(), Some(score))
        } else {
            (states.choose(), None)
        };
        self.claim_straight(sets, places, place, now, (row, service))
    }

    /// The service that the packet goes to.
    #[inline(always)]
    fn destination<S: Table>(&self) -> ServiceKey {
        let (address, port) = (self.packet.destination, self.packet.destination_port);
        ServiceKey::new(address, port, wire::TCP, S::FAMILY as u8)
    }

    /// The row of a service, if the first that it may have is its own.
    #[inline(always)]
    fn first_row(&self, key: &ServiceKey) -> Option<(u32, &'a ServiceRow)> {
        let row = super::service::first_row(self.config, key);
        let service = self.platform.service(row)?;
        service.is_of(key, self.jiffies).then_some((row, service))
    }

    #[inline(always)]
    fn answer_straight<S: Table>(&self) -> bool {
        let Some((slot, _, tag)) = self.find_where::<S>(|tag| self.is_ours(tag)) else { return false };
        if !stands(tag, State::SynSent, tag::INITIATOR_HIGH) || self.responder_bit(tag) == 0 {
            return false;
        }
        if !slot.tag().compare_exchange(tag.0, tag.locked().0) {
            cold_path();
            return false;
        }
        let key = ServiceKey::new(self.packet.source, self.packet.source_port, wire::TCP, S::FAMILY as u8);
        let is_done = slot.holds(&self.key) && self.go_straight(slot, tag, State::SynSent, &key);
        if !is_done {
            slot.tag().swap(tag.0);
        }
        is_done
    }

    #[inline(always)]
    fn complete_straight<S: Table>(&self, slot: &S, tag: Tag) -> bool {
        if !stands(tag, State::SynReceived, tag::INITIATOR_HIGH | tag::SYN_ACK_TIMED) {
            return false;
        }
        if !slot.tag().compare_exchange(tag.0, tag.locked().0) {
            cold_path();
            return false;
        }
        let key = self.destination::<S>();
        // The numbers of both sides show that the key that was found under this tag was the record's.
        let is_done = self.go_straight(slot, tag, State::SynReceived, &key);
        if !is_done {
            slot.tag().swap(tag.0);
        }
        is_done
    }

    /// Applies the segment to its record in this state, in a slot that is locked and had this tag.
    #[inline(always)]
    fn go_straight<S: Table>(&self, slot: &S, old: Tag, before: State, key: &ServiceKey) -> bool {
        let now = self.now();
        let mut record = slot.body().tcp();
        let lasts = self.config.expire_after_ns + ((record.latest_after as u64) << TICK_SHIFT);
        // The row `other` is no service's.
        if now.ns.wrapping_sub(record.opened_ns) > lasts || old.service() == 0 {
            return false;
        }
        let Some(change) = self.straight_change(old, &mut record, before, now) else { return false };
        let Some(row) = self.platform.service(old.service() as u32) else { return false };
        let after = change.state.state();
        let (from, to) = (before.gauge_place(), after.gauge_place());
        if !row.counts(key, from, self.jiffies) {
            return false;
        }
        slot.last().store(self.jiffies);
        self.platform.books().transfer(from, to);
        row.bump(from, u64::MAX);
        row.bump(to, 1);
        let owned = self.own_straight(slot, old, before, after);
        if let State::SynSent = before {
            slot.body().set_answer(record);
            self.time_leg(Leg::SynToSynAck, record.syn_ack_after);
        } else {
            slot.body().set_completion(record);
            self.time_leg(Leg::SynAckToAck, record.latest_after - record.syn_ack_after);
            let bucket = self.time_leg(Leg::Connect, record.latest_after);
            if let Some(connects) = self.platform.connects(old.service() as u32) {
                count_connect(connects, latency::connect_place(bucket), 1);
            }
        }
        slot.tag().swap(old.next(after, change.flags, old.service()).attributed(owned).0);
        true
    }

    /// Moves the record in the rows of its owners, and notes whose socket sent a SYN+ACK.
    #[inline(always)]
    fn own_straight<S: Table>(&self, slot: &S, old: Tag, before: State, after: State) -> u64 {
        let owned = old.0 & tag::ATTRIBUTED;
        let answers = matches!(before, State::SynSent);
        if owned == 0 && !(answers && self.platform.control_group() != 0) {
            return owned;
        }
        let Some(number) = self.number_of(slot) else { return owned };
        self.move_owned::<S>(number, old, before.gauge_place(), after.gauge_place());
        if answers { self.attribute::<S>(number, Side::Responder, owned, after) } else { owned }
    }

    /// The number of a slot that is locked.
    #[inline(always)]
    fn number_of<S: Table>(&self, slot: &S) -> Option<u32> {
        let (key, locked) = (slot.key(false), slot.tag().load());
        let own = Self { key, rowless: Cell::new(0), ..*self };
        // No other has this key under this tag.
        own.find_where::<S>(|tag| tag.0 == locked).map(|(_, number, _)| number)
    }

    #[inline(always)]
    fn straight_change(&self, old: Tag, record: &mut TcpRecord, before: State, now: Now) -> Option<Change> {
        let context = Conditions {
            now_ns: now.ns,
            half_open_after_ns: self.config.half_open_after_ns,
            one_sided: false,
            admits: true,
            veil: 0,
        };
        let segment = Segment::of(self.packet);
        if let State::SynSent = before {
            tcp::straight(TcpState::SynSent, old.flags(), record, Side::Responder, &segment, &context)
        } else {
            tcp::straight(TcpState::SynReceived, old.flags(), record, Side::Initiator, &segment, &context)
        }
    }
}
