//! Four networks: two hosts on one segment, two hosts behind a router, five hosts in a row, and one host's
//! loopback.
//!
//! ```text
//! Pair     client eth0 192.0.2.1 ───── 192.0.2.2 eth0 server
//! Routed   client eth0 192.0.2.1 ───── 192.0.2.254 eth0 router eth1 203.0.113.254 ───── 203.0.113.2 eth0 server
//! ```
//!
//! Addresses are those reserved for documentation (RFC 5737, RFC 3849). Neighbours are entered statically, so
//! neither ARP nor neighbour discovery is on the wire.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use handshake_common::flow::Family;

use crate::bpf::{self, AttachedProgram, Program, TestHook};
use crate::counters;
use crate::frame::Mac;
use crate::namespace::Namespace;
use crate::tuntap::{VirtualLink, VirtualWire};

/// Both address families, over which scenarios run.
pub const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// The device of each host, and of the router on the client's side.
pub const DEVICE: &str = "eth0";
/// The router's device on the server's side.
pub const FAR_DEVICE: &str = "eth1";

/// The client's MAC address; the other hosts' addresses count on from here.
const CLIENT_MAC: Mac = Mac([2, b'h', b's', 0, 0, 1]);
const SERVER_MAC: Mac = Mac([2, b'h', b's', 0, 0, 2]);
const ROUTER_MAC: Mac = Mac([2, b'h', b's', 0, 0, 3]);
const ROUTER_FAR_MAC: Mac = Mac([2, b'h', b's', 0, 0, 4]);

const CLIENT4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const CLIENT6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

/// The path of a scenario's traffic from client to server.
#[derive(Clone, Copy, Debug)]
pub struct Path<'a> {
    /// The namespace of the initiators.
    pub client: &'a Namespace,
    /// The namespace of the listeners.
    pub server: &'a Namespace,
    /// The client's device, from which frames are sent.
    pub device: &'a str,
    /// Source and destination MAC address of a frame from the client.
    pub macs: [Mac; 2],
    /// The client's address.
    pub source: IpAddr,
    /// The server's address.
    pub destination: IpAddr,
    /// The first of 200 unassigned addresses. The server routes them to the client, where packets to them get
    /// no answer. `None` on `lo` over IPv6, where the kernel refuses such a route.
    pub unassigned: Option<IpAddr>,
}

impl Path<'_> {
    /// The server's address with `port`.
    #[must_use]
    pub fn server_at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.destination, port)
    }
}

/// Two hosts on one segment: a veth pair.
#[derive(Debug)]
pub struct Pair {
    /// The host with 192.0.2.1 and 2001:db8::1.
    pub client: Namespace,
    /// The host with 192.0.2.2 and 2001:db8::2.
    pub server: Namespace,
}

impl Pair {
    /// Creates both hosts, and waits until the wire is silent.
    ///
    /// # Errors
    /// iproute2 fails, or the wire does not fall silent.
    pub fn new() -> Result<Self> {
        let (client, server) = (Namespace::new()?, Namespace::new()?);
        cable(&client, (DEVICE, CLIENT_MAC), &server, (DEVICE, SERVER_MAC))?;
        drop_unassigned(&client)?;
        let pair = Self { client, server };
        pair.set_addresses()?;
        Ok(pair)
    }

    /// Deletes the cable and makes another one: the server's interface gets the same index and address,
    /// within milliseconds.
    ///
    /// # Errors
    /// iproute2 fails, or the wire does not fall silent.
    pub fn make_again(&self) -> Result<()> {
        let shown = self.server.run("ip", &["-o", "link", "show", DEVICE])?;
        let index = shown.split(':').next().unwrap_or_default();
        let client = self.client.name();
        self.server.ip(&[
            &format!("link del {DEVICE}"),
            &format!(
                "link add {DEVICE} index {index} address {SERVER_MAC} type veth \
                 peer name {DEVICE} address {CLIENT_MAC} netns {client}"
            ),
            &format!("link set {DEVICE} up"),
        ])?;
        self.client.ip(&[&format!("link set {DEVICE} up")])?;
        self.set_addresses()
    }

