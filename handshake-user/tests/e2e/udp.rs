//! UDP: answers that come from elsewhere, groups, and ICMP errors.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};

use anyhow::{Context, Result, ensure};
use handshake_lab::agent::AgentOutcome;
use handshake_lab::frame::{Sender, udp_frame, unreachable};
use handshake_lab::udp::{self, UdpExchange};
use handshake_lab::{FAMILIES, Family, Path, skip_unless_privileged};
use serde_json::Value;

use crate::books::figure;
use crate::network::{Network, router, segment};
use crate::special::play;

const DATAGRAM: usize = 40;
/// SSDP, multicast DNS over IPv6, and NetBIOS names by the segment's broadcast address.
const GROUPS: [(Family, &str); 3] =
    [(Family::V4, "239.255.255.250:1900"), (Family::V6, "[ff02::fb]:5353"), (Family::V4, "192.0.2.255:137")];

/// Bytes of the IP packets of `packets` datagrams.
fn bytes(family: Family, packets: usize) -> Result<i64> {
    let headers = if family == Family::V4 { 20 + 8 } else { 40 + 8 };
    Ok(i64::try_from(packets * (DATAGRAM + headers))?)
}

/// The one flow between these ends that `exchange.initiator` began.
fn flow(outcome: &AgentOutcome, exchange: &UdpExchange) -> Result<Value> {
    let is = |value: &Value, end: SocketAddr| {
        value["address"] == end.ip().to_string().as_str() && value["port"] == end.port()
    };
    let flows = outcome.flows()?;
    let mut found = flows.iter().filter(|flow| {
        is(&flow["initiator"], exchange.initiator) && is(&flow["responder"], exchange.responder)
    });
    let flow = found.next().with_context(|| format!("{exchange:?} is not among {flows:?}"))?;
    ensure!(found.next().is_none(), "{exchange:?} is there twice in {flows:?}");
    Ok(flow.clone())
}

/// The verdict of that flow.
fn verdict(outcome: &AgentOutcome, exchange: &UdpExchange) -> Result<Value> {
    Ok(flow(outcome, exchange)?["verdict"].clone())
}

/// Checks that no row of UDP is a port of the client.
fn check_services(report: &Value, path: &Path<'_>) -> Result<()> {
    let client = path.source.to_string();
    let mut rows = report["services"].as_array().context("services")?.iter();
    ensure!(rows.all(|row| row["address"] != client.as_str()), "{report}");
    Ok(())
}

/// Flows of the service at `address`, and how many of them are answered.
fn service(report: &Value, address: SocketAddr) -> Result<(u64, u64)> {
    let rows = report["services"].as_array().context("services")?;
    let (ip, port) = (address.ip().to_string(), address.port());
    let row = rows.iter().find(|row| row["address"] == ip.as_str() && row["port"] == port);
    let row = row.with_context(|| format!("{address} is not among {rows:?}"))?;
    Ok((figure(row, "flows"), figure(row, "answered")))
}

/// A request and its answer have two keys. Both flows are answered, and the client is the initiator of both.
#[test]
fn an_answer_from_another_port_answers() -> Result<()> {
    const REQUESTS: usize = 5;
    if skip_unless_privileged() {
        return Ok(());
    }
    for network in [segment as fn() -> Result<Network>, router] {
        let network = network()?;
        for family in FAMILIES {
            let path = network.path(family);
            let expected = [
                ("udp.answered", 2 * 5),
                ("udp.packets", 3 * 5),
                ("udp.bytes", bytes(family, 3 * REQUESTS)?),
            ];
            let act = || udp::other_port(&path, REQUESTS, DATAGRAM);
            let (outcome, report, made) = play(&network, &[], &expected, act)?;
            for exchange in made.iter().flatten() {
                ensure!(verdict(&outcome, exchange)? == "answered", "{exchange:?} in {report}");
            }
            check_services(&report, &path)?;
            let asked = made[0][0].responder;
            ensure!(service(&report, asked)? == (2 * 5, 2 * 5), "{asked} in {report}");
        }
    }
    Ok(())
}

/// A query to a group is answered by whichever host is asked, from whatever port.
#[test]
fn unicast_answers_a_query_to_a_group() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    for (family, group) in GROUPS {
        let network = segment()?;
        let path = network.path(family);
        let expected = [("udp.answered", 4), ("udp.packets", 4), ("udp.bytes", bytes(family, 4)?)];
        let act = || udp::ask_group(&path, group.parse()?, 3, DATAGRAM);
        let (outcome, report, made) = play(&network, &[], &expected, act).context(group)?;
        for exchange in made.answers.iter().chain([&made.query]) {
            ensure!(verdict(&outcome, exchange)? == "answered", "{exchange:?} in {report}");
        }
        check_services(&report, &path)?;
        let (flows, answered) = service(&report, made.query.responder)?;
        ensure!((flows, answered) == (1, 1), "{group}: {report}");
        let device = path.server_at(made.query.responder.port());
        ensure!(service(&report, device)? == (3, 3), "{device}: {report}");
    }
    Ok(())
}

