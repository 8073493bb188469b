//! Errors of the command: one line on stderr that names the fix, nothing on stdout, and the right exit code.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use handshake_lab::agent::{AgentOutcome, run_to_end};
use handshake_lab::bpf::{self, Program, TestHook};
use handshake_lab::topology::DEVICE;
use handshake_lab::{process, skip_unless_privileged, skip_without_tool};

use crate::HANDSHAKE;
use crate::network::{loopback, scratch, segment};

/// What the command says before it loads.
pub(crate) const LOADING: &str = "handshake: loading into the kernel…";
const LIMIT: Duration = Duration::from_secs(30);

/// Runs the command without a network of its own.
pub(crate) fn run(words: &[&str]) -> Result<AgentOutcome> {
    let output = process::output(Command::new(HANDSHAKE).args(words))?;
    let text = |bytes| String::from_utf8(bytes).context("not UTF-8");
    Ok(AgentOutcome { status: output.status, stdout: text(output.stdout)?, stderr: text(output.stderr)? })
}

pub(crate) fn check_error(outcome: &AgentOutcome, code: i32, parts: &[&str]) -> Result<()> {
    ensure!(outcome.status.code() == Some(code), "not {code}: {outcome:?}");
    let said = outcome.stderr.lines().filter(|line| *line != LOADING).count();
    ensure!(outcome.stdout.is_empty() && said == 1, "not one line: {outcome:?}");
    ensure!(outcome.stderr.starts_with("handshake: "), "{outcome:?}");
    for part in parts {
        ensure!(outcome.stderr.contains(part), "no {part:?} in {outcome:?}");
    }
    Ok(())
}

/// Errors before anything is attached; needs no privileges.
#[test]
fn usage_and_input_errors_are_one_line() -> Result<()> {
    let text = Scratch::new("text.txt", b"This is not a capture, but long enough to be tested as one.")?;
    let empty = Scratch::new("empty.pcap", b"")?;
    let rows: [(&[&str], &[&str]); 13] = [
        (&["watch", "--nonsense"], &["--nonsense", "'handshake watch --help'"]),
        (&["--nonsense"], &["--nonsense", "'handshake --help'"]),
        (&["watch", "--intervall", "1s"], &["--intervall", "did you mean '--interval'?"]),
        (&["wathc"], &["wathc", "did you mean 'watch'?"]),
        (&["watch", "--hook", "xdp"], &["xdp", "--hook"]),
        (&["watch", "--port", "70000"], &["70000", "--port"]),
        (&["watch", "--net", "10.0.0.0/33"], &["10.0.0.0/33", "--net"]),
        (&["watch", "--interval", "5"], &["--interval", "unit"]),
        (
            &["watch", "--half-open-after", "2s", "--expire-after", "1s"],
            &["--expire-after", "--half-open-after"],
        ),
        (&["replay"], &["FILE"]),
        (&["replay", "/nonexistent/a.pcap"], &["/nonexistent/a.pcap"]),
        (&["replay", text.path()], &[text.path()]),
        (&["replay", empty.path()], &[empty.path()]),
    ];
    for (words, parts) in rows {
        check_error(&run(words)?, 2, parts)?;
    }
    Ok(())
}

/// A value of a variable is told with its variable; a misspelt variable is told, and no other.
#[test]
fn variables_are_named() -> Result<()> {
    let of = |variables: &[(&str, &str)], words: &[&str]| -> Result<(Option<i32>, String)> {
        let output = Command::new(HANDSHAKE).args(words).envs(variables.iter().copied()).output()?;
        Ok((output.status.code(), String::from_utf8(output.stderr)?))
    };
    let (code, said) = of(&[("HANDSHAKE_HALF_OPEN_AFTER", "5")], &["why"])?;
    ensure!(
        code == Some(2) && said.starts_with("handshake: HANDSHAKE_HALF_OPEN_AFTER: invalid value '5'"),
        "{said}"
    );
    let (code, said) = of(&[("HANDSHAKE_EXPIRE_AFTER", "1s")], &["replay", "/nonexistent/a.pcap"])?;
    ensure!(
        code == Some(2) && said.starts_with("handshake: HANDSHAKE_EXPIRE_AFTER: --expire-after"),
        "{said}"
    );
    let misspelt = [("HANDSHAKE_EXPIREAFTER", "1s"), ("HANDSHAKE_SEED", "1")];
    let (code, said) = of(&misspelt, &["replay", "/nonexistent/a.pcap"])?;
    let wanted = "handshake: no option reads HANDSHAKE_EXPIREAFTER; did you mean HANDSHAKE_EXPIRE_AFTER?\n";
    ensure!(code == Some(2) && said.starts_with(wanted) && said.lines().count() == 2, "{said}");
    let (code, said) = of(&misspelt, &["serve", "--check-config"])?;
    ensure!(code == Some(0) && said.starts_with(wanted) && said.lines().count() == 2, "{said}");
    Ok(())
}

