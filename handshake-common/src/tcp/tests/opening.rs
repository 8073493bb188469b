//! How attempts complete: the usual way, Fast Open, two Ks, simultaneous and split, out of order, one-sided.

use super::*;
use crate::tcp::join;

#[test]
fn the_three_segments_complete() {
    with_isns(|j, k| {
        let mut talk = Talk::new(syn(j));
        assert_eq!(talk.responder(syn_ack(k, plus(j, 1))), SynReceived);
        assert_eq!(talk.initiator(ack(plus(j, 1), plus(k, 1))), Established);
        assert_eq!((talk.record.isn_initiator, talk.record.isn_responder), (j, k));
        assert!(talk.signs.is_empty() && talk.flags == tag::SYN_ACK_TIMED | tag::ACK_TIMED | tag::AWAITS);
        assert_eq!((talk.record.syn, talk.record.syn_ack, talk.record.ack), (1, 1, 1));
    });
}

/// On a router each segment passes two hook points, until one is lost between them.
#[test]
fn an_open_attempt_knows_whether_its_latest_segment_has_passed() {
    with_isns(|j, k| {
        let (near, far) = (0, 3);
        let mut talk = Talk::new(syn(j));
        assert!(!talk.has(tag::PASSED_ON), "it has come in");
        talk.point = far;
        talk.initiator(syn(j));
        assert!(talk.has(tag::PASSED_ON), "it has left");
        talk.point = far - 1;
        talk.responder(syn_ack(k, plus(j, 1)));
        assert!(!talk.has(tag::PASSED_ON), "the SYN+ACK has come in");
        talk.point = far;
        talk.initiator(syn(j));
        assert!(!talk.has(tag::PASSED_ON), "the SYN says nothing of it");
        talk.point = near + 1;
        talk.responder(syn_ack(k, plus(j, 1)));
        assert!(talk.has(tag::PASSED_ON), "it has left");
        talk.point = near;
        assert_eq!(talk.initiator(ack(plus(j, 1), plus(k, 1))), Established);
        assert!(talk.has(tag::ACK_TIMED), "the same bit has its other meaning");
    });
}

#[test]
fn the_third_segment_may_carry_data_or_fin() {
    with_isns(|j, k| {
        let mut talk = Talk::answered(j, k);
        assert_eq!(talk.initiator(with_data(ack(plus(j, 1), plus(k, 1)), 100)), Established);
        let mut talk = Talk::answered(j, k);
        assert_eq!(talk.initiator(with_data(fin(plus(j, 1), plus(k, 1)), 100)), Closed);
        assert_eq!(
            talk.timed,
            [Leg::SynToSynAck, Leg::SynAckToAck, Leg::Connect],
            "it completed before it closed"
        );
        let mut later = Talk::answered(j, k);
        assert_eq!(
            later.initiator(with_data(ack(plus(j, 501), plus(k, 1)), 9)),
            Established,
            "its ACK was lost"
        );
    });
}

#[test]
fn only_the_initiators_ack_at_or_after_j_completes() {
    with_isns(|j, k| {
        let mut talk = Talk::answered(j, k);
        assert_eq!(talk.responder(ack(plus(j, 1), plus(k, 1))), SynReceived);
        assert_eq!(talk.initiator(ack(j, plus(k, 1))), SynReceived, "a keep-alive of an older connection");
        assert_eq!(
            talk.initiator(segment(SegmentKind::Ack, FIN, plus(j, 1), plus(k, 1))),
            SynReceived,
            "no ACK flag"
        );
        assert_eq!(talk.signs, [Sign::BadAck]);
        assert_eq!(talk.initiator(ack(plus(j, 1), plus(k, 1))), Established);
    });
}

#[test]
fn fast_open_acknowledges_up_to_the_data() {
    with_isns(|j, k| {
        for acked in [1, 2, 101] {
            let mut talk = Talk::new(with_data(syn(j), 100));
            assert!(talk.has(tag::FAST_OPEN));
            assert_eq!(talk.responder(syn_ack(k, plus(j, acked))), SynReceived, "acknowledges {acked}");
            assert_eq!(talk.initiator(ack(plus(j, acked), plus(k, 1))), Established);
        }
        for acked in [0, 102] {
            let mut talk = Talk::new(with_data(syn(j), 100));
            assert_eq!(talk.responder(syn_ack(k, plus(j, acked))), SynSent);
            assert_eq!(talk.signs, [Sign::BadSynAck]);
        }
    });
}

