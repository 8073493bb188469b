//! The frame numbers and the display filter of each flow, with the installed tshark as the judge.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use handshake_lab::frame::{flag, unreachable};
use serde_json::{Value, json};

use crate::made::{CLIENT, Made, Recorded, SERVER, frame_between};
use crate::support::{captures, name, replay, run_replay, skip};

const SYN_ACK: u8 = flag::SYN | flag::ACK;

/// The frames that a display filter selects, each with its TCP flags; `None` without tshark.
fn selected(path: &Path, filter: &str) -> Result<Option<Vec<(u64, u64)>>> {
    let mut command = Command::new("tshark");
    command.args([
        "-n",
        "-o",
        "ip.defragment:FALSE",
        "-o",
        "ipv6.defragment:FALSE",
        "-Y",
        filter,
        "-T",
        "fields",
        "-e",
        "frame.number",
        "-e",
        "tcp.flags",
        "-r",
    ]);
    let Ok(output) = command.arg(path).output() else {
        skip("needs tshark");
        return Ok(None);
    };
    ensure!(output.status.success(), "tshark: {}", String::from_utf8_lossy(&output.stderr));
    let frame = |line: &str| {
        let (number, flags) = line.split_once('\t').context("two fields")?;
        let flags = flags.split(',').next().unwrap_or_default().trim_start_matches("0x");
        Ok((number.parse()?, if flags.is_empty() { 0 } else { u64::from_str_radix(flags, 16)? }))
    };
    String::from_utf8(output.stdout)?.lines().map(frame).collect::<Result<Vec<_>>>().map(Some)
}

