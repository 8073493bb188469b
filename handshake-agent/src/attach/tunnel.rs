//! Devices that carry traffic inside other packets: on the interface below them only the outside is seen, such as
//! UDP of VXLAN.

use crate::netlink::{find, u32_at};

/// A kind of tunnel.
struct Kind {
    /// As ip-link(8) has it.
    name: &'static str,
    /// The attribute of its data that holds the interface below (`IFLA_VXLAN_LINK`, `IFLA_GRE_LINK`,
    /// `IFLA_IPTUN_LINK`), where it can be bound to one.
    link: Option<u16>,
    /// What it is outside.
    outside: &'static str,
}

#[rustfmt::skip]
const KINDS: [Kind; 12] = [
    Kind { name: "vxlan", link: Some(3), outside: "UDP" },
    Kind { name: "geneve", link: None, outside: "UDP" },
    Kind { name: "wireguard", link: None, outside: "UDP" },
    Kind { name: "bareudp", link: None, outside: "UDP" },
    Kind { name: "gre", link: Some(1), outside: "GRE" },
    Kind { name: "gretap", link: Some(1), outside: "GRE" },
    Kind { name: "ip6gre", link: Some(1), outside: "GRE" },
    Kind { name: "ip6gretap", link: Some(1), outside: "GRE" },
    Kind { name: "ipip", link: Some(1), outside: "IP in IP" },
    Kind { name: "sit", link: Some(1), outside: "IP in IP" },
    Kind { name: "ip6tnl", link: Some(1), outside: "IP in IP" },
    Kind { name: "vti", link: Some(1), outside: "ESP" },
];

/// What a tunnel of this kind is outside; `None` of what is no tunnel.
#[must_use]
pub fn outside(kind: &str) -> Option<&'static str> {
    of_kind(kind).map(|kind| kind.outside)
}

/// The interface below a tunnel that is bound to one, from the data of its kind (`IFLA_INFO_DATA`).
pub(super) fn below(kind: &str, data: &[u8]) -> Option<u32> {
    let index = u32_at(find(data, of_kind(kind)?.link?)?, 0)?;
    (index > 0).then_some(index)
}

fn of_kind(name: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.name == name)
}
