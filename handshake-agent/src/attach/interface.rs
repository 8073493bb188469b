//! Reads the interfaces of this network namespace: their properties, the program on their XDP hook, and which
//! of them the default routes use. Changes nothing.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd as _, OwnedFd};

use libc::{RTM_GETADDR, RTM_GETLINK, RTM_GETROUTE, RTM_NEWADDR, RTM_NEWLINK, RTM_NEWROUTE};
use strsim::levenshtein;

use crate::attach::tunnel;
use crate::error::Error;
use crate::netlink::{
    Message, MessageBody, Netlink, ROUTE, Refusal, attributes, find, link_header, text, u16_at, u32_at,
    u64_at,
};

/// `IFLA_XDP_ATTACHED` and `IFLA_XDP_PROG_ID`, attributes inside `IFLA_XDP`.
const XDP_ATTACHED: u16 = 2;
const XDP_PROGRAM: u16 = 4;
/// `IFLA_INFO_KIND` and `IFLA_INFO_DATA`, attributes inside `IFLA_LINKINFO`.
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
/// Index of `rx_missed_errors` in `struct rtnl_link_stats64`, in 8-byte words.
const RX_MISSED: usize = 15;
/// Sizes of `struct ifinfomsg`, `struct rtmsg` and `struct rtnexthop`, bytes.
const LINK_HEADER: usize = 16;
const ADDRESS_HEADER: usize = 8;
const ROUTE_HEADER: usize = 12;
const NEXT_HOP: usize = 8;
/// The values of `IF_OPER_*` from 0, as ip(8) spells them.
const OPERSTATES: [&str; 7] = ["unknown", "notpresent", "down", "lowerlayerdown", "testing", "dormant", "up"];

/// Bits of a link's flags (`ifi_flags`).
const IFF_UP: u32 = 1;
const IFF_LOWER_UP: u32 = 1 << 16;

/// How an attached XDP program is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpMode {
    /// In the driver.
    Native,
    /// In the network stack. The frames that TC ingress sees then begin at the IP header.
    Generic,
    /// On the device.
    Offloaded,
    /// In several of these modes, with one program each.
    Several,
}

impl XdpMode {
    /// Converts `XDP_ATTACHED_*`; `None` if nothing is attached.
    fn from_kernel(value: u8) -> Option<Self> {
        match value {
            1 => Some(Self::Native),
            2 => Some(Self::Generic),
            3 => Some(Self::Offloaded),
            4 => Some(Self::Several),
            _ => None,
        }
    }

    /// The word for it in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
            Self::Offloaded => "offloaded",
            Self::Several => "several modes",
        }
    }
}

/// A program on an XDP hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XdpProgram {
    /// The mode in which it is run.
    pub mode: XdpMode,
    /// Its id; 0 if several modes have one program each.
    pub id: u32,
}

/// An interface before anything of ours is attached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InterfaceInfo {
    /// The interface's name.
    pub name: String,
    /// Its alternative names (`altname` in ip(8)).
    pub alternatives: Vec<String>,
    /// Its index in the network namespace.
    pub index: u32,
    /// `ARPHRD_*`: the type of its link-layer header.
    pub arphrd: u16,
    /// The largest IP packet that it sends, bytes.
    pub mtu: u32,
    /// Whether it is a loopback device: packets of both directions pass its ingress.
    pub is_loopback: bool,
    /// Whether it has no device behind it (`/sys/class/net/IF/device`).
    pub is_virtual: bool,
    /// Whether its frames begin at the IP header.
    pub raw: bool,
    /// Whether it is administratively up (`IFF_UP`).
    pub is_up: bool,
    /// Whether it has a carrier (`IFF_LOWER_UP`).
    pub has_carrier: bool,
    /// The operational state of RFC 2863. The kernel updates it up to a second late.
    pub operstate: &'static str,
    /// The name of its driver, if it has one.
    pub driver: Option<String>,
    /// The bits of `enum netdev_xdp_act`; `None` if the kernel does not report them (before 6.3).
    pub xdp_features: Option<u64>,
    /// The program on its XDP hook, if any.
    pub xdp: Option<XdpProgram>,
    /// What kind of software device it is, as ip-link(8) has it: `bridge`, `veth`; `None` of hardware.
    pub kind: Option<String>,
    /// Of a tunnel that is bound to the interface that its packets leave by: the index of that.
    pub below: Option<u32>,
    /// Packets that the device has lost before any hook, since it was created: `rx_missed_errors`.
    /// `rx_dropped` is left out, because it also counts packets that the stack drops after our hook.
    pub rx_missed: u64,
}

