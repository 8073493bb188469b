//! Tests of the straight way of a handshake: it needs no program but the one at the hook.

use aya::maps::ProgramArray;
use aya::programs::SchedClassifier;
use handshake_common::abi::KeptPacket;

use super::*;

/// The programs at the hooks, and what each says of every packet: XDP_PASS, or TC_ACT_UNSPEC.
const HOOKS: [(&str, u32); 3] =
    [("handshake_xdp", XDP_PASS), ("handshake_ingress", u32::MAX), ("handshake_egress", u32::MAX)];
/// Bytes of TCP options and of padding behind them.
const SHAPES: [(usize, usize); 4] = [(0, 0), (0, 8), (20, 0), (40, 3)];
/// Time between two segments, ns.
const BETWEEN: u64 = 64_000;

/// A handshake at one hook.
#[derive(Clone, Copy, Debug)]
struct Case {
    family: Family,
    hook: (&'static str, u32),
    options: usize,
    padding: usize,
    /// The client's port: no other case has it.
    port: u16,
    /// When its SYN comes, ns.
    begins: u64,
}

/// Both families at each hook, with headers of every length and padding behind them.
fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for family in [Family::V4, Family::V6] {
        for hook in HOOKS {
            for (options, padding) in SHAPES {
                let (port, begins) = cases
                    .last()
                    .map_or((41_000, 5_000_000_000), |last: &Case| (last.port + 1, last.begins + 1_000_000));
                cases.push(Case { family, hook, options, padding, port, begins });
            }
        }
    }
    cases
}

impl Case {
    /// Its SYN, SYN+ACK and ACK.
    fn frames(self) -> [Vec<u8>; 3] {
        let (next_j, next_k) = (J.wrapping_add(1), K.wrapping_add(1));
        let syn_ack = flag::SYN | flag::ACK;
        let segments =
            [(true, flag::SYN, J, 0), (false, syn_ack, K, next_j), (true, flag::ACK, next_j, next_k)];
        segments.map(|(forth, flags, seq, ack)| {
            let (from, to) = if forth { (1, 2) } else { (2, 1) };
            let (source, destination) = if forth { (self.port, SERVER.1) } else { (SERVER.1, self.port) };
            let frame = FrameBuilder::new(Link::Ethernet);
            let frame = match self.family {
                Family::V4 => frame.ipv4(0x0a00_0000 + from, 0x0a00_0000 + to),
                Family::V6 => frame.ipv6([0x2001_0db8, 0, 0, from], [0x2001_0db8, 0, 0, to]),
            };
            let frame = frame.tcp(flags, seq, ack).tcp_options(&[1; 40][..self.options]);
            let frame = frame.between(source, destination).with_tcp_checksum();
            frame.padding(&[0xaa; 8][..self.padding]).bytes().to_vec()
        })
    }

    /// Runs the hook's program on so many of the frames, in turn.
    fn run(self, live: &mut Live, frames: &[Vec<u8>]) {
        for (frame, number) in frames.iter().zip(0..) {
            let now_ns = self.begins + number * BETWEEN;
            live.set_test_clock(ClockPair { now_ns, jiffies: 9 }).expect("a clock that is not frozen");
            let options = TestRunOptions { data_in: Some(frame), ..TestRunOptions::default() };
            let (name, passes) = self.hook;
            let program = live.bpf.program(name).expect("loaded");
            let result = if name == HOOKS[0].0 {
                let program: &Xdp = program.try_into().expect("it is an XDP program");
                program.test_run(options)
            } else {
                let program: &SchedClassifier = program.try_into().expect("it is a TC program");
                program.test_run(options)
            };
            assert_eq!(result.expect("a test run").return_value, passes, "{self:?}");
        }
    }
}

/// Tables in which every case finds room.
fn roomy() -> Settings {
    Settings { test_clock: true, max_flows: 4_096, ..Settings::default() }
}

/// Loads the programs of all hooks, and lets them see a SYN of each family: the service has its rows then. `alone`: no
/// packet behind these gets to a second program.
fn loaded_whole(settings: &Settings, alone: bool) -> Option<Live> {
    let mut live = loaded(settings)?;
    for (name, _) in HOOKS {
        crate::load::program(live.programs(), name).expect("the verifier accepts it");
    }
    for case in cases().iter().step_by(HOOKS.len() * SHAPES.len()) {
        let first = Case { port: CLIENT.1, begins: 1_000_000_000, ..*case };
        first.run(&mut live, &first.frames()[..1]);
    }
    for array in ["NEXT_XDP", "NEXT_TC"].into_iter().filter(|_| alone) {
        let map = live.programs().map_mut(array).expect("the map is there");
        let mut array: ProgramArray<_> = map.try_into().expect("an array of programs");
        array.clear_index(&0).expect("it has a program");
    }
    Some(live)
}

/// Attempts, completed ones, and packets of these classes and in all.
fn counts(live: &mut Live, family: Family) -> [u64; 6] {
    let reading = live.read().expect("counters at rest");
    let packets = &reading.classes[0].packets;
    let of = |class: Class| packets[class_index(class as u8, family as u8)];
    let [attempts, completed] =
        [Counter::Attempts, Counter::Completed].map(|counter| word(&reading, counter));
    [attempts, completed, of(Class::Syn), of(Class::SynAck), of(Class::Ack), packets.iter().sum()]
}

/// What is no segment of a handshake without incident is lost here, which shows that no other program sees it.
#[test]
fn a_handshake_needs_no_second_program() {
    let Some(mut live) = loaded_whole(&roomy(), true) else { return };
    for case in cases() {
        let frames = case.frames();
        let before = counts(&mut live, case.family);
        case.run(&mut live, &frames[1..2]);
        assert_eq!(counts(&mut live, case.family), before, "of an attempt that is not known: {case:?}");
        case.run(&mut live, &frames);
        let after = counts(&mut live, case.family);
        let more: Vec<u64> = after.iter().zip(before).map(|(after, before)| after - before).collect();
        assert_eq!(more, [1, 1, 1, 1, 1, 3], "{case:?}");
    }
}

/// The SYN and the SYN+ACK, each once, with the time of their record. The general way is that of checksums.
#[test]
fn both_ways_keep_the_same_packets() {
    let mut ways = [true, false].map(|alone| {
        let rules = Rules { verify_checksums: !alone, ..Rules::default() };
        loaded_whole(&Settings { evidence: true, rules, ..roomy() }, alone)
    });
    for case in cases() {
        let kept = ways.each_mut().map(|live| {
            let live = live.as_mut()?;
            let frames = case.frames();
            case.run(live, &frames);
            let mut kept: Vec<KeptPacket> = Vec::new();
            live.for_each_kept(&mut |packet| kept.extend((packet.ns >= case.begins).then_some(*packet)));
            kept.sort_by_key(|packet| packet.ns);
            let seen: Vec<_> =
                kept.iter().map(|packet| (packet.ns, &packet.bytes[..packet.length as usize])).collect();
            let expected = [(case.begins, &frames[0][..]), (case.begins + BETWEEN, &frames[1][..])];
            assert_eq!(seen, expected, "{case:?}");
            Some(kept.iter().map(|packet| packet.interface).collect::<Vec<_>>())
        });
        assert_eq!(kept[0], kept[1], "{case:?}");
    }
}
