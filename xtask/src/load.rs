//! `cargo xtask load SCENARIO`: a network with traffic whose truth is known, and what `handshake check` makes of it.
//!
//! ```text
//! scenario ─▶ network ─┬─▶ traffic ─▶ truth: what the sockets met, what was sent ──┐
//! (a file)             ├─▶ kernel, wire: counters of both ends, taps ──────────────┼─▶ compare ─▶ a table, exit code
//!                      └─▶ handshake check ─▶ its report, how it ended ────────────┘
//! ```
//!
//! Nothing is sent outside of the namespaces made here, and they go when it ends.

mod compare;
mod file;
mod kernel;
mod memory;
mod mistake;
mod network;
mod progress;
mod run;
mod scenario;
mod traffic;
mod truth;
mod wire;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

pub use compare::Comparison;
pub use scenario::Scenario;

use crate::{interrupt, lab::privilege};

/// Run scripted load, and compare what handshake reports with what was sent
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Of the folder `scenarios`, or a file; `all` for every one but the soak
    #[arg(value_name = "SCENARIO", required_unless_present = "list")]
    scenarios: Vec<String>,
    /// List the scenarios
    #[arg(long)]
    list: bool,
    /// The form that the test suite runs: rates last a second
    #[arg(long, conflicts_with = "duration")]
    short: bool,
    /// How long rates last
    #[arg(long = "for", value_name = "DURATION", value_parser = scenario::parse_duration)]
    duration: Option<Duration>,
    /// Show what handshake said, too
    #[arg(long)]
    verbose: bool,
    /// handshake, built already; also how this calls itself through sudo
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
}

impl Args {
    /// The handshake to run, unless one is to be built.
    #[must_use]
    pub fn binary(&self) -> Option<&Path> {
        self.binary.as_deref()
    }

    /// Lists the scenarios, if that is all that is asked for.
    ///
    /// # Errors
    /// One cannot be read.
    pub fn lists(&self) -> Result<bool> {
        if self.list {
            for scenario in Scenario::all()? {
                println!("{:<24} {}", scenario.name, scenario.sentence);
            }
        }
        Ok(self.list)
    }

    /// What is to be run.
    fn chosen(&self) -> Result<Vec<Scenario>> {
        let mut chosen = Vec::new();
        for word in &self.scenarios {
            match word.as_str() {
                "all" => chosen.extend(Scenario::all()?.into_iter().filter(|scenario| !scenario.is_soak())),
                word => chosen.push(Scenario::find(word)?),
            }
        }
        let form = |scenario: Scenario| match self.duration {
            Some(duration) => scenario.lasting(duration),
            None if self.short => scenario.short(),
            None => scenario,
        };
        Ok(chosen.into_iter().map(form).collect())
    }
}

/// Runs the verb with `binary` for handshake. Fails where a figure is not as expected.
///
/// # Errors
/// A scenario cannot be read or made.
pub fn run(args: &Args, binary: &Path) -> Result<ExitCode> {
    let chosen = args.chosen()?;
    let missing = privilege::missing();
    ensure!(missing.is_empty(), "namespaces and programs take {}: run it as root", missing.join(", "));
    interrupt::catch();
    let mut failed = Vec::new();
    for scenario in &chosen {
        println!("{} · {}\n", scenario.name, scenario.sentence);
        let (comparison, said) = play(scenario, binary).with_context(|| scenario.name.clone())?;
        if args.verbose || !comparison.is_good() {
            eprintln!("{said}");
        }
        println!("{comparison}");
        if !comparison.is_good() {
            failed.push(scenario.name.as_str());
        }
    }
    if failed.is_empty() {
        println!("{} as expected", if chosen.len() == 1 { "All figures" } else { "All scenarios" });
        return Ok(ExitCode::SUCCESS);
    }
    println!("NOT as expected: {}", failed.join(", "));
    Ok(ExitCode::FAILURE)
}

/// Runs one scenario with `binary` for handshake. Gives the comparison, and what handshake said.
///
/// # Errors
/// Its traffic does not come about, or handshake gives no report.
pub fn play(scenario: &Scenario, binary: &Path) -> Result<(Comparison, String)> {
    let seen = run::run(scenario, binary)?;
    Ok((Comparison::of(scenario, &seen)?, seen.said))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn line(words: &str) -> Result<Line, clap::Error> {
        <Line as clap::Parser>::try_parse_from(std::iter::once("load").chain(words.split_whitespace()))
    }

    fn chosen(words: &str) -> Result<Vec<Scenario>> {
        line(words)?.args.chosen()
    }

    #[test]
    fn all_is_every_scenario_but_the_soak() -> Result<()> {
        let all = chosen("all")?;
        assert_eq!(all.len() + 1, Scenario::all()?.len());
        assert!(all.iter().all(|scenario| scenario.name != "soak"));
        Ok(())
    }

    #[test]
    fn rates_last_as_long_as_is_asked_for() -> Result<()> {
        let duration = |words: &str| Ok::<_, anyhow::Error>(chosen(words)?[0].duration);
        assert_eq!(duration("soak")?, Duration::from_secs(1800));
        assert_eq!(duration("soak --for 5m")?, Duration::from_secs(300));
        assert_eq!(duration("soak --short")?, Duration::from_secs(1));
        Ok(())
    }

    #[test]
    fn words_that_mean_nothing_are_refused() {
        assert!(line("").is_err() && line("soak --short --for 5m").is_err() && line("soak --for 5").is_err());
        assert!(line("--list").is_ok());
        assert!(chosen("handshakes nonsense").is_err());
    }
}
