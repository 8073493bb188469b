//! Counting by class, and the filters of `--port` and `--net`.

use core::hint::cold_path;

use super::Platform;
use crate::abi::{CLASS_WORDS, Config, Counter, MAX_NETS, class_index, option};
use crate::flow::Address;
use crate::shared::Shared64;
use crate::wire::{Class, Packet, note};
use crate::{below, low_half, masked};

/// Counts a packet by its class; `true` if the packet is to be tracked.
#[inline(always)]
pub fn count<P: Platform>(platform: &P, packet: &Packet) -> bool {
    count_class(platform, packet);
    is_wanted(platform, packet)
}

/// Counts what a packet has that only the general path can tell.
#[inline(always)]
pub fn count_note<P: Platform>(platform: &P, packet: &Packet) {
    let counter = match packet.note {
        note::EXTENSION_CHAIN => Counter::ExtensionChains,
        note::SPLIT_HEADER => Counter::SplitHeaders,
        _ => return,
    };
    cold_path();
    platform.books().add(counter, packet.segments as u64);
}

/// Is the packet part of a flow that passes the filters? Packets that fail them are counted as filtered.
#[inline(always)]
pub(super) fn is_wanted<P: Platform>(platform: &P, packet: &Packet) -> bool {
    if packet.protocol == 0 {
        return false;
    }
    let wanted = passes(platform, packet);
    if !wanted {
        platform.books().add(Counter::Filtered, packet.segments as u64);
    }
    wanted
}

/// Counts a packet by its class alone.
#[inline(always)]
pub fn count_class<P: Platform>(platform: &P, packet: &Packet) {
    let packets = packet.segments as u64;
    // Of a super-packet only the last segment carries the FIN.
    let acks = if packet.class == Class::Fin as u8 { packet.acks() as u64 } else { 0 };
    platform.count_class(packet, class_index(packet.class, packet.family), packets - acks);
    if acks != 0 {
        platform.count_class(packet, class_index(Class::Ack as u8, packet.family), acks);
    }
}

/// Adds to a word of a class block, which one CPU writes.
#[inline(always)]
pub fn add_class(classes: &[Shared64; CLASS_WORDS], place: usize, packets: u64) {
    let word = &classes[masked::<{ CLASS_WORDS - 1 }>(place)];
    word.store(word.load().wrapping_add(packets));
}

/// Does either end of the flow pass the filters?
#[inline(always)]
fn passes<P: Platform>(platform: &P, packet: &Packet) -> bool {
    let config = platform.config();
    if config.options & (option::PORTS | option::NETS) == 0 {
        return true;
    }
    cold_path();
    let by_port = config.options & option::PORTS == 0
        || platform.is_selected(packet.source_port)
        || platform.is_selected(packet.destination_port);
    by_port && (config.options & option::NETS == 0 || in_a_net(config, packet))
}

/// All networks are tried, without a branch per network: the verifier would follow each that hits.
#[inline(always)]
fn in_a_net(config: &Config, packet: &Packet) -> bool {
    let (mut hits, mut i) = (0, 0);
    while i < MAX_NETS {
        let net = &config.nets[i];
        if net.family == 0 {
            break;
        }
        let family = net.family ^ u64::from(packet.family);
        let differs = |Address(address): &Address| {
            let word = |i: usize| (address[i] & net.mask.0[i]) ^ net.address.0[i];
            let bits = family | word(0) | word(1);
            (bits >> 32 | low_half(bits) as u64).cast_signed()
        };
        hits |= below(differs(&packet.source), 1) | below(differs(&packet.destination), 1);
        i += 1;
    }
    hits != 0
}
