//! The way of a packet through the kernel side: parse → count → track.
//!
//! A packet of a known flow is done in the program at the hook; that tail-calls another for the rest. Parsing
//! and tracking are global functions: the verifier checks each once, for any arguments.

use aya_ebpf::bindings::{__sk_buff, xdp_md};
use aya_ebpf::helpers::generated::bpf_skb_cgroup_id;
use aya_ebpf::programs::{TcContext, XdpContext};
use handshake_common::abi::option;
use handshake_common::engine::{self, FastPath, StepResult};
use handshake_common::flow::Family;
use handshake_common::interface::Interface;
use handshake_common::table::{Slot4, Slot6};
use handshake_common::wire::{Class, Packet, PacketSink, ParseOnly, note, parse_plain4, parse_plain6};

use crate::frame::{Context, Linear};
use crate::handover::{self, Current, left};
use crate::maps::{Cpu, Hook, Kernel};
use crate::{evidence, frame, log, maker, maps};

/// A frame at XDP. Plain frames of a known flow are done here: IPv4 inline, and IPv6 one call further, where
/// it has a stack of its own. The rest is for [`xdp_rest`].
#[inline(always)]
pub(crate) fn xdp(ctx: &XdpContext) {
    // SAFETY: the context is the program's own.
    let Some(interface) = maps::interface(unsafe { (*ctx.ctx).ingress_ifindex }) else { return };
    let interface = interface.at(false);
    let Some(kernel) = maps::this_cpu().and_then(|cpu| Kernel::at(cpu, interface)) else { return };
    let kernel = kernel.with(Hook::Xdp(ctx.ctx));
    let mut packet = Packet::unread(interface.point(), 1);
    if parse_plain4(&Linear::xdp(ctx.ctx), &mut packet, FastPath::<_, Slot4>::new(&kernel)) {
        return;
    }
    let is_ipv4 = packet.family == Family::V4 as u8;
    if !is_ipv4 {
        let cpu = kernel.cpu();
        let left = plain_xdp(ctx.ctx, cpu, interface.0);
        if left == left::NOTHING || maps::lead_xdp(left, ctx.ctx, cpu, interface) {
            return;
        }
    }
    // Found anew: the fast path needs the register.
    if let Some(kernel) = maps::this_cpu().and_then(Kernel::of) {
        kernel.current_mut().give(interface, 1);
    }
    handover::to_xdp(ctx);
}

/// What [`xdp`] left.
#[inline(always)]
pub(crate) fn xdp_rest(ctx: *mut xdp_md) {
    let Some(kernel) = maps::this_cpu().and_then(Kernel::of) else { return };
    if read_xdp(ctx, kernel.cpu()) != 0 {
        if wants_checksums() {
            verify_xdp(ctx, &mut kernel.current_mut().packet);
        }
        track(&kernel);
        if evidence::wants(kernel.current()) {
            let interface = kernel.current().interface;
            evidence::keep(ctx, kernel.current_mut(), interface, interface.is_raw());
        }
    }
    explain(&kernel);
}

/// Reads the packet into memory and counts it; 0 if it is not to be tracked.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn read_xdp(ctx: *mut xdp_md, cpu: *mut Cpu) -> i32 {
    let Some(kernel) = Kernel::in_hand(cpu) else { return 0 };
    if !read_plain4(&Linear::xdp(ctx), kernel.current_mut()) {
        general_xdp(ctx, cpu);
    }
    engine::count(&kernel, &kernel.current().packet) as i32
}

/// Writes the line of `-vv`, where it is wanted. Called last: nothing else is on the stack then.
#[inline(always)]
fn explain(kernel: &Kernel) {
    if log::is_on() {
        log::explain(&kernel.current().packet);
    }
}

/// Plain IPv4 of which more is wanted than to be counted: handshakes nearly always, and a flood of SYNs. Read
/// again, into memory: that costs less than to keep all of every packet until it is known whether it is such
/// a one. `false`: it is not plain.
#[inline(always)]
fn read_plain4<C: Context>(frame: &Linear<C>, current: &mut Current) -> bool {
    current.packet.clear();
    let is_plain = parse_plain4(frame, &mut current.packet, ParseOnly);
    current.place();
    // Neither IP nor tagged: where the kernel says IP, the link header is missing.
    is_plain && current.packet.family == Family::V4 as u8
}

/// The fast path of plain IPv6: one of [`left`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn plain_xdp(ctx: *mut xdp_md, cpu: *mut Cpu, interface: u32) -> u32 {
    let interface = Interface(interface);
    let Some(kernel) = Kernel::at(cpu, interface) else { return left::NOTHING };
    let mut packet = Packet::unread(interface.point(), 1);
    kernel.left(parse_plain6(&Linear::xdp(ctx), &mut packet, FastPath::<_, Slot6>::new(&kernel)))
}

/// The general path parses again, into memory: that costs less than to hand the packet over, and the fast
/// path keeps it in registers.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn general_xdp(ctx: *mut xdp_md, cpu: *mut Cpu) -> i32 {
    let Some(kernel) = Kernel::of(cpu) else { return 0 };
    let current = kernel.current_mut();
    frame::parse_xdp(ctx, &mut current.packet);
    current.place();
    engine::count_note(&kernel, &current.packet);
    0
}

