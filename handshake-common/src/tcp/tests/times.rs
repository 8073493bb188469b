//! Legs, Karn's rule, lateness, expiry, and clocks that run backwards.

use super::*;
use crate::record::Clocks;

#[test]
fn legs_are_measured_from_segment_to_segment() {
    let mut talk = Talk::new(syn(J));
    talk.context.now_ns = talk.context.now_ns + 10_000_000 - STEP;
    talk.responder(syn_ack(K, J + 1));
    talk.context.now_ns = talk.context.now_ns + 20_000_000 - STEP;
    talk.initiator(ack(J + 1, K + 1));
    assert_eq!(talk.timed, HANDSHAKE);
    assert_eq!(talk.record.syn_ack_after << TICK_SHIFT, 10_000_000);
    assert_eq!(talk.record.latest_after << TICK_SHIFT, 30_000_000);
}

#[test]
fn karns_rule_leaves_out_the_leg_that_is_blurred() {
    let mut syn_again = Talk::new(syn(J));
    syn_again.initiator(syn(J));
    syn_again.responder(syn_ack(K, J + 1));
    syn_again.initiator(ack(J + 1, K + 1));
    assert_eq!((syn_again.excluded, syn_again.timed), (vec_of(0..1), vec_of(1..3)));

    let mut answer_again = Talk::answered(J, K);
    answer_again.responder(syn_ack(K, J + 1));
    answer_again.initiator(ack(J + 1, K + 1));
    assert_eq!(
        (answer_again.excluded, answer_again.timed),
        (vec_of(1..2), std::vec![Leg::SynToSynAck, Leg::Connect])
    );

    let mut another = Talk::answered(J, K);
    another.responder(syn_ack(K + 9, J + 1));
    another.initiator(ack(J + 1, K + 1));
    assert_eq!(another.excluded, [Leg::SynAckToAck, Leg::AckToFirstByte], "which SYN+ACK was it?");
}

#[test]
fn connect_counts_from_the_first_syn() {
    let mut talk = Talk::new(syn(J));
    talk.context.now_ns += SECOND;
    talk.initiator(syn(J));
    talk.responder(syn_ack(K, J + 1));
    talk.initiator(ack(J + 1, K + 1));
    assert_eq!(u64::from(talk.record.latest_after) << TICK_SHIFT, (SECOND + 3 * STEP) & !63);
}

#[test]
fn late_is_more_than_t1_after_the_first_syn() {
    for (waited, late) in [(3 * SECOND, false), (3 * SECOND + 1, true)] {
        let mut talk = Talk::answered(J, K);
        talk.context.now_ns = SECOND + waited - STEP;
        talk.initiator(ack(J + 1, K + 1));
        assert_eq!(talk.has(tag::LATE), late, "after {waited} ns");
    }
}

#[test]
fn expiry_counts_from_the_latest_syn_or_syn_ack() {
    let t2 = CLOCKS.expire_after_ns;
    let mut talk = Talk::new(syn(J));
    let expect = |talk: &Talk, latest: u64| {
        assert!(!talk.record.expired(latest + t2, &CLOCKS), "T2 is not passed");
        assert!(talk.record.expired(latest + t2 + 64, &CLOCKS));
    };
    expect(&talk, SECOND);
    talk.context.now_ns = 60 * SECOND;
    talk.initiator(syn(J));
    expect(&talk, 60 * SECOND + STEP);
    talk.context.now_ns = 90 * SECOND;
    talk.responder(syn_ack(K, J + 1));
    expect(&talk, 90 * SECOND + STEP);
    talk.context.now_ns = 120 * SECOND;
    talk.responder(syn_ack(K, J + 1));
    expect(&talk, 120 * SECOND + STEP);
    talk.context.now_ns = 150 * SECOND;
    for quiet in [ack(J + 1, K + 5), rst(J + 7, 0)] {
        talk.initiator(quiet);
    }
    talk.responder(ack(K + 1, J + 1));
    expect(&talk, 120 * SECOND + STEP);
}

#[test]
fn of_a_simultaneous_open_an_ack_keeps_nothing_young() {
    let mut talk = Talk::new(syn(J));
    talk.responder(syn(K));
    let latest = talk.record.latest_ns();
    talk.context.now_ns = 50 * SECOND;
    talk.initiator(ack(J + 1, K + 1));
    assert_eq!((talk.state, talk.record.latest_ns()), (SynReceived, latest));
    talk.responder(syn(K));
    assert!(talk.record.latest_ns() >= 50 * SECOND);
}

#[test]
fn time_that_runs_backwards_is_no_time() {
    let mut talk = Talk::new(syn(J));
    talk.context.now_ns = 0;
    talk.responder(syn_ack(K, J + 1));
    assert_eq!(talk.record.syn_ack_after, 1, "a SYN+ACK was seen, at the earliest time there is");
    talk.context.now_ns = 0;
    talk.initiator(ack(J + 1, K + 1));
    assert_eq!((talk.record.latest_after, talk.has(tag::LATE)), (1, false));
    assert!(!talk.record.expired(0, &CLOCKS));
}

#[test]
fn a_handshake_longer_than_the_ticks_reach_saturates() {
    let mut talk = Talk::new(syn(J));
    talk.context.now_ns = 1_000 * SECOND;
    talk.responder(syn_ack(K, J + 1));
    assert_eq!(talk.record.syn_ack_after, u32::MAX);
    talk.initiator(ack(J + 1, K + 1));
    assert!(talk.has(tag::LATE) && talk.record.latest_after == u32::MAX);
}

const CLOCKS: Clocks = Clocks {
    half_open_after_ns: 3 * SECOND,
    expire_after_ns: 75 * SECOND,
    udp_idle_jiffies: 6_000,
    idle_after_jiffies: 360_000,
};

fn vec_of(range: core::ops::Range<usize>) -> Vec<Leg> {
    HANDSHAKE[range].to_vec()
}
