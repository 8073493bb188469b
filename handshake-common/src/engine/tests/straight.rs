//! The straight way of a handshake's segments is the general way, wherever it is taken.

use std::string::String;

use super::elsewhere::over_ipv6;
use super::*;
use crate::books::ConnectRow;
use crate::random;
use crate::table::Slot;

/// Draws from a stream of random words.
struct Draws(u64);

impl Draws {
    fn below(&mut self, limit: u64) -> u64 {
        random::split_mix(&mut self.0) % limit
    }

    /// The first of the values mostly.
    fn of<T: Copy>(&mut self, odd: u64, values: &[T]) -> T {
        let last = values.len() as u64;
        let place = if self.below(odd) == 0 { self.below(last) } else { 0 };
        values[usize::try_from(place).expect("a place")]
    }

    fn number(&mut self, limit: u16) -> u16 {
        u16::try_from(self.below(u64::from(limit))).expect("below a number of 16 bits")
    }
}

/// What a stream is made of.
struct Stream {
    slots: usize,
    flows: u16,
    options: u32,
    group_of: fn(&Packet) -> u64,
    /// Of so many packets one is out of the ordinary.
    odd: u64,
    /// The segments of a flow: of a flood, its SYN alone.
    segments: u64,
    /// Time between two packets, at most.
    pause: u64,
    /// Over IPv6.
    wide: bool,
}

/// A flow's next segment, or another.
fn packet(draws: &mut Draws, stream: &Stream, next: &mut [u64]) -> Packet {
    let flow = draws.number(stream.flows);
    let flow = flow - u16::from(flow % 4 == 3);
    let place = &mut next[usize::from(flow)];
    let step = if draws.below(stream.odd) == 0 { draws.below(8) } else { *place % stream.segments };
    *place += u64::from(draws.below(16) != 0);
    let turn = draws.of(stream.odd, &[0, 1, 2]);
    let (j, k) = (100 + turn, [900, 0, u32::MAX][turn as usize % 3]);
    let (after_j, after_k) = (j + 1, u32::wrapping_add(k, 1));
    let made = match step {
        0 => tcp(flow, true, SYN, j, 0),
        1 => tcp(flow, false, SYN | ACK, k, after_j),
        2 => tcp(flow, true, ACK, after_j, after_k),
        3 => tcp(flow, false, ACK, after_k, after_j),
        4 => tcp(flow, true, FIN | ACK, after_j, after_k),
        5 => tcp(flow, false, RST | ACK, 0, after_j),
        6 => tcp(flow, false, SYN | ACK | FIN, k, after_j),
        _ => tcp(flow, true, RST, after_j, 0),
    };
    let made = if flow & 8 == 0 { made } else { from_above(made) };
    let made = if stream.wide { over_ipv6(made) } else { made };
    Packet {
        payload: draws.of(stream.odd, &[0, 1, 9]),
        point: draws.of(stream.odd, &[u8::from(made.source_port == 80), 2, 3]),
        segments: draws.of(stream.odd * 4, &[1, 2]),
        marks: draws.of(stream.odd * 2, &[0, mark::UNTIMED]),
        ..made
    }
}

/// The same segment where the client's address is above the server's.
fn from_above(mut segment: Packet) -> Packet {
    let client = if segment.source_port == 80 { &mut segment.destination } else { &mut segment.source };
    *client = Address::v4(0x0aff_ffff);
    segment
}

/// What a slot holds, as words.
fn words_of<S: Slot>(slot: &S) -> Vec<u64> {
    let key = slot.key(false);
    let rest = u64::from(key.ports) << 32 | u64::from(slot.last().load());
    let body: [u64; 5] = zerocopy::transmute!(slot.body().tcp());
    let ends = key.low.0.into_iter().chain(key.high.0);
    [slot.tag().load(), rest].into_iter().chain(ends).chain(body).collect()
}

/// Everything that the engine writes, as words.
fn image(world: &World) -> Vec<u64> {
    let tables = &world.tables;
    let mut words = world.block();
    words.extend(tables.slots4.iter().flat_map(words_of));
    words.extend(tables.slots6.iter().flat_map(words_of));
    words.extend(tables.owners4.iter().chain(&tables.owners6).flatten().map(Shared64::load));
    words.extend(tables.stripes.iter().map(Shared64::load));
    for row in &tables.services {
        let row = row.copy();
        words.extend([row.state, row.searched_jiffies.into(), row.port.into()]);
        words.extend(row.address.0);
        words.extend(row.gauges);
    }
    words.extend(tables.connects.iter().flat_map(|row: &ConnectRow| row).map(Shared64::load));
    words.extend(tables.classes.iter().flatten().map(Shared64::load));
    words.extend(tables.histograms.iter().flatten().map(Shared64::load));
    words
}

