//! Services: the figures of each responder, and which of them a report lists by name.

use std::cmp::Reverse;
use std::net::{IpAddr, SocketAddr};
use std::ops::AddAssign;
use std::sync::Arc;

use handshake_common::abi::{Counter, SERVICES, Service};
use handshake_common::flow::Family;
use handshake_common::verdict::{Seat, UdpVerdict, Verdict};

use crate::model::books::{TcpBooks, UdpBooks};
use crate::model::connect::{ServiceConnect, ServiceTimes};
use crate::source::ServiceReading;
use crate::source::scan::{ByCause, Scan};

impl AddAssign for ServiceBooks {
    /// Of two protocols the first stays: they have no sum.
    fn add_assign(&mut self, other: Self) {
        match (self, other) {
            (Self::Tcp(sum), Self::Tcp(books)) => *sum += books,
            (Self::Udp(sum), Self::Udp(books)) => *sum += books,
            (Self::Tcp(_), Self::Udp(_)) | (Self::Udp(_), Self::Tcp(_)) => {}
        }
    }
}

/// Rows of the service table from here on are UDP's; each half begins with its `other`.
#[expect(clippy::cast_possible_truncation, reason = "a row's number fits its 16 bits of the tag")]
pub const FIRST_UDP_ROW: u16 = (SERVICES / 2) as u16;

/// One service's figures, or the sum of those that are not listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceFigures {
    /// The responder; `None` is `other`.
    pub service: Option<SocketAddr>,
    /// The figures of the service.
    pub books: ServiceBooks,
    /// From where this host sees its attempts; `None` where that is not known, or differs.
    pub seat: Option<Seat>,
    /// The times to connect to a TCP service.
    pub connect: ServiceConnect,
}

impl ServiceFigures {
    /// The time to connect; `None` for a UDP service.
    #[must_use]
    pub fn times(&self) -> Option<ServiceTimes> {
        self.books.tcp().map(|books| self.connect.times(books))
    }
}

impl AddAssign<&Self> for ServiceFigures {
    fn add_assign(&mut self, other: &Self) {
        self.books += other.books;
        self.connect += &other.connect;
    }
}

/// The figures of a service, by its protocol.
#[expect(clippy::large_enum_variant, reason = "a few rows per report, of which most are TCP's")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceBooks {
    /// A TCP service.
    Tcp(TcpBooks),
    /// A UDP service.
    Udp(UdpBooks),
}

impl ServiceBooks {
    /// A TCP service's figures.
    pub fn tcp(&self) -> Option<&TcpBooks> {
        match self {
            Self::Tcp(books) => Some(books),
            Self::Udp(_) => None,
        }
    }

    /// Attempts, or flows, that it has had.
    pub const fn begun(&self) -> u64 {
        match self {
            Self::Tcp(books) => books.attempts,
            Self::Udp(books) => books.flows,
        }
    }

    /// Attempts that are stuck or ended without a connection other than by a refusal, or unreachable flows. A
    /// refusal is an answer: each port that a scan finds closed has one.
    pub fn failed(&self) -> u64 {
        match self {
            Self::Tcp(books) => books
                .settled()
                .saturating_sub(books.verdict(Verdict::Completed) + books.verdict(Verdict::Refused)),
            Self::Udp(books) => books.verdict(UdpVerdict::Unreachable),
        }
    }

    /// A UDP service's figures.
    pub fn udp(&self) -> Option<&UdpBooks> {
        match self {
            Self::Tcp(_) => None,
            Self::Udp(books) => Some(books),
        }
    }
}

/// The figures of every service, TCP's first. `longest_ns` is the longest time to connect to any of them.
pub(super) fn services(
    rows: &[ServiceReading],
    scan: &Scan,
    stopped: bool,
    longest_ns: u64,
) -> Vec<ServiceFigures> {
    let figures = |reading: &ServiceReading| {
        let ages = scan.half_open_ages_of(reading.row, stopped);
        let connect = ServiceConnect::of(Arc::clone(&reading.connects), ages, longest_ns);
        ServiceFigures { connect, ..figures(reading.row, &reading.service, scan, stopped) }
    };
    rows.iter().map(figures).collect()
}

fn figures(row: u16, service: &Service, scan: &Scan, stopped: bool) -> ServiceFigures {
    let address = (!row.is_multiple_of(FIRST_UDP_ROW)).then(|| address(service));
    // A row's words are changed one by one: between two of them a gauge may be below 0.
    let gauges = service.gauges.map(|word| word.cast_signed().max(0).cast_unsigned());
    let ages = scan.row(row);
    let books = if row < FIRST_UDP_ROW {
        ServiceBooks::Tcp(TcpBooks::settle(&gauges, &ages, ByCause::default(), stopped))
    } else {
        let gauge = |counter: Counter| gauges[counter as usize - Counter::UdpFlows as usize];
        ServiceBooks::Udp(UdpBooks::settle(gauge, &ages, stopped))
    };
    let is_ours = address.is_some() && scan.host().holds(service.address, family(service));
    let seat = if is_ours { Some(Seat::Responder) } else { ages.seats.most() };
    let connect = ServiceConnect::default();
    ServiceFigures { service: address, books, seat: seat.filter(|_| address.is_some()), connect }
}

/// The services that a report lists by name, `top` of each protocol, the busiest first; all others in one row
/// per protocol. Half of the places are for the services with most failures, however few attempts they have: a
/// small one that is down would else be in no report.
pub(super) fn listed(all: &[ServiceFigures], top: usize) -> Vec<ServiceFigures> {
    let (tcp, udp): (Vec<_>, Vec<_>) =
        all.iter().cloned().partition(|row| matches!(row.books, ServiceBooks::Tcp(_)));
    let mut rows = fold(tcp, top);
    rows.extend(fold(udp, top));
    rows
}

fn fold(rows: Vec<ServiceFigures>, top: usize) -> Vec<ServiceFigures> {
    let (mut named, mut others): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| row.service.is_some());
    if named.len() > top {
        named.sort_by_key(|row| (Reverse(row.books.failed()), Reverse(row.books.begun()), row.service));
        let failing = named.iter().take(top.div_ceil(2)).filter(|row| row.books.failed() != 0).count();
        named[failing..].sort_by_key(|row| (Reverse(row.books.begun()), row.service));
        others.extend(named.drain(top..));
    }
    named.sort_by_key(|row| (Reverse(row.books.begun()), row.service));
    let other = others.into_iter().reduce(|mut sum, row| {
        sum += &row;
        sum
    });
    let other = other.filter(|sum| sum.books.begun() != 0 || sum.books.failed() != 0);
    named.extend(other.map(|sum| ServiceFigures { service: None, seat: None, ..sum }));
    named
}

fn address(service: &Service) -> SocketAddr {
    let address: IpAddr = service.address.ip(family(service));
    SocketAddr::new(address, service.port)
}

const fn family(service: &Service) -> Family {
    if service.family == Family::V6 as u8 { Family::V6 } else { Family::V4 }
}