impl InterfaceInfo {
    /// Whether a foreign generic XDP program runs here: the frames that TC ingress sees then begin at the IP
    /// header.
    pub fn foreign_generic_xdp(&self) -> bool {
        self.xdp.is_some_and(|xdp| matches!(xdp.mode, XdpMode::Generic | XdpMode::Several))
    }

    /// Whether the driver supports native XDP; `None` if the kernel does not report it.
    pub fn native_xdp(&self) -> Option<bool> {
        /// `NETDEV_XDP_ACT_BASIC`.
        const BASIC: u64 = 1;
        self.xdp_features.map(|features| features & BASIC != 0)
    }

    /// Whether this is its name or one of its alternative names.
    pub(super) fn is_called(&self, name: &str) -> bool {
        self.name == name || self.alternatives.iter().any(|a| a == name)
    }
}

/// All interfaces, in the kernel's order.
///
/// # Errors
///
/// [`Error::System`] if the kernel does not answer.
pub fn list() -> Result<Vec<InterfaceInfo>, Error> {
    read_links(0).map_err(|refusal| Error::system("list the interfaces")(refusal.into()))
}

/// An interface with what only its driver says of it.
pub(super) fn known_by_driver(info: InterfaceInfo) -> InterfaceInfo {
    let (driver, xdp_features) = (driver(&info.name), super::features::xdp_features(info.index));
    InterfaceInfo { driver, xdp_features, ..info }
}

/// The IP addresses of this thread's network namespace.
///
/// # Errors
///
/// The kernel refuses to list them.
pub fn addresses() -> Result<Vec<IpAddr>, Error> {
    read_addresses().map_err(|refusal| Error::system("list the addresses")(refusal.into()))
}

/// The present state of one interface.
///
/// # Errors
///
/// `ENODEV` if there is no such interface; other errors of netlink.
pub fn by_index(index: u32) -> io::Result<InterfaceInfo> {
    let link = read_links(index)?.into_iter().next();
    link.ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV))
}

/// The present state of one interface, by a socket that is open already.
///
/// # Errors
///
/// `ENODEV` if there is no such interface; other errors of netlink.
pub(super) fn read_link(netlink: &mut Netlink, index: u32) -> Result<InterfaceInfo, Refusal> {
    let answers = netlink.request(RTM_GETLINK, 0, MessageBody::new(&link_header(index)).bytes())?;
    let link = answers.iter().filter(|m| m.kind == RTM_NEWLINK).find_map(parse_link);
    link.ok_or(Refusal { errno: libc::ENODEV, words: None })
}

/// The error for a name that no interface has.
///
/// # Errors
///
/// As [`list`].
pub(super) fn unknown(name: &str) -> Result<Error, Error> {
    Ok(Error::UnknownInterface { name: name.to_owned(), close: closest(&list()?, name) })
}

/// The names to suggest, closest first.
pub(super) fn closest(all: &[InterfaceInfo], name: &str) -> Vec<String> {
    /// As many names as fit on a line.
    const MOST: usize = 8;
    let mut names: Vec<_> =
        all.iter().map(|info| (levenshtein(&info.name, name), info.name.clone())).collect();
    names.sort_by_key(|(distance, _)| *distance);
    names.into_iter().take(MOST).map(|(_, name)| name).collect()
}

/// Reads one link by its index, or all links if `index` is 0.
fn read_links(index: u32) -> Result<Vec<InterfaceInfo>, Refusal> {
    let mut netlink = Netlink::open(ROUTE)?;
    let body = MessageBody::new(&link_header(index));
    let answers = match index {
        0 => netlink.dump(RTM_GETLINK, body.bytes())?,
        _ => netlink.request(RTM_GETLINK, 0, body.bytes())?,
    };
    Ok(answers.iter().filter(|m| m.kind == RTM_NEWLINK).filter_map(parse_link).collect())
}

