//! Which services and workloads fail. Each is judged by its attempts of a window, or by those of the run where the window has
//! none; a sum over all would hide a small service that is down behind a busy one.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use handshake_common::flow::Side;
use handshake_common::verdict::Verdict;

use crate::model::connect::ServiceConnect;
use crate::model::settled::{Health, Settled};
use crate::model::snapshot::{Interval, ServiceBooks, Snapshot, TcpBooks, WorkloadFigures};

/// A service that has refused fewer attempts, and has done nothing else, is a closed port: a scan asks each once
/// or twice, and clients of a service that is down ask again.
const ASKED_AGAIN: u64 = 5;

/// A service, and how it does.
#[derive(Clone, Debug)]
pub struct JudgedService {
    /// The responder.
    pub service: SocketAddr,
    /// Its figures of the run.
    pub books: TcpBooks,
    /// The attempts of the window; of the run where the window has none.
    pub settled: Settled,
    /// How it does.
    pub health: Health,
    /// Its times to connect of the run.
    pub connect: ServiceConnect,
}

/// Ports that refused what a scan asked of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClosedPorts {
    /// How many.
    pub ports: u64,
    /// The attempts that they refused.
    pub refused: u64,
    /// Whose they are; `None` where there are several addresses.
    pub address: Option<IpAddr>,
}

/// All TCP services that have had an attempt, judged.
#[derive(Clone, Debug, Default)]
pub struct Services {
    /// The worst first: those that fail, by the attempts that failed.
    pub judged: Vec<JudgedService>,
    /// What a scan has found closed.
    pub closed: ClosedPorts,
}

impl Services {
    /// Those of a snapshot, judged by the attempts of the interval, or of the run without one.
    #[must_use]
    pub fn of(snapshot: &Snapshot, interval: Option<&Interval<'_>>) -> Self {
        let before: Option<HashMap<SocketAddr, TcpBooks>> = interval
            .map(|interval| tcp(interval.before).map(|(service, books, _)| (service, books)).collect());
        let before = before.unwrap_or_default();
        let mut all = Self::default();
        for (service, books, connect) in tcp(snapshot) {
            if is_closed(&books) {
                all.closed.add(service.ip(), &books);
                continue;
            }
            if let Some((settled, health)) = judge(&books, before.get(&service)) {
                let connect = connect.clone();
                all.judged.push(JudgedService { service, books, settled, health, connect });
            }
        }
        all.judged.sort_by_key(|one| {
            (one.health, Reverse(one.settled.failed()), Reverse(one.books.attempts), one.service)
        });
        all
    }

    /// How many fail.
    #[must_use]
    pub fn failing(&self) -> usize {
        self.judged.iter().filter(|one| one.health == Health::Failing).count()
    }

    /// How the worst of them does; `None` without a service.
    #[must_use]
    pub fn worst(&self) -> Option<Health> {
        self.judged.first().map(|one| one.health)
    }
}

impl ClosedPorts {
    fn add(&mut self, address: IpAddr, books: &TcpBooks) {
        let is_first = self.ports == 0;
        self.address = Some(address).filter(|_| is_first || self.address == Some(address));
        self.ports += 1;
        self.refused += books.verdict(Verdict::Refused);
    }
}

/// The attempts by which these are judged, and how they do; `None` where none has had its time.
fn judge(books: &TcpBooks, before: Option<&TcpBooks>) -> Option<(Settled, Health)> {
    let window = before.map(|before| Settled::since(before, books));
    let settled = window.filter(|window| window.attempts != 0).unwrap_or_else(|| Settled::of(books));
    // What is half-open now fails, also where nothing new has begun.
    let is_stuck = window.is_some_and(|window| window.attempts == 0) && books.verdict(Verdict::HalfOpen) != 0;
    let health = settled.health()?;
    Some((settled, if is_stuck { health.min(Health::Partly) } else { health }))
}

/// A control group whose sockets began attempts, or were asked, and how it does.
#[derive(Clone, Copy, Debug)]
pub struct JudgedWorkload<'a> {
    /// The id of the group.
    pub group: u64,
    /// Whether its sockets began the attempts, or were asked.
    pub side: Side,
    /// Whose they are, and the figures of the run.
    pub figures: &'a WorkloadFigures,
    /// The attempts of the window; of the run where the window has none.
    pub settled: Settled,
    /// How it does.
    pub health: Health,
}