/// A directed broadcast is one by its frame's destination: the mask is not on the wire.
#[test]
fn a_query_to_a_group_without_an_answer_is_multicast() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    for hook in ["tcx", "xdp-native"] {
        for (family, group) in GROUPS {
            let network = segment()?;
            let path = network.path(family);
            let expected = [("udp.multicast", 1), ("udp.packets", 1), ("udp.bytes", bytes(family, 1)?)];
            let act = || udp::ask_group(&path, group.parse()?, 0, DATAGRAM);
            let (outcome, report, made) = play(&network, &["--hook", hook], &expected, act)
                .with_context(|| format!("{group}, {hook}"))?;
            ensure!(verdict(&outcome, &made.query)? == "multicast", "{report}");
        }
    }
    Ok(())
}

/// The router refuses to forward datagrams by "communication administratively prohibited" (RFC 1812 §5.2.7.1,
/// RFC 4443 §3.1), and to an address without a route by "host unreachable" or "no route".
#[test]
fn any_icmp_error_makes_a_flow_unreachable() -> Result<()> {
    // For a route that refuses, Linux answers a sender five times at once, then once per second (`ip_error`
    // in net/ipv4/route.c): twice this number is below that.
    const FLOWS: usize = 2;
    if skip_unless_privileged() {
        return Ok(());
    }
    let network = router()?;
    let Network::Router(routed) = &network else { unreachable!("it is a router") };
    routed.router.ip(&["route add prohibit 203.0.113.192/26", "route add prohibit 2001:db8:300::/64"])?;
    for family in FAMILIES {
        let (prohibited, sender): (IpAddr, &str) = match family {
            Family::V4 => ([203, 0, 113, 193].into(), "192.0.2.254"),
            Family::V6 => ([0x2001, 0xdb8, 0x300, 0, 0, 0, 0, 1].into(), "2001:db8::fe"),
        };
        let path = network.path(family);
        for destination in [prohibited, routed.unreachable(family)] {
            let flows = i64::try_from(FLOWS)?;
            let expected =
                [("udp.unreachable", flows), ("udp.packets", flows), ("udp.bytes", bytes(family, FLOWS)?)];
            let to = SocketAddr::new(destination, 9);
            let act = || udp::dispatch(&path, to, FLOWS, 1, DATAGRAM);
            let (outcome, _, made) =
                play(&network, &[], &expected, act).with_context(|| destination.to_string())?;
            for exchange in &made {
                let flow = flow(&outcome, exchange)?;
                let said = [&flow["verdict"], &flow["unreachable_from"]];
                ensure!(said == ["unreachable", sender], "{flow}");
            }
        }
    }
    Ok(())
}

/// Errors come in. Only this host can refuse a datagram to itself, and its errors go out: those are forged.
/// Datagrams of this host may be refused by any host on their way.
#[test]
fn an_icmp_error_about_a_datagram_to_this_host_is_foreign() -> Result<()> {
    const OTHER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 9);
    const PORT_UNREACHABLE: u8 = 3;
    const PROHIBITED: u8 = 13;
    if skip_unless_privileged() {
        return Ok(());
    }
    let network = segment()?;
    let path = network.path(Family::V4);
    let [near, far] = path.macs;
    let back = Path {
        client: path.server,
        server: path.client,
        macs: [far, near],
        source: path.destination,
        destination: path.source,
        ..path
    };
    let mut sender = Sender::new(path.client, path.device)?;
    let mut refuse = |code, host: SocketAddr, made: &[UdpExchange]| {
        made.iter().try_for_each(|exchange| {
            let datagram = udp_frame(path.macs, [v4(exchange.initiator)?, v4(exchange.responder)?])?;
            sender.send(&unreachable(OTHER, *v4(host)?.ip(), code, &datagram)?)
        })
    };
    let expected = [
        ("tcp.signs.foreign_icmp", 3),
        ("udp.unanswered", 3),
        ("udp.unreachable", 2),
        ("udp.packets", 3 + 2),
        ("udp.bytes", bytes(Family::V4, 3 + 2)?),
    ];
    let (outcome, _, [came_in, went_out]) = play(&network, &[], &expected, || {
        let came_in = udp::silence(&path, 3, 1, DATAGRAM)?;
        refuse(PORT_UNREACHABLE, path.server_at(0), &came_in)?;
        let went_out = udp::silence(&back, 2, 1, DATAGRAM)?;
        refuse(PROHIBITED, path.server_at(0), &went_out)?;
        Ok([came_in, went_out])
    })?;
    let sender = Value::from(OTHER.to_string());
    for (made, expected, from) in [(&came_in, "unanswered", None), (&went_out, "unreachable", Some(&sender))]
    {
        for exchange in made {
            let flow = flow(&outcome, exchange)?;
            ensure!(flow["verdict"] == expected && flow.get("unreachable_from") == from, "{flow}");
        }
    }
    Ok(())
}

fn v4(end: SocketAddr) -> Result<SocketAddrV4> {
    match end {
        SocketAddr::V4(end) => Ok(end),
        SocketAddr::V6(end) => anyhow::bail!("{end} is of IPv6"),
    }
}
