//! The result of a gate for those who show it: JUnit XML, GitHub's annotations and its step summary.

use std::fmt::Write as _;

use crate::check::{Checked, Evidence, Judged, Outcome};
use crate::time::rfc3339;

use super::text::{measured, sentences, shortened};

/// One second in ns.
const SECOND_NS: u64 = 1_000_000_000;

/// What a gate came to.
pub(crate) struct GateResult {
    /// What was run: `handshake check`.
    pub(crate) name: &'static str,
    /// The last line of the report.
    pub(crate) verdict: String,
    /// When it began, ns since the Unix epoch.
    pub(crate) began_ns: u64,
    /// How long it took, ns.
    pub(crate) took_ns: u64,
    /// The expectations, and the command if there was one.
    pub(crate) cases: Vec<GateCase>,
}

/// One expectation, or the command.
pub(crate) struct GateCase {
    /// The expectation as it was written.
    pub(crate) name: String,
    /// What it came to.
    pub(crate) outcome: Outcome,
    /// What was measured, or why it cannot be judged.
    pub(crate) message: String,
    /// Sentences about it.
    pub(crate) details: Vec<String>,
}

impl GateCase {
    /// An expectation without sentences.
    pub(crate) fn of(judged: &Judged<'_>, evidence: &dyn Evidence) -> Self {
        Self {
            name: judged.expectation.text.clone(),
            outcome: judged.judgement.outcome(),
            message: measured(judged, evidence),
            details: Vec::new(),
        }
    }

    fn is_bad(&self) -> bool {
        self.outcome != Outcome::Met
    }
}

impl GateResult {
    /// That of a check.
    pub(crate) fn of(checked: &Checked<'_>) -> Self {
        let expectation = |judged: &Judged<'_>| {
            let details = sentences(judged, checked).into_iter();
            let details = details.map(|(name, sentence)| format!("{name}: {sentence}")).collect();
            GateCase { details, ..GateCase::of(judged, &checked.window) }
        };
        let command = checked.command.as_ref().map(|ended| {
            let failure = ended.failure();
            let fails = failure.is_some() && !ended.ignored;
            GateCase {
                name: format!("the command {}", shortened(&ended.words.join(" "))),
                outcome: if fails { Outcome::Failed } else { Outcome::Met },
                message: failure.unwrap_or_default(),
                details: Vec::new(),
            }
        });
        let window = &checked.window;
        Self {
            name: "handshake check",
            verdict: checked.verdict().unwrap_or_default(),
            began_ns: window.wall_of(&window.started),
            took_ns: window.ran_ns(),
            cases: checked.judged.iter().map(expectation).chain(command).collect(),
        }
    }

    fn count(&self, outcome: Outcome) -> usize {
        self.cases.iter().filter(|case| case.outcome == outcome).count()
    }

    /// One test suite of JUnit's XML: an expectation that cannot be judged is an error.
    pub(crate) fn junit(&self) -> String {
        let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
        let name = xml(self.name);
        let time = format!("{}.{:03}", self.took_ns / SECOND_NS, self.took_ns % SECOND_NS / 1_000_000);
        // Readers expect no zone, and take it for UTC.
        let began: String = rfc3339(self.began_ns).chars().take("2026-03-01T12:03:41".len()).collect();
        let counts = format!(
            "tests=\"{}\" failures=\"{}\" errors=\"{}\" time=\"{time}\"",
            self.cases.len(),
            self.count(Outcome::Failed),
            self.count(Outcome::Inconclusive),
        );
        // Writing to a String cannot fail.
        let _ = writeln!(out, "<testsuites name=\"{name}\" {counts}>");
        let _ = writeln!(out, "  <testsuite name=\"{name}\" {counts} skipped=\"0\" timestamp=\"{began}\">");
        for case in &self.cases {
            let _ = write!(
                out,
                "    <testcase classname=\"{name}\" name=\"{}\" time=\"{time}\"",
                xml(&case.name)
            );
            let (element, kind) = match case.outcome {
                Outcome::Met => {
                    out.push_str("/>\n");
                    continue;
                }
                Outcome::Failed => ("failure", "failed"),
                Outcome::Inconclusive => ("error", "inconclusive"),
            };
            let (message, details) = (xml(&case.message), xml(&case.details.join("\n")));
            let _ = writeln!(
                out,
                ">\n      <{element} message=\"{message}\" type=\"{kind}\">{details}</{element}>\n    </testcase>"
            );
        }
        out.push_str("  </testsuite>\n</testsuites>\n");
        out
    }

    /// GitHub's annotations, a line for each expectation that was not met.
    pub(crate) fn annotations(&self) -> Vec<String> {
        let line = |case: &GateCase| {
            let first = match case.outcome {
                Outcome::Inconclusive => format!("{}: {}", case.outcome.word(), case.message),
                Outcome::Met | Outcome::Failed => case.message.clone(),
            };
            let said = std::iter::once(first).chain(case.details.iter().cloned());
            let said = said.collect::<Vec<_>>().join("\n");
            format!("::error title={}::{}", property(&case.name), data(&said))
        };
        self.cases.iter().filter(|case| case.is_bad()).map(line).collect()
    }

    /// A section for GitHub's step summary.
    pub(crate) fn summary(&self) -> String {
        let mut out = format!("### {}: {}\n\n", self.name, cell(&self.verdict));
        out.push_str("| | expectation | measured |\n|---|---|---|\n");
        for case in &self.cases {
            let sign = match case.outcome {
                Outcome::Met => "✅",
                Outcome::Failed => "❌",
                Outcome::Inconclusive => "❔",
            };
            let said = std::iter::once(&case.message)
                .chain(case.is_bad().then_some(&case.details).into_iter().flatten());
            let said: Vec<String> = said.filter(|said| !said.is_empty()).map(|said| cell(said)).collect();
            // Writing to a String cannot fail.
            let _ = writeln!(out, "| {sign} | {} | {} |", cell(&case.name), said.join("<br>"));
        }
        out.push('\n');
        out
    }
}

