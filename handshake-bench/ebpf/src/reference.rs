//! The usual way to track flows in the kernel, well done; handshake is compared with it. It has an LRU hash
//! map with a key for both address families, one precise clock, per-CPU counters, and packets and bytes per
//! direction.

use aya_ebpf::Global;
use aya_ebpf::btf_maps::{LruHashMap, PerCpuArray};
use aya_ebpf::helpers::bpf_ktime_get_ns;
use aya_ebpf::macros::btf_map;

use crate::packet::LinearPacket;

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// One counter per kind of packet: the TCP flags' six bits, and the classes below.
const CLASSES: usize = 128;
const CLASS_UDP: u32 = 64;
const CLASS_OTHER: u32 = 65;
const CLASS_FRAGMENT: u32 = 66;
const CLASS_NON_IP: u32 = 67;
const CLASS_FILTERED: u32 = 68;

const FIN_SYN_RST: u8 = 0x07;
const SYN: u8 = 0x02;

/// Both ends in canonical order, IPv4 addresses mapped into IPv6: 40 bytes.
#[repr(C)]
struct Key {
    low: [u32; 4],
    high: [u32; 4],
    ports: u32,
    protocol: u32,
}

#[repr(C)]
struct ReferenceFlow {
    first_ns: u64,
    last_ns: u64,
    handshake_ns: u64,
    packets: [u64; 2],
    bytes: [u64; 2],
    flags: u32,
    syns: u32,
}

#[btf_map]
static FLOWS: LruHashMap<Key, ReferenceFlow, 524_288> = LruHashMap::new();
#[btf_map]
static REFERENCE_CLASSES: PerCpuArray<u64, CLASSES> = PerCpuArray::new();

/// The port filter: only flows with this port at one end are tracked; 0: all.
#[unsafe(no_mangle)]
static REFERENCE_PORT: Global<u16> = Global::new(0);

/// A parsed packet of a flow.
struct ReferencePacket {
    source: [u32; 4],
    destination: [u32; 4],
    /// The ports of source and destination, in host order.
    ports: (u16, u16),
    protocol: u8,
    flags: u8,
    bytes: u16,
}

/// Counts a packet by class, and tracks its flow.
#[inline(always)]
pub(crate) fn track(frame: LinearPacket) {
    match parse(frame) {
        Ok(packet) => {
            count(if packet.protocol == TCP { u32::from(packet.flags & 0x3f) } else { CLASS_UDP });
            if is_wanted(&packet) {
                store(&packet);
            } else {
                count(CLASS_FILTERED);
            }
        }
        Err(class) => count(class),
    }
}

#[inline(always)]
fn is_wanted(packet: &ReferencePacket) -> bool {
    let port = REFERENCE_PORT.load();
    port == 0 || packet.ports.0 == port || packet.ports.1 == port
}

#[inline(always)]
fn count(class: u32) {
    if let Some(packets) = REFERENCE_CLASSES.get_ptr_mut(class) {
        // SAFETY: the element lives as long as the map, and only this CPU writes it.
        unsafe { *packets += 1 };
    }
}

/// The packet, or the class of a packet that belongs to no flow.
#[inline(always)]
fn parse(frame: LinearPacket) -> Result<ReferencePacket, u32> {
    const ETHERTYPE: usize = 12;
    let ethertype = frame.read::<u16>(ETHERTYPE).ok_or(CLASS_NON_IP)?;
    match u16::from_be(ethertype) {
        IPV4 => parse4(frame),
        IPV6 => parse6(frame),
        _ => Err(CLASS_NON_IP),
    }
}

#[inline(always)]
fn parse4(frame: LinearPacket) -> Result<ReferencePacket, u32> {
    let first: u8 = frame.read(14).ok_or(CLASS_OTHER)?;
    let fragment: u16 = frame.read(20).ok_or(CLASS_OTHER)?;
    if u16::from_be(fragment) & 0x1fff != 0 {
        return Err(CLASS_FRAGMENT);
    }
    let address = |offset| frame.read::<u32>(offset).map(|word| [0, 0, 0xffff, word.to_be()]);
    let source = address(26).ok_or(CLASS_OTHER)?;
    let destination = address(30).ok_or(CLASS_OTHER)?;
    let bytes = u16::from_be(frame.read(16).ok_or(CLASS_OTHER)?);
    let protocol = frame.read(23).ok_or(CLASS_OTHER)?;
    parse_ports(frame, 14 + (usize::from(first) & 0xf) * 4, protocol, (source, destination), bytes)
}