fn parse_link(message: &Message) -> Option<InterfaceInfo> {
    let arphrd = u16_at(&message.body, 2)?;
    let flags = u32_at(&message.body, 8)?;
    let mut info = InterfaceInfo {
        index: u32_at(&message.body, 4)?,
        is_up: flags & IFF_UP != 0,
        has_carrier: flags & IFF_LOWER_UP != 0,
        arphrd,
        is_loopback: arphrd == libc::ARPHRD_LOOPBACK,
        is_virtual: true,
        raw: arphrd != libc::ARPHRD_ETHER && arphrd != libc::ARPHRD_LOOPBACK,
        operstate: OPERSTATES[0],
        ..InterfaceInfo::default()
    };
    for (kind, value) in attributes(message.body.get(LINK_HEADER..)?) {
        match kind {
            libc::IFLA_IFNAME => info.name = text(value),
            libc::IFLA_MTU => info.mtu = u32_at(value, 0)?,
            libc::IFLA_OPERSTATE => info.operstate = operstate(value),
            libc::IFLA_PARENT_DEV_NAME => info.is_virtual = false,
            libc::IFLA_PROP_LIST => {
                info.alternatives = attributes(value).map(|(_, name)| text(name)).collect()
            }
            libc::IFLA_LINKINFO => {
                info.kind = find(value, INFO_KIND).map(text);
                let data = find(value, INFO_DATA).unwrap_or_default();
                info.below = info.kind.as_deref().and_then(|kind| tunnel::below(kind, data));
            }
            libc::IFLA_STATS64 => info.rx_missed = u64_at(value, 8 * RX_MISSED)?,
            libc::IFLA_XDP => info.xdp = parse_xdp(value),
            _ => {}
        }
    }
    Some(info)
}

/// The addresses of this network namespace, loopback included.
///
/// # Errors
/// What the kernel refuses.
pub(crate) fn read_addresses() -> Result<Vec<IpAddr>, Refusal> {
    let all_families = [0; ADDRESS_HEADER];
    let answers = Netlink::open(ROUTE)?.dump(RTM_GETADDR, &all_families)?;
    Ok(answers.iter().filter(|m| m.kind == RTM_NEWADDR).filter_map(parse_address).collect())
}

/// The interface's own address: with a peer that is `IFA_LOCAL`, and `IFA_ADDRESS` is the peer's.
fn parse_address(message: &Message) -> Option<IpAddr> {
    let family = libc::c_int::from(*message.body.first()?);
    let rest = message.body.get(ADDRESS_HEADER..)?;
    let value = find(rest, libc::IFA_LOCAL).or_else(|| find(rest, libc::IFA_ADDRESS))?;
    match family {
        libc::AF_INET => Some(Ipv4Addr::from(*value.first_chunk()?).into()),
        libc::AF_INET6 => Some(Ipv6Addr::from(*value.first_chunk::<16>()?).into()),
        _ => None,
    }
}

fn operstate(value: &[u8]) -> &'static str {
    value.first().and_then(|v| OPERSTATES.get(usize::from(*v))).unwrap_or(&OPERSTATES[0])
}

fn parse_xdp(value: &[u8]) -> Option<XdpProgram> {
    let mode = XdpMode::from_kernel(*find(value, XDP_ATTACHED)?.first()?)?;
    let id = find(value, XDP_PROGRAM).and_then(|id| u32_at(id, 0)).unwrap_or(0);
    Some(XdpProgram { mode, id })
}

/// The interfaces of the default routes: those of the main table, then those of the tables of policy routing
/// (ip-rule(8)), IPv4 before IPv6, each once.
pub(super) fn default_routes() -> Result<Vec<u32>, Refusal> {
    let mut netlink = Netlink::open(ROUTE)?;
    let mut routes = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        let mut header = [0; ROUTE_HEADER];
        header[0] = u8::try_from(family).unwrap_or_default();
        let answers = netlink.dump(RTM_GETROUTE, MessageBody::new(&header).bytes())?;
        routes.extend(answers.iter().filter_map(default_route));
    }
    routes.sort_by_key(|route| !route.is_main);
    let mut indexes = Vec::new();
    for index in routes.into_iter().flat_map(|route| route.indexes) {
        if !indexes.contains(&index) {
            indexes.push(index);
        }
    }
    Ok(indexes)
}

