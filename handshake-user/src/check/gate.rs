//! `--expect-file`: expectations in a TOML file, and what they need.
//!
//! ```toml
//! expect = ["completed >= 1000", "half_open == 0"]
//! for = "30s"
//! allow-nothing = false
//! ```

use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use super::error::CheckError;
use super::expression::{EXPECT, Expectation, Scope};
use crate::duration::period;
use crate::file::read_text;

/// The longest file, in bytes: a hundred times what a person writes.
const LONGEST: u64 = 1 << 20;
/// Between two expectations in one text.
const BETWEEN: char = ';';

/// The file as it is written.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct WrittenGate {
    #[serde(default)]
    expect: Vec<Spanned<String>>,
    #[serde(rename = "for")]
    period: Option<Spanned<String>>,
    allow_nothing: Option<bool>,
}

/// Expectations, and what they need.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    /// The expectations, in order.
    pub(crate) expectations: Vec<Expectation>,
    /// `--for`, of the last file that has it.
    pub(crate) period: Option<Duration>,
    /// Whether a file has `--allow-nothing`.
    pub(crate) allow_nothing: bool,
}

impl Gate {
    /// The expectations of the options, then those of the files. No other thread may run.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, a fault in one, or an invalid expectation.
    pub(crate) fn of(
        options: &[String],
        files: &[impl AsRef<Path>],
        scope: Scope,
    ) -> Result<Self, CheckError> {
        let mut gate = Self::default();
        options.iter().try_for_each(|text| gate.add(text, EXPECT, scope))?;
        for path in files {
            let shown = path.as_ref().display().to_string();
            let text = read_text(path.as_ref(), LONGEST)
                .map_err(|source| CheckError::ExpectFile { path: shown.clone(), source })?;
            gate.add_file(&text, &shown, scope)?;
        }
        Ok(gate)
    }

    fn add(&mut self, text: &str, origin: &str, scope: Scope) -> Result<(), CheckError> {
        for text in text.split(BETWEEN) {
            self.expectations.push(Expectation::parse(text, origin, scope).map_err(CheckError::Expectation)?);
        }
        Ok(())
    }

    fn add_file(&mut self, text: &str, path: &str, scope: Scope) -> Result<(), CheckError> {
        let line = |at: usize| text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1;
        let fault =
            |at: usize, problem: String| CheckError::Gate { path: path.to_owned(), line: line(at), problem };
        let written: WrittenGate = toml::from_str(text).map_err(|error| {
            let problem = error.message().lines().collect::<Vec<_>>().join(", ");
            fault(error.span().map_or(0, |span| span.start), problem)
        })?;
        for text in &written.expect {
            let origin = format!("{path}, line {}, expectation", line(text.span().start));
            self.add(text.get_ref(), &origin, scope)?;
        }
        if let Some(text) = written.period {
            let time = period(text.get_ref());
            self.period = Some(time.map_err(|problem| fault(text.span().start, format!("for: {problem}")))?);
        }
        self.allow_nothing |= written.allow_nothing.unwrap_or(false);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Gate, Scope};

    fn of(text: &str) -> Result<Gate, String> {
        let mut gate = Gate::default();
        gate.add_file(text, "gate.toml", Scope::Run).map(|()| gate).map_err(|wrong| wrong.to_string())
    }

    #[test]
    fn a_file_has_expectations_and_what_they_need() {
        let gate = of("# a gate\nexpect = [\n  'completed >= 100',\n  \"half_open == 0; refused == 0\"\n]\n\
                       for = '30s'\nallow-nothing = true\n")
        .expect("it is right");
        let texts: Vec<&str> = gate.expectations.iter().map(|each| each.text.as_str()).collect();
        assert_eq!(texts, ["completed >= 100", "half_open == 0", "refused == 0"]);
        assert_eq!((gate.period, gate.allow_nothing), (Some(Duration::from_secs(30)), true));
        let empty = of("").expect("an empty file is one");
        assert!(empty.expectations.is_empty() && empty.period.is_none() && !empty.allow_nothing);
    }

    #[test]
    fn several_sources_are_one_gate() {
        let none: [&str; 0] = [];
        let options = ["completed > 0; refused == 0".to_owned(), "half_open == 0".to_owned()];
        let mut gate = Gate::of(&options, &none, Scope::Run).expect("they are right");
        gate.add_file("expect = ['attempts > 0']\nfor = '1s'", "a", Scope::Run).expect("it is right");
        gate.add_file("for = '2s'", "b", Scope::Run).expect("it is right");
        assert_eq!((gate.expectations.len(), gate.period), (4, Some(Duration::from_secs(2))));
        let missing = Gate::of(&[], &["/no/such/gate.toml"], Scope::Run).expect_err("there is none");
        assert!(
            missing.to_string().starts_with("--expect-file /no/such/gate.toml: No such file"),
            "{missing}"
        );
    }

    #[test]
    fn a_fault_is_told_with_its_line() {
        let table = [
            (
                "\nexpected = ['half_open == 0']",
                "gate.toml, line 2: unknown field `expected`, expected one of",
            ),
            ("expect = 'half_open == 0'", "gate.toml, line 1: invalid type: string"),
            ("expect = [\n'half_open == 0'\n", "gate.toml, line "),
            ("\n\nfor = '30'", "gate.toml, line 3: for: a unit is missing"),
            ("expect = []\nallow-nothing = 1", "gate.toml, line 2: invalid type: integer"),
            (
                "expect = [\n  'half_open == 0',\n  'completd > 1',\n]",
                "gate.toml, line 3, expectation, column 1: no metric completd; did you mean completed?\n    completd > 1",
            ),
        ];
        for (text, said) in table {
            let wrong = of(text).expect_err(text);
            assert!(wrong.starts_with(said), "{text}: {wrong}");
        }
    }
}
