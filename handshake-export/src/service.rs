//! The names that the operator gave to services, and each name's figures. A name is a label of series, so
//! there are as many as the configuration has, whatever the traffic is.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::{Arc, LazyLock};

use handshake_agent::address::{Cidr, PortRange};
use handshake_agent::model::metric::series::{Family, Kind, SERVICE_ATTEMPTS, SERVICE_UDP_FLOWS, Series};
use handshake_agent::model::metric::{METRICS, SERVICE};
use handshake_agent::model::snapshot::{ServiceFigures, Snapshot};

/// The name of what has none.
pub const OTHER: &str = "other";
/// Most names.
pub const MOST_NAMES: usize = 64;
/// The longest name.
const LONGEST: usize = 63;

/// `NAME=WHAT`: responders with a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceRule {
    /// The name.
    pub name: String,
    net: Option<Cidr>,
    ports: Option<PortRange>,
}

impl ServiceRule {
    fn admits(&self, responder: SocketAddr) -> bool {
        let in_range = |range: PortRange| (range.first..=range.last).contains(&responder.port());
        self.net.is_none_or(|net| net.contains(responder.ip())) && self.ports.is_none_or(in_range)
    }
}

impl FromStr for ServiceRule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, what) = text.split_once('=').ok_or("a name is missing, as in api=10.0.0.0/8:443")?;
        let is_fit = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        if name.is_empty() || name.len() > LONGEST || !name.chars().all(is_fit) {
            return Err(format!("'{name}' is no name: letters, digits, _, - and . are, up to {LONGEST}"));
        }
        if name == OTHER {
            return Err(format!("'{OTHER}' is the name of what has none"));
        }
        let (net, ports) = end(what)?;
        Ok(Self { name: name.to_owned(), net, ports })
    }
}

/// `:443`, `10.0.0.0/8`, `10.0.0.0/8:443`, `2001:db8::/32` or `[2001:db8::/32]:443`.
fn end(what: &str) -> Result<(Option<Cidr>, Option<PortRange>), String> {
    if let Some(ports) = what.strip_prefix(':').filter(|ports| !ports.contains(':')) {
        return Ok((None, Some(ports.parse()?)));
    }
    if let Some((net, rest)) = what.strip_prefix('[').and_then(|what| what.split_once(']')) {
        let ports = match rest.strip_prefix(':') {
            Some(ports) => Some(ports.parse()?),
            None if rest.is_empty() => None,
            None => return Err(format!("'{rest}' follows the address: it should be a port, as in :443")),
        };
        return Ok((Some(net.parse()?), ports));
    }
    match what.split_once(':') {
        Some((net, ports)) if !ports.contains(':') => Ok((Some(net.parse()?), Some(ports.parse()?))),
        Some(_) | None => Ok((Some(what.parse()?), None)),
    }
}

/// A series of a service: its family, its labels but the name, and the figures that it sums up.
pub struct Column {
    /// The family.
    pub family: &'static Family,
    /// The values of the family's labels behind `service`.
    pub labels: Vec<&'static str>,
    /// Places in [`SERVICE`].
    parts: Vec<usize>,
}

/// The series of a service, derived from the table of metrics.
pub static COLUMNS: LazyLock<Vec<Column>> = LazyLock::new(|| {
    let mut columns: Vec<Column> = Vec::new();
    for (at, metric) in SERVICE.iter().enumerate() {
        let Some((family, labels)) = metric.series.as_ref().and_then(of_service) else { continue };
        match columns.iter_mut().find(|known| known.family.name == family.name && known.labels == labels) {
            Some(column) => column.parts.push(at),
            None => columns.push(Column { family, labels, parts: vec![at] }),
        }
    }
    columns
});

/// The family of a service's figure, and its labels behind `service`.
fn of_service(series: &Series) -> Option<(&'static Family, Vec<&'static str>)> {
    let family = series.family.of_service?;
    let value = |label: &&str| {
        let place = series.family.labels.iter().position(|of_all| of_all == label);
        place.map_or("", |place| series.labels[place])
    };
    Some((family, family.labels[1..].iter().map(value).collect()))
}

/// The figures of all services, for each column.
pub fn totals(snapshot: &Snapshot) -> Vec<u64> {
    let mut totals = vec![0; COLUMNS.len()];
    for metric in METRICS.iter() {
        let Some((family, labels)) = metric.series.as_ref().and_then(of_service) else { continue };
        let at = COLUMNS.iter().position(|each| each.family.name == family.name && each.labels == labels);
        if let Some(at) = at {
            totals[at] += metric.value(snapshot).unwrap_or(0);
        }
    }
    totals
}

