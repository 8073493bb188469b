//! Random streams of plausible segments: whatever comes, the books balance after every packet.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// Numbers that conversations begin with: few, so that segments fit often, and near 2³².
const ISNS: [u32; 4] = [0, 5, u32::MAX, u32::MAX - 1];

/// One packet: who sends what to whom, where and how long after the one before.
#[derive(Clone, Copy, Debug)]
struct Move {
    flow: u16,
    client: bool,
    what: What,
    /// Which J and K of [`ISNS`] it is about, and how far its numbers are off.
    isns: (usize, usize),
    off: (i32, i32),
    payload: u32,
    point: u8,
    /// ns; negative where the clock runs backwards.
    pause: i64,
    /// The groups whose gates are open, one bit each.
    gates: u8,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Tcp(u8),
    Udp,
    UdpGroup,
    Icmp { udp: bool, kind: u8 },
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    /// Few flows and plenty of room: every verdict is reached, nothing is lost.
    #[test]
    fn the_books_balance_and_nothing_is_lost_with_room(moves in vec(a_move(4), 1..160)) {
        let world = world(256);
        play(&world, &moves);
        let lost = [Counter::Untracked, Counter::UdpUntracked, Counter::Contended, Counter::Evicted, Counter::UdpEvicted, Counter::LostEvents];
        prop_assert_eq!(world.counts(&lost), [0; 6]);
        prop_assert_eq!(world.sum(Counter::EvictedExpired as usize..=Counter::EvictedCompleted as usize), 0);
    }

    /// Many flows in 64 slots: what is pushed out is in the books.
    #[test]
    fn the_books_balance_in_a_table_that_overflows(moves in vec(a_move(400), 200..400)) {
        play(&world(64), &moves);
    }

    /// A table of one set, where both choices are the same.
    #[test]
    fn the_books_balance_in_a_table_of_one_set(moves in vec(a_move(12), 50..200)) {
        play(&world(4), &moves);
    }
}

/// The latest time of an attempt is beyond what a record counts, and then the clock runs back: the time to connect
/// is known nowhere.
#[test]
fn a_time_out_of_reach_is_not_counted_when_the_clock_runs_back() {
    let second = SECOND.cast_signed();
    let one = |client, flags, pause| Move {
        flow: 1,
        client,
        what: What::Tcp(flags),
        isns: (0, 1),
        off: (0, 0),
        payload: 0,
        point: 0,
        pause,
        gates: u8::MAX,
    };
    let moves = [
        one(true, SYN, 0),
        one(false, RST | ACK, 4_724),
        one(false, SYN | ACK, 141 * second),
        one(false, RST, 2_875_657),
        Move { isns: (1, 1), point: 3, ..one(false, ACK, 137 * second) },
        one(true, SYN, 3_962_131),
        Move { payload: 10, ..one(true, ACK, -9 * second) },
    ];
    let world = world(256);
    play(&world, &moves);
    assert_eq!(world.counts(&[Counter::Completed, Counter::ExcludedConnect]), [1, 1]);
}

/// The streams above are worth something only if they come to every state and counter.
#[test]
fn streams_reach_every_gauge_and_sign() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let mut seen = [0_u64; Counter::Begin as usize + 1];
    for _ in 0..60 {
        for (flows, slots) in [(4, 64), (12, 4)] {
            let moves = vec(a_move(flows), 300).new_tree(&mut runner).expect("a stream").current();
            let world = World::new(slots);
            moves.iter().fold(10 * SECOND, |at, each| advance(&world, at, each));
            seen.iter_mut().zip(world.block()).for_each(|(sum, count)| *sum += count);
        }
    }
    // One thread never contends, the ring has room, nothing is filtered, no new record is worth a completed
    // connection, and no frame is parsed.
    let out_of_reach = [
        Counter::Contended as usize,
        Counter::LostEvents as usize,
        Counter::Filtered as usize,
        Counter::EvictedCompleted as usize,
        Counter::ExtensionChains as usize,
        Counter::SplitHeaders as usize,
        Counter::Untracked as usize,
        Counter::BadChecksum as usize,
        Counter::ForeignIcmp as usize,
        Counter::ServicesEvicted as usize,
    ];
    for (place, count) in seen.into_iter().enumerate() {
        let used = Counter::ALL.into_iter().any(|counter| counter as usize == place);
        let expected = used && !out_of_reach.contains(&place);
        assert_eq!(count != 0, expected, "counter {place}");
    }
}

