//! The names that the operator gave to services.

use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::LazyLock;

use handshake_agent::address::{Cidr, PortRange};
use handshake_agent::model::metric::METRICS;
use handshake_agent::model::metric::series::{Family, Series};
use handshake_agent::model::snapshot::{ServiceBooks, ServiceFigures, Snapshot};

use crate::names::{Column, Labels, Names, Row, Rule, columns, labels_behind, named};

/// `NAME=WHAT`: responders with a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceRule {
    /// The name.
    pub name: String,
    net: Option<Cidr>,
    ports: Option<PortRange>,
}

/// The figures of services by name.
pub type Services = Names<ServiceFigures>;

impl ServiceRule {
    fn fits(&self, responder: SocketAddr) -> bool {
        let in_range = |range: PortRange| (range.first..=range.last).contains(&responder.port());
        self.net.is_none_or(|net| net.contains(responder.ip())) && self.ports.is_none_or(in_range)
    }
}

impl FromStr for ServiceRule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, what) = named(text, "api=10.0.0.0/8:443")?;
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

/// The series of a service, derived from the table of metrics.
static COLUMNS: LazyLock<Vec<Column>> = LazyLock::new(|| columns(of_service));

/// The family of a service's figure, and its labels behind `service`.
fn of_service(series: &Series) -> Option<(&'static Family, Vec<&'static str>)> {
    let family = series.family.of_service?;
    Some((family, labels_behind(series, family, ServiceRule::LABELS)))
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

impl Row for ServiceFigures {
    type Rule = ServiceRule;
    /// Its protocol, and its responder.
    type Key = (bool, SocketAddr);

    fn key(&self) -> Option<Self::Key> {
        Some((self.books.tcp().is_some(), self.service?))
    }

    fn books(&self) -> ServiceBooks {
        self.books
    }

    fn is_known(&self) -> bool {
        true
    }

    fn columns() -> &'static [Column] {
        &COLUMNS
    }
}

impl Rule<ServiceFigures> for ServiceRule {
    const LABELS: usize = 1;

    fn labels(&self) -> Labels {
        vec![self.name.clone().into()]
    }

    fn admits(&self, row: &ServiceFigures) -> bool {
        row.service.is_some_and(|responder| self.fits(responder))
    }
}

#[cfg(test)]
mod tests {
    use handshake_agent::model::connect::ServiceConnect;
    use handshake_agent::model::snapshot::{ServiceBooks, ServiceFigures, TcpBooks};
    use handshake_common::verdict::Verdict;

    use super::{COLUMNS, ServiceRule, Services};
    use crate::names::check;

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
    fn attempts(services: &Services) -> Vec<(String, u64)> {
        let at = COLUMNS.iter().position(|column| column.family.name == "handshake_service_attempts_total");
        let at = at.expect("there is such a column");
        services.figures().map(|(labels, figures)| (labels[0].to_string(), figures[at])).collect()
    }

    fn of(named: &[(&str, u64)]) -> Vec<(String, u64)> {
        named.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
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
            assert_eq!(rule.fits(responder.parse().expect("an address")), expected, "{what} {responder}");
        }
        let wrong = ["api", "=:443", "other=:443", "a b=:443", "api=:0x1", "api=10.0.0.0/33", "api=[::1]x"];
        for text in wrong {
            assert!(text.parse::<ServiceRule>().is_err(), "{text}");
        }
        let many: Vec<String> = (0..65).map(|number| format!("s{number}=:{number}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let names = |count: usize| check("service", many[..count].iter().copied());
        assert!(names(64).is_ok() && names(65).is_err());
    }

    #[test]
    fn what_has_no_name_is_other_and_the_first_rule_counts() {
        let mut services = Services::default();
        services.name(rules(&["api=10.0.0.0/8:443", "web=:443", "api=:8443"]));
        let rows = [
            row("10.0.0.1:443", 5, 4),
            row("192.0.2.1:443", 7, 7),
            row("192.0.2.1:8443", 1, 0),
            row("10.0.0.1:22", 3, 3),
        ];
        take(&mut services, &rows, 16);
        assert_eq!(attempts(&services), of(&[("api", 6), ("web", 7), ("other", 3)]));
    }

    /// A row that is given to another service takes its figures to the row of the others; the name keeps
    /// what it had.
    #[test]
    fn a_name_keeps_what_a_row_had_that_was_given_away() {
        let mut services = Services::default();
        services.name(rules(&["api=:443"]));
        take(&mut services, &[row("10.0.0.1:443", 50, 50), row("10.0.0.2:443", 5, 5)], 60);
        assert_eq!(attempts(&services), of(&[("api", 55), ("other", 5)]));
        take(&mut services, &[row("10.0.0.2:443", 6, 6)], 61);
        assert_eq!(attempts(&services), of(&[("api", 56), ("other", 5)]));
        take(&mut services, &[row("10.0.0.1:443", 2, 2), row("10.0.0.2:443", 1, 1)], 64);
        assert_eq!(attempts(&services), of(&[("api", 59), ("other", 5)]));
    }

    #[test]
    fn a_name_that_keeps_its_rules_keeps_its_counters() {
        let mut services = Services::default();
        services.name(rules(&["api=:443", "ssh=:22"]));
        let rows = [row("10.0.0.1:443", 5, 5), row("10.0.0.1:22", 2, 2)];
        take(&mut services, &rows, 7);
        take(&mut services, &[row("10.0.0.1:22", 2, 2)], 7);
        services.name(rules(&["ssh=:22", "api=:443", "dns=:53"]));
        take(&mut services, &[row("10.0.0.1:22", 3, 3)], 8);
        assert_eq!(attempts(&services), of(&[("ssh", 3), ("api", 5), ("dns", 0), ("other", 0)]));
    }

    /// A row counts for the name that it has while it rises; what it had counted stays where it is.
    #[test]
    fn what_is_named_anew_does_not_count_again() {
        let mut services = Services::default();
        let one = ["web=:8443"];
        let two = ["api=10.9.0.0/24:8443", "web=:8443"];
        let named = |services: &mut Services, texts: &[&str], all: u64| -> Vec<u64> {
            services.name(rules(texts));
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
        assert_eq!(attempts(&services), of(&[("other", 55)]));
        services.name(rules(&["api=:443"]));
        take(&mut services, &[row("10.0.0.1:443", 52, 52), row("10.0.0.1:22", 8, 8)], 60);
        assert_eq!(attempts(&services), of(&[("api", 2), ("other", 58)]));
        // The row is read after the counters: it has three more, which they have in the next reading.
        take(&mut services, &[row("10.0.0.1:443", 55, 55), row("10.0.0.1:22", 8, 8)], 60);
        assert_eq!(attempts(&services), of(&[("api", 5), ("other", 58)]));
        take(&mut services, &[row("10.0.0.1:443", 55, 55), row("10.0.0.1:22", 9, 9)], 64);
        assert_eq!(attempts(&services), of(&[("api", 5), ("other", 59)]));
    }
}
