//! Evidence: the packets of handshakes that failed, and of no other.
//!
//! ```text
//! attempts that fail ─▶ offer ─┐
//!      packets that are kept ──┴▶ take ─▶ attempts with their packets ─▶ pcapng
//! ```
//!
//! Of each service and verdict there are [`EACH`] attempts at most. One that completes after all is dropped. A
//! packet is an attempt's if it has its addresses, ports and numbers, and is of its time.

mod folder;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::SocketAddr;

use handshake_agent::model::flow::{Flow, FlowId, Standing};
use handshake_agent::source::Moment;
use handshake_common::abi::{EVIDENCE_BYTES, KeptPacket};
use handshake_common::flow::{Address, Family, FlowKey, Side};
use handshake_common::interface::Interface;
use handshake_common::record::{Now, Record};
use handshake_common::verdict::{Assessment, Cause, Verdict};
use handshake_common::wire::{Class, Link, Packet, Slice, TCP, flag, headers_end, parse, quote};

pub use self::folder::{CAPTURE, EvidenceFolder};
use crate::pcapng::{CaptureInterface, CapturePacket, write};

/// Attempts of a service and a verdict, at most.
pub const EACH: usize = 20;
/// Attempts in all.
const ATTEMPTS: usize = 2_000;
/// Packets of an attempt, and of all of them.
const PACKETS_OF_EACH: usize = 100;
const PACKETS: usize = 16_384;
/// The look that met an attempt, and one that did not: its event, if there is one, comes before the next.
const UNMET: u8 = 2;
/// A packet that ends an attempt is seen a little later at another hook point, and is kept after it was judged.
const AFTER_END_NS: u64 = 100_000_000;

/// Attempts that failed, with their packets.
#[derive(Debug, Default)]
pub struct Evidence {
    /// Bytes of data that are kept of a packet.
    payload: usize,
    attempts: HashMap<FlowId, Attempt>,
    /// The attempts between two ends.
    by_ends: HashMap<Ends, Vec<FlowId>>,
    /// How many there are of each kind.
    counts: HashMap<Kind, usize>,
    packets: usize,
    /// Attempts that failed and have no place here: those that have ended, and those that the latest look met.
    left_out: u64,
    left_open: u64,
    has_changed: bool,
    /// The names of interfaces, by their numbers: one may be gone when it is written.
    names: HashMap<u32, String>,
}

/// Family, addresses and ports.
type Ends = (u8, Address, Address, u32);
/// A service, and a cause or a verdict without one.
type Kind = (SocketAddr, &'static str);

/// What becomes of an attempt that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// It is here.
    Here,
    /// It has completed, or is none.
    NoEvidence,
    /// There are as many as there can be.
    NoRoom,
}

/// An attempt that failed.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// What is known of it.
    pub flow: Flow,
    /// How it stands.
    pub verdict: Verdict,
    /// Its packets, in order.
    pub packets: Vec<KeptSegment>,
    /// Whether it was asked for, and counts as none of its kind.
    asked: bool,
    /// Looks since one before has met it as open, that one included.
    unmet: u8,
}

/// A packet of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptSegment {
    /// When it was seen, on the records' clock.
    pub ns: u64,
    /// The interface where, and the direction.
    pub interface: Interface,
    /// Bytes of the frame.
    pub length: u32,
    /// The first of them: headers, and data where that is asked for.
    pub bytes: Vec<u8>,
    /// What it is.
    pub packet: Packet,
    /// Its number in the capture, counted from 1.
    pub number: u64,
}

impl KeptSegment {
    const fn is(&self, class: Class) -> bool {
        self.packet.class == class as u8
    }
}

impl Attempt {
    /// Why it is not completed, where its verdict has a cause.
    #[must_use]
    pub fn cause(&self) -> Option<Cause> {
        self.flow.cause(Standing::Tcp(self.verdict))
    }

    /// The verdict, and the cause.
    #[must_use]
    pub fn title(&self) -> String {
        let cause = self.cause().map(|cause| format!(" {}", cause.name()));
        format!("{}{}", self.verdict.name(), cause.unwrap_or_default())
    }

