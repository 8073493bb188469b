//! What a stranger's segments may not do: a SYN with another number, a RST or an ACK that no end would take.

use super::*;
use TcpState::{InitiatorAborted, ResponderAborted};

use crate::tcp::join_early;

/// The number of a SYN that a stranger sends.
const OTHER: u32 = 0x1234_5678;

#[test]
fn of_two_js_the_syn_ack_decides() {
    with_isns(|j, k| {
        let other = plus(j, OTHER);
        for (acked, revised) in [(other, false), (j, true)] {
            let mut talk = Talk::new(syn(j));
            talk.initiator(syn(other));
            assert_eq!((talk.new_attempts, talk.record.isn_initiator), (1, other));
            assert_eq!(talk.responder(syn_ack(k, plus(acked, 1))), SynReceived);
            assert_eq!(talk.initiator(ack(plus(acked, 1), plus(k, 1))), Established);
            assert_eq!((talk.record.isn_initiator, talk.new_attempts), (acked, 1));
            assert_eq!((talk.has(tag::REVISED), talk.signs.contains(&Sign::Revised)), (revised, revised));
            assert_eq!(talk.timed.is_empty(), revised, "no time is known after a change");
        }
    });
}

#[test]
fn the_first_j_comes_back_by_its_own_syn() {
    with_isns(|j, k| {
        let mut talk = Talk::new(syn(j));
        for number in 1..5 {
            talk.initiator(syn(plus(j, OTHER * number)));
        }
        assert_eq!(talk.new_attempts, 4);
        assert_eq!(talk.initiator(syn(j)), SynSent);
        assert_eq!((talk.new_attempts, talk.record.isn_initiator), (4, j), "a repeat is no new attempt");
        talk.responder(syn_ack(k, plus(j, 1)));
        assert_eq!(talk.initiator(ack(plus(j, 1), plus(k, 1))), Established);
    });
}

#[test]
fn of_many_js_one_that_was_not_kept_completes_as_well() {
    with_isns(|j, k| {
        let numbers = [j, plus(j, OTHER), plus(j, 2 * OTHER), plus(j, 3 * OTHER)];
        for real in numbers {
            let mut talk = Talk::new(syn(j));
            numbers[1..].iter().for_each(|number| {
                talk.initiator(syn(*number));
            });
            assert_eq!(talk.responder(syn_ack(k, plus(real, 1))), SynReceived);
            assert_eq!(talk.initiator(ack(plus(real, 2 * OTHER), plus(k, 1))), SynReceived);
            assert_eq!(talk.initiator(ack(plus(real, 1), plus(k, 1))), Established);
            assert_eq!(talk.record.isn_initiator, real);
        }
    });
}

/// A server with SYN cookies answers every SYN: the initiator acknowledges one of the answers.
#[test]
fn a_server_may_answer_two_syns_and_either_completes() {
    with_isns(|j, k| {
        let (other, l) = (plus(j, OTHER), plus(k, 0x0765_4321));
        for swapped in [false, true] {
            for real in [(j, k), (other, l)] {
                let mut talk = Talk::new(syn(j));
                talk.initiator(syn(other));
                let answers = [syn_ack(k, plus(j, 1)), syn_ack(l, plus(other, 1))];
                talk.responder(answers[usize::from(swapped)]);
                talk.responder(answers[usize::from(!swapped)]);
                assert_eq!(talk.state, SynReceived);
                talk.initiator(ack(plus(real.0, 1), plus(real.1, 1)));
                assert_eq!(talk.state, Established, "{real:?} swapped {swapped}");
                assert_eq!((talk.record.isn_initiator, talk.record.isn_responder), real);
                assert_eq!(talk.new_attempts, 1);
            }
        }
        // The second SYN comes after the first SYN+ACK.
        for real in [(j, k), (other, l)] {
            let mut talk = Talk::answered(j, k);
            talk.initiator(syn(other));
            assert_eq!((talk.new_attempts, talk.signs.clone()), (0, std::vec![Sign::ForeignSyn]));
            talk.responder(syn_ack(l, plus(other, 1)));
            assert_eq!((talk.new_attempts, talk.state), (1, SynReceived));
            assert_eq!(talk.initiator(ack(plus(real.0, 1), plus(real.1, 1))), Established, "{real:?}");
        }
    });
}