/// RFC 7413 §4.2: a server without the cookie acknowledges the SYN alone. The third segment continues where
/// the SYN+ACK says, and so does a RST (RFC 9293 §3.10.7.4).
#[test]
fn the_syn_ack_says_where_the_initiator_continues() {
    with_isns(|j, k| {
        for acked in [0, 40, 100] {
            let answered = || {
                let mut talk = Talk::new(with_data(syn(j), 100));
                talk.responder(syn_ack(k, plus(j, 1 + acked)));
                assert_eq!((u32::from(talk.record.syn_data), talk.has(tag::FAST_OPEN)), (acked, true));
                talk
            };
            let next = plus(j, 1 + acked);
            for (back, payload, taken) in
                [(0, 0, true), (60, 60, false), (60, 61, true), (1, 0, false), (101, 101, false)]
            {
                let third = with_data(ack(plus(next, 0_u32.wrapping_sub(back)), plus(k, 1)), payload);
                let state = answered().initiator(third);
                assert_eq!(state == Established, taken, "{acked} acknowledged, {payload} bytes from -{back}");
            }
            for (ahead, taken) in [(65_535, true), (65_536, false)] {
                let state = answered().initiator(ack(plus(next, ahead), plus(k, 1)));
                assert_eq!(state == Established, taken, "{acked} acknowledged, {ahead} ahead");
            }
            for at in [0, 20, 40, 100] {
                let state = answered().initiator(rst(plus(j, 1 + at), 0));
                assert_eq!(state == TcpState::InitiatorAborted, at == acked, "RST at {at} of {acked}");
            }
            // The same SYN comes again, then a copy of that: what was acknowledged stays.
            let mut talk = answered();
            talk.initiator(with_data(syn(j), 100));
            talk.context.now_ns -= STEP - COPY_WITHIN_NS / 2;
            talk.initiator(with_data(syn(j), 100));
            assert_eq!(talk.signs, [Sign::SynRetransmit]);
            assert_eq!(u32::from(talk.record.syn_data), acked);
            assert_eq!(talk.initiator(ack(next, plus(k, 1))), Established);
        }
    });
}

/// Two servers, of which one takes the data: the third segment may follow the SYN+ACK of either.
#[test]
fn of_two_syn_acks_either_may_acknowledge_the_data() {
    with_isns(|j, k| {
        let answers = [(k, 1), (plus(k, 90_000), 101)];
        for order in [[0, 1], [1, 0]] {
            for (number, acked) in answers {
                let mut talk = Talk::new(with_data(syn(j), 100));
                for at in order {
                    talk.responder(syn_ack(answers[at].0, plus(j, answers[at].1)));
                }
                assert_eq!(talk.initiator(ack(plus(j, acked), plus(number, 1))), Established, "{order:?}");
                assert!(talk.signs.is_empty());
            }
        }
    });
}

/// A SYN with data, and a stranger's beside it: whichever came first, the SYN+ACK tells which is real.
#[test]
fn a_fast_open_syn_completes_beside_another() {
    with_isns(|j, k| {
        let other = plus(j, 0x1234_5678);
        for first in [true, false] {
            for acked in [1, 101] {
                let mut talk = Talk::new(if first { with_data(syn(j), 100) } else { syn(other) });
                talk.initiator(if first { syn(other) } else { with_data(syn(j), 100) });
                assert_eq!(talk.responder(syn_ack(k, plus(j, acked))), SynReceived);
                assert_eq!(talk.initiator(ack(plus(j, acked), plus(k, 1))), Established);
                assert_eq!((talk.record.isn_initiator, talk.new_attempts), (j, 1));
                let is_told = !first || acked != 1;
                assert_eq!(talk.has(tag::FAST_OPEN), is_told, "data of the first of two is not kept");
            }
        }
    });
}

#[test]
fn a_fast_open_syn_may_be_repeated_without_its_data() {
    with_isns(|j, k| {
        let mut talk = Talk::new(with_data(syn(j), 100));
        assert_eq!(talk.initiator(syn(j)), SynSent);
        assert_eq!(talk.signs, [Sign::SynRetransmit]);
        assert_eq!(talk.record.syn_data, 100, "the first may still be answered");
        talk.responder(syn_ack(k, plus(j, 1)));
        assert_eq!(talk.initiator(ack(plus(j, 1), plus(k, 1))), Established);
    });
}

