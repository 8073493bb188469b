//! The TCP segments of a stream so far: enough to tell that a completion was not proven.

use handshake_common::abi::Counter;
use handshake_common::flow::{End, Family, FlowKey};
use handshake_common::seq::SeqNum;
use handshake_common::wire::{Class, Packet, TCP, flag, quote};

use super::oracle::OracleWords;

/// The largest unscaled window: how far ahead an ACK, or data in a SYN, can be.
const WINDOW: u32 = 0xffff;

/// A TCP segment with its flow and sender.
struct SegmentSeen {
    key: FlowKey,
    from: End,
    packet: Packet,
}

/// All TCP segments of a stream so far, the latest last.
pub(super) struct StreamHistory {
    seen: Vec<SegmentSeen>,
    one_sided: bool,
}

impl StreamHistory {
    pub(super) fn new(one_sided: bool) -> Self {
        Self { seen: Vec::new(), one_sided }
    }

    pub(super) fn add(&mut self, packet: &Packet) {
        if packet.protocol == TCP && packet.quote == quote::NONE {
            let source = (&packet.source, packet.source_port);
            let destination = (&packet.destination, packet.destination_port);
            let family = if packet.family == Family::V6 as u8 { Family::V6 } else { Family::V4 };
            let (key, from) = FlowKey::of(source, destination, family, false);
            self.seen.push(SegmentSeen { key, from, packet: *packet });
        }
    }

    /// Fails unless the segments so far prove the completion that the latest packet caused: a SYN, its
    /// SYN+ACK (or a SYN the other way), and a segment that acknowledges it. The check is necessary, not
    /// sufficient: it ignores order and time.
    pub(super) fn proves(&self, words: &OracleWords) {
        let Some(latest) = self.seen.last() else { panic!("a completion without a segment") };
        let flow = |seen: &&SegmentSeen| seen.key == latest.key;
        let mut syns = self.seen.iter().filter(flow).filter(|seen| class(seen) == Class::Syn);
        let proven = syns.any(|syn| self.one_sided || self.is_answered(syn));
        let completed = words.at(Counter::Completed);
        assert!(proven, "completion {completed} without proof: {:?}", latest.packet);
    }

    fn is_answered(&self, syn: &SegmentSeen) -> bool {
        let expected = SeqNum(syn.packet.seq).plus(1);
        let fits =
            |seen: &SegmentSeen| SeqNum(seen.packet.ack).is_within(expected, syn.packet.payload.min(WINDOW));
        let answers =
            |seen: &&SegmentSeen| class(seen) == Class::Syn || (class(seen) == Class::SynAck && fits(seen));
        let of_responder = self.seen.iter().filter(|seen| seen.key == syn.key && seen.from != syn.from);
        of_responder.filter(answers).any(|answer| self.is_acknowledged(syn, answer))
    }

    fn is_acknowledged(&self, syn: &SegmentSeen, answer: &SegmentSeen) -> bool {
        let expected = SeqNum(answer.packet.seq).plus(1);
        self.seen.iter().filter(|seen| seen.key == syn.key && seen.from == syn.from).any(|seen| {
            seen.packet.flags & (flag::ACK | flag::RST) == flag::ACK
                && SeqNum(seen.packet.ack).is_within(expected, WINDOW)
        })
    }
}

fn class(seen: &SegmentSeen) -> Class {
    Class::ALL[usize::from(seen.packet.class)]
}
