//! The live terminal on a real one: what it shows of traffic, what keys do, and that it restores the
//! terminal.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use std::{fs, thread};

use anyhow::{Context, Result, bail, ensure};
use handshake_lab::frame::{BuiltSegment, Sender, flag, tcp_frame};
use handshake_lab::tcp::{self, Attempts, Listener};
use handshake_lab::terminal::Terminal;
use handshake_lab::topology::{DEVICE, FAR_DEVICE};
use handshake_lab::{Family, Namespace, Path, skip_unless_privileged, skip_without_tool, udp};
use rustix::process::{Pid, Signal, kill_process};

use crate::HANDSHAKE;
use crate::network::{Network, TIMEOUT, router, scratch, segment};

/// Limit for starting, which includes loading the program.
const START: Duration = Duration::from_secs(60);

fn skipped() -> bool {
    skip_unless_privileged() || skip_without_tool("tmux")
}

/// Starts `handshake watch` on a terminal, and waits for its first screen.
pub(crate) fn show(host: &Namespace, arguments: &[&str]) -> Result<Terminal> {
    let terminal = Terminal::new(100, 30)?;
    let mut command = host.command(HANDSHAKE);
    command.args(["watch", "-i", DEVICE, "--max-flows", "1000"]).args(arguments);
    terminal.start(&command)?;
    terminal.await_screen(START, |screen| screen.contains("1 Overview"))?;
    Ok(terminal)
}

/// Waits until all of these are on the screen: a read may catch a half-drawn screen.
fn shows(terminal: &Terminal, all: &[&str]) -> Result<()> {
    terminal.await_screen(TIMEOUT, |screen| all.iter().all(|each| screen.contains(each)))?;
    Ok(())
}

pub(crate) fn press(terminal: &Terminal, key: &str, wanted: &str) -> Result<String> {
    terminal.key(key)?;
    terminal.await_screen(TIMEOUT, |screen| screen.contains(wanted)).with_context(|| format!("after {key}"))
}

/// Waits for the prompt. Returns the screen with the exit code, and the terminal's settings.
fn ended(terminal: &Terminal) -> Result<(String, String)> {
    terminal.await_screen(TIMEOUT, |screen| screen.trim_end().ends_with('$'))?;
    ensure!(!terminal.is_alternate()?, "the alternate screen stays");
    let left = terminal.screen()?;
    let settings = scratch("stty");
    terminal.line(&format!("echo rc=$?; stty -a > {}; echo done", settings.display()))?;
    let screen = terminal.await_screen(TIMEOUT, |screen| screen.lines().any(|line| line == "done"))?;
    let code = screen.lines().find_map(|line| line.strip_prefix("rc=")).context("no exit code")?;
    let said = format!("{left}\nrc={code}");
    Ok((said, read_and_remove(settings)?))
}

fn read_and_remove(path: PathBuf) -> Result<String> {
    let text = fs::read_to_string(&path)?;
    fs::remove_file(&path)?;
    Ok(text)
}

/// The settings of an undisturbed shell's terminal.
fn untouched() -> Result<String> {
    ended(&Terminal::new(100, 30)?).map(|(_, settings)| settings)
}

