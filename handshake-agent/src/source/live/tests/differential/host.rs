//! The host's side: the engine over memory of our own, and what a hook makes of a frame before it is tracked.

use handshake_common::abi::{Config, MAX_INTERFACES, PortSet, STRIPES, point};
use handshake_common::books::Books;
use handshake_common::memory::{Buckets, Classes, Storage, no_buckets, no_classes};
use handshake_common::wire::{Link, Packet, Slice, parse};

use super::*;

/// The host's memory.
pub(super) struct Host {
    pub(super) config: Config,
    pub(super) slots4: Vec<Slot4>,
    pub(super) slots6: Vec<Slot6>,
    pub(super) stripes: Vec<Shared64>,
    pub(super) services: Vec<ServiceRow>,
    pub(super) books: Box<Books>,
    pub(super) classes: Vec<Classes>,
    pub(super) histograms: Box<[Buckets; Leg::ALL.len()]>,
    pub(super) ports: PortSet,
}

impl Host {
    pub(super) fn new(settings: &Settings, clocks: &Clocks) -> Self {
        fn zeros<T: Default>(count: u32) -> Vec<T> {
            (0..count).map(|_| T::default()).collect()
        }
        let sizes = Sizes::for_flows(settings.max_flows);
        Self {
            config: settings.config(sizes, clocks).expect("settings within bounds"),
            slots4: zeros(sizes.slots4),
            slots6: zeros(sizes.slots6),
            stripes: zeros(STRIPES),
            services: zeros(SERVICES),
            books: Box::default(),
            classes: (0..MAX_INTERFACES).map(|_| no_classes()).collect(),
            histograms: Box::new([const { no_buckets() }; Leg::ALL.len()]),
            ports: settings.port_set(),
        }
    }

    pub(super) fn storage(&self) -> Storage<'_> {
        Storage {
            slots4: &self.slots4,
            slots6: &self.slots6,
            stripes: &self.stripes,
            services: &self.services,
            books: &self.books,
            classes: &self.classes,
            histograms: &self.histograms,
            ports: &self.ports,
        }
    }
}

/// What the kernel side makes of a frame before it is tracked.
pub(super) fn parsed(config: &Config, arrival: &Arrival, bytes: &[u8]) -> Packet {
    const ETHERNET: usize = 14;
    let slice = Slice::whole(bytes);
    let raw = arrival.hook != Hook::Xdp && config.raw_interfaces >> arrival.interface & 1 != 0;
    let mut packet = if raw && !matches!(bytes[ETHERNET - 2..ETHERNET], [0x08, 0x00] | [0x86, 0xdd]) {
        // What the kernel does not call IP is not read.
        Packet { class: Class::NonIp as u8, ..Packet::default() }
    } else if raw {
        // A test run makes an Ethernet frame of it all the same: only its length tells.
        parse(&Slice { bytes: &bytes[ETHERNET..], ..slice }, Link::Ip)
    } else {
        parse(&slice, Link::Ethernet)
    };
    packet.point = point(arrival.interface, arrival.hook == Hook::Egress);
    packet.segments = u16::try_from(arrival.segments.max(1)).expect("as many as the kernel takes");
    packet
}
