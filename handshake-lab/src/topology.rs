//! The three networks: two hosts on one segment, two hosts behind a router, one host's loopback.
//!
//! ```text
//! Pair     client eth0 192.0.2.1 ───── 192.0.2.2 eth0 server
//! Routed   client eth0 192.0.2.1 ───── 192.0.2.254 eth0 router eth1 203.0.113.254 ───── 203.0.113.2 eth0 server
//! ```
//!
//! Addresses are those set aside for documentation (RFC 5737, RFC 3849). Neighbours are entered by
//! hand: no ARP and no neighbour discovery is on the wire.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::bpf::{self, Attached, Hook, Program};
use crate::counters;
use crate::family::Family;
use crate::frame::Mac;
use crate::namespace::Namespace;

/// The device of a host, and the router's on the client's side.
pub const DEVICE: &str = "eth0";
/// The router's device on the server's side.
pub const FAR_DEVICE: &str = "eth1";

/// The client's MAC address; the others count on from here.
const CLIENT_MAC: Mac = Mac([2, b'h', b's', 0, 0, 1]);
const SERVER_MAC: Mac = Mac([2, b'h', b's', 0, 0, 2]);
const ROUTER_MAC: Mac = Mac([2, b'h', b's', 0, 0, 3]);
const ROUTER_FAR_MAC: Mac = Mac([2, b'h', b's', 0, 0, 4]);

const CLIENT4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const CLIENT6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

/// From where to where a scenario's traffic goes.
#[derive(Clone, Copy, Debug)]
pub struct Path<'a> {
    /// Where connections come from.
    pub client: &'a Namespace,
    /// Where listeners are.
    pub server: &'a Namespace,
    /// The client's device, which frames are sent from.
    pub device: &'a str,
    /// What a frame from the client is addressed from and to.
    pub macs: [Mac; 2],
    /// The client's address.
    pub source: IpAddr,
    /// The server's address.
    pub destination: IpAddr,
    /// The first of 200 addresses that nobody has, and which the server sends back the client's way:
    /// what is sent there gets no answer. `None` on `lo` over IPv6, where the kernel refuses such a route.
    pub nobody: Option<IpAddr>,
}

impl Path<'_> {
    /// `port` of the server.
    #[must_use]
    pub fn server_at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.destination, port)
    }
}

/// Two hosts on one segment: a veth pair.
#[derive(Debug)]
pub struct Pair {
    /// 192.0.2.1, 2001:db8::1
    pub client: Namespace,
    /// 192.0.2.2, 2001:db8::2
    pub server: Namespace,
}

impl Pair {
    /// Both hosts, the wire silent.
    ///
    /// # Errors
    /// Of iproute2; or the wire does not fall silent.
    pub fn new() -> Result<Self> {
        let (client, server) = (Namespace::new()?, Namespace::new()?);
        cable(&client, (DEVICE, CLIENT_MAC), &server, (DEVICE, SERVER_MAC))?;
        client.ip(&[
            "addr add 192.0.2.1/24 dev eth0",
            "addr add 2001:db8::1/64 dev eth0 nodad",
            &format!("neigh add 192.0.2.2 lladdr {SERVER_MAC} dev eth0 nud permanent"),
            &format!("neigh add 2001:db8::2 lladdr {SERVER_MAC} dev eth0 nud permanent"),
        ])?;
        swallow(&client)?;
        server.ip(&[
            "addr add 192.0.2.2/24 dev eth0",
            "addr add 2001:db8::2/64 dev eth0 nodad",
            &format!("neigh add 192.0.2.1 lladdr {CLIENT_MAC} dev eth0 nud permanent"),
            &format!("neigh add 2001:db8::1 lladdr {CLIENT_MAC} dev eth0 nud permanent"),
            "route add 198.51.100.0/24 via 192.0.2.1",
            "route add 2001:db8:100::/64 via 2001:db8::1",
        ])?;
        fall_silent(&[&client, &server])?;
        Ok(Self { client, server })
    }