impl Column {
    fn of(&self, row: &ServiceFigures) -> u64 {
        self.parts.iter().filter_map(|part| SERVICE[*part].value(&row.books)).sum()
    }

    fn is_counter(&self) -> bool {
        self.family.kind == Kind::Counter
    }
}

/// A row of the kernel's table: its protocol, and its responder.
type Row = (bool, SocketAddr);
type Figures = Vec<u64>;

/// The figures of one name.
#[derive(Default)]
struct Account {
    rules: Vec<ServiceRule>,
    /// Counters since the name was given, gauges as they are.
    figures: Figures,
}

/// The figures by name.
///
/// The kernel side gives a row to another service where rows are scarce, and what it had counted is then in
/// the row of the others. A row may also change its name. So a name's counters are sums of what its rows rose
/// by while they were its own.
#[derive(Default)]
pub struct Services {
    accounts: Vec<Account>,
    other: Other,
    /// The rows of the latest reading, whatever their names are.
    rows: Arc<[ServiceFigures]>,
}

/// The figures of what has no name.
#[derive(Default)]
struct Other {
    figures: Figures,
    /// For each counter what all services rose by, less what names rose by. The rows are read after the
    /// counters: while packets arrive they have a few more, and this falls for a while.
    rests: Vec<i64>,
    /// The figures of all services in the latest reading.
    totals: Figures,
}

impl Services {
    /// Names services anew. A name that keeps its rules keeps its counters, and another one begins at 0.
    pub fn name(&mut self, rules: &[ServiceRule]) {
        let mut accounts: Vec<Account> = Vec::new();
        for rule in rules {
            match accounts.iter_mut().find(|account| account.rules[0].name == rule.name) {
                Some(account) => account.rules.push(rule.clone()),
                None => accounts.push(Account { rules: vec![rule.clone()], ..Account::default() }),
            }
        }
        for account in &mut accounts {
            let known = self.accounts.iter_mut().find(|known| known.rules == account.rules);
            if let Some(known) = known {
                *account = std::mem::take(known);
            }
        }
        self.accounts = accounts;
    }

    /// Takes the rows of a reading in. `totals` has the figure of all services for each column.
    pub fn take_in(&mut self, rows: &Arc<[ServiceFigures]>, totals: &[u64]) {
        let before = std::mem::replace(&mut self.rows, Arc::clone(rows));
        let before: HashMap<Row, &ServiceFigures> =
            before.iter().filter_map(|row| Some((key(row)?, row))).collect();
        self.accounts.iter_mut().for_each(Account::begin);
        let mut named = vec![0; COLUMNS.len()];
        for row in rows.iter() {
            let Some(key) = key(row) else { continue };
            let admits = |account: &&mut Account| account.rules.iter().any(|rule| rule.admits(key.1));
            if let Some(account) = self.accounts.iter_mut().find(admits) {
                // A row that was given away and came back has begun anew.
                let before = before.get(&key).filter(|before| began(before) <= began(row));
                account.take_in(row, before.copied(), &mut named);
            }
        }
        self.other.take_in(totals, &named);
    }

    /// Each name with its figures in the order of [`COLUMNS`]; the last is `other`.
    pub fn figures(&self) -> impl Iterator<Item = (&str, &[u64])> {
        let named = self.accounts.iter().map(|each| (each.rules[0].name.as_str(), each.figures.as_slice()));
        named.chain([(OTHER, self.other.figures.as_slice())])
    }
}

fn key(row: &ServiceFigures) -> Option<Row> {
    Some((row.books.tcp().is_some(), row.service?))
}

/// What began in a row. It falls only where the row has begun anew.
fn began(row: &ServiceFigures) -> u64 {
    let begins = |column: &&Column| {
        [&SERVICE_ATTEMPTS, &SERVICE_UDP_FLOWS].iter().any(|family| family.name == column.family.name)
    };
    COLUMNS.iter().filter(begins).map(|column| column.of(row)).sum()
}

fn difference(now: u64, before: u64) -> i64 {
    now.cast_signed().wrapping_sub(before.cast_signed())
}

impl Account {
    /// Begins a reading: counters stay, gauges are summed up anew.
    fn begin(&mut self) {
        self.figures.resize(COLUMNS.len(), 0);
        for (figure, column) in self.figures.iter_mut().zip(COLUMNS.iter()) {
            if !column.is_counter() {
                *figure = 0;
            }
        }
    }

