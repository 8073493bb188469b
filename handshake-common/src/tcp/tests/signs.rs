//! Signs: counted once a segment, never at a second hook point, and ending nothing.

use super::*;

#[test]
fn retransmissions_are_signs() {
    with_isns(|j, k| {
        let mut talk = Talk::new(syn(j));
        talk.initiator(syn(j));
        talk.responder(syn_ack(k, plus(j, 1)));
        talk.initiator(syn(j));
        talk.responder(syn_ack(k, plus(j, 1)));
        let expected = [Sign::SynRetransmit, Sign::SynRetransmit, Sign::SynAckRetransmit];
        assert_eq!(talk.signs, expected);
        assert_eq!((talk.record.syn_retransmits(talk.flags), talk.record.syn_ack_retransmits), (2, 1));
        assert_eq!(talk.state, SynReceived);
    });
}

#[test]
fn a_bad_syn_ack_is_a_sign_and_does_not_answer() {
    with_isns(|j, k| {
        let mut talk = Talk::new(syn(j));
        assert_eq!(talk.responder(syn_ack(k, j)), SynSent);
        assert_eq!(talk.responder(syn_ack(k, plus(j, 2))), SynSent);
        talk.responder(syn_ack(k, plus(j, 1)));
        assert_eq!(talk.responder(syn_ack(plus(k, 50), j)), SynReceived);
        assert_eq!(talk.signs, [Sign::BadSynAck], "a sign of the attempt");
        assert_eq!(talk.record.isn_responder, k);
    });
}

#[test]
fn a_bad_ack_is_a_sign_and_does_not_complete() {
    with_isns(|j, k| {
        let mut talk = Talk::answered(j, k);
        assert_eq!(talk.initiator(ack(plus(j, 1), k)), SynReceived);
        assert_eq!(talk.initiator(ack(plus(j, 1), plus(k, 2))), SynReceived);
        assert_eq!(talk.signs, [Sign::BadAck], "a sign of the attempt");
    });
}

#[test]
fn the_same_syn_ack_after_completion_is_an_ignored_ack() {
    with_isns(|j, k| {
        let mut talk = Talk::completed(j, k);
        assert_eq!(talk.responder(syn_ack(plus(k, 8), plus(j, 1))), Established, "another K");
        assert!(talk.signs.is_empty());
        assert_eq!(talk.responder(syn_ack(k, plus(j, 1))), Established);
        talk.initiator(fin(plus(j, 1), plus(k, 1)));
        assert_eq!(talk.responder(syn_ack(k, plus(j, 1))), Closed, "the client closed meanwhile");
        assert_eq!(talk.signs, [Sign::AckIgnored; 2]);
    });
}

#[test]
fn the_first_syn_ack_after_completion_is_no_ignored_ack() {
    let mut talk = Talk::new(syn(J));
    talk.context.one_sided = true;
    talk.initiator(ack(J + 1, K + 1));
    assert_eq!(talk.responder(syn_ack(K, J + 1)), Established);
    assert!(talk.signs.is_empty());
}

/// A router shows each segment at two points, a bridge over a bond at four.
#[test]
fn a_segment_at_more_hook_points_is_one_segment() {
    with_isns(|j, k| {
        for points in 2..=4 {
            let mut talk = Talk::new(syn(j));
            at_points(&mut talk, 1..points, Initiator, syn(j));
            at_points(&mut talk, 0..points, Responder, syn_ack(k, plus(j, 1)));
            at_points(&mut talk, 0..points, Initiator, ack(plus(j, 1), plus(k, 1)));
            at_points(&mut talk, 0..points, Initiator, with_data(ack(plus(j, 1), plus(k, 1)), 5));
            at_points(&mut talk, 0..points, Responder, ack(plus(k, 1), plus(j, 6)));
            assert!(talk.signs.is_empty() && talk.new_attempts == 0);
            assert_eq!((talk.record.syn, talk.record.syn_ack, talk.record.ack), (1, 1, 3));
            assert_eq!((talk.timed.as_slice(), talk.state), (&HANDSHAKE[..], Established));
        }
    });
}

#[test]
fn retransmissions_at_two_points_count_once() {
    let mut talk = Talk::new(syn(J));
    at_points(&mut talk, 1..2, Initiator, syn(J));
    at_points(&mut talk, 0..2, Initiator, syn(J));
    at_points(&mut talk, 0..2, Responder, syn_ack(K, J + 1));
    at_points(&mut talk, 0..2, Responder, syn_ack(K, J + 1));
    at_points(&mut talk, 0..2, Initiator, ack(J + 1, K + 7));
    at_points(&mut talk, 0..2, Initiator, ack(J + 1, K + 1));
    at_points(&mut talk, 0..2, Responder, syn_ack(K, J + 1));
    let expected = [Sign::SynRetransmit, Sign::SynAckRetransmit, Sign::BadAck, Sign::AckIgnored];
    assert_eq!(talk.signs, expected);
}

#[test]
fn the_copy_of_an_end_or_a_beginning_takes_nothing_back() {
    let mut talk = Talk::new(syn(J));
    at_points(&mut talk, 0..2, Responder, rst(0, J + 1));
    talk.point = 1;
    assert_eq!(talk.initiator(syn(J)), TcpState::Refused, "the first SYN, late at its second point");
    let mut aborted = Talk::answered(J, K);
    aborted.initiator(rst(J + 1, 0));
    aborted.point = 1;
    assert_eq!(aborted.responder(syn_ack(K, J + 1)), TcpState::InitiatorAborted);
    let mut closed = Talk::completed(J, K);
    closed.initiator(fin(J + 1, K + 1));
    closed.point = 1;
    assert_eq!((closed.initiator(syn(J)), closed.responder(syn(K))), (Closed, Closed));
    assert_eq!(closed.new_attempts, 0);
    assert!(talk.signs.is_empty() && aborted.signs.is_empty() && closed.signs.is_empty());
}

fn at_points(talk: &mut Talk, points: core::ops::Range<u8>, side: Side, segment: Segment) {
    for point in points {
        talk.point = point;
        talk.send(side, segment);
    }
    talk.point = 0;
}
