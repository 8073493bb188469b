//! Where the engine's memory and clocks come from.

use core::mem::MaybeUninit;

use super::update::judge;
use crate::abi::{Config, Counter, Event, MAKER_WORDS, TcpRecord, WAYS, tag};
use crate::books::{Books, ConnectRow, ServiceRow};
use crate::flow::{Address, Family, Side};
use crate::record::{Clocks, Now, State};
use crate::shared::Shared64;
use crate::table::{MakerWords, Set, Slot, Slot4, Slot6, Tag};
use crate::verdict::Leg;
use crate::wire::Packet;
use crate::{low_half, masked, spin};

/// Supplies the engine's memory and clocks.
pub trait Platform {
    /// The agent's configuration.
    fn config(&self) -> &Config;
    /// The precise clock, ns. Expensive: read for handshake segments and new flows only.
    fn now_ns(&self) -> u64;
    /// The coarse clock. Nearly free.
    fn jiffies(&self) -> u32;
    /// A set of the IPv4 table.
    fn set4(&self, index: u32) -> Option<&Set<Slot4>>;
    /// A set of the IPv6 table.
    fn set6(&self, index: u32) -> Option<&Set<Slot6>>;
    /// A lock word, below [`STRIPES`](crate::abi::STRIPES).
    fn stripe(&self, index: u32) -> Option<&Shared64>;
    /// A client's word, below [`CLIENTS`](crate::abi::CLIENTS).
    fn client(&self, index: u32) -> Option<&Shared64>;
    /// A row of a service or a workload, below [`ROWS`](crate::abi::ROWS).
    fn service(&self, row: u32) -> Option<&ServiceRow>;
    /// The completions by time of a row of the service table; `None` of a row that is not TCP's.
    fn connects(&self, row: u32) -> Option<&ConnectRow>;
    /// The counter block of this CPU.
    fn books(&self) -> &Books;
    /// Adds to the packets that this CPU has counted at the packet's interface, at a place below
    /// [`CLASS_WORDS`](crate::abi::CLASS_WORDS).
    fn count_class(&self, packet: &Packet, place: usize, packets: u64);
    /// Adds to the samples in a bucket of a leg's histogram; `u64::MAX` takes one away.
    fn sample(&self, leg: Leg, bucket: u32, samples: u64);
    /// Waits until the holder of a slot or a lock word has released it, for a bounded time.
    fn wait(&self, word: &Shared64) {
        wait(word, core::hint::spin_loop);
    }
    /// [`offer`](super::offer) of a row, which the kernel side has as a function of its own.
    fn offer(&self, row: u32, worth: u32) -> u32
    where
        Self: Sized,
    {
        super::offer(self, row, worth)
    }
    /// [`empty`](super::empty) of a row, which the kernel side has as a function of its own.
    fn empty(&self, row: u32)
    where
        Self: Sized,
    {
        super::empty(self, row);
    }
    /// The control group of the socket that sent the packet; 0 where it is not known.
    #[inline(always)]
    fn control_group(&self) -> u64 {
        0
    }
    /// The owners of the record in a slot of a family's table; `None` where none are kept.
    #[inline(always)]
    fn owners(&self, _family: Family, _number: u32) -> Option<&[Shared64; 2]> {
        None
    }
    /// The words of the [`Maker`](crate::abi::Maker) of the socket that sent the packet; the first is 0 where it
    /// is not known.
    #[inline(always)]
    fn maker(&self) -> [u64; MAKER_WORDS] {
        [0; MAKER_WORDS]
    }
    /// The makers of the record in a slot of a family's table; `None` where none are kept.
    #[inline(always)]
    fn makers(&self, _family: Family, _number: u32) -> Option<&MakerWords> {
        None
    }
    /// [`attribute`](super::attribute), which the kernel side has as a function of its own.
    #[inline(always)]
    fn attribute(&self, family: Family, number: u32, end: NewOwner)
    where
        Self: Sized,
    {
        super::attribute(self, family, number, end);
    }
    /// [`move_owned`](super::move_owned), which the kernel side has as a function of its own.
    #[inline(always)]
    fn move_owned(&self, family: Family, number: u32, from: usize, to: usize)
    where
        Self: Sized,
    {
        super::move_owned(self, family, number, from, to);
    }
    /// Told on the general way whether a packet is one of an open attempt, and does not complete it. The kernel side
    /// keeps the packet then, where that is asked for.
    #[inline(always)]
    fn meet(&self, _is_of_open: bool) {}
    /// Is the port in the filter's set?
    fn is_selected(&self, port: u16) -> bool;
    /// Is it an address of the host that the hooks are on? A capture's is not known.
    #[inline(always)]
    fn is_local(&self, _address: &Address, _family: u8) -> bool {
        false
    }
    /// Applies the rules of TCP to a record: [`judge`]. The kernel side calls it as a function of its own.
    #[inline(always)]
    fn judge(&self, stand: u64, record: &mut TcpRecord, packet: &Packet, now_ns: u64) -> u64 {
        judge(self.config(), stand, record, packet, now_ns)
    }
    /// [`own_row`](super::own_row) of a packet's flow, which the kernel side has as a function of its own.
    #[inline(always)]
    fn own_row(&self, packet: &Packet, tag: Tag, from_responder: bool, jiffies: u32) -> u16
    where
        Self: Sized,
    {
        super::own_row(self, packet, tag, from_responder, jiffies)
    }
    /// [`new_row`](super::new_row), which the kernel side has as a function of its own.
    #[inline(always)]
    fn new_row(&self, packet: &Packet, request_port: u16, jiffies: u32) -> u32
    where
        Self: Sized,
    {
        super::new_row(self, packet, request_port, jiffies)
    }
    /// [`open_straight`](super::open_straight) and the counting by class, which the kernel side has as a function of
    /// its own.
    #[inline(always)]
    fn open_straight<S: Table>(&self, packet: &Packet) -> bool
    where
        Self: Sized,
    {
        let is_done = super::open_straight::<Self, S>(self, packet);
        if is_done {
            super::count_class(self, packet);
        }
        is_done
    }
    /// The same of [`answer_straight`](super::answer_straight).
    #[inline(always)]
    fn answer_straight<S: Table>(&self, packet: &Packet) -> bool
    where
        Self: Sized,
    {
        let is_done = super::answer_straight::<Self, S>(self, packet);
        if is_done {
            super::count_class(self, packet);
        }
        is_done
    }
    /// [`complete_straight`](super::complete_straight), which the kernel side has as a function of its own, in the
    /// slot of this number. The caller counts the packet by its class.
    #[inline(always)]
    fn complete_straight<S: Table>(&self, packet: &Packet, (slot, _): (&S, u32), tag: Tag) -> bool
    where
        Self: Sized,
    {
        super::complete_straight(self, packet, slot, tag)
    }
    /// [`survey`](super::survey) of two full sets, which the kernel side has as a function of its own.
    #[inline(always)]
    fn survey<S: Table>(&self, sets: [&Set<S>; 2], now: Now, is_attempt: bool, are_unanswered: bool) -> u64 {
        super::survey(sets, now, &Clocks::of(self.config()), is_attempt, are_unanswered)
    }
    /// [`give_up`](super::give_up) of a packet, which the kernel side has as a function of its own.
    #[inline(always)]
    fn give_up(&self, packet: &Packet)
    where
        Self: Sized,
    {
        super::give_up(self, packet);
    }
    /// [`evict`](super::evict) of a record for a packet, which the kernel side has as a function of its own.
    #[inline(always)]
    fn evict<S: Table>(&self, packet: &Packet, at: (&S, u32), tag: Tag, worth: u32, now_ns: u64)
    where
        Self: Sized,
    {
        super::evict(self, packet, at, tag, worth, now_ns);
    }
    /// Called where all eight slots of a new record's key are taken, `places` being its sets: is one free
    /// now? The kernel evicts a record instead; a replay moves one to the other set that its key has.
    #[inline(always)]
    fn make_room<S: Table>(&self, _places: [u32; 2]) -> bool {
        false
    }
    /// Called when a record takes a free slot. The kernel does nothing; a replay sees how full its table is.
    #[inline(always)]
    fn on_fill<S: Slot>(&self) {}
    /// Called before the record in a slot is replaced; `verdict` is how its attempt ended, if it was open.
    /// The kernel does nothing; a replay lists the flow.
    #[inline(always)]
    fn on_evict<S: Slot>(&self, _slot: &S, _tag: Tag, _verdict: Option<Counter>) {}
    /// Are explanations wanted? Asked before one is put together.
    #[inline(always)]
    fn wants_explanations(&self) -> bool {
        false
    }
    /// Called with what a TCP segment did to its record. The kernel keeps it for the line that `-vv` writes.
    #[inline(always)]
    fn explain(&self, _explanation: &Explanation) {}
    /// Reserves room for an event, has `fill` write it and sends it; `false` without room. Where makers are
    /// kept, those of the record follow it, or zeros.
    fn emit(&self, makers: Option<&MakerWords>, fill: impl FnOnce(&mut MaybeUninit<Event>)) -> bool;
}

