//! `cargo xtask screenshot`: the pictures in the README, drawn of a real run. Two hosts in namespaces, real traffic, the
//! real command on a terminal; what the terminal shows becomes an SVG.

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

/// Columns and rows of the terminal.
const SIZE: (u16, u16) = (100, 30);
/// From one round of traffic to the next.
const PAUSE: Duration = Duration::from_millis(100);
/// How long traffic runs: what is half-open must be past `--half-open-after`, and the sparklines have grown.
const RUNS: Duration = Duration::from_secs(45);
/// For anything to come about, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Draw the README's pictures of a real run; needs tmux and privileges
#[derive(clap::Args)]
pub(crate) struct Args {
    /// handshake, built already
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
    terminal.await_screen(PATIENCE, |screen| screen.contains("1 Overview"))?;
    let kept = traffic(&network.path(Family::V4), Instant::now() + RUNS)?;
    draw(&terminal, "overview")?;
    terminal.key("2")?;
    terminal.key("/")?;
    terminal.line("cause:no_ack verdict:half_open")?;
    terminal.await_screen(PATIENCE, |screen| screen.contains("no_ack"))?;
    terminal.key("Enter")?;
    terminal
        .await_screen(PATIENCE, |screen| screen.contains("SYN+ACK again") && screen.contains("packets: "))?;
    draw(&terminal, "ladder")?;
    drop(kept);
    terminal.key("q")
}

/// What must stay open until the pictures are taken.
type Kept = (Vec<Attempts>, Vec<Listener>);

/// Clients of four services, until `end`: of one all get through, another loses ever more of them on their way back, one
/// is dead and one refuses.
fn traffic(path: &lab::Path<'_>, end: Instant) -> Result<Kept> {
    let web = Listener::new(path, 443, 1024)?;
    let shop = Listener::new(path, 8443, 1024)?;
    let deaf = Listener::deaf(path, 5432)?;
    let mut lost = Lost { sender: Sender::new(path.client, path.device)?, count: 0 };
    let mut attempts = Vec::new();
    for round in 0_u16.. {
        if Instant::now() >= end {
            break;
        }
        // Like a day's load, in half a minute.
        let wave = [9, 14, 22, 28, 31, 28, 22, 14][usize::from(round / 12 % 8)];
        tcp::connect_accept(path, &web, wave)?.close()?;
        tcp::connect_accept(path, &shop, 3)?.close()?;
        if round % 8 == 0 {
            refused(path, 22)?;
            attempts.push(Attempts::start(path, deaf.address(), 1)?);
            udp::echo(path, 1, 2, 60)?;
        }
        if round >= 200 {
            lost.send(path, shop.address(), 1 + round % 2)?;
        }
        thread::sleep(PAUSE);
    }
    Ok((attempts, vec![web, shop, deaf]))
}

/// A connection to a port that nobody listens on.
fn refused(path: &lab::Path<'_>, port: u16) -> Result<()> {
    let refused = path.client.enter(|| Ok(TcpStream::connect(path.server_at(port)).is_err()))?;
    ensure!(refused, "port {port} is not refused");
    Ok(())
}

/// Clients whose SYNs arrive, and to whom nothing finds its way back.
struct Lost {
    sender: Sender,
    count: u16,
}

impl Lost {
    /// So many more SYNs, each of a client of its own.
    fn send(&mut self, path: &lab::Path<'_>, to: SocketAddr, count: u16) -> Result<()> {
        let unassigned = path.unassigned.context("addresses that nobody has")?;
        for _ in 0..count {
            self.count += 1;
            let source = SocketAddr::new(unassigned, 40_000 + self.count);
            // Numbers that look like any: 2³² divided by the golden ratio, times a count.
            let seq = u32::from(self.count).wrapping_mul(2_654_435_769);
            let syn = BuiltSegment { source, destination: to, seq, ack: 0, flags: flag::SYN, payload: b"" };
            self.sender.send(&tcp_frame(path.macs, &syn)?)?;
        }
        Ok(())
    }
}

/// Writes what the terminal shows to `docs/NAME.svg`.
fn draw(terminal: &Terminal, name: &str) -> Result<()> {
    let file = shell::root().join(Path::new("docs").join(name).with_extension("svg"));
    let picture = svg::draw(&terminal.coloured_screen()?, SIZE);
    fs::write(&file, picture).with_context(|| format!("write {}", file.display()))?;
    println!("{}", file.display());
    Ok(())
}
