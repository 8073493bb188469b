//! What a running command keeps of the privileges that it was started with, read from the kernel.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use handshake_lab::agent::Agent;
use handshake_lab::tcp::{self, Listener};
use handshake_lab::terminal::Terminal;
use handshake_lab::topology::DEVICE;
use handshake_lab::{Family, Namespace, churn, skip_unless_privileged, skip_without_tool};

use crate::HANDSHAKE;
use crate::error::Scratch;
use crate::network::{TIMEOUT, segment};

const NONE: u64 = 0;
const NET_ADMIN: u64 = 1 << 12;
/// A user without an entry anywhere.
const USER: u32 = 4242;
pub(crate) const NOBODY: u32 = 65_534;

/// A task of a process, by the lines of its status.
#[derive(Debug)]
struct Task {
    status: String,
}

impl Task {
    fn field(&self, name: &str) -> Result<&str> {
        let line = self.status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map(str::trim).with_context(|| format!("no {name} in {}", self.status))
    }

    fn capabilities(&self, set: &str) -> Result<u64> {
        Ok(u64::from_str_radix(self.field(set)?, 16)?)
    }

    /// All four user or group IDs.
    fn is(&self, ids: &str, id: u32) -> Result<bool> {
        Ok(self.field(ids)?.split_whitespace().all(|each| each == id.to_string()))
    }
}

fn tasks(process: u32) -> Result<Vec<Task>> {
    let folder = format!("/proc/{process}/task");
    let mut tasks = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("list {folder}"))? {
        tasks.push(Task { status: fs::read_to_string(entry?.path().join("status"))? });
    }
    Ok(tasks)
}

/// Each thread is this user's, is permitted `permitted` at most and cannot get more.
pub(crate) fn ensure_confined(process: u32, user: u32, permitted: u64, by_root: bool) -> Result<()> {
    let tasks = tasks(process)?;
    ensure!(!tasks.is_empty());
    for task in &tasks {
        ensure!(task.is("Uid", user)? && task.is("Gid", user)?, "{task:?}");
        ensure!(task.capabilities("CapPrm")? & !permitted == NONE, "{task:?}");
        ensure!(task.capabilities("CapEff")? & !permitted == NONE, "{task:?}");
        for set in ["CapInh", "CapAmb"] {
            ensure!(task.capabilities(set)? == NONE, "{set}: {task:?}");
        }
        // Dropping it takes CAP_SETPCAP.
        ensure!(!by_root || task.capabilities("CapBnd")? == NONE, "{task:?}");
        ensure!(!by_root || task.field("Groups")?.is_empty(), "{task:?}");
        ensure!(task.field("NoNewPrivs")? == "1" && task.field("Seccomp")? == "2", "{task:?}");
    }
    // The main thread is the first.
    ensure!(tasks[0].capabilities("CapPrm")? == permitted, "{:?}", tasks[0]);
    Ok(())
}

/// How a command is started.
enum Starter<'a> {
    Root,
    /// By root, with the variables that sudo sets.
    Sudo,
    /// By another user, by the capabilities of this file.
    File(&'a str),
    /// By another user, with ambient capabilities, as a service manager gives them.
    Ambient(&'a str),
}

impl Starter<'_> {
    fn command(&self, host: &Namespace) -> Command {
        match self {
            Self::Root => host.command(HANDSHAKE),
            Self::Sudo => {
                let mut command = host.command(HANDSHAKE);
                command.env("SUDO_UID", USER.to_string()).env("SUDO_GID", USER.to_string());
                command
            }
            Self::File(program) => by_another_user(host, "", program),
            Self::Ambient(program) => by_another_user(host, CAPABILITIES, program),
        }
    }

    fn user(&self) -> u32 {
        if matches!(self, Self::Root) { NOBODY } else { USER }
    }

    fn is_root(&self) -> bool {
        matches!(self, Self::Root | Self::Sudo)
    }
}

/// What loading and attaching take, as setpriv(1) has it.
pub(crate) const CAPABILITIES: &str = "+bpf,+perfmon,+net_admin";

/// Another user's command, with these ambient capabilities.
pub(crate) fn by_another_user(host: &Namespace, capabilities: &str, program: &str) -> Command {
    let mut command = host.command("setpriv");
    let user = USER.to_string();
    command.args(["--reuid", &user, "--regid", &user, "--clear-groups"]);
    if !capabilities.is_empty() {
        command.args(["--inh-caps", capabilities, "--ambient-caps", capabilities]);
    }
    command.args(["--", program]);
    command
}