/// A text in an attribute or an element of XML 1.0, which has no way to write most control characters.
fn xml(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\t' | '\n' | '\r' => {
                // Writing to a String cannot fail.
                let _ = write!(out, "&#{};", u32::from(c));
            }
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// The message of one of GitHub's workflow commands.
fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// A property of one of GitHub's workflow commands.
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

/// A text in a cell of a table in Markdown, without a meaning of its own.
fn cell(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '\\' | '`' | '*' | '_' | '[' | ']' | '#' | '|' | '~' | '$' => out.extend(['\\', c]),
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\r' | '\n' => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{GateCase, GateResult, Outcome};

    fn result() -> GateResult {
        let case = |name: &str, outcome, message: &str, details: &[&str]| GateCase {
            name: name.to_owned(),
            outcome,
            message: message.to_owned(),
            details: details.iter().map(|detail| (*detail).to_owned()).collect(),
        };
        GateResult {
            name: "handshake check",
            verdict: "INCONCLUSIVE 1 and FAILED 1 of 3 expectations (exit 3)".to_owned(),
            began_ns: 1_772_366_621_500_000_000,
            took_ns: 1_450_000_000,
            cases: vec![
                case("completed >= 100", Outcome::Met, "120", &["not said"]),
                case(
                    "attempts{port=1,address=::1} / half_open < 5%",
                    Outcome::Failed,
                    "61.2 % (\"1\" & 2)",
                    &["no_ack: the way back", "refused: a\u{7}b <c> | d"],
                ),
                case("p99(connect) < 2ms", Outcome::Inconclusive, "nothing ran", &[]),
                case("the command x\r\n::error::y", Outcome::Failed, "failed with status 7", &[]),
            ],
        }
    }

    /// Read by a parser of its own, in the form that JUnit's readers share.
    #[test]
    fn junit_is_well_formed_and_complete() {
        let text = result().junit();
        let document = roxmltree::Document::parse(&text).unwrap_or_else(|wrong| panic!("{wrong}: {text}"));
        let root = document.root_element();
        assert_eq!(root.tag_name().name(), "testsuites");
        let suites: Vec<_> = root.children().filter(|node| node.is_element()).collect();
        let [suite] = suites[..] else { panic!("{text}") };
        assert_eq!(suite.tag_name().name(), "testsuite");
        for node in [root, suite] {
            let counts = ["tests", "failures", "errors", "time"].map(|name| node.attribute(name));
            assert_eq!(counts, ["4", "2", "1", "1.450"].map(Some), "{text}");
        }
        assert_eq!(suite.attribute("timestamp"), Some("2026-03-01T12:03:41"));
        let cases: Vec<_> = suite.children().filter(|node| node.is_element()).collect();
        let inner: Vec<_> = cases
            .iter()
            .map(|case| {
                assert_eq!((case.tag_name().name(), case.attribute("time")), ("testcase", Some("1.450")));
                assert_eq!(case.attribute("classname"), Some("handshake check"));
                let inner = case.children().find(|node| node.is_element());
                inner.map(|inner| {
                    (inner.tag_name().name(), inner.attribute("message"), inner.attribute("type"))
                })
            })
            .collect();
        let expected = [
            None,
            Some(("failure", Some("61.2 % (\"1\" & 2)"), Some("failed"))),
            Some(("error", Some("nothing ran"), Some("inconclusive"))),
            Some(("failure", Some("failed with status 7"), Some("failed"))),
        ];
        assert_eq!(inner, expected);
        assert_eq!(cases[1].attribute("name"), Some("attempts{port=1,address=::1} / half_open < 5%"));
        assert_eq!(cases[3].attribute("name"), Some("the command x\r\n::error::y"));
        let said = cases[1].descendants().find_map(|node| node.text().filter(|text| text.contains("no_ack")));
        assert_eq!(said, Some("no_ack: the way back\nrefused: a\u{fffd}b <c> | d"));
    }

    /// A line begins no command of its own, and a property ends where it is meant to.
    #[test]
    fn annotations_are_escaped() {
        let expected = [
            "::error title=attempts{port=1%2Caddress=%3A%3A1} / half_open < 5%25::61.2 %25 (\"1\" & 2)%0Ano_ack: the \
             way back%0Arefused: a\u{7}b <c> | d",
            "::error title=p99(connect) < 2ms::INCONCLUSIVE: nothing ran",
            "::error title=the command x%0D%0A%3A%3Aerror%3A%3Ay::failed with status 7",
        ];
        assert_eq!(result().annotations(), expected);
    }

    #[test]
    fn a_summary_is_one_table() {
        let summary = result().summary();
        let lines: Vec<&str> = summary.lines().collect();
        assert_eq!(lines[0], "### handshake check: INCONCLUSIVE 1 and FAILED 1 of 3 expectations (exit 3)");
        assert_eq!(lines[4], "| ✅ | completed &gt;= 100 | 120 |");
        assert!(lines[5].starts_with("| ❌ | attempts{port=1,address=::1} / half\\_open &lt; 5% | 61.2 % "));
        assert!(
            lines[5].ends_with("<br>no\\_ack: the way back<br>refused: a\u{7}b &lt;c&gt; \\| d |"),
            "{}",
            lines[5]
        );
        assert_eq!((lines.len(), lines[8]), (9, ""), "{summary}");
    }
}
