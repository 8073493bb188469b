//! The straight way of a handshake's segments ([`engine::open_straight`] and its siblings), as functions of their
//! own: the program at a hook has neither stack nor registers for them. They read the segment again, which costs
//! less than to hand it over.

use aya_ebpf::bindings::{__sk_buff, xdp_md};
use aya_ebpf::helpers::generated::bpf_skb_cgroup_id;
use handshake_common::engine;
use handshake_common::flow::Family;
use handshake_common::interface::Interface;
use handshake_common::table::{Slot4, Tag};
use handshake_common::wire::{Class, Packet, mark, read_bare4};

use crate::frame::Linear;
use crate::maps::{self, Cpu, Kernel};

/// Where a packet is.
#[derive(Clone, Copy)]
pub(crate) enum Hook {
    /// At a hook of XDP.
    Xdp(*mut xdp_md),
    /// At a hook of TC.
    Tc(*mut __sk_buff),
    /// Behind the program at the hook.
    Elsewhere,
}

/// A segment as the straight way has it, but for what is in its frame.
#[inline(always)]
fn unread(interface: Interface, class: Class) -> Packet {
    let marks = if interface.is_open() || class as u8 != Class::Syn as u8 { 0 } else { mark::GATED };
    Packet { class: class as u8, marks, ..Packet::unread(interface.point(), 1) }
}

/// Is the packet one segment? At XDP always.
#[inline(always)]
const fn is_one_xdp(_: *mut xdp_md) -> bool {
    true
}

/// The same at TC.
#[inline(always)]
fn is_one_skb(skb: *mut __sk_buff) -> bool {
    // SAFETY: the context is the program's own.
    unsafe { (*skb).gso_segs <= 1 }
}

/// The control group of the socket that sent a packet, which XDP does not know.
#[inline(always)]
const fn group_xdp(_: *mut xdp_md) -> u64 {
    0
}

/// The same at TC.
#[inline(always)]
fn group_skb(skb: *mut __sk_buff) -> u64 {
    // SAFETY: as above.
    if maps::keeps_owners() { unsafe { bpf_skb_cgroup_id(skb) } } else { 0 }
}

/// Defines what a SYN or a SYN+ACK does, at one kind of hook. It counts the packet by its class too.
macro_rules! begins {
    ($name:ident, $ctx:ty, $linear:ident, $is_one:ident, $group:ident, $step:ident, $class:expr) => {
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub(crate) extern "C" fn $name(ctx: *mut $ctx, cpu: *mut Cpu, interface: u32) -> i32 {
            let interface = Interface(interface);
            // Before the packet is in registers.
            let group = $group(ctx);
            let Some(kernel) = Kernel::straight(cpu, interface, group) else { return 0 };
            let mut packet = unread(interface, $class);
            if !$is_one(ctx) || !read_bare4(&Linear::$linear(ctx), &mut packet) {
                return 0;
            }
            let is_done = engine::$step::<_, Slot4>(&kernel, &packet);
            if is_done {
                engine::count_class(
                    &kernel,
                    &Packet { class: $class as u8, family: Family::V4 as u8, ..packet },
                );
            }
            i32::from(is_done)
        }
    };
}

begins!(open_xdp, xdp_md, xdp, is_one_xdp, group_xdp, open_straight, Class::Syn);
begins!(open_skb, __sk_buff, skb, is_one_skb, group_skb, open_straight, Class::Syn);
begins!(answer_xdp, xdp_md, xdp, is_one_xdp, group_xdp, answer_straight, Class::SynAck);
begins!(answer_skb, __sk_buff, skb, is_one_skb, group_skb, answer_straight, Class::SynAck);

/// Defines what the third segment does, whose record is in this slot under this tag.
macro_rules! completes {
    ($name:ident, $ctx:ty, $linear:ident, $is_one:ident) => {
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub(crate) extern "C" fn $name(
            ctx: *mut $ctx,
            cpu: *mut Cpu,
            slot: *const Slot4,
            tag: u64,
            interface: u32,
        ) -> i32 {
            let interface = Interface(interface);
            let Some(kernel) = Kernel::straight(cpu, interface, 0) else { return 0 };
            if slot.is_null() {
                return 0;
            }
            // SAFETY: not null, and the verifier holds callers to a whole slot.
            let slot = unsafe { &*slot };
            let mut packet = unread(interface, Class::Ack);
            let is_done = $is_one(ctx)
                && read_bare4(&Linear::$linear(ctx), &mut packet)
                && engine::complete_straight(&kernel, &packet, slot, Tag(tag));
            i32::from(is_done)
        }
    };
}

completes!(complete_xdp, xdp_md, xdp, is_one_xdp);
completes!(complete_skb, __sk_buff, skb, is_one_skb);