#[test]
fn responder_data_before_the_final_ack_may_be_acknowledged_with_it() {
    with_isns(|j, k| {
        let mut talk = Talk::new(with_data(syn(j), 100));
        talk.responder(syn_ack(k, plus(j, 101)));
        talk.responder(with_data(ack(plus(k, 1), plus(j, 101)), 1_000));
        talk.responder(with_data(fin(plus(k, 1_001), plus(j, 101)), 10));
        assert_eq!(talk.initiator(ack(plus(j, 101), plus(k, 1_013))), SynReceived, "more than was sent");
        assert_eq!(talk.signs, [Sign::BadAck]);
        assert_eq!(talk.initiator(ack(plus(j, 101), plus(k, 1_012))), Established, "data and FIN");
    });
}

#[test]
fn without_responder_data_the_final_ack_is_exact() {
    with_isns(|j, k| {
        let mut talk = Talk::answered(j, k);
        assert_eq!(talk.initiator(ack(plus(j, 1), plus(k, 2))), SynReceived);
        talk.responder(with_data(ack(plus(k, 70_000), plus(j, 1)), 10));
        assert_eq!(
            talk.initiator(ack(plus(j, 1), plus(k, 3))),
            SynReceived,
            "no such data could be sent yet"
        );
        assert_eq!(talk.signs, [Sign::BadAck], "a sign of the attempt");
    });
}

#[test]
fn either_of_the_latest_two_ks_may_be_acknowledged() {
    with_isns(|j, k| {
        let (a, b, c) = (plus(k, 100_000), plus(k, 200_000), plus(k, 300_000));
        let talk = |acked: u32| {
            let mut talk = Talk::answered(j, a);
            talk.responder(syn_ack(b, plus(j, 1)));
            talk.responder(syn_ack(c, plus(j, 1)));
            talk.responder(syn_ack(b, plus(j, 1)));
            assert_eq!(talk.signs, [Sign::SynAckRetransmit], "only the last was seen before");
            talk.initiator(ack(plus(j, 1), plus(acked, 1)));
            talk
        };
        for acked in [b, c] {
            let mut talk = talk(acked);
            assert_eq!((talk.state, talk.record.isn_responder), (Established, acked));
            talk.responder(syn_ack(acked, plus(j, 1)));
            assert_eq!(talk.signs, [Sign::SynAckRetransmit, Sign::AckIgnored]);
        }
        assert_eq!(talk(a).state, SynReceived, "the oldest of three is forgotten");
    });
}

#[test]
fn a_simultaneous_open_completes_by_two_syn_acks() {
    with_isns(|j, k| {
        for initiator_first in [true, false] {
            let mut talk = Talk::new(syn(j));
            assert_eq!(talk.responder(syn(k)), SynSent);
            let halves = [(Initiator, syn_ack(j, plus(k, 1))), (Responder, syn_ack(k, plus(j, 1)))];
            let (first, second) = if initiator_first { (0, 1) } else { (1, 0) };
            assert_eq!(talk.send(halves[first].0, halves[first].1), SynReceived, "one half is not enough");
            assert_eq!(talk.send(halves[first].0, halves[first].1), SynReceived);
            assert_eq!(talk.signs, [Sign::SynAckRetransmit]);
            assert_eq!(talk.send(halves[second].0, halves[second].1), Established);
            assert!(talk.has(tag::SIMULTANEOUS) && talk.timed == [Leg::Connect]);
            assert_eq!(talk.record.syn_retransmits(talk.flags), 0);
        }
    });
}

#[test]
fn a_simultaneous_open_completes_by_two_acks() {
    with_isns(|j, k| {
        let mut talk = Talk::new(syn(j));
        talk.responder(syn(k));
        assert_eq!(talk.initiator(ack(plus(j, 1), plus(k, 2))), SynSent);
        assert_eq!(talk.signs, [Sign::BadAck]);
        assert_eq!(talk.initiator(ack(plus(j, 1), plus(k, 1))), SynReceived);
        assert_eq!(talk.responder(ack(plus(k, 1), j)), SynReceived, "acknowledges nothing of the SYN");
        assert_eq!(talk.responder(ack(k, plus(j, 1))), SynReceived, "not from after its SYN");
        assert_eq!(talk.responder(ack(plus(k, 1), plus(j, 1))), Established);
    });
}

#[test]
fn a_strange_syn_of_the_responder_does_not_stop_the_real_handshake() {
    with_isns(|j, k| {
        let mut talk = Talk::new(syn(j));
        talk.responder(syn(plus(k, 99)));
        assert_eq!(talk.responder(syn_ack(k, plus(j, 1))), SynReceived);
        assert!(!talk.has(tag::SIMULTANEOUS));
        assert_eq!(talk.initiator(ack(plus(j, 1), plus(k, 1))), Established);
    });
}