#[test]
fn a_strange_syn_ends_neither_an_answered_nor_an_established_attempt() {
    with_isns(|j, k| {
        for side in [Initiator, Responder] {
            let mut talk = Talk::answered(j, k);
            talk.send(side, syn(plus(j, OTHER)));
            assert_eq!((talk.state, talk.new_attempts), (SynReceived, 0));
            assert_eq!(talk.initiator(ack(plus(j, 1), plus(k, 1))), Established);
            talk.send(side, syn(plus(j, 2 * OTHER)));
            assert_eq!(talk.responder(ack(plus(k, 1), plus(j, 1))), Established, "the challenge");
            assert_eq!((talk.signs.clone(), talk.new_attempts), (std::vec![Sign::ForeignSyn; 2], 0));
            assert_eq!(talk.timed, HANDSHAKE, "times are not blurred");
        }
    });
}

#[test]
fn a_claim_is_an_attempt_when_a_syn_ack_acknowledges_it() {
    with_isns(|j, k| {
        let other = plus(j, OTHER);
        for side in [Initiator, Responder] {
            for completed in [false, true] {
                let mut talk = if completed { Talk::completed(j, k) } else { Talk::answered(j, k) };
                talk.send(side, syn(other));
                let l = plus(k, 0x0333_0000);
                talk.send(side.other(), syn_ack(l, plus(other, 1)));
                assert_eq!((talk.state, talk.new_attempts), (SynReceived, 1), "{side:?} {completed}");
                assert_eq!((talk.record.isn_initiator, talk.record.isn_responder), (other, l));
                assert_eq!(talk.has(tag::INITIATOR_HIGH), side == Responder, "the ends are exchanged");
                let next = if side == Initiator { Initiator } else { Responder };
                // The sides of a talk are those of its record.
                let side = if side == Responder { Initiator } else { next };
                assert_eq!(talk.send(side, ack(plus(other, 1), plus(l, 1))), Established);
            }
        }
    });
}

#[test]
fn a_claim_is_an_attempt_when_it_comes_again_and_the_old_connection_is_silent() {
    with_isns(|j, k| {
        for completed in [false, true] {
            for (pause, quiet, expected) in
                [(SECOND, true, 1), (SECOND, false, 0), (400_000_000, true, 0), (500_000_000, true, 0)]
            {
                let mut talk = if completed { Talk::completed(j, k) } else { Talk::answered(j, k) };
                talk.initiator(syn(plus(j, OTHER)));
                if !quiet {
                    let answer = talk.responder(ack(plus(k, 1), plus(j, 1)));
                    assert!(answer == Established || answer == SynReceived);
                }
                talk.context.now_ns += pause - 2 * STEP;
                talk.initiator(syn(plus(j, OTHER)));
                assert_eq!(talk.new_attempts, expected, "{completed} {pause} {quiet}");
            }
        }
    });
}

/// A stranger repeats his SYN while the third segment is under way. A responder limits its challenges to one
/// per half a second (tcp_invalid_ratelimit), so none need come between.
#[test]
fn a_repeated_strange_syn_does_not_stop_the_third_segment() {
    with_isns(|j, k| {
        let other = plus(j, OTHER);
        for side in [Initiator, Responder] {
            for more in 0..3 {
                let mut talk = Talk::new(syn(j));
                talk.responder(with_data(syn_ack(k, plus(j, 1)), 9));
                talk.send(side, syn(other));
                talk.context.now_ns += SECOND;
                talk.send(side, syn(other));
                (0..more).for_each(|number| {
                    talk.send(side, syn(plus(other, OTHER + number)));
                });
                assert_eq!(talk.new_attempts, if side == Initiator { 1 + more } else { 0 });
                for strange in [ack(plus(j, 1), plus(k, 99)), ack(plus(j, 70_000), plus(k, 1))] {
                    assert_ne!(talk.initiator(strange), Established);
                }
                assert_eq!(talk.initiator(ack(plus(j, 1), plus(k, 10))), Established, "{side:?} {more}");
                assert_eq!((talk.record.isn_initiator, talk.record.isn_responder), (j, k));
                assert_eq!(talk.has(tag::REVISED), side == Initiator);
                assert!(talk.record.is_answered(talk.flags));
            }
        }
    });
}