/// A copy of the program that another user may run. Another process makes it: a program that this one has
/// open for writing, and leaves to a test's child for a moment, cannot be run (ETXTBSY).
pub(crate) fn copy(host: &Namespace) -> Result<Scratch> {
    let program = Scratch::new("handshake", b"")?;
    host.run("cp", &[HANDSHAKE, program.path()])?;
    fs::set_permissions(program.path(), fs::Permissions::from_mode(0o755))?;
    Ok(program)
}

/// However it was started, and on whatever hook: no thread of a command that has attached keeps a privilege,
/// and it still counts.
#[test]
fn a_command_that_has_attached_keeps_no_privilege() -> Result<()> {
    if skip_unless_privileged() || skip_without_tool("setpriv") || skip_without_tool("setcap") {
        return Ok(());
    }
    let network = segment()?;
    let host = network.host();
    let (plain, with_capabilities) = (copy(host)?, copy(host)?);
    host.run("setcap", &["cap_bpf,cap_perfmon,cap_net_admin+ep", with_capabilities.path()])?;
    let starters = [
        Starter::Root,
        Starter::Sudo,
        Starter::File(with_capabilities.path()),
        Starter::Ambient(plain.path()),
    ];
    let path = network.path(Family::V4);
    for starter in &starters {
        for (hook, permitted) in [("auto", NONE), ("xdp-generic", NONE), ("clsact", NET_ADMIN)] {
            let words = ["-i", DEVICE, "--hook", hook, "--max-flows", "1000"];
            let mut watch = starter.command(host);
            watch.args(["watch", "-o", "jsonl", "--interval", "50ms"]).args(words);
            let mut agent = Agent::attach(watch, 1)?;
            ensure_confined(agent.id(), starter.user(), permitted, starter.is_root())?;
            let listener = Listener::new(&path, 0, 16)?;
            tcp::connect_accept(&path, &listener, 2)?;
            let report = agent.await_report(TIMEOUT, |report| report["tcp"]["completed"] == 2)?;
            ensure!(report["exact"] == true, "{report}");
            // The threads that write have run by now.
            ensure_confined(agent.id(), starter.user(), permitted, starter.is_root())?;
            ensure!(agent.stop()?.status.success());
            let left =
                ["ingress", "egress"].map(|way| host.run("tc", &["filter", "show", "dev", DEVICE, way]));
            ensure!(left.into_iter().all(|left| left.is_ok_and(|left| left.is_empty())), "{hook}");

            if hook == "xdp-generic" {
                continue;
            }
            let mut check = starter.command(host);
            check.arg("check").args(words).args(["--allow-nothing", "--", "cat"]);
            let (agent, stdin) = Agent::attach_fed(check, 1)?;
            ensure_confined(agent.id(), starter.user(), permitted, starter.is_root())?;
            drop(stdin);
            ensure!(agent.wait(TIMEOUT)?.status.success());
        }
    }
    Ok(())
}

/// An interface that comes, goes to another namespace and comes back is attached to each time, and its
/// handshakes are judged, by a command that has given up its privileges.
#[test]
fn what_comes_later_takes_no_privilege() -> Result<()> {
    if skip_unless_privileged() || skip_without_tool("setpriv") {
        return Ok(());
    }
    let (host, peer, elsewhere) = (Namespace::new()?, Namespace::new()?, Namespace::new()?);
    let plain = copy(&host)?;
    for starter in [Starter::Root, Starter::Ambient(plain.path())] {
        for (hook, permitted) in [("auto", NONE), ("xdp-generic", NONE), ("clsact", NET_ADMIN)] {
            let mut watch = starter.command(&host);
            watch.args(["watch", "-o", "jsonl", "--interval", "50ms", "--max-flows", "1000"]);
            watch.args(["-i", "hs-x*", "--hook", hook]);
            let mut agent = Agent::attach(watch, 0)?;
            agent.await_report(TIMEOUT * 6, |_| true)?;
            ensure_confined(agent.id(), starter.user(), permitted, starter.is_root())?;
            churn::make(&host, &peer, "hs-x0")?;
            for round in 1..=3 {
                agent.await_lines("attached hs-x0: ", round)?;
                let path = churn::short_path(&host, &peer);
                let listener = Listener::new(&path, 0, 16)?;
                tcp::connect_accept(&path, &listener, 2)?;
                let report = agent.await_report(TIMEOUT, |r| r["tcp"]["completed"] == 2 * round)?;
                ensure!(report["exact"] == true, "{hook}: {report}");
                host.ip(&[&format!("link set hs-x0 netns {}", elsewhere.name())])?;
                agent.await_lines("hs-x0 is gone", round)?;
                elsewhere.ip(&[&format!("link set hs-x0 netns {}", host.name())])?;
                host.ip(&["addr add 10.99.0.2/24 dev hs-x0", "link set hs-x0 up"])?;
            }
            agent.await_lines("attached hs-x0: ", 4)?;
            ensure_confined(agent.id(), starter.user(), permitted, starter.is_root())?;
            ensure!(agent.stop()?.status.success());
            host.ip(&["link del hs-x0"])?;
        }
    }
    Ok(())
}