    /// Has each host tag what it sends, by other numbers, and take the tags off what it gets; each tag is an
    /// ethertype (0x8100, 0x88a8) and a number, innermost first. The tags are in the frames' bytes, where XDP sees
    /// them. Lasts as long as what is given back.
    ///
    /// # Errors
    /// Without CAP_BPF, or before Linux 6.6.
    pub fn tag(&self, by_client: &[(u16, u16)], by_server: &[(u16, u16)]) -> Result<Vec<Attached>> {
        let mut attached = Vec::new();
        let ends = [(&self.client, by_client, by_server), (&self.server, by_server, by_client)];
        for (host, own, other) in ends {
            host.offload(DEVICE, "txvlan", false)?;
            attached.push(bpf::attach(host, DEVICE, Hook::TcxEgress, &Program::pushes_tags(own))?);
            attached.push(bpf::attach(host, DEVICE, Hook::TcxIngress, &Program::pops_tags(other.len()))?);
        }
        Ok(attached)
    }

    /// From the client to the server.
    #[must_use]
    pub fn path(&self, family: Family) -> Path<'_> {
        let macs = [CLIENT_MAC, SERVER_MAC];
        let destination = pick(family, [192, 0, 2, 2], [0x2001, 0xdb8, 0, 0, 0, 0, 0, 2]);
        from_client(family, &self.client, &self.server, macs, destination)
    }
}

/// Two hosts with a router between them.
#[derive(Debug)]
pub struct Routed {
    /// 192.0.2.1, 2001:db8::1
    pub client: Namespace,
    /// 192.0.2.254 and 203.0.113.254, 2001:db8::fe and 2001:db8:1::fe
    pub router: Namespace,
    /// 203.0.113.2, 2001:db8:1::2
    pub server: Namespace,
}

impl Routed {
    /// All three, the wires silent.
    ///
    /// # Errors
    /// As [`Pair::new`].
    pub fn new() -> Result<Self> {
        let (client, router, server) = (Namespace::new()?, Namespace::new()?, Namespace::new()?);
        router.forward()?;
        cable(&client, (DEVICE, CLIENT_MAC), &router, (DEVICE, ROUTER_MAC))?;
        cable(&router, (FAR_DEVICE, ROUTER_FAR_MAC), &server, (DEVICE, SERVER_MAC))?;
        behind(&client, ["192.0.2.1/24", "2001:db8::1/64"], ["192.0.2.254", "2001:db8::fe"], ROUTER_MAC)?;
        swallow(&client)?;
        let far = ["203.0.113.254", "2001:db8:1::fe"];
        behind(&server, ["203.0.113.2/24", "2001:db8:1::2/64"], far, ROUTER_FAR_MAC)?;
        router.ip(&[
            "addr add 192.0.2.254/24 dev eth0",
            "addr add 2001:db8::fe/64 dev eth0 nodad",
            "addr add 203.0.113.254/24 dev eth1",
            "addr add 2001:db8:1::fe/64 dev eth1 nodad",
            &format!("neigh add 192.0.2.1 lladdr {CLIENT_MAC} dev eth0 nud permanent"),
            &format!("neigh add 2001:db8::1 lladdr {CLIENT_MAC} dev eth0 nud permanent"),
            &format!("neigh add 203.0.113.2 lladdr {SERVER_MAC} dev eth1 nud permanent"),
            &format!("neigh add 2001:db8:1::2 lladdr {SERVER_MAC} dev eth1 nud permanent"),
            "route add 198.51.100.0/24 via 192.0.2.1",
            "route add 2001:db8:100::/64 via 2001:db8::1",
            "route add unreachable 203.0.113.128/25",
            "route add unreachable 2001:db8:200::/64",
        ])?;
        fall_silent(&[&client, &router, &server])?;
        Ok(Self { client, router, server })
    }

    /// An address that the router has no way to, and says so by ICMP.
    #[must_use]
    pub fn unreachable(&self, family: Family) -> IpAddr {
        pick(family, [203, 0, 113, 129], [0x2001, 0xdb8, 0x200, 0, 0, 0, 0, 1])
    }

    /// From the client to the server, through the router.
    #[must_use]
    pub fn path(&self, family: Family) -> Path<'_> {
        let macs = [CLIENT_MAC, ROUTER_MAC];
        let destination = pick(family, [203, 0, 113, 2], [0x2001, 0xdb8, 1, 0, 0, 0, 0, 2]);
        from_client(family, &self.client, &self.server, macs, destination)
    }
}

/// One host that talks to itself.
#[derive(Debug)]
pub struct Loopback {
    /// 127.0.0.1, ::1
    pub host: Namespace,
}