/// An end of a record whose owner is known now, as bits: a step of the kernel side takes a number.
///
/// ```text
/// 9             8       7     0
/// │ first of record │ side │ gauge │
/// ```
#[derive(Clone, Copy)]
pub struct NewOwner(pub u32);

impl NewOwner {
    const SIDE: u32 = 1 << 8;
    const FIRST: u32 = 1 << 9;

    #[inline(always)]
    pub(super) const fn new(side: Side, is_first: bool, gauge: usize) -> Self {
        let side = if matches!(side, Side::Responder) { Self::SIDE } else { 0 };
        let first = if is_first { Self::FIRST } else { 0 };
        Self(side | first | low_half(gauge as u64) & 0xff)
    }

    #[inline(always)]
    pub(super) const fn side(self) -> usize {
        ((self.0 / Self::SIDE) & 1) as usize
    }

    #[inline(always)]
    pub(super) const fn is_first(self) -> bool {
        self.0 & Self::FIRST != 0
    }

    #[inline(always)]
    pub(super) const fn gauge(self) -> usize {
        (self.0 & 0xff) as usize
    }
}

/// What a TCP segment did to the record of its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The state before; [`State::Empty`] of a record that the segment began.
    pub before: State,
    /// The state after.
    pub after: State,
    /// Signs, as bits by their numbers.
    pub signs: u16,
    /// Who sent the segment.
    pub side: Side,
    /// J, if it is known.
    pub isn_initiator: Option<u32>,
    /// K, if it is known.
    pub isn_responder: Option<u32>,
}

