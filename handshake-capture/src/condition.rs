//! The condition of a capture: what it lacks, and how its times run.

use std::collections::BTreeMap;

/// What a capture lacks, and how its times run, as far as it has been read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    /// A record is invalid, and nothing behind it was read.
    pub damaged: bool,
    /// The input ends within a record.
    pub truncated: bool,
    /// Packets that were dropped while capturing, by the file's own statistics; `None` where it says nothing
    /// about drops. Only pcapng has such statistics.
    pub dropped: Option<u64>,
    /// Packets skipped because their link types are not supported, by the registry's number (LINKTYPE_…).
    pub skipped: BTreeMap<u16, u64>,
    /// Packets whose records have no time stamp (simple packet blocks).
    pub untimed: u64,
    /// Packets with a time stamp before 1970 or after 2262.
    pub out_of_range: u64,
    /// Packets earlier than the packet before them in the file, whatever its interface; `None` in a file in
    /// time order.
    pub out_of_order: Option<OutOfOrder>,
    /// How often an interface's clock ran backwards.
    pub clock: ClockSteps,
}

/// Packets that are not in time order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfOrder {
    /// Number of packets that are earlier than the packet before them in the file.
    pub packets: u64,
    /// Number of the first such packet in its file, counted from 1 as in Wireshark; of several files, in the
    /// first that has one.
    pub first: u64,
}

/// Steps back in time between two consecutive packets of one interface, within a section.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClockSteps {
    /// Number of steps.
    pub steps_back: u64,
    /// The largest step, ns.
    pub largest_ns: u64,
}

impl Condition {
    /// Adds that of another file.
    pub(crate) fn add(&mut self, other: &Self) {
        self.damaged |= other.damaged;
        self.truncated |= other.truncated;
        self.dropped = match (self.dropped, other.dropped) {
            (Some(one), Some(more)) => Some(one.saturating_add(more)),
            (one, more) => one.or(more),
        };
        for (link_type, packets) in &other.skipped {
            *self.skipped.entry(*link_type).or_default() += packets;
        }
        self.untimed += other.untimed;
        self.out_of_range += other.out_of_range;
        if let Some(more) = other.out_of_order {
            self.out_of_order.get_or_insert(OutOfOrder { packets: 0, ..more }).packets += more.packets;
        }
        self.clock.steps_back += other.clock.steps_back;
        self.clock.largest_ns = self.clock.largest_ns.max(other.clock.largest_ns);
    }

    /// Number of packets skipped because of their link types.
    #[must_use]
    pub fn skipped(&self) -> u64 {
        self.skipped.values().sum()
    }
}

/// Follows the times of the packets in file order.
#[derive(Default)]
pub(crate) struct Timeline {
    previous_ns: u64,
    /// For each interface of the file, the section and time of its latest packet.
    own: Vec<Option<(u64, u64)>>,
}

impl Timeline {
    /// The time of the previous packet; 0 before the first.
    pub(crate) const fn previous_ns(&self) -> u64 {
        self.previous_ns
    }

    /// Takes the time of packet `number`, and notes in `condition` where it is earlier than the packet before
    /// it: in the file, and on its interface.
    pub(crate) fn follow(&mut self, packet: TimedPacket, condition: &mut Condition) {
        let TimedPacket { number, section, interface, time_ns } = packet;
        if time_ns < self.previous_ns {
            condition.out_of_order.get_or_insert(OutOfOrder { packets: 0, first: number }).packets += 1;
        }
        self.previous_ns = time_ns;
        if self.own.len() <= interface {
            self.own.resize(interface + 1, None);
        }
        // Another section may be another capture, which a clock that runs forwards may well have made earlier.
        let before = self.own[interface].replace((section, time_ns));
        let step_back =
            before.filter(|before| before.0 == section).and_then(|(_, ns)| ns.checked_sub(time_ns));
        if let Some(step_ns @ 1..) = step_back {
            condition.clock.steps_back += 1;
            condition.clock.largest_ns = condition.clock.largest_ns.max(step_ns);
        }
    }
}

/// A packet's time and place in its file.
#[derive(Clone, Copy)]
pub(crate) struct TimedPacket {
    /// Number in the file, counted from 1.
    pub(crate) number: u64,
    pub(crate) section: u64,
    /// Index into the file's interfaces.
    pub(crate) interface: usize,
    /// Nanoseconds since the Unix epoch.
    pub(crate) time_ns: u64,
}