/// The stranger forges a SYN+ACK too, or the responder answers either SYN.
#[test]
fn the_kept_third_segment_survives_another_syn_ack() {
    with_isns(|j, k| {
        let other = plus(j, OTHER);
        let granted = |more| {
            let mut talk = Talk::answered(j, k);
            talk.initiator(syn(other));
            talk.context.now_ns += SECOND;
            talk.initiator(syn(other));
            (0..more).for_each(|number| {
                talk.initiator(syn(plus(other, OTHER + number)));
            });
            talk
        };
        let l = plus(k, 0x0333_0000);
        for number in [plus(other, 1), plus(j, 3 * OTHER)] {
            let mut talk = granted(1);
            talk.responder(syn_ack(l, number));
            talk.responder(syn_ack(plus(l, 5), plus(number, OTHER)));
            assert_eq!(talk.initiator(ack(plus(j, 1), plus(k, 1))), Established, "{number}");
            assert_eq!((talk.record.isn_initiator, talk.record.isn_responder), (j, k));
        }
        let mut again = granted(0);
        assert_eq!(again.responder(syn_ack(k, plus(j, 1))), SynReceived);
        assert_eq!(again.initiator(ack(plus(j, 1), plus(k, 1))), Established);
        let mut accepted = granted(0);
        assert_eq!(accepted.responder(syn_ack(l, plus(other, 1))), SynReceived);
        assert_eq!(accepted.initiator(ack(plus(other, 1), plus(l, 1))), Established);
        assert_eq!((accepted.record.isn_initiator, accepted.record.isn_responder), (other, l));
        // An error's sender may be in the place of K.
        let mut unreachable_now = granted(0);
        assert_eq!(unreachable_now.initiator(unreachable(other)), TcpState::Unreachable);
        unreachable_now.initiator(syn(other));
        assert_eq!(unreachable_now.initiator(ack(plus(j, 1), plus(k, 1))), TcpState::AnswerUnseen);
    });
}

/// A stranger's SYN is answered first, and the initiator resets that answer. Then the responder answers its
/// SYN, or one whose number was not kept.
#[test]
fn the_j_beside_is_answered_after_the_attempt_was_reset() {
    with_isns(|j, k| {
        let (other, l) = (plus(j, OTHER), plus(k, 0x0333_0000));
        for (further, real) in [(false, other), (true, plus(j, 2 * OTHER))] {
            let mut talk = Talk::new(syn(j));
            talk.initiator(syn(real));
            if further {
                talk.initiator(syn(other));
            }
            talk.responder(syn_ack(k, plus(j, 1)));
            assert_eq!(talk.initiator(rst(plus(j, 1), 0)), InitiatorAborted);
            assert_eq!(talk.responder(syn_ack(l, plus(real, 1))), SynReceived);
            assert_eq!(talk.initiator(ack(plus(real, 1), plus(l, 1))), Established);
            assert_eq!((talk.record.isn_initiator, talk.record.isn_responder), (real, l));
        }
        // What was only a claim.
        let mut talk = Talk::answered(j, k);
        talk.initiator(syn(other));
        talk.initiator(rst(plus(j, 1), 0));
        assert_eq!(talk.responder(syn_ack(l, plus(other, 1))), SynReceived);
        assert_eq!((talk.initiator(ack(plus(other, 1), plus(l, 1))), talk.new_attempts), (Established, 1));
    });
}