/// Makes attempts with known outcomes.
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
fn keys_show_the_screens_and_a_ladder() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let network = segment()?;
    let terminal = show(network.host(), &["--half-open-after", "200ms"])?;
    ensure!(terminal.is_alternate()?, "the alternate screen is not in use");
    let (listener, scanned, deaf, _open) = traffic(&network.path(Family::V4))?;
    terminal.await_screen(TIMEOUT, |screen| {
        let balance = "22 = 12 completed + 5 refused + 2 initiator aborted + 3 half-open + 0 opening";
        screen.contains(balance) && screen.contains("no_syn_ack") && screen.contains("· EXACT")
    })?;
    press(&terminal, "3", &listener.address().to_string())?;
    press(&terminal, "4", "no program runs before ours")?;
    press(&terminal, "Tab", "tcp service")?;
    terminal.key("]")?;
    shows(&terminal, &["3 open", &deaf.address().to_string(), "half_open"])?;
    press(&terminal, "/", "\n/")?;
    terminal.line("verdict:initiator_aborted")?;
    terminal.await_screen(TIMEOUT, |screen| screen.contains("2 listed"))?;
    press(&terminal, "G", "2 listed")?;
    // The last one listed ended first; the scan's sequence numbers begin two below 2³².
    terminal.key("Enter")?;
    let numbers = ["SYN seq=4294967294 ", "ack=4294967295 ", "RST seq=4294967295 "];
    shows(&terminal, &[&numbers[..], &[&scanned[0].to_string(), "Look at:"]].concat())?;
    press(&terminal, "y", "lines sent to the terminal's clipboard")?;
    let copied = terminal.clipboard()?;
    ensure!(copied.contains("initiator_aborted  ") && copied.contains("SYN seq=4294967294 "), "{copied}");
    press(&terminal, "Escape", "2 listed")?;
    press(&terminal, "c", "1 of 1 networks (/24, /48) have failures · counted over the 2 attempts listed")?;
    press(&terminal, "Enter", "filter verdict:initiator_aborted client:")?;
    terminal.key("Escape")?;
    terminal.await_screen(TIMEOUT, |screen| !screen.contains("filter verdict"))?;
    press(&terminal, "f", "filter failures")?;
    terminal.await_screen(TIMEOUT, |screen| screen.contains("10 listed") && !screen.contains("completed"))?;
    press(&terminal, "p", "FROZEN")?;
    terminal.key("p")?;
    press(&terminal, "?", "┌ keys")?;
    Ok(())
}

/// A server accepts and reads, and does not answer: its connections are marked, and found among the others.
#[test]
fn silent_connections_are_found() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let network = segment()?;
    let path = network.path(Family::V4);
    let terminal = show(network.host(), &["--half-open-after", "400ms"])?;
    let listener = Listener::new(&path, 0, 16)?;
    let silent = tcp::connect_accept(&path, &listener, 3)?;
    let _unasked = tcp::connect_accept(&path, &listener, 4)?;
    for (mut client, mut server) in silent.clients.iter().zip(&silent.servers) {
        client.write_all(b"hello")?;
        server.read_exact(&mut [0; 5])?;
    }
    press(&terminal, "3", "silent")?;
    press(&terminal, "2", "7 listed")?;
    press(&terminal, "/", "\n/")?;
    terminal.line("silent")?;
    shows(&terminal, &["3 listed", "completed, silent", "filter silent"])?;
    press(&terminal, "Enter", "silent             the connection is established")?;
    press(&terminal, "Escape", "3 listed")?;
    terminal.key("Escape")?;
    press(&terminal, "f", "filter failures")?;
    shows(&terminal, &["3 listed", "completed, silent"])
}

/// A router loses SYNs, or SYN+ACKs: the ladder ends there, and its sentence says so.
#[test]
fn what_a_router_loses_ends_there() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    for (lost, rung, sentence) in [
        ("203.0.113.2", "─ SYN seq=", "the SYN came in by eth0"),
        ("192.0.2.1", "─ SYN+ACK seq=", "the SYN+ACK came in by eth1 and did not leave by eth0"),
    ] {
        let network = router()?;
        let Network::Router(routed) = &network else { unreachable!("it is a router") };
        routed.router.ip(&[&format!("route add blackhole {lost}/32")])?;
        let terminal = show(network.host(), &["-i", FAR_DEVICE, "--half-open-after", "200ms"])?;
        let path = network.path(Family::V4);
        let listener = Listener::new(&path, 0, 16)?;
        let _open = Attempts::start(&path, listener.address(), 1)?;
        press(&terminal, "2", "half_open")?;
        terminal.key("Enter")?;
        shows(&terminal, &["lost in this host", "Look at: this host's firewall"])?;
        let screen = terminal.screen()?;
        let words: Vec<&str> = screen.split_whitespace().collect();
        ensure!(words.join(" ").contains(sentence), "{screen}");
        let is_cut = |line: &&str| line.contains(rung) && line.contains('✘') && !line.contains(['▶', '◀']);
        ensure!(screen.lines().filter(is_cut).count() == 1, "{screen}");
    }
    Ok(())
}