    fn kind(&self) -> Kind {
        (self.flow.end(Side::Responder), kind_of(self.verdict, self.cause()))
    }

    /// The packets of its record that are not here: they were overwritten.
    #[must_use]
    pub fn missing(&self) -> usize {
        let Some(tcp) = self.flow.tcp() else { return 0 };
        let lacks = |what: bool| usize::from(!what);
        let ending = match self.verdict {
            Verdict::Refused | Verdict::InitiatorAborted | Verdict::ResponderAborted => {
                lacks(self.packets.iter().any(|packet| packet.is(Class::Rst)))
            }
            Verdict::Unreachable => {
                lacks(self.packets.iter().any(|packet| packet.packet.quote != quote::NONE))
            }
            Verdict::Completed
            | Verdict::Superseded
            | Verdict::HalfOpenExpired
            | Verdict::Evicted
            | Verdict::Untracked
            | Verdict::Opening
            | Verdict::HalfOpen
            | Verdict::Midstream
            | Verdict::OrphanSynAck => 0,
        };
        let missing = |count: u8, class| usize::from(count).saturating_sub(self.at_one_point(class));
        missing(tcp.syn, Class::Syn) + missing(tcp.syn_ack, Class::SynAck) + ending
    }

    /// Packets of a class, at the hook point that saw most of them: a record counts each once.
    fn at_one_point(&self, class: Class) -> usize {
        let mut counts = [0_usize; 16];
        let points = self.packets.iter().filter(|packet| packet.is(class));
        points.for_each(|packet| counts[usize::from(packet.interface.point())] += 1);
        counts.into_iter().max().unwrap_or(0)
    }
}

const fn kind_of(verdict: Verdict, cause: Option<Cause>) -> &'static str {
    match cause {
        Some(cause) => cause.name(),
        None => verdict.name(),
    }
}

impl Evidence {
    /// With so many bytes of data of each packet.
    #[must_use]
    pub fn with_payload(payload: usize) -> Self {
        Self { payload, ..Self::default() }
    }

    /// Notes the record of an open attempt that a look meets; `before` is the look before. Says whether it has
    /// failed, and has no place here.
    pub fn meet(&mut self, record: &Record, before: Option<Now>, moment: &Moment) -> bool {
        let is_past = |at: Now| {
            let verdict = record.verdict(at, &moment.clocks);
            matches!(verdict, Some(Verdict::HalfOpen | Verdict::HalfOpenExpired))
        };
        let flow = Flow::of(*record);
        let has_failed = is_past(moment.now);
        let begins = has_failed && !before.is_some_and(is_past);
        if begins || self.attempts.contains_key(&flow.id()) {
            self.offer(&flow, moment);
        }
        match self.attempts.get_mut(&flow.id()) {
            Some(attempt) => attempt.unmet = 0,
            None => return has_failed,
        }
        false
    }

    /// Ends a look, of which so many open attempts have failed and have no place here. One that is not open any more,
    /// and of whose end nothing was told, may have completed: it is no evidence.
    pub fn end_look(&mut self, left_out: u64) {
        self.has_changed |= left_out != self.left_open;
        self.left_open = left_out;
        let mut unknown = Vec::new();
        for attempt in self.attempts.values_mut().filter(|attempt| attempt.flow.ended.is_none()) {
            attempt.unmet += 1;
            if attempt.unmet > UNMET {
                unknown.push(attempt.flow);
            }
        }
        unknown.iter().for_each(|flow| self.forget(flow));
        self.left_out += unknown.len() as u64;
    }

    /// Notes failures of which nothing else is known.
    pub const fn leave_out_unlisted(&mut self, count: u64) {
        self.has_changed |= count != 0;
        self.left_out += count;
    }

    /// Notes how an attempt stands. One that has failed is wanted from now on; one that has completed is not.
    pub fn offer(&mut self, flow: &Flow, moment: &Moment) {
        let Standing::Tcp(verdict) = flow.standing(moment) else { return };
        if !flow.record.state.is_attempt() {
            return;
        }
        if self.attempts.contains_key(&flow.id()) {
            self.change(flow, verdict);
        } else if verdict.row().assessment == Assessment::Bad {
            self.add(flow, verdict, false);
        }
    }

