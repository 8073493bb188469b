//! The straight way is the general way, wherever it is taken.

use std::collections::BTreeMap;

use super::super::straight::straight;
use super::super::{Change, general};
use super::*;
use crate::random;

/// Draws from a stream of random words.
struct Draws(u64);

impl Draws {
    fn word(&mut self) -> u64 {
        random::split_mix(&mut self.0)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.word() % limit as u64).expect("a draw below a limit")
    }

    /// The first of the values mostly, so that records and segments are in order but for one thing or two.
    fn of<T: Copy>(&mut self, values: &[T]) -> T {
        if self.below(8) != 0 { values[0] } else { values[self.below(values.len())] }
    }

    fn flags(&mut self) -> u32 {
        let usual = self.of(&[0, tag::INITIATOR_HIGH]);
        let timed = self.of(&[tag::SYN_ACK_TIMED, 0]);
        usual | timed | if self.below(4) == 0 { 1 << self.below(24) } else { 0 }
    }

    fn record(&mut self, answered: bool) -> TcpRecord {
        TcpRecord {
            opened_ns: self.of(&[SECOND, 0, SECOND + 10_000, u64::MAX / 4]),
            isn_initiator: self.of(&[J, u32::MAX, 0]),
            isn_responder: self.of(&[K, 0, u32::MAX]),
            other_ack: self.of(&[0, J + 7, K + 1]),
            syn_data: self.of(&[0, 1, 9, u16::MAX]),
            responder_sent: self.of(&[0, 1, u16::MAX]),
            syn_ack_after: if answered { self.of(&[5_000, 1, u32::MAX, 0]) } else { self.of(&[0, 1]) },
            latest_after: self.of(&[0, 5_000, 700_000, u32::MAX]),
            ack: self.of(&[0, 3, u32::MAX]),
            syn: self.of(&[1, 0, 2, u8::MAX]),
            syn_ack: self.of(&[u8::from(answered), 2, u8::MAX]),
            syn_ack_retransmits: self.of(&[0, 1]),
            points: if answered { self.of(&[0x10, 0x11, 0xff, 0xf0]) } else { self.of(&[0xf0, 0xff, 0x10]) },
        }
    }

    fn segment(&mut self, kind: SegmentKind, record: &TcpRecord) -> Segment {
        let (j, k) = (plus(record.isn_initiator, 1), plus(record.isn_responder, 1));
        let (flags, seq, ack) = match kind {
            SegmentKind::SynAck => (SYN | ACK, self.of(&[K, j, k]), self.of(&[j, k, plus(j, 1), plus(j, 9)])),
            _ => (ACK, self.of(&[j, k, plus(j, 1), plus(j, 70_000)]), self.of(&[k, j, plus(k, 1), 0])),
        };
        Segment {
            kind,
            flags: self.of(&[flags, flags | FIN, flags & !ACK, flags | 0xc8, RST]),
            seq: SeqNum(seq),
            ack: SeqNum(ack),
            payload: self.of(&[0, 1, 1_460, u32::MAX]),
            point: self.of(&[u8::from(matches!(kind, SegmentKind::SynAck)), 2, NO_POINT]),
            acks: self.of(&[1, 0, 44]),
            untimed: self.of(&[false, true]),
        }
    }
}

#[test]
fn the_straight_way_is_the_general_way() {
    let mut draws = Draws(7);
    let mut taken = BTreeMap::new();
    for _ in 0..2_000_000 {
        let answered = draws.below(2) == 0;
        let state = if answered { SynReceived } else { SynSent };
        let state =
            if draws.below(16) == 0 { TcpState::ALL[draws.below(TcpState::ALL.len())] } else { state };
        let flags = draws.flags() & if answered { u32::MAX } else { !tag::SYN_ACK_TIMED };
        let record = draws.record(answered);
        let kind = if answered { SegmentKind::Ack } else { SegmentKind::SynAck };
        let kind =
            draws.of(&[kind, SegmentKind::Syn, SegmentKind::SynAck, SegmentKind::Ack, SegmentKind::Rst]);
        let side = draws.of(&[if answered { Initiator } else { Responder }, Initiator, Responder]);
        let segment = draws.segment(kind, &record);
        let now_ns = record.opened_ns.wrapping_add(draws.of(&[STEP, 0, 63, 4 * SECOND, 300 * SECOND, !0]));
        let context = Conditions { now_ns, one_sided: draws.below(2) == 0, ..CONTEXT };
        let (mut short, mut long) = (record, record);
        let Some(change) = straight(state, flags, &mut short, side, &segment, &context) else {
            assert_eq!(short, record, "a way that is not taken changes nothing");
            continue;
        };
        let expected: Change = general(state, flags, &mut long, side, &segment, &context);
        assert_eq!(change, expected, "{state:?} {flags:#x} {record:?} {segment:?} {context:?}");
        assert_eq!(short, long, "{state:?} {flags:#x} {record:?} {segment:?} {context:?}");
        *taken.entry(change.state as u8).or_insert(0) += 1;
    }
    assert_eq!(taken.len(), 2, "both segments took it");
    assert!(taken.values().all(|times| *times > 50_000), "often: {taken:?}");
}

/// A handshake without incident takes it, whatever the numbers and ends.
#[test]
fn a_handshake_goes_straight() {
    with_isns(|j, k| {
        for flags in [0, tag::INITIATOR_HIGH] {
            let (mut record, more) = open(&syn(j), SECOND);
            let answer = Segment { point: 1, ..syn_ack(k, plus(j, 1)) };
            let context = Conditions { now_ns: SECOND + STEP, ..CONTEXT };
            let change = straight(SynSent, flags | more, &mut record, Responder, &answer, &context);
            let flags = change.expect("the SYN+ACK goes straight").flags;
            let context = Conditions { now_ns: SECOND + 2 * STEP, ..CONTEXT };
            let third = ack(plus(j, 1), plus(k, 1));
            let change = straight(SynReceived, flags, &mut record, Initiator, &third, &context);
            assert_eq!(change.expect("the ACK goes straight").state, Established);
        }
    });
}
