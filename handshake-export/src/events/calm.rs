//! Whether a look at the tables may find anything: a look reads every tag, and mostly nothing has happened. Pure.
//!
//! ```text
//! a look ─▶ when the first of the attempts that it met changes by its age ─┐
//! attempts that began since ─▶ none changes before T1 has passed          ─┴─▶ the next look
//! ```

use handshake_agent::source::Moment;
use handshake_common::abi::{Counter, CounterBlock, TcpRecord};
use handshake_common::record::{Clocks, Detail, Record};

/// What the kernel side has counted of attempts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counted {
    began: u64,
    /// Taken up again, or with another number: such an attempt may be of any age.
    revised: u64,
    /// Open now, expired ones included.
    open: u64,
}

impl Counted {
    pub(super) fn of(counters: &CounterBlock) -> Self {
        let count = |counter: Counter| counters.words[counter as usize];
        let open = [Counter::OpenNoSynAck, Counter::OpenNoAck, Counter::OpenAnswerUnseen].map(count);
        Self { began: count(Counter::Attempts), revised: count(Counter::Revised), open: open.iter().sum() }
    }
}

/// The time of the next look that may find anything.
#[derive(Debug, Default)]
pub(super) struct Calm {
    /// What was counted the last time, and just before that.
    before: Option<(Counted, u64)>,
    half_open_after_ns: u64,
    /// When the next look is worth its while.
    due_ns: u64,
    /// Open attempts that this look has met.
    met: u64,
}

impl Calm {
    /// Whether a look may find anything by now. `counted` was read after `moment`.
    pub(super) fn ends(&mut self, counted: Counted, moment: &Moment) -> bool {
        let (now_ns, half_open_after_ns) = (moment.now.ns, moment.clocks.half_open_after_ns);
        let (before, read_ns) = self.before.replace((counted, now_ns)).unwrap_or_default();
        if counted.revised != before.revised || half_open_after_ns != self.half_open_after_ns {
            self.due_ns = now_ns;
        } else if counted.began != before.began {
            self.due_ns = self.due_ns.min(read_ns.saturating_add(half_open_after_ns));
        }
        self.half_open_after_ns = half_open_after_ns;
        now_ns >= self.due_ns
    }

    /// Begins a look.
    pub(super) const fn look(&mut self) {
        self.due_ns = u64::MAX;
        self.met = 0;
    }

    /// Takes an open attempt in that the look has met.
    pub(super) fn meet(&mut self, record: &Record, moment: &Moment) {
        self.met += 1;
        if let Detail::Tcp(tcp) = &record.detail {
            let changes = changes_ns(tcp, &moment.clocks).into_iter().filter(|ns| *ns > moment.now.ns);
            self.due_ns = changes.fold(self.due_ns, u64::min);
        }
    }

    /// Ends a look at `moment`. A record that a program had in hand was not met: then the next second has a look.
    pub(super) fn looked(&mut self, moment: &Moment) {
        if self.before.is_none_or(|(counted, _)| self.met < counted.open) {
            self.due_ns = moment.now.ns;
        }
    }
}

/// When an attempt becomes half-open, and when it expires, unless something comes for it.
const fn changes_ns(tcp: &TcpRecord, clocks: &Clocks) -> [u64; 2] {
    let expires_ns = tcp.latest_ns().saturating_add(clocks.expire_after_ns).saturating_add(1);
    [tcp.opened_ns.saturating_add(clocks.half_open_after_ns), expires_ns]
}

#[cfg(test)]
mod tests {
    use handshake_agent::fake::{Fake, SECOND, record, tcp};
    use handshake_agent::source::{Moment, Source as _};
    use handshake_common::abi::{Counter, CounterBlock, TcpRecord};
    use handshake_common::record::{Clocks, Detail, Record, State};

    use super::{Calm, Counted};
    use crate::events::{Event, EventChoice, EventLog};

    /// Attempts, and what the kernel side has counted of them.
    struct Wire {
        clocks: Clocks,
        moment: Moment,
        open: Vec<Record>,
        began: u64,
        revised: u64,
        state: u64,
    }

    impl Wire {
        fn new(seed: u64) -> Self {
            let fake = Fake::new();
            let moment = Moment { now: fake.reading.now, stopped: false, clocks: fake.clocks() };
            Self { clocks: fake.clocks(), moment, open: Vec::new(), began: 0, revised: 0, state: seed }
        }

        fn draw(&mut self, below: u64) -> u64 {
            self.state ^= self.state << 13;
            self.state ^= self.state >> 7;
            self.state ^= self.state << 17;
            self.state % below
        }

        /// A SYN at this time before now.
        fn begin(&mut self, before_ns: u64) -> Record {
            let mut begun = record("10.0.0.1:1", "10.0.0.2:443", State::SynSent);
            self.began += 1;
            begun.key.ports = u32::try_from(self.began).unwrap_or(0) << 16 | 443;
            let opened_ns = self.moment.now.ns - before_ns;
            begun.detail = Detail::Tcp(TcpRecord { opened_ns, latest_after: 0, ..tcp(&begun) });
            self.open.push(begun);
            begun
        }