/// A slot type whose table a platform has.
pub trait Table: Slot + Sized {
    /// The set at an index, when there is one.
    fn set<P: Platform>(platform: &P, index: u32) -> Option<&Set<Self>>;
    /// Sets of the table, less one.
    fn mask(config: &Config) -> u32;
}

impl Table for Slot4 {
    #[inline(always)]
    fn set<P: Platform>(platform: &P, index: u32) -> Option<&Set<Self>> {
        platform.set4(index)
    }
    #[inline(always)]
    fn mask(config: &Config) -> u32 {
        config.mask4
    }
}

impl Table for Slot6 {
    #[inline(always)]
    fn set<P: Platform>(platform: &P, index: u32) -> Option<&Set<Self>> {
        platform.set6(index)
    }
    #[inline(always)]
    fn mask(config: &Config) -> u32 {
        config.mask6
    }
}

/// The slot at this place of a set; places of the second set count on from the first's.
#[inline(always)]
pub(super) fn slot_of<S>(set: &Set<S>, way: u32) -> &S {
    &set[masked::<{ WAYS as usize - 1 }>(way as usize)]
}

/// Looks at a word until it is unlocked, with a pause between two looks, or gives up.
#[inline(always)]
pub fn wait(word: &Shared64, pause: impl Fn()) {
    let mut looks = 0;
    while looks < spin::PAUSED_LOOKS && word.load() & tag::LOCKED != 0 {
        pause();
        looks += 1;
    }
}
