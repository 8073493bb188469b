//! `--process`: the process that made each end's socket.

use std::collections::HashSet;
use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use handshake_lab::agent::Agent;
use handshake_lab::process;
use handshake_lab::tcp::{self, Attempts, Listener};
use handshake_lab::topology::DEVICE;
use handshake_lab::{FAMILIES, Family, Path, skip_unless_privileged, skip_without_tool};
use serde_json::Value;

use crate::network::{TIMEOUT, segment};
use crate::privilege::{CAPABILITIES, by_another_user, copy};

/// Every attempt has its row; the reports are far apart.
const ROWS: [&str; 7] = ["--process", "--events", "all", "--interval", "200s", "--half-open-after", "300ms"];

/// Connects `COUNT` times, each time from a process of its own that has a name of its own and ends at once: its
/// number and its port are printed.
const SHORT: &str = r"
import os, socket, sys
address, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
family = socket.AF_INET6 if ':' in address else socket.AF_INET
running = 0
for _ in range(count):
    if running == 4:
        os.wait()
        running -= 1
    running += 1
    if os.fork() == 0:
        with open('/proc/self/comm', 'w') as name:
            name.write(f's {os.getpid()}')
        one = socket.socket(family, socket.SOCK_STREAM)
        one.connect((address, port))
        os.write(1, f'{os.getpid()} {one.getsockname()[1]}\n'.encode())
        os._exit(0)
while running:
    os.wait()
    running -= 1
";

fn pid(flow: &Value, end: &str) -> Option<u64> {
    flow[end]["owner"]["pid"].as_u64()
}

fn is_at(flow: &Value, end: &str, at: SocketAddr) -> bool {
    flow[end]["port"] == at.port() && flow[end]["address"] == at.ip().to_string()
}

/// The rows of this event of an end at this address, each with the processes of both ends.
fn rows(flows: &[Value], event: &str, end: &str, at: SocketAddr) -> Vec<[Option<u64>; 2]> {
    let rows = flows.iter().filter(|flow| flow["event"] == event && is_at(flow, end, at));
    rows.map(|flow| ["initiator", "responder"].map(|end| pid(flow, end))).collect()
}

fn ended(flows: &[Value], end: &str, at: SocketAddr) -> Vec<[Option<u64>; 2]> {
    rows(flows, "ended", end, at)
}

fn await_rows(agent: &mut Agent, event: &str, count: usize) -> Result<()> {
    for _ in 0..count {
        agent.await_flow(TIMEOUT, |flow| flow["event"] == event)?;
    }
    Ok(())
}

#[test]
fn each_end_has_the_process_of_its_socket() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let ours = Some(u64::from(std::process::id()));
    for family in FAMILIES {
        let network = segment()?;
        let path = network.path(family);
        // One listener is older than the agent.
        let old = Listener::new(&path, 0, 16)?;
        let mut agent = network.watch(&ROWS)?;
        let new = Listener::new(&path, 0, 16)?;
        let deaf = Listener::deaf(&path, 0)?;
        let accepted = [&old, &new].map(|listener| tcp::connect_accept(&path, listener, 3));
        let refused = tcp::refused(&path, 2)?;
        let lost = Attempts::start(&path, deaf.address(), 2)?;
        // No socket has sent these SYNs, and the kernel resets their SYN+ACKs.
        let scanned = tcp::syn_scan(&path, new.address(), 2)?;
        await_rows(&mut agent, "ended", 3 + 3 + 2 + 2)?;
        await_rows(&mut agent, "half_open", 2)?;
        let flows = agent.stop()?.flows()?;

        ensure!(ended(&flows, "responder", old.address()) == [[ours; 2]; 3], "{flows:?}");
        ensure!(ended(&flows, "responder", refused) == [[ours, None]; 2], "{flows:?}");
        ensure!(rows(&flows, "half_open", "responder", deaf.address()) == [[ours, None]; 2], "{flows:?}");
        for connections in accepted {
            for client in connections?.initiators()? {
                ensure!(ended(&flows, "initiator", client) == [[ours; 2]], "{client}: {flows:?}");
            }
        }
        for client in scanned {
            ensure!(ended(&flows, "initiator", client) == [[None, ours]], "{client}: {flows:?}");
        }
        drop(lost);
    }
    Ok(())
}

