//! The parts of a report that stay the same over a run: the origin of the packets, the start, the filter.

use std::collections::BTreeMap;

use handshake_capture::Condition;

use crate::options::Filter;
use crate::owner::OwnerBook;

/// The parts of a report that stay the same over a run, but for interfaces that come and go.
#[derive(Clone, Debug)]
pub struct RunContext {
    /// The origin of the packets.
    pub origin: Origin,
    /// When counting began.
    pub began: Beginning,
    /// The filter; flows that do not match it are not tracked.
    pub filter: Filter,
    /// The number of services that a report lists by name, of each protocol.
    pub top: usize,
    /// Names the owners of control groups.
    pub owners: OwnerBook,
}

/// A moment on two clocks.
#[derive(Clone, Copy, Debug)]
pub struct Beginning {
    /// The wall clock, ns since the Unix epoch. It may be set while the run lasts.
    pub wall_ns: u64,
    /// The records' clock, ns: CLOCK_MONOTONIC, or a capture's times. Durations come from this one.
    pub ns: u64,
}

/// Where the packets come from.
#[derive(Clone, Debug)]
pub enum Origin {
    /// A file.
    Capture(CaptureOrigin),
    /// Interfaces.
    Live(LiveOrigin),
}

/// The interfaces of a live run, as they are at one reading: they come and go.
#[derive(Clone, Debug, Default)]
pub struct LiveOrigin {
    /// The interfaces that are watched.
    pub interfaces: Vec<InterfaceHooks>,
    /// Names by the group of a record's hook point; `None` for a group that several interfaces share.
    pub groups: Vec<Option<String>>,
    /// How many interfaces were watched and are gone.
    pub gone: u64,
}

impl LiveOrigin {
    /// Whether a packet that this host forwards can be seen to leave: two interfaces have egress hooks.
    #[must_use]
    pub fn sees_forwarding(&self) -> bool {
        self.interfaces.iter().filter(|interface| interface.egress.is_some()).count() > 1
    }
}

/// A capture, as far as it has been read.
#[derive(Clone, Debug, Default)]
pub struct CaptureOrigin {
    /// The paths as given on the command line, with commas between them; `-` is standard input.
    pub path: String,
    /// The paths of the files, where there are several.
    pub files: Vec<String>,
    /// Names of its interfaces by the group of a record's hook point, as far as packets have come from them;
    /// `None` for one without a name, and for the last hook point where several interfaces share it.
    pub interfaces: Vec<Option<String>>,
    /// What the capture lacks, and how its times run.
    pub condition: Condition,
    /// Packets whose headers are cut by the snap length: of class `truncated`, and shorter than on the wire.
    pub cut_headers: u64,
    /// Packets of class `non_ip` by their EtherType, where they have one.
    pub not_ip: BTreeMap<Option<u16>, u64>,
    /// When each reason for an inexact report was first and last found, by its name: times of packets.
    pub found_ns: Vec<(&'static str, (u64, u64))>,
}

/// An interface that is watched, and how.
#[derive(Clone, Debug, Default)]
pub struct InterfaceHooks {
    /// The name that `ip link` shows.
    pub name: String,
    /// The hook for incoming packets, in the words of `--hook`.
    pub ingress: Option<String>,
    /// The hook for outgoing packets.
    pub egress: Option<String>,
    /// Whether a super-packet counts as one packet, because the hook cannot see its segments.
    pub merged: bool,
    /// Programs that see packets before ours and may drop them.
    pub before: Vec<String>,
}
