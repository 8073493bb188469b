//! Devices that carry traffic inside other packets: on the interface below them only the outside is seen, such as
//! UDP of VXLAN.

use crate::attach::interface::InterfaceInfo;
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

/// What joins guests and pods of this host.
const BRIDGE: &str = "bridge";

/// A tunnel of which only the outside is watched.
#[derive(Debug, PartialEq, Eq)]
pub struct Inner<'a> {
    /// The device inside.
    pub device: &'a InterfaceInfo,
    /// The interfaces that are watched, and that its packets may pass.
    pub outside: Vec<&'a str>,
    /// What they are there.
    pub carrier: &'static str,
}

/// The tunnels among all interfaces that are up and not watched themselves, while what they may leave by is.
#[must_use]
pub fn unwatched<'a>(watched: &'a [InterfaceInfo], all: &'a [InterfaceInfo]) -> Vec<Inner<'a>> {
    let is_watched = |info: &InterfaceInfo| watched.iter().any(|each| each.index == info.index);
    let inner = |device: &'a InterfaceInfo| {
        let carrier = of_kind(device.kind.as_deref()?)?.outside;
        let carries = |info: &&InterfaceInfo| {
            let is_inside = |kind: &str| kind == BRIDGE || of_kind(kind).is_some();
            let is_outside = !info.is_loopback && !info.kind.as_deref().is_some_and(is_inside);
            device.below.map_or(is_outside, |below| info.index == below)
        };
        let outside: Vec<&str> = watched.iter().filter(carries).map(|info| info.name.as_str()).collect();
        let is_unwatched = device.is_up && !is_watched(device) && !outside.is_empty();
        is_unwatched.then_some(Inner { device, outside, carrier })
    };
    all.iter().filter_map(inner).collect()
}

/// The interface below a tunnel that is bound to one, from the data of its kind (`IFLA_INFO_DATA`).
pub(super) fn below(kind: &str, data: &[u8]) -> Option<u32> {
    let index = u32_at(find(data, of_kind(kind)?.link?)?, 0)?;
    (index > 0).then_some(index)
}

fn of_kind(name: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(index: u32, name: &str, kind: Option<&str>, below: Option<u32>) -> InterfaceInfo {
        let (name, kind) = (name.to_owned(), kind.map(str::to_owned));
        InterfaceInfo { name, kind, index, below, is_up: true, ..InterfaceInfo::default() }
    }

    /// What is inside is named once, with each interface that it may leave by; and not where it is watched, is
    /// down, is bound to another interface, or is no tunnel.
    #[test]
    fn the_inside_of_what_is_watched_is_named() {
        let all = [
            InterfaceInfo { is_loopback: true, ..device(1, "lo", None, None) },
            device(2, "eth0", None, None),
            device(3, "eth1", None, None),
            device(4, "flannel.1", Some("vxlan"), Some(2)),
            device(5, "cilium_geneve", Some("geneve"), None),
            device(6, "wg0", Some("wireguard"), None),
            InterfaceInfo { is_up: false, ..device(7, "tunl0", Some("ipip"), None) },
            device(8, "gre1", Some("gre"), Some(3)),
            device(9, "cni0", Some("bridge"), None),
        ];
        let named = |indexes: &[u32]| -> Vec<String> {
            let watched: Vec<_> = all.iter().filter(|info| indexes.contains(&info.index)).cloned().collect();
            let told = |inner: Inner<'_>| {
                format!("{} in {} of {}", inner.device.name, inner.carrier, inner.outside.join(","))
            };
            unwatched(&watched, &all).into_iter().map(told).collect()
        };
        let both = ["cilium_geneve in UDP of eth0,eth1", "wg0 in UDP of eth0,eth1"];
        assert_eq!(
            named(&[2]),
            ["flannel.1 in UDP of eth0", "cilium_geneve in UDP of eth0", "wg0 in UDP of eth0"]
        );
        assert_eq!(named(&[2, 3, 4]), [both[0], both[1], "gre1 in GRE of eth1"]);
        assert_eq!(named(&[1]), [""; 0]);
        assert_eq!(named(&[4, 9]), [""; 0]);
    }
}
