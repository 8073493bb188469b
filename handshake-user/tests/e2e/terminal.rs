//! The live terminal, on a terminal: what it shows of real traffic, what keys do, and that it gives the terminal back.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use std::{fs, thread};

use anyhow::{Context, Result, bail, ensure};
use handshake_lab::frame::{Segment, Sender, flag, tcp_frame};
use handshake_lab::tcp::{self, Attempts, Listener};
use handshake_lab::terminal::Terminal;
use handshake_lab::topology::DEVICE;
use handshake_lab::{Family, Namespace, Path, skip_unless_privileged, skip_without_tool, udp};
use rustix::process::{Pid, Signal, kill_process};

use crate::HANDSHAKE;
use crate::network::{PATIENCE, scratch, segment};

/// The program is loaded first.
const START: Duration = Duration::from_secs(60);

fn skipped() -> bool {
    skip_unless_privileged() || skip_without_tool("tmux")
}

/// `handshake watch` on a terminal, showing.
fn show(host: &Namespace, arguments: &[&str]) -> Result<Terminal> {
    let terminal = Terminal::new(100, 30)?;
    let mut command = host.command(HANDSHAKE);
    command.args(["watch", "-i", DEVICE, "--max-flows", "1000"]).args(arguments);
    terminal.start(&command)?;
    terminal.await_screen(START, |screen| screen.contains("1 Overview"))?;
    Ok(terminal)
}

/// Waits until all of these are on the screen: a picture may be seen half drawn.
fn shows(terminal: &Terminal, all: &[&str]) -> Result<()> {
    terminal.await_screen(PATIENCE, |screen| all.iter().all(|each| screen.contains(each)))?;
    Ok(())
}

fn press(terminal: &Terminal, key: &str, wanted: &str) -> Result<String> {
    terminal.key(key)?;
    terminal.await_screen(PATIENCE, |screen| screen.contains(wanted)).with_context(|| format!("after {key}"))
}

/// The prompt is back: how the command ended, and the terminal as the shell set it.
fn ended(terminal: &Terminal) -> Result<(String, String)> {
    terminal.await_screen(PATIENCE, |screen| screen.trim_end().ends_with('$'))?;
    ensure!(!terminal.is_alternate()?, "the alternate screen stays");
    let left = terminal.screen()?;
    let settings = scratch("stty");
    terminal.line(&format!("echo rc=$?; stty -a > {}; echo done", settings.display()))?;
    let screen = terminal.await_screen(PATIENCE, |screen| screen.lines().any(|line| line == "done"))?;
    let code = screen.lines().find_map(|line| line.strip_prefix("rc=")).context("no exit code")?;
    let said = format!("{left}\nrc={code}");
    Ok((said, read_and_remove(settings)?))
}

fn read_and_remove(path: PathBuf) -> Result<String> {
    let text = fs::read_to_string(&path)?;
    fs::remove_file(&path)?;
    Ok(text)
}

/// What a shell that nobody disturbed says of its terminal.
fn untouched() -> Result<String> {
    ended(&Terminal::new(100, 30)?).map(|(_, settings)| settings)
}

/// Attempts whose end is known beforehand.
fn traffic(path: &Path<'_>) -> Result<(Listener, Vec<SocketAddr>, Listener, Attempts)> {
    let listener = Listener::new(path, 0, 64)?;
    tcp::connect_accept(path, &listener, 12)?.close()?;
    tcp::refused(path, 5)?;
    let scanned = tcp::syn_scan(path, listener.address(), 2)?;
    let deaf = Listener::deaf(path, 0)?;
    let open = Attempts::start(path, deaf.address(), 3)?;
    udp::echo(path, 1, 2, 40)?;
    Ok((listener, scanned, deaf, open))
}

