//! Tests that a report says so when its hooks no longer see the packets: within two intervals, with the
//! reason, and `check` cannot pass. What can be attached again is, and counts.

use std::any::Any;
use std::cell::Cell;
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use handshake_lab::agent::Agent;
use handshake_lab::bpf::{self, Program, RunOutcome, TestHook};
use handshake_lab::tcp::{self, Connections, Listener};
use handshake_lab::topology::DEVICE;
use handshake_lab::{FAMILIES, Family, skip_unless_privileged, skip_without_tool};
use serde_json::Value;

use crate::check::{Check, OBEDIENT, ensure_code, expected};
use crate::network::{Network, TIMEOUT, router, segment};

/// Longer than the default of these tests, so that a report is late by no more than the machine is.
const INTERVAL: [&str; 2] = ["--interval", "200ms"];

/// What happens to an agent's hooks on the server's `eth0`. What it returns is held until the test ends.
type Disturbance = fn(&Network) -> Result<Box<dyn Any>>;

/// A row of the table: what happens, and what the reports say of it.
struct Row {
    arguments: &'static [&'static str],
    happens: Disturbance,
    reason: &'static str,
    /// A part of the reason's sentence.
    sentence: &'static str,
    /// Whether what comes after it is counted.
    is_mended: bool,
}

const TCX_DETACHED: Row = Row {
    arguments: &[],
    happens: detach,
    reason: "hook_lost",
    sentence: "eth0: the ingress hook (tcx) was lost, and is attached again",
    is_mended: true,
};

const XDP_DETACHED: Row = Row {
    arguments: &["--hook", "xdp-native"],
    sentence: "eth0: the ingress hook (xdp-native) was lost, and is attached again",
    ..TCX_DETACHED
};

const XDP_TAKEN: Row = Row {
    arguments: &["--hook", "xdp-native"],
    happens: |network| {
        detach(network)?;
        hold(bpf::attach(network.host(), DEVICE, TestHook::XdpNative, &passes(RunOutcome::XdpPass)))
    },
    reason: "hook_lost",
    sentence: "eth0: the ingress hook (xdp-native) is lost, and attaching again is refused",
    is_mended: false,
};

const QDISC_DELETED: Row = Row {
    arguments: &["--hook", "clsact"],
    happens: |network| hold(network.host().run("tc", &["qdisc", "del", "dev", DEVICE, "clsact"])),
    sentence: "eth0: the ingress hook (clsact) was lost, and is attached again",
    ..TCX_DETACHED
};

const FILTER_BEFORE: Row = Row {
    arguments: &["--hook", "clsact"],
    happens: |network| {
        // Classic BPF that takes every packet, in the priority that ours has: the kernel puts it first.
        let filter = "filter add dev eth0 ingress prio 1 protocol all bpf bytecode";
        let words: Vec<&str> = filter.split(' ').chain(["1,6 0 0 4294967295,"]).collect();
        hold(network.host().run("tc", &words))
    },
    sentence: "eth0: the ingress hook (clsact) was behind a filter of kind bpf, and is first again",
    ..TCX_DETACHED
};

const TCX_BEFORE_CLSACT: Row = Row {
    arguments: &["--hook", "clsact"],
    happens: before_on_tcx,
    sentence: "eth0: the ingress hook (clsact) is behind ",
    is_mended: false,
    ..TCX_DETACHED
};

const TCX_BEFORE: Row =
    Row { arguments: &[], happens: before_on_tcx, sentence: "and is first again", ..TCX_DETACHED };

const XDP_BEFORE: Row = Row {
    arguments: &[],
    happens: |network| {
        let program = passes(RunOutcome::XdpPass).with_frags();
        hold(bpf::attach(network.host(), DEVICE, TestHook::XdpGeneric, &program))
    },
    sentence: "on XDP (generic), which may keep packets from it",
    ..TCX_DETACHED
};

const MADE_AGAIN: Row = Row {
    arguments: &[],
    happens: |network| {
        let Network::Segment(pair) = network else { unreachable!("it is a segment") };
        hold(pair.make_again())
    },
    ..TCX_DETACHED
};

const MADE_AGAIN_BY_CLSACT: Row = Row {
    arguments: &["--hook", "clsact"],
    sentence: "eth0: the ingress hook (clsact) was lost, and is attached again",
    ..MADE_AGAIN
};

const DOWN: Row = Row {
    arguments: &[],
    happens: |network| hold(network.host().ip(&[&format!("link set {DEVICE} down")])),
    reason: "interface_down",
    sentence: "eth0 is down",
    is_mended: false,
};

fn hold<T: 'static>(done: Result<T>) -> Result<Box<dyn Any>> {
    Ok(Box::new(done?))
}

fn passes(outcome: RunOutcome) -> Program {
    Program::returning(outcome)
}

