//! Compares the kernel and the host, packet by packet.

use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::Rc;

use handshake_common::abi::Makers;
use handshake_common::flow::Address;
use handshake_common::memory::{Memory, Sender};
use handshake_common::record::Detail;
use handshake_common::wire::{Class, Packet, mark};
use zerocopy::IntoBytes;

use super::difference::{FLOW4, FLOW6, connects, different_slots, different_words, loads, services, without};
use super::generate::{Generator, Random};
use super::host::{Host, own_group, parsed};
use super::kernel::{clients, offer, stripes};
use super::time::Time;
use super::*;

/// The number of packets between two comparisons of what is large or rarely changes.
const LOOK_AT_ALL_EVERY: u64 = 1000;

/// An address and a port.
type End = (Address, u16);

/// A scenario that is being run.
pub(super) struct Comparison<'a> {
    scenario: &'a Scenario,
    seed: u64,
    live: &'a mut Live,
    host: Rc<Host>,
    time: Time,
    /// The control group of this process, whose socket a frame at TC has.
    group: u64,
    /// The number of frames that BPF_PROG_TEST_RUN refuses: under 14 bytes, or at TC with a truncated IP
    /// header.
    refused: u64,
    /// The SYNs and SYN+ACKs so far: source, destination and class.
    syns: HashSet<(End, End, u8)>,
    /// The number of frames that were in fragments at XDP.
    split: u64,
    /// The gates that are open, one bit per interface.
    open: u64,
    /// The number of flows, at each look, that answer the request of another flow.
    tied: usize,
}

impl<'a> Comparison<'a> {
    pub(super) fn new(scenario: &'a Scenario, seed: u64, live: &'a mut Live) -> Self {
        let host = Rc::new(Host::new(&scenario.settings));
        let time = Time::new(scenario.settings.test_clock, live.clocks);
        Self {
            scenario,
            seed,
            live,
            host,
            time,
            group: own_group(),
            refused: 0,
            syns: HashSet::new(),
            split: 0,
            open: u64::MAX,
            tied: 0,
        }
    }

    /// Runs the scenario. Returns the counters that both sides end with. Panics at the first difference.
    pub(super) fn run(mut self) -> Vec<u64> {
        let host_events = RefCell::new(Vec::new());
        let on_event = |event: &Event| {
            host_events.borrow_mut().push(*event);
            true
        };
        let host = Rc::clone(&self.host);
        let config = host.tables.storage().fit(host.config);
        let memory = Memory::new(&config, host.tables.storage(), &on_event);
        let mut generator = Generator::new(self.seed, self.scenario.scope);
        for number in 1..=self.scenario.packets {
            let bytes = generator.frame();
            let arrival = self.arrival(&mut generator.random, bytes.len());
            let interface = self.scenario.interfaces[usize::from(arrival.interface)];
            let mut packet = (bytes.len() >= 14).then(|| parsed(&host.config, interface, &arrival, &bytes));
            let timed = self.scenario.settings.test_clock;
            if !timed && packet.is_some_and(|packet| self.depends_on_time(&packet)) {
                continue;
            }
            if self.scenario.gated && generator.random.one_in(20) {
                self.open = generator.random.word();
                for number in 0..u16::try_from(self.scenario.interfaces.len()).expect("a few interfaces") {
                    self.live.set_gate(number, self.open >> number & 1 != 0).expect("the map takes it");
                }
            }
            if let Some(packet) = packet.as_mut().filter(|_| self.open >> arrival.interface & 1 == 0) {
                packet.marks |= mark::GATED;
            }
            let now = self.time.pass(&mut generator.random);
            self.time.set(self.live);
            if self.kernel_takes(&arrival, &bytes) {
                let group = if arrival.hook == Hook::Xdp { 0 } else { self.group };
                memory.observe_of(
                    Sender { group, ..Sender::default() },
                    now,
                    &packet.expect("no shorter frame is taken"),
                );
            }
            if let Some(difference) = self.look(number, &host_events) {
                panic!("{}", self.drawn(number, &arrival, &bytes, &difference));
            }
        }
        self.check_coverage();
        loads(self.host.tables.books.words())
    }

    /// Is it a further SYN or SYN+ACK of its sender? What it is depends on the time since the one before.
    fn depends_on_time(&mut self, packet: &Packet) -> bool {
        let is_syn = packet.class == Class::Syn as u8 || packet.class == Class::SynAck as u8;
        let source = (packet.source, packet.source_port);
        let destination = (packet.destination, packet.destination_port);
        is_syn && !self.syns.insert((source, destination, packet.class))
    }

    /// Chooses where and how the next packet arrives.
    fn arrival(&self, random: &mut Random, length: usize) -> Arrival {
        let hook = random.pick(self.scenario.hooks);
        if hook == Hook::Xdp {
            let linear = (length > 14 && random.one_in(8)).then(|| 14 + random.below(length - 14));
            return Arrival { hook, interface: 0, segments: 1, segment_size: 0, linear };
        }
        let interfaces = self.scenario.interfaces.len();
        let interface = u8::try_from(random.below(interfaces)).expect("a few interfaces");
        let segments = random.pick(&[0, 0, 0, 0, 1, 2, 44, 65_535]);
        let segment_size = random.pick(&[0, 0, 0, 1, 48, 1448]);
        Arrival { hook, interface, segments, segment_size, linear: None }
    }

    fn kernel_takes(&mut self, arrival: &Arrival, bytes: &[u8]) -> bool {
        let taken = offer(self.live, &self.scenario.interfaces, arrival, bytes);
        self.refused += u64::from(!taken && arrival.linear.is_none());
        self.split += u64::from(taken && arrival.linear.is_some());
        taken
    }