/// RFC 9293 §3.10.7.4: what a receiver with this window takes.
#[test]
fn the_third_segment_lies_in_the_window_of_the_syn_ack() {
    with_isns(|j, k| {
        let try_it = |segment: Segment| {
            let mut talk = Talk::answered(j, k);
            talk.initiator(segment)
        };
        for (seq, payload, taken) in [
            (1, 0, true),
            (65_536, 0, true),
            (65_537, 0, false),
            (1 << 30, 0, false),
            (0x8000_0000, 0, false),
            (0, 0, false),
            (0, 1, false),
            (0, 2, true),
            (0xffff_ff00, 0x101, false),
            (0xffff_ff00, 0x102, true),
        ] {
            let state = try_it(with_data(ack(plus(j, seq), plus(k, 1)), payload));
            assert_eq!(state == Established, taken, "J+{seq:#x}, {payload} bytes");
        }
        assert_eq!(try_it(fin(plus(j, 70_001), plus(k, 1))), SynReceived);
    });
}

#[test]
fn data_in_a_syn_ack_is_the_responders() {
    with_isns(|j, k| {
        for acked in [1, 5, 10] {
            let mut talk = Talk::new(syn(j));
            talk.responder(with_data(syn_ack(k, plus(j, 1)), 9));
            assert_eq!(talk.initiator(ack(plus(j, 1), plus(k, acked))), Established);
            assert!(talk.signs.is_empty());
        }
        let mut more = Talk::new(syn(j));
        more.responder(with_data(syn_ack(k, plus(j, 1)), 9));
        assert_eq!(more.initiator(ack(plus(j, 1), plus(k, 11))), SynReceived);

        let mut reset = Talk::new(syn(j));
        reset.responder(with_data(syn_ack(k, plus(j, 1)), 9));
        assert_eq!(reset.responder(rst(plus(k, 10), 0)), ResponderAborted);

        let mut early = Talk::new(syn(j));
        early.initiator(ack(plus(j, 1), plus(k, 10)));
        assert_eq!(early.responder(with_data(syn_ack(k, plus(j, 1)), 9)), Established);

        // Data that first comes with a repeat, whatever the state.
        let mut repeat = Talk::answered(j, k);
        repeat.responder(with_data(syn_ack(k, plus(j, 1)), 9));
        assert_eq!(repeat.initiator(ack(plus(j, 1), plus(k, 10))), Established);
        let mut aborted = Talk::answered(j, k);
        aborted.initiator(rst(plus(j, 1), 0));
        aborted.responder(with_data(syn_ack(k, plus(j, 1)), 9));
        assert_eq!(aborted.initiator(ack(plus(j, 1), plus(k, 10))), Established);
        let mut two = Talk::new(syn(j));
        two.responder(with_data(syn_ack(k, plus(j, 1)), 9));
        two.responder(syn_ack(plus(k, 90_000), plus(j, 1)));
        assert_eq!(two.initiator(ack(plus(j, 1), plus(k, 10))), Established);
        let mut syn_data = Talk::new(syn(j));
        syn_data.initiator(with_data(syn(j), 20));
        assert_eq!(syn_data.responder(syn_ack(k, plus(j, 21))), SynReceived);
        let mut refused = Talk::new(syn(j));
        refused.responder(rst(0, plus(j, 1)));
        refused.initiator(with_data(syn(j), 20));
        assert_eq!(refused.responder(syn_ack(k, plus(j, 21))), SynReceived);
    });
}

/// Whose RST ends an answered attempt, with which number, and how.
const fn aborts(j: u32, k: u32) -> [(Side, u32, TcpState); 2] {
    [(Initiator, plus(j, 1), InitiatorAborted), (Responder, plus(k, 1), ResponderAborted)]
}