    /// Wants an attempt that was asked for, whatever there is of its kind.
    pub fn ask(&mut self, flow: &Flow, moment: &Moment) -> Asked {
        let Standing::Tcp(verdict) = flow.standing(moment) else { return Asked::NoEvidence };
        if verdict == Verdict::Completed || !flow.record.state.is_attempt() {
            return Asked::NoEvidence;
        }
        let is_here = self.attempts.contains_key(&flow.id()) || self.add(flow, verdict, true);
        if is_here { Asked::Here } else { Asked::NoRoom }
    }

    fn add(&mut self, flow: &Flow, verdict: Verdict, asked: bool) -> bool {
        let attempt = Attempt { flow: *flow, verdict, packets: Vec::new(), asked, unmet: 0 };
        let kind = attempt.kind();
        self.has_changed = true;
        if self.attempts.len() >= ATTEMPTS || !asked && self.is_full(kind) {
            self.count_left_out(flow);
            return false;
        }
        if !asked {
            *self.counts.entry(kind).or_default() += 1;
        }
        self.by_ends.entry(ends(flow.record.family, flow.record.key)).or_default().push(flow.id());
        self.attempts.insert(flow.id(), attempt);
        true
    }

    /// An attempt that is open is counted by each look, as long as it is.
    fn count_left_out(&mut self, flow: &Flow) {
        self.left_out += u64::from(flow.ended.is_some());
    }

    fn is_full(&self, kind: Kind) -> bool {
        self.counts.get(&kind).is_some_and(|count| *count >= EACH)
    }

    /// Takes over what is known now of an attempt that is here.
    fn change(&mut self, flow: &Flow, verdict: Verdict) {
        let Some(attempt) = self.attempts.get(&flow.id()) else { return };
        // What an event has told of its end stays, unless it is taken back.
        let is_older = attempt.flow.ended.is_some() && flow.ended.is_none();
        if verdict == Verdict::Completed {
            self.forget(flow);
            return;
        }
        if is_older || (attempt.flow, attempt.verdict) == (*flow, verdict) {
            return;
        }
        let (asked, was) = (attempt.asked, attempt.kind());
        let is = (was.0, kind_of(verdict, flow.cause(Standing::Tcp(verdict))));
        self.has_changed = true;
        if !asked && was != is {
            if self.is_full(is) {
                self.forget(flow);
                self.count_left_out(flow);
                return;
            }
            self.uncount(was);
            *self.counts.entry(is).or_default() += 1;
        }
        if let Some(attempt) = self.attempts.get_mut(&flow.id()) {
            (attempt.flow, attempt.verdict) = (*flow, verdict);
        }
    }

    fn uncount(&mut self, kind: Kind) {
        if let Some(count) = self.counts.get_mut(&kind) {
            *count = count.saturating_sub(1);
        }
    }

    fn forget(&mut self, flow: &Flow) {
        let id = flow.id();
        let Some(gone) = self.attempts.remove(&id) else { return };
        if let Entry::Occupied(mut ids) = self.by_ends.entry(ends(flow.record.family, flow.record.key)) {
            ids.get_mut().retain(|known| *known != id);
            if ids.get().is_empty() {
                ids.remove();
            }
        }
        if !gone.asked {
            self.uncount(gone.kind());
        }
        self.packets -= gone.packets.len();
        self.has_changed = true;
    }