/// Plays a stream to both; returns how many SYNs, SYN+ACKs and ACKs went straight, or only counted.
fn play(stream: &Stream, seed: u64) -> [u64; 3] {
    let world = || World { group_of: stream.group_of, ..World::new(stream.slots) };
    let config = Config { options: stream.options, ..config() };
    let general = World { config, ..world() };
    let mut hook = World { config, at_hook: Some(RefCell::default()), ..world() };
    // Where makers are kept, owners are noted by the general way too.
    hook.tables.makers4.clear();
    hook.tables.makers6.clear();
    let (mut draws, mut at) = (Draws(seed), 10 * SECOND);
    let mut next = std::vec![0; usize::from(stream.flows)];
    let mut latest = String::new();
    for i in 0..2_000 {
        let packet = packet(&mut draws, stream, &mut next);
        let pause = draws.below(stream.pause);
        at += if draws.below(400) == 0 { 90 * SECOND } else { pause };
        let gates = draws.of(stream.odd * 4, &[u8::MAX, 0]);
        for world in [&general, &hook] {
            world.gates.set(gates);
            world.send(at, &packet);
        }
        latest = std::format!("{i}: {packet:?}");
        assert_eq!(general.block(), hook.block(), "{latest}");
        if i % 500 == 0 {
            assert!(image(&general) == image(&hook), "up to {latest}");
        }
    }
    assert!(image(&general) == image(&hook), "up to {latest}");
    assert_eq!(general.events.borrow().len(), hook.events.borrow().len());
    if stream.options & option::EVENTS != 0 {
        hook.check_all();
    }
    let done = hook.at_hook.expect("it has a hook").into_inner();
    [Class::Syn, Class::SynAck, Class::Ack].map(|class| done[class as usize])
}

/// Both ends' sockets are this host's, or those of one end, or none; or the server's mostly, so that a slot had an
/// owner that the next attempt in it has not.
const GROUPS: [fn(&Packet) -> u64; 4] = [
    |_| 0,
    |packet| u64::from(packet.source_port % 5),
    |packet| u64::from(packet.source_port == 80) * 9,
    |packet| if packet.source_port == 80 { u64::from(packet.seq == 900) * 9 } else { 7 },
];

#[test]
fn what_goes_straight_is_what_the_general_way_does() {
    let mut straight = [[0; 3]; 2];
    for (group_of, seed) in GROUPS.into_iter().cycle().zip(0_usize..12) {
        for (slots, flows, odd) in [(64, 200, 20), (256, 100, 60), (128, 60, 8), (16, 400, 100)] {
            let options = [0, option::EVENTS, option::ONE_SIDED][seed / GROUPS.len() % 3];
            for wide in [false, true] {
                let stream =
                    Stream { slots, flows, options, group_of, odd, segments: 5, pause: 3_000_000, wide };
                let done = play(&stream, (seed * 7 + slots) as u64);
                straight[usize::from(wide)].iter_mut().zip(done).for_each(|(sum, done)| *sum += done);
            }
        }
    }
    assert!(straight.iter().flatten().all(|times| *times > 1_000), "often, over both: {straight:?}");
}

/// Sets full of unanswered attempts: a new one takes the place of another of its service, or of another's. Where the
/// service is one, it goes straight, whichever end of their keys the two clients are.
#[test]
fn so_it_is_in_a_flood() {
    let mut straight = [0; 2];
    for (group_of, seed) in GROUPS.into_iter().cycle().zip(0..4) {
        for (options, wide) in [(0, false), (option::EVENTS, false), (0, true), (option::EVENTS, true)] {
            let stream = Stream {
                slots: 64,
                flows: 4_000,
                options,
                group_of,
                odd: 4_000,
                segments: 1,
                pause: 300_000,
                wide,
            };
            straight[usize::from(wide)] += play(&stream, seed)[0];
        }
    }
    assert!(straight.iter().all(|times| *times > 1_500), "often, over both: {straight:?}");
}