fn before_on_tcx(network: &Network) -> Result<Box<dyn Any>> {
    let program = passes(RunOutcome::EndsChain);
    hold(bpf::attach_first(network.host(), DEVICE, TestHook::TcxIngress, &program))
}

/// Takes the agent's programs off all hooks of the server.
pub(crate) fn detach(network: &Network) -> Result<Box<dyn Any>> {
    let host = network.host();
    for hook in [TestHook::TcxIngress, TestHook::TcxEgress] {
        bpf::chain(host, DEVICE, hook)?.into_iter().try_for_each(bpf::detach)?;
    }
    bpf::xdp(host, DEVICE)?.map_or(Ok(()), |(id, _)| bpf::detach(id))?;
    Ok(Box::new(()))
}

fn connect(network: &Network, listener: &Listener, count: usize) -> Result<Connections> {
    tcp::connect_accept(&network.path(Family::V4), listener, count)
}

fn reason<'a>(report: &'a Value, name: &str) -> Option<&'a Value> {
    report["inexact"].as_array()?.iter().find(|each| each["reason"] == name)
}

/// A time of a report.
fn time(value: &Value) -> Result<SystemTime> {
    Ok(humantime::parse_rfc3339(value.as_str().with_context(|| format!("no time: {value}"))?)?)
}

impl Row {
    fn play(&self) -> Result<()> {
        if skip_unless_privileged() {
            return Ok(());
        }
        self.watch().context("watch")?;
        self.check().context("check")
    }

    fn watch(&self) -> Result<()> {
        let network = segment()?;
        let listener = Listener::new(&network.path(Family::V4), 0, 16)?;
        let mut agent = network.watch(&[&INTERVAL[..], self.arguments].concat())?;
        let _open = connect(&network, &listener, 5)?;
        agent.await_report(TIMEOUT, |report| report["tcp"]["completed"] == 5 && report["exact"] == true)?;
        let _held = (self.happens)(&network)?;
        let happened = SystemTime::now();
        // One report may have been on its way.
        let reports = Cell::new(0);
        let report = agent.await_report(TIMEOUT, |report| {
            reports.set(reports.get() + 1);
            report["exact"] == false
        })?;
        ensure!(reports.get() <= 3, "inexact after {} reports: {report}", reports.get());
        let found = reason(&report, self.reason).with_context(|| report.to_string())?;
        let is_said = |report: &Value| {
            let sentence = reason(report, self.reason).and_then(|found| found["sentence"].as_str());
            sentence.is_some_and(|sentence| sentence.contains(self.sentence))
        };
        // Where it takes several steps, a look may come between them.
        let at_once = is_said(&report);
        if !at_once {
            agent.await_report(TIMEOUT, is_said)?;
        }
        // Nothing that it hid came before `first`, when all was well.
        let (first, last) = (time(&found["first"])?, time(&found["last"])?);
        ensure!(
            time(&report["from"])? <= first && first <= happened && first < last,
            "{happened:?}: {found}"
        );
        ensure!(report["interval"]["exact"] == false, "{report}");
        if self.is_mended {
            self.goes_on(&network, &listener, &mut agent)?;
        }
        let later = agent.await_report(TIMEOUT, |_| true)?;
        let count = reason(&later, self.reason).map(|found| found["count"].clone()).unwrap_or_default();
        let last = agent.stop()?.report()?;
        let found = reason(&last, self.reason).with_context(|| last.to_string())?;
        let is_same = found["count"] == count;
        ensure!(last["exact"] == false && (!at_once || self.is_mended == is_same), "{last}");
        Ok(())
    }

    /// What comes after it was mended is counted, and the intervals are exact again.
    fn goes_on(&self, network: &Network, listener: &Listener, agent: &mut Agent) -> Result<()> {
        // A look may have found one of two hooks lost, and the next one the other.
        agent.await_report(TIMEOUT, |report| report["interval"]["exact"] == true)?;
        let _open = connect(network, listener, 5)?;
        let report = agent.await_report(TIMEOUT, |report| report["tcp"]["completed"] == 10)?;
        ensure!(report["tcp"]["attempts"] == 10 && report["tcp"]["orphan_syn_ack"] == 0, "{report}");
        agent.await_report(TIMEOUT, |report| report["interval"]["exact"] == true)?;
        Ok(())
    }

    /// Expectations that would be met cannot be.
    fn check(&self) -> Result<()> {
        let network = segment()?;
        let listener = Listener::new(&network.path(Family::V4), 0, 16)?;
        let hook: Vec<&str> = self.arguments.to_vec();
        let words = [&hook[..], &expected(&["completed == 5", "refused == 0"])].concat();
        let check = Check::start(&network, &words, OBEDIENT)?;
        let _open = connect(&network, &listener, 5)?;
        let _held = (self.happens)(&network)?;
        let outcome = check.finish()?;
        ensure_code(&outcome, 3, &["INCONCLUSIVE completed == 5: 5, but data was lost", self.reason])
    }
}

