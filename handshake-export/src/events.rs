//! Which attempts are worth a row of `--events`: when they become half-open, and when they end. Pure, but for
//! [`Followed`], which asks a session.
//!
//! ```text
//! SYN ──────── T1: half_open ──────── the end, or T2: ended
//!         found by a look at the table       told by the kernel side, or found by a look
//! ```
//!
//! A look at the table finds what only age decides. Two looks tell what has changed between them, so nothing
//! is kept of the attempts that are not announced. Under a flood there may be more of them than can be read:
//! then rows are left out, and counted. An attempt that was announced is kept until its end is told. A look that
//! would find nothing is left out ([`calm`]).

mod calm;

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use handshake_agent::Error;
use handshake_agent::model::flow::{Flow, FlowEnd, FlowId, Standing, View};
use handshake_agent::session::Session;
use handshake_agent::source::Moment;
use handshake_common::abi::TcpRecord;
use handshake_common::record::{Now, Record};
use handshake_common::verdict::Verdict;

use self::calm::{Calm, Counted};

/// Rows of a second that may be left out.
pub const ROWS: u64 = 200;
/// Attempts that are announced and have not ended.
const ANNOUNCED: usize = 1 << 14;
/// Looks after which an announced attempt that is in no table is forgotten: its end was lost, and is counted
/// as that.
const PATIENCE: u64 = 3;
/// The time between two looks at the tables.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Which attempts have rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventChoice {
    /// Those that become half-open, and those that fail; of those that complete, what was half-open.
    Failed,
    /// Those that become half-open, and all that end.
    All,
    /// None.
    None,
}

impl EventChoice {
    /// Whether there are any.
    pub const fn is_any(self) -> bool {
        !matches!(self, Self::None)
    }
}

/// What happened to an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// It became half-open.
    HalfOpen,
    /// It ended.
    Ended,
}

impl EventKind {
    /// The name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::HalfOpen => "half_open",
            Self::Ended => "ended",
        }
    }
}

/// A row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// To which attempt.
    pub flow: Flow,
    /// When, on the records' clock.
    pub at_ns: u64,
}

/// The rows that were left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unlisted {
    /// Attempts that became half-open.
    pub half_open: u64,
    /// Attempts that ended.
    pub ended: u64,
}

/// What was told of the attempts so far.
#[derive(Debug)]
pub struct EventLog {
    choice: EventChoice,
    /// Whether rows are left out.
    bounded: bool,
    /// The time of the last look; `None` before the first.
    looked: Option<Now>,
    /// Number of looks.
    looks: u64,
    /// Rows that this second has room for.
    left: u64,
    /// What is announced and has not ended, with the look that saw it last.
    announced: HashMap<FlowId, u64>,
    unlisted: Unlisted,
}

impl EventLog {
    /// A log of rows that are read while they come: there may be too many.
    pub fn bounded(choice: EventChoice) -> Self {
        Self { bounded: true, ..Self::endless(choice) }
    }

    /// A log of all rows that there are.
    pub fn endless(choice: EventChoice) -> Self {
        Self {
            choice,
            bounded: false,
            looked: None,
            looks: 0,
            left: ROWS,
            announced: HashMap::new(),
            unlisted: Unlisted::default(),
        }
    }

    /// The row of an attempt of whose end the kernel side tells; `None` where there is none.
    pub fn end(&mut self, flow: &Flow, moment: &Moment) -> Option<Event> {
        let end = flow.ended?;
        // The kernel side tells of it when something takes its place: long after a look has.
        let is_told = end.standing == Standing::Tcp(Verdict::HalfOpenExpired)
            && self.looked.is_some_and(|looked| flow.record.expired(looked, &moment.clocks));
        if is_told {
            return None;
        }
        let was_announced = self.announced.remove(&flow.id()).is_some();
        let is_told = match self.choice {
            EventChoice::None => false,
            EventChoice::All => true,
            EventChoice::Failed => was_announced || (flow.has_failed() && self.has_room_for_end()),
        };
        let at_ns = end.at_ns.unwrap_or(moment.now.ns);
        is_told.then_some(Event { kind: EventKind::Ended, flow: *flow, at_ns })
    }

