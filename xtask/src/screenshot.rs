//! `cargo xtask screenshot`: draws the README's pictures from a real run. Two hosts in namespaces exchange
//! real traffic, the real command runs on a terminal, and the terminal's content becomes an SVG.

mod svg;

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use handshake_lab::frame::{BuiltSegment, Sender, flag, tcp_frame};
use handshake_lab::tcp::{self, Attempts, Listener};
use handshake_lab::terminal::Terminal;
use handshake_lab::topology::DEVICE;
use handshake_lab::{self as lab, Family, Pair, privilege, udp};

use crate::{run, shell};

/// The terminal's columns and rows.
const SIZE: (u16, u16) = (100, 30);
/// The pause between rounds of traffic.
const PAUSE: Duration = Duration::from_millis(100);
/// How long traffic runs: half-open attempts must be older than `--half-open-after`, and the sparklines must
/// have grown.
const RUNS: Duration = Duration::from_secs(45);
/// The time limit for an expected screen to appear on a busy machine.
const SCREEN_TIMEOUT: Duration = Duration::from_secs(60);

/// Draw the README's pictures from a real run; needs tmux and privileges
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The handshake binary, already built
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
}

/// Runs the verb.
pub(crate) fn run(args: &Args) -> Result<()> {
    let missing = privilege::missing();
    ensure!(missing.is_empty(), "missing here: {}", missing.join(", "));
    ensure!(shell::find("tmux").is_some(), "missing here: tmux");
    let binary = args.binary.clone().map_or_else(|| run::build(false), Ok)?;
    let network = Pair::new()?;
    let terminal = Terminal::new(SIZE.0, SIZE.1)?;
    let mut command = network.server.command(&binary);
    command.args(["watch", "-i", DEVICE]);
    terminal.start(&command)?;
    terminal.await_screen(SCREEN_TIMEOUT, |screen| screen.contains("1 Overview"))?;
    let sockets = traffic(&network.path(Family::V4), Instant::now() + RUNS)?;
    draw(&terminal, "overview")?;
    terminal.key("2")?;
    terminal.key("/")?;
    terminal.line("cause:no_ack verdict:half_open")?;
    terminal.await_screen(SCREEN_TIMEOUT, |screen| screen.contains("no_ack"))?;
    terminal.key("Enter")?;
    terminal.await_screen(SCREEN_TIMEOUT, |screen| {
        screen.contains("SYN+ACK again") && screen.contains("packets: ")
    })?;
    draw(&terminal, "ladder")?;
    drop(sockets);
    terminal.key("q")
}

/// Sockets that must stay open until the pictures are taken.
type ScreenshotSockets = (Vec<Attempts>, Vec<Listener>);

/// Runs the clients of four services until `end`: every connection to the first completes, the second loses
/// ever more SYN+ACKs on their way back, the third drops SYNs and the fourth refuses connections.
fn traffic(path: &lab::Path<'_>, end: Instant) -> Result<ScreenshotSockets> {
    let web = Listener::new(path, 443, 1024)?;
    let shop = Listener::new(path, 8443, 1024)?;
    let deaf = Listener::deaf(path, 5432)?;
    let mut unreachable = UnreachableClients { sender: Sender::new(path.client, path.device)?, count: 0 };
    let mut attempts = Vec::new();
    for round in 0_u16.. {
        if Instant::now() >= end {
            break;
        }
        // The shape of a day's load, over 96 rounds.
        let wave = [9, 14, 22, 28, 31, 28, 22, 14][usize::from(round / 12 % 8)];
        tcp::connect_accept(path, &web, wave)?.close()?;
        tcp::connect_accept(path, &shop, 3)?.close()?;
        if round % 8 == 0 {
            refused(path, 22)?;
            attempts.push(Attempts::start(path, deaf.address(), 1)?);
            udp::echo(path, 1, 2, 60)?;
        }
        if round >= 200 {
            unreachable.send(path, shop.address(), 1 + round % 2)?;
        }
        thread::sleep(PAUSE);
    }
    Ok((attempts, vec![web, shop, deaf]))
}

/// Connects to a port without a listener.
fn refused(path: &lab::Path<'_>, port: u16) -> Result<()> {
    let refused = path.client.enter(|| Ok(TcpStream::connect(path.server_at(port)).is_err()))?;
    ensure!(refused, "port {port} does not refuse connections");
    Ok(())
}

/// Clients whose SYNs arrive and whom no answer reaches.
struct UnreachableClients {
    sender: Sender,
    count: u16,
}

impl UnreachableClients {
    /// Sends `count` more SYNs, each from a client of its own.
    fn send(&mut self, path: &lab::Path<'_>, to: SocketAddr, count: u16) -> Result<()> {
        let unassigned = path.unassigned.context("a topology with unassigned addresses")?;
        for _ in 0..count {
            self.count += 1;
            let source = SocketAddr::new(unassigned, 40_000 + self.count);
            // Sequence numbers that look random: 2³² divided by the golden ratio, times the count.
            let seq = u32::from(self.count).wrapping_mul(2_654_435_769);
            let syn = BuiltSegment { source, destination: to, seq, ack: 0, flags: flag::SYN, payload: b"" };
            self.sender.send(&tcp_frame(path.macs, &syn)?)?;
        }
        Ok(())
    }
}

/// Writes the terminal's content to `docs/NAME.svg`.
fn draw(terminal: &Terminal, name: &str) -> Result<()> {
    let file = shell::root().join(Path::new("docs").join(name).with_extension("svg"));
    let picture = svg::draw(&terminal.coloured_screen()?, SIZE);
    fs::write(&file, picture).with_context(|| format!("write {}", file.display()))?;
    println!("{}", file.display());
    Ok(())
}
