//! The memory of the model: one set of slots, one lock word and a few services, and two CPUs on them.

use std::cell::Cell;
use std::mem::MaybeUninit;
use std::sync::Arc;

use handshake_common::abi::{CLASS_WORDS, Config, Counter, Event, SERVICES, STRIPES};
use handshake_common::record::Now;
use handshake_common::verdict::Leg;
use handshake_common::wire::Packet;
use zerocopy::FromZeros;

use crate::audit::{self, Total};
use crate::books::{Books, ConnectRow, ServiceRow};
use crate::engine::{self, Platform};
use crate::packets::assert_whole;
use crate::shared::Shared64;
use crate::table::{MakerWords, Set, Slot, Slot4, Slot6, read};

/// Rows of either half of the service table: `other`, and two that the one service of the packets can be in.
const ROWS: usize = 3;
/// Nothing here lasts so long.
const NEVER: u64 = u64::MAX >> 2;
/// CPUs, and who fills the table before them.
const CPUS: usize = 3;

/// A thread of the model.
pub(crate) type Thread = loom::thread::JoinHandle<()>;

/// Starts a thread of the model.
pub(crate) fn spawn(run: impl FnOnce() + Send + 'static) -> Thread {
    /// Loom's own choice is too small for a debug build's frames. In words, whatever its documentation says.
    const STACK: usize = 1 << 15;
    loom::thread::Builder::new().stack_size(STACK).spawn(run).expect("a model has threads")
}

/// Waits for its end.
pub(crate) fn join(thread: Thread) {
    thread.join().expect("a thread that panics ends the model");
}

/// What all CPUs share, and their counter blocks.
#[derive(Default)]
struct Shared {
    slots: Set<Slot4>,
    /// One is used, or with [`World::with_a_stripe_a_cpu`] one a CPU.
    stripes: [Shared64; CPUS],
    services: [[ServiceRow; ROWS]; 2],
    books: [Books; CPUS],
}

/// A world before its CPUs start.
pub(crate) struct World {
    shared: Arc<Shared>,
    config: Config,
    stripe_a_cpu: bool,
}

impl World {
    /// Empty but for what these packets leave.
    pub(crate) fn after(packets: &[(Now, Packet)]) -> Self {
        let mut config = Config::new_zeroed();
        // All keys have the one set, and services begin at row 1.
        config.factors[0][0] = 1 << 32;
        config.mask4 = 0;
        config.half_open_after_ns = NEVER;
        config.expire_after_ns = NEVER;
        config.udp_idle_jiffies = u32::MAX >> 2;
        config.idle_after_jiffies = u32::MAX >> 2;
        let world = Self { shared: Arc::default(), config, stripe_a_cpu: false };
        let cpu = world.cpu(CPUS - 1);
        packets.iter().for_each(|(now, packet)| cpu.observe(*now, packet));
        world.touch();
        world
    }

    /// Open attempts expire this long after their latest SYN or SYN+ACK.
    pub(crate) fn expiring(mut self, after_ns: u64) -> Self {
        self.config.expire_after_ns = after_ns;
        self
    }

    /// Each CPU has another lock word: so it may be for different keys, and never for one.
    pub(crate) fn with_a_stripe_a_cpu(mut self) -> Self {
        self.stripe_a_cpu = true;
        self
    }

    /// Loom wants a word made before the threads that share it.
    fn touch(&self) {
        for slot in &self.shared.slots {
            let _ = (slot.tag().load(), slot.last().load(), slot.body().tcp(), slot.key(false));
        }
        for stripe in &self.shared.stripes {
            let _ = stripe.load();
        }
        for row in self.shared.services.iter().flatten() {
            let _ = row.copy();
        }
    }

    /// A CPU of this world.
    pub(crate) fn cpu(&self, number: usize) -> Cpu {
        Cpu {
            shared: Arc::clone(&self.shared),
            config: self.config,
            number,
            stripe: if self.stripe_a_cpu { number } else { 0 },
            now: Cell::default(),
        }
    }