/// An unknown interface with a name similar to an existing one.
#[test]
fn an_unknown_interface_suggests_existing_ones() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let network = segment()?;
    for words in [&["watch", "-i", "eth9"][..], &["-i", "eth9"]] {
        let outcome = run_to_end(network.host(), HANDSHAKE, words, LIMIT)?;
        check_error(&outcome, 4, &["eth9", "there are: eth0"])?;
    }
    Ok(())
}

/// Without a default route there is no default interface.
#[test]
fn no_default_route_asks_for_a_name() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let network = loopback()?;
    check_error(&run_to_end(network.host(), HANDSHAKE, &[], LIMIT)?, 4, &["-i", "lo"])
}

/// Without capabilities, and without some of them.
#[test]
fn missing_privileges_are_named_with_the_fix() -> Result<()> {
    if skip_unless_privileged() || skip_without_tool("setpriv") {
        return Ok(());
    }
    let network = loopback()?;
    let rows = [("-all", "CAP_BPF"), ("-net_admin,-sys_admin", "CAP_NET_ADMIN")];
    for (drop, named) in rows {
        let (bounding, inheritable) = (format!("--bounding-set={drop}"), format!("--inh-caps={drop}"));
        let words = [&bounding, &inheritable, "--", HANDSHAKE, "watch", "-i", "lo"];
        let outcome = run_to_end(network.host(), "setpriv", &words, LIMIT)?;
        check_error(&outcome, 5, &[named, "sudo"])?;
    }
    Ok(())
}

/// A hook that a foreign program holds: an error if the hook was requested by name; otherwise another hook
/// and a message.
#[test]
fn a_taken_hook_is_reported() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    for held in [TestHook::XdpNative, TestHook::XdpGeneric] {
        let network = segment()?;
        let theirs =
            bpf::attach(network.host(), DEVICE, held, &Program::returning(bpf::RunOutcome::XdpPass))?;
        for hook in ["xdp-native", "xdp-generic"] {
            let words = ["watch", "-i", DEVICE, "--hook", hook];
            let outcome = run_to_end(network.host(), HANDSHAKE, &words, LIMIT)?;
            check_error(&outcome, 4, &[hook, "is taken by", "foreign", "--hook tcx"])?;
        }
        let mut agent = network.watch(&["-v"])?;
        let said = agent.stderr().to_owned();
        ensure!(said.contains("attached eth0: ingress tcx, egress tcx"), "{said}");
        ensure!(said.contains("its XDP hook is taken") && said.contains("foreign"), "{said}");
        let report = agent.stop()?.report()?;
        let before = report["source"]["interfaces"][0]["before"][0].as_str().unwrap_or_default();
        ensure!(before.contains("foreign"), "{report}");
        ensure!(
            bpf::xdp(network.host(), DEVICE)?.map(|(id, _)| id) == Some(theirs.id),
            "the foreign program is gone"
        );
    }
    Ok(())
}

/// A driver without native XDP.
#[test]
fn an_unsupported_hook_is_reported() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let network = loopback()?;
    let words = ["watch", "-i", "lo", "--hook", "xdp-native"];
    let outcome = run_to_end(network.host(), HANDSHAKE, &words, LIMIT)?;
    check_error(&outcome, 4, &["lo: xdp-native", "--hook"])
}

/// A temporary file; removed on drop.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new(name: &str, bytes: &[u8]) -> Result<Self> {
        let path = scratch(name);
        fs::write(&path, bytes).with_context(|| format!("write {}", path.display()))?;
        Ok(Self(path))
    }

    pub(crate) fn path(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
