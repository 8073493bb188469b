//! The scenarios of `cargo xtask load SCENARIO --short`: handshake's report matches the traffic made and the
//! kernel's counters.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use handshake_lab::load::{Scenario, play};
use handshake_lab::skip_unless_privileged;

use crate::HANDSHAKE;

/// Defines a test for each scenario, by its name; [`every_scenario_has_a_test`] checks that none is missing.
macro_rules! scenarios {
    ($($name:ident)*) => {
        const NAMES: &[&str] = &[$(stringify!($name)),*];
        $(
            #[test]
            fn $name() -> Result<()> {
                run(Scenario::find(stringify!($name))?.short())
            }
        )*
    };
}

scenarios! {
    accept_queue_full accept_queue_overflow ack_flood crawler expectation_not_met filtered handshakes handshakes_v6
    held_completions held_small_table loopback mixed no_ack port_scan refused retransmitting_syn retransmitting_syn_ack
    slow soak starts syn_cookies syn_flood syn_scan table_full table_too_small udp udp_answered_flood udp_answered_small_table
    udp_flood unreachable vlan
}

fn run(scenario: Scenario) -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let (comparison, said) = play(&scenario, Path::new(HANDSHAKE))?;
    ensure!(comparison.is_good(), "{}\n{comparison}\n{said}", scenario.name);
    Ok(())
}

#[test]
fn every_scenario_has_a_test() -> Result<()> {
    let all = Scenario::all()?;
    let names: Vec<&str> = all.iter().map(|scenario| scenario.name.as_str()).collect();
    ensure!(names == NAMES, "{names:?}");
    Ok(())
}

/// The comparison can fail: here on an expectation that is not met although the scenario does not say so.
#[test]
fn a_difference_fails_the_comparison() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let file = std::env::temp_dir().join(format!("hs-load-{}-wrong.toml", std::process::id()));
    let text = "sentence = \"Refused.\"\nexpect = [\"completed >= 1\"]\n[[traffic]]\nkind = \"refused\"\ncount = 3\n";
    fs::write(&file, text)?;
    let scenario = Scenario::find(&file.to_string_lossy());
    fs::remove_file(&file)?;
    let (comparison, said) = play(&scenario?, Path::new(HANDSHAKE))?;
    ensure!(!comparison.is_good(), "{comparison}");
    let wrong: Vec<String> =
        comparison.to_string().lines().filter(|line| line.contains("NOT AS")).map(str::to_owned).collect();
    ensure!(wrong.len() == 1 && wrong[0].contains("exit code"), "{comparison}\n{said}");
    Ok(())
}
