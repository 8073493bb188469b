//! Counts what passes a hook, frame by frame, by a program of its own: the account that a flood's totals are held against,
//! where a tap could not follow.

use std::os::fd::OwnedFd;

use anyhow::{Context, Result, ensure};

use crate::bpf::{self, Attached, Code, Hook, Program, Register, When};
use crate::flood::MAC;
use crate::namespace::Namespace;
use crate::tap::Tally;

/// The map's places: TCP by its flags, the rest of IPv4 by its protocol, then all else; the same of a flood's frames.
const PROTOCOLS: u32 = 256;
const NO_IP: u32 = 512;
const FLOOD: u32 = 1024;

const XDP_DROP: i32 = 1;
const TC_NEXT: i32 = -1;

/// A hook's count.
#[derive(Debug)]
pub struct Census {
    counts: OwnedFd,
    _attached: Option<Attached>,
    _wrapped: Option<OwnedFd>,
}

/// What it has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Frames of a flood.
    pub flood: Tally,
    /// Other people's.
    pub others: Tally,
}

impl Counts {
    /// All of them.
    #[must_use]
    pub fn both(&self) -> Tally {
        let mut sum = self.flood;
        sum += self.others;
        sum
    }
}

impl Census {
    /// Counts what comes out of the last program on a TCX hook of `device`.
    ///
    /// # Errors
    /// Without CAP_BPF and CAP_NET_ADMIN, or before Linux 6.6.
    pub fn behind(namespace: &Namespace, device: &str, hook: Hook) -> Result<Self> {
        let counts = bpf::words(2 * FLOOD)?;
        let mut code = Code::default();
        code.copy(CONTEXT, 1);
        count(&mut code, hook, &counts);
        code.set(0, TC_NEXT).exit();
        let attached = bpf::attach(namespace, device, hook, &Program::of("census", code))?;
        Ok(Self { counts, _attached: Some(attached), _wrapped: None })
    }

    /// Takes the place of the XDP program of `device`, has it look at each frame as before, counts the frame, and drops
    /// it if it is of a flood; others go as the program says. For as long as that one's link holds.
    ///
    /// # Errors
    /// There is no XDP program, or it is not held by a link.
    pub fn dropping(namespace: &Namespace, device: &str) -> Result<Self> {
        let (wrapped, hook) = bpf::xdp(namespace, device)?.context("no XDP program to wrap")?;
        ensure!(hook == Hook::XdpNative, "the XDP program is not in the driver");
        let program = bpf::open(wrapped)?;
        let target = bpf::continuation(&program)?;
        let counts = bpf::words(2 * FLOOD)?;
        let wrapper = Program::of("dropping", dropping(&counts, &target)).with_frags();
        bpf::replace(wrapped, &bpf::load(hook, &wrapper)?)?;
        // An array of programs is emptied when its last descriptor goes.
        Ok(Self { counts, _attached: None, _wrapped: Some(target) })
    }

    /// Reads it, while nothing comes or soon after.
    ///
    /// # Errors
    /// Of `bpf(2)`.
    pub fn counts(&self) -> Result<Counts> {
        let mut counts = Counts::default();
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
/// Where a frame is counted: at least [`FLOOD`] when it is of a flood.
const PLACE: Register = 8;
/// What the wrapped program says.
const VERDICT: Register = 9;

/// A program that ends by a tail call ends the function that made it: the call is made in a function of its own, and
/// comes back here.
fn dropping(counts: &OwnedFd, target: &OwnedFd) -> Code {
    const TAIL_CALL: i32 = 12;
    let mut code = Code::default();
    code.copy(CONTEXT, 1);
    let call = code.call_local();
    code.copy(VERDICT, 0);
    count(&mut code, Hook::XdpNative, counts);
    code.shift_right(PLACE, FLOOD.ilog2().cast_signed());
    let pass = code.jump(When::Equal(PLACE, 0));
    code.set(VERDICT, XDP_DROP);
    code.land(pass).copy(0, VERDICT).exit();
    code.land(call).map(2, target).set(3, 0).call(TAIL_CALL);
    code.set(0, 0).exit();
    code
}

/// Counts the frame of the context.
fn count(code: &mut Code, hook: Hook, counts: &OwnedFd) {
    const LOOK_UP: i32 = 1;
    place(code, hook);
    code.store32(10, -4, PLACE).map(1, counts).copy(2, 10).add(2, -4).call(LOOK_UP);
    let missing = code.jump(When::Equal(0, 0));
    code.set(1, 1).fetch_add(0, 1);
    code.land(missing);
}

/// Says where the frame is counted. The lab's IPv4 headers have no options.
fn place(code: &mut Code, hook: Hook) {
    const TCP: i32 = 6;
    const TCP_FLAGS: i16 = 47;
    // `data` of `struct xdp_md` and of `struct __sk_buff`; `data_end` follows.
    let data = if matches!(hook, Hook::XdpNative | Hook::XdpGeneric) { 0 } else { 76 };
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