#[test]
fn screens_and_a_ladder_by_key() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let network = segment()?;
    let terminal = show(network.host(), &["--half-open-after", "200ms"])?;
    ensure!(terminal.is_alternate()?, "it does not draw on the alternate screen");
    let (listener, scanned, deaf, _open) = traffic(&network.path(Family::V4))?;
    terminal.await_screen(PATIENCE, |screen| {
        let balance = "22 = 12 completed + 5 refused + 2 initiator aborted + 3 half-open + 0 opening";
        screen.contains(balance) && screen.contains("no_syn_ack") && screen.contains("EXACT")
    })?;
    press(&terminal, "3", &listener.address().to_string())?;
    press(&terminal, "4", "nothing runs before ours")?;
    press(&terminal, "Tab", "tcp service")?;
    terminal.key("]")?;
    shows(&terminal, &["3 open", &deaf.address().to_string(), "half_open"])?;
    press(&terminal, "/", "\n/")?;
    terminal.line("verdict:initiator_aborted")?;
    terminal.await_screen(PATIENCE, |screen| screen.contains("2 listed"))?;
    press(&terminal, "G", "2 listed")?;
    // The last listed ended first; the scan's numbers begin two below 2³².
    terminal.key("Enter")?;
    let numbers = ["SYN seq=4294967294 ", "ack=4294967295 ", "RST seq=4294967295 "];
    shows(&terminal, &[&numbers[..], &[&scanned[0].to_string(), "Look at:"]].concat())?;
    press(&terminal, "p", "FROZEN")?;
    terminal.key("p")?;
    press(&terminal, "?", "┌ keys")?;
    Ok(())
}

/// A size comes while it runs: the picture fits it at once, also where it is too small.
#[test]
fn the_picture_fits_the_terminal() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let network = segment()?;
    let terminal = show(network.host(), &["--ascii"])?;
    for (columns, rows) in [(120, 40), (60, 15), (80, 24)] {
        terminal.resize(columns, rows)?;
        let fits = |screen: &str| {
            let lines: Vec<&str> = screen.lines().collect();
            let header = lines.first().is_some_and(|line| line.len() == usize::from(columns));
            header && lines.get(usize::from(rows) - 1).is_some_and(|line| line.ends_with("? help"))
        };
        let screen = terminal.await_screen(PATIENCE, fits)?;
        ensure!(screen.is_ascii(), "{screen}");
    }
    terminal.resize(40, 10)?;
    terminal.await_screen(PATIENCE, |screen| screen.contains("40x10 is too small: 60x15"))?;
    terminal.resize(80, 24)?;
    press(&terminal, "2", "initiator").or_else(|_| press(&terminal, "2", "No attempt yet"))?;
    Ok(())
}

/// `q`, Ctrl-C and signals end it alike: the last report on the screen that was there, the shell's settings, exit 0.
#[test]
fn the_terminal_is_given_back() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let (network, untouched) = (segment()?, untouched()?);
    for end in ["q", "C-c", "SIGTERM", "SIGHUP"] {
        let terminal = show(network.host(), &[])?;
        match end {
            "SIGTERM" => signal(&terminal, Signal::TERM)?,
            "SIGHUP" => signal(&terminal, Signal::HUP)?,
            key => terminal.key(key)?,
        }
        let (said, settings) = ended(&terminal).with_context(|| end.to_owned())?;
        ensure!(
            said.contains("balance ") && said.contains("EXACT") && said.ends_with("rc=0"),
            "{end}: {said}"
        );
        ensure!(settings == untouched, "{end}: {settings}");
    }
    Ok(())
}

/// Signals what has the terminal.
fn signal(terminal: &Terminal, signal: Signal) -> Result<()> {
    let process = i32::try_from(terminal.foreground()?).ok().and_then(Pid::from_raw);
    kill_process(process.context("a process number")?, signal).context("signal what has the terminal")
}

#[test]
fn an_interface_that_goes_away_ends_the_show() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let (network, untouched) = (segment()?, untouched()?);
    let terminal = show(network.host(), &[])?;
    network.host().ip(&[&format!("link del {DEVICE}")])?;
    let (said, settings) = ended(&terminal)?;
    ensure!(said.contains("balance ") && said.contains("eth0 is gone") && said.ends_with("rc=4"), "{said}");
    ensure!(settings == untouched, "{settings}");
    Ok(())
}

