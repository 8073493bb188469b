//! A service as the lists show it.

use std::net::SocketAddr;
use std::rc::Rc;

use handshake_agent::model::connect::Percentile;
use handshake_agent::model::snapshot::ServiceBooks;
use handshake_common::verdict::{UdpVerdict, Verdict};

use super::history::failed;
use crate::names::Names;

/// The identity of a service: its responder (`None` for `other`), and whether it is a UDP service.
pub(crate) type ServiceId = (Option<SocketAddr>, bool);

/// A service with its figures of the run and of the window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServiceLine {
    /// The responder; `None` for `other`.
    pub(crate) service: Option<SocketAddr>,
    /// The figures of the run.
    pub(crate) books: ServiceBooks,
    /// Attempts or UDP flows begun in the window.
    pub(crate) begun: u64,
    /// Attempts half-open or silent now plus those failed in the window; for UDP, flows unanswered now plus those
    /// unreachable in the window.
    pub(crate) trouble: u64,
    /// Its latest times.
    pub(crate) legs: Legs,
    /// The median time to connect of all attempts of the run, and the 99th percentile; `None` without one.
    pub(crate) connect: Option<[Percentile; 2]>,
    /// What became of it in the latest minute.
    pub(crate) minute: Minute,
}

/// The medians of a service's latest times by leg.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Legs {
    /// From SYN to SYN+ACK, ns.
    pub(crate) syn_to_syn_ack_ns: Option<u64>,
    /// From SYN+ACK to ACK, ns.
    pub(crate) syn_ack_to_ack_ns: Option<u64>,
}

/// What became of a service's attempts or flows in the latest minute.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Minute {
    /// How many were decided.
    pub(crate) decided: u64,
    /// How many of them completed or were answered.
    pub(crate) good: u64,
    /// How many began by step, a second or a longer interval each, the latest last.
    pub(crate) begun: Rc<[u64]>,
}

impl ServiceLine {
    /// Its connections that are silent now; of UDP none.
    pub(crate) const fn silent(&self) -> u64 {
        match &self.books {
            ServiceBooks::Tcp(books) => books.silent,
            ServiceBooks::Udp(_) => 0,
        }
    }

    /// Whether any of its attempts is half-open or silent now or has failed; of UDP, whether any flow is
    /// unanswered or unreachable.
    pub(crate) fn has_failures(&self) -> bool {
        match &self.books {
            ServiceBooks::Tcp(books) => books.verdict(Verdict::HalfOpen) + books.silent + failed(books) != 0,
            ServiceBooks::Udp(books) => {
                books.verdict(UdpVerdict::Unanswered) + books.verdict(UdpVerdict::Unreachable) != 0
            }
        }
    }

    /// The name as in reports.
    pub(crate) fn name(&self) -> String {
        self.service.map_or_else(|| "other".to_owned(), |socket| socket.to_string())
    }

    /// The name of its end where there is one, and otherwise [`name`](Self::name).
    pub(crate) fn shown(&self, names: Names) -> String {
        self.service.map_or_else(|| self.name(), |socket| names.service(socket, self.is_udp()))
    }

    /// The identity.
    pub(crate) const fn id(&self) -> ServiceId {
        (self.service, self.is_udp())
    }

    /// Whether it is a UDP service.
    pub(crate) const fn is_udp(&self) -> bool {
        matches!(self.books, ServiceBooks::Udp(_))
    }
}
