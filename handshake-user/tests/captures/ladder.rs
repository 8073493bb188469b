//! The ladders of `replay --ladder`.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use handshake_lab::frame::{flag, unreachable};

use crate::made::{CLIENT, Made, Row, SERVER, frame, frame_between};
use crate::support::{HANDSHAKE, run_replay};

const SYN_ACK: u8 = flag::SYN | flag::ACK;
const SYN: Row = (CLIENT, flag::SYN, 1_000, 0);

/// The lines of the ladders of `ends`, without the lengths of arrows and gaps.
fn ladder(made: &Made, ends: &str) -> Result<Vec<String>> {
    let output = run_replay(made.path(), &["--ladder", ends])?;
    let short = |line: &str| {
        let blank = line.replace(['─', '╌'], " ");
        blank.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    Ok(String::from_utf8(output.stdout)?.lines().map(short).collect())
}

/// The lines between the head of a ladder and the blank line behind it.
fn rungs(lines: &[String]) -> Vec<&str> {
    let rungs = lines.iter().skip_while(|line| !line.starts_with("frame seconds")).skip(1);
    rungs.take_while(|line| !line.is_empty()).map(String::as_str).collect()
}

#[test]
fn a_ladder_has_the_packets_of_the_handshake_with_their_frames() -> Result<()> {
    const MS: u64 = 1_000;
    let rows: [(u64, Row); 11] = [
        (0, SYN),
        (1_000 * MS, SYN),
        (1_020 * MS, (SERVER, SYN_ACK, 4_000, 77)),
        (1_040 * MS, (SERVER, SYN_ACK, 5_000, 1_001)),
        (1_041 * MS, (SERVER, SYN_ACK, 5_000, 1_001)),
        (1_060 * MS, (CLIENT, flag::ACK, 1_001, 900)),
        (1_080 * MS, (CLIENT, flag::ACK, 1_001, 5_001)),
        (1_100 * MS, (CLIENT, flag::ACK, 1_001, 5_001)),
        (1_120 * MS, (CLIENT, flag::FIN | flag::ACK, 1_001, 5_001)),
        (1_140 * MS, (CLIENT, flag::FIN | flag::ACK, 1_001, 5_001)),
        (1_160 * MS, (SERVER, flag::RST, 5_001, 0)),
    ];
    let frames = rows.iter().map(|(at, row)| Ok((*at, frame(row)?))).collect::<Result<Vec<_>>>()?;
    let made = Made::of("ladder", &frames)?;
    let expected = [
        "1 0.000000 ├ SYN seq=J ▶│",
        "2 1.000000 ├ SYN seq=J, again ▶│",
        "3 1.020000 │◀ SYN+ACK seq=K-1000 ack=J-923, ignored ┤",
        "4 1.040000 │◀ SYN+ACK seq=K ack=J+1 ┤",
        "5 1.041000 │◀ SYN+ACK seq=K ack=J+1, copy ┤",
        "6 1.060000 ├ ACK seq=J+1 ack=K-4100, ignored ▶│",
        "7 1.080000 ├ ACK seq=J+1 ack=K+1 ▶│",
        "9 1.120000 ├ FIN+ACK seq=J+1 ack=K+1 ▶│",
        "10 1.140000 ├ FIN+ACK seq=J+1 ack=K+1, again ▶│",
        "11 1.160000 │◀ RST seq=K+1 ┤",
    ];
    for ends in [CLIENT, SERVER, &format!("{SERVER},{CLIENT}")] {
        let lines = ladder(&made, ends)?;
        ensure!(rungs(&lines) == expected, "{lines:#?}");
        ensure!(lines.contains(&"numbers J=1000 K=5000".to_owned()), "{lines:#?}");
        ensure!(lines.iter().any(|line| line.starts_with("verdict completed: ")), "{lines:#?}");
        ensure!(lines.iter().any(|line| line.ends_with("frame.number in {1..11}")), "{lines:#?}");
    }
    let other = ladder(&made, "192.0.2.1:1")?;
    ensure!(other.contains(&"no TCP flow of 192.0.2.1:1 is in the capture".to_owned()), "{other:#?}");
    Ok(())
}

#[test]
fn an_attempt_that_fails_shows_what_ended_it_or_what_is_missing() -> Result<()> {
    let syn = frame(&SYN)?;
    let error = unreachable("203.0.113.9".parse()?, "192.0.2.1".parse()?, 1, &syn)?;
    let refused = Made::of("ladder-icmp", &[(0, syn.clone()), (20_000, error)])?;
    let expected =
        ["1 0.000000 ├ SYN seq=J ▶│", "2 0.020000 │◀ ICMP unreachable from 203.0.113.9, quotes seq=J ┤"];
    ensure!(rungs(&ladder(&refused, CLIENT)?) == expected, "{:#?}", ladder(&refused, CLIENT)?);

    let silent = Made::of("ladder-silent", &[(0, syn.clone())])?;
    let lines = ladder(&silent, CLIENT)?;
    ensure!(rungs(&lines) == ["1 0.000000 ├ SYN seq=J ▶│", "│ ✘ no SYN+ACK ┤"], "{lines:#?}");
    let answered = Made::of("ladder-answered", &[(0, syn), (9, frame(&(SERVER, SYN_ACK, 5_000, 1_001))?)])?;
    let lines = ladder(&answered, CLIENT)?;
    ensure!(rungs(&lines).last() == Some(&"├ no ACK ✘ │"), "{lines:#?}");
    Ok(())
}

/// What is drawn is bounded, and what is left out is counted.
#[test]
fn many_packets_and_flows_are_counted_and_not_drawn() -> Result<()> {
    let again = (0..100).map(|second| Ok((second * 1_000_000, frame(&SYN)?)));
    let made = Made::of("ladder-long", &again.collect::<Result<Vec<_>>>()?)?;
    let lines = ladder(&made, CLIENT)?;
    let rungs = rungs(&lines);
    ensure!(rungs.contains(&"… 68 more packets") && rungs.len() == 34, "{rungs:#?}");
    ensure!(rungs[0].starts_with("1 0.000000") && rungs[32].starts_with("100 99.000000"), "{rungs:#?}");

    // The same tuple again and again: all but the last are evicted.
    let anew = (0..30_u32)
        .map(|at| Ok((u64::from(at) * 1_000_000, frame(&(CLIENT, flag::SYN, 1_000_000 * at, 0))?)));
    let mut frames = anew.collect::<Result<Vec<_>>>()?;
    frames.push((31_000_000, frame_between(["192.0.2.1:1", SERVER], flag::SYN, 1, 0)?));
    let made = Made::of("ladder-many", &frames)?;
    let lines = ladder(&made, CLIENT)?;
    let drawn = lines.iter().filter(|line| line.starts_with("tcp ")).count();
    ensure!(drawn == 20, "{drawn}");
    ensure!(lines.contains(&format!("10 more flows of {CLIENT} are not drawn")), "{lines:#?}");
    let superseded = lines.iter().filter(|line| line.starts_with("verdict superseded")).count();
    ensure!(superseded == 20, "{superseded}");
    ensure!(ladder(&made, SERVER)?.contains(&format!("11 more flows of {SERVER} are not drawn")), "all");
    Ok(())
}

/// Of several files, frames count in each.
#[test]
fn a_ladder_over_several_files_says_which() -> Result<()> {
    let there = Made::of("ladder-there", &[(0, frame(&SYN)?)])?;
    let back = Made::of("ladder-back", &[(20_000, frame(&(SERVER, flag::RST | flag::ACK, 0, 1_001))?)])?;
    let mut command = Command::new(HANDSHAKE);
    command.arg("replay").args([there.path(), back.path()]).args(["--ladder", CLIENT]);
    let output = command.output().context("start replay")?;
    let text = String::from_utf8(output.stdout)?;
    ensure!(text.contains("   1:1    0.000000  ├") && text.contains("   2:1    0.020000  │"), "{text}");
    Ok(())
}