/// The helper that reads the firewall's counters keeps what that takes, and no more.
#[test]
fn the_helper_of_why_keeps_one_capability() -> Result<()> {
    if skip_unless_privileged() || skip_without_tool("setpriv") || skip_without_tool("setcap") {
        return Ok(());
    }
    let network = segment()?;
    let host = network.host();
    let program = copy(host)?;
    host.run("setcap", &["cap_bpf,cap_perfmon,cap_net_admin+ep", program.path()])?;
    for starter in [Starter::Root, Starter::Sudo, Starter::File(program.path())] {
        let mut why = starter.command(host);
        why.args(["why", "-i", DEVICE, "--max-flows", "1000", "-v"]);
        let agent = Agent::attach(why, 1)?;
        ensure_confined(agent.id(), starter.user(), NONE, starter.is_root())?;
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", agent.id()))?;
        let helper = children.trim().parse().with_context(|| format!("one child: {children}"))?;
        ensure_confined(helper, starter.user(), NET_ADMIN, starter.is_root())?;
        let said = agent.stop()?.stderr;
        ensure!(!said.contains("cannot be read"), "{said}");
        // It is gone, or waits to be buried.
        let deadline = Instant::now() + TIMEOUT;
        while fs::read_to_string(format!("/proc/{helper}/stat")).is_ok_and(|stat| !stat.contains(") Z ")) {
            ensure!(Instant::now() < deadline, "it ends with the other");
            sleep(Duration::from_millis(10));
        }
    }
    Ok(())
}

/// Nor does the live terminal.
#[test]
fn the_live_terminal_keeps_no_privilege() -> Result<()> {
    if skip_unless_privileged() || skip_without_tool("tmux") {
        return Ok(());
    }
    let network = segment()?;
    let terminal = Terminal::new(100, 30)?;
    let mut command = network.host().command(HANDSHAKE);
    command.args(["watch", "-i", DEVICE, "--max-flows", "1000"]);
    terminal.start(&command)?;
    terminal.await_screen(Duration::from_secs(60), |screen| screen.contains("1 Overview"))?;
    ensure_confined(terminal.foreground()?, NOBODY, NONE, true)
}

/// `-v` tells what is left, and `--keep-privileges` keeps all.
#[test]
fn privileges_are_told_and_kept_on_request() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let network = segment()?;
    let words = ["-i", DEVICE, "--max-flows", "1000"];
    let agent = Agent::start(network.host(), HANDSHAKE, &[&words[..], &["-v"]].concat())?;
    let said = agent.stop()?.stderr;
    ensure!(said.contains("left: user 65534, no capability, no_new_privs"), "{said}");

    let agent = Agent::start(network.host(), HANDSHAKE, &[&words[..], &["--keep-privileges"]].concat())?;
    for task in tasks(agent.id())? {
        ensure!(task.is("Uid", 0)? && task.capabilities("CapEff")? & NET_ADMIN != NONE, "{task:?}");
        ensure!(task.field("Seccomp")? == "0" && task.field("NoNewPrivs")? == "0", "{task:?}");
    }
    ensure!(agent.stop()?.status.success());
    Ok(())
}

/// Reading needs no privilege, whatever unprivileged users may do with bpf(2) on this machine.
#[test]
fn readings_take_no_privilege_with_any_setting_of_unprivileged_bpf() -> Result<()> {
    const SETTING: &str = "/proc/sys/kernel/unprivileged_bpf_disabled";
    if skip_unless_privileged() {
        return Ok(());
    }
    let before = fs::read_to_string(SETTING)?;
    // 1 cannot be taken back before the machine is started again.
    if before.trim() == "1" {
        return watch_one_connection();
    }
    let settings = ["0", "2"].map(|setting| {
        fs::write(SETTING, setting)?;
        watch_one_connection().with_context(|| format!("with {setting}"))
    });
    fs::write(SETTING, before)?;
    settings.into_iter().collect()
}

fn watch_one_connection() -> Result<()> {
    let network = segment()?;
    let path = network.path(Family::V4);
    let mut agent = network.watch(&[])?;
    ensure_confined(agent.id(), NOBODY, NONE, true)?;
    let listener = Listener::new(&path, 0, 16)?;
    tcp::connect_accept(&path, &listener, 1)?;
    agent.await_report(TIMEOUT, |report| report["tcp"]["completed"] == 1)?;
    ensure!(agent.stop()?.status.success());
    Ok(())
}