/// What was there before is named by CAP_SYS_PTRACE alone, which another user's service has; without it the text on
/// stderr says what is not known.
#[test]
fn one_capability_names_what_was_there_before() -> Result<()> {
    if skip_unless_privileged() || skip_without_tool("setpriv") {
        return Ok(());
    }
    let network = segment()?;
    let (host, path) = (network.host(), network.path(Family::V4));
    let program = copy(host)?;
    let ours = Some(u64::from(std::process::id()));
    for (more, named) in [(",+sys_ptrace", ours), ("", None)] {
        let listener = Listener::new(&path, 0, 16)?;
        let mut command = by_another_user(host, &format!("{CAPABILITIES}{more}"), program.path());
        command.args(["watch", "-i", DEVICE, "-o", "jsonl"]).args(ROWS);
        let mut agent = Agent::attach(command, 1)?;
        let _accepted = tcp::connect_accept(&path, &listener, 3)?;
        await_rows(&mut agent, "ended", 3)?;
        let outcome = agent.stop()?;
        let flows = outcome.flows()?;
        ensure!(ended(&flows, "responder", listener.address()) == [[ours, named]; 3], "{more}: {flows:?}");
        let is_told = outcome.stderr.contains("have no name: that takes CAP_SYS_PTRACE");
        ensure!(named.is_some() || is_told, "{}", outcome.stderr);
    }
    Ok(())
}

/// A half-open attempt, whose SYN came from an address that no one has.
#[test]
fn a_half_open_attempt_has_the_process_of_its_listener() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let network = segment()?;
    let path = network.path(Family::V4);
    let mut agent = network.watch(&ROWS)?;
    let listener = Listener::new(&path, 0, 16)?;
    let sources = tcp::syn_without_ack(&path, listener.address(), 3)?;
    for _ in &sources {
        let flow = agent.await_flow(TIMEOUT, |flow| flow["event"] == "half_open")?;
        let ends = ["initiator", "responder"].map(|end| pid(&flow, end));
        ensure!(ends == [None, Some(u64::from(std::process::id()))], "{flow}");
    }
    agent.stop()?;
    Ok(())
}

/// Without the option no process is named.
#[test]
fn no_process_is_named_without_being_asked_for() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let network = segment()?;
    let path = network.path(Family::V4);
    let mut agent = network.watch(&ROWS[1..])?;
    let listener = Listener::new(&path, 0, 16)?;
    let _accepted = tcp::connect_accept(&path, &listener, 3)?;
    await_rows(&mut agent, "ended", 3)?;
    let flows = agent.stop()?.flows()?;
    ensure!(ended(&flows, "responder", listener.address()) == [[None; 2]; 3], "{flows:?}");
    Ok(())
}

/// Sockets for which the kernel has no memory to note their maker are made all the same; so are those of other
/// kinds.
#[test]
fn no_socket_is_ever_refused() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let network = segment()?;
    let path = network.path(Family::V4);
    let mut agent = network.watch(&ROWS)?;
    for memory in ["131072", "0"] {
        path.client.sysctl("net.core.optmem_max", memory)?;
        let listener = Listener::new(&path, 0, 16)?;
        let accepted = tcp::connect_accept(&path, &listener, 3)?;
        await_rows(&mut agent, "ended", 3)?;
        make_one_of_each_kind(&path)?;
        drop(accepted);
    }
    let flows = agent.stop()?.flows()?;
    let named = flows.iter().filter(|flow| flow["event"] == "ended").map(|flow| pid(flow, "initiator"));
    let ours = Some(u64::from(std::process::id()));
    let named: Vec<Option<u64>> = named.collect();
    ensure!(named == [ours, ours, ours, None, None, None], "{named:?}");
    Ok(())
}

