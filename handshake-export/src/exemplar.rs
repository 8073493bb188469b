//! A flow for each verdict that says of an attempt that it failed, found by the scan that a reading makes
//! anyway.

use std::cell::RefCell;
use std::collections::HashMap;

use handshake_agent::model::flow::Flow;
use handshake_agent::model::snapshot::Snapshot;
use handshake_agent::source::scan::{Onlooker, Scan};
use handshake_agent::source::{Reading, ServiceReading, Source};
use handshake_common::flow::Side;
use handshake_common::record::{Clocks, Detail, Now, Record, State, TcpState};
use handshake_common::verdict::{Cause, Verdict};

use crate::figures::Exemplar;

/// Records of ended attempts that are looked at: a scan reads the tags of the others alone.
const MOST: u64 = 4_096;
/// The states of attempts that failed, and of those that may be past their time.
const FAILED: u64 = State::OPEN as u64
    | 1 << TcpState::Refused as u32
    | 1 << TcpState::Unreachable as u32
    | 1 << TcpState::InitiatorAborted as u32
    | 1 << TcpState::ResponderAborted as u32;

type Kind = (Verdict, Option<Cause>);

/// A source that keeps the latest record of each failed verdict of those that are read through it.
pub struct Looking<'a> {
    source: &'a mut dyn Source,
    found: RefCell<HashMap<Kind, Record>>,
}

impl<'a> Looking<'a> {
    /// Reads `source`.
    pub fn at(source: &'a mut dyn Source) -> Self {
        Self { source, found: RefCell::default() }
    }

    /// The flows found by the latest scan.
    pub fn exemplars(self, snapshot: &Snapshot) -> Vec<Exemplar> {
        let found = self.found.into_inner().into_iter();
        found.map(|((verdict, cause), record)| exemplar(verdict, cause, record, snapshot)).collect()
    }
}

fn exemplar(verdict: Verdict, cause: Option<Cause>, record: Record, snapshot: &Snapshot) -> Exemplar {
    let flow = Flow::of(record);
    let [initiator, responder] = [Side::Initiator, Side::Responder].map(|side| flow.end(side));
    Exemplar { verdict, cause, initiator, responder, began_ns: snapshot.wall_of(flow.opened_ns()) }
}

impl Source for Looking<'_> {
    fn read(&mut self) -> Result<Reading, handshake_agent::Error> {
        self.source.read()
    }

    /// Scans with its own onlooker; there is no other.
    fn scan(&self, now: Now, _: Option<&mut Onlooker<'_>>) -> Scan {
        let (clocks, mut found) = (self.source.clocks(), HashMap::<Kind, (u64, Record)>::new());
        let mut show = |record: &Record| {
            let Detail::Tcp(tcp) = &record.detail else { return };
            // An open attempt in its time has no counter yet.
            if record.state.is_open() && !tcp.expired(now.ns, &clocks) {
                return;
            }
            let Some(verdict) = record.verdict(now, &clocks) else { return };
            let cause = (verdict == Verdict::HalfOpenExpired).then(|| record.state.cause());
            let latest = found.entry((verdict, cause)).or_insert((tcp.opened_ns, *record));
            if latest.0 < tcp.opened_ns {
                *latest = (tcp.opened_ns, *record);
            }
        };
        let scan = self.source.scan(now, Some(&mut Onlooker::new(FAILED, &mut show).limited(MOST)));
        *self.found.borrow_mut() = found.into_iter().map(|(kind, (_, record))| (kind, record)).collect();
        scan
    }

    fn for_each_record(&self, visit: &mut dyn FnMut(&Record)) {
        self.source.for_each_record(visit);
    }

    fn services(&self) -> Vec<ServiceReading> {
        self.source.services()
    }

    fn workloads(&self) -> Vec<ServiceReading> {
        self.source.workloads()
    }

    fn clocks(&self) -> Clocks {
        self.source.clocks()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use handshake_agent::fake::{Fake, SECOND, WALL_NS, snapshot};
    use handshake_agent::model::snapshot::Snapshot;
    use handshake_common::record::State;
    use handshake_common::verdict::{Cause, Verdict};

    use super::Looking;

    /// Of each verdict that says of an attempt that it failed the latest flow; none of those that are open in
    /// their time, or completed.
    #[test]
    fn the_latest_flow_of_each_failure_is_found() {
        let before = snapshot();
        let mut fake = Fake::new();
        for (state, age) in [
            (State::SynReceived, 100),
            (State::SynReceived, 90),
            (State::SynReceived, 95),
            (State::SynSent, 1),
            (State::SynSent, 10),
            (State::Refused, 7),
            (State::Refused, 5),
            (State::Established, 2),
        ] {
            fake.open(0, state, age * SECOND);
        }
        let mut looking = Looking::at(&mut fake);
        let now = Snapshot::take(&mut looking, &Arc::clone(&before.context), Some(&before));
        let mut found = looking.exemplars(&now.expect("a fake never fails"));
        found.sort_by_key(|exemplar| exemplar.began_ns);
        let told = found.iter().map(|each| (each.verdict, each.cause, (WALL_NS - each.began_ns) / SECOND));
        let expected = [(Verdict::HalfOpenExpired, Some(Cause::NoAck), 90), (Verdict::Refused, None, 5)];
        assert_eq!(told.collect::<Vec<_>>(), expected);
        assert!(found.iter().all(|each| each.responder.ip().to_string() == "10.0.0.2"), "{found:?}");
    }
}