#[test]
fn detached_from_tcx() -> Result<()> {
    TCX_DETACHED.play()
}

#[test]
fn detached_from_native_xdp() -> Result<()> {
    XDP_DETACHED.play()
}

#[test]
fn native_xdp_taken_by_another_program() -> Result<()> {
    XDP_TAKEN.play()
}

#[test]
fn the_clsact_qdisc_is_deleted() -> Result<()> {
    QDISC_DELETED.play()
}

#[test]
fn a_filter_comes_before_ours() -> Result<()> {
    if skip_without_tool("tc") { Ok(()) } else { FILTER_BEFORE.play() }
}

#[test]
fn a_tcx_program_comes_before_our_filter() -> Result<()> {
    TCX_BEFORE_CLSACT.play()
}

#[test]
fn a_tcx_program_that_ends_the_chain_comes_before_ours() -> Result<()> {
    TCX_BEFORE.play()
}

/// The kernel then copies frames, and those that TC sees begin at the IP header: they are read from there.
#[test]
fn a_generic_xdp_program_comes_before_ours() -> Result<()> {
    XDP_BEFORE.play()
}

#[test]
fn the_interface_is_made_again_with_the_same_index() -> Result<()> {
    MADE_AGAIN.play()?;
    MADE_AGAIN_BY_CLSACT.play()
}

#[test]
fn the_interface_is_down() -> Result<()> {
    DOWN.play()
}

/// A second agent passes every packet on: the first one stays exact, and reads frames that have lost their
/// link header as well.
#[test]
fn a_second_agent_takes_nothing_from_the_first() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let network = segment()?;
    for second in ["tcx", "clsact", "xdp-generic", "xdp-native"] {
        let first = if second == "clsact" { "clsact" } else { "tcx" };
        let agents = [network.watch(&["--hook", first])?, network.watch(&["--hook", second])?];
        let mut open = Vec::new();
        for family in FAMILIES {
            let path = network.path(family);
            open.push(tcp::connect_accept(&path, &Listener::new(&path, 0, 16)?, 4)?);
        }
        for agent in agents {
            let report = agent.stop()?.report()?;
            ensure!(report["exact"] == true && report["tcp"]["completed"] == 8, "{second}: {report}");
        }
    }
    Ok(())
}

/// What the kernel opens while nothing of a handshake passes the hooks is in the report, and makes it no less
/// exact: it may have used another interface.
#[test]
fn connections_that_do_not_pass_the_hooks_are_counted() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let network = segment()?;
    let listener = Listener::new(&network.path(Family::V4), 0, 16)?;
    let mut agent = network.watch(&["--half-open-after", "200ms"])?;
    let unseen = |report: &Value| report["source"]["unseen_opens"].as_u64();
    let mut open = Vec::new();
    for round in 1..=2 {
        open.push(connect(&network, &listener, 3)?);
        // Until the handshakes are over by their age.
        let report = agent.await_report(TIMEOUT, |report| report["tcp"]["completed"] == 3 * round)?;
        ensure!(unseen(&report) == Some(0), "{report}");
        let since = Instant::now();
        agent.await_report(TIMEOUT, |_| since.elapsed() > Duration::from_millis(500))?;
        let _elsewhere = network.host().enter(|| {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            let address = listener.local_addr()?;
            (0..4).map(|_| Ok(TcpStream::connect(address)?)).collect::<Result<Vec<_>>>()
        })?;
        let report = agent.await_report(TIMEOUT, |report| unseen(report) == Some(4))?;
        ensure!(report["exact"] == true && report["tcp"]["attempts"] == 3 * round, "{report}");
    }
    Ok(())
}

/// One of two interfaces goes: the other is watched on, and the report says so. When the last one goes, the
/// run ends.
#[test]
fn one_of_two_interfaces_goes() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let network = router()?;
    let [first, second] = network.devices() else { unreachable!("a router has two") };
    let mut agent = network.watch(&INTERVAL)?;
    network.host().ip(&[&format!("link del {second}")])?;
    let report = agent.await_report(TIMEOUT, |report| report["exact"] == false)?;
    let found = reason(&report, "hook_lost").with_context(|| report.to_string())?;
    ensure!(
        found["sentence"].as_str().is_some_and(|text| text.contains(&format!("{second} is gone"))),
        "{found}"
    );
    // More than a second, in which the loop looks for itself.
    for _ in 0..8 {
        agent.await_report(TIMEOUT, |report| report["interval"]["exact"] == false)?;
    }
    network.host().ip(&[&format!("link del {first}")])?;
    let outcome = agent.wait(TIMEOUT)?;
    ensure!(outcome.status.code() == Some(4), "{outcome:?}");
    Ok(())
}
