//! Whether the initiator of an open attempt still waits, as far as its SYNs tell.
//!
//! A client repeats its SYN while it waits: after one second (RFC 6298 §2.1), three with older stacks (RFC 1122
//! §4.2.3.1), then after twice the time before, or sooner (Linux 6.5 repeats the first four each second). A
//! forged source repeats nothing, and a client that has given up is silent.

use handshake_common::abi::TcpRecord;
use handshake_common::record::State;

const SECOND: u64 = 1_000_000_000;
/// The longest time after which a stack repeats its first SYN, ns (RFC 1122 §4.2.3.1).
const FIRST_REPEAT_NS: u64 = 3 * SECOND;
/// The same of today's stacks, ns (RFC 6298 §2.1).
const USUAL_REPEAT_NS: u64 = SECOND;

/// What the SYNs of an open attempt tell of its initiator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Patience {
    /// Is its SYN alone, though every stack would have repeated it by now?
    pub(super) never_repeated: bool,
    /// Has it repeated its SYN?
    pub(super) repeated: bool,
    /// Has it given up? Its next SYN is overdue by half of the longest time that it may take. After a SYN+ACK the
    /// time of the latest SYN is not kept: there the number of SYNs tells how old the attempt is at the next one.
    pub(super) gave_up: bool,
}

impl Patience {
    /// That of the initiator of an open attempt which is so old.
    #[inline(always)]
    pub(super) fn of(tcp: &TcpRecord, state: State, flags: u32, age_ns: u64) -> Self {
        let repeats = tcp.syn_retransmits(flags);
        Self {
            never_repeated: repeats == 0 && age_ns >= FIRST_REPEAT_NS,
            repeated: repeats != 0,
            gave_up: if repeats == 0 {
                is_overdue(age_ns, FIRST_REPEAT_NS)
            } else {
                let latest_ns = tcp.latest_ns().saturating_sub(tcp.opened_ns);
                gave_up_after(repeats, state, latest_ns, age_ns)
            },
        }
    }
}

/// Has an initiator given up that has repeated its SYN so often, the latest time so long after the first?
fn gave_up_after(repeats: u8, state: State, latest_ns: u64, age_ns: u64) -> bool {
    // Times of SYNs at doubling intervals: 0, 1, 3, 7 … times the first.
    let intervals = (1_u64 << repeats.min(16)) - 1;
    if state == State::SynReceived {
        return is_overdue(age_ns, USUAL_REPEAT_NS * (2 * intervals + 1));
    }
    is_overdue(age_ns.saturating_sub(latest_ns), latest_ns + latest_ns / intervals)
}

const fn is_overdue(after_ns: u64, due_ns: u64) -> bool {
    after_ns > due_ns.saturating_add(due_ns / 2)
}

#[cfg(test)]
mod tests {
    use handshake_common::abi::TICK_SHIFT;

    use super::*;
    use crate::fake::{record, tcp};

    /// An open attempt with SYNs at these times, ms, and whether it never repeated and gave up at `now`, ms.
    fn at(state: State, syns: &[u64], now_ms: u64) -> (bool, bool) {
        let record = record("10.0.0.1:1", "10.0.0.2:443", state);
        let latest = syns.last().copied().unwrap_or(0) * 1_000_000;
        let tcp = TcpRecord {
            opened_ns: 1_000 * SECOND,
            syn: u8::try_from(syns.len()).expect("a few"),
            latest_after: u32::try_from(latest >> TICK_SHIFT).expect("within 274 s"),
            ..tcp(&record)
        };
        let patience = Patience::of(&tcp, state, record.flags, now_ms * 1_000_000);
        (patience.never_repeated, patience.gave_up)
    }

    #[test]
    fn a_client_waits_until_its_next_syn_is_overdue() {
        /// State, times of SYNs, now, whether it never repeated and whether it gave up.
        type Row<'a> = (State, &'a [u64], u64, (bool, bool));
        use State::{SynReceived, SynSent};
        let doubling = [0, 1_000, 3_000, 7_000, 15_000];
        let linear = [0, 1_000, 2_000, 3_000, 4_000, 5_000, 7_000];
        let table: [Row<'_>; 13] = [
            (SynSent, &[0], 2_999, (false, false)),
            (SynSent, &[0], 3_000, (true, false)),
            (SynSent, &[0], 4_501, (true, true)),
            (SynReceived, &[0], 4_501, (true, true)),
            (SynSent, &doubling[..2], 3_900, (false, false)),
            (SynSent, &doubling[..2], 4_100, (false, true)),
            (SynSent, &doubling[..4], 16_000, (false, false)),
            (SynSent, &doubling[..5], 38_000, (false, false)),
            (SynSent, &doubling[..5], 40_000, (false, true)),
            (SynSent, &linear[..5], 5_000, (false, false)),
            (SynSent, &linear[..5], 11_000, (false, true)),
            (SynReceived, &doubling[..2], 4_400, (false, false)),
            (SynReceived, &doubling[..2], 4_600, (false, true)),
        ];
        for (state, syns, now, expected) in table {
            assert_eq!(at(state, syns, now), expected, "{state:?} {syns:?} at {now} ms");
        }
    }

    /// Whatever the first timeout of a stack without SYN+ACK, it is never said to have given up while it
    /// repeats.
    #[test]
    fn a_client_that_repeats_has_not_given_up() {
        for first_ms in [100, 1_000, 2_000, 3_000] {
            let mut syns = vec![0];
            let mut gap = first_ms;
            for _ in 0..6 {
                let next = syns.last().copied().unwrap_or(0) + gap;
                assert!(!at(State::SynSent, &syns, next).1, "{syns:?} at {next} ms");
                syns.push(next);
                gap *= 2;
            }
        }
    }
}
