//! A service as the lists show it.

use std::net::SocketAddr;

use handshake_agent::model::snapshot::ServiceBooks;

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
    /// Attempts half-open now plus those failed in the window; for UDP, flows unanswered now plus those
    /// unreachable in the window.
    pub(crate) trouble: u64,
    /// The medians of its latest times.
    pub(crate) legs: Legs,
}

/// The medians of a service's latest times by leg.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Legs {
    /// From SYN to SYN+ACK, ns.
    pub(crate) syn_to_syn_ack_ns: Option<u64>,
    /// From SYN+ACK to ACK, ns.
    pub(crate) syn_ack_to_ack_ns: Option<u64>,
}

impl ServiceLine {
    /// The name as in reports.
    pub(crate) fn name(&self) -> String {
        self.service.map_or_else(|| "other".to_owned(), |socket| socket.to_string())
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
