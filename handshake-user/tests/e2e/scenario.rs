//! Traffic on a network, and the figures that a report must have.

use std::any::Any;

use anyhow::Result;
use handshake_lab::tcp::{self, Attempts, Listener};
use handshake_lab::{Path, udp};

/// Sockets that stay open until the report has been read: closing them would send more.
pub(crate) type Kept = Box<dyn Any>;

fn kept(something: impl Any) -> Kept {
    Box::new(something)
}

/// Traffic by kernel sockets, with a known outcome.
pub(crate) struct Scenario {
    /// A description.
    pub(crate) name: &'static str,
    /// Makes the traffic.
    pub(crate) run: fn(&Path<'_>) -> Result<Kept>,
    /// The figures that rise, and by how much; no others rise except sums of these.
    pub(crate) adds: &'static [(&'static str, i64)],
    /// Number of attempts answered by SYN+ACK.
    pub(crate) answered: i64,
}

/// Payload of a datagram, bytes.
pub(crate) const DATAGRAM: usize = 40;

/// The scenarios that reach their verdict by themselves, on any network.
pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "connections kept open",
        run: |path| tcp::connect_accept(path, &Listener::new(path, 0, 16)?, 5).map(kept),
        adds: &[("tcp.completed", 5)],
        answered: 5,
    },
    Scenario {
        name: "connections that transfer data and close",
        run: |path| {
            let connections = tcp::connect_accept(path, &Listener::new(path, 0, 16)?, 4)?;
            connections.talk(100)?;
            connections.close().map(kept)
        },
        adds: &[("tcp.completed", 4)],
        answered: 4,
    },
    Scenario {
        name: "connections reset",
        run: |path| tcp::connect_accept(path, &Listener::new(path, 0, 16)?, 3)?.reset().map(kept),
        adds: &[("tcp.completed", 3)],
        answered: 3,
    },
    Scenario {
        name: "a reused port",
        run: |path| tcp::reuse_port(path, &Listener::new(path, 0, 16)?, 3).map(kept),
        adds: &[("tcp.completed", 3)],
        answered: 3,
    },
    Scenario {
        name: "refused",
        run: |path| tcp::refused(path, 7).map(kept),
        adds: &[("tcp.refused", 7)],
        answered: 0,
    },
    Scenario {
        name: "filtered: no SYN+ACK",
        run: |path| {
            let deaf = Listener::deaf(path, 0)?;
            Ok(kept((Attempts::start(path, deaf.address(), 6)?, deaf)))
        },
        adds: &[("tcp.half_open.no_syn_ack", 6)],
        answered: 0,
    },
    Scenario {
        name: "SYN without ACK",
        run: |path| {
            let listener = Listener::new(path, 0, 16)?;
            if path.unassigned.is_some() {
                tcp::syn_without_ack(path, listener.address(), 9)?;
                return Ok(kept(listener));
            }
            // The listener is dropped first: otherwise its retransmissions would meet no client, and a RST.
            let attempts = Attempts::start_deaf(path, listener.address(), 9)?;
            Ok(kept((listener, attempts)))
        },
        adds: &[("tcp.half_open.no_ack", 9)],
        answered: 9,
    },
    Scenario {
        name: "accept queue already full",
        run: |path| tcp::queue_already_full(path, 2, 4).map(kept),
        adds: &[("tcp.completed", 3), ("tcp.half_open.no_syn_ack", 4)],
        answered: 3,
    },
    Scenario {
        name: "a SYN scan",
        run: |path| {
            let listener = Listener::new(path, 0, 16)?;
            tcp::syn_scan(path, listener.address(), 5)?;
            Ok(kept(listener))
        },
        adds: &[("tcp.initiator_aborted", 5)],
        answered: 5,
    },
    Scenario {
        name: "aborted and retried",
        run: |path| {
            let deaf = Listener::deaf(path, 0)?;
            Ok(kept((tcp::give_up_and_retry(path, deaf.address(), 4)?, deaf)))
        },
        adds: &[("tcp.superseded", 3), ("tcp.half_open.no_syn_ack", 1)],
        answered: 0,
    },
    Scenario {
        name: "UDP to an echo",
        run: |path| udp::echo(path, 3, 2, DATAGRAM).map(kept),
        adds: &[("udp.answered", 3), ("udp.packets", 12)],
        answered: 0,
    },
    Scenario {
        name: "UDP without an answer",
        run: |path| udp::silence(path, 3, 2, DATAGRAM).map(kept),
        adds: &[("udp.unanswered", 3), ("udp.packets", 6)],
        answered: 0,
    },
    Scenario {
        name: "UDP to a closed port",
        run: |path| udp::closed(path, 4, DATAGRAM).map(kept),
        adds: &[("udp.unreachable", 4), ("udp.packets", 4)],
        answered: 0,
    },
];