    /// Two hosts on one wire of virtual devices, by which super-packets come in as they were sent. What a tun
    /// device carries has no link header.
    ///
    /// # Errors
    /// As [`VirtualWire::new`], or iproute2 fails.
    pub fn by_wire(link: VirtualLink) -> Result<(Self, VirtualWire)> {
        let (client, server) = (Namespace::new()?, Namespace::new()?);
        let wire = VirtualWire::new(DEVICE, link, [&client, &server])?;
        for (host, mac) in [(&client, CLIENT_MAC), (&server, SERVER_MAC)] {
            if link == VirtualLink::Tap {
                host.ip(&[&format!("link set {DEVICE} address {mac}")])?;
            }
            host.ip(&[&format!("link set {DEVICE} up")])?;
        }
        drop_unassigned(&client)?;
        let pair = Self { client, server };
        match link {
            VirtualLink::Tap => pair.set_addresses()?,
            VirtualLink::Tun => {
                for (host, number) in [(&pair.client, 1), (&pair.server, 2)] {
                    host.ip(&[
                        &format!("addr add 192.0.2.{number}/24 dev eth0"),
                        &format!("addr add 2001:db8::{number}/64 dev eth0 nodad"),
                    ])?;
                }
            }
        }
        Ok((pair, wire))
    }

    fn set_addresses(&self) -> Result<()> {
        let Self { client, server } = self;
        let silence = Silence::due(&[(client, 1), (server, 1)])?;
        client.ip(&[
            "addr add 192.0.2.1/24 dev eth0",
            "addr add 2001:db8::1/64 dev eth0 nodad",
            &format!("neigh add 192.0.2.2 lladdr {SERVER_MAC} dev eth0 nud permanent"),
            &format!("neigh add 2001:db8::2 lladdr {SERVER_MAC} dev eth0 nud permanent"),
        ])?;
        server.ip(&[
            "addr add 192.0.2.2/24 dev eth0",
            "addr add 2001:db8::2/64 dev eth0 nodad",
            &format!("neigh add 192.0.2.1 lladdr {CLIENT_MAC} dev eth0 nud permanent"),
            &format!("neigh add 2001:db8::1 lladdr {CLIENT_MAC} dev eth0 nud permanent"),
            "route add 198.51.100.0/24 via 192.0.2.1",
            "route add 2001:db8:100::/64 via 2001:db8::1",
        ])?;
        silence.wait()
    }

    /// Makes each host push VLAN tags on what it sends and pop those on what it receives, with different
    /// numbers in each direction; a tag is an ethertype (0x8100, 0x88a8) and a number, innermost first. The
    /// tags are in the frames' bytes, where XDP sees them. Lasts as long as the returned programs.
    ///
    /// # Errors
    /// Without CAP_BPF, or before Linux 6.6.
    pub fn tag(&self, by_client: &[(u16, u16)], by_server: &[(u16, u16)]) -> Result<Vec<AttachedProgram>> {
        let mut attached = Vec::new();
        let ends = [(&self.client, by_client, by_server), (&self.server, by_server, by_client)];
        for (host, own, other) in ends {
            host.offload(DEVICE, "txvlan", false)?;
            attached.push(bpf::attach(host, DEVICE, TestHook::TcxEgress, &Program::pushes_tags(own))?);
            attached.push(bpf::attach(host, DEVICE, TestHook::TcxIngress, &Program::pops_tags(other.len()))?);
        }
        Ok(attached)
    }

    /// The path from the client to the server.
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
    /// The host with 192.0.2.1 and 2001:db8::1.
    pub client: Namespace,
    /// The router, with 192.0.2.254, 203.0.113.254, 2001:db8::fe and 2001:db8:1::fe.
    pub router: Namespace,
    /// The host with 203.0.113.2 and 2001:db8:1::2.
    pub server: Namespace,
}

impl Routed {
    /// Creates the three hosts, and waits until the wires are silent.
    ///
    /// # Errors
    /// As [`Pair::new`].
    pub fn new() -> Result<Self> {
        let (client, router, server) = (Namespace::new()?, Namespace::new()?, Namespace::new()?);
        router.forward()?;
        cable(&client, (DEVICE, CLIENT_MAC), &router, (DEVICE, ROUTER_MAC))?;
        cable(&router, (FAR_DEVICE, ROUTER_FAR_MAC), &server, (DEVICE, SERVER_MAC))?;
        let silence = Silence::due(&[(&client, 1), (&router, 2), (&server, 1)])?;
        behind(&client, ["192.0.2.1/24", "2001:db8::1/64"], ["192.0.2.254", "2001:db8::fe"], ROUTER_MAC)?;
        drop_unassigned(&client)?;
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
        silence.wait()?;
        Ok(Self { client, router, server })
    }

