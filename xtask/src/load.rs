//! `cargo xtask load SCENARIO`: plays the lab's load against handshake, and compares each figure with what
//! was sent.
//!
//! All traffic stays inside the namespaces made here, which are removed at the end.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use handshake_lab::load::{self, Scenario};

use crate::raise;

/// Run scripted load, and compare handshake's report with what was sent
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A name from the folder `scenarios`, or a file; `all` for every scenario but the soak
    #[arg(value_name = "SCENARIO", required_unless_present = "list")]
    scenarios: Vec<String>,
    /// List the scenarios
    #[arg(long)]
    list: bool,
    /// Play the short form that the test suite runs: rates last a second
    #[arg(long, conflicts_with = "duration")]
    short: bool,
    /// The time that rates last
    #[arg(long = "for", value_name = "DURATION", value_parser = load::parse_duration)]
    duration: Option<Duration>,
    /// Also show handshake's own output
    #[arg(long)]
    verbose: bool,
    /// The handshake binary, already built; the verb also passes it to itself through sudo
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
}

/// Runs the verb with handshake as built for the caller, through sudo where that is needed. Fails if a figure
/// is not as expected.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    if args.list {
        return list().map(|()| ExitCode::SUCCESS);
    }
    raise::with_binary(args.binary.as_deref(), false, |binary| play(args, binary))
}

fn list() -> Result<()> {
    for scenario in Scenario::all()? {
        println!("{:<24} {}", scenario.name, scenario.sentence);
    }
    Ok(())
}

/// The selected scenarios, in the selected form.
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

/// Plays the selected scenarios with the handshake in `binary`.
fn play(args: &Args, binary: &Path) -> Result<ExitCode> {
    let chosen = chosen(args)?;
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
    fn rates_last_as_long_as_the_options_say() -> Result<()> {
        let duration = |words: &str| Ok::<_, anyhow::Error>(scenarios(words)?[0].duration);
        assert_eq!(duration("soak")?, Duration::from_secs(1800));
        assert_eq!(duration("soak --for 5m")?, Duration::from_secs(300));
        assert_eq!(duration("soak --short")?, Duration::from_secs(1));
        Ok(())
    }

    #[test]
    fn bad_arguments_and_unknown_scenarios_are_errors() {
        assert!(line("").is_err() && line("soak --short --for 5m").is_err() && line("soak --for 5").is_err());
        assert!(line("--list").is_ok());
        assert!(scenarios("handshakes nonsense").is_err());
    }
}
