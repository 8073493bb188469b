//! Several files, folders and compressed files as one capture, and reports at an interval.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::support::{HANDSHAKE, captures, name, replay, skip};

/// Runs a tool that must be installed; `false` where it is not.
fn runs(command: &mut Command) -> Result<bool> {
    let tool = command.get_program().to_string_lossy().into_owned();
    let Ok(output) = command.output() else {
        skip(&format!("no {tool}"));
        return Ok(false);
    };
    ensure!(output.status.success(), "{tool}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(true)
}

/// The files of a folder, in order.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    let mut paths: Vec<PathBuf> = entries.iter().map(fs::DirEntry::path).collect();
    paths.sort();
    Ok(paths)
}

/// Flows without their places in the files, which differ.
fn unplaced(flows: &[Value]) -> Vec<Value> {
    let mut flows = flows.to_vec();
    for flow in flows.iter_mut().filter_map(Value::as_object_mut) {
        flow.retain(|field, _| !["file", "frames", "display_filter"].contains(&field.as_str()));
    }
    flows
}

/// The pieces of a capture, as editcap cuts it and as programs compress them, give the flows of the whole.
#[test]
fn the_pieces_of_a_capture_give_the_flows_of_the_whole() -> Result<()> {
    let Some(captures) = captures() else { return Ok(()) };
    const PROGRAMS: [&str; 5] = ["gzip", "zstd", "xz", "bzip2", "lz4"];
    let mut compared = 0;
    for path in captures.iter() {
        let whole = replay(path, &[])?;
        let is_in_order = whole.report["source"]["out_of_order"].is_null();
        if !is_in_order || whole.flows.len() < 3 {
            continue;
        }
        let folder = tempfile::tempdir()?;
        let out = folder.path().join("piece.pcap");
        if !runs(Command::new("editcap").args(["-F", "nsecpcap", "-c", "7"]).arg(path).arg(&out))? {
            return Ok(());
        }
        for (piece, program) in files(folder.path())?.iter().zip(PROGRAMS.into_iter().cycle()) {
            let Ok(packed) = Command::new(program).arg("-c").arg(piece).output() else {
                skip(&format!("no {program}"));
                continue;
            };
            fs::write(piece, packed.stdout)?;
        }
        let pieces = replay(folder.path(), &[])?;
        ensure!(unplaced(&pieces.flows) == unplaced(&whole.flows), "{}: the flows differ", name(path));
        let figures = |report: &Value| {
            let mut report = report.clone();
            report["source"].take();
            report
        };
        ensure!(figures(&pieces.report) == figures(&whole.report), "{}: the reports differ", name(path));
        let listed = pieces.report["source"]["files"].as_array().map_or(1, Vec::len);
        ensure!(listed == files(folder.path())?.len(), "{}: {listed} files", name(path));
        compared += 1;
    }
    ensure!(compared > 5, "{compared} captures compared");
    Ok(())
}

/// Both directions of a link, a file each, in any order of the files.
#[test]
fn the_directions_of_a_link_make_one_conversation() -> Result<()> {
    let Some(captures) = captures() else { return Ok(()) };
    let path = captures.iter().find(|path| path.ends_with("zeek-tls-openjdk-25.0.2-zeek.org.pcap"));
    let path = path.context("the capture is there")?;
    let folder = tempfile::tempdir()?;
    let sides = [("there.pcap", "dst port 443"), ("back.pcap", "src port 443")];
    for (file, filter) in sides {
        let out = folder.path().join(file);
        if !runs(Command::new("tcpdump").arg("-r").arg(path).arg("-w").arg(&out).arg(filter))? {
            return Ok(());
        }
    }
    let whole = replay(path, &["--port", "443"])?;
    for order in [[0, 1], [1, 0]] {
        let [one, other] = order.map(|side| folder.path().join(sides[side].0));
        let other = other.to_string_lossy();
        let both = replay(&one, &[&other, "--port", "443"])?;
        ensure!(unplaced(&both.flows) == unplaced(&whole.flows), "{:?} / {:?}", both.flows, whole.flows);
    }
    Ok(())
}

#[test]
fn an_interval_gives_reports_of_the_captures_time() -> Result<()> {
    let Some(captures) = captures() else { return Ok(()) };
    let path = captures.iter().find(|path| path.ends_with("zeek-ftp-bruteforce.pcap"));
    let path = path.context("the capture is there")?;
    let run = |more: &[&str]| -> Result<String> {
        let mut command = Command::new(HANDSHAKE);
        let output = command.arg("replay").arg(path).args(more).output().context("start replay")?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    };
    let one = run(&["-o", "jsonl"])?;
    let many = run(&["-o", "jsonl", "--interval", "10s"])?;
    ensure!(many.lines().last() == one.lines().last(), "the closing report is the same");
    let reports: Vec<Value> = many.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    ensure!(reports.len() > 2, "{} reports", reports.len());
    let attempts = |report: &Value| report["tcp"]["attempts"].as_i64().unwrap_or(-1);
    let steps = reports.windows(2).filter(|pair| !pair[1]["interval"].is_null());
    let mut steps = steps.peekable();
    ensure!(steps.peek().is_some(), "no report has an interval");
    for pair in steps {
        let change = pair[1]["interval"]["tcp"]["attempts"].as_i64();
        ensure!(change == Some(attempts(&pair[1]) - attempts(&pair[0])), "{change:?}");
    }
    ensure!(reports.windows(2).all(|pair| pair[0]["to"].as_str() <= pair[1]["to"].as_str()), "in order");
    ensure!(run(&["-o", "json", "--interval", "10s"])?.lines().count() == 1, "json is one report");
    ensure!(run(&["--interval", "10s"])?.matches("handshake · ").count() == reports.len(), "as text, too");
    Ok(())
}