/// Sockets of few groups send what passes the first hook point.
fn world(slots: usize) -> World {
    let group_of = |packet: &Packet| if packet.point == 0 { u64::from(packet.source_port) % 5 } else { 0 };
    World { group_of, ..World::new(slots) }
}

fn play(world: &World, moves: &[Move]) {
    let mut at = 10 * SECOND;
    for (i, each) in moves.iter().enumerate() {
        at = advance(world, at, each);
        if i % 16 == 15 { world.check_all() } else { world.check() }
    }
    world.check_all();
}

/// Makes the move, and gives the time of it.
fn advance(world: &World, at: u64, each: &Move) -> u64 {
    let at = at.saturating_add_signed(each.pause);
    world.gates.set(each.gates);
    world.send(at, &packet(each));
    at
}

fn a_move(flows: u16) -> impl Strategy<Value = Move> {
    let small = prop_oneof![20 => Just(0), 1 => -2..=2_i32];
    let isns =
        (prop_oneof![6 => Just(0_usize), 1 => 0..4_usize], prop_oneof![6 => Just(1_usize), 1 => 0..4_usize]);
    let payload = prop_oneof![8 => Just(0_u32), 1 => Just(10_u32)];
    let place = (0..flows, any::<bool>(), prop_oneof![5 => Just(0_u8), 1 => 1..4_u8]);
    let gates = prop_oneof![12 => Just(u8::MAX), 1 => any::<u8>()];
    (place, a_kind(), isns, (small.clone(), small), payload, (a_pause(), gates)).prop_map(
        |((flow, client, point), what, isns, off, payload, (pause, gates))| {
            // SYNs mostly come from the client, SYN+ACKs from the server.
            let client = match what {
                What::Tcp(SYN) if flow % 8 != 7 => true,
                What::Tcp(flags) if flags == SYN | ACK && flow % 8 != 7 => false,
                What::Tcp(_) | What::Udp | What::UdpGroup | What::Icmp { .. } => client,
            };
            Move { flow, client, what, isns, off, payload, point, pause, gates }
        },
    )
}

fn a_kind() -> impl Strategy<Value = What> {
    prop_oneof![
        8 => Just(What::Tcp(SYN)),
        8 => Just(What::Tcp(SYN | ACK)),
        8 => Just(What::Tcp(ACK)),
        2 => Just(What::Tcp(FIN | ACK)),
        2 => Just(What::Tcp(RST)),
        3 => Just(What::Tcp(RST | ACK)),
        1 => any::<u8>().prop_map(What::Tcp),
        6 => Just(What::Udp),
        1 => Just(What::UdpGroup),
        2 => any::<bool>().prop_map(|udp| What::Icmp { udp, kind: 1 }),
    ]
}

fn a_pause() -> impl Strategy<Value = i64> {
    let second = SECOND.cast_signed();
    prop_oneof![
        40 => 0..5_000_000_i64,
        20 => 11_000_000..700_000_000_i64,
        2 => second..5 * second,
        1 => Just(61 * second),
        1 => Just(80 * second),
        1 => Just(3_700 * second),
        2 => -20 * second..0,
    ]
}

/// The packet of a move: its numbers follow from J, K and its side, but for what they are off.
fn packet(each: &Move) -> Packet {
    let (j, k) = (ISNS[each.isns.0], ISNS[each.isns.1]);
    let (own, peer) = if each.client { (j, k) } else { (k, j) };
    let off = |number: u32, by: i32| number.wrapping_add_signed(by);
    let made = match each.what {
        What::Tcp(flags) => {
            let begins = u32::from(flags & SYN == 0);
            let (seq, ack) = (own.wrapping_add(begins), peer.wrapping_add(1));
            tcp(each.flow, each.client, flags, off(seq, each.off.0), off(ack, each.off.1))
        }
        What::Udp => udp(each.flow, each.client),
        What::UdpGroup => {
            Packet { destination: Address::v4(0xe000_00fb), family: 1, ..udp(each.flow, each.client) }
        }
        What::Icmp { udp: true, kind } => icmp(udp(each.flow, each.client), kind),
        What::Icmp { udp: false, kind } => {
            icmp(tcp(each.flow, each.client, SYN, off(own, each.off.0), 0), kind)
        }
    };
    Packet { payload: each.payload, point: each.point, ..made }
}