/// A frame at TC, in the same ways.
#[inline(always)]
pub(crate) fn skb(ctx: &TcContext, egress: bool) {
    let skb = ctx.skb.skb;
    // SAFETY: the context is the program's own.
    let (index, segments) = unsafe { ((*skb).ifindex, (*skb).gso_segs as u16) };
    let Some(interface) = maps::interface(index) else { return };
    let interface = interface.at(egress);
    let Some(kernel) = maps::this_cpu().and_then(|cpu| Kernel::at(cpu, interface)) else { return };
    let kernel = kernel.with(Hook::Tc(skb));
    if has_plain_form(skb, interface, segments) {
        let mut packet = Packet::unread(interface.point(), segments.max(1));
        let fast = WithLink { sink: FastPath::<_, Slot4>::new(&kernel), says_ip: frame::ip_family(skb) != 0 };
        if parse_plain4(&Linear::skb(skb), &mut packet, fast) {
            return;
        }
        let is_ipv4 = packet.family == Family::V4 as u8;
        if !is_ipv4 {
            let cpu = kernel.cpu();
            let left = plain_skb(skb, cpu, interface.0, segments.max(1) as u32);
            if left == left::NOTHING || maps::lead_skb(left, skb, cpu, interface) {
                return;
            }
        }
    }
    // Found anew, as before: the fast path needs the register.
    let Some(kernel) = maps::this_cpu().and_then(Kernel::of) else { return };
    kernel.current_mut().give(interface, segments);
    handover::to_tc(ctx);
}

/// What [`skb`] left.
#[inline(always)]
pub(crate) fn skb_rest(ctx: *mut __sk_buff) {
    let Some(kernel) = maps::this_cpu().and_then(Kernel::of) else { return };
    if read_skb(ctx, kernel.cpu()) != 0 {
        if wants_checksums() {
            verify_skb(ctx, &mut kernel.current_mut().packet);
        }
        find_owner(ctx, &kernel);
        track(&kernel);
        if evidence::wants(kernel.current()) {
            let interface = kernel.current().interface;
            evidence::keep(ctx, kernel.current_mut(), interface, interface.is_raw());
        }
    }
    explain(&kernel);
}