    /// Lets a reader look at the slot while a CPU has a packet. The record that it saw is whole.
    pub(crate) fn watch(self, slot: usize, (now, packet): (Now, Packet)) {
        let cpu = self.cpu(0);
        let writer = spawn(move || cpu.observe(now, &packet));
        let shared = Arc::clone(&self.shared);
        let reader = spawn(move || read(&shared.slots[slot]).iter().for_each(assert_whole));
        join(writer);
        join(reader);
        let left = read(&self.shared.slots[slot]).expect("a record, in a slot that is not locked");
        assert_whole(&left);
    }

    /// Lets two CPUs look for the row of a packet's service. None is given up, and the rows are whole.
    pub(crate) fn claim(self, packet: Packet) -> Outcome {
        let cpus = [0, 1].map(|number| {
            let cpu = self.cpu(number);
            spawn(move || assert!(engine::service_row(&cpu, &packet, 0) < 2, "a service has two rows"))
        });
        cpus.into_iter().for_each(join);
        self.outcome()
    }

    /// Lets two CPUs have their packets at the same time, and checks what is left.
    pub(crate) fn race(self, packets: [Vec<(Now, Packet)>; 2]) -> Outcome {
        let threads = packets.into_iter().enumerate().map(|(number, packets)| {
            let cpu = self.cpu(number);
            spawn(move || packets.iter().for_each(|(now, packet)| cpu.observe(*now, packet)))
        });
        threads.collect::<Vec<_>>().into_iter().for_each(join);
        self.outcome()
    }

    /// The books, after the audit.
    pub(crate) fn outcome(&self) -> Outcome {
        let shared = &self.shared;
        let total: Total = std::array::from_fn(|i| {
            shared.books.iter().fold(0, |sum: u64, books| sum.wrapping_add(books.words()[i].load()))
        });
        let services: Vec<_> = shared.services.iter().flatten().map(ServiceRow::copy).collect();
        audit::audit(&shared.slots, &shared.stripes, &services, &total);
        Outcome { total }
    }
}

/// The books of a world that is at rest.
pub(crate) struct Outcome {
    total: Total,
}

impl Outcome {
    /// A counter, summed.
    pub(crate) fn of(&self, counter: Counter) -> u64 {
        self.total[counter as usize]
    }
}

/// A CPU: the platform that its packets see.
pub(crate) struct Cpu {
    shared: Arc<Shared>,
    config: Config,
    number: usize,
    stripe: usize,
    now: Cell<Now>,
}

impl Cpu {
    /// A packet comes.
    pub(crate) fn observe(&self, now: Now, packet: &Packet) {
        self.now.set(now);
        engine::observe(self, packet);
    }
}

impl Platform for Cpu {
    /// Every order of the CPUs' accesses is tried: to wait would only be more of them.
    fn wait(&self, _word: &Shared64) {}
    fn config(&self) -> &Config {
        &self.config
    }
    fn now_ns(&self) -> u64 {
        self.now.get().ns
    }
    fn jiffies(&self) -> u32 {
        self.now.get().jiffies
    }
    fn set4(&self, index: u32) -> Option<&Set<Slot4>> {
        (index == 0).then_some(&self.shared.slots)
    }
    fn set6(&self, _index: u32) -> Option<&Set<Slot6>> {
        None
    }
    fn stripe(&self, index: u32) -> Option<&Shared64> {
        assert!(index < STRIPES);
        self.shared.stripes.get(self.stripe)
    }
    fn client(&self, _index: u32) -> Option<&Shared64> {
        None
    }
    fn service(&self, row: u32) -> Option<&ServiceRow> {
        let half = SERVICES as usize / 2;
        self.shared.services[row as usize / half].get(row as usize % half)
    }
    fn connects(&self, _row: u32) -> Option<&ConnectRow> {
        None
    }
    fn books(&self) -> &Books {
        &self.shared.books[self.number]
    }
    fn count_class(&self, _packet: &Packet, _place: usize, _packets: u64) {}
    fn sample(&self, _leg: Leg, _bucket: u32, _samples: u64) {}
    fn is_selected(&self, _port: u16) -> bool {
        false
    }
    fn emit(&self, _: Option<&MakerWords>, _fill: impl FnOnce(&mut MaybeUninit<Event>)) -> bool {
        false
    }
}
