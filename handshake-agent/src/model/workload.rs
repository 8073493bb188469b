//! Workloads: the figures of each control group, of what its sockets began and of what they were asked.

use std::cmp::Reverse;
use std::sync::Arc;

use handshake_common::flow::Side;

use crate::model::books::TcpBooks;
use crate::owner::{Owner, OwnerBook};
use crate::source::ServiceReading;
use crate::source::scan::{Ages, ByCause, Scan};

/// The figures of the attempts of a control group on one side of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadFigures {
    /// The id of the group; `None` for the sum of those without a row.
    pub group: Option<u64>,
    /// Whose it is, as far as it is known by now.
    pub owner: Option<Arc<Owner>>,
    /// Whether its sockets began the attempts, or were asked.
    pub side: Option<Side>,
    /// The figures.
    pub books: TcpBooks,
}

/// The figures of every workload, the busiest first; the sum of the others last.
pub(super) fn workloads(
    rows: &[ServiceReading],
    scan: &Scan,
    stopped: bool,
    owners: &OwnerBook,
    before: &[WorkloadFigures],
) -> Vec<WorkloadFigures> {
    let mut all: Vec<WorkloadFigures> = rows.iter().map(|row| figures(row, scan, stopped, owners)).collect();
    let order = |one: &WorkloadFigures| {
        let is_responder = one.side == Some(Side::Responder);
        (one.group.is_none(), Reverse(one.books.attempts), one.group, is_responder)
    };
    all.sort_by_key(order);
    let attempts = |all: &[WorkloadFigures]| all.iter().map(|one| one.books.attempts).sum::<u64>();
    if attempts(&all) != attempts(before) {
        // A group that lives shortly is known if a walk meets it meanwhile.
        owners.refresh();
    }
    all
}

/// The workloads that a report lists: the `top` busiest ones. All others are in one row, the last.
pub(super) fn listed(all: &[WorkloadFigures], top: usize) -> Vec<WorkloadFigures> {
    let (named, others): (Vec<_>, Vec<_>) = all.iter().cloned().partition(|one| one.group.is_some());
    let mut rows = named;
    let rest = rows.split_off(top.min(rows.len()));
    let mut sum = TcpBooks::default();
    rest.iter().chain(&others).for_each(|one| sum += one.books);
    if sum != TcpBooks::default() {
        rows.push(WorkloadFigures { group: None, owner: None, side: None, books: sum });
    }
    rows
}

fn figures(row: &ServiceReading, scan: &Scan, stopped: bool, owners: &OwnerBook) -> WorkloadFigures {
    let service = &row.service;
    // A row's words are changed one by one: between two of them a gauge may be below 0.
    let gauges = service.gauges.map(|word| word.cast_signed().max(0).cast_unsigned());
    let books = |ages: &Ages| TcpBooks::settle(&gauges, ages, ByCause::default(), stopped);
    let Some(group) = row.group() else {
        return WorkloadFigures { group: None, owner: None, side: None, books: books(&Ages::default()) };
    };
    let side = if service.port == Side::Responder as u16 { Side::Responder } else { Side::Initiator };
    WorkloadFigures {
        group: Some(group),
        owner: owners.of(group),
        side: Some(side),
        books: books(&scan.workload(group, side)),
    }
}

#[cfg(test)]
mod tests {
    use handshake_common::flow::Side;

    use super::{WorkloadFigures, listed};
    use crate::model::books::TcpBooks;

    /// Nothing is left out of a report: what is beyond the busiest is one row with what has none.
    #[test]
    fn the_rows_of_a_report_add_up() {
        let row = |group: Option<u64>, attempts| {
            let side = group.map(|_| Side::Initiator);
            WorkloadFigures { group, owner: None, side, books: TcpBooks::of(attempts, &[]) }
        };
        let all = [row(Some(1), 9), row(Some(2), 5), row(Some(3), 2), row(None, 4)];
        let shown = |top| -> Vec<(Option<u64>, u64)> {
            listed(&all, top).iter().map(|one| (one.group, one.books.attempts)).collect()
        };
        assert_eq!(shown(1), [(Some(1), 9), (None, 11)]);
        assert_eq!(shown(9), [(Some(1), 9), (Some(2), 5), (Some(3), 2), (None, 4)]);
        assert_eq!(listed(&all[..2], 2).len(), 2, "there are no others");
    }
}