    /// Checks that most of the generated packets were compared.
    fn check_coverage(&self) {
        let (refused, packets) = (self.refused, self.scenario.packets);
        assert!(refused * 10 < packets, "{}: the kernel refused {refused} of {packets}", self.scenario.name);
        let name = self.scenario.name;
        let ties = self.scenario.scope.elsewhere;
        assert!(self.tied > 0 || !ties, "{name}: no UDP flow answered the request of another one");
        if self.split == 0 && self.scenario.hooks.contains(&Hook::Xdp) {
            skip("needs Linux 6.18 for test runs of frames in fragments");
        }
    }

    /// Describes the first difference between kernel and host after packet `number`, if any.
    fn look(&mut self, number: u64, host_events: &RefCell<Vec<Event>>) -> Option<String> {
        let every = self.scenario.look_every;
        let at_end = number == self.scenario.packets;
        if !number.is_multiple_of(every) && !at_end {
            return None;
        }
        let timed = self.scenario.settings.test_clock;
        let found = different_slots(&self.live.flows4, &self.host.tables.slots4, timed, FLOW4)
            .or_else(|| different_slots(&self.live.flows6, &self.host.tables.slots6, timed, FLOW6))
            .or_else(|| self.different_counters(timed))
            .or_else(|| self.different_events(&host_events.take(), timed));
        self.tied += tied(&self.host.tables.slots4) + tied(&self.host.tables.slots6);
        if found.is_some() || !(at_end || number % LOOK_AT_ALL_EVERY < every) {
            return found;
        }
        self.different_owners()
            .or_else(|| self.different_classes())
            .or_else(|| self.different_histograms(timed))
            .or_else(|| {
                let [kernel, host] =
                    [&self.live.services[..], &self.host.tables.services].map(|rows| services(rows, timed));
                different_words("service word", &kernel, &host)
            })
            .or_else(|| {
                let [kernel, host] =
                    [&self.live.connects[..], &self.host.tables.connects].map(|rows| connects(rows, timed));
                different_words("completions by time", &kernel, &host)
            })
            .or_else(|| different_words("client", &clients(self.live), &loads(&self.host.tables.clients)))
            .or_else(|| {
                stripes(self.live).iter().any(|word| *word != 0).then(|| "a lock word is held".into())
            })
    }

    fn different_counters(&self, timed: bool) -> Option<String> {
        let mut kernel = counters_of(&self.live.bpf).words;
        let mut host = loads(self.host.tables.books.words());
        if !timed {
            let longest = Counter::MaxSynToSynAck as usize..=Counter::MaxAckToFirstByte as usize;
            kernel[longest.clone()].fill(0);
            host[longest].fill(0);
        }
        different_words("counter", &kernel, &host)
    }

    fn different_events(&mut self, host_events: &[Event], timed: bool) -> Option<String> {
        let mut drained = Vec::new();
        self.live.drain_events(&mut |event, makers| {
            assert_eq!(makers, Makers::default());
            drained.push(*event);
            ControlFlow::Continue(())
        });
        if drained.len() != host_events.len() {
            return Some(format!(
                "{} events of the kernel, {} of the host",
                drained.len(),
                host_events.len()
            ));
        }
        let pairs = drained
            .iter()
            .zip(host_events)
            .map(|(kernel, host)| (without(kernel, timed), without(host, timed)));
        let different = |(kernel, host): &(Event, Event)| kernel.as_bytes() != host.as_bytes();
        pairs
            .into_iter()
            .find(different)
            .map(|(kernel, host)| format!("event:\nkernel: {kernel:?}\nhost:   {host:?}"))
    }

    fn different_owners(&self) -> Option<String> {
        let (live, host) = (&*self.live, &self.host.tables);
        [(&live.owners4, &host.owners4), (&live.owners6, &host.owners6)].into_iter().find_map(
            |(kernel, host)| {
                let kernel = &kernel[..host.len()];
                different_words("owner", &loads(kernel.as_flattened()), &loads(host.as_flattened()))
            },
        )
    }

    fn different_classes(&self) -> Option<String> {
        let groups = self.scenario.interfaces.iter().zip(&self.host.tables.classes);
        (0..).zip(groups).find_map(|(interface, (_, host))| {
            let kernel = read_classes(&self.live.bpf, interface).expect("class counters");
            different_words(&format!("interface {interface}, class"), &kernel.packets, &loads(host))
        })
    }

    fn different_histograms(&self, timed: bool) -> Option<String> {
        Leg::ALL.into_iter().zip(self.host.tables.histograms.iter()).find_map(|(leg, host)| {
            let mut kernel = read_histogram(&self.live.bpf, leg).expect("a histogram").buckets.to_vec();
            let mut host = loads(host);
            if !timed {
                (kernel, host) = (vec![kernel.iter().sum()], vec![host.iter().sum()]);
            }
            different_words(leg.name(), &kernel, &host)
        })
    }

    fn drawn(&self, number: u64, arrival: &Arrival, bytes: &[u8], difference: &str) -> String {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let (name, seed) = (self.scenario.name, self.seed);
        format!(
            "{name}, seed {seed}, packet {number}, {arrival:?}, {:?}:\n{difference}\n{hex}",
            self.time.now()
        )
    }
}

/// The number of flows in a table that answer the request of another flow.
fn tied<S: Slot>(slots: &[S]) -> usize {
    let records = slots.iter().filter_map(table::read);
    records.filter(|record| matches!(&record.detail, Detail::Udp(udp) if udp.request_port != 0)).count()
}
