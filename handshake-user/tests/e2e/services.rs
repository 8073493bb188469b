//! Services beside each other: the time to connect to each is its own.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use handshake_lab::tcp::{self, Attempts, Listener, SLOW_ANSWER};
use handshake_lab::{FAMILIES, Family, skip_unless_privileged};
use serde_json::Value;

use crate::books::{check_at_rest, figure};
use crate::check::{Check, OBEDIENT, ensure_code, expected};
use crate::error::Scratch;
use crate::network::{Network, router, segment};

/// Connections to each service.
const QUICK: usize = 20;
const SLOW: usize = 5;
const DEAF: usize = 3;
/// Longer than a connection on an idle wire takes, and shorter than the slowest to the slow service.
const LIMIT_MS: u64 = 250;

#[test]
fn a_slow_service_is_told_from_a_quick_one_and_from_one_that_never_answers() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    for network in [segment, router] {
        let network = network()?;
        for family in FAMILIES {
            play(&network, family).with_context(|| format!("over {family:?}"))?;
        }
    }
    Ok(())
}

fn play(network: &Network, family: Family) -> Result<()> {
    let path = network.path(family);
    for code in [0, 1] {
        let (quick, deaf) = (Listener::new(&path, 0, 64)?, Listener::deaf(&path, 0)?);
        let slow = Listener::new(&path, 0, 64)?;
        let ports = [&quick, &slow, &deaf].map(|listener| listener.address().port());
        let below = |port: u16| format!("p99(connect{{port={port}}}) < {LIMIT_MS}ms");
        let [quick_below, slow_below, deaf_below] = ports.map(below);
        let of_completed = format!("p99(connect of completed{{port={}}}) >= {LIMIT_MS}ms", ports[1]);
        let counted = format!("count(connect{{port={}}}) == {QUICK}", ports[0]);
        let words = if code == 0 {
            [&*quick_below, &of_completed, &counted]
        } else {
            [&*quick_below, &slow_below, &deaf_below]
        };
        let file = Scratch::new("report.json", b"")?;
        let words = [&["--report", file.path()][..], &expected(&words)].concat();
        let check = Check::start(network, &words, OBEDIENT)?;
        let connections = tcp::connect_accept(&path, &quick, QUICK)?;
        let slowly = tcp::slow_answers(&path, slow, SLOW)?;
        let left = Attempts::start(&path, deaf.address(), DEAF)?;
        let outcome = check.finish()?;
        let met = format!("met {quick_below}: ");
        let failed = [
            format!("FAILED {slow_below}: "),
            format!("FAILED {deaf_below}: > "),
            "of all 5 attempts".to_owned(),
        ];
        let failed = failed.iter().map(|line| &**line).filter(|_| code == 1);
        ensure_code(&outcome, code, &[&*met].into_iter().chain(failed).collect::<Vec<_>>())?;
        let report: Value =
            serde_json::from_str(&fs::read_to_string(file.path())?).context("read the report")?;
        check_at_rest(&report)?;
        check_rows(&report, ports)?;
        left.give_up()?;
        drop((connections, slowly));
    }
    Ok(())
}

/// The rows have the times of their own service, and add up to the report's counts.
fn check_rows(report: &Value, ports: [u16; 3]) -> Result<()> {
    let rows = report["services"].as_array().context("services")?;
    let mut latencies = Vec::new();
    for port in ports {
        let row = rows.iter().find(|row| row["port"] == port).context("its service")?;
        latencies.push(&row["latency"]);
    }
    let [quick, slow, deaf] = latencies[..] else { unreachable!("one of each") };
    let limit = LIMIT_MS * 1_000_000;
    let slow_answers = u64::try_from(SLOW_ANSWER.as_nanos())?;
    ensure!(figure(quick, "connect.count") == QUICK as u64 && figure(slow, "connect.count") == SLOW as u64);
    ensure!(
        figure(quick, "connect.max_ns") < limit && figure(quick, "connect_of_all.p99_ns") < limit,
        "{quick}"
    );
    // All but the first wait for one answer more than the one before.
    let half = (SLOW as u64 - 1) / 2 * slow_answers;
    let longest = (SLOW as u64 - 1) * slow_answers;
    ensure!(figure(slow, "connect.p50_ns") >= half && figure(slow, "connect.max_ns") >= longest, "{slow}");
    ensure!(figure(slow, "connect_of_all.p99_ns") == figure(slow, "connect.max_ns"), "{slow}");
    ensure!(figure(slow, "connect.max_ns") == figure(report, "latency.connect.max_ns"), "{slow}");
    ensure!(figure(deaf, "connect.count") == 0 && deaf["connect"]["p50_ns"].is_null(), "{deaf}");
    ensure!(figure(deaf, "connect_of_all.not_connected") == DEAF as u64, "{deaf}");
    ensure!(deaf["connect_of_all"]["p50_ns"].is_null(), "{deaf}");
    ensure!(figure(deaf, "connect_of_all.p50_at_least_ns") > limit, "{deaf}");
    for count in ["connect_of_all.count", "connect_of_all.not_connected"] {
        let sum: u64 = rows.iter().map(|row| figure(&row["latency"], count)).sum();
        ensure!(sum == figure(&report["latency"], count), "{count} of the services is {sum}: {report}");
    }
    Ok(())
}
