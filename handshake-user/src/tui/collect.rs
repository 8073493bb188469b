//! Keeps some of the records while a snapshot reads them: those that pass the filter.

use std::cell::RefCell;

use handshake_agent::model::kept::{KeptRecords, Most, Selection};
use handshake_agent::source::scan::{Look, Onlooker, Scan};
use handshake_agent::source::{Moment, Reading, ServiceReading, Source};
use handshake_common::record::{Brief, Clocks, Now, Record};

use super::filter::ListFilter;
use super::owners::Owners;
use handshake_agent::model::flow::{Flow, FlowId};

/// Most open attempts kept: the oldest.
pub(crate) const OPEN_KEPT: usize = 2_000;
/// Most silent connections kept: the latest.
const SILENT_KEPT: usize = 500;
/// Most UDP flows kept: the latest.
pub(crate) const UDP_KEPT: usize = 500;
const MOST: Most = Most { open: OPEN_KEPT, silent: SILENT_KEPT, udp: UDP_KEPT };

/// A source that keeps some of the records that are read through it.
pub(crate) struct Collecting<'a> {
    source: &'a mut dyn Source,
    filter: &'a ListFilter,
    owners: &'a Owners,
    wanted: Option<FlowId>,
    kept: RefCell<KeptRecords>,
    stopped: bool,
}

impl<'a> Collecting<'a> {
    /// Reads `source`, and keeps records that pass `filter` and the wanted one.
    pub(crate) fn new(
        source: &'a mut dyn Source,
        filter: &'a ListFilter,
        owners: &'a Owners,
        wanted: Option<FlowId>,
    ) -> Self {
        let kept = RefCell::default();
        Self { source, filter, owners, wanted, kept, stopped: false }
    }

    /// The records kept by the latest scan.
    pub(crate) fn kept(self) -> KeptRecords {
        self.kept.into_inner()
    }
}