    /// The rows of an open record that a look at `moment` meets.
    pub fn meet(&mut self, record: &Record, moment: &Moment) -> [Option<Event>; 2] {
        let Moment { now, clocks, .. } = moment;
        let verdict = |at: Now| record.verdict(at, clocks);
        let before = self.looked.map_or(Some(Verdict::Opening), verdict);
        let (flow, now) = (Flow::of(*record), verdict(*now));
        let is_past = |verdict| matches!(verdict, Some(Verdict::HalfOpen | Verdict::HalfOpenExpired));
        let begins = (is_past(now) && !is_past(before)).then(|| self.begin(&flow, moment)).flatten();
        let ends =
            (now == Some(Verdict::HalfOpenExpired) && before != now).then(|| self.expire(&flow, moment));
        if let Some(seen) = self.announced.get_mut(&flow.id()) {
            *seen = self.looks;
        }
        [begins, ends.flatten()]
    }

    /// A second without a look. Returns what was left out since the last one.
    fn rested(&mut self) -> Option<Unlisted> {
        self.left = ROWS;
        self.take_unlisted()
    }

    /// Ends a look at `moment`. Returns what was left out since the last one.
    pub fn looked(&mut self, moment: &Moment) -> Option<Unlisted> {
        self.looked = Some(moment.now);
        self.looks += 1;
        let looks = self.looks;
        self.announced.retain(|_, seen| *seen + PATIENCE >= looks);
        self.rested()
    }

    /// What was left out since it was last told.
    pub fn take_unlisted(&mut self) -> Option<Unlisted> {
        let unlisted = std::mem::take(&mut self.unlisted);
        (unlisted != Unlisted::default()).then_some(unlisted)
    }

    fn begin(&mut self, flow: &Flow, moment: &Moment) -> Option<Event> {
        if self.bounded {
            if self.announced.len() >= ANNOUNCED || !self.take_room() {
                self.unlisted.half_open += 1;
                return None;
            }
            self.announced.insert(flow.id(), self.looks);
        }
        let at_ns = flow.opened_ns().saturating_add(moment.clocks.half_open_after_ns);
        // As it stood at that time, whatever it is by now.
        let standing = Standing::Tcp(Verdict::HalfOpen);
        let flow = Flow { ended: Some(FlowEnd { standing, at_ns: None }), ..*flow };
        Some(Event { kind: EventKind::HalfOpen, flow, at_ns })
    }

    fn expire(&mut self, flow: &Flow, moment: &Moment) -> Option<Event> {
        let was_announced = self.announced.remove(&flow.id()).is_some();
        if !was_announced && !self.has_room_for_end() {
            return None;
        }
        let latest_ns = flow.tcp().map_or(moment.now.ns, TcpRecord::latest_ns);
        let at_ns = latest_ns.saturating_add(moment.clocks.expire_after_ns);
        let flow = Flow::ended(flow.record, Verdict::HalfOpenExpired, at_ns);
        Some(Event { kind: EventKind::Ended, flow, at_ns })
    }

    fn has_room_for_end(&mut self) -> bool {
        let has_room = !self.bounded || self.take_room();
        self.unlisted.ended += u64::from(!has_room);
        has_room
    }

    fn take_room(&mut self) -> bool {
        let has_room = self.left > 0;
        self.left = self.left.saturating_sub(1);
        has_room
    }
}

/// The attempts of a session as they become half-open and end.
#[derive(Debug)]
pub struct Followed {
    log: EventLog,
    calm: Calm,
    /// When the tables were last looked at, or a look was left out.
    looked: Instant,
}

/// What a look at the tables has found, in the order of its time.
pub struct Look<'a> {
    /// The moment of the look.
    pub view: View<'a>,
    /// The rows.
    pub events: Vec<Event>,
    /// Rows beyond as many as were asked for.
    pub beyond: u64,
    /// What was left out since the last look.
    pub unlisted: Option<Unlisted>,
}

impl Followed {
    /// Follows attempts from now on.
    pub fn new(log: EventLog) -> Self {
        Self { log, calm: Calm::default(), looked: Instant::now() }
    }