/// A stranger's SYN from the responder's address comes before the initiator's, which hears nothing of it.
#[test]
fn a_syn_answered_by_another_number_than_the_strangers_is_an_attempt() {
    with_isns(|j, k| {
        let mut talk = Talk::new(syn(plus(k, 0x1234_5678)));
        assert_eq!(talk.responder(with_data(syn(j), 9)), SynSent);
        assert_eq!(talk.initiator(syn_ack(k, plus(j, 70_000))), SynSent);
        assert_eq!(talk.initiator(syn_ack(k, plus(j, 1))), SynReceived);
        assert_eq!((talk.new_attempts, talk.has(tag::INITIATOR_HIGH)), (1, true), "the ends are exchanged");
        assert_eq!(talk.initiator(ack(plus(j, 1), plus(k, 1))), Established);
        assert_eq!((talk.record.isn_initiator, talk.record.isn_responder), (j, k));
    });
}

/// A SYN with the responder's addresses takes the initiator to SYN-RECEIVED: it drops the real SYN+ACK, whose
/// number is another, and the responder resets it (RFC 9293 §3.10.7.4).
#[test]
fn an_initiator_that_answered_a_stranger_completes_with_no_other_number() {
    with_isns(|j, k| {
        let numbers = [0x1234_5678, 0x8765_4321].map(|distance| plus(k, distance));
        for (stranger, by_ack) in numbers.into_iter().flat_map(|number| [(number, false), (number, true)]) {
            let after_stranger = segment(SegmentKind::Rst, RST, plus(stranger, 1), 0);
            let mut talk = Talk::new(syn(j));
            talk.responder(syn(stranger));
            talk.initiator(syn_ack(j, plus(stranger, 1)));
            let answer = ack(plus(k, 1), plus(j, 1));
            let answer = if by_ack { answer } else { syn_ack(k, plus(j, 1)) };
            assert_eq!(talk.responder(answer), SynReceived);
            assert_eq!(talk.signs == [Sign::BadSynAck], !by_ack);
            assert_eq!(talk.initiator(ack(plus(j, 1), plus(stranger, 1))), SynReceived);
            assert_eq!(talk.responder(after_stranger), TcpState::ResponderAborted);
            assert_eq!(talk.responder(syn_ack(k, plus(j, 1))), TcpState::ResponderAborted);
        }
    });
}

#[test]
fn a_simultaneous_open_is_taken_up_after_a_forged_reset() {
    with_isns(|j, k| {
        let mut talk = Talk::new(syn(j));
        talk.responder(syn(k));
        assert_eq!(talk.responder(rst(0, plus(j, 1))), TcpState::Refused);
        assert_eq!(talk.responder(syn_ack(k, plus(j, 1))), SynReceived);
        assert_eq!(talk.initiator(rst(plus(j, 1), 0)), TcpState::InitiatorAborted);
        assert_eq!(talk.initiator(syn_ack(j, plus(k, 1))), Established);
        assert_eq!(talk.signs, [Sign::Revised; 2]);
    });
}

/// T. Beardsley, J. Qian, "The TCP Split Handshake", 2010: the server answers SYN with SYN.
#[test]
fn a_split_handshake_completes() {
    with_isns(|j, k| {
        let mut talk = Talk::new(syn(j));
        talk.responder(ack(plus(k, 77), plus(j, 1)));
        talk.responder(syn(k));
        talk.initiator(syn_ack(j, plus(k, 1)));
        assert_eq!(talk.responder(ack(plus(k, 1), plus(j, 1))), Established);
        assert!(talk.signs.is_empty());
    });
}

#[test]
fn a_syn_after_its_own_syn_ack_is_counted_and_changes_nothing() {
    with_isns(|j, k| {
        for end in [SynReceived, Established, TcpState::InitiatorAborted, TcpState::ResponderAborted] {
            let mut talk = Talk::answered(j, k);
            match end {
                Established => talk.initiator(ack(plus(j, 1), plus(k, 1))),
                TcpState::InitiatorAborted => talk.initiator(rst(plus(j, 1), 0)),
                TcpState::ResponderAborted => talk.responder(rst(plus(k, 1), 0)),
                open => open,
            };
            assert_eq!((talk.responder(syn(k)), talk.new_attempts), (end, 0));
            assert_eq!((talk.record.syn, talk.record.syn_retransmits(talk.flags)), (2, 0));
            assert!(talk.signs.is_empty() && !talk.has(tag::SIMULTANEOUS));
            talk.responder(syn(plus(k, 1)));
            let is_over = matches!(end, TcpState::InitiatorAborted | TcpState::ResponderAborted);
            assert_eq!(
                talk.new_attempts,
                u32::from(is_over),
                "another number is a stranger's while it lives"
            );
        }
    });
}

