//! Counts the frames that pass a hook, with a BPF program. This is the independent count for floods, which
//! are too fast for a tap.

use std::os::fd::OwnedFd;

use anyhow::Result;

use crate::bpf::{self, AttachedProgram, Code, Program, Register, TestHook, When};
use crate::flood::MAC;
use crate::namespace::Namespace;
use crate::tap::Tally;

/// The map's indices: TCP by flags, other IPv4 by protocol, then everything else; from [`FLOOD`] on the same
/// for a flood's frames.
const PROTOCOLS: u32 = 256;
const NO_IP: u32 = 512;
const FLOOD: u32 = 1024;

/// Verdicts of a program of TCX (include/uapi/linux/bpf.h, `enum tcx_action_base`).
const TC_NEXT: i32 = -1;
const TC_DROP: i32 = 2;

/// Counts the frames at one hook.
#[derive(Debug)]
pub struct Census {
    counts: OwnedFd,
    _attached: AttachedProgram,
}

/// The frames counted at one hook.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CensusCounts {
    /// Frames of a flood, by the source MAC address.
    pub flood: Tally,
    /// All other frames.
    pub others: Tally,
}

impl CensusCounts {
    /// The sum of both.
    #[must_use]
    pub fn both(&self) -> Tally {
        let mut sum = self.flood;
        sum += self.others;
        sum
    }
}

impl Census {
    /// Counts the frames after the last program on a TCX hook of `device`.
    ///
    /// # Errors
    /// Without CAP_BPF and CAP_NET_ADMIN, or before Linux 6.6.
    pub fn behind(namespace: &Namespace, device: &str, hook: TestHook) -> Result<Self> {
        Self::on(namespace, device, hook, TC_NEXT)
    }

    /// The same on the way in, where a flood's frames end: no program and no socket sees them after it.
    ///
    /// # Errors
    /// As [`behind`](Self::behind).
    pub fn dropping(namespace: &Namespace, device: &str) -> Result<Self> {
        Self::on(namespace, device, TestHook::TcxIngress, TC_DROP)
    }

    /// Attaches after the last program of a TCX hook; a flood's frames get the verdict.
    fn on(namespace: &Namespace, device: &str, hook: TestHook, flooded: i32) -> Result<Self> {
        let counts = bpf::words(2 * FLOOD)?;
        let mut code = Code::default();
        code.copy(CONTEXT, 1);
        count(&mut code, hook, &counts);
        code.shift_right(PLACE, FLOOD.ilog2().cast_signed()).set(0, TC_NEXT);
        let pass = code.jump(When::Equal(PLACE, 0));
        code.set(0, flooded).land(pass).exit();
        let attached = bpf::attach(namespace, device, hook, &Program::of("census", code))?;
        Ok(Self { counts, _attached: attached })
    }

    /// Reads the counts. Frames that arrive meanwhile may be counted in part.
    ///
    /// # Errors
    /// Of `bpf(2)`.
    pub fn counts(&self) -> Result<CensusCounts> {
        let mut counts = CensusCounts::default();
        for (first, tally) in [(0, &mut counts.others), (FLOOD, &mut counts.flood)] {
            for flags in 0..=u8::MAX {
                *tally.tcp(flags) += bpf::word(&self.counts, first + u32::from(flags))?;
            }
            for protocol in 0..=u8::MAX {
                let counter = match protocol {
                    1 => &mut tally.icmp,
                    17 => &mut tally.udp,
                    _ => &mut tally.other,
                };
                *counter += bpf::word(&self.counts, first + PROTOCOLS + u32::from(protocol))?;
            }
            tally.other += bpf::word(&self.counts, first + NO_IP)?;
        }
        Ok(counts)
    }
}

const CONTEXT: Register = 6;
const DATA: Register = 7;
/// The frame's index in the map: at least [`FLOOD`] if it belongs to a flood.
const PLACE: Register = 8;
/// Appends code that counts the frame in the context.
fn count(code: &mut Code, hook: TestHook, counts: &OwnedFd) {
    const LOOK_UP: i32 = 1;
    place(code, hook);
    code.store32(10, -4, PLACE).map(1, counts).copy(2, 10).add(2, -4).call(LOOK_UP);
    let missing = code.jump(When::Equal(0, 0));
    code.set(1, 1).fetch_add(0, 1);
    code.land(missing);
}

/// Appends code that computes the frame's index. The lab's IPv4 headers have no options.
fn place(code: &mut Code, hook: TestHook) {
    const TCP: i32 = 6;
    const TCP_FLAGS: i16 = 47;
    // `data` of `struct xdp_md` and of `struct __sk_buff`; `data_end` follows.
    let data = if matches!(hook, TestHook::XdpNative | TestHook::XdpGeneric) { 0 } else { 76 };
    code.set(PLACE, NO_IP.cast_signed());
    code.load32(DATA, CONTEXT, data).load32(2, CONTEXT, data + 4);
    code.copy(3, DATA).add(3, 34);
    let short = code.jump(When::Above(3, 2));
    code.load8(3, DATA, 12).load8(4, DATA, 13);
    let ends = [code.jump(When::Differs(3, 8)), code.jump(When::Differs(4, 0))];
    code.load8(PLACE, DATA, 23).add(PLACE, PROTOCOLS.cast_signed());
    let others = code.jump(When::Differs(PLACE, PROTOCOLS.cast_signed() + TCP));
    code.copy(3, DATA).add(3, 54);
    let cut = code.jump(When::Above(3, 2));
    code.load8(PLACE, DATA, TCP_FLAGS);
    for end in ends.into_iter().chain([others, cut]) {
        code.land(end);
    }
    let [a, b, c, d, ..] = MAC.0;
    code.load32(3, DATA, 6);
    let end = code.jump(When::Differs(3, i32::from_ne_bytes([a, b, c, d])));
    code.or(PLACE, FLOOD.cast_signed());
    code.land(end).land(short);
}