    /// Takes a row in, and adds what it changed by, or its gauges, to `named`.
    fn take_in(&mut self, row: &ServiceFigures, before: Option<&ServiceFigures>, named: &mut [i64]) {
        for ((column, figure), named) in COLUMNS.iter().zip(&mut self.figures).zip(named) {
            let before = before.filter(|_| column.is_counter()).map_or(0, |before| column.of(before));
            let change = difference(column.of(row), before);
            *figure += u64::try_from(change).unwrap_or(0);
            *named += change;
        }
    }
}

impl Other {
    /// Takes in the figures of all services, and what names changed by, or their gauges.
    fn take_in(&mut self, totals: &[u64], named: &[i64]) {
        self.figures.resize(COLUMNS.len(), 0);
        self.rests.resize(COLUMNS.len(), 0);
        self.totals.resize(COLUMNS.len(), 0);
        for (at, column) in COLUMNS.iter().enumerate() {
            if column.is_counter() {
                self.rests[at] += difference(totals[at], self.totals[at]) - named[at];
                self.figures[at] = self.figures[at].max(u64::try_from(self.rests[at]).unwrap_or(0));
            } else {
                self.figures[at] = u64::try_from(difference(totals[at], 0) - named[at]).unwrap_or(0);
            }
        }
        totals.clone_into(&mut self.totals);
    }
}