    /// Takes ended attempts out of the kernel's ring, and calls `visit` with the row of each that has one.
    /// `Break` leaves the rest for the next call.
    pub fn take_ended(
        &mut self,
        session: &mut Session,
        visit: &mut dyn FnMut(&Event, &View<'_>) -> ControlFlow<()>,
    ) {
        session.for_each_ended(&mut |flow, view| match self.log.end(flow, &view.moment) {
            Some(event) => visit(&event, view),
            None => ControlFlow::Continue(()),
        });
    }

    /// What was left out since it was last told.
    pub fn take_unlisted(&mut self) -> Option<Unlisted> {
        self.log.take_unlisted()
    }

    /// Whether the next look is due.
    pub fn is_due(&self) -> bool {
        self.looked.elapsed() >= LOOK_EVERY
    }

    /// Looks at the tables for attempts that became half-open or expired since the last look, where there may be
    /// any. Returns `most` rows at most, and `None` where clocks or counters could not be read: the next look
    /// finds what this one did not.
    ///
    /// # Errors
    ///
    /// Those of reading the clocks and the counters, but for those that pass.
    pub fn look<'a>(&mut self, session: &'a Session, most: usize) -> Result<Option<Look<'a>>, Error> {
        self.looked = Instant::now();
        let (view, counters) = match session.present() {
            Ok(present) => present,
            Err(error) if error.is_passing() => return Ok(None),
            Err(error) => return Err(error),
        };
        let Self { log, calm, .. } = self;
        let (mut events, mut beyond) = (Vec::new(), 0);
        if !calm.ends(Counted::of(&counters), &view.moment) {
            return Ok(Some(Look { view, events, beyond, unlisted: log.rested() }));
        }
        calm.look();
        session.for_each_open(view.moment.now, &mut |record| {
            calm.meet(record, &view.moment);
            for event in log.meet(record, &view.moment).into_iter().flatten() {
                if events.len() < most {
                    events.push(event);
                } else {
                    beyond += 1;
                }
            }
        });
        calm.looked(&view.moment);
        events.sort_by_key(|event| event.at_ns);
        let unlisted = log.looked(&view.moment);
        Ok(Some(Look { view, events, beyond, unlisted }))
    }
}

#[cfg(test)]
mod tests {
    use handshake_agent::fake::{Fake, SECOND, record, tcp};
    use handshake_agent::model::flow::Flow;
    use handshake_agent::source::{Moment, Source as _};
    use handshake_common::abi::{TcpRecord, tag};
    use handshake_common::record::{Detail, Record, State};
    use handshake_common::verdict::Verdict;

    use super::{ANNOUNCED, Event, EventChoice, EventKind, EventLog, ROWS, Unlisted};

    /// A second of the records' clock, after which attempts in the table are looked at.
    fn at(second: u64) -> Moment {
        let fake = Fake::new();
        let mut now = fake.reading.now;
        now.ns += second * SECOND;
        Moment { now, stopped: false, clocks: fake.clocks() }
    }

    /// An attempt that begins half a second before the end of a second.
    fn begun(number: u16, second: u64) -> Record {
        let mut begun = record("10.0.0.1:1", "10.0.0.2:443", State::SynReceived);
        begun.key.ports = u32::from(number) << 16 | 443;
        begun.detail = Detail::Tcp(TcpRecord { opened_ns: at(second).now.ns - SECOND / 2, ..tcp(&begun) });
        begun
    }

    /// Looks at these records at the end of a second: what happened, at which tenth of a second.
    fn look(log: &mut EventLog, records: &[Record], second: u64) -> Vec<(EventKind, u64)> {
        let events: Vec<Event> =
            records.iter().flat_map(|record| log.meet(record, &at(second))).flatten().collect();
        log.looked(&at(second));
        let tenth = |ns: u64| (ns - at(0).now.ns) / (SECOND / 10);
        events.iter().map(|event| (event.kind, tenth(event.at_ns))).collect()
    }

    fn ends(log: &mut EventLog, record: Record, verdict: Verdict, second: u64) -> bool {
        log.end(&Flow::ended(record, verdict, at(second).now.ns), &at(second)).is_some()
    }

    #[test]
    fn an_attempt_is_told_of_once_at_t1_and_once_at_t2() {
        for choice in [EventChoice::Failed, EventChoice::All] {
            for mut log in [EventLog::bounded(choice), EventLog::endless(choice)] {
                let attempt = begun(1, 1);
                let mut told = Vec::new();
                for second in 1..90 {
                    told.extend(look(&mut log, &[attempt], second).into_iter().map(|row| (second, row)));
                }
                let (begins, ends_at) = ((4, (EventKind::HalfOpen, 35)), (76, (EventKind::Ended, 755)));
                assert_eq!(told, [begins, ends_at]);
                // The kernel side tells of it when something takes its place.
                assert!(!ends(&mut log, attempt, Verdict::HalfOpenExpired, 90));
                assert!(log.announced.is_empty());
            }
        }
    }