/// A unicast default route.
#[derive(Debug, PartialEq, Eq)]
struct DefaultRoute {
    /// Whether it is of the main table, and not of one that only some packets are routed by.
    is_main: bool,
    indexes: Vec<u32>,
}

/// The default route of a message; `None` if it is another route, or one of the kernel's own table.
fn default_route(message: &Message) -> Option<DefaultRoute> {
    let (header, rest) = (message.body.first_chunk::<8>()?, message.body.get(ROUTE_HEADER..)?);
    let [_, prefix, _, _, table, _, _, kind] = *header;
    if message.kind != RTM_NEWROUTE
        || prefix != 0
        || table == libc::RT_TABLE_LOCAL
        || kind != libc::RTN_UNICAST
    {
        return None;
    }
    let hops = find(rest, libc::RTA_MULTIPATH).map(next_hops).unwrap_or_default();
    let direct = find(rest, libc::RTA_OIF).and_then(|oif| u32_at(oif, 0));
    let indexes = direct.into_iter().chain(hops).collect();
    Some(DefaultRoute { is_main: table == libc::RT_TABLE_MAIN, indexes })
}

/// The interfaces in an array of `struct rtnexthop`.
fn next_hops(mut bytes: &[u8]) -> Vec<u32> {
    let mut indexes = Vec::new();
    while let (Some(length), Some(index)) = (u16_at(bytes, 0), u32_at(bytes, 4)) {
        indexes.push(index);
        let step = usize::from(length).max(NEXT_HOP).next_multiple_of(4);
        bytes = bytes.get(step..).unwrap_or_default();
    }
    indexes
}

