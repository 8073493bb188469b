//! The latest minute of each service: the share that got what it asked for, and how much began each second.
//! Pure.

use std::collections::{HashMap, VecDeque};

use handshake_agent::model::snapshot::{ServiceBooks, Snapshot};
use handshake_common::verdict::{UdpVerdict, Verdict};

use super::service::{Minute, ServiceId};

/// The time that is looked back, ns.
const MINUTE_NS: u64 = 60_000_000_000;
/// Most services whose minute is kept: the busiest, which come first.
const SERVICES: usize = 1_000;
/// The least time between two points of a series, ns. An interval is a little longer or shorter than it
/// should be.
const STEP_NS: u64 = 950_000_000;

/// The figures of a service at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Point {
    ns: u64,
    begun: u64,
    good: u64,
    undecided: u64,
}

/// The points of all services that are listed.
#[derive(Debug, Default)]
pub(crate) struct Minutes {
    series: HashMap<ServiceId, VecDeque<Point>>,
    /// The time of the snapshot before the latest; `None` before the first.
    before_ns: Option<u64>,
}

impl Minutes {
    /// Adds the figures of a snapshot, and forgets the services that it does not list, or not among the
    /// first.
    pub(crate) fn observe(&mut self, snapshot: &Snapshot) {
        let mut known = std::mem::take(&mut self.series);
        for row in &snapshot.services {
            let id = (row.service, matches!(row.books, ServiceBooks::Udp(_)));
            if self.series.len() >= SERVICES {
                continue;
            }
            let now = point(&row.books, snapshot.now.ns);
            let mut series = known.remove(&id).unwrap_or_default();
            // A row that another service had meanwhile begins anew.
            if series.back().is_some_and(|last| last.begun > now.begun) {
                series.clear();
            }
            if series.is_empty()
                && let Some(ns) = self.before_ns
            {
                series.push_back(Point { ns, ..Point::default() });
            }
            if series.back().is_none_or(|last| now.ns.saturating_sub(last.ns) >= STEP_NS) {
                series.push_back(now);
            }
            while series.get(1).is_some_and(|next| now.ns.saturating_sub(next.ns) >= MINUTE_NS) {
                series.pop_front();
            }
            self.series.insert(id, series);
        }
        self.before_ns = Some(snapshot.now.ns);
    }

    /// The latest minute of a service with these figures.
    pub(crate) fn of(&self, id: ServiceId, books: &ServiceBooks) -> Minute {
        let Some(series) = self.series.get(&id) else { return Minute::default() };
        let first = series.front().copied().unwrap_or_default();
        let now = point(books, 0);
        let begun = (now.begun - first.begun.min(now.begun) + first.undecided).saturating_sub(now.undecided);
        let steps = series.iter().zip(series.iter().skip(1));
        Minute {
            decided: begun,
            // What began before may be decided in the minute.
            good: now.good.saturating_sub(first.good).min(begun),
            begun: steps.map(|(before, after)| after.begun - before.begun).collect(),
        }
    }
}

fn point(books: &ServiceBooks, ns: u64) -> Point {
    match books {
        ServiceBooks::Tcp(books) => Point {
            ns,
            begun: books.attempts,
            good: books.verdict(Verdict::Completed),
            undecided: books.verdict(Verdict::Opening),
        },
        ServiceBooks::Udp(books) => Point {
            ns,
            begun: books.flows,
            good: books.verdict(UdpVerdict::Answered),
            undecided: books.verdict(UdpVerdict::Pending),
        },
    }
}

#[cfg(test)]
mod tests {
    use handshake_agent::fake::Fake;
    use handshake_common::abi::Counter;
    use handshake_common::record::State;

    use crate::tui::scene::Scene;
    use crate::tui::testing::SceneFixture;

    /// Decided, good, and the latest steps of the service with this port.
    fn minute(scene: &Scene, port: u16) -> (u64, u64, Vec<u64>) {
        let is_it = |socket: std::net::SocketAddr| socket.port() == port;
        let line = scene.services.iter().find(|line| line.service.is_some_and(is_it)).expect("it is listed");
        let latest = line.minute.begun.iter().rev().take(3).rev().copied().collect();
        (line.minute.decided, line.minute.good, latest)
    }

    #[test]
    fn a_minute_ago_is_forgotten() {
        let mut fake = Fake::new();
        fake.service(1, "10.0.0.2:443");
        let mut fixture = SceneFixture::new(fake);
        fixture.run(100, |fake, _| fake.ended(1, Counter::Completed, 10));
        let scene = fixture.run(30, |fake, _| {
            fake.ended(1, Counter::Refused, 10);
            // Not decided yet, and not a failure.
            fake.open(1, State::SynSent, 0);
        });
        let opening = 3;
        assert_eq!(minute(&scene, 443), (600 + 30 - opening, 300, vec![11, 11, 11]));
        assert_eq!(scene.services[0].minute.begun.len(), 60);
    }

    /// A service that appears begins with nothing, and one whose row was another's meanwhile as well.
    #[test]
    fn a_service_that_is_new_counts_from_its_beginning() {
        let mut fixture = SceneFixture::new(Fake::new());
        fixture.run(3, |_, _| {});
        fixture.fake.service(1, "10.0.0.2:80");
        let scene = fixture.run(1, |fake, _| fake.ended(1, Counter::Completed, 7));
        assert_eq!(minute(&scene, 80), (7, 7, vec![7]));
        fixture.run(20, |fake, _| fake.ended(1, Counter::Completed, 7));
        let scene = fixture.run(1, |fake, _| {
            fake.services[0].service.gauges = [0; handshake_common::abi::SERVICE_GAUGES];
            fake.ended(1, Counter::Refused, 2);
        });
        assert_eq!(minute(&scene, 80), (2, 0, vec![2]));
    }
}