#[inline(always)]
fn parse6(frame: LinearPacket) -> Result<ReferencePacket, u32> {
    let source = frame.read::<[u32; 4]>(22).ok_or(CLASS_OTHER)?;
    let destination = frame.read::<[u32; 4]>(38).ok_or(CLASS_OTHER)?;
    let bytes = u16::from_be(frame.read(18).ok_or(CLASS_OTHER)?).wrapping_add(40);
    let protocol = frame.read(20).ok_or(CLASS_OTHER)?;
    let host =
        |address: [u32; 4]| [address[0].to_be(), address[1].to_be(), address[2].to_be(), address[3].to_be()];
    parse_ports(frame, 54, protocol, (host(source), host(destination)), bytes)
}

#[inline(always)]
fn parse_ports(
    frame: LinearPacket,
    transport: usize,
    protocol: u8,
    addresses: ([u32; 4], [u32; 4]),
    bytes: u16,
) -> Result<ReferencePacket, u32> {
    if protocol != TCP && protocol != UDP {
        return Err(CLASS_OTHER);
    }
    let port = |offset| frame.read::<u16>(transport + offset).map(u16::from_be).ok_or(CLASS_OTHER);
    let flags = if protocol == TCP { frame.read(transport + 13).ok_or(CLASS_OTHER)? } else { 0 };
    let (source, destination) = addresses;
    Ok(ReferencePacket { source, destination, ports: (port(0)?, port(2)?), protocol, flags, bytes })
}

#[inline(always)]
fn store(packet: &ReferencePacket) {
    let (key, side) = key(packet);
    // SAFETY: the helper has no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    match FLOWS.get_ptr_mut(&key) {
        Some(flow) => {
            // SAFETY: an entry stays readable and writable until the program ends. Two CPUs may update its
            // counters at once and lose an update, as in every tracker of this kind.
            update(unsafe { &mut *flow }, packet, side, now);
        }
        None => {
            let mut flow = ReferenceFlow {
                first_ns: now,
                last_ns: now,
                handshake_ns: 0,
                packets: [0; 2],
                bytes: [0; 2],
                flags: 0,
                syns: 0,
            };
            update(&mut flow, packet, side, now);
            // A full map evicts an entry; a failed insert is ignored.
            let _full = FLOWS.insert(&key, &flow, 0);
        }
    }
}

#[inline(always)]
fn update(flow: &mut ReferenceFlow, packet: &ReferencePacket, side: usize, now: u64) {
    flow.last_ns = now;
    flow.packets[side & 1] += 1;
    flow.bytes[side & 1] += u64::from(packet.bytes);
    flow.flags |= u32::from(packet.flags);
    if packet.flags & FIN_SYN_RST == SYN {
        flow.syns += 1;
        flow.handshake_ns = now;
    }
}

/// The key, and the end that sent the packet: 0 for `low`, 1 for `high`.
#[inline(always)]
fn key(packet: &ReferencePacket) -> (Key, usize) {
    let protocol = u32::from(packet.protocol);
    let (source, destination) = packet.ports;
    if is_low(packet) {
        let ports = u32::from(source) << 16 | u32::from(destination);
        (Key { low: packet.source, high: packet.destination, ports, protocol }, 0)
    } else {
        let ports = u32::from(destination) << 16 | u32::from(source);
        (Key { low: packet.destination, high: packet.source, ports, protocol }, 1)
    }
}

/// Is the source the lower end? Written out: a comparison of arrays would call memcmp.
#[inline(always)]
fn is_low(packet: &ReferencePacket) -> bool {
    let (a, b) = (&packet.source, &packet.destination);
    if a[0] != b[0] {
        a[0] < b[0]
    } else if a[1] != b[1] {
        a[1] < b[1]
    } else if a[2] != b[2] {
        a[2] < b[2]
    } else if a[3] != b[3] {
        a[3] < b[3]
    } else {
        packet.ports.0 <= packet.ports.1
    }
}