/// A conversation of the same addresses with the ports exchanged, a tuple that is used again, and a refusal
/// by ICMP.
fn tangled(name: &str) -> Result<Made> {
    let exchanged = ["192.0.2.1:443", "198.51.100.2:40000"];
    let other = ["192.0.2.1:40001", SERVER];
    let there = [CLIENT, SERVER];
    let back = |[one, other]: [&'static str; 2]| [other, one];
    let rows = [
        (there, flag::SYN, 1_000, 0),
        (exchanged, flag::SYN, 7_000, 0),
        (back(there), SYN_ACK, 5_000, 1_001),
        (back(exchanged), SYN_ACK, 9_000, 7_001),
        (there, flag::ACK, 1_001, 5_001),
        (exchanged, flag::ACK, 7_001, 9_001),
        (there, flag::RST, 1_001, 0),
        (other, flag::SYN, 3_000, 0),
        (there, flag::SYN, 2_000_000_000, 0),
        (there, flag::SYN, 2_000_000_000, 0),
        (back(there), flag::RST | flag::ACK, 0, 2_000_000_001),
    ];
    let frames = rows.into_iter().map(|(ends, flags, seq, ack)| frame_between(ends, flags, seq, ack));
    let mut frames = frames.collect::<Result<Vec<_>>>()?;
    frames.push(unreachable("203.0.113.9".parse()?, "192.0.2.1".parse()?, 1, &frames[7])?);
    let recorded = |(bytes, at): (Vec<u8>, u64)| {
        Ok(Recorded { time_ns: at * 1_000_000_000, length: u32::try_from(bytes.len())?, bytes })
    };
    Made::record(name, &frames.into_iter().zip(1..).map(recorded).collect::<Result<Vec<_>>>()?)
}

#[test]
fn a_flow_has_the_numbers_of_its_frames() -> Result<()> {
    let made = tangled("numbers")?;
    let flows = replay(made.path(), &[])?.flows;
    let expected = [
        ("completed", json!({"first": 1, "last": 7, "syn": 1, "syn_ack": 3, "ack": 5}), vec![1, 3, 5, 7]),
        ("completed", json!({"first": 2, "last": 6, "syn": 2, "syn_ack": 4, "ack": 6}), vec![2, 4, 6]),
        ("unreachable", json!({"first": 8, "last": 12, "syn": 8, "end": 12}), vec![8, 12]),
        ("refused", json!({"first": 9, "last": 11, "syn": 9, "end": 11}), vec![9, 10, 11]),
    ];
    ensure!(flows.len() == expected.len(), "{flows:?}");
    for (flow, (verdict, frames, whole)) in flows.iter().zip(&expected) {
        ensure!(flow["verdict"] == *verdict && flow["frames"] == *frames, "{flow}");
        let filter = flow["display_filter"].as_str().context("no filter")?;
        let Some(found) = selected(made.path(), filter)? else { return Ok(()) };
        let numbers: Vec<u64> = found.iter().map(|(number, _)| *number).collect();
        ensure!(numbers == *whole, "{numbers:?}: {flow}");
    }
    Ok(())
}

/// Events have the same numbers as the list of flows, as far as the capture is read.
#[test]
fn an_attempt_that_ends_has_the_numbers_of_its_frames() -> Result<()> {
    let made = tangled("ends")?;
    let output = run_replay(made.path(), &["-o", "jsonl", "--events", "all"])?;
    let text = String::from_utf8(output.stdout)?;
    let events = text.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
    let frames: Vec<&Value> =
        events.iter().filter(|each| each["event"] == "ended").map(|each| &each["frames"]).collect();
    let expected = [
        json!({"first": 1, "last": 5, "syn": 1, "syn_ack": 3, "ack": 5}),
        json!({"first": 2, "last": 6, "syn": 2, "syn_ack": 4, "ack": 6}),
        json!({"first": 9, "last": 11, "syn": 9, "end": 11}),
        json!({"first": 8, "last": 12, "syn": 8, "end": 12}),
    ];
    ensure!(frames == expected.iter().collect::<Vec<_>>(), "{frames:?}");
    Ok(())
}

/// Of several files, numbers count in the file that the flow began in.
#[test]
fn a_flow_of_several_files_names_its_file() -> Result<()> {
    let made = tangled("files")?;
    let later = Made::segments("later", 1_000, &[(CLIENT, flag::SYN, 1, 0)])?;
    let path = later.path().to_string_lossy();
    let flows = replay(made.path(), &[&path])?.flows;
    // Its times begin at 0.
    let first = flows.first().context("a flow")?;
    ensure!(first["file"] == *path && first["frames"]["syn"] == 1, "{first}");
    let made = made.path().to_string_lossy();
    ensure!(flows.iter().skip(1).all(|flow| flow["file"] == *made), "{flows:?}");
    Ok(())
}

#[test]
fn tshark_selects_the_frames_of_a_flow_by_its_filter() -> Result<()> {
    /// Flows of each capture: tshark takes half a second for each.
    const EACH: usize = 2;
    const MOST: usize = 30;
    let Some(captures) = captures() else { return Ok(()) };
    let (mut compared, mut handshakes) = (0, 0);
    'all: for path in &captures {
        let replayed = replay(path, &[])?;
        let tcp = replayed.of("tcp").into_iter().take(EACH);
        for flow in tcp.chain(replayed.of("udp").into_iter().take(1)) {
            let (frames, filter) = (&flow["frames"], flow["display_filter"].as_str().context("no filter")?);
            let Some(found) = selected(path, filter)? else { return Ok(()) };
            let said = || format!("{}: {flow}\n{found:?}", name(path));
            let ends = found.first().zip(found.last()).map(|(first, last)| (first.0, last.0));
            ensure!(ends == frames["first"].as_u64().zip(frames["last"].as_u64()), "{}", said());
            let flags = |name: &str| {
                let number = frames[name].as_u64()?;
                Some(found.iter().find(|each| each.0 == number).map(|each| each.1 & 0x17))
            };
            let syn = [Some(u64::from(flag::SYN))];
            ensure!(flags("syn").is_none_or(|flags| syn.contains(&flags)), "{}", said());
            ensure!(flags("syn_ack").is_none_or(|flags| flags == Some(u64::from(SYN_ACK))), "{}", said());
            let is_third = |flags: u64| flags & u64::from(flag::ACK | flag::SYN | flag::RST) == 0x10;
            ensure!(flags("ack").is_none_or(|flags| flags.is_some_and(is_third)), "{}", said());
            handshakes += u32::from(flow["verdict"] == "completed" && frames["ack"].is_u64());
            compared += 1;
        }
        if compared >= MOST {
            break 'all;
        }
    }
    ensure!(compared > 10 && handshakes > 5, "{compared} flows compared, {handshakes} handshakes");
    Ok(())
}