impl Source for Collecting<'_> {
    fn read(&mut self) -> Result<Reading, handshake_agent::Error> {
        let reading = self.source.read()?;
        self.stopped = reading.stopped;
        Ok(reading)
    }

    /// Scans with its own onlooker; there is no other.
    fn scan(&self, now: Now, _: Option<&mut Onlooker<'_>>) -> Scan {
        let moment = Moment { now, stopped: self.stopped, clocks: self.source.clocks() };
        let selection = Selection::of(MOST, moment);
        let mut choosing = Choosing { collecting: self, moment, selection, found: None };
        // The wanted flow may be in any state by now.
        let states = if self.wanted.is_some() { u64::MAX } else { Most::STATES };
        let mut onlooker = Onlooker::new(states, &mut choosing).with_silent();
        let scan = self.source.scan(now, Some(&mut onlooker));
        let occupancy = onlooker.occupancy();
        *self.kept.borrow_mut() = choosing.selection.kept(occupancy, choosing.found);
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

/// Chooses the records of a scan that are kept.
struct Choosing<'a, 'b> {
    collecting: &'a Collecting<'b>,
    moment: Moment,
    selection: Selection,
    found: Option<Flow>,
}

impl Look for Choosing<'_, '_> {
    /// The filter, and whether it is the wanted one, ask for all of it.
    fn needs_whole(&self, brief: &Brief) -> bool {
        let Collecting { filter, wanted, .. } = self.collecting;
        wanted.is_some() || !filter.is_empty() || self.selection.needs_whole(brief)
    }

    fn see(&mut self, brief: &Brief, whole: Option<&Record>) {
        let Collecting { filter, owners, wanted, .. } = self.collecting;
        let admits = |record| filter.admits_record(record, &self.moment, owners);
        self.selection.add(brief, whole, || filter.is_empty() || whole.is_some_and(admits));
        if let Some(record) = whole.filter(|record| *wanted == Some(Flow::of(**record).id())) {
            self.found = Some(Flow::of(*record));
        }
    }
}

#[cfg(test)]
mod tests {
    use handshake_agent::fake::{Fake, SECOND, udp_record};
    use handshake_agent::source::Source as _;
    use handshake_common::abi::UdpRecord;
    use handshake_common::record::{Detail, State};

    use super::{Collecting, KeptRecords, OPEN_KEPT, SILENT_KEPT, UDP_KEPT};
    use crate::tui::filter::ListFilter;
    use crate::tui::owners::Owners;
    use handshake_agent::model::flow::{Flow, FlowId};

    fn collect(fake: &mut Fake, filter: &str, wanted: Option<FlowId>) -> KeptRecords {
        let filter = ListFilter::parse(filter).expect(filter);
        let owners = Owners::default();
        let mut collecting = Collecting::new(fake, &filter, &owners, wanted);
        let now = collecting.read().expect("a fake never fails").now;
        let scan = collecting.scan(now, None);
        let kept = collecting.kept();
        assert_eq!(scan.used(), kept.occupancy.iter().sum::<u64>());
        kept
    }

    #[test]
    fn the_oldest_open_attempts_are_kept_and_all_are_counted() {
        let mut fake = Fake::new();
        let many = OPEN_KEPT as u64 + 700;
        for age in 0..many {
            fake.open(1, if age % 2 == 0 { State::SynSent } else { State::SynReceived }, (age + 1) * 1_000);
        }
        fake.open(1, State::SynSent, 100 * SECOND);
        let kept = collect(&mut fake, "", None);
        assert_eq!((kept.open.len(), kept.open_found), (OPEN_KEPT, many), "one is past T2");
        let now = fake.reading.now;
        let ages: Vec<u64> = kept.open.iter().map(|each| each.record.age_ns(now)).collect();
        assert_eq!((ages[0], ages[OPEN_KEPT - 1]), (many * 1_000, 701 * 1_000));
        assert!(ages.is_sorted_by(|a, b| a > b));
        assert_eq!(kept.occupancy[State::SynSent as usize], many / 2 + 1);
    }

    /// The filter applies before the limit.
    #[test]
    fn a_record_that_the_filter_rejects_takes_no_room() {
        let mut fake = Fake::new();
        for _ in 0..OPEN_KEPT {
            fake.open(1, State::SynSent, 9 * SECOND);
        }
        let young = fake.open(1, State::SynReceived, SECOND);
        let kept = collect(&mut fake, "cause:no_ack", None);
        assert_eq!(kept.open, [Flow::of(fake.records[young])]);
        assert_eq!(kept.open_found, 1);
    }

    #[test]
    fn the_latest_udp_flows_are_kept() {
        let mut fake = Fake::new();
        for opened_ns in 0..UDP_KEPT as u64 + 10 {
            let mut record = udp_record("10.0.0.1:5000", "10.0.0.2:53", State::UdpWaiting);
            record.detail = Detail::Udp(UdpRecord { opened_ns, ..UdpRecord::default() });
            fake.records.push(record);
        }
        let kept = collect(&mut fake, "", None);
        let opened: Vec<u64> = kept.udp.iter().map(Flow::opened_ns).collect();
        assert_eq!((opened.len(), opened[0], opened[UDP_KEPT - 1]), (UDP_KEPT, UDP_KEPT as u64 + 9, 10));
        fake.reading.now.jiffies += 60_001;
        assert!(collect(&mut fake, "", None).udp.is_empty(), "idle for longer than --udp-idle");
    }

    /// The latest are kept; a connection that has not waited for T1 is none.
    #[test]
    fn silent_connections_are_kept() {
        let mut fake = Fake::new();
        for at in 0..SILENT_KEPT as u64 + 10 {
            fake.silent(1, 100 * SECOND - at);
        }
        fake.silent(1, 2 * SECOND);
        let kept = collect(&mut fake, "", None);
        let opened: Vec<u64> = kept.silent.iter().map(Flow::opened_ns).collect();
        let latest = fake.records[SILENT_KEPT + 9];
        assert_eq!((opened.len(), opened[0]), (SILENT_KEPT, Flow::of(latest).opened_ns()));
        assert!(opened.is_sorted_by(|a, b| a > b) && kept.open.is_empty());
        for (filter, count) in
            [("silent", SILENT_KEPT), ("failures", SILENT_KEPT), ("late", 0), ("port:61000", 0)]
        {
            assert_eq!(collect(&mut fake, filter, None).silent.len(), count, "{filter}");
        }
    }

    #[test]
    fn the_wanted_flow_is_found_despite_the_filter() {
        let mut fake = Fake::new();
        let at = fake.open(1, State::SynSent, SECOND);
        let id = Flow::of(fake.records[at]).id();
        let kept = collect(&mut fake, "port:1", Some(id));
        assert_eq!((kept.open.len(), kept.wanted), (0, Some(Flow::of(fake.records[at]))));
        fake.records[at].key.ports += 1 << 16;
        assert_eq!(collect(&mut fake, "", Some(id)).wanted, None);
    }
}
