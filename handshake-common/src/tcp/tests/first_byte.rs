//! The first bytes of a completed connection, and silence.

use super::*;
use crate::record::SILENT;

const T1: u64 = CONTEXT.half_open_after_ns;

/// A segment of the initiator, from its first byte on, and one of the responder.
struct Ends {
    j: u32,
    k: u32,
}

impl Ends {
    const fn asks(&self, sent: u32, bytes: u32) -> Segment {
        with_data(ack(plus(self.j, 1 + sent), plus(self.k, 1)), bytes)
    }

    const fn acks(&self, taken: u32) -> Segment {
        ack(plus(self.k, 1), plus(self.j, 1 + taken))
    }

    const fn answers(&self, taken: u32, bytes: u32) -> Segment {
        with_data(self.acks(taken), bytes)
    }
}

fn established(test: impl Fn(Talk, Ends)) {
    with_isns(|j, k| test(Talk::completed(j, k), Ends { j, k }));
}

fn is_silent(talk: &Talk) -> bool {
    talk.record.is_silent(talk.flags, talk.context.now_ns, T1)
}

fn first_byte(talk: &Talk) -> Option<u64> {
    talk.record.leg(talk.state, talk.flags, Leg::AckToFirstByte).map(|ticks| u64::from(ticks) << TICK_SHIFT)
}

#[test]
fn the_first_byte_is_timed_from_the_completing_ack() {
    established(|mut talk, ends| {
        talk.initiator(ends.asks(0, 100));
        talk.responder(ends.acks(100));
        assert_eq!(first_byte(&talk), None);
        talk.responder(ends.answers(100, 1_460));
        assert_eq!(first_byte(&talk), Some(3 * STEP));
        talk.responder(with_data(ack(plus(ends.k, 1_461), plus(ends.j, 101)), 1_460));
        assert_eq!(first_byte(&talk), Some(3 * STEP), "the first alone");
        assert_eq!(talk.timed, Leg::ALL);
        assert!(talk.excluded.is_empty() && talk.flags & tag::AWAITS == 0);
    });
}

#[test]
fn a_server_may_speak_first() {
    established(|mut talk, ends| {
        talk.responder(ends.answers(0, 21));
        assert_eq!((first_byte(&talk), talk.flags & tag::AWAITS), (Some(STEP), 0));
        talk.initiator(with_data(ack(plus(ends.j, 1), plus(ends.k, 22)), 21));
        talk.context.now_ns += 2 * T1;
        assert!(!is_silent(&talk) && talk.signs.is_empty());
    });
}

#[test]
fn a_server_that_takes_the_request_and_sends_nothing_is_silent() {
    established(|mut talk, ends| {
        talk.initiator(ends.asks(0, 100));
        talk.responder(ends.acks(100));
        talk.context.now_ns += T1 - STEP;
        assert!(!is_silent(&talk), "not for longer than T1 since the request");
        talk.context.now_ns += 2 * STEP;
        assert!(is_silent(&talk));
        assert!(talk.signs.is_empty(), "what lasts has not ended");
        talk.responder(ends.answers(100, 1));
        assert!(!is_silent(&talk) && talk.signs == [Sign::WasSilent]);
        assert_eq!(first_byte(&talk), Some(3 * STEP + T1 + STEP));
    });
}

#[test]
fn a_request_may_come_with_the_third_segment() {
    with_isns(|j, k| {
        let ends = Ends { j, k };
        let mut talk = Talk::answered(j, k);
        talk.initiator(ends.asks(0, 100));
        talk.responder(ends.acks(100));
        talk.context.now_ns += T1 + STEP;
        assert!(is_silent(&talk));
    });
}

#[test]
fn fast_open_data_that_was_acknowledged_is_a_request() {
    with_isns(|j, k| {
        for (acked, silent) in [(40, true), (0, false)] {
            let mut talk = Talk::new(with_data(syn(j), 40));
            talk.responder(syn_ack(k, plus(j, 1 + acked)));
            talk.initiator(ack(plus(j, 1 + acked), plus(k, 1)));
            talk.context.now_ns += T1 + STEP;
            assert_eq!((talk.state, is_silent(&talk)), (Established, silent), "{acked} taken");
        }
    });
}

