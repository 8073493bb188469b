//! Services: the figures of each responder, and which of them a report lists by name.

use std::net::{IpAddr, SocketAddr};
use std::ops::AddAssign;

use handshake_common::abi::{Counter, SERVICES, Service};
use handshake_common::flow::Family;

use crate::address::ip;
use crate::model::books::{TcpBooks, UdpBooks};
use crate::source::scan::{ByCause, Scan};

/// Rows of the service table from here on are UDP's; each half begins with its `other`.
#[expect(clippy::cast_possible_truncation, reason = "a row's number fits its 16 bits of the tag")]
pub const FIRST_UDP_ROW: u16 = (SERVICES / 2) as u16;

/// One service's figures, or the sum of those that are not listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceFigures {
    /// The responder; `None` is `other`.
    pub service: Option<SocketAddr>,
    /// The figures of the service.
    pub books: ServiceBooks,
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

    /// A UDP service's figures.
    pub fn udp(&self) -> Option<&UdpBooks> {
        match self {
            Self::Tcp(_) => None,
            Self::Udp(books) => Some(books),
        }
    }
}

/// The `top` services of each protocol, the busiest first; all others in one row per protocol.
pub(super) fn rank(
    services: &[(u16, Service)],
    scan: &Scan,
    stopped: bool,
    top: usize,
) -> Vec<ServiceFigures> {
    let (mut tcp, mut udp) = (Vec::new(), Vec::new());
    for (row, service) in services {
        let address = if row % FIRST_UDP_ROW == 0 { None } else { Some(address(service)) };
        // A row's words are changed one by one: between two of them a gauge may be below 0.
        let gauges = service.gauges.map(|word| word.cast_signed().max(0).cast_unsigned());
        let ages = scan.row(*row);
        if *row < FIRST_UDP_ROW {
            tcp.push((address, TcpBooks::settle(&gauges, &ages, ByCause::default(), stopped)));
        } else {
            let gauge = |counter: Counter| gauges[counter as usize - Counter::UdpFlows as usize];
            udp.push((address, UdpBooks::settle(gauge, &ages, stopped)));
        }
    }
    ranked(tcp, udp, top)
}

pub(super) fn ranked(
    tcp: Vec<(Option<SocketAddr>, TcpBooks)>,
    udp: Vec<(Option<SocketAddr>, UdpBooks)>,
    top: usize,
) -> Vec<ServiceFigures> {
    let mut rows = fold(tcp, |books| books.attempts, top, ServiceBooks::Tcp);
    rows.extend(fold(udp, |books| books.flows, top, ServiceBooks::Udp));
    rows
}

pub(super) fn fold<B: AddAssign + Default + Copy + PartialEq>(
    mut rows: Vec<(Option<SocketAddr>, B)>,
    busy: impl Fn(&B) -> u64,
    top: usize,
    wrap: impl Fn(B) -> ServiceBooks,
) -> Vec<ServiceFigures> {
    rows.sort_by_key(|(service, books)| (service.is_none(), std::cmp::Reverse(busy(books)), *service));
    let named = rows.iter().filter(|(service, _)| service.is_some()).count().min(top);
    let mut other = B::default();
    for (_, books) in &rows[named..] {
        other += *books;
    }
    rows.truncate(named);
    if other != B::default() {
        rows.push((None, other));
    }
    rows.into_iter().map(|(service, books)| ServiceFigures { service, books: wrap(books) }).collect()
}

pub(super) fn address(service: &Service) -> SocketAddr {
    let family = if service.family == Family::V6 as u8 { Family::V6 } else { Family::V4 };
    let address: IpAddr = ip(service.address, family);
    SocketAddr::new(address, service.port)
}