fn make_one_of_each_kind(path: &Path<'_>) -> Result<()> {
    use rustix::net::{AddressFamily, SocketType, ipproto, socket};
    path.client.enter(|| {
        for family in [AddressFamily::INET, AddressFamily::INET6] {
            for (kind, protocol) in [
                (SocketType::STREAM, ipproto::TCP),
                (SocketType::STREAM, ipproto::MPTCP),
                (SocketType::DGRAM, ipproto::UDP),
                (SocketType::RAW, ipproto::TCP),
            ] {
                let made = socket(family, kind, Some(protocol));
                made.with_context(|| format!("a socket of {family:?}, {kind:?}, {protocol:?}"))?;
            }
        }
        Ok(())
    })
}

/// Of processes that end at once at least 99 % are named, and none wrongly.
#[test]
fn processes_that_end_at_once_are_named() -> Result<()> {
    const COUNT: usize = 10_000;
    if skip_unless_privileged() || skip_without_tool("python3") {
        return Ok(());
    }
    let network = segment()?;
    let path = network.path(Family::V4);
    let mut agent = network.watch(&ROWS)?;
    let listener = Listener::new(&path, 0, 1_024)?;
    let at = listener.address();
    let made = made_by(&path, at, COUNT, &listener)?;
    await_rows(&mut agent, "ended", COUNT * 99 / 100)?;
    let outcome = agent.stop()?;
    let (flows, report) = (outcome.flows()?, outcome.report()?);
    let ended = flows.iter().filter(|flow| flow["event"] == "ended" && is_at(flow, "responder", at));
    // On a busy machine a CPU may be away for longer than another waits for its record: such an attempt has no
    // row, and the report says so.
    let untracked = report["tcp"]["untracked"].as_u64().context("a count")?;
    let accounted = ended.clone().count() as u64 + untracked;
    ensure!(accounted == COUNT as u64, "{accounted} attempts, {untracked} of them untracked: {report}");

    let (mut made, mut named) = (made, 0);
    for flow in ended {
        let owner = &flow["initiator"]["owner"];
        let Some(pid) = owner["pid"].as_u64() else { continue };
        let port = flow["initiator"]["port"].as_u64().context("a port")?;
        // Once each: where a port was used again, the process before is wrong.
        ensure!(made.remove(&(pid, port)), "port {port} is not of {pid}: {flow}");
        ensure!(owner["comm"] == format!("s {pid}"), "{flow}");
        named += 1;
    }
    ensure!(named * 100 >= COUNT * 99 && named <= COUNT, "{named} of {COUNT} are named");
    Ok(())
}

/// Has so many processes connect, and accepts them. Returns each with its port.
fn made_by(
    path: &Path<'_>,
    to: SocketAddr,
    count: usize,
    listener: &Listener,
) -> Result<HashSet<(u64, u64)>> {
    let mut command = path.client.command("python3");
    command.args(["-c", SHORT, &to.ip().to_string(), &to.port().to_string(), &count.to_string()]);
    let printed = std::thread::scope(|scope| {
        let running = scope.spawn(|| process::output(&mut command));
        for _ in 0..count {
            drop(listener.accept()?);
        }
        running.join().map_err(|_| anyhow::anyhow!("the thread panicked"))?
    })?;
    ensure!(printed.status.success(), "{printed:?}");
    let text = String::from_utf8(printed.stdout)?;
    let numbers = |line: &str| {
        let (pid, port) = line.split_once(' ')?;
        Some((pid.parse().ok()?, port.parse().ok()?))
    };
    let made: HashSet<(u64, u64)> = text.lines().filter_map(numbers).collect();
    ensure!(made.len() == count, "{} of {count} processes", made.len());
    Ok(made)
}