#[test]
fn a_proven_third_segment_takes_an_abort_back() {
    with_isns(|j, k| {
        for (by, number, end) in aborts(j, k) {
            let aborted = || {
                let mut talk = Talk::answered(j, k);
                assert_eq!(talk.send(by, rst(number, 0)), end);
                talk
            };
            let mut forged = aborted();
            assert_eq!(forged.initiator(ack(plus(j, 1 << 30), plus(k, 1))), end, "outside the window");
            assert_eq!(forged.initiator(ack(plus(j, 1), plus(k, 2))), end, "what was not sent");
            assert_eq!(forged.initiator(ack(plus(j, 1), plus(k, 1))), Established);
            assert_eq!((forged.signs.clone(), forged.has(tag::REVISED)), (std::vec![Sign::Revised], true));
            assert_eq!(forged.responder(rst(plus(k, 9), 0)), Closed, "an end of another kind");

            let no_socket = segment(SegmentKind::Rst, RST, plus(k, 1), 0);
            for third in [ack(plus(j, 1), plus(k, 1)), fin(plus(j, 1), plus(k, 1))] {
                let mut real = aborted();
                real.initiator(third);
                assert_eq!(real.responder(no_socket), end, "the responder knows of no connection");
                real.initiator(third);
                assert_eq!(real.responder(no_socket), end, "nor the next time");
            }
        }
    });
}

/// A SYN after the abort takes the attempt up again, but a responder may discard it (SYN+FIN, a wrong
/// checksum) or not hear it. Then it answers the third segment with a RST, until it sends a SYN+ACK.
#[test]
fn a_third_segment_after_a_syn_alone_may_be_denied() {
    with_isns(|j, k| {
        let no_socket = segment(SegmentKind::Rst, RST, plus(k, 1), 0);
        for (by, number, end) in aborts(j, k) {
            for data in [0, 100] {
                for answer in [None, Some(k), Some(plus(k, 90_000))] {
                    let mut talk = Talk::new(with_data(syn(j), data));
                    talk.responder(syn_ack(k, plus(j, 1)));
                    talk.send(by, rst(number, 0));
                    assert_eq!(talk.initiator(segment(SegmentKind::Syn, SYN | FIN, j, 0)), SynReceived);
                    if let Some(answer) = answer {
                        talk.responder(syn_ack(answer, plus(j, 1)));
                    }
                    let third = ack(plus(j, 1), plus(answer.unwrap_or(k), 1));
                    assert_eq!(talk.initiator(third), Established);
                    let denial = Segment { seq: third.ack, ..no_socket };
                    let denied = answer.is_none();
                    assert_eq!(talk.responder(denial), if denied { end } else { Closed }, "{answer:?}");
                    // The end is as provisional as it was.
                    if denied {
                        assert_eq!(talk.initiator(third), Established);
                    }
                }
            }
        }
    });
}

/// A denial stands at K+1 without ACK. So does the RST of a port that nothing listens on any more.
#[test]
fn a_connection_that_was_used_is_not_denied() {
    with_isns(|j, k| {
        let no_socket = segment(SegmentKind::Rst, RST, plus(k, 1), 0);
        let third = ack(plus(j, 1), plus(k, 1));
        for (by, number, aborted) in aborts(j, k) {
            let take_back = |mut talk: Talk| {
                assert_eq!(talk.send(by, rst(number, 0)), aborted);
                assert_eq!(talk.initiator(third), Established);
                talk
            };
            let taken_back = || take_back(Talk::answered(j, k));
            let used = [
                (Responder, ack(plus(k, 1), plus(j, 1))),
                (Responder, fin(plus(k, 1), plus(j, 1))),
                (Initiator, rst(plus(j, 1), 0)),
            ];
            for (side, segment) in used {
                let mut talk = taken_back();
                talk.send(side, segment);
                assert_eq!(talk.responder(no_socket), Closed, "{side:?} {segment:?}");
                talk.initiator(fin(plus(j, 1), plus(k, 1)));
                assert_eq!(talk.responder(no_socket), Closed, "{side:?} {segment:?}");
            }
            // What the initiator sends proves nothing about the responder, and neither does another's SYN.
            for unproven in [fin(plus(j, 1), plus(k, 1)), third, syn(plus(j, OTHER))] {
                let mut talk = taken_back();
                talk.initiator(unproven);
                assert_eq!(talk.responder(no_socket), aborted, "{unproven:?}");
            }
            let mut claimed = Talk::answered(j, k);
            claimed.initiator(syn(plus(j, OTHER)));
            assert_eq!(take_back(claimed).responder(no_socket), aborted);
        }
    });
}

