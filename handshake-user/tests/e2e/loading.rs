//! Loading into the kernel: signals that come meanwhile, and systems that refuse it.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use handshake_lab::process::{self, Process};
use handshake_lab::topology::DEVICE;
use handshake_lab::{Namespace, Pair, skip_unless_privileged, skip_without_tool};

use crate::HANDSHAKE;
use crate::error::LOADING;
use crate::network::TIMEOUT;

const SIGNALS: [i32; 3] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP];

fn watch(host: &Namespace) -> Command {
    let mut command = host.command(HANDSHAKE);
    command.args(["watch", "-i", DEVICE, "-o", "json", "--for", "100ms"]);
    command
}

/// Starts the command, and waits until it says that it loads.
fn start_loading(command: &mut Command) -> Result<Process> {
    let mut process = Process::start(command.stdout(Stdio::null()).stderr(Stdio::piped()))?;
    let stderr = process.child().stderr.as_mut().context("no stderr")?;
    let mut line = String::new();
    BufReader::with_capacity(1, stderr).read_line(&mut line)?;
    ensure!(line.trim_end() == LOADING, "{line:?}");
    Ok(process)
}

/// At every moment of loading, a signal ends the process at once. Nothing is attached.
#[test]
fn a_signal_while_loading_ends_it_at_once() -> Result<()> {
    if skip_unless_privileged() || skip_without_tool("bpftool") {
        return Ok(());
    }
    let pair = Pair::new()?;
    for signal in SIGNALS {
        for pause in [0, 60, 150] {
            let mut loading = start_loading(&mut watch(&pair.server))?;
            sleep(Duration::from_millis(pause));
            loading.signal(signal)?;
            let sent = Instant::now();
            let status = loading.wait(TIMEOUT)?;
            ensure!(status.signal() == Some(signal), "{pause} ms, {signal}: {status}");
            ensure!(sent.elapsed() < Duration::from_secs(2), "{pause} ms, {signal}: {:?}", sent.elapsed());
        }
    }
    let shown = pair.server.run("bpftool", &["net", "show", "dev", DEVICE])?;
    ensure!(!shown.contains("handshake"), "{shown}");
    Ok(())
}

/// The verifier gives up its work at a signal, and the command asks again.
#[test]
fn stopping_and_continuing_while_loading_refuses_nothing() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let pair = Pair::new()?;
    let mut loading = start_loading(&mut watch(&pair.server))?;
    for _ in 0..12 {
        sleep(Duration::from_millis(25));
        loading.signal(libc::SIGSTOP)?;
        sleep(Duration::from_millis(5));
        loading.signal(libc::SIGCONT)?;
    }
    let status = loading.wait(TIMEOUT)?;
    ensure!(status.success(), "{status}");
    Ok(())
}

/// Runs the command until it refuses; what it says after the loading, on one line, has `parts`.
fn check_refused(command: &mut Command, code: i32, parts: &[&str]) -> Result<()> {
    let output = process::output(command)?;
    let said = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = said.lines().filter(|line| *line != LOADING).collect();
    ensure!(output.status.code() == Some(code) && lines.len() == 1, "not {code} with one line: {output:?}");
    for part in parts {
        ensure!(lines[0].contains(part), "no {part:?} in {said}");
    }
    Ok(())
}

#[test]
fn a_filter_of_system_calls_is_named() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let pair = Pair::new()?;
    let mut command = watch(&pair.server);
    process::refuse_bpf(&mut command)?;
    check_refused(&mut command, 5, &["--security-opt seccomp=handshake-seccomp.json", "SystemCallFilter=bpf"])
}

/// A limit of open files that does not suffice is named before anything is loaded; one that is said to
/// suffice does.
#[test]
fn too_low_a_limit_of_open_files_is_named() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let pair = Pair::new()?;
    let limited = |limit: u32| {
        let mut command = pair.server.command("sh");
        let watch = format!("{HANDSHAKE} watch -i {DEVICE} -o jsonl --events all --for 100ms");
        command.args(["-c", &format!("ulimit -n {limit}; exec {watch}")]);
        command
    };
    for limit in [20, 28, 34, 55] {
        check_refused(&mut limited(limit), 4, &["open 56 files", &limit.to_string(), "ulimit -n 56"])?;
    }
    let output = process::output(&mut limited(56))?;
    ensure!(output.status.success(), "{output:?}");
    Ok(())
}

/// Without /sys the number of CPUs is not known; with too small a one, readings would overrun their buffers.
#[test]
fn the_number_of_cpus_is_needed_and_checked() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let pair = Pair::new()?;
    let rows = [
        ("mount -t tmpfs none /sys", "No such file"),
        (
            "mount -t tmpfs none /mnt && echo 0 > /mnt/possible \
             && mount --bind /mnt/possible /sys/devices/system/cpu/possible",
            "names 1",
        ),
    ];
    for (mount, problem) in rows {
        if problem == "names 1" && std::thread::available_parallelism()?.get() == 1 {
            continue;
        }
        let command = |words: &str| {
            let mut command = pair.server.command("unshare");
            command.args(["-m", "sh", "-c", &format!("{mount} && exec {HANDSHAKE} {words} -i {DEVICE}")]);
            command
        };
        let words = ["/sys/devices/system/cpu/possible", problem, "mount /sys"];
        check_refused(&mut command("watch -o json --for 100ms"), 4, &words)?;
        let doctor = command("doctor").output()?;
        let said = String::from_utf8_lossy(&doctor.stdout);
        let finding = said.lines().find(|line| line.starts_with("FAIL  cannot read how many CPUs"));
        ensure!(
            doctor.status.code() == Some(4)
                && finding.is_some_and(|line| words.iter().all(|word| line.contains(word)))
                && !said.contains("CONFIG_DEBUG_INFO_BTF"),
            "{said}"
        );
    }
    Ok(())
}

#[test]
fn an_ingress_qdisc_in_the_place_of_clsact_is_named() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let pair = Pair::new()?;
    pair.server.tc(&format!("qdisc add dev {DEVICE} handle ffff: ingress"))?;
    let mut command = watch(&pair.server);
    command.args(["--hook", "clsact"]);
    let remedy = format!("tc qdisc del dev {DEVICE} ingress");
    check_refused(&mut command, 4, &["clsact", "`ingress` qdisc", &remedy])?;
    pair.server.tc(&format!("qdisc del dev {DEVICE} ingress"))?;
    let output = process::output(&mut command)?;
    ensure!(output.status.success(), "{output:?}");
    Ok(())
}