    /// An address that the router has no route to and reports as unreachable by ICMP.
    #[must_use]
    pub fn unreachable(&self, family: Family) -> IpAddr {
        pick(family, [203, 0, 113, 129], [0x2001, 0xdb8, 0x200, 0, 0, 0, 0, 1])
    }

    /// The path from the client through the router to the server.
    #[must_use]
    pub fn path(&self, family: Family) -> Path<'_> {
        let macs = [CLIENT_MAC, ROUTER_MAC];
        let destination = pick(family, [203, 0, 113, 2], [0x2001, 0xdb8, 1, 0, 0, 0, 0, 2]);
        from_client(family, &self.client, &self.server, macs, destination)
    }
}

/// Five hosts in a row: a client, three routers, and a server.
///
/// ```text
/// client ── before ── router ── behind ── server
/// ```
#[derive(Debug)]
pub struct Row {
    /// The host with 192.0.2.1 and 2001:db8::1.
    pub client: Namespace,
    /// The router on the client's side.
    pub before: Namespace,
    /// The router in the middle, which may translate; towards the server it is 198.18.2.1 and 2001:db8:12::1.
    pub router: Namespace,
    /// The router on the server's side.
    pub behind: Namespace,
    /// The host with 203.0.113.2 and 2001:db8:1::2.
    pub server: Namespace,
}

impl Row {
    /// The middle router's addresses on its client's side.
    pub const NEAR_ROUTER: [&str; 2] = ["198.18.1.2", "2001:db8:11::2"];
    /// Addresses that no host has, beside the server's: what is sent there comes to the router.
    pub const UNOWNED: [&str; 2] = ["203.0.113.100", "2001:db8:1::100"];

    /// Creates the hosts.
    ///
    /// # Errors
    /// iproute2 fails.
    pub fn new() -> Result<Self> {
        let [client, before, router] = [Namespace::new()?, Namespace::new()?, Namespace::new()?];
        let [behind, server] = [Namespace::new()?, Namespace::new()?];
        for host in [&before, &router, &behind] {
            host.forward()?;
        }
        let links = [
            (&client, "eth0", "192.0.2.1/24 2001:db8::1/64", &before, "192.0.2.254/24 2001:db8::fe/64"),
            (&before, "eth1", "198.18.1.1/24 2001:db8:11::1/64", &router, "198.18.1.2/24 2001:db8:11::2/64"),
            (&router, "eth1", "198.18.2.1/24 2001:db8:12::1/64", &behind, "198.18.2.2/24 2001:db8:12::2/64"),
            (
                &behind,
                "eth1",
                "203.0.113.254/24 2001:db8:1::fe/64",
                &server,
                "203.0.113.2/24 2001:db8:1::2/64",
            ),
        ];
        for (near, device, near_addresses, far, far_addresses) in links {
            let peer = far.name();
            near.ip(&[&format!("link add {device} type veth peer name eth0 netns {peer}")])?;
            // A router asks for a neighbour from a link-local address, and namespaces make none.
            let ends =
                [(near, device, near_addresses, "fe80::1/64"), (far, DEVICE, far_addresses, "fe80::2/64")];
            for (host, device, addresses, local) in ends {
                let addresses = format!("{addresses} {local}");
                let lines: Vec<String> = addresses
                    .split(' ')
                    .map(|address| format!("addr add {address} dev {device} nodad"))
                    .collect();
                let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
                host.ip(&[&format!("link set {device} up")])?;
                host.ip(&lines)?;
            }
        }
        client.ip(&["route add default via 192.0.2.254", "route add default via 2001:db8::fe"])?;
        before.ip(&["route add default via 198.18.1.2", "route add default via 2001:db8:11::2"])?;
        router.ip(&[
            "route add 192.0.2.0/24 via 198.18.1.1",
            "route add 2001:db8::/64 via 2001:db8:11::1",
            "route add default via 198.18.2.2",
            "route add default via 2001:db8:12::2",
        ])?;
        behind.ip(&["route add default via 198.18.2.1", "route add default via 2001:db8:12::1"])?;
        server.ip(&["route add default via 203.0.113.254", "route add default via 2001:db8:1::fe"])?;
        Ok(Self { client, before, router, behind, server })
    }