    /// Takes a packet, if it belongs to an attempt that is wanted and is not here yet.
    pub fn take(&mut self, kept: &KeptPacket) {
        let interface = Interface(kept.interface);
        let link = if interface.is_raw() { Link::Ip } else { Link::Ethernet };
        let bytes = &kept.bytes[..(kept.length as usize).min(EVIDENCE_BYTES)];
        let frame = Slice { bytes, length: kept.length };
        let packet = parse(&frame, link);
        if packet.protocol != TCP {
            return;
        }
        let family = if packet.family == Family::V6 as u8 { Family::V6 } else { Family::V4 };
        let source = (&packet.source, packet.source_port);
        let (key, _) = FlowKey::of(source, (&packet.destination, packet.destination_port), family, false);
        let Some(ids) = self.by_ends.get(&ends(family, key)) else { return };
        let begun = ids.iter().filter_map(|id| self.attempts.get(id)).filter(|attempt| {
            let is_initiator =
                attempt.flow.record.end(Side::Initiator) == (packet.source, packet.source_port);
            let side = if is_initiator { Side::Initiator } else { Side::Responder };
            belongs(&attempt.flow, &packet, side, kept.ns)
        });
        let latest = begun.max_by_key(|attempt| attempt.flow.opened_ns()).map(|attempt| attempt.flow.id());
        let Some(attempt) = latest.and_then(|id| self.attempts.get_mut(&id)) else { return };
        let place =
            attempt.packets.binary_search_by_key(&(kept.ns, kept.interface), |at| (at.ns, at.interface.0));
        let Err(place) = place else { return };
        if attempt.packets.len() >= PACKETS_OF_EACH || self.packets >= PACKETS {
            return;
        }
        let headers =
            headers_end(&frame, link).unwrap_or(kept.length.saturating_sub(packet.payload)) as usize;
        let bytes = bytes[..headers.saturating_add(self.payload).min(bytes.len())].to_vec();
        let segment = KeptSegment { ns: kept.ns, interface, length: kept.length, bytes, packet, number: 0 };
        attempt.packets.insert(place, segment);
        self.packets += 1;
        self.has_changed = true;
    }

    /// How many packets there are of an attempt.
    #[must_use]
    pub fn packets_of(&self, flow: &Flow) -> usize {
        self.attempts.get(&flow.id()).map_or(0, |attempt| attempt.packets.len())
    }

    /// Whether there is no attempt.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.attempts.is_empty()
    }

    /// Attempts that failed and that there was no room for.
    #[must_use]
    pub const fn left_out(&self) -> u64 {
        self.left_out + self.left_open
    }

    /// Whether anything has changed since it was [handed over](Self::was_handed_over).
    #[must_use]
    pub const fn has_changed(&self) -> bool {
        self.has_changed
    }

    /// Notes that all of it is in the hands of another.
    pub const fn was_handed_over(&mut self) {
        self.has_changed = false;
    }

    /// The attempts, by service, by verdict, and in the order in which they began.
    #[must_use]
    pub fn attempts(&self) -> Vec<&Attempt> {
        let mut all: Vec<&Attempt> = self.attempts.values().collect();
        all.sort_by_cached_key(|attempt| {
            (attempt.flow.end(Side::Responder), attempt.title(), attempt.flow.opened_ns())
        });
        all
    }

    /// The packets of all attempts as a capture, in the order of their times, and numbers them. `wall_of` is a time
    /// on the wall clock, `name_of` the name of the interface with a number.
    pub fn pcapng(
        &mut self,
        program: &str,
        wall_of: impl Fn(u64) -> u64,
        name_of: impl Fn(u32) -> Option<String>,
    ) -> Vec<u8> {
        let mut order: Vec<(u64, u32, FlowId, usize)> = Vec::with_capacity(self.packets);
        for (id, attempt) in &self.attempts {
            let packets = attempt.packets.iter().enumerate();
            order.extend(packets.map(|(place, packet)| (packet.ns, packet.interface.0, *id, place)));
        }
        order.sort_unstable_by_key(|(ns, interface, ..)| (*ns, *interface));
        for (number, (.., id, place)) in (1..).zip(&order) {
            if let Some(attempt) = self.attempts.get_mut(id) {
                attempt.packets[*place].number = number;
            }
        }
        let mut keys: Vec<(u32, bool)> = Vec::new();
        let mut packets = Vec::with_capacity(order.len());
        for (_, _, id, place) in order {
            let Some(attempt) = self.attempts.get(&id) else { continue };
            let packet = &attempt.packets[place];
            let key = (packet.interface.number(), packet.interface.is_raw());
            let interface = keys.iter().position(|known| *known == key).unwrap_or_else(|| {
                keys.push(key);
                keys.len() - 1
            });
            packets.push(CapturePacket {
                interface,
                wall_ns: wall_of(packet.ns),
                bytes: &packet.bytes,
                length: packet.length,
                is_outgoing: packet.interface.point() & 1 != 0,
                comment: comment(attempt, place),
            });
        }
        for (number, _) in &keys {
            self.names.extend(name_of(*number).map(|name| (*number, name)));
        }
        let names = &self.names;
        let interfaces = keys.into_iter().map(|(number, is_raw)| {
            let name = names.get(&number).cloned();
            CaptureInterface { name, is_raw }
        });
        let interfaces: Vec<CaptureInterface> = interfaces.collect();
        let about = "packets of handshakes that failed, and of no other: handshake --evidence";
        write(program, about, &interfaces, &packets)
    }
}