#[test]
fn data_before_the_final_ack_is_no_time_after_it() {
    with_isns(|j, k| {
        let mut with_syn_ack = Talk::new(with_data(syn(j), 40));
        with_syn_ack.responder(with_data(syn_ack(k, plus(j, 41)), 300));
        with_syn_ack.initiator(ack(plus(j, 41), plus(k, 301)));
        let mut early = Talk::answered(j, k);
        early.responder(with_data(ack(plus(k, 1), plus(j, 1)), 300));
        early.initiator(ack(plus(j, 1), plus(k, 301)));
        for mut talk in [with_syn_ack, early] {
            assert_eq!((talk.state, talk.excluded.as_slice()), (Established, &[Leg::AckToFirstByte][..]));
            talk.responder(with_data(ack(plus(k, 301), plus(j, 41)), 300));
            talk.context.now_ns += 2 * T1;
            assert_eq!((first_byte(&talk), is_silent(&talk), talk.excluded.len()), (None, false, 1));
        }
    });
}

/// The hook may see one direction alone after the SYN+ACK: only an acknowledgement says that the responder
/// has the request, and that its packets pass here.
#[test]
fn what_was_not_acknowledged_here_is_not_silent() {
    established(|mut talk, ends| {
        talk.responder(ends.acks(0));
        talk.initiator(ends.asks(0, 100));
        talk.responder(ends.acks(0));
        talk.context.now_ns += 10 * T1;
        assert!(!is_silent(&talk));
        talk.initiator(ends.asks(100, 100));
        assert!(!is_silent(&talk));
    });
    established(|mut talk, ends| {
        talk.responder(ends.acks(100));
        talk.context.now_ns += 10 * T1;
        assert!(!is_silent(&talk), "no data of the initiator's passed here");
    });
}

#[test]
fn keep_alives_are_no_first_bytes() {
    established(|mut talk, ends| {
        for bytes in [0, 1] {
            talk.initiator(with_data(ack(ends.j, plus(ends.k, 1)), bytes));
            talk.responder(with_data(ack(ends.k, plus(ends.j, 1)), bytes));
            assert!(talk.flags & SILENT == tag::AWAITS && first_byte(&talk).is_none());
        }
        talk.initiator(ends.asks(0, 100));
        talk.responder(ends.acks(100));
        talk.context.now_ns += T1 + STEP;
        for bytes in [0, 1] {
            assert!(is_silent(&talk));
            talk.initiator(ends.asks(99, bytes));
            talk.responder(ends.acks(100));
        }
        assert!(is_silent(&talk), "a keep-alive does not hide it");
    });
}

#[test]
fn an_upload_is_silent_once_it_has_ended() {
    established(|mut talk, ends| {
        for part in 0..10 {
            talk.initiator(ends.asks(part * 1_000, 1_000));
            talk.responder(ends.acks((part + 1) * 1_000));
            talk.context.now_ns += T1 / 2;
            assert!(!is_silent(&talk));
        }
        talk.context.now_ns += T1;
        assert!(is_silent(&talk));
    });
}

#[test]
fn a_connection_that_closes_is_not_silent() {
    for side in [Initiator, Responder] {
        for kind in [SegmentKind::Ack, SegmentKind::Rst] {
            established(|mut talk, ends| {
                talk.initiator(ends.asks(0, 100));
                talk.responder(ends.acks(100));
                talk.context.now_ns += T1 + STEP;
                let (seq, acked) = match side {
                    Initiator => (plus(ends.j, 101), plus(ends.k, 1)),
                    Responder => (plus(ends.k, 1), plus(ends.j, 101)),
                };
                let last = if kind == SegmentKind::Ack { fin(seq, acked) } else { rst(seq, acked) };
                assert_eq!(talk.send(side, last), Closed);
                assert_eq!(talk.signs, [Sign::WasSilent], "{side:?} {kind:?}");
                talk.responder(ends.acks(101));
                assert_eq!(talk.signs.len(), 1, "once");
            });
        }
    }
    established(|mut talk, ends| {
        talk.initiator(ends.asks(0, 100));
        talk.responder(ends.acks(100));
        talk.initiator(rst(plus(ends.j, 101), plus(ends.k, 1)));
        assert!(talk.signs.is_empty(), "within T1");
    });
}

