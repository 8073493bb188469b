//! The host's side: the engine on ordinary memory, and the hooks' preparation of a frame before it is
//! tracked.

use handshake_common::abi::{Config, option};
use handshake_common::host::HostTables;
use handshake_common::interface::point;
use handshake_common::wire::{Link, Packet, Slice, has_wrong_checksum, note, parse};

use std::os::unix::fs::MetadataExt as _;

use super::*;

/// The host's memory, and what it is configured to.
pub(super) struct Host {
    pub(super) config: Config,
    pub(super) tables: HostTables,
}

impl Host {
    pub(super) fn new(settings: &Settings) -> Self {
        let sizes = Sizes::for_flows(settings.max_flows);
        let tables = HostTables::new(sizes.slots4 as usize, sizes.slots6 as usize);
        Self {
            config: settings.config(sizes, HZ).expect("settings within bounds"),
            tables: HostTables {
                ports: settings.port_set().to_vec(),
                owners4: no_owners(sizes.slots4),
                owners6: no_owners(sizes.slots6),
                ..tables
            },
        }
    }
}

fn no_owners(slots: u32) -> Vec<[Shared64; 2]> {
    (0..slots).map(|_| [const { Shared64::new(0) }; 2]).collect()
}

/// The control group of this process: a test run at TC gives its frame a socket of it.
pub(super) fn own_group() -> u64 {
    let text = std::fs::read_to_string("/proc/self/cgroup").expect("the groups of this process");
    let path = text.lines().find_map(|line| line.strip_prefix("0::/")).expect("that of cgroup v2");
    let folders = crate::owner::folders();
    std::fs::metadata(folders[0].join(path)).expect("the group's folder").ino()
}

/// Parses a frame as the kernel side does before it is tracked.
pub(super) fn parsed(
    config: &Config,
    interface: WatchedInterface,
    arrival: &Arrival,
    bytes: &[u8],
) -> Packet {
    const ETHERNET: usize = 14;
    let slice = Slice::whole(bytes);
    let raw = arrival.hook != Hook::Xdp && interface.raw;
    // A test run treats a frame without a link header as an Ethernet frame all the same: only its length
    // differs.
    let (frame, link) = if raw {
        (Slice { bytes: bytes.get(ETHERNET..).unwrap_or_default(), ..slice }, Link::Ip)
    } else {
        (slice, Link::Ethernet)
    };
    let mut packet = if raw && !matches!(bytes[ETHERNET - 2..ETHERNET], [0x08, 0x00] | [0x86, 0xdd]) {
        // A frame that the kernel does not classify as IP is not read.
        Packet { class: Class::NonIp as u8, ..Packet::default() }
    } else {
        parse(&frame, link)
    };
    packet.point = point(interface.group, arrival.hook == Hook::Egress);
    packet.segments = u16::try_from(arrival.segments.max(1)).expect("as many as the kernel accepts");
    if arrival.segments == 0 {
        packet.divide(arrival.segment_size);
    }
    let is_verified = config.options & option::CHECKSUMS != 0
        && arrival.hook != Hook::Egress
        && arrival.segment_size == 0
        && packet.has_checksum();
    if is_verified && has_wrong_checksum(&frame, link) {
        packet.note = note::BAD_CHECKSUM;
    }
    packet
}