impl Loopback {
    /// The host.
    ///
    /// # Errors
    /// Of iproute2.
    pub fn new() -> Result<Self> {
        let host = Namespace::new()?;
        // Nobody's addresses are reached through lo: what is sent there comes in, and is no one's.
        host.ip(&["route add 198.51.100.0/24 dev lo"])?;
        // Without these, a crafted frame to 127.0.0.1 is not taken, nor one from there.
        host.sysctl("net.ipv4.conf.lo.route_localnet", "1")?;
        host.sysctl("net.ipv4.conf.lo.accept_local", "1")?;
        Ok(Self { host })
    }

    /// From the host to itself.
    #[must_use]
    pub fn path(&self, family: Family) -> Path<'_> {
        let local = pick(family, [127, 0, 0, 1], [0, 0, 0, 0, 0, 0, 0, 1]);
        let (host, nowhere) = (&self.host, Mac([0; 6]));
        Path {
            client: host,
            server: host,
            device: "lo",
            macs: [nowhere; 2],
            source: local,
            destination: local,
            nobody: (family == Family::V4).then(|| nobody(family)),
        }
    }
}

fn from_client<'a>(
    family: Family,
    client: &'a Namespace,
    server: &'a Namespace,
    macs: [Mac; 2],
    destination: IpAddr,
) -> Path<'a> {
    let source = match family {
        Family::V4 => IpAddr::V4(CLIENT4),
        Family::V6 => IpAddr::V6(CLIENT6),
    };
    Path { client, server, device: DEVICE, macs, source, destination, nobody: Some(nobody(family)) }
}

fn nobody(family: Family) -> IpAddr {
    pick(family, [198, 51, 100, 1], [0x2001, 0xdb8, 0x100, 0, 0, 0, 0, 1])
}

fn pick(family: Family, v4: [u8; 4], v6: [u16; 8]) -> IpAddr {
    match family {
        Family::V4 => v4.into(),
        Family::V6 => v6.into(),
    }
}

/// A veth pair between two namespaces, both ends up.
fn cable(near: &Namespace, from: (&str, Mac), far: &Namespace, to: (&str, Mac)) -> Result<()> {
    let (name, mac) = from;
    let (peer, peer_mac) = to;
    let far_name = far.name();
    near.ip(&[
        &format!(
            "link add {name} address {mac} type veth peer name {peer} address {peer_mac} netns {far_name}"
        ),
        &format!("link set {name} up"),
    ])?;
    far.ip(&[&format!("link set {peer} up")])
}

/// Has the client drop what is sent to nobody's addresses: an IPv6 host would say that it has no route.
fn swallow(client: &Namespace) -> Result<()> {
    client.ip(&["route add blackhole 198.51.100.0/24", "route add blackhole 2001:db8:100::/64"])
}

/// Gives a host its addresses, and a gateway for everything else.
fn behind(host: &Namespace, addresses: [&str; 2], gateways: [&str; 2], mac: Mac) -> Result<()> {
    host.ip(&[
        &format!("addr add {} dev eth0", addresses[0]),
        &format!("addr add {} dev eth0 nodad", addresses[1]),
        &format!("neigh add {} lladdr {mac} dev eth0 nud permanent", gateways[0]),
        &format!("neigh add {} lladdr {mac} dev eth0 nud permanent", gateways[1]),
        &format!("route add default via {}", gateways[0]),
        &format!("route add default via {}", gateways[1]),
    ])
}

/// Waits until no namespace has sent a multicast packet for a while: each host reports the groups that
/// its addresses made it join (RFC 3810 §6.1), once, within milliseconds.
fn fall_silent(namespaces: &[&Namespace]) -> Result<()> {
    const QUIET: Duration = Duration::from_millis(60);
    let deadline = Instant::now() + Duration::from_secs(5);
    let sent = || -> Result<Vec<u64>> {
        namespaces.iter().map(|namespace| Ok(counters::read(namespace)?.get("Ip6OutMcastPkts"))).collect()
    };
    let mut before = sent()?;
    loop {
        thread::sleep(QUIET);
        let now = sent()?;
        if now == before {
            return Ok(());
        }
        if Instant::now() >= deadline {
            bail!("the wire does not fall silent: {before:?}, then {now:?} multicast packets");
        }
        before = now;
    }
}