/// The workloads of a snapshot whose group is known, judged as services are, the worst first. One that was refused
/// a few times, and did nothing else, is left out.
#[must_use]
pub fn workloads<'a>(snapshot: &'a Snapshot, interval: Option<&Interval<'_>>) -> Vec<JudgedWorkload<'a>> {
    let rows = interval.into_iter().flat_map(|interval| interval.before.workloads.iter());
    let before: HashMap<(u64, Side), &TcpBooks> =
        rows.filter_map(|row| Some(((row.group?, row.side?), &row.books))).collect();
    let judged = snapshot.workloads.iter().filter(|row| !is_closed(&row.books)).filter_map(|figures| {
        let (group, side) = (figures.group?, figures.side?);
        let (settled, health) = judge(&figures.books, before.get(&(group, side)).copied())?;
        Some(JudgedWorkload { group, side, figures, settled, health })
    });
    let mut judged: Vec<_> = judged.collect();
    judged.sort_by_key(|one| {
        let attempts = Reverse(one.figures.books.attempts);
        (one.health, Reverse(one.settled.failed()), attempts, one.group, one.side as u8)
    });
    judged
}

fn is_closed(books: &TcpBooks) -> bool {
    books.attempts < ASKED_AGAIN && books.attempts != 0 && books.verdict(Verdict::Refused) == books.attempts
}

fn tcp(snapshot: &Snapshot) -> impl Iterator<Item = (SocketAddr, TcpBooks, &ServiceConnect)> {
    snapshot.every_service.iter().filter_map(|row| match row.books {
        ServiceBooks::Tcp(books) => Some((row.service?, books, &row.connect)),
        ServiceBooks::Udp(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::snapshot::ServiceFigures;

    /// An address, attempts, and figures by verdict.
    type Row<'a> = (&'a str, u64, &'a [(Verdict, [u64; 2])]);

    /// A snapshot of these services.
    fn with(rows: &[Row<'_>]) -> Snapshot {
        let figures = |(address, attempts, figures): &Row<'_>| ServiceFigures {
            service: Some(address.parse().expect("an address")),
            books: ServiceBooks::Tcp(TcpBooks::of(*attempts, figures)),
            seat: None,
            connect: ServiceConnect::default(),
        };
        let mut snapshot = crate::fake::snapshot();
        snapshot.every_service = rows.iter().map(figures).collect::<Arc<[_]>>();
        snapshot
    }

    fn names(services: &Services) -> Vec<(String, Health)> {
        services.judged.iter().map(|one| (one.service.to_string(), one.health)).collect()
    }

    const BUSY: Row<'_> =
        ("10.0.0.2:80", 33_011, &[(Verdict::Completed, [33_000, 0]), (Verdict::Refused, [11, 0])]);

    #[test]
    fn a_small_service_that_is_down_comes_before_a_busy_one() {
        let rows =
            [BUSY, ("10.0.0.2:9001", 164, &[(Verdict::HalfOpen, [149, 0]), (Verdict::Opening, [15, 0])])];
        let services = Services::of(&with(&rows), None);
        assert_eq!(
            names(&services),
            [("10.0.0.2:9001".to_owned(), Health::Failing), ("10.0.0.2:80".to_owned(), Health::Good)]
        );
        assert_eq!((services.failing(), services.worst()), (1, Some(Health::Failing)));
        assert_eq!(services.judged[0].settled, Settled { attempts: 149, completed: 0 });
    }

    /// What a scan finds closed is no service that fails; a port that clients ask again is one.
    #[test]
    fn closed_ports_are_counted_and_not_judged() {
        let rows: [Row<'_>; 3] = [
            ("10.0.0.2:1", 1, &[(Verdict::Refused, [1, 0])]),
            ("10.0.0.2:2", 4, &[(Verdict::Refused, [4, 0])]),
            ("10.0.0.2:3", 5, &[(Verdict::Refused, [5, 0])]),
        ];
        let services = Services::of(&with(&rows), None);
        let address = rows[0].0.parse::<SocketAddr>().ok().map(|socket| socket.ip());
        assert_eq!(services.closed, ClosedPorts { ports: 2, refused: 5, address });
        assert_eq!(names(&services), [("10.0.0.2:3".to_owned(), Health::Failing)]);
    }

    /// After a day without a failure, the failures of an interval show at once.
    #[test]
    fn an_interval_is_judged_by_its_own_attempts() {
        let service = "10.0.0.2:80";
        let figures =
            |completed, refused| [(Verdict::Completed, [completed, 0]), (Verdict::Refused, [refused, 0])];
        let before = with(&[(service, 1_000_000, &figures(1_000_000, 0))]);
        let now = with(&[(service, 1_000_010, &figures(1_000_001, 9))]);
        let interval = Interval::between(&before, &now);
        let judged = &Services::of(&now, Some(&interval)).judged[0];
        assert_eq!(
            (judged.health, judged.settled),
            (Health::Failing, Settled { attempts: 10, completed: 1 })
        );
        let quiet = Interval::between(&now, &now);
        assert_eq!(Services::of(&now, Some(&quiet)).worst(), Some(Health::Good), "the run's");
        assert!(Services::of(&with(&[]), None).worst().is_none());
    }
}
