//! Where two memories are not the same, byte by byte.

use std::mem::offset_of;

use handshake_common::abi::{self, TcpRecord, UdpRecord};
use handshake_common::table::Tag;

use super::super::super::mapping::SharedValue;
use super::*;

/// Where a slot's times are, as offsets.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    last_jiffies: usize,
    body: usize,
}

pub(super) const FLOW4: Layout =
    Layout { last_jiffies: offset_of!(abi::Flow4, last_jiffies), body: offset_of!(abi::Flow4, body) };
pub(super) const FLOW6: Layout =
    Layout { last_jiffies: offset_of!(abi::Flow6, last_jiffies), body: offset_of!(abi::Flow6, body) };

impl Layout {
    /// A slot's bytes with its times blotted out: of a time that may be missing, whether it is there is left.
    fn without_times(self, slot: &[Shared64]) -> Vec<u8> {
        let mut bytes: Vec<u8> = slot.iter().flat_map(|word| word.load().to_ne_bytes()).collect();
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
        }
        bytes
    }
}

/// The first slot that is not the same in both, byte by byte. The kernel's table may be longer: it then uses its start.
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

/// The first word that is not the same.
pub(super) fn different_words<W: Word>(what: &str, kernel: &[W], host: &[W]) -> Option<String> {
    assert_eq!(kernel.len(), host.len(), "{what}");
    let place = kernel.iter().zip(host).position(|(kernel, host)| kernel.value() != host.value())?;
    let (kernel, host) = (kernel[place].value(), host[place].value());
    Some(format!("{what} {place}: {kernel} in the kernel, {host} on the host"))
}

/// A word that is ours, or shared.
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

/// An event, its times left out where they differ.
pub(super) fn without(event: &Event, timed: bool) -> Event {
    if timed {
        return *event;
    }
    let tcp = TcpRecord { opened_ns: 0, syn_ack_after: 0, latest_after: 0, ..event.tcp };
    Event { ended_ns: 0, last_jiffies: 0, tcp, ..*event }
}

/// Shared values as their words.
pub(super) fn words<T: SharedValue>(values: &[T]) -> &[Shared64] {
    const { assert!(align_of::<T>() >= align_of::<Shared64>() && size_of::<T>().is_multiple_of(8)) };
    // SAFETY: `SharedValue` promises that every byte is of a shared word, which others may write meanwhile; size
    // and alignment are checked above, and the slice borrows from `values`.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values) / 8) }
}

pub(super) fn loads(words: &[Shared64]) -> Vec<u64> {
    words.iter().map(Shared64::load).collect()
}
