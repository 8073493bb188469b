//! What the two lists hold, and in which order: the columns that they are sorted by, and the rows that pass the filter.
//! The cursor and the drawing both ask here. Pure.

use std::cmp::{Ordering, Reverse};

use handshake_agent::model::snapshot::ServiceBooks;
use handshake_common::flow::Side;
use handshake_common::verdict::{UdpVerdict, Verdict};

use super::filter::ListFilter;
use super::history::failed;
use super::scene::Scene;
use super::service::ServiceLine;
use handshake_agent::model::flow::Flow;

/// The order of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SortOrder<C> {
    /// By this column.
    pub(crate) column: C,
    /// From its other end.
    pub(crate) reversed: bool,
}

/// A column. Sorting goes through those that lists are sorted by, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AttemptColumn {
    /// How old while open, when it ended else.
    Age,
    /// How it stands.
    Verdict,
    /// Why it is not completed.
    Cause,
    /// SYNs and SYN+ACKs sent again.
    Retransmissions,
    /// Who began.
    Initiator,
    /// The other end.
    Responder,
    /// SYN → SYN+ACK.
    FirstLeg,
    /// SYN+ACK → ACK.
    SecondLeg,
    /// Until it expires.
    Left,
    /// Where it was first seen.
    Interface,
}

impl AttemptColumn {
    /// The next that lists are sorted by.
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
            // As they come: open ones, the oldest first, then the latest.
            Self::Age | Self::Cause | Self::FirstLeg | Self::SecondLeg | Self::Left | Self::Interface => {
                Ordering::Equal
            }
        }
    }
}

/// A column. TCP and UDP share the places, not all of the titles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ServiceColumn {
    /// The responder.
    Service,
    /// Attempts, flows.
    Begun,
    /// Those a second in the window.
    Rate,
    /// Completed, answered: their share.
    Good,
    /// Half-open, unanswered.
    Waiting,
    /// Refused, unreachable.
    Refused,
    /// Failed in any way, multicast.
    Failed,
    /// The middle of the latest times SYN → SYN+ACK.
    FirstLeg,
    /// The middle of the latest times SYN+ACK → ACK.
    SecondLeg,
}

impl ServiceColumn {
    /// The next that lists are sorted by.
    pub(crate) const fn next(self) -> Self {
        match self {
            Self::Begun => Self::Waiting,
            Self::Waiting => Self::Failed,
            Self::Failed => Self::Good,
            Self::Good => Self::Service,
            Self::Service | Self::Rate | Self::Refused | Self::FirstLeg | Self::SecondLeg => Self::Begun,
        }
    }

    /// The largest first, but for names, and the smallest share of good ones first.
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

/// The attempts and flows that pass the filter, in their order.
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

/// The services that pass the filter, in their order: TCP's first.
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
