//! How attempts end without completing, what ends nothing, and what takes an end back.

use super::*;
use TcpState::{InitiatorAborted, Refused, ResponderAborted, Unreachable};

#[test]
fn a_reset_refuses_only_when_it_acknowledges_the_syn() {
    with_isns(|j, _| {
        let mut talk = Talk::new(syn(j));
        for wrong in [j, plus(j, 2), plus(j, 0x8000_0000)] {
            assert_eq!(talk.responder(rst(0, wrong)), SynSent);
        }
        assert_eq!(
            talk.responder(segment(SegmentKind::Rst, RST, plus(j, 1), plus(j, 1))),
            SynSent,
            "no ACK flag"
        );
        assert_eq!(talk.responder(rst(0, plus(j, 1))), Refused);
        let mut data = Talk::new(with_data(syn(j), 10));
        assert_eq!(data.responder(rst(0, plus(j, 12))), SynSent);
        assert_eq!(data.responder(rst(0, plus(j, 11))), Refused, "inside a Fast Open SYN's data");
    });
}

#[test]
fn an_initiators_reset_aborts_only_where_the_syn_ends() {
    with_isns(|j, k| {
        for answered in [false, true] {
            let mut talk = if answered { Talk::answered(j, k) } else { Talk::new(syn(j)) };
            let open = talk.state;
            for wrong in [j, plus(j, 2), plus(j, 0x8000_0001)] {
                assert_eq!(talk.initiator(rst(wrong, plus(k, 1))), open);
            }
            assert_eq!(talk.initiator(rst(plus(j, 1), 0)), InitiatorAborted);
        }
        let mut data = Talk::new(with_data(syn(j), 10));
        assert_eq!(data.initiator(rst(plus(j, 11), 0)), InitiatorAborted);
    });
}

#[test]
fn a_responders_reset_after_its_syn_ack_aborts_at_its_next_number() {
    with_isns(|j, k| {
        let mut talk = Talk::answered(j, k);
        for wrong in [k, plus(k, 2), plus(k, 0x8000_0001)] {
            assert_eq!(talk.responder(rst(wrong, plus(j, 1))), SynReceived);
        }
        assert_eq!(talk.responder(rst(plus(k, 1), plus(j, 1))), ResponderAborted);

        let mut sent = Talk::answered(j, k);
        sent.responder(with_data(ack(plus(k, 1), plus(j, 1)), 50));
        assert_eq!(sent.responder(rst(plus(k, 52), plus(j, 1))), SynReceived);
        assert_eq!(sent.responder(rst(plus(k, 51), plus(j, 1))), ResponderAborted);

        let mut two = Talk::answered(j, k);
        two.responder(syn_ack(plus(k, 90_000), plus(j, 1)));
        assert_eq!(two.responder(rst(plus(k, 1), plus(j, 1))), ResponderAborted, "after either SYN+ACK");
    });
}

#[test]
fn an_icmp_error_ends_only_an_attempt_it_quotes_before_any_syn_ack() {
    with_isns(|j, k| {
        let mut talk = Talk::new(syn(j));
        assert_eq!(talk.initiator(unreachable(plus(j, 1))), SynSent);
        assert_eq!(talk.initiator(unreachable(j)), Unreachable);
        let mut answered = Talk::answered(j, k);
        assert_eq!(answered.initiator(unreachable(j)), SynReceived);
    });
}

/// RFC 5961 §4: the server still has the connection before; it challenges, and is reset.
#[test]
fn a_challenge_ack_and_its_reset_end_nothing() {
    with_isns(|j, k| {
        let (old_k, old_j) = (plus(k, 1_000_000), plus(j, 2_000_000));
        let mut talk = Talk::new(syn(j));
        assert_eq!(talk.responder(ack(old_k, old_j)), SynSent);
        assert_eq!(talk.initiator(segment(SegmentKind::Rst, RST, old_j, 0)), SynSent);
        assert_eq!(talk.initiator(syn(j)), SynSent);
        assert_eq!(talk.responder(syn_ack(k, plus(j, 1))), SynReceived);
        assert_eq!(talk.initiator(ack(plus(j, 1), plus(k, 1))), Established);
        assert_eq!((talk.signs, talk.new_attempts), (std::vec![Sign::SynRetransmit], 0));
    });
}

