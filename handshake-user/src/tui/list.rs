//! The rows of the two lists, filtered and sorted, and the columns to sort by. Used by the cursor and by
//! drawing. Pure.

use std::cmp::{Ordering, Reverse};

use handshake_agent::model::snapshot::ServiceBooks;
use handshake_common::flow::Side;
use handshake_common::verdict::{UdpVerdict, Verdict};

use super::filter::ListFilter;
use super::history::failed;
use super::scene::Scene;
use super::service::ServiceLine;
use handshake_agent::model::flow::Flow;

/// The sort order of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SortOrder<C> {
    /// The column to sort by.
    pub(crate) column: C,
    /// Whether the order is reversed.
    pub(crate) reversed: bool,
}

/// A column of the attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AttemptColumn {
    /// The age of an open attempt, or the time of day at which an attempt ended.
    Age,
    /// The verdict.
    Verdict,
    /// Why the attempt is not completed.
    Cause,
    /// Repeated SYNs and SYN+ACKs.
    Retransmissions,
    /// The initiator's address and port.
    Initiator,
    /// The responder's address and port.
    Responder,
    /// The time from SYN to SYN+ACK.
    FirstLeg,
    /// The time from SYN+ACK to ACK.
    SecondLeg,
    /// The time until the record expires.
    Left,
    /// The interface where it was first seen.
    Interface,
}

impl AttemptColumn {
    /// The next column to sort by, in the order of the key `s`.
    pub(crate) const fn next(self) -> Self {
        match self {
            Self::Age => Self::Verdict,
            Self::Verdict => Self::Retransmissions,
            Self::Retransmissions => Self::Initiator,
            Self::Initiator => Self::Responder,
            Self::Responder
            | Self::Cause
            | Self::FirstLeg
            | Self::SecondLeg
            | Self::Left
            | Self::Interface => Self::Age,
        }
    }

    fn order(self, scene: &Scene, a: &Flow, b: &Flow) -> Ordering {
        let name = |attempt: &Flow| attempt.standing(&scene.moment()).name();
        match self {
            Self::Verdict => name(a).cmp(name(b)),
            Self::Retransmissions => b.retransmits().cmp(&a.retransmits()),
            Self::Initiator => a.end(Side::Initiator).cmp(&b.end(Side::Initiator)),
            Self::Responder => a.end(Side::Responder).cmp(&b.end(Side::Responder)),
            // The order of the scene: open attempts, the oldest first, then ended ones, the latest first.
            Self::Age | Self::Cause | Self::FirstLeg | Self::SecondLeg | Self::Left | Self::Interface => {
                Ordering::Equal
            }
        }
    }
}

/// A column of the services. TCP and UDP share the columns, but not all titles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ServiceColumn {
    /// The responder's address and port.
    Service,
    /// TCP attempts or UDP flows.
    Begun,
    /// Attempts or flows per second in the window.
    Rate,
    /// The share that completed or was answered.
    Good,
    /// Half-open attempts or unanswered flows.
    Waiting,
    /// Refused attempts or unreachable flows.
    Refused,
    /// Attempts that failed with any verdict, or multicast flows.
    Failed,
    /// The median of the latest times from SYN to SYN+ACK.
    FirstLeg,
    /// The median of the latest times from SYN+ACK to ACK.
    SecondLeg,
}

impl ServiceColumn {
    /// The next column to sort by, in the order of the key `s`.
    pub(crate) const fn next(self) -> Self {
        match self {
            Self::Begun => Self::Waiting,
            Self::Waiting => Self::Failed,
            Self::Failed => Self::Good,
            Self::Good => Self::Service,
            Self::Service | Self::Rate | Self::Refused | Self::FirstLeg | Self::SecondLeg => Self::Begun,
        }
    }

    /// Sorts by the column: counts and times descending, shares ascending, services by address.
    fn sort(self, rows: &mut [&ServiceLine]) {
        match self {
            Self::Service => rows.sort_by_key(|line| (line.service.is_none(), line.service)),
            Self::Good => rows.sort_by_key(|line| thousandths_good(&line.books)),
            Self::Begun | Self::Rate => rows.sort_by_key(|line| Reverse(begun(&line.books))),
            Self::Waiting => rows.sort_by_key(|line| Reverse(waiting(&line.books))),
            Self::Refused | Self::Failed => rows.sort_by_key(|line| Reverse(ended_badly(&line.books))),
            Self::FirstLeg => rows.sort_by_key(|line| Reverse(line.legs.syn_to_syn_ack_ns)),
            Self::SecondLeg => rows.sort_by_key(|line| Reverse(line.legs.syn_ack_to_ack_ns)),
        }
    }
}

/// The attempts and flows that pass the filter, sorted.
pub(crate) fn attempts<'a>(
    scene: &'a Scene,
    filter: &ListFilter,
    order: SortOrder<AttemptColumn>,
) -> Vec<&'a Flow> {
    let moment = scene.moment();
    let all = scene.open.iter().chain(&scene.ended);
    let fits = |each: &&Flow| filter.admits(each, &moment, Some(scene.interface(each)));
    let mut rows: Vec<&Flow> = all.filter(fits).collect();
    rows.sort_by(|a, b| order.column.order(scene, a, b));
    if order.reversed {
        rows.reverse();
    }
    rows
}

/// The services that pass the filter, sorted: those of TCP, then those of UDP.
pub(crate) fn services<'a>(
    scene: &'a Scene,
    filter: &ListFilter,
    order: SortOrder<ServiceColumn>,
) -> Vec<&'a ServiceLine> {
    let fits = |udp: bool| {
        let mut rows: Vec<&ServiceLine> = scene
            .services
            .iter()
            .filter(|line| line.is_udp() == udp && filter.admits_service(line))
            .collect();
        order.column.sort(&mut rows);
        if order.reversed {
            rows.reverse();
        }
        rows
    };
    [fits(false), fits(true)].concat()
}

fn begun(books: &ServiceBooks) -> u64 {
    match books {
        ServiceBooks::Tcp(books) => books.attempts,
        ServiceBooks::Udp(books) => books.flows,
    }
}

fn waiting(books: &ServiceBooks) -> u64 {
    match books {
        ServiceBooks::Tcp(books) => books.verdict(Verdict::HalfOpen),
        ServiceBooks::Udp(books) => books.verdict(UdpVerdict::Unanswered),
    }
}

fn ended_badly(books: &ServiceBooks) -> u64 {
    match books {
        ServiceBooks::Tcp(books) => failed(books),
        ServiceBooks::Udp(books) => books.verdict(UdpVerdict::Unreachable),
    }
}

fn thousandths_good(books: &ServiceBooks) -> u64 {
    let (good, all) = match books {
        ServiceBooks::Tcp(books) => (books.verdict(Verdict::Completed), books.attempts),
        ServiceBooks::Udp(books) => (books.verdict(UdpVerdict::Answered), books.flows),
    };
    good.saturating_mul(1_000) / all.max(1)
}