/// While not all hooks are on, half of a handshake may pass unseen.
#[test]
fn an_attempt_that_began_before_all_hooks_were_on_is_midstream() {
    with_isns(|j, k| {
        for side in [Initiator, Responder] {
            let (record, flags) = join_early(&syn(j), SECOND);
            let mut talk = Talk::of(TcpState::Midstream, flags, record);
            talk.context.admits = false;
            talk.send(side, syn(plus(j, OTHER)));
            talk.context.admits = true;
            assert_eq!(talk.send(side, syn(plus(j, OTHER))), TcpState::Midstream, "the same again");
            talk.responder(syn_ack(k, plus(j, OTHER + 1)));
            assert_eq!(talk.initiator(ack(plus(j, OTHER + 1), plus(k, 1))), TcpState::Midstream);
            assert_eq!(talk.new_attempts, 0);
            talk.send(side, syn(plus(j, 2 * OTHER)));
            assert_eq!((talk.new_attempts, talk.state), (1, SynSent), "another");
        }
    });
}

#[test]
fn one_direction_is_told_apart_from_no_answer() {
    with_isns(|j, k| {
        for (seq, payload, state) in [
            (1, 0, TcpState::AnswerUnseen),
            (1, 500, TcpState::AnswerUnseen),
            (65_536, 0, TcpState::AnswerUnseen),
            (65_537, 0, SynSent),
            (0, 0, SynSent),
        ] {
            let mut talk = Talk::new(syn(j));
            assert_eq!(talk.initiator(with_data(ack(plus(j, seq), plus(k, 77)), payload)), state);
        }
        let mut talk = Talk::new(syn(j));
        talk.initiator(ack(plus(j, 1), plus(k, 77)));
        assert_eq!(talk.responder(syn_ack(k, plus(j, 1))), SynReceived);
        assert_eq!(talk.initiator(ack(plus(j, 1), plus(k, 1))), Established);
    });
}

#[test]
fn the_same_segment_within_ten_milliseconds_is_a_copy() {
    with_isns(|j, k| {
        for (delay, copies) in [(10_000, true), (1_000_000, true), (STEP, false)] {
            let mut talk = Talk::new(syn(j));
            let mut copied = 0;
            let whole = [
                (Initiator, syn(j)),
                (Responder, syn_ack(k, plus(j, 1))),
                (Initiator, ack(plus(j, 1), plus(k, 1))),
                (Initiator, fin(plus(j, 1), plus(k, 1))),
                (Responder, fin(plus(k, 1), plus(j, 2))),
            ];
            for (side, segment) in whole {
                let original = talk.context.now_ns;
                if segment.kind != SegmentKind::Syn {
                    talk.send(side, segment);
                }
                talk.context.now_ns = original + if segment.kind == SegmentKind::Syn { 0 } else { STEP };
                let before = talk.record;
                talk.context.now_ns = talk.context.now_ns + delay - STEP;
                talk.send(side, segment);
                copied += u32::from(talk.record == before);
                talk.context.now_ns = original + 2 * STEP;
            }
            assert_eq!(talk.signs.is_empty(), copies, "{delay} ns later: {:?}", talk.signs);
            assert_eq!((talk.state, talk.new_attempts), (Closed, 0));
            assert!(copied >= 2 || !copies);
        }
    });
}

/// Both ends send again for a while, each after its own time: a responder answers each SYN, and its own timer
/// sends its SYN+ACK again too. Times in ms after the first SYN, with the delay of an answer.
fn both_ends_again(answered_after_ms: f64) -> Vec<(f64, Side)> {
    let syns = [0.0, 1_023.0, 2_047.0, 3_071.0, 5_100.0, 9_300.0, 17_500.0];
    // The second is just before a SYN, the third just after one.
    let by_timer = [1_500.0, 3_070.9, 5_120.0, 15_300.0];
    let mut sent: Vec<(f64, Side)> = syns.map(|at| (at, Initiator)).to_vec();
    sent.extend(syns.map(|at| (at + answered_after_ms, Responder)));
    // Where an answer would come within 10 ms of it, the two could not be told from copies.
    let answers = syns.map(|at| at + answered_after_ms);
    sent.extend(
        by_timer
            .into_iter()
            .filter(|at| answers.iter().all(|answer| (at - answer).abs() > 11.0))
            .map(|at| (at, Responder)),
    );
    sent.sort_by(|a, b| a.0.total_cmp(&b.0));
    sent
}

