//! Finds the differences between two memories, byte by byte.

use std::mem::offset_of;

use handshake_common::abi::{self, TcpRecord, UdpRecord};
use handshake_common::books::{ConnectRow, ServiceRow};
use handshake_common::table::Tag;

use super::super::super::mapping::SharedValue;
use super::*;

/// The places of a slot's times, as byte offsets.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    last_jiffies: usize,
    body: usize,
}

/// A tag without its generation.
const UNPUBLISHED: u64 = (1 << abi::tag::GENERATION_SHIFT) - 1;

pub(super) const FLOW4: Layout =
    Layout { last_jiffies: offset_of!(abi::Flow4, last_jiffies), body: offset_of!(abi::Flow4, body) };
pub(super) const FLOW6: Layout =
    Layout { last_jiffies: offset_of!(abi::Flow6, last_jiffies), body: offset_of!(abi::Flow6, body) };

impl Layout {
    /// A slot's bytes without its times. Of an optional time, only its presence is kept.
    fn without_times(self, slot: &[Shared64]) -> Vec<u8> {
        // How often a record was published depends on when later data came (`may_be_first`).
        let words = slot.iter().enumerate();
        let words = words.map(|(at, word)| word.load() & if at == 0 { UNPUBLISHED } else { u64::MAX });
        let mut bytes: Vec<u8> = words.flat_map(u64::to_ne_bytes).collect();
        let mut blot = |at: usize, length: usize, there: bool| {
            let known = there && bytes[at..at + length].iter().any(|byte| *byte != 0);
            bytes[at..at + length].fill(u8::from(known));
        };
        blot(self.last_jiffies, 4, false);
        blot(self.body + offset_of!(TcpRecord, opened_ns), 8, false);
        if Tag(slot[0].load()).state().is_udp() {
            blot(self.body + offset_of!(UdpRecord, answer_after), 4, true);
        } else {
            blot(self.body + offset_of!(TcpRecord, syn_ack_after), 4, true);
            blot(self.body + offset_of!(TcpRecord, latest_after), 4, false);
            if keeps_a_time(Tag(slot[0].load())) {
                blot(self.body + offset_of!(TcpRecord, syn_data), 2, true);
            }
            if times_first_bytes(Tag(slot[0].load())) {
                blot(self.body + offset_of!(TcpRecord, other_ack), 4, false);
            }
        }
        bytes
    }
}

/// May the record's `syn_data` be a time? Of an open attempt with Fast Open it is not.
const fn keeps_a_time(tag: Tag) -> bool {
    !tag.state().is_open() || tag.flags() & abi::tag::FAST_OPEN == 0
}

/// Is the record's `other_ack` the time of a first byte?
fn times_first_bytes(tag: Tag) -> bool {
    tag.state().is_completed() && tag.flags() & abi::tag::OTHER_J == abi::tag::EARLY_ACK
}

/// Describes the first slot that differs. The kernel's table may be longer than the host's; only its start is
/// in use then.
pub(super) fn different_slots<S: Slot + SharedValue>(
    kernel: &[S],
    host: &[S],
    timed: bool,
    layout: Layout,
) -> Option<String> {
    let (kernel, unused) = kernel.split_at(host.len());
    assert!(words(unused).iter().all(|word| word.load() == 0), "a slot past the mask was used");
    let length = size_of::<S>() / 8;
    let same = |(kernel, host): (&[Shared64], &[Shared64])| {
        kernel.iter().zip(host).all(|(kernel, host)| kernel.load() == host.load())
            || (!timed && layout.without_times(kernel) == layout.without_times(host))
    };
    let mut pairs = words(kernel).chunks(length).zip(words(host).chunks(length));
    let index = pairs.position(|pair| !same(pair))?;
    let drawn = |slots: &[S]| {
        let slot = &slots[index];
        format!("{:?}\n        {:x?}", table::read(slot), loads(words(std::slice::from_ref(slot))))
    };
    let (kernel, host) = (drawn(kernel), drawn(host));
    Some(format!("{:?} slot {index}\nkernel: {kernel}\nhost:   {host}", S::FAMILY))
}

/// Describes the first word that differs.
pub(super) fn different_words<W: Word>(what: &str, kernel: &[W], host: &[W]) -> Option<String> {
    assert_eq!(kernel.len(), host.len(), "{what}");
    let place = kernel.iter().zip(host).position(|(kernel, host)| kernel.value() != host.value())?;
    let (kernel, host) = (kernel[place].value(), host[place].value());
    Some(format!("{what} {place}: {kernel} in the kernel, {host} on the host"))
}

/// A plain or a shared word.
pub(super) trait Word {
    fn value(&self) -> u64;
}

impl Word for u64 {
    fn value(&self) -> u64 {
        *self
    }
}

impl Word for Shared64 {
    fn value(&self) -> u64 {
        self.load()
    }
}

/// An event, without its times unless they are set by the test.
pub(super) fn without(event: &Event, timed: bool) -> Event {
    if timed {
        return *event;
    }
    let syn_data = if keeps_a_time(Tag(event.tag)) { 0 } else { event.tcp.syn_data };
    let other_ack = if times_first_bytes(Tag(event.tag)) { 0 } else { event.tcp.other_ack };
    let tcp = TcpRecord { opened_ns: 0, syn_ack_after: 0, latest_after: 0, syn_data, other_ack, ..event.tcp };
    Event { tag: event.tag & UNPUBLISHED, ended_ns: 0, last_jiffies: 0, tcp, ..*event }
}

/// The words of shared values.
pub(super) fn words<T: SharedValue>(values: &[T]) -> &[Shared64] {
    const { assert!(align_of::<T>() >= align_of::<Shared64>() && size_of::<T>().is_multiple_of(8)) };
    // SAFETY: `SharedValue` guarantees that every byte belongs to a shared word, which the kernel may write
    // meanwhile; size and alignment are checked above, and the slice borrows from `values`.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values) / 8) }
}

/// The words of service rows; without their time, the last use of each row is left out.
pub(super) fn services(rows: &[ServiceRow], timed: bool) -> Vec<u64> {
    let mut words = loads(words(rows));
    if !timed {
        for state in words.iter_mut().step_by(size_of::<ServiceRow>() / 8) {
            *state &= u64::from(u32::MAX);
        }
    }
    words
}

/// The words of the services' completions; without their time, the sum of each row.
pub(super) fn connects(rows: &[ConnectRow], timed: bool) -> Vec<u64> {
    if timed { loads(rows.as_flattened()) } else { rows.iter().map(|row| loads(row).iter().sum()).collect() }
}

pub(super) fn loads(words: &[Shared64]) -> Vec<u64> {
    words.iter().map(Shared64::load).collect()
}
