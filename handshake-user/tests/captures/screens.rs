//! `replay --tui`: the four screens over a capture, on a terminal.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use handshake_lab::frame::flag;
use handshake_lab::skip_without_tool;
use handshake_lab::terminal::Terminal;

use crate::made::{Made, SERVER, frame_between};
use crate::support::HANDSHAKE;

const TIMEOUT: Duration = Duration::from_secs(20);

/// One attempt without an answer, then 1,200 refused ones, and a completed one: more than the list of the
/// attempts that ended last holds.
fn busy() -> Result<Made> {
    let mut frames = Vec::new();
    let mut add = |at_us: u64, ends: [&str; 2], flags: u8, seq: u32, ack: u32| -> Result<()> {
        frames.push((at_us, frame_between(ends, flags, seq, ack)?));
        Ok(())
    };
    add(0, ["192.0.2.9:50000", "198.51.100.2:80"], flag::SYN, 7_000, 0)?;
    add(1_000, ["192.0.2.9:50000", "198.51.100.2:80"], flag::RST, 7_001, 0)?;
    for at in 0..1_200_u32 {
        let client = format!("192.0.2.1:{}", 20_000 + at);
        let at_us = 50_000 + u64::from(at) * 1_000;
        add(at_us, [&client, SERVER], flag::SYN, 1_000, 0)?;
        add(at_us + 100, [SERVER, &client], flag::RST | flag::ACK, 0, 1_001)?;
    }
    let last = ["192.0.2.1:60000", "198.51.100.2:22"];
    add(2_000_000, last, flag::SYN, 1_000, 0)?;
    add(2_000_100, [last[1], last[0]], flag::SYN | flag::ACK, 5_000, 1_001)?;
    add(2_000_200, last, flag::ACK, 1_001, 5_001)?;
    add(2_100_000, ["192.0.2.1:61000", "198.51.100.2:25"], flag::SYN, 3_000, 0)?;
    Made::of("screens", &frames)
}

#[test]
fn the_screens_show_a_capture_and_a_filter_looks_through_all_of_it() -> Result<()> {
    if skip_without_tool("tmux") {
        return Ok(());
    }
    let made = busy()?;
    let terminal = Terminal::new(100, 30)?;
    let shows = |all: &[&str]| -> Result<String> {
        terminal.await_screen(TIMEOUT, |screen| all.iter().all(|each| screen.contains(each)))
    };
    terminal.start(Command::new(HANDSHAKE).arg("replay").arg(made.path()).arg("--tui"))?;
    let file = made.path().file_name().context("a name")?.to_string_lossy();
    shows(&[
        "1 Overview",
        &file,
        "3 of 4 SERVICES FAIL",
        "198.51.100.2:443 0.0 % of 1 200",
        "1 203 = 1 completed",
    ])?;
    terminal.key("2")?;
    let listed = shows(&["1 open", "half_open", "refused", "192.0.2.1:61000"])?;
    ensure!(!listed.contains("initiator_aborted"), "{listed}");
    // The oldest attempt of all.
    terminal.key("/")?;
    "verdict:initiator_aborted".chars().try_for_each(|key| terminal.key(&key.to_string()))?;
    terminal.key("Enter")?;
    shows(&["1 listed", "192.0.2.9:50000", "198.51.100.2:80"])?;
    terminal.key("Enter")?;
    shows(&["SYN seq=7000", "RST seq=7001", "frames 1, 2", "frame.number in {1..2}"])?;
    // Two that arrive together are one key with Alt.
    terminal.key("Escape")?;
    shows(&["1 listed"])?;
    terminal.key("Escape")?;
    shows(&["1 001 listed"])?;
    terminal.key("3")?;
    shows(&["198.51.100.2:443", "198.51.100.2:22", "198.51.100.2:25", "198.51.100.2:80"])?;
    terminal.key("4")?;
    let health = shows(&["EXACT", "capture_damaged"])?;
    ensure!(!health.contains("programs"), "{health}");
    terminal.key("q")?;
    let screen = shows(&["balance", "hook saw"])?;
    ensure!(!terminal.is_alternate()? && screen.contains("attempts 1 203"), "{screen}");
    terminal.line("echo rc=$?")?;
    shows(&["rc=0"])?;
    Ok(())
}

#[test]
fn without_a_terminal_one_line_says_so() -> Result<()> {
    let made = Made::segments("no-terminal", 1_000, &[("192.0.2.1:40000", flag::SYN, 1, 0)])?;
    let mut command = Command::new(HANDSHAKE);
    command.arg("replay").arg(made.path()).arg("--tui").stdin(Stdio::null());
    let output = command.output().context("start replay")?;
    let said = String::from_utf8(output.stderr)?;
    ensure!(output.status.code() == Some(2) && output.stdout.is_empty(), "{}: {said}", output.status);
    ensure!(said.lines().count() == 1 && said.contains("--tui needs a terminal"), "{said}");
    Ok(())
}