/// What is shown as a report for programs, in the folder where handshake was started.
#[test]
fn the_snapshot_is_written_as_json() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let network = segment()?;
    let folder = scratch("written");
    fs::create_dir(&folder)?;
    let terminal = Terminal::new(100, 30)?;
    terminal.line(&format!("cd {}", folder.display()))?;
    let mut command = network.host().command(HANDSHAKE);
    command.args(["watch", "-i", DEVICE, "--max-flows", "1000"]);
    terminal.start(&command)?;
    terminal.await_screen(START, |screen| screen.contains("1 Overview"))?;
    let listener = Listener::new(&network.path(Family::V4), 0, 64)?;
    tcp::connect_accept(&network.path(Family::V4), &listener, 4)?.close()?;
    terminal.await_screen(PATIENCE, |screen| screen.contains("4 = 4 completed"))?;
    press(&terminal, "w", "wrote handshake-")?;
    let written: Vec<PathBuf> =
        fs::read_dir(&folder)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    let texts = written.iter().map(fs::read_to_string).collect::<std::io::Result<Vec<_>>>();
    fs::remove_dir_all(&folder)?;
    let [text] = &texts?[..] else { bail!("{written:?}") };
    let report: serde_json::Value = serde_json::from_str(text)?;
    ensure!(report["type"] == "report" && report["tcp"]["completed"] == 4, "{report}");
    Ok(())
}

/// A terminal that cannot be drawn on gets lines.
#[test]
fn a_dumb_terminal_gets_lines() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let network = segment()?;
    let terminal = Terminal::new(100, 30)?;
    let mut command = network.host().command("env");
    command.args(["TERM=dumb", HANDSHAKE, "watch", "-i", DEVICE, "--max-flows", "1000", "--for", "1s"]);
    terminal.start(&command)?;
    let screen = terminal.await_screen(START, |screen| screen.contains("hook saw"))?;
    ensure!(!terminal.is_alternate()? && screen.contains("balance   0 = 0 completed"), "{screen}");
    Ok(())
}

/// Clients that connect as fast as they can raise no banner. Spoofed sources do, as soon as theirs are half-open; it goes
/// when no more come, while they are still open.
#[test]
fn spoofed_sources_raise_the_banner_and_busy_clients_do_not() -> Result<()> {
    const BUSY: usize = 600;
    if skipped() {
        return Ok(());
    }
    let network = segment()?;
    let path = network.path(Family::V4);
    let terminal = show(network.host(), &["--half-open-after", "500ms", "--interval", "250ms"])?;
    let listener = Listener::new(&path, 0, 1024)?;
    tcp::connect_accept(&path, &listener, BUSY)?.close()?;
    let screen = terminal.await_screen(PATIENCE, |screen| screen.contains("600 = 600 completed"))?;
    ensure!(!screen.contains("SURGE"), "{screen}");
    let surged = flood(&path, listener.address(), &terminal)?;
    ensure!(surged.contains("no_ack") && surged.contains("spoofed flood"), "{surged}");
    let calm = terminal.await_screen(3 * PATIENCE, |screen| !screen.contains("SURGE"))?;
    ensure!(!calm.contains(" 0 half-open"), "they have gone, and the banner for that: {calm}");
    Ok(())
}

/// SYNs from addresses that nobody has, until the banner is up.
fn flood(path: &Path<'_>, to: SocketAddr, terminal: &Terminal) -> Result<String> {
    const BURST: u16 = 20;
    let nobody = path.nobody.context("addresses that nobody has")?;
    let mut sender = Sender::new(path.client, path.device)?;
    for burst in 0..400_u16 {
        for number in burst * BURST..(burst + 1) * BURST {
            let source = SocketAddr::new(nobody, 1_024 + number);
            let seq = u32::from(number) << 16;
            let syn = Segment { source, destination: to, seq, ack: 0, flags: flag::SYN, payload: b"" };
            sender.send(&tcp_frame(path.macs, &syn)?)?;
        }
        let screen = terminal.screen()?;
        if screen.contains("HALF-OPEN SURGE") {
            return Ok(screen);
        }
        // A pace, so that the flood lasts until it is half-open: some hundred a second.
        thread::sleep(Duration::from_millis(25));
    }
    bail!("{} SYNs raised no banner:\n{}", sender.sent(), terminal.screen()?)
}
