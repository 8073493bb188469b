//! The host's side: the engine on ordinary memory, and the hooks' preparation of a frame before it is
//! tracked.

use handshake_common::abi::{Config, point};
use handshake_common::host::HostTables;
use handshake_common::wire::{Link, Packet, Slice, parse};

use super::*;

/// The host's memory, and what it is configured to.
pub(super) struct Host {
    pub(super) config: Config,
    pub(super) tables: HostTables,
}

impl Host {
    pub(super) fn new(settings: &Settings, clocks: &Clocks) -> Self {
        let sizes = Sizes::for_flows(settings.max_flows);
        let tables = HostTables::new(sizes.slots4 as usize, sizes.slots6 as usize);
        Self {
            config: settings.config(sizes, clocks).expect("settings within bounds"),
            tables: HostTables { ports: settings.port_set().to_vec(), ..tables },
        }
    }
}

/// Parses a frame as the kernel side does before it is tracked.
pub(super) fn parsed(config: &Config, arrival: &Arrival, bytes: &[u8]) -> Packet {
    const ETHERNET: usize = 14;
    let slice = Slice::whole(bytes);
    let raw = arrival.hook != Hook::Xdp && config.raw_interfaces >> arrival.interface & 1 != 0;
    let mut packet = if raw && !matches!(bytes[ETHERNET - 2..ETHERNET], [0x08, 0x00] | [0x86, 0xdd]) {
        // A frame that the kernel does not classify as IP is not read.
        Packet { class: Class::NonIp as u8, ..Packet::default() }
    } else if raw {
        // A test run treats it as an Ethernet frame all the same: only its length differs.
        parse(&Slice { bytes: &bytes[ETHERNET..], ..slice }, Link::Ip)
    } else {
        parse(&slice, Link::Ethernet)
    };
    packet.point = point(arrival.interface, arrival.hook == Hook::Egress);
    packet.segments = u16::try_from(arrival.segments.max(1)).expect("as many as the kernel accepts");
    packet
}