        /// Another SYN of the attempt at this place. An expired one is ended by it, and another one begins.
        fn repeat(&mut self, at: usize) {
            if self.open[at].expired(self.moment.now, &self.clocks) {
                self.open.swap_remove(at);
                self.begin(0);
                return;
            }
            let Detail::Tcp(tcp) = &mut self.open[at].detail else { return };
            let after = (self.moment.now.ns - tcp.opened_ns) >> 6;
            tcp.latest_after = u32::try_from(after).unwrap_or(u32::MAX);
        }

        fn counted(&self) -> Counted {
            let mut counters = CounterBlock { words: [0; handshake_common::abi::COUNTERS] };
            counters.words[Counter::Attempts as usize] = self.began;
            counters.words[Counter::Revised as usize] = self.revised;
            counters.words[Counter::OpenNoSynAck as usize] = self.open.len() as u64;
            Counted::of(&counters)
        }

        /// A look by `log`.
        fn look(&self, log: &mut EventLog) -> Vec<Event> {
            let events = self.open.iter().flat_map(|record| log.meet(record, &self.moment)).flatten();
            let events = events.collect();
            log.looked(&self.moment);
            events
        }

        /// A look by `log`, where it may find anything, which `calm` decides. Returns whether there was one.
        fn look_if(&self, calm: &mut Calm, log: &mut EventLog) -> Option<Vec<Event>> {
            if !calm.ends(self.counted(), &self.moment) {
                return None;
            }
            calm.look();
            self.open.iter().for_each(|record| calm.meet(record, &self.moment));
            calm.looked(&self.moment);
            Some(self.look(log))
        }

        fn pass(&mut self, ns: u64) {
            self.moment.now.ns += ns;
        }
    }

    /// The same rows come in the same second, by far fewer looks: attempts begin, repeat and end at random, in
    /// bursts and hours of silence.
    #[test]
    fn a_look_that_is_left_out_would_have_found_nothing() {
        let (mut seconds, mut looks, mut rows) = (0, 0, 0);
        for seed in 1..=20 {
            let mut wire = Wire::new(u64::wrapping_mul(seed, 0x9e37_79b9_7f4a_7c15));
            let (mut each, mut some) =
                (EventLog::endless(EventChoice::All), EventLog::endless(EventChoice::All));
            let mut calm = Calm::default();
            for second in 0..2_000 {
                wire.pass(SECOND);
                let is_busy = second % 500 < 100;
                for _ in 0..if is_busy { wire.draw(4) } else { 0 } {
                    let before = wire.draw(SECOND);
                    wire.begin(before);
                }
                let count = wire.open.len();
                if is_busy && count > 0 {
                    let at = usize::try_from(wire.draw(count as u64)).unwrap_or(0);
                    if wire.draw(3) == 0 {
                        let _ended = wire.open.swap_remove(at);
                    } else {
                        wire.repeat(at);
                    }
                }
                let expected = wire.look(&mut each);
                rows += expected.len();
                let found = wire.look_if(&mut calm, &mut some);
                (seconds, looks) = (seconds + 1, looks + usize::from(found.is_some()));
                assert_eq!(found.unwrap_or_default(), expected, "second {second} of {seed}");
            }
        }
        assert!(rows > 1_000 && looks * 3 < seconds, "{rows} rows by {looks} looks in {seconds} seconds");
    }

    #[test]
    fn nothing_that_stays_open_or_expired_asks_for_a_look() {
        let (mut wire, mut calm) = (Wire::new(1), Calm::default());
        let mut log = EventLog::endless(EventChoice::All);
        wire.begin(0);
        let looks = (0..4_000_u64).filter(|_| {
            let found = wire.look_if(&mut calm, &mut log).is_some();
            wire.pass(SECOND);
            found
        });
        let looks: Vec<u64> = looks.collect();
        let [t1, t2] = [wire.clocks.half_open_after_ns, wire.clocks.expire_after_ns].map(|ns| ns / SECOND);
        assert_eq!(looks, [0, t1, t2 + 1], "at the start, at T1, past T2");
    }

    /// An attempt that is taken up again may be half-open already, and one that a program had in hand is met a
    /// second later.
    #[test]
    fn what_the_look_before_could_not_know_asks_for_one() {
        let (mut wire, mut calm) = (Wire::new(1), Calm::default());
        let mut log = EventLog::endless(EventChoice::All);
        wire.begin(0);
        let refused = wire.open.pop().expect("an attempt");
        assert!(wire.look_if(&mut calm, &mut log).is_some());
        wire.pass(100 * SECOND);
        assert!(wire.look_if(&mut calm, &mut log).is_none());
        (wire.open, wire.revised) = (vec![refused], 1);
        assert!(wire.look_if(&mut calm, &mut log).is_some());
        assert!(wire.look_if(&mut calm, &mut log).is_none());

        wire.begin(0);
        wire.pass(wire.clocks.half_open_after_ns);
        assert!(calm.ends(wire.counted(), &wire.moment));
        calm.look();
        calm.meet(&wire.open[0], &wire.moment);
        calm.looked(&wire.moment);
        wire.pass(SECOND);
        assert!(wire.look_if(&mut calm, &mut log).is_some(), "one of the two was not met");
        wire.pass(SECOND);
        assert!(wire.look_if(&mut calm, &mut log).is_none());
        wire.moment.clocks.half_open_after_ns /= 2;
        assert!(wire.look_if(&mut calm, &mut log).is_some(), "another T1");
    }
}