/// The driver's name, read by ethtool; `None` for a device without ethtool operations.
fn driver(name: &str) -> Option<String> {
    /// `ETHTOOL_GDRVINFO`, the size of `struct ethtool_drvinfo`, and the place of the driver's name in it,
    /// bytes.
    const COMMAND: u32 = 3;
    const SIZE: usize = 196;
    const NAME: std::ops::Range<usize> = 4..36;
    let mut answer = [0_u8; SIZE];
    answer[..4].copy_from_slice(&COMMAND.to_ne_bytes());
    let socket: OwnedFd = std::os::unix::net::UnixDatagram::unbound().ok()?.into();
    // SAFETY: ifreq is plain data; all zeroes are an empty name and a null pointer.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let bytes = name.as_bytes();
    if bytes.len() >= request.ifr_name.len() {
        return None;
    }
    for (to, from) in request.ifr_name.iter_mut().zip(bytes) {
        // Signed on x86-64, not so on arm64.
        *to = libc::c_char::from_ne_bytes([*from]);
    }
    request.ifr_ifru.ifru_data = answer.as_mut_ptr().cast();
    // SAFETY: the name is shorter than its array, so it is NUL-terminated. `ifru_data` points to `answer`,
    // which outlives the call and is as large as the structure that ETHTOOL_GDRVINFO writes.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
    (result == 0).then(|| text(&answer[NAME])).filter(|driver| !driver.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(names: &[&str]) -> Vec<InterfaceInfo> {
        let one = |(index, name): (u32, &&str)| InterfaceInfo {
            name: (*name).into(),
            index,
            alternatives: vec![format!("{name}-alt")],
            ..InterfaceInfo::default()
        };
        (1..).zip(names).map(one).collect()
    }

    #[test]
    fn the_closest_names_come_first() {
        let all = named(&["lo", "wg0", "eth0", "eth1"]);
        assert_eq!(closest(&all, "eth9"), ["eth0", "eth1", "lo", "wg0"]);
    }

    #[test]
    fn an_address_is_the_interfaces_own_and_not_its_peers() {
        let message = |family: i32, attributes: &[(u16, &[u8])]| {
            let mut header = [0; ADDRESS_HEADER];
            header[0] = u8::try_from(family).expect("a small number");
            let body = attributes
                .iter()
                .fold(MessageBody::new(&header), |body, (kind, value)| body.with(*kind, value));
            Message { kind: RTM_NEWADDR, body: body.bytes().to_vec() }
        };
        let (own, peer) = ([192, 0, 2, 1], [192, 0, 2, 2]);
        let v6 = "2001:db8::1".parse::<Ipv6Addr>().expect("an address");
        let table = [
            (
                message(libc::AF_INET, &[(libc::IFA_ADDRESS, &peer), (libc::IFA_LOCAL, &own)]),
                Some(own.into()),
            ),
            (message(libc::AF_INET6, &[(libc::IFA_ADDRESS, &v6.octets())]), Some(v6.into())),
            (message(libc::AF_INET6, &[(libc::IFA_ADDRESS, &own)]), None),
            (message(libc::AF_INET, &[(libc::IFA_LABEL, b"eth0\0")]), None),
            (message(libc::AF_PACKET, &[(libc::IFA_ADDRESS, &own)]), None),
        ];
        for (message, expected) in &table {
            assert_eq!(parse_address(message), *expected, "{message:?}");
        }
    }

    /// Messages as Linux 6.1 sends them, as far as they are read: a VXLAN bound to an interface, one that is not,
    /// and a GRE device.
    #[test]
    fn a_tunnel_is_known_by_its_kind_and_the_interface_below() {
        let link = |name: &str, kind: &str, data: &[(u16, u32)]| {
            let mut header = [0; LINK_HEADER];
            header[4] = 7;
            header[8] = 1;
            let add = |body: MessageBody, (kind, value): &(u16, u32)| body.with(*kind, &value.to_ne_bytes());
            let data = data.iter().fold(MessageBody::default(), add);
            let kind = MessageBody::default().with(INFO_KIND, format!("{kind}\0").as_bytes());
            let body = MessageBody::new(&header).with(libc::IFLA_IFNAME, format!("{name}\0").as_bytes());
            let body = body.nest(libc::IFLA_LINKINFO, &kind.nest(INFO_DATA, &data));
            parse_link(&Message { kind: RTM_NEWLINK, body: body.bytes().to_vec() }).expect("a link")
        };
        // IFLA_VXLAN_ID, IFLA_VXLAN_LINK; IFLA_GRE_LINK; a veth has no such data.
        let table = [
            (link("flannel.1", "vxlan", &[(1, 1), (3, 2)]), Some(2)),
            (link("vxlan.calico", "vxlan", &[(1, 4_096)]), None),
            (link("gre1", "gre", &[(1, 3), (4, 9)]), Some(3)),
            (link("gre0", "gre", &[(1, 0)]), None),
            (link("geneve1", "geneve", &[(1, 5), (3, 6)]), None),
            (link("veth1", "veth", &[(1, 3)]), None),
        ];
        for (info, below) in table {
            assert_eq!((info.index, info.is_up, info.below), (7, true, below), "{info:?}");
        }
    }

    /// A route message with this prefix length, table, type and attribute.
    fn route(prefix: u8, table: u8, kind: u8, attribute: u16, value: &[u8]) -> Message {
        let header = [2, prefix, 0, 0, table, 0, 0, kind, 0, 0, 0, 0];
        Message {
            kind: RTM_NEWROUTE,
            body: MessageBody::new(&header).with(attribute, value).bytes().to_vec(),
        }
    }

    #[test]
    fn unicast_default_routes_count_but_for_those_of_the_kernels_own_table() {
        let oif = 5_u32.to_ne_bytes();
        let hop = |index: u32| [&8_u16.to_ne_bytes()[..], &[0, 0], &index.to_ne_bytes()].concat();
        let found = |is_main, indexes: &[u32]| Some(DefaultRoute { is_main, indexes: indexes.to_vec() });
        let table = [
            (route(0, 254, 1, libc::RTA_OIF, &oif), found(true, &[5])),
            (route(0, 100, 1, libc::RTA_OIF, &oif), found(false, &[5])),
            (route(24, 254, 1, libc::RTA_OIF, &oif), None),
            (route(0, 255, 1, libc::RTA_OIF, &oif), None),
            (route(0, 254, 7, libc::RTA_OIF, &oif), None),
            (route(0, 254, 1, libc::RTA_MULTIPATH, &[hop(3), hop(4)].concat()), found(true, &[3, 4])),
        ];
        for (message, expected) in &table {
            assert_eq!(default_route(message), *expected, "{message:?}");
        }
    }
}
