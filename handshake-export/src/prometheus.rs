//! The text of an exposition: Prometheus' text format 0.0.4, and OpenMetrics 1.0, which has exemplars.

use std::fmt::{self, Write as _};

use handshake_agent::model::metric::series::{FAMILIES, Family, Kind};

use super::figures::{Exemplar, Exposition, Sample, Times, Value};

/// The two forms of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Prometheus' own, version 0.0.4.
    Plain,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

impl Form {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Plain, Self::OpenMetrics];

    /// The form that a scraper asks for by its header `Accept`.
    pub fn accepted(accept: &str) -> Self {
        const OPEN: &str = "application/openmetrics-text";
        const PLAIN: &str = "text/plain";
        let open = weight(accept, OPEN);
        if open > 0.0 && open >= weight(accept, PLAIN) { Self::OpenMetrics } else { Self::Plain }
    }

    /// The header `Content-Type`.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Plain => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// The weight that a header such as `Accept` gives to what it names: 1 where it says none, and 0 for what must
/// not be, or is not named.
pub(crate) fn weight(header: &str, name: &str) -> f32 {
    let of = |named: &str| {
        let mut words = named.split(';').map(str::trim);
        let is_named = words.next().is_some_and(|word| word.eq_ignore_ascii_case(name));
        let weight = words.find_map(|word| word.strip_prefix("q=").or_else(|| word.strip_prefix("Q=")));
        is_named.then(|| weight.map_or(1.0, |weight| weight.trim().parse().unwrap_or(0.0)))
    };
    header.split(',').filter_map(of).fold(0.0, f32::max)
}

/// Whether series have a label of this name already.
pub fn is_own_label(name: &str) -> bool {
    const BOUND: &str = "le";
    name == BOUND || FAMILIES.iter().any(|family| family.labels.contains(&name))
}

/// Writes an exposition.
pub fn text(exposition: &Exposition, form: Form) -> String {
    let mut page = Page { text: String::with_capacity(48 << 10), form, exposition };
    // Memory takes all.
    let _ = page.write();
    page.text
}

struct Page<'a> {
    text: String,
    form: Form,
    exposition: &'a Exposition,
}

/// A label beside those of the family: the bound of a histogram.
type Bound<'a> = Option<(&'a str, &'a dyn fmt::Display)>;

impl Page<'_> {
    fn write(&mut self) -> fmt::Result {
        for filled in self.exposition.families.iter().filter(|filled| !filled.samples.is_empty()) {
            let Family { name, kind, help, .. } = filled.family;
            // OpenMetrics names the family of a counter without the suffix of its series.
            let name = if self.form == Form::OpenMetrics && *kind == Kind::Counter {
                name.trim_end_matches("_total")
            } else {
                name
            };
            writeln!(self.text, "# HELP {name} {}", escaped(help))?;
            writeln!(self.text, "# TYPE {name} {}", kind.name())?;
            filled.samples.iter().try_for_each(|sample| self.sample(filled.family, sample))?;
        }
        if self.form == Form::OpenMetrics { self.text.write_str("# EOF\n") } else { Ok(()) }
    }

    fn sample(&mut self, family: &Family, sample: &Sample) -> fmt::Result {
        match &sample.value {
            Value::Number(number) => {
                self.series(family, "", sample, None)?;
                write!(self.text, "{number}")?;
                if let Some(exemplar) = sample.exemplar.filter(|_| self.form == Form::OpenMetrics) {
                    self.exemplar(&exemplar)?;
                }
                self.text.write_char('\n')
            }
            Value::Time(ns) => {
                self.series(family, "", sample, None)?;
                writeln!(self.text, "{}", Seconds((*ns).into()))
            }
            Value::Times(times) => self.times(family, sample, times),
        }
    }

    fn times(&mut self, family: &Family, sample: &Sample, times: &Times) -> fmt::Result {
        for (bound, count) in &times.up_to {
            self.series(family, "_bucket", sample, Some(("le", &Seconds((*bound).into()))))?;
            writeln!(self.text, "{count}")?;
        }
        self.series(family, "_bucket", sample, Some(("le", &"+Inf")))?;
        writeln!(self.text, "{}", times.count)?;
        self.series(family, "_sum", sample, None)?;
        writeln!(self.text, "{}", Seconds(times.sum_ns))?;
        self.series(family, "_count", sample, None)?;
        writeln!(self.text, "{}", times.count)
    }

    /// The name and the labels of a series.
    fn series(&mut self, family: &Family, suffix: &str, sample: &Sample, bound: Bound<'_>) -> fmt::Result {
        write!(self.text, "{}{suffix}", family.name)?;
        let mut next = '{';
        for (name, value) in self.exposition.labels(family, sample) {
            write!(self.text, "{next}{name}=\"{}\"", escaped(value))?;
            next = ',';
        }
        if let Some((name, value)) = bound {
            write!(self.text, "{next}{name}=\"{value}\"")?;
            next = ',';
        }
        self.text.write_str(if next == '{' { " " } else { "} " })
    }

    /// A flow. Its labels are at most 128 characters long: two full IPv6 ends come to 114.
    fn exemplar(&mut self, exemplar: &Exemplar) -> fmt::Result {
        let Exemplar { initiator, responder, began_ns, .. } = exemplar;
        let began = Seconds((*began_ns).into());
        write!(self.text, " # {{initiator=\"{initiator}\",responder=\"{responder}\"}} 1 {began}")
    }
}

/// A time in seconds, exactly: `0.000002047`, `1.0`.
pub(crate) struct Seconds(pub(crate) u128);

impl Seconds {
    /// What a reader of the text has: the nearest number.
    pub(crate) fn nearest(&self) -> f64 {
        self.to_string().parse().unwrap_or(f64::MAX)
    }
}

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SECOND: u128 = 1_000_000_000;
        let (seconds, ns) = (self.0 / SECOND, self.0 % SECOND);
        let digits = format!("{ns:09}");
        let digits = digits.trim_end_matches('0');
        write!(f, "{seconds}.{}", if digits.is_empty() { "0" } else { digits })
    }
}

/// A label's value, or a help text, as both forms write it.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::{Seconds, is_own_label};

    /// A time since 1970 has more digits than a number of 64 bits: it is rounded once.
    #[test]
    fn seconds_are_rounded_once() {
        let ns = 1_796_011_341_580_115_700;
        assert_eq!(Seconds(ns).to_string(), "1796011341.5801157");
        assert_eq!(Seconds(ns).nearest(), 1_796_011_341.580_115_7);
    }

    #[test]
    fn labels_of_ones_own_are_known() {
        assert!(["le", "verdict", "service"].into_iter().all(is_own_label) && !is_own_label("site"));
    }
}
