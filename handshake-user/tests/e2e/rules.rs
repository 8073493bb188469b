//! The rules of packaging/prometheus, judged by promtool: their own tests pass, and fail where a rule or an
//! expectation is another one.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;

use anyhow::{Context, Result, ensure};
use handshake_lab::skip_without_tool;

use crate::network::scratch;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/prometheus");
/// The rules and their tests.
const FILES: [&str; 2] = ["rules.yml", "rules_test.yml"];

/// Runs of promtool at a time.
const AT_ONCE: usize = 4;

/// A change of one of [`FILES`], by its place: each must be noticed.
const CHANGES: [(usize, &str, &str); 14] = [
    // Load that begins or ends, and a service with few attempts, would be a surge.
    (0, "0.1 * service:handshake_attempts:increase2m", "0.05 * service:handshake_attempts:increase2m"),
    (0, "0.1 * service:handshake_attempts:increase2m", "0.5 * service:handshake_attempts:increase2m"),
    (0, "handshake_service_attempts_total[2m]", "handshake_service_attempts_total[30s]"),
    (0, "service_cause:handshake_half_open:sum >= 20", "service_cause:handshake_half_open:sum >= 3"),
    (0, "{service=\"other\",cause=\"no_syn_ack\"}", "{service=\"other\",cause=\"no_ack\"}"),
    // One node of many would not be seen.
    (0, "sum by (service, cause) (instance_service_cause:handshake_half_open_surge:sum)", "vector(0) > 1"),
    (0, "sum by (service) (instance_service:handshake_down:attempts)", "vector(0) > 1"),
    (0, "{service!=\"other\"} >= 10", "{service!=\"other\"} >= 2"),
    (0, "for: 2m", "for: 0s"),
    (0, "for: 2m", "for: 30m"),
    (0, "handshake_lost_total{what!~", "handshake_lost_total{what=~"),
    (
        0,
        "unless on (instance) handshake_interface_packets_total",
        "unless on (job) handshake_interface_packets_total",
    ),
    (1, "service: api, severity: page", "service: web, severity: page"),
    (1, "api: 620 attempts", "api: 621 attempts"),
];

#[test]
fn each_alert_comes_when_it_should() -> Result<()> {
    if skip_without_tool("promtool") {
        return Ok(());
    }
    let files: Vec<String> = FILES
        .iter()
        .map(|name| fs::read_to_string(Path::new(FOLDER).join(name)).with_context(|| (*name).to_owned()))
        .collect::<Result<_>>()?;
    let (passes, said) = judge(&files)?;
    ensure!(passes, "{said}");
    for some in CHANGES.chunks(AT_ONCE) {
        thread::scope(|scope| {
            let started: Vec<_> =
                some.iter().map(|change| scope.spawn(|| is_noticed(&files, change))).collect();
            started.into_iter().try_for_each(|each| each.join().expect("it does not panic"))
        })?;
    }
    Ok(())
}

fn is_noticed(files: &[String], (at, right, wrong): &(usize, &str, &str)) -> Result<()> {
    let mut changed = files.to_vec();
    changed[*at] = changed[*at].replace(right, wrong);
    ensure!(changed[*at] != files[*at], "{right} is not in {}", FILES[*at]);
    let (passes, said) = judge(&changed)?;
    ensure!(!passes && said.contains("FAILED"), "{wrong}: {said}");
    Ok(())
}

/// Whether the tests pass, and what promtool says.
fn judge(files: &[String]) -> Result<(bool, String)> {
    let folder = scratch("rules");
    fs::create_dir(&folder)?;
    for (name, text) in FILES.iter().zip(files) {
        fs::write(folder.join(name), text)?;
    }
    let output = Command::new("promtool").args(["test", "rules", FILES[1]]).current_dir(&folder).output();
    fs::remove_dir_all(&folder)?;
    let output = output.context("run promtool")?;
    let said = [output.stdout, output.stderr].concat();
    Ok((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
}