/// The screen follows a resize at once, even if the terminal is too small.
#[test]
fn the_screen_follows_the_size_of_the_terminal() -> Result<()> {
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
        let screen = terminal.await_screen(TIMEOUT, fits)?;
        ensure!(screen.is_ascii(), "{screen}");
    }
    terminal.resize(40, 10)?;
    terminal.await_screen(TIMEOUT, |screen| screen.contains("40x10 is too small: 60x15"))?;
    terminal.resize(80, 24)?;
    press(&terminal, "2", "initiator").or_else(|_| press(&terminal, "2", "No attempt yet"))?;
    Ok(())
}

/// `q`, Ctrl-C and signals end it in the same way: the last report on the original screen, the shell's
/// settings, exit code 0.
#[test]
fn the_terminal_is_restored() -> Result<()> {
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
            said.contains("balance ") && said.contains("· EXACT") && said.ends_with("rc=0"),
            "{end}: {said}"
        );
        ensure!(settings == untouched, "{end}: {settings}");
    }
    Ok(())
}

/// Sends a signal to the foreground process.
fn signal(terminal: &Terminal, signal: Signal) -> Result<()> {
    let process = i32::try_from(terminal.foreground()?).ok().and_then(Pid::from_raw);
    kill_process(process.context("a process ID")?, signal).context("signal the foreground process")
}

#[test]
fn a_lost_interface_ends_the_terminal_view() -> Result<()> {
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

/// `w` writes the shown state as a JSON report into the folder where handshake was started.
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
    terminal.await_screen(TIMEOUT, |screen| screen.contains("4 = 4 completed"))?;
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

/// A terminal that cannot position text gets lines.
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

/// Clients that connect as fast as they can raise no banner. Spoofed sources raise it as soon as their
/// attempts are half-open; it clears when no more arrive, while those are still open.
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
    let screen = terminal.await_screen(TIMEOUT, |screen| screen.contains("600 = 600 completed"))?;
    ensure!(!has_banner(&screen), "{screen}");
    let surged = flood(&path, listener.address(), &terminal)?;
    ensure!(surged.contains("no_ack") && surged.contains("spoofed flood"), "{surged}");
    let calm = terminal.await_screen(3 * TIMEOUT, |screen| !has_banner(screen))?;
    ensure!(!calm.contains(" 0 half-open"), "the banner cleared only because the attempts were gone: {calm}");
    Ok(())
}

/// Whether the banner of a surge is on the screen, which a fresh drawing may have begun.
fn has_banner(screen: &str) -> bool {
    screen.contains("of new connections to") || screen.contains("half-open surge")
}

/// Sends SYNs from unassigned addresses until the banner appears.
fn flood(path: &Path<'_>, to: SocketAddr, terminal: &Terminal) -> Result<String> {
    const BURST: u16 = 20;
    let unassigned = path.unassigned.context("unassigned addresses")?;
    let mut sender = Sender::new(path.client, path.device)?;
    for burst in 0..400_u16 {
        for number in burst * BURST..(burst + 1) * BURST {
            let source = SocketAddr::new(unassigned, 1_024 + number);
            let seq = u32::from(number) << 16;
            let syn = BuiltSegment { source, destination: to, seq, ack: 0, flags: flag::SYN, payload: b"" };
            sender.send(&tcp_frame(path.macs, &syn)?)?;
        }
        let screen = terminal.screen()?;
        if has_banner(&screen) {
            return Ok(screen);
        }
        // Paced to a few hundred per second, so that the flood lasts until its attempts are half-open.
        thread::sleep(Duration::from_millis(25));
    }
    bail!("{} SYNs raised no banner:\n{}", sender.sent(), terminal.screen()?)
}
