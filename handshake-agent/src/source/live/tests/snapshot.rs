//! Tests the snapshot of a table with known flows. Every flow is made by packets, in the kernel: of eight,
//! six complete, one waits for its ACK and one for its SYN+ACK.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use handshake_common::engine;
use handshake_common::verdict::Verdict;
use handshake_common::wire::Link;
use handshake_common::wire::build::FrameBuilder;

use super::flood::{Flood, Template};
use super::*;
use crate::model::snapshot::{Beginning, LiveOrigin, Origin, RunContext, ServiceBooks, Snapshot, TcpBooks};
use crate::options::Filter;

const FLOWS: u32 = 4096;
/// The number of responders; each has the same number of clients.
const RESPONDERS: u32 = 16;
const FIRST_RESPONDER: u32 = 0xc000_0200;
/// The address of client 0 of each responder.
const FIRST_CLIENT: u32 = 0x0a00_0000;
/// The place of the client's address in a frame, as source and as destination.
const SOURCE: u8 = 26;
const DESTINATION: u8 = 30;
/// Of eight clients, this many begin, are answered, and complete.
const EIGHT: u32 = 8;
const ANSWERED: u32 = 7;
const COMPLETED: u32 = 6;

#[test]
fn a_snapshot_has_exactly_the_flows_that_were_made() {
    let Some(mut live) = loaded(&settings()) else { return };
    send_all(&live, FLOWS / RESPONDERS);
    let context = context();
    let mut last = Snapshot::take(&mut live, &context, None).expect("counters at rest");
    assert_holds(&last);
    last = Snapshot::take(&mut live, &context, Some(&last)).expect("counters at rest");
    assert_holds(&last);
}

/// The default settings, except that an open attempt is half-open at once. With these factors, none of the
/// suite's flows finds both its sets full.
fn settings() -> Settings {
    let mut word = 2_u64;
    // Knuth's generator, as in MMIX.
    let factors = engine::factors(|| {
        word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        word
    });
    let rules = Rules { half_open_after: Duration::ZERO, ..Rules::default() };
    Settings { rules, max_flows: FLOWS, factors: Some(factors), ..small() }
}

/// Sends the packets of each responder's clients, and their answers.
fn send_all(live: &Live, clients: u32) {
    let flood = Flood::in_turn(live, &template(FIRST_RESPONDER, true, flag::SYN, (J, 0)));
    let (next_j, next_k) = (J.wrapping_add(1), K.wrapping_add(1));
    for responder in FIRST_RESPONDER..FIRST_RESPONDER + RESPONDERS {
        for (of_eight, forth, flags, numbers) in [
            (EIGHT, true, flag::SYN, (J, 0)),
            (ANSWERED, false, flag::SYN | flag::ACK, (K, next_j)),
            (COMPLETED, true, flag::ACK, (next_j, next_k)),
        ] {
            flood.begin(&template(responder, forth, flags, numbers));
            flood.run(clients / EIGHT * of_eight);
        }
    }
}

/// A segment from a client (`forth`) or to a client.
fn template(responder: u32, forth: bool, flags: u8, (seq, ack): (u32, u32)) -> Template {
    let frame = FrameBuilder::new(Link::Ethernet);
    let frame = if forth {
        frame.ipv4(FIRST_CLIENT, responder).tcp(flags, seq, ack).between(CLIENT.1, SERVER.1)
    } else {
        frame.ipv4(responder, FIRST_CLIENT).tcp(flags, seq, ack).between(SERVER.1, CLIENT.1)
    };
    Template { frame: frame.bytes().to_vec(), client: if forth { SOURCE } else { DESTINATION } }
}

fn context() -> Arc<RunContext> {
    let origin = Origin::Live(LiveOrigin::default());
    Arc::new(RunContext {
        origin,
        began: Beginning { wall_ns: 0, ns: 0 },
        filter: Filter::default(),
        top: RESPONDERS as usize,
        owners: crate::owner::OwnerBook::default(),
    })
}

/// Checks that the snapshot has these flows and no others, in the sums and in the rows of the services.
fn assert_holds(snapshot: &Snapshot) {
    assert!(snapshot.is_exact(), "{:?}", snapshot.losses());
    assert_eq!((snapshot.table.used, snapshot.unsettled), (FLOWS.into(), 0));
    assert_eq!(snapshot.tcp.books, books(FLOWS));
    let mut services: Vec<_> = snapshot.services.iter().map(|row| (row.service, row.books)).collect();
    services.sort_by_key(|(service, _)| *service);
    let expected = (FIRST_RESPONDER..FIRST_RESPONDER + RESPONDERS).map(|responder| {
        let address = IpAddr::V4(Ipv4Addr::from_bits(responder));
        (Some(SocketAddr::new(address, SERVER.1)), ServiceBooks::Tcp(books(FLOWS / RESPONDERS)))
    });
    assert!(services.iter().copied().eq(expected), "{services:?}");
}

fn books(flows: u32) -> TcpBooks {
    let eighth = u64::from(flows / EIGHT);
    let completed = eighth * u64::from(COMPLETED);
    TcpBooks::of(flows.into(), &[(Verdict::Completed, [completed, 0]), (Verdict::HalfOpen, [eighth, eighth])])
}