#[test]
fn the_real_syn_ack_takes_back_every_end() {
    with_isns(|j, k| {
        for end in [Refused, Unreachable, InitiatorAborted] {
            let mut talk = Talk::new(syn(j));
            end_it(&mut talk, end, j, k);
            assert_eq!(
                talk.responder(syn_ack(k, plus(j, 2))),
                end,
                "one that does not fit takes nothing back"
            );
            assert_eq!(talk.responder(syn_ack(k, plus(j, 1))), SynReceived);
            assert_eq!(talk.initiator(ack(plus(j, 1), plus(k, 1))), Established);
            assert_eq!(talk.signs, [Sign::Revised], "after {end:?}");
            assert_eq!(talk.timed, HANDSHAKE);
        }
        for end in [InitiatorAborted, ResponderAborted] {
            let mut talk = Talk::answered(j, k);
            end_it(&mut talk, end, j, k);
            assert_eq!(talk.responder(syn_ack(k, plus(j, 1))), SynReceived);
            assert_eq!(talk.signs, [Sign::SynAckRetransmit, Sign::Revised], "after {end:?}");
        }
    });
}

#[test]
fn the_same_syn_takes_back_every_end() {
    with_isns(|j, k| {
        for end in [Refused, Unreachable, InitiatorAborted, ResponderAborted] {
            let answered = end == ResponderAborted;
            let mut talk = if answered { Talk::answered(j, k) } else { Talk::new(syn(j)) };
            end_it(&mut talk, end, j, k);
            assert_eq!(talk.initiator(syn(j)), if answered { SynReceived } else { SynSent });
            assert_eq!(talk.signs, [Sign::SynRetransmit, Sign::Revised]);
            assert_eq!(talk.new_attempts, 0);
        }
    });
}

#[test]
fn another_syn_before_any_syn_ack_or_after_an_end_is_a_new_attempt() {
    with_isns(|j, k| {
        for end in [Refused, Unreachable, InitiatorAborted] {
            let mut talk = Talk::new(syn(j));
            end_it(&mut talk, end, j, k);
            talk.initiator(syn(plus(j, 1)));
            assert_eq!(talk.new_attempts, 1, "after {end:?}");
        }
        let mut open = Talk::new(syn(j));
        open.initiator(syn(plus(j, 1)));
        assert_eq!(open.new_attempts, 1);
    });
}

#[test]
fn the_same_syn_is_a_new_attempt_only_after_the_connection_closed() {
    with_isns(|j, k| {
        let mut talk = Talk::completed(j, k);
        assert_eq!(talk.initiator(syn(j)), Established);
        assert_eq!((talk.new_attempts, talk.signs.clone()), (0, std::vec![Sign::SynRetransmit]));
        assert_eq!(talk.responder(fin(plus(k, 1), plus(j, 1))), Closed);
        talk.initiator(syn(j));
        assert_eq!(talk.new_attempts, 1);
    });
}

#[test]
fn a_fin_or_reset_of_either_end_closes_a_connection() {
    with_isns(|j, k| {
        for side in [Initiator, Responder] {
            for last in [fin(plus(j, 9), plus(k, 9)), rst(plus(j, 9), plus(k, 9))] {
                assert_eq!(Talk::completed(j, k).send(side, last), Closed);
            }
        }
    });
}

#[test]
fn a_record_keeps_the_moment_of_its_end() {
    with_isns(|j, k| {
        for end in [Refused, Unreachable, InitiatorAborted, ResponderAborted] {
            let mut talk = if end == ResponderAborted { Talk::answered(j, k) } else { Talk::new(syn(j)) };
            end_it(&mut talk, end, j, k);
            assert_eq!(talk.record.latest_ns(), talk.context.now_ns, "{end:?}");
        }
    });
}

fn end_it(talk: &mut Talk, end: TcpState, j: u32, k: u32) {
    let got = match end {
        Refused => talk.responder(rst(0, plus(j, 1))),
        Unreachable => talk.initiator(unreachable(j)),
        InitiatorAborted => talk.initiator(rst(plus(j, 1), 0)),
        ResponderAborted => talk.responder(rst(plus(k, 1), plus(j, 1))),
        other => panic!("{other:?} is no end"),
    };
    assert_eq!(got, end);
}