    /// The path from the client to the server.
    #[must_use]
    pub fn path(&self, family: Family) -> Path<'_> {
        let destination = pick(family, [203, 0, 113, 2], [0x2001, 0xdb8, 1, 0, 0, 0, 0, 2]);
        from_client(family, &self.client, &self.server, [CLIENT_MAC, SERVER_MAC], destination)
    }
}

/// One host that connects to itself.
#[derive(Debug)]
pub struct Loopback {
    /// The host, with 127.0.0.1 and ::1.
    pub host: Namespace,
}

impl Loopback {
    /// Creates the host.
    ///
    /// # Errors
    /// iproute2 fails.
    pub fn new() -> Result<Self> {
        let host = Namespace::new()?;
        // Unassigned addresses are routed through lo: what is sent to them comes in and belongs to no socket.
        host.ip(&["route add 198.51.100.0/24 dev lo"])?;
        // Without these the kernel drops crafted frames to and from 127.0.0.1.
        host.sysctl("net.ipv4.conf.lo.route_localnet", "1")?;
        host.sysctl("net.ipv4.conf.lo.accept_local", "1")?;
        Ok(Self { host })
    }

    /// The path from the host to itself.
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
            unassigned: (family == Family::V4).then(|| unassigned(family)),
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
    Path { client, server, device: DEVICE, macs, source, destination, unassigned: Some(unassigned(family)) }
}

fn unassigned(family: Family) -> IpAddr {
    pick(family, [198, 51, 100, 1], [0x2001, 0xdb8, 0x100, 0, 0, 0, 0, 1])
}

fn pick(family: Family, v4: [u8; 4], v6: [u16; 8]) -> IpAddr {
    match family {
        Family::V4 => v4.into(),
        Family::V6 => v6.into(),
    }
}

/// Creates a veth pair between two namespaces, with both ends up.
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

/// Makes the client drop what is sent to unassigned addresses; over IPv6 it would otherwise report that it
/// has no route.
fn drop_unassigned(client: &Namespace) -> Result<()> {
    client.ip(&["route add blackhole 198.51.100.0/24", "route add blackhole 2001:db8:100::/64"])
}

/// Sets a host's addresses, and a gateway for everything else.
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

/// What hosts send when they get addresses: each interface reports the groups that its addresses made it join
/// (RFC 3810 §6.1).
struct Silence<'a> {
    hosts: Vec<&'a Namespace>,
    /// The number of multicast packets that each host has sent when all its reports are out.
    due: Vec<u64>,
}

impl<'a> Silence<'a> {
    /// Begins before the addresses are set; each host has this number of interfaces that get some.
    fn due(hosts: &[(&'a Namespace, u64)]) -> Result<Self> {
        /// Reports of one joining: the default of `net.ipv6.mld_qrv`.
        const REPORTS: u64 = 2;
        let due = |(host, interfaces): &(&Namespace, u64)| Ok(multicasts(host)? + interfaces * REPORTS);
        let due = hosts.iter().map(due).collect::<Result<Vec<u64>>>()?;
        Ok(Self { hosts: hosts.iter().map(|(host, _)| *host).collect(), due })
    }

    /// Waits until all reports are out, and no host has sent another multicast packet for a while: a busy
    /// machine may take its time with the first.
    fn wait(&self) -> Result<()> {
        const QUIET: Duration = Duration::from_millis(60);
        let deadline = Instant::now() + Duration::from_secs(5);
        let sent = || self.hosts.iter().map(|host| multicasts(host)).collect::<Result<Vec<_>>>();
        let mut before = sent()?;
        loop {
            thread::sleep(QUIET);
            let now = sent()?;
            if now == before && now.iter().zip(&self.due).all(|(sent, due)| sent >= due) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let due = &self.due;
                bail!("the wire does not fall silent: {before:?}, then {now:?} of {due:?} multicast packets");
            }
            before = now;
        }
    }
}

/// Multicast packets that a host has sent over IPv6.
fn multicasts(host: &Namespace) -> Result<u64> {
    Ok(counters::read(host)?.get("Ip6OutMcastPkts"))
}
