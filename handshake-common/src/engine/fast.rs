//! The fast path: packets that change counts and no state, of a known flow or of none.

use core::hint::cold_path;
use core::marker::PhantomData;

use super::filter::{count_class, is_wanted};
use super::{Lookup, Platform, Table};
use crate::abi::{Counter, NO_POINT, tag};
use crate::flow::Side;
use crate::record::{State, UdpState, jiffies_since};
use crate::table::{Slot, Tag};
use crate::udp;
use crate::wire::{Class, Packet, PacketSink, note, quote};

/// Takes plain packets. It is done (`true`) with one that only counts, of a known flow or of none; with any
/// other it has done nothing (`false`), and the packet takes the general path.
pub struct FastPath<'a, P, S> {
    platform: &'a P,
    table: PhantomData<S>,
}

impl<'a, P: Platform, S: Table> FastPath<'a, P, S> {
    /// The fast path of one table.
    pub const fn new(platform: &'a P) -> Self {
        Self { platform, table: PhantomData }
    }

    #[inline(always)]
    fn take(self, packet: &Packet) -> bool {
        let done = !is_wanted(self.platform, packet)
            || Lookup::new::<S>(self.platform, packet).find_and_count::<S>();
        if done {
            count_class(self.platform, packet);
        }
        done
    }
}

impl<P: Platform, S: Table> PacketSink for FastPath<'_, P, S> {
    #[inline(always)]
    fn ack(self, packet: &mut Packet) -> bool {
        packet.class = Class::Ack as u8;
        self.take(packet)
    }

    #[inline(always)]
    fn udp(self, packet: &mut Packet) -> bool {
        packet.class = Class::Udp as u8;
        self.take(packet)
    }

    #[inline(always)]
    fn other(self, packet: &mut Packet, class: Class) -> bool {
        packet.class = class as u8;
        if packet.protocol == 0 {
            count_class(self.platform, packet);
            return true;
        }
        let opens = packet.class == Class::Syn as u8;
        let answers = packet.class == Class::SynAck as u8;
        (opens || answers)
            && if opens {
                self.platform.open_straight::<S>(packet)
            } else {
                self.platform.answer_straight::<S>(packet)
            }
    }
}

impl<P: Platform> Lookup<'_, P> {
    /// Counts a packet of a known flow that changes no state; `false` if there is no record of it, or the
    /// packet needs more.
    #[inline(always)]
    fn find_and_count<S: Table>(&self) -> bool {
        let is_tcp = !self.key.udp;
        let fits = |tag: Tag| {
            if is_tcp { tag.is_or_waits_in(ACK | ANSWERED) } else { self.may_only_count(tag) }
        };
        let Some((slot, number, tag)) = self.find_where::<S>(fits) else { return false };
        if is_tcp && tag.is_in(ANSWERED) {
            cold_path();
            return self.responder_bit(tag) == 0
                && self.platform.complete_straight(self.packet, (slot, number), tag);
        }
        self.count_only(slot, tag)
    }

    /// Counts a packet that changes no state, without locking its slot; `false` if the packet needs more. By
    /// its tag it [may](Self::may_only_count) only count.
    #[inline(always)]
    pub(super) fn count_only<S: Slot>(&self, slot: &S, tag: Tag) -> bool {
        let shift = self.responder_bit(tag) * 4;
        let needs_more = if self.key.udp {
            !self.is_settled(slot, tag, shift)
        } else {
            tag.waits() && self.may_be_first(slot, tag, shift != 0)
        };
        if needs_more {
            return false;
        }
        let point = slot.body().points() as u32 >> shift;
        if (point ^ self.packet.point as u32) & 0xf == 0 {
            slot.last().store(self.jiffies);
            self.count_packet(slot, shift != 0);
            return true;
        }
        point & 0xf != NO_POINT as u32 && !self.is_late(slot)
    }

    /// Is the packet too late to be a repeat, at another hook point, of the flow's latest packet that
    /// counted? Then its side has taken another path.
    #[inline(always)]
    pub(super) fn is_late<S: Slot>(&self, slot: &S) -> bool {
        jiffies_since(self.jiffies, slot.last().load()) > self.config.repeat_within_jiffies
    }

    /// Is the slot unlocked, and may the packet change no state of its record, by its class and the state?
    #[inline(always)]
    pub(super) fn may_only_count(&self, tag: Tag) -> bool {
        if self.key.udp {
            self.packet.class == Class::Udp as u8 && tag.is_in(UDP_INITIATOR | UDP_RESPONDER)
        } else {
            self.packet.class == Class::Ack as u8 && tag.is_or_waits_in(ACK)
        }
    }

    /// May the packet bring a first byte that its connection waits for, or acknowledge one?
    #[inline(always)]
    fn may_be_first<S: Slot>(&self, slot: &S, tag: Tag, responder: bool) -> bool {
        cold_path();
        if self.packet.note == note::BAD_CHECKSUM {
            return false;
        }
        let (flags, has_data) = (tag.flags(), self.packet.payload != 0);
        if responder {
            return has_data || flags & tag::INITIATOR_ACKED == 0;
        }
        // What the initiator sends after its first data may be a long upload. Its time is kept anew, but not
        // where another packet came in the same jiffy.
        has_data && (flags & tag::EARLY_ACK == 0 || slot.last().load() != self.jiffies)
    }

    /// Does the packet of a UDP flow change no state of its record? `responder` is 0 for the initiator's.
    #[inline(always)]
    fn is_settled<S: Slot>(&self, slot: &S, tag: Tag, responder: u32) -> bool {
        let is_in = if responder == 0 { tag.is_in(UDP_INITIATOR) } else { tag.is_in(UDP_RESPONDER) };
        is_in && jiffies_since(self.jiffies, slot.last().load()) <= self.config.udp_idle_jiffies
    }

    #[inline(always)]
    pub(super) fn count_packet<S: Slot>(&self, slot: &S, responder: bool) {
        if self.key.udp {
            slot.body().add_udp(responder, self.packet.segments as u32, self.packet.bytes());
            self.count_udp();
        } else {
            slot.body().add_acks(self.packet.acks());
        }
    }

    #[inline(always)]
    pub(super) fn count_udp(&self) {
        self.platform.books().add(Counter::UdpPackets, self.packet.segments as u64);
        self.platform.books().add(Counter::UdpBytes, self.packet.bytes());
    }
}

/// States, as bits, in which a packet of class ack only counts.
const ACK: u32 = 1 << State::Established as u32 | 1 << State::Closed as u32 | 1 << State::Midstream as u32;
/// The state of an attempt that an ACK may complete.
const ANSWERED: u32 = 1 << State::SynReceived as u32;
/// States in which a UDP packet of the initiator only counts.
const UDP_INITIATOR: u32 = settled_for(Side::Initiator);
/// The same for the responder.
const UDP_RESPONDER: u32 = settled_for(Side::Responder);

const fn settled_for(side: Side) -> u32 {
    let (mut states, mut i) = (0, 0);
    while i < UdpState::ALL.len() {
        let state = UdpState::ALL[i];
        if udp::step(state, side, quote::NONE) as u8 == state as u8 {
            states |= 1 << state as u32;
        }
        i += 1;
    }
    states
}
