//! The transition table, complete; the rules of the design by name are in the modules below.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a helper names the states it is for; the table names all"
)]

mod claims;
mod closing;
mod first_byte;
mod opening;
mod signs;
mod straight;
mod strangers;
mod times;

use std::vec::Vec;

use super::{COPY_WITHIN_NS, Change, Conditions, Segment, SegmentKind, open, step};
use crate::abi::{NO_POINT, TICK_SHIFT, TcpRecord, tag};
use crate::flow::Side::{self, Initiator, Responder};
use crate::record::TcpState::{self, Closed, Established, SynReceived, SynSent};
use crate::seq::SeqNum;
use crate::verdict::{Leg, Sign};
use crate::wire::flag::{ACK, FIN, RST, SYN};

const J: u32 = 1_000;
const K: u32 = 5_000;
const CROSSED: u32 = tag::SIMULTANEOUS;
/// The legs that end with the handshake.
const HANDSHAKE: [Leg; 3] = [Leg::SynToSynAck, Leg::SynAckToAck, Leg::Connect];

/// A column of the table: its letters, who sends, and the segment.
type Column = (&'static str, Side, Segment);

fn columns() -> [Column; 22] {
    let (i, r) = (Initiator, Responder);
    [
        ("I SYN J", i, syn(J)),
        ("I SYN other", i, syn(J + 77)),
        ("R SYN K", r, syn(K)),
        ("R SYN other", r, syn(K + 77)),
        ("I SYN+ACK", i, syn_ack(J, K + 1)),
        ("R SYN+ACK", r, syn_ack(K, J + 1)),
        ("R SYN+ACK bad", r, syn_ack(K, J + 7)),
        ("I ACK", i, ack(J + 1, K + 1)),
        ("I ACK bad", i, ack(J + 1, K + 9)),
        ("I ACK beyond", i, ack(J + 70_000, K + 1)),
        ("I FIN", i, fin(J + 1, K + 1)),
        ("R ACK", r, ack(K + 1, J + 1)),
        ("R FIN", r, fin(K + 1, J + 1)),
        ("I RST", i, rst(J + 1, K + 1)),
        ("I RST elsewhere", i, rst(J + 9, K + 1)),
        ("R RST", r, rst(K + 1, J + 1)),
        ("R RST elsewhere", r, rst(K + 9, J + 9)),
        ("ICMP of J", i, unreachable(J)),
        ("ICMP of another", i, unreachable(J + 9)),
        ("ICMP of R", r, unreachable(K)),
        ("I other", i, other(J + 1)),
        ("R other", r, other(K + 1)),
    ]
}

/// A state, flags it may have that matter, and its row: `.` the same state, `N` a new attempt, else the next
/// state.
type Row = (TcpState, u32, &'static str);

#[rustfmt::skip]
const ROWS: &[Row] = &[
    //                                                                   SYN         SYN+ACK     I ACK....FIN  R ACK.FIN  RST I R       ICMP    other
    (SynSent,                       0,                            ". N . .    .  Sr .     Au Au . Au   .  .       Ia .  Rf .    Un . .  . ."),
    (SynSent,                       CROSSED,                      ". N . .    Sr Sr .     Sr . . Sr    Sr Sr      Ia .  Rf .    Un . .  . ."),
    (SynReceived,                   0,                            ". . . .    .  .  .     Es . . Cl    .  .       Ia .  Ra .    .  . .  . ."),
    (SynReceived,                   CROSSED|tag::INITIATOR_ACKED, ". . . .    Es .  .     Es . . Cl    .  .       Ia .  Ra .    .  . .  . ."),
    (SynReceived,                   CROSSED|tag::RESPONDER_ACKED, ". . . .    .  Es .     .  . . .     Es Cl      Ia .  Ra .    .  . .  . ."),
    (TcpState::AnswerUnseen,        0,                            ". N Ss Ss  .  Sr .     .  . . .     .  .       Ia .  Rf .    Un . .  . ."),
    (Established,                   0,                            ". . . .    .  .  .     .  . . Cl    .  Cl      Cl Cl Cl Cl   .  . .  . ."),
    (Closed,                        0,                            "N N N N    .  .  .     .  . . .     .  .       .  .  .  .    .  . .  . ."),
    (TcpState::Refused,             0,                            "Ss N N N   .  Sr .     .  . . .     .  .       .  .  .  .    .  . .  . ."),
    (TcpState::Unreachable,         0,                            "Ss N N N   .  Sr .     .  . . .     .  .       .  .  .  .    .  . .  . ."),
    (TcpState::InitiatorAborted,    0,                            "Sr N . N   .  Sr .     Es . . Cl    .  .       .  .  .  .    .  . .  . ."),
    (TcpState::ResponderAborted,    0,                            "Sr N . N   .  Sr .     Es . . Cl    .  .       .  .  .  .    .  . .  . ."),
    (TcpState::Midstream,           0,                            "N N N N    .  .  .     .  . . .     .  .       .  .  .  .    .  . .  . ."),
    (TcpState::OrphanSynAck,        0,                            "Sr N N N   .  .  .     .  . . .     .  .       .  .  .  .    .  . .  . ."),
];

#[test]
fn each_state_meets_each_segment() {
    for (state, flags, row) in ROWS.iter().copied() {
        let cells: Vec<&str> = row.split_whitespace().collect();
        assert_eq!(cells.len(), columns().len(), "{state:?} has a cell a column");
        for ((name, side, segment), cell) in columns().into_iter().zip(cells) {
            let mut record = typical(state, flags);
            let after = step(state, flags, &mut record, side, &segment, &CONTEXT);
            let expected = match cell {
                "." => Some(state),
                "N" => None,
                letters => Some(by_letters(letters)),
            };
            let got = (!after.new_attempt).then_some(after.state);
            assert_eq!(got, expected, "{state:?} ({flags:#x}) meets {name}");
        }
    }
}

/// A new state or kind of segment fails here until the table has it.
#[test]
fn the_table_is_complete() {
    for state in TcpState::ALL {
        assert!(ROWS.iter().any(|row| row.0 == state), "{state:?} has no row");
    }
    let kinds = [
        SegmentKind::Syn,
        SegmentKind::SynAck,
        SegmentKind::Ack,
        SegmentKind::Rst,
        SegmentKind::Unreachable,
        SegmentKind::Other,
    ];
    for (number, kind) in kinds.into_iter().enumerate() {
        assert_eq!(number_of(kind), number);
        for side in [Initiator, Responder] {
            let has = |c: &Column| c.1 == side && c.2.kind == kind;
            assert!(columns().iter().any(has), "{kind:?} of the {side:?} has no column");
        }
    }
}

/// No row depends on the flags beside ACK, SYN, FIN and RST: ECN sets two more (RFC 3168 §6.1.1).
#[test]
fn flags_are_masked() {
    for (state, flags, _) in ROWS.iter().copied() {
        for (name, side, segment) in columns() {
            let ecn = Segment { flags: segment.flags | 0xc8, ..segment };
            let (mut a, mut b) = (typical(state, flags), typical(state, flags));
            let plain = step(state, flags, &mut a, side, &segment, &CONTEXT);
            assert_eq!(plain, step(state, flags, &mut b, side, &ecn, &CONTEXT), "{state:?} {name}");
            assert_eq!(a, b);
        }
    }
}

// ---- helpers ----

const CONTEXT: Conditions = Conditions {
    now_ns: 200_000_000,
    half_open_after_ns: 3_000_000_000,
    one_sided: false,
    admits: true,
    veil: 0,
};
const SECOND: u64 = 1_000_000_000;
const STEP: u64 = 20_000_000;

/// A match without a rest: a new kind does not compile until it is in the test above.
const fn number_of(kind: SegmentKind) -> usize {
    match kind {
        SegmentKind::Syn => 0,
        SegmentKind::SynAck => 1,
        SegmentKind::Ack => 2,
        SegmentKind::Rst => 3,
        SegmentKind::Unreachable => 4,
        SegmentKind::Other => 5,
    }
}

fn by_letters(letters: &str) -> TcpState {
    match letters {
        "Ss" => SynSent,
        "Sr" => SynReceived,
        "Au" => TcpState::AnswerUnseen,
        "Es" => Established,
        "Cl" => Closed,
        "Rf" => TcpState::Refused,
        "Un" => TcpState::Unreachable,
        "Ia" => TcpState::InitiatorAborted,
        "Ra" => TcpState::ResponderAborted,
        unknown => panic!("no state has the letters {unknown}"),
    }
}

/// The record of an attempt that came to `state` the usual way.
fn typical(state: TcpState, flags: u32) -> TcpRecord {
    let answered = matches!(
        state,
        SynReceived | Established | Closed | TcpState::InitiatorAborted | TcpState::ResponderAborted
    );
    let knows_k = answered || flags & CROSSED != 0 || state == TcpState::OrphanSynAck;
    TcpRecord {
        opened_ns: 1_000_000,
        isn_initiator: J,
        isn_responder: if knows_k { K } else { 0 },
        syn_ack_after: u32::from(answered) * 5_000,
        latest_after: u32::from(answered) * 5_000,
        syn: 1,
        syn_ack: u8::from(answered),
        points: NO_POINT << 4 | NO_POINT,
        ..TcpRecord::default()
    }
}

/// A conversation that a test makes, segment by segment.
struct Talk {
    state: TcpState,
    flags: u32,
    record: TcpRecord,
    context: Conditions,
    /// The hook point of what is sent next.
    point: u8,
    signs: Vec<Sign>,
    timed: Vec<Leg>,
    excluded: Vec<Leg>,
    new_attempts: u32,
    /// The first leg was counted, and is not known any more.
    revoked: bool,
}

impl Talk {
    /// One that began with a SYN.
    fn new(syn: Segment) -> Self {
        let (record, flags) = open(&syn, SECOND);
        Self::of(SynSent, flags, record)
    }

    fn of(state: TcpState, flags: u32, record: TcpRecord) -> Self {
        let context = Conditions { now_ns: SECOND, ..CONTEXT };
        let (signs, timed, excluded) = (Vec::new(), Vec::new(), Vec::new());
        Self {
            state,
            flags,
            record,
            context,
            point: 0,
            signs,
            timed,
            excluded,
            new_attempts: 0,
            revoked: false,
        }
    }

    /// SYN and SYN+ACK.
    fn answered(j: u32, k: u32) -> Self {
        let mut talk = Self::new(syn(j));
        talk.responder(syn_ack(k, j.wrapping_add(1)));
        talk
    }

    /// The whole handshake.
    fn completed(j: u32, k: u32) -> Self {
        let mut talk = Self::answered(j, k);
        talk.initiator(ack(j.wrapping_add(1), k.wrapping_add(1)));
        assert_eq!(talk.state, Established);
        talk
    }

    fn initiator(&mut self, segment: Segment) -> TcpState {
        self.send(Initiator, segment)
    }

    fn responder(&mut self, segment: Segment) -> TcpState {
        self.send(Responder, segment)
    }

    /// Sends a segment, 20 ms later than the one before: too late for a copy. The state it leads to.
    fn send(&mut self, side: Side, segment: Segment) -> TcpState {
        self.context.now_ns += STEP;
        let segment = Segment { point: self.point, ..segment };
        let after = step(self.state, self.flags, &mut self.record, side, &segment, &self.context);
        self.note(&after);
        self.state
    }

    fn note(&mut self, after: &Change) {
        if after.new_attempt {
            self.new_attempts += 1;
        }
        (self.state, self.flags) = (after.state, after.flags);
        self.revoked |= after.revoked;
        self.signs.extend(Sign::ALL.into_iter().filter(|s| after.signs.has_sign(*s)));
        self.timed.extend(Leg::ALL.into_iter().filter(|l| after.timed.has_leg(*l)));
        self.excluded.extend(Leg::ALL.into_iter().filter(|l| after.excluded.has_leg(*l)));
    }

    fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }
}

/// Runs a test with initial sequence numbers of which many cross 2³² or are 0.
fn with_isns(test: impl Fn(u32, u32)) {
    for j in [J, 0, u32::MAX, u32::MAX - 1, 0x7fff_ffff] {
        for k in [K, 0, u32::MAX, u32::MAX - 2, 0x8000_0000] {
            test(j, k);
        }
    }
}

const fn segment(kind: SegmentKind, flags: u8, seq: u32, ack: u32) -> Segment {
    let acks = if let SegmentKind::Ack = kind { flags & FIN == 0 } else { false };
    Segment {
        kind,
        flags,
        seq: SeqNum(seq),
        ack: SeqNum(ack),
        payload: 0,
        point: 0,
        acks: acks as u32,
        untimed: false,
    }
}

const fn syn(seq: u32) -> Segment {
    segment(SegmentKind::Syn, SYN, seq, 0)
}

const fn syn_ack(seq: u32, ack: u32) -> Segment {
    segment(SegmentKind::SynAck, SYN | ACK, seq, ack)
}

const fn ack(seq: u32, ack: u32) -> Segment {
    segment(SegmentKind::Ack, ACK, seq, ack)
}

const fn fin(seq: u32, ack: u32) -> Segment {
    segment(SegmentKind::Ack, FIN | ACK, seq, ack)
}

const fn rst(seq: u32, ack: u32) -> Segment {
    segment(SegmentKind::Rst, RST | ACK, seq, ack)
}

const fn unreachable(seq: u32) -> Segment {
    segment(SegmentKind::Unreachable, 0, seq, 0)
}

const fn other(seq: u32) -> Segment {
    segment(SegmentKind::Other, 0, seq, 0)
}

/// The segment with bytes of data in it.
const fn with_data(segment: Segment, payload: u32) -> Segment {
    Segment { payload, ..segment }
}

const fn plus(number: u32, bytes: u32) -> u32 {
    number.wrapping_add(bytes)
}
