//! Tunnels of which `watch` would see the outside alone: the device inside is named.

use handshake_agent::attach::interface::InterfaceInfo;
use handshake_agent::attach::tunnel::outside;

use super::{Finding, Level};

/// A finding for each tunnel among all interfaces whose outside is watched, and whose inside is not.
pub(super) fn judge(watched: &[InterfaceInfo], all: &[InterfaceInfo]) -> Vec<Finding> {
    unwatched(watched, all).iter().map(finding).collect()
}

fn finding(Inner { device, leaves_by, carrier }: &Inner<'_>) -> Finding {
    let (name, kind) = (&device.name, device.kind.as_deref().unwrap_or_default());
    let outside = leaves_by.join(" and ");
    let text = format!(
        "{name} ({kind}) carries traffic inside the {carrier} of {outside}: only the outside is seen"
    );
    Finding::bad(Level::Warn, text, format!("watch it as well: -i {name}"))
}

/// What joins guests and pods of this host.
const BRIDGE: &str = "bridge";

/// A tunnel of which only the outside is watched.
#[derive(Debug, PartialEq, Eq)]
struct Inner<'a> {
    /// The device inside.
    device: &'a InterfaceInfo,
    /// The interfaces that are watched, and that its packets may pass.
    leaves_by: Vec<&'a str>,
    /// What they are there.
    carrier: &'static str,
}

/// The tunnels among all interfaces that are up and not watched themselves, while what they may leave by is.
fn unwatched<'a>(watched: &'a [InterfaceInfo], all: &'a [InterfaceInfo]) -> Vec<Inner<'a>> {
    let is_watched = |info: &InterfaceInfo| watched.iter().any(|each| each.index == info.index);
    let inner = |device: &'a InterfaceInfo| {
        let carrier = outside(device.kind.as_deref()?)?;
        let carries = |info: &&InterfaceInfo| {
            let is_inside = |kind: &str| kind == BRIDGE || outside(kind).is_some();
            let is_outside = !info.is_loopback && !info.kind.as_deref().is_some_and(is_inside);
            device.below.map_or(is_outside, |below| info.index == below)
        };
        let leaves_by: Vec<&str> = watched.iter().filter(carries).map(|info| info.name.as_str()).collect();
        let is_unwatched = device.is_up && !is_watched(device) && !leaves_by.is_empty();
        is_unwatched.then_some(Inner { device, leaves_by, carrier })
    };
    all.iter().filter_map(inner).collect()
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
                format!("{} in {} of {}", inner.device.name, inner.carrier, inner.leaves_by.join(","))
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
        let findings = judge(&all[1..2], &all);
        assert_eq!(
            findings[0].text,
            "flannel.1 (vxlan) carries traffic inside the UDP of eth0: only the outside is seen"
        );
        assert_eq!(findings[0].fix.as_deref(), Some("watch it as well: -i flannel.1"));
    }
}