#[test]
fn a_client_that_has_finished_may_still_be_answered() {
    established(|mut talk, ends| {
        talk.initiator(with_data(fin(plus(ends.j, 1), plus(ends.k, 1)), 100));
        talk.responder(with_data(fin(plus(ends.k, 1), plus(ends.j, 102)), 300));
        assert_eq!((talk.state, first_byte(&talk)), (Closed, Some(2 * STEP)));
    });
    established(|mut talk, ends| {
        talk.initiator(fin(plus(ends.j, 1), plus(ends.k, 1)));
        talk.responder(fin(plus(ends.k, 1), plus(ends.j, 2)));
        assert_eq!((talk.flags & SILENT, first_byte(&talk)), (0, None), "nothing will come");
    });
}

/// What one hook point has not seen another one may.
#[test]
fn a_first_byte_counts_at_each_hook_point() {
    established(|mut talk, ends| {
        talk.point = 2;
        talk.initiator(ends.asks(0, 100));
        talk.responder(ends.answers(100, 300));
        assert_eq!(first_byte(&talk), Some(2 * STEP));
        talk.point = 4;
        talk.responder(ends.answers(100, 300));
        assert_eq!((first_byte(&talk), talk.timed.len()), (Some(2 * STEP), 4));
    });
}

#[test]
fn an_unknown_time_is_left_out() {
    established(|mut talk, ends| {
        talk.responder(Segment { untimed: true, ..ends.answers(0, 10) });
        assert_eq!((first_byte(&talk), talk.excluded.as_slice()), (None, &[Leg::AckToFirstByte][..]));
        assert_eq!(talk.flags & SILENT, 0);
    });
    established(|mut talk, ends| {
        talk.context.now_ns = SECOND;
        talk.responder(ends.answers(0, 10));
        assert_eq!((first_byte(&talk), talk.excluded.len()), (None, 1), "time ran backwards");
    });
    established(|mut talk, ends| {
        talk.context.now_ns += 275 * SECOND;
        talk.responder(ends.answers(0, 10));
        assert_eq!((first_byte(&talk), talk.excluded.len()), (None, 1), "past the record's reach");
    });
}

#[test]
fn a_strange_syn_takes_the_place_of_the_time() {
    established(|mut talk, ends| {
        talk.initiator(ends.asks(0, 100));
        talk.responder(ends.acks(100));
        talk.initiator(syn(plus(ends.j, 90_000)));
        assert_eq!((talk.flags & tag::AWAITS, talk.excluded.as_slice()), (0, &[Leg::AckToFirstByte][..]));
        talk.responder(ends.answers(100, 300));
        talk.context.now_ns += 2 * T1;
        assert_eq!((first_byte(&talk), is_silent(&talk), talk.excluded.len()), (None, false, 1));
    });
}

#[test]
fn a_denied_completion_leaves_nothing_behind() {
    with_isns(|j, k| {
        let mut talk = Talk::answered(j, k);
        talk.initiator(rst(plus(j, 1), plus(k, 1)));
        talk.initiator(with_data(ack(plus(j, 1), plus(k, 1)), 10));
        assert_eq!((talk.state, talk.flags & SILENT), (Established, 0));
        talk.responder(segment(SegmentKind::Rst, RST, plus(k, 1), 0));
        assert_eq!((talk.state, talk.flags & SILENT), (TcpState::InitiatorAborted, 0));
    });
}