const fn ends(family: Family, key: FlowKey) -> Ends {
    (family as u8, key.low, key.high, key.ports)
}

/// Whether a packet between the ends of an attempt, from `side` or quoting what that has sent, is the attempt's: it
/// is of its time, and has its numbers.
fn belongs(flow: &Flow, packet: &Packet, side: Side, ns: u64) -> bool {
    let more = if flow.record.state.is_provisional() { AFTER_END_NS } else { 0 };
    let is_over = flow.ended.and_then(|end| end.at_ns).is_some_and(|at_ns| ns > at_ns + more);
    let Some(tcp) = flow.tcp().filter(|tcp| !is_over && ns >= tcp.opened_ns) else { return false };
    let (after_j, after_k) = (tcp.isn_initiator.wrapping_add(1), tcp.isn_responder.wrapping_add(1));
    /// The most that a responder takes before it has answered, and more than an initiator sends by then.
    const WINDOW: u32 = u16::MAX as u32;
    let is_within = |number: u32, first: u32| number.wrapping_sub(first) <= WINDOW;
    if packet.quote != quote::NONE {
        return [tcp.isn_initiator, tcp.isn_responder].contains(&packet.seq);
    }
    match (packet.class == Class::Syn as u8, side) {
        (true, Side::Initiator) => packet.seq == tcp.isn_initiator,
        (true, Side::Responder) => packet.seq == tcp.isn_responder,
        (false, Side::Responder) if packet.flags & flag::ACK == 0 => is_within(packet.seq, after_k),
        // What acknowledges or continues other numbers is a later connection's, or no part of it.
        (false, Side::Responder) => is_within(packet.ack, after_j),
        (false, Side::Initiator) => is_within(packet.seq, tcp.isn_initiator),
    }
}

/// What is said of a packet: `handshake: half_open no_ack, SYN 4 of 5, J=1 K=2`. One that is seen at two hook points
/// has its number at both.
fn comment(attempt: &Attempt, place: usize) -> String {
    let packet = &attempt.packets[place];
    let number = |class: Class, count: Option<u8>| {
        let same =
            |other: &&KeptSegment| other.is(class) && other.interface.point() == packet.interface.point();
        let number = attempt.packets[..=place].iter().filter(same).count();
        let here = attempt.packets.iter().filter(same).count();
        let count = count.map_or(0, usize::from).max(here);
        // Those before it may have been overwritten.
        format!(" {} of {count}", number + count - here)
    };
    let tcp = attempt.flow.tcp();
    let what = match Class::ALL.into_iter().find(|class| packet.is(*class)) {
        _ if packet.packet.quote != quote::NONE => "ICMP error".to_owned(),
        Some(Class::Syn) => format!("SYN{}", number(Class::Syn, tcp.map(|tcp| tcp.syn))),
        Some(Class::SynAck) => format!("SYN+ACK{}", number(Class::SynAck, tcp.map(|tcp| tcp.syn_ack))),
        Some(class) => class.name().to_uppercase(),
        None => "?".to_owned(),
    };
    let named = |name: &str, isn: Option<u32>| isn.map(|isn| format!(" {name}={isn}")).unwrap_or_default();
    let (j, k) = (named("J", attempt.flow.isn_initiator()), named("K", attempt.flow.isn_responder()));
    let comma = if j.is_empty() && k.is_empty() { "" } else { "," };
    format!("handshake: {}, {what}{comma}{j}{k}", attempt.title())
}

#[cfg(test)]
mod tests;