#[test]
fn a_syn_ack_before_its_syn_is_adopted_without_times() {
    with_isns(|j, k| {
        for (data, acked) in [(0, 1), (100, 1), (100, 101)] {
            let orphan = join(&syn_ack(k, plus(j, acked)), SECOND);
            let mut talk = Talk::of(TcpState::OrphanSynAck, 0, orphan);
            assert_eq!(talk.initiator(with_data(syn(j), data)), SynReceived);
            assert_eq!(talk.record.isn_initiator, j);
            assert_eq!(talk.initiator(ack(plus(j, acked), plus(k, 1))), Established);
            assert_eq!(talk.excluded, HANDSHAKE);
            assert!(talk.timed.is_empty() && talk.has(tag::FAST_OPEN) == (data != 0));
        }
        let mut partly = Talk::of(TcpState::OrphanSynAck, 0, join(&syn_ack(k, plus(j, 41)), SECOND));
        partly.initiator(with_data(syn(j), 100));
        assert_eq!(partly.initiator(with_data(ack(plus(j, 21), plus(k, 1)), 20)), SynReceived, "old data");
        assert_eq!(partly.initiator(ack(plus(j, 41), plus(k, 1))), Established);
        let mut talk = Talk::of(TcpState::OrphanSynAck, 0, join(&syn_ack(k, plus(j, 1)), SECOND));
        talk.initiator(syn(plus(j, 1)));
        assert_eq!(talk.new_attempts, 1, "another SYN than the one it answers");
    });
}

#[test]
fn all_three_segments_in_reverse_complete() {
    with_isns(|j, k| {
        let mut talk = Talk::of(TcpState::OrphanSynAck, 0, join(&syn_ack(k, plus(j, 1)), SECOND));
        assert_eq!(talk.initiator(ack(plus(j, 1), plus(k, 1))), TcpState::OrphanSynAck);
        assert_eq!(talk.initiator(syn(j)), Established);
        let mut stale = Talk::of(TcpState::OrphanSynAck, 0, join(&syn_ack(k, plus(j, 1)), SECOND));
        stale.initiator(ack(j, plus(k, 1)));
        assert_eq!(stale.initiator(syn(j)), SynReceived, "an ACK from before J proves nothing");
    });
}

#[test]
fn an_ack_before_its_syn_ack_completes_without_times() {
    with_isns(|j, k| {
        let mut talk = Talk::new(syn(j));
        assert_eq!(talk.initiator(ack(plus(j, 1), plus(k, 1))), TcpState::AnswerUnseen);
        talk.initiator(with_data(ack(plus(j, 1), plus(k, 500)), 10));
        assert_eq!(talk.responder(syn_ack(k, plus(j, 1))), Established, "by the first of its ACKs");
        assert_eq!(talk.excluded, HANDSHAKE);
        assert!(talk.timed.is_empty() && talk.signs.is_empty());
    });
}

#[test]
fn an_early_ack_of_something_else_is_bad_and_blurs_nothing() {
    with_isns(|j, k| {
        let mut talk = Talk::new(syn(j));
        talk.initiator(ack(plus(j, 1), plus(k, 7)));
        assert_eq!(talk.responder(syn_ack(k, plus(j, 1))), SynReceived);
        assert_eq!(talk.signs, [Sign::BadAck]);
        assert_eq!(talk.initiator(ack(plus(j, 1), plus(k, 1))), Established);
        assert_eq!(talk.timed, HANDSHAKE);
    });
}

#[test]
fn one_sided_infers_k_from_the_ack_and_only_when_asked() {
    with_isns(|j, k| {
        let mut talk = Talk::new(syn(j));
        talk.context.one_sided = true;
        assert_eq!(
            talk.initiator(ack(plus(j, 2), plus(k, 1))),
            TcpState::AnswerUnseen,
            "not what follows the SYN"
        );
        assert_eq!(talk.initiator(ack(plus(j, 1), plus(k, 1))), Established);
        assert_eq!(talk.record.isn_responder, k);
        assert!(talk.has(tag::ONE_SIDED) && talk.timed == [Leg::Connect]);
        assert_eq!(talk.excluded, [Leg::SynToSynAck, Leg::SynAckToAck, Leg::AckToFirstByte]);

        let mut both = Talk::new(syn(j));
        assert_eq!(both.initiator(ack(plus(j, 1), plus(k, 1))), TcpState::AnswerUnseen);
        assert!(!both.has(tag::ONE_SIDED));
    });
}
