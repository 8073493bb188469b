//! Fuzzes the engine with any stream of segments; the books are the oracle.

mod arena;
mod history;
mod oracle;
mod stream;

use std::cell::{Cell, RefCell};

use handshake_common::abi::{Counter, Event, option};
use handshake_common::memory::Memory;
use handshake_common::record::Record;

use self::arena::Arena;
use self::history::StreamHistory;
use self::oracle::OracleWords;
use self::stream::Stream;

thread_local! {
    // Half a MiB of service rows: made once and not for every input.
    static ARENA: RefCell<Arena> = RefCell::new(Arena::new());
}

/// Runs the bytes as a stream of packets of a few flows, and checks the books after each packet.
pub fn track(data: &[u8]) {
    ARENA.with_borrow_mut(|arena| {
        let mut stream = Stream::over(data);
        arena.reset(stream.settings().slots);
        run(&mut stream, arena);
    });
}

fn run(stream: &mut Stream<'_>, arena: &Arena) {
    let config = stream.settings().config();
    let events = EventTotals::default();
    let event = |event: &Event| events.event(event);
    let evicted = Cell::new(false);
    let displaced = |record: &Record, verdict: Option<Counter>| {
        evicted.set(true);
        assert_eq!(
            record.state.is_open(),
            verdict.is_some(),
            "an evicted record has a verdict exactly if its attempt is open: {record:?}"
        );
    };
    let storage = arena.storage(stream.settings().by_port);
    let config = storage.fit(config);
    let memory = Memory::new(&config, storage, &event).on_evict(&displaced);
    let mut history = StreamHistory::new(config.options & option::ONE_SIDED != 0);
    let mut before = OracleWords::of(memory.storage().books);
    let mut packets = 0;
    while let Some((now, packet)) = stream.next() {
        memory.observe(now, &packet);
        packets += u64::from(packet.segments);
        history.add(now, &packet);
        let after = OracleWords::of(memory.storage().books);
        if evicted.take() || after.at(Counter::Untracked) != before.at(Counter::Untracked) {
            history.lost_a_record();
        }
        if let Some(key) = history.completes() {
            oracle::is_complete(memory.storage(), &key);
        }
        after.balance();
        after.agree_with(memory.storage());
        after.follow(&before, &packet, &history);
        before = after;
    }
    events.agree_with(&before);
    oracle::classes(memory.storage(), packets);
    oracle::at_rest(&memory, &config, &before, arena);
}

/// The events that the engine emitted, and those that had no room.
#[derive(Default)]
struct EventTotals {
    events: Cell<u64>,
    refused: Cell<u64>,
}

impl EventTotals {
    /// Receives an event. There is room for three of four.
    fn event(&self, event: &Event) -> bool {
        let verdicts = Counter::Completed as u32..=Counter::Evicted as u32;
        assert!(verdicts.contains(&event.verdict), "an event has a verdict that ends an attempt: {event:?}");
        self.events.set(self.events.get() + 1);
        let room = !self.events.get().is_multiple_of(4);
        self.refused.set(self.refused.get() + u64::from(!room));
        room
    }

    fn agree_with(&self, words: &OracleWords) {
        assert_eq!(
            words.at(Counter::LostEvents),
            self.refused.get(),
            "every event without room is counted as lost"
        );
    }
}
