//! UDP that is answered from elsewhere: from another port of the responder (TFTP, RFC 1350 §4), or by a host
//! that a query to a group has reached (SSDP, mDNS, NetBIOS names). Request and answer have two keys.
//!
//! ```text
//! client:40000 ─▶ server:69       a flow: its slot's number goes to the word of client:40000
//! server:50123 ─▶ client:40000    no flow has this key: the word of client:40000 leads to the request
//! ```
//!
//! The request is answered then, and the answer's flow has the client as its initiator and is answered from
//! the start. A word is chosen by a hash, and the newest flow has it: where another client took it since,
//! nothing is tied. The word only says where to look: the record there decides.

use core::hint::cold_path;

use super::place::lock_slot;
use super::platform::slot_of;
use super::service::{EPHEMERAL, ends};
use super::{Lookup, Platform, Table};
use crate::abi::{CLIENTS, Config, WAYS, tag};
use crate::books::ServiceKey;
use crate::flow::Address;
use crate::record::State;
#[cfg(not(target_arch = "bpf"))]
use crate::shared::Shared64;
use crate::table::{self, Slot, Tag};
use crate::wire::{self, Packet, mark};
use crate::{low_half, udp};

/// The port to which the request was sent that a datagram of an unknown flow answers; its flow is answered
/// from then on. 0: it answers none.
#[inline(always)]
pub fn answer<P: Platform, S: Table>(platform: &P, packet: &Packet) -> u16 {
    if packet.marks & mark::TO_GROUP != 0 {
        return 0;
    }
    let lookup = Lookup::new::<S>(platform, packet);
    let hash = lookup.hash_of_client(packet.destination, packet.destination_port);
    let Some(word) = platform.client(hash & (CLIENTS - 1)) else { return 0 };
    let word = word.load();
    if low_half(word >> 32) != hash {
        return 0;
    }
    cold_path();
    let number = low_half(lookup.veil(word));
    S::set(platform, number / WAYS).map_or(0, |set| lookup.answer_to(slot_of(set, number)))
}

#[inline(always)]
fn hash_of_client(config: &Config, address: Address, port: u16, family: u8) -> u32 {
    ServiceKey::new(address, port, wire::UDP, family).mix(&config.factors[1])
}

/// May a first packet between these ports be a request that is answered from another port? Else it may be an
/// answer, and what comes to its sender a request of its own: an ephemeral port is not asked, nor one above
/// the asker's.
#[inline(always)]
const fn is_request(from: u16, to: u16) -> bool {
    to <= from && to < EPHEMERAL
}

/// What a client's word holds: the upper half tells it from the other clients of the word.
#[inline(always)]
const fn word_of(hash: u32, number: u32) -> u64 {
    (hash as u64) << 32 | number as u64
}

/// Moves a record to a free slot; each slot comes with its number. The word of its client follows it. No
/// other thread uses the table.
#[cfg(not(target_arch = "bpf"))]
pub fn relocate<S: Slot>(
    config: &Config,
    clients: &[Shared64],
    (slot, from): (&S, u32),
    (free, to): (&S, u32),
) {
    let tag = Tag(slot.tag().load());
    let [(address, port), _] = ends(&slot.key(true), tag);
    let hash = hash_of_client(config, address, port, S::FAMILY as u8);
    let word = clients.get((hash & (CLIENTS - 1)) as usize);
    if let Some(word) = word.filter(|word| tag.state().is_udp() && word.load() == word_of(hash, from)) {
        word.store(word_of(hash, to));
    }
    table::relocate(slot, free);
}

impl<P: Platform> Lookup<'_, P> {
    /// Leaves the number of the slot in which the packet begins a flow to the word of its sender.
    #[inline(always)]
    pub(super) fn remember(&self, number: u32) {
        let hash = self.hash_of_client(self.packet.source, self.packet.source_port);
        if let Some(word) = self.platform.client(hash & (CLIENTS - 1)) {
            word.store(word_of(hash, number));
        }
    }

    #[inline(always)]
    fn hash_of_client(&self, address: Address, port: u16) -> u32 {
        hash_of_client(self.config, address, port, self.packet.family)
    }

    /// [`answer`], where the slot may hold the request.
    #[inline(always)]
    fn answer_to<S: Slot>(&self, slot: &S) -> u16 {
        let Some(tag) = lock_slot(self.platform, slot) else { return 0 };
        let request_port = self.request_in(slot, tag);
        let is_first = request_port != 0 && tag.state() as u8 != State::UdpAnswered as u8;
        let left = if is_first { self.mark_answered(slot, tag) } else { tag };
        slot.tag().swap(left.0);
        request_port
    }

    /// The port to which the flow in a slot was sent, if the packet answers it: the packet goes to where the
    /// flow came from, and nothing has come from where it went to. The packet's own flow, which another CPU
    /// may have begun just now, needs no tie. An end that asks from the port it also asks for may be asked
    /// itself, so that a packet to that port is an answer only if it comes from it.
    #[inline(always)]
    fn request_in<S: Slot>(&self, slot: &S, tag: Tag) -> u16 {
        let packet = self.packet;
        if !tag.state().is_udp()
            || slot.holds(&self.key)
            || slot.body().answers() != 0
            || table::expired(slot, tag.state(), self.no_time(), &self.clocks())
        {
            return 0;
        }
        let key = slot.key(true);
        let [client, server] = ends(&key, tag);
        let to_client = client.0 == packet.destination && client.1 == packet.destination_port;
        let to_group = tag.flags() & tag::TO_GROUP != 0;
        let from_server = to_group || (server.0 == packet.source && is_request(client.1, server.1));
        let is_answer = client.1 != server.1 || packet.source_port == server.1;
        if to_client && from_server && is_answer { server.1 } else { 0 }
    }

    /// The flow in a locked slot is answered: its tag from now on.
    #[inline(always)]
    fn mark_answered<S: Slot>(&self, slot: &S, tag: Tag) -> Tag {
        let mut record = slot.body().udp();
        record.answer_after = udp::answer_after(record.opened_ns, self.now().ns, self.packet.marks);
        slot.body().set_udp(record);
        let service = self.row_of(slot, tag);
        self.move_between(service, tag.state(), State::UdpAnswered);
        tag.next(State::UdpAnswered, tag.flags(), service)
    }
}