/// Finds the control group of the socket that sent a SYN or a SYN+ACK, and who made it.
#[inline(always)]
fn find_owner(ctx: *mut __sk_buff, kernel: &Kernel) {
    let class = kernel.current().packet.class;
    if maps::keeps_owners() && (class == Class::Syn as u8 || class == Class::SynAck as u8) {
        // SAFETY: the context is the program's own.
        kernel.current_mut().group = unsafe { bpf_skb_cgroup_id(ctx) };
        if maps::keeps_makers() {
            kernel.current_mut().maker = maker::find(ctx);
        }
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn read_skb(ctx: *mut __sk_buff, cpu: *mut Cpu) -> i32 {
    let Some(kernel) = Kernel::in_hand(cpu) else { return 0 };
    let current = kernel.current_mut();
    let may_be_plain = has_plain_form(ctx, current.interface, current.segments);
    if !(may_be_plain && read_plain4(&Linear::skb(ctx), current)) {
        general_skb(ctx, cpu);
    }
    engine::count(&kernel, &kernel.current().packet) as i32
}

/// Does the frame begin with its link header, and is it known how many packets it is?
#[inline(always)]
fn has_plain_form(ctx: *mut __sk_buff, interface: Interface, segments: u16) -> bool {
    !interface.is_raw() && (segments != 0 || segment_size(ctx) == 0)
}

/// A sink of frames at TC, whose link header may be missing ([`frame::parse_skb`]): where the kernel says IP,
/// "neither IP nor tagged" is for the general path.
struct WithLink<S> {
    sink: S,
    says_ip: bool,
}

impl<S: PacketSink> PacketSink for WithLink<S> {
    #[inline(always)]
    fn ack(self, packet: &mut Packet) -> bool {
        self.sink.ack(packet)
    }

    #[inline(always)]
    fn udp(self, packet: &mut Packet) -> bool {
        self.sink.udp(packet)
    }

    #[inline(always)]
    fn other(self, packet: &mut Packet, class: Class) -> bool {
        (class as u8 != Class::NonIp as u8 || !self.says_ip) && self.sink.other(packet, class)
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn plain_skb(ctx: *mut __sk_buff, cpu: *mut Cpu, interface: u32, segments: u32) -> u32 {
    let interface = Interface(interface);
    let Some(kernel) = Kernel::at(cpu, interface) else { return left::NOTHING };
    // Without its link header an IPv4 frame may look like IPv6 behind one.
    if frame::ip_family(ctx) != Family::V6 as u8 {
        return left::ALL;
    }
    let mut packet = Packet::unread(interface.point(), segments as u16);
    kernel.left(parse_plain6(&Linear::skb(ctx), &mut packet, FastPath::<_, Slot6>::new(&kernel)))
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn general_skb(ctx: *mut __sk_buff, cpu: *mut Cpu) -> i32 {
    let Some(kernel) = Kernel::of(cpu) else { return 0 };
    let current = kernel.current_mut();
    frame::parse_skb(ctx, current.interface.is_raw(), &mut current.packet);
    current.place();
    if current.segments == 0 {
        current.packet.divide(segment_size(ctx));
    }
    engine::count_note(&kernel, &current.packet);
    0
}

/// Defines the verification of the packet's checksum as a global function: its stack is released before the
/// steps.
macro_rules! verify {
    ($name:ident, $ctx:ty) => {
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $name(ctx: *mut $ctx, packet: *mut Packet) -> i32 {
            if packet.is_null() {
                return 0;
            }
            // SAFETY: not null, and the verifier holds callers to a whole `Packet`.
            let packet = unsafe { &mut *packet };
            let comes_in = packet.point & 1 == 0;
            if comes_in && packet.has_checksum() && ctx.has_wrong_checksum() {
                packet.note = note::BAD_CHECKSUM;
            }
            0
        }
    };
}

verify!(verify_xdp, xdp_md);
verify!(verify_skb, __sk_buff);

/// Bytes of data in a segment of a super-packet; 0 of any other packet.
#[inline(always)]
fn segment_size(ctx: *mut __sk_buff) -> u32 {
    // SAFETY: the context is the program's own.
    unsafe { (*ctx).gso_size }
}

#[inline(always)]
fn wants_checksums() -> bool {
    maps::config().options & option::CHECKSUMS != 0
}

/// Tracks the packet that was read into memory. The steps are called from the entry, one after the other:
/// their stacks do not add up, and that of parsing is released.
#[inline(always)]
fn track(kernel: &Kernel) {
    let (cpu, packet) = (kernel.cpu(), &kernel.current().packet);
    let is_ipv4 = packet.family == Family::V4 as u8;
    if packet.note == note::BAD_CHECKSUM {
        let _ = if is_ipv4 { refute4(cpu) } else { refute6(cpu) };
        return;
    }
    let open = |_: &Packet| result(if is_ipv4 { open4(cpu) } else { open6(cpu) });
    let update = |_: &Packet| result(if is_ipv4 { update4(cpu) } else { update6(cpu) });
    let answer = |_: &Packet| (if is_ipv4 { answer4(cpu) } else { answer6(cpu) }).cast_unsigned() as u16;
    let insert = |_: &Packet, request: u16| {
        let request = u32::from(request);
        result(if is_ipv4 { insert4(cpu, request) } else { insert6(cpu, request) })
    };
    let settle = |_: &Packet| {
        if is_ipv4 {
            settle4(cpu);
        } else {
            settle6(cpu);
        }
    };
    let give_up = |_: &Packet| {
        maps::give_up(cpu);
    };
    engine::run(packet, open, update, answer, insert, settle, give_up);
}

#[inline(always)]
const fn result(bits: i32) -> StepResult {
    StepResult(bits.cast_unsigned())
}

/// Defines a step of the engine as a global function, which answers with a number.
macro_rules! step {
    ($name:ident, $step:expr) => {
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub(crate) extern "C" fn $name(cpu: *mut Cpu) -> i32 {
            let Some(kernel) = Kernel::of(cpu) else { return 1 };
            $step(&kernel, &kernel.current().packet).0.cast_signed()
        }
    };
}

step!(open4, engine::open::<_, Slot4>);
step!(open6, engine::open::<_, Slot6>);
step!(update4, engine::update::<_, Slot4>);
step!(update6, engine::update::<_, Slot6>);
step!(answer4, answer::<Slot4>);
step!(answer6, answer::<Slot6>);
step!(refute4, refute::<Slot4>);
step!(refute6, refute::<Slot6>);
step!(settle4, settle::<Slot4>);
step!(settle6, settle::<Slot6>);

/// The same of the step that takes what [`engine::answer`] says.
macro_rules! insert {
    ($name:ident, $slot:ty) => {
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub(crate) extern "C" fn $name(cpu: *mut Cpu, request_port: u32) -> i32 {
            let Some(kernel) = Kernel::of(cpu) else { return 1 };
            let packet = &kernel.current().packet;
            engine::insert::<_, $slot>(&kernel, packet, request_port as u16).0.cast_signed()
        }
    };
}

insert!(insert4, Slot4);
insert!(insert6, Slot6);

#[inline(always)]
fn answer<S: engine::Table>(kernel: &Kernel, packet: &Packet) -> StepResult {
    StepResult(u32::from(engine::answer::<_, S>(kernel, packet)))
}

#[inline(always)]
fn settle<S: engine::Table>(kernel: &Kernel, packet: &Packet) -> StepResult {
    engine::settle::<_, S>(kernel, packet);
    StepResult::DONE
}

#[inline(always)]
fn refute<S: engine::Table>(kernel: &Kernel, packet: &Packet) -> StepResult {
    engine::refute::<_, S>(kernel, packet);
    StepResult::DONE
}
