//! A service as lists show it.

use std::net::SocketAddr;

use handshake_agent::model::snapshot::ServiceBooks;

/// What a service is known by: its responder (`None`: `other`), and whether it is of UDP.
pub(crate) type ServiceId = (Option<SocketAddr>, bool);

/// A service, and what the window brought it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServiceLine {
    /// The responder; `None` is `other`.
    pub(crate) service: Option<SocketAddr>,
    /// The run's figures.
    pub(crate) books: ServiceBooks,
    /// Attempts or flows begun in the window.
    pub(crate) begun: u64,
    /// Half-open now, and what has failed in the window.
    pub(crate) trouble: u64,
    /// Its latest times.
    pub(crate) legs: Legs,
}

/// The middle of the latest times of a service, by leg.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Legs {
    /// SYN → SYN+ACK.
    pub(crate) syn_to_syn_ack_ns: Option<u64>,
    /// SYN+ACK → ACK.
    pub(crate) syn_ack_to_ack_ns: Option<u64>,
}

impl ServiceLine {
    /// As reports name it.
    pub(crate) fn name(&self) -> String {
        self.service.map_or_else(|| "other".to_owned(), |socket| socket.to_string())
    }

    /// What it is known by.
    pub(crate) const fn id(&self) -> ServiceId {
        (self.service, self.is_udp())
    }

    /// Whether it is a service of UDP.
    pub(crate) const fn is_udp(&self) -> bool {
        matches!(self.books, ServiceBooks::Udp(_))
    }
}