/// Whether two rules name the same addresses differently is the operator's business: the first one counts.
/// Too many names are refused.
///
/// # Errors
///
/// There are more than [`MOST_NAMES`].
pub fn check(rules: &[ServiceRule]) -> Result<(), String> {
    let mut names: Vec<&str> = rules.iter().map(|rule| rule.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    if names.len() > MOST_NAMES {
        return Err(format!("--service: {} names, but at most {MOST_NAMES} are allowed", names.len()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use handshake_agent::model::connect::ServiceConnect;
    use handshake_agent::model::snapshot::{ServiceBooks, ServiceFigures, TcpBooks};
    use handshake_common::verdict::Verdict;

    use super::{COLUMNS, ServiceRule, Services, check};

    fn rules(texts: &[&str]) -> Vec<ServiceRule> {
        texts.iter().map(|text| text.parse().expect("it is right")).collect()
    }

    fn row(service: &str, attempts: u64, completed: u64) -> ServiceFigures {
        let books = TcpBooks::of(attempts, &[(Verdict::Completed, [completed, 0])]);
        let service = Some(service.parse().expect("an address"));
        ServiceFigures {
            service,
            books: ServiceBooks::Tcp(books),
            connect: ServiceConnect::default(),
            seat: None,
        }
    }

    /// Attempts by name.
    fn attempts(services: &Services) -> Vec<(&str, u64)> {
        let at = COLUMNS.iter().position(|column| column.family.name == "handshake_service_attempts_total");
        let at = at.expect("there is such a column");
        services.figures().map(|(name, figures)| (name, figures[at])).collect()
    }

    fn take(services: &mut Services, rows: &[ServiceFigures], all: u64) {
        let of = |name| if name == "handshake_service_attempts_total" { all } else { 0 };
        let totals: Vec<u64> = COLUMNS.iter().map(|column| of(column.family.name)).collect();
        services.take_in(&rows.into(), &totals);
    }

    #[test]
    fn a_rule_is_read_in_each_form() {
        let table = [
            (":443", "10.1.2.3:443", true),
            (":443", "10.1.2.3:444", false),
            (":8000-8100", "[::1]:8050", true),
            ("10.0.0.0/8", "10.1.2.3:1", true),
            ("10.0.0.0/8:443", "10.1.2.3:80", false),
            ("10.0.0.1:443", "10.0.0.1:443", true),
            ("2001:db8::/32", "[2001:db8::1]:1", true),
            ("[2001:db8::/32]:443", "[2001:db8::1]:443", true),
            ("[2001:db8::/32]:443", "[2001:db8::1]:80", false),
            ("[2001:db8::1]", "[2001:db8::2]:80", false),
        ];
        for (what, responder, expected) in table {
            let rule: ServiceRule = format!("api={what}").parse().expect(what);
            assert_eq!(rule.admits(responder.parse().expect("an address")), expected, "{what} {responder}");
        }
        let wrong = ["api", "=:443", "other=:443", "a b=:443", "api=:0x1", "api=10.0.0.0/33", "api=[::1]x"];
        for text in wrong {
            assert!(text.parse::<ServiceRule>().is_err(), "{text}");
        }
        let many: Vec<String> = (0..65).map(|number| format!("s{number}=:{number}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert!(check(&rules(&many)).is_err() && check(&rules(&many[1..])).is_ok());
    }

    #[test]
    fn what_has_no_name_is_other_and_the_first_rule_counts() {
        let mut services = Services::default();
        services.name(&rules(&["api=10.0.0.0/8:443", "web=:443", "api=:8443"]));
        let rows = [
            row("10.0.0.1:443", 5, 4),
            row("192.0.2.1:443", 7, 7),
            row("192.0.2.1:8443", 1, 0),
            row("10.0.0.1:22", 3, 3),
        ];
        take(&mut services, &rows, 16);
        assert_eq!(attempts(&services), [("api", 6), ("web", 7), ("other", 3)]);
    }

    /// A row that is given to another service takes its figures to the row of the others; the name keeps
    /// what it had.
    #[test]
    fn a_name_keeps_what_a_row_had_that_was_given_away() {
        let mut services = Services::default();
        services.name(&rules(&["api=:443"]));
        take(&mut services, &[row("10.0.0.1:443", 50, 50), row("10.0.0.2:443", 5, 5)], 60);
        assert_eq!(attempts(&services), [("api", 55), ("other", 5)]);
        take(&mut services, &[row("10.0.0.2:443", 6, 6)], 61);
        assert_eq!(attempts(&services), [("api", 56), ("other", 5)]);
        take(&mut services, &[row("10.0.0.1:443", 2, 2), row("10.0.0.2:443", 1, 1)], 64);
        assert_eq!(attempts(&services), [("api", 59), ("other", 5)]);
    }

    #[test]
    fn a_name_that_keeps_its_rules_keeps_its_counters() {
        let mut services = Services::default();
        services.name(&rules(&["api=:443", "ssh=:22"]));
        let rows = [row("10.0.0.1:443", 5, 5), row("10.0.0.1:22", 2, 2)];
        take(&mut services, &rows, 7);
        take(&mut services, &[row("10.0.0.1:22", 2, 2)], 7);
        services.name(&rules(&["ssh=:22", "api=:443", "dns=:53"]));
        take(&mut services, &[row("10.0.0.1:22", 3, 3)], 8);
        assert_eq!(attempts(&services), [("ssh", 3), ("api", 5), ("dns", 0), ("other", 0)]);
    }

    /// A row counts for the name that it has while it rises; what it had counted stays where it is.
    #[test]
    fn what_is_named_anew_does_not_count_again() {
        let mut services = Services::default();
        let one = ["web=:8443"];
        let two = ["api=10.9.0.0/24:8443", "web=:8443"];
        let named = |services: &mut Services, texts: &[&str], all: u64| -> Vec<u64> {
            services.name(&rules(texts));
            take(services, &[row("10.9.0.1:8443", all, all)], all);
            attempts(services).iter().map(|(_, figure)| *figure).collect()
        };
        assert_eq!(named(&mut services, &one, 50), [50, 0]);
        assert_eq!(named(&mut services, &two, 50), [0, 50, 0]);
        assert_eq!(named(&mut services, &two, 57), [7, 50, 0]);
        assert_eq!(named(&mut services, &one, 57), [50, 0]);
        assert_eq!(named(&mut services, &one, 60), [53, 0]);
        assert_eq!(named(&mut services, &two, 60), [0, 53, 0]);
    }

    /// What has no name keeps what it counted when it is named, and counts what comes afterwards.
    #[test]
    fn other_counts_on_after_names_have_changed() {
        let mut services = Services::default();
        take(&mut services, &[row("10.0.0.1:443", 50, 50), row("10.0.0.1:22", 5, 5)], 55);
        assert_eq!(attempts(&services), [("other", 55)]);
        services.name(&rules(&["api=:443"]));
        take(&mut services, &[row("10.0.0.1:443", 52, 52), row("10.0.0.1:22", 8, 8)], 60);
        assert_eq!(attempts(&services), [("api", 2), ("other", 58)]);
        // The row is read after the counters: it has three more, which they have in the next reading.
        take(&mut services, &[row("10.0.0.1:443", 55, 55), row("10.0.0.1:22", 8, 8)], 60);
        assert_eq!(attempts(&services), [("api", 5), ("other", 58)]);
        take(&mut services, &[row("10.0.0.1:443", 55, 55), row("10.0.0.1:22", 9, 9)], 64);
        assert_eq!(attempts(&services), [("api", 5), ("other", 59)]);
    }
}
