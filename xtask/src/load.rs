//! `cargo xtask load SCENARIO`: the lab's load with handshake as it is, and what each figure should have been.
//!
//! Nothing is sent outside of the namespaces made here, and they go when it ends.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use handshake_lab::load::{self, Scenario};
use handshake_lab::{interrupt, privilege};

use crate::{raise, run};

/// Run scripted load, and compare what handshake reports with what was sent
#[derive(clap::Args)]
pub(crate) struct Args {
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
    #[arg(long = "for", value_name = "DURATION", value_parser = load::parse_duration)]
    duration: Option<Duration>,
    /// Show what handshake said, too
    #[arg(long)]
    verbose: bool,
    /// handshake, built already; also how this calls itself through sudo
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
}

/// Runs the verb, with handshake as it was built for the caller; through sudo where that is needed. Fails where a
/// figure is not as expected.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    if args.list {
        return list().map(|()| ExitCode::SUCCESS);
    }
    if let Some(binary) = &args.binary {
        return play(args, binary);
    }
    let binary = run::build(false)?;
    let missing = privilege::missing();
    if !missing.is_empty() && raise::is_possible() {
        return raise::raise(&binary, &missing);
    }
    play(args, &binary)
}

fn list() -> Result<()> {
    for scenario in Scenario::all()? {
        println!("{:<24} {}", scenario.name, scenario.sentence);
    }
    Ok(())
}

/// The scenarios that were asked for, in the form that was.
fn chosen(args: &Args) -> Result<Vec<Scenario>> {
    let mut chosen = Vec::new();
    for word in &args.scenarios {
        match word.as_str() {
            "all" => chosen.extend(Scenario::all()?.into_iter().filter(|scenario| !scenario.is_soak())),
            word => chosen.push(Scenario::find(word)?),
        }
    }
    let form = |scenario: Scenario| match args.duration {
        Some(duration) => scenario.lasting(duration),
        None if args.short => scenario.short(),
        None => scenario,
    };
    Ok(chosen.into_iter().map(form).collect())
}

/// Plays them with `binary` for handshake.
fn play(args: &Args, binary: &Path) -> Result<ExitCode> {
    let chosen = chosen(args)?;
    let missing = privilege::missing();
    ensure!(missing.is_empty(), "namespaces and programs take {}: run it as root", missing.join(", "));
    interrupt::catch();
    let mut failed = Vec::new();
    for scenario in &chosen {
        println!("{} · {}\n", scenario.name, scenario.sentence);
        let (comparison, said) = load::play(scenario, binary).with_context(|| scenario.name.clone())?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn line(words: &str) -> Result<Line, clap::Error> {
        <Line as clap::Parser>::try_parse_from(std::iter::once("load").chain(words.split_whitespace()))
    }

    fn scenarios(words: &str) -> Result<Vec<Scenario>> {
        chosen(&line(words)?.args)
    }

    #[test]
    fn all_is_every_scenario_but_the_soak() -> Result<()> {
        let all = scenarios("all")?;
        assert_eq!(all.len() + 1, Scenario::all()?.len());
        assert!(all.iter().all(|scenario| scenario.name != "soak"));
        Ok(())
    }

    #[test]
    fn rates_last_as_long_as_is_asked_for() -> Result<()> {
        let duration = |words: &str| Ok::<_, anyhow::Error>(scenarios(words)?[0].duration);
        assert_eq!(duration("soak")?, Duration::from_secs(1800));
        assert_eq!(duration("soak --for 5m")?, Duration::from_secs(300));
        assert_eq!(duration("soak --short")?, Duration::from_secs(1));
        Ok(())
    }

    #[test]
    fn words_that_mean_nothing_are_refused() {
        assert!(line("").is_err() && line("soak --short --for 5m").is_err() && line("soak --for 5").is_err());
        assert!(line("--list").is_ok());
        assert!(scenarios("handshakes nonsense").is_err());
    }
}
