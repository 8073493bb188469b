//! Tracks UDP flows: who sent first, and whether anything came back. Pure: no clock, no map, no I/O.

use crate::abi::NO_POINT;
use crate::abi::{TICK_SHIFT, UdpRecord};
use crate::flow::{Address, Family, Side};
use crate::low_half;
use crate::record::UdpState;
use crate::wire::{Packet, mark, quote};

/// The record of a flow whose first packet this is, and its state. Its sender is the initiator.
#[inline(always)]
#[must_use]
pub fn open(packet: &Packet, family: Family, now_ns: u64) -> (UdpRecord, UdpState) {
    let record = UdpRecord {
        opened_ns: now_ns,
        bytes: [packet.bytes(), 0],
        packets: [packet.segments as u32, 0],
        points: NO_POINT << 4 | packet.point & 0xf,
        ..UdpRecord::default()
    };
    let group = packet.marks & mark::TO_GROUP != 0 || is_group(&packet.destination, family);
    (record, if group { UdpState::Multicast } else { UdpState::Waiting })
}

/// The record of a flow whose first packet answers a request that another flow sent to `request_port`. Its
/// sender is the responder.
#[inline(always)]
#[must_use]
pub fn answer(packet: &Packet, request_port: u16, now_ns: u64) -> UdpRecord {
    UdpRecord {
        opened_ns: now_ns,
        bytes: [0, packet.bytes()],
        packets: [0, packet.segments as u32],
        points: packet.point << 4 | NO_POINT,
        request_port,
        ..UdpRecord::default()
    }
}

/// The state after a packet of `side`, or after an ICMP error that quotes one of its packets.
#[inline(always)]
#[must_use]
pub const fn step(state: UdpState, side: Side, quoted: u8) -> UdpState {
    match (state, side) {
        (UdpState::Waiting, Side::Initiator) if quoted != quote::NONE => UdpState::Unreachable,
        (UdpState::Waiting | UdpState::Unreachable, Side::Responder) if quoted == quote::NONE => {
            UdpState::Answered
        }
        (
            UdpState::Waiting | UdpState::Answered | UdpState::Unreachable | UdpState::Multicast,
            Side::Initiator | Side::Responder,
        ) => state,
    }
}

/// The time of an answer at `now_ns`, in ticks of 64 ns after `opened_ns`; 0 where it is not known: the
/// packet has no time, time ran backwards, or a record does not reach that far. An answer in the tick of its
/// request is put a tick after it.
#[inline(always)]
#[must_use]
pub const fn answer_after(opened_ns: u64, now_ns: u64, marks: u8) -> u32 {
    let ticks = now_ns.saturating_sub(opened_ns) >> TICK_SHIFT;
    let is_known = marks & mark::UNTIMED == 0 && now_ns >= opened_ns && ticks < u32::MAX as u64;
    (low_half(ticks) + (ticks == 0) as u32) * is_known as u32
}

/// A multicast (RFC 5771, RFC 4291 §2.7) or limited broadcast address (RFC 919 §7): its answers come
/// from other addresses. A subnet's broadcast address cannot be told without its mask: its frame tells.
#[inline(always)]
const fn is_group(address: &Address, family: Family) -> bool {
    match family {
        Family::V4 => address.first_byte() >> 4 == 0xe || address.first() == u32::MAX,
        Family::V6 => address.first_byte() == 0xff,
    }
}

#[cfg(test)]
mod tests {
    use super::{answer_after, is_group, step};
    use crate::flow::{Address, Family, Side};
    use crate::record::UdpState;
    use crate::wire::{mark, quote};

    #[test]
    fn the_time_of_an_answer_is_known_or_0() {
        let opened = 1 << 40;
        let reach = u64::from(u32::MAX) * 64;
        let rows = [
            (0, 0, 1),
            (63, 0, 1),
            (640, 0, 10),
            (640, mark::TO_GROUP, 10),
            (640, mark::UNTIMED, 0),
            (reach - 1, 0, u32::MAX - 1),
            (reach, 0, 0),
            (1 << 60, 0, 0),
        ];
        for (after, marks, expected) in rows {
            assert_eq!(answer_after(opened, opened + after, marks), expected, "{after} ns, {marks}");
        }
        assert_eq!(answer_after(opened, opened - 1, 0), 0, "time that runs backwards");
    }

    #[test]
    fn each_state_meets_each_packet() {
        use UdpState::{Answered, Multicast, Unreachable, Waiting};
        let (i, r) = (Side::Initiator, Side::Responder);
        // state, then: initiator's packet, responder's packet, ICMP error quoting each
        let rows = [
            (Waiting, [Waiting, Answered, Unreachable, Waiting]),
            (Answered, [Answered, Answered, Answered, Answered]),
            (Unreachable, [Unreachable, Answered, Unreachable, Unreachable]),
            (Multicast, [Multicast, Multicast, Multicast, Multicast]),
        ];
        let columns = [(i, quote::NONE), (r, quote::NONE), (i, quote::UNREACHABLE), (r, quote::UNREACHABLE)];
        for (state, after) in rows {
            for ((side, quoted), expected) in columns.into_iter().zip(after) {
                assert_eq!(step(state, side, quoted), expected, "{state:?} {side:?} {quoted}");
            }
        }
        assert_eq!(rows.len(), UdpState::ALL.len());
    }

    #[test]
    fn groups_are_known_by_their_address() {
        assert!(is_group(&Address::v4(0xe000_00fb), Family::V4));
        assert!(is_group(&Address::v4(0xefff_fffa), Family::V4));
        assert!(is_group(&Address::v4(0xffff_ffff), Family::V4));
        assert!(!is_group(&Address::v4(0x0a00_00ff), Family::V4));
        assert!(is_group(&Address::v6([0xff02_0000, 0, 0, 0xfb]), Family::V6));
        assert!(!is_group(&Address::v6([0xfe80_0000, 0, 0, 1]), Family::V6));
    }
}