#[test]
fn both_ends_send_again_and_nothing_is_a_copy() {
    for answered_after_ms in [0.02, 0.9, 4.0, 40.0, 600.0] {
        // What a mirror shows once more, that much later; 0 without one.
        for copied_after_ms in [0.0, 0.01, 1.0] {
            let whole = both_ends_again(answered_after_ms);
            let mut frames: Vec<(f64, Side)> = whole.clone();
            if copied_after_ms != 0.0 {
                frames.extend(whole.iter().map(|(at, side)| (at + copied_after_ms, *side)));
                frames.sort_by(|a, b| a.0.total_cmp(&b.0));
            }
            let mut talk = Talk::new(syn(J));
            for (at, side) in &frames[1..] {
                talk.context.now_ns = SECOND + (at * 1e6) as u64 - STEP;
                let segment = if matches!(side, Initiator) { syn(J) } else { syn_ack(K, J + 1) };
                assert_eq!(
                    talk.send(*side, segment),
                    if talk.record.syn_ack == 0 { SynSent } else { SynReceived }
                );
            }
            let sent = |of: Side| whole.iter().filter(|(_, side)| *side == of).count();
            let seen = (usize::from(talk.record.syn), usize::from(talk.record.syn_ack));
            let case = (answered_after_ms, copied_after_ms);
            assert_eq!(seen, (sent(Initiator), sent(Responder)), "{case:?}");
            assert_eq!(usize::from(talk.record.syn_ack_retransmits), sent(Responder) - 1, "{case:?}");
            talk.initiator(ack(J + 1, K + 1));
            assert!(talk.has(tag::LATE) && talk.state == Established, "{case:?}");
        }
    }
}

#[test]
fn a_repeat_at_another_hook_point_is_one_for_a_tenth_of_a_second() {
    for (later, expected) in [(90_000_000, 0), (SECOND, 1)] {
        let mut talk = Talk::new(syn(J));
        talk.point = 1;
        talk.context.now_ns += later - STEP;
        talk.initiator(syn(J));
        assert_eq!(talk.record.syn_retransmits(talk.flags), expected);
        talk.responder(syn_ack(K, J + 1));
        talk.initiator(ack(J + 1, K + 1));
        assert_eq!(talk.excluded.contains(&Leg::SynToSynAck), expected == 1, "Karn's rule");
    }
}

#[test]
fn a_segment_without_a_time_leaves_its_legs_unknown() {
    for untimed in 0..3 {
        let mut talk = Talk::new(Segment { untimed: untimed == 0, ..syn(J) });
        talk.responder(Segment { untimed: untimed == 1, ..syn_ack(K, J + 1) });
        talk.initiator(Segment { untimed: untimed == 2, ..ack(J + 1, K + 1) });
        let known = |leg| talk.record.leg(talk.state, talk.flags, leg).is_some();
        assert!(talk.state == Established && !HANDSHAKE.into_iter().any(known));
        assert_eq!(talk.revoked, untimed == 2);
    }
}

#[test]
fn times_that_fall_are_unknown() {
    for (answer, third, first_leg) in [(-5_i64, 10, false), (10, 5, true)] {
        let mut talk = Talk::new(syn(J));
        let start = talk.context.now_ns;
        let at = |ms: i64| start.wrapping_add_signed(ms * 1_000_000).wrapping_sub(STEP);
        talk.context.now_ns = at(answer);
        talk.responder(syn_ack(K, J + 1));
        assert_eq!(talk.timed == [Leg::SynToSynAck], first_leg);
        talk.context.now_ns = at(third);
        talk.initiator(ack(J + 1, K + 1));
        let known = |leg| talk.record.leg(talk.state, talk.flags, leg).is_some();
        assert!(!HANDSHAKE.into_iter().any(known), "{answer} {third}");
        assert_eq!(talk.revoked, first_leg, "what was counted is taken away again");
    }
}
