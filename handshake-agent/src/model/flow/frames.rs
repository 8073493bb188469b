//! Where the packets of each flow of a capture are: the numbers of their frames.

use std::collections::HashMap;
use std::num::NonZeroU64;

use handshake_common::flow::{Family, Side};
use handshake_common::record::Record;
use handshake_common::wire::Class;

use crate::model::flow::{Flow, FlowId};

/// The numbers of a flow's frames in the file that it began in, counted from 1 as in Wireshark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowFrames {
    /// Which of the capture's files it began in, counted from 0.
    pub file: usize,
    /// The first frame.
    pub first: u64,
    /// The last frame in that file.
    pub last: u64,
    /// The SYN; its copies come later.
    pub syn: Option<NonZeroU64>,
    /// The first SYN+ACK that answers the SYN.
    pub syn_ack: Option<NonZeroU64>,
    /// The frame that brought the verdict: the completing ACK, or the RST or ICMP error that ended the
    /// attempt.
    pub verdict: Option<NonZeroU64>,
}

impl FlowFrames {
    /// Wireshark's display filter for exactly the frames of a flow.
    #[must_use]
    pub fn display_filter(&self, flow: &Flow) -> String {
        let [one, other] = [Side::Initiator, Side::Responder].map(|side| flow.end(side));
        let ip = if flow.record.family == Family::V6 { "ipv6" } else { "ip" };
        let l4 = if flow.record.key.udp { "udp" } else { "tcp" };
        let way = |from: std::net::SocketAddr, to: std::net::SocketAddr| {
            let (source, destination) = (from.ip(), to.ip());
            let (from, to) = (from.port(), to.port());
            format!(
                "({ip}.src == {source} && {l4}.srcport == {from} && {ip}.dst == {destination} && \
                 {l4}.dstport == {to})"
            )
        };
        let Self { first, last, .. } = self;
        format!("({} || {}) && frame.number in {{{first}..{last}}}", way(one, other), way(other, one))
    }
}

/// The frames of the flows of a capture.
#[derive(Default)]
pub struct FrameIndex(HashMap<FlowId, Entry>);

struct Entry {
    frames: FlowFrames,
    /// How the attempt stood after its latest frame.
    settled: Settled,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Settled {
    Open,
    Completed,
    Ended,
}

impl Settled {
    const fn of(record: &Record) -> Self {
        if record.state.is_completed() {
            Self::Completed
        } else if record.state.is_provisional() {
            Self::Ended
        } else {
            Self::Open
        }
    }
}

impl FrameIndex {
    /// Bytes that it takes, and twice as much again where the next flow makes it grow.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let each = size_of::<(FlowId, Entry)>() + 1;
        let grows = if self.0.len() == self.0.capacity() { 3 } else { 1 };
        // A table is filled to seven eighths.
        (self.0.capacity() * each * grows) as u64 * 8 / 7
    }

    /// Notes frame `number` of `file`, a packet of this class that belongs to the flow whose record is
    /// `record` after it.
    pub fn note(&mut self, record: &Record, class: u8, file: usize, number: u64) {
        let flow = Flow::of(*record);
        let new = || Entry {
            frames: FlowFrames { file, first: number, last: number, syn: None, syn_ack: None, verdict: None },
            settled: Settled::Open,
        };
        let Entry { frames, settled } = self.0.entry(flow.id()).or_insert_with(new);
        let after = Settled::of(record);
        let changed = std::mem::replace(settled, after) != after;
        if frames.file != file {
            // What settled it is in another file.
            frames.verdict = frames.verdict.filter(|_| !changed);
            return;
        }
        frames.last = number;
        let number = NonZeroU64::new(number);
        if class == Class::Syn as u8 && frames.syn.is_none() && flow.isn_initiator().is_some() {
            frames.syn = number;
        }
        if class == Class::SynAck as u8 && frames.syn_ack.is_none() && flow.isn_responder().is_some() {
            frames.syn_ack = number;
        }
        if changed {
            frames.verdict = number.filter(|_| after != Settled::Open);
        }
    }

    /// The frames of a flow.
    #[must_use]
    pub fn of(&self, flow: &Flow) -> Option<FlowFrames> {
        self.0.get(&flow.id()).map(|entry| entry.frames)
    }

    /// Forgets a flow that is not listed.
    pub fn forget(&mut self, flow: &Flow) {
        self.0.remove(&flow.id());
    }
}

#[cfg(test)]
mod tests {
    use handshake_common::record::{Record, State};
    use handshake_common::wire::Class;

    use super::FrameIndex;
    use crate::fake::record;
    use crate::model::flow::Flow;

    fn frames(seen: &[(State, Class, usize, u64)]) -> (u64, u64, [Option<u64>; 3]) {
        let mut index = FrameIndex::default();
        let open = record("10.0.0.1:1", "10.0.0.2:443", State::SynSent);
        for (state, class, file, number) in seen {
            index.note(&Record { state: *state, ..open }, *class as u8, *file, *number);
        }
        let found = index.of(&Flow::of(open)).expect("it was noted");
        let of = |frame: Option<std::num::NonZeroU64>| frame.map(std::num::NonZeroU64::get);
        (found.first, found.last, [of(found.syn), of(found.syn_ack), of(found.verdict)])
    }

    #[test]
    fn the_first_syn_and_the_latest_verdict_have_their_frames() {
        let refused = [
            (State::SynSent, Class::Syn, 0, 4),
            (State::SynSent, Class::Syn, 0, 6),
            (State::Refused, Class::Rst, 0, 7),
            (State::Refused, Class::Rst, 0, 9),
        ];
        assert_eq!(frames(&refused), (4, 9, [Some(4), None, Some(7)]));
        let revised = [&refused[..], &[(State::Established, Class::Ack, 0, 12)]].concat();
        assert_eq!(frames(&revised).2[2], Some(12), "the verdict is revised");
        let tried_again = [&refused[..], &[(State::SynSent, Class::Syn, 0, 12)]].concat();
        assert_eq!(frames(&tried_again).2[2], None, "it is open again");
    }

    /// Frame numbers are those of one file.
    #[test]
    fn frames_of_another_file_are_left_out() {
        let seen = [(State::SynSent, Class::Syn, 1, 8), (State::Refused, Class::Rst, 2, 3)];
        assert_eq!(frames(&seen), (8, 8, [Some(8), None, None]));
    }
}
