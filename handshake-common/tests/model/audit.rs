//! What holds when all CPUs are done, whatever they did to each other: of the model and of the stress test.

use handshake_common::abi::{COUNTERS, Counter, Service};
use handshake_common::record::State;

use crate::packets::assert_whole;
use crate::shared::Shared64;
use crate::table::{self, Slot, Slot4, Tag};

/// The counter blocks of all CPUs, summed.
pub(crate) type Total = [u64; COUNTERS];

/// Counters in a row.
fn sum(total: &Total, first: Counter, last: Counter) -> u64 {
    total[first as usize..=last as usize].iter().fold(0, |sum, word| sum.wrapping_add(*word))
}

/// Panics unless table, locks, books and services agree.
pub(crate) fn audit(slots: &[Slot4], stripes: &[Shared64], services: &[Service], total: &Total) {
    assert!(stripes.iter().all(|stripe| stripe.load() == 0), "a stripe is taken");
    assert!(slots.iter().all(|slot| !Tag(slot.tag().load()).is_locked()), "a slot is locked");
    let records: Vec<_> = slots.iter().filter_map(table::read).collect();
    records.iter().for_each(assert_whole);
    for (i, record) in records.iter().enumerate() {
        assert!(records[..i].iter().all(|other| other.key != record.key), "a key is in the table twice");
    }
    balance(total);
    for state in
        [State::SynSent, State::SynReceived, State::AnswerUnseen, State::UdpWaiting, State::UdpAnswered]
    {
        let there = records.iter().filter(|record| record.state == state).count() as u64;
        assert_eq!(total[state.gauge_place()], there, "the gauge of {state:?} and the table");
    }
    settle(services, total);
}

/// The identities of TCP and UDP.
pub(crate) fn balance(total: &Total) {
    let attempts = sum(total, Counter::Completed, Counter::LAST_TCP);
    assert_eq!(total[Counter::Attempts as usize], attempts, "attempts and where they are");
    let flows = sum(total, Counter::UdpAnswered, Counter::LAST_UDP);
    assert_eq!(total[Counter::UdpFlows as usize], flows, "UDP flows and where they are");
}

/// A service has one row, and the rows sum to the books.
fn settle(services: &[Service], total: &Total) {
    const UNTAKEN: u64 = 0;
    for (i, row) in services.iter().enumerate().filter(|(_, row)| row.state != UNTAKEN) {
        let same = |other: &Service| {
            (other.address, other.port, other.protocol) == (row.address, row.port, row.protocol)
        };
        let twice = services[..i].iter().any(|other| other.state != UNTAKEN && same(other));
        assert!(!twice, "a service has two rows");
    }
    let (tcp, udp) = services.split_at(services.len() / 2);
    for (rows, first, last) in
        [(tcp, Counter::Attempts, Counter::LAST_TCP), (udp, Counter::UdpFlows, Counter::LAST_UDP)]
    {
        for (gauge, place) in (first as usize..=last as usize).enumerate() {
            let rows = rows.iter().fold(0_u64, |sum, row| sum.wrapping_add(row.gauges[gauge]));
            assert_eq!(rows, total[place], "the services and the books, at {place}");
        }
    }
}