    /// After a pause of the looks both rows are told; an end between two looks, the end alone.
    #[test]
    fn what_happens_between_two_looks_is_told() {
        let mut log = EventLog::bounded(EventChoice::Failed);
        look(&mut log, &[], 1);
        let rows = look(&mut log, &[begun(1, 2)], 100);
        assert_eq!(rows, [(EventKind::HalfOpen, 45), (EventKind::Ended, 765)]);
        let replaced = begun(2, 26);
        assert!(ends(&mut log, replaced, Verdict::HalfOpenExpired, 101), "no look has met it");
    }

    #[test]
    fn failures_are_told_and_what_completes_in_time_is_not() {
        let flagged = |flags| Record { flags: begun(1, 1).flags | flags, ..begun(1, 1) };
        let table = [
            (Verdict::Completed, 0, false),
            (Verdict::Completed, tag::LATE, true),
            (Verdict::Completed, tag::REVISED, true),
            (Verdict::Refused, 0, true),
            (Verdict::Superseded, 0, true),
            (Verdict::Evicted, 0, true),
        ];
        for (verdict, flags, told) in table {
            let mut log = EventLog::bounded(EventChoice::Failed);
            assert_eq!(ends(&mut log, flagged(flags), verdict, 2), told, "{verdict:?}");
            assert!(ends(&mut EventLog::bounded(EventChoice::All), flagged(flags), verdict, 2));
            assert!(!ends(&mut EventLog::bounded(EventChoice::None), flagged(flags), verdict, 2));
        }
        let mut log = EventLog::bounded(EventChoice::Failed);
        look(&mut log, &[begun(1, 1)], 4);
        assert!(ends(&mut log, begun(1, 1), Verdict::Completed, 5), "it was announced");
    }

    /// A flood has as many rows as a second has room for, and the rest is counted. The ends of announced
    /// attempts are told, however many there are.
    #[test]
    fn a_flood_is_counted_beyond_some_rows() {
        let mut log = EventLog::bounded(EventChoice::Failed);
        let rows = usize::try_from(ROWS).expect("a few");
        let flood: Vec<Record> = (0..2_000).map(|number| begun(number, 1)).collect();
        let told = flood.iter().flat_map(|record| log.meet(record, &at(4))).flatten().count();
        assert_eq!(told, rows);
        assert_eq!(log.looked(&at(4)), Some(Unlisted { half_open: 2_000 - ROWS, ended: 0 }));
        let ended = flood.iter().filter(|record| ends(&mut log, **record, Verdict::Evicted, 5)).count();
        assert_eq!(ended, 2 * rows, "the announced ones, and those that this second has room for");
        assert_eq!(log.take_unlisted(), Some(Unlisted { half_open: 0, ended: 2_000 - 2 * ROWS }));
        assert_eq!(log.take_unlisted(), None);
        let all = flood.iter().flat_map(|record| EventLog::endless(EventChoice::All).meet(record, &at(4)));
        assert_eq!(all.flatten().count(), 2_000);
    }

    /// What is announced and not met again has lost its end, and takes no memory.
    #[test]
    fn what_is_announced_is_bounded() {
        let mut log = EventLog::bounded(EventChoice::Failed);
        for second in 0..400 {
            let flood: Vec<Record> = (0..1_000).map(|number| begun(number, second + 1)).collect();
            look(&mut log, &flood, second + 4);
            assert!(log.announced.len() <= 5 * 200, "{}", log.announced.len());
        }
        let still: Vec<Record> = (0..10_000).map(|number| begun(number, 500)).collect();
        log.left = u64::MAX;
        let more: Vec<Record> = (0..10_000).map(|number| begun(number, 501)).collect();
        let told = still.iter().chain(&more).flat_map(|record| log.meet(record, &at(504))).flatten().count();
        assert!(told <= ANNOUNCED && log.announced.len() == ANNOUNCED, "{told}");
    }
}
