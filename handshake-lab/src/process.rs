//! Starts other programs: the command under test and system tools (iproute2, ethtool, tmux, tcpdump).
//!
//! Each program starts with default signal dispositions and no signal blocked, even if this process ignores
//! signals. The disposition "ignored" is inherited: a program started under `nohup`, or in a script's
//! background, would not receive the SIGINT that is to end it.

use std::io::{self, Write};
use std::mem::MaybeUninit;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};
use std::{ptr, thread};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// The signals that a caller may have ignored, among them those that end programs.
const SIGNALS: [libc::c_int; 5] = [libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGHUP, libc::SIGPIPE];

/// Starts `command` with default signals. No other code in this crate starts a program.
fn spawn(command: &mut Command) -> io::Result<Child> {
    // SAFETY: the code between fork and exec makes only async-signal-safe system calls; it allocates nothing
    // and takes no lock.
    unsafe { command.pre_exec(default_signals) };
    command.spawn()
}

/// Restores the default dispositions of this process, and unblocks all signals.
fn default_signals() -> io::Result<()> {
    for signal in SIGNALS {
        // SAFETY: no handler is installed, and no memory is passed.
        if unsafe { libc::signal(signal, libc::SIG_DFL) } == libc::SIG_ERR {
            return Err(io::Error::last_os_error());
        }
    }
    let mut none = MaybeUninit::uninit();
    // SAFETY: sigemptyset initializes the set before sigprocmask reads it; the old mask is not requested.
    let result = unsafe {
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), ptr::null_mut())
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Lets `command` run behind a filter of system calls that refuses bpf(2) with EPERM, as the default one of
/// container engines does (seccomp(2), `SECCOMP_SET_MODE_FILTER`).
///
/// # Errors
/// A number of the filter does not fit.
pub fn refuse_bpf(command: &mut Command) -> Result<()> {
    let step = |code: u32, jt: u8, k: u32| {
        anyhow::Ok(libc::sock_filter { code: u16::try_from(code)?, jt, jf: 0, k })
    };
    let refused = libc::SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned();
    let mut program = [
        // The number of the call is the first word of `struct seccomp_data`.
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0)?,
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, u32::try_from(libc::SYS_bpf)?)?,
        step(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ALLOW)?,
        step(libc::BPF_RET | libc::BPF_K, 0, refused)?,
    ];
    let length = u16::try_from(program.len())?;
    let install = move || {
        let filter = libc::sock_fprog { len: length, filter: program.as_mut_ptr() };
        // SAFETY: the filter outlives the calls, and its length is that of the array.
        let result = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
                | libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter)
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    // SAFETY: as in `spawn`.
    unsafe { command.pre_exec(install) };
    Ok(())
}

/// Runs `command` to its end and returns its output, whether it succeeds or not. Standard input is empty.
///
/// # Errors
/// The command cannot be started.
pub fn output(command: &mut Command) -> Result<Output> {
    let shown = format!("{command:?}");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = spawn(command).with_context(|| format!("run {shown}"))?;
    child.wait_with_output().with_context(|| format!("wait for {shown}"))
}

/// Runs `command` and returns its standard output.
///
/// # Errors
/// The command cannot be started, or fails; the error has its standard error.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let output = output(command)?;
    finish(&format!("{command:?}"), output)
}

/// Like [`run`], with `input` on standard input.
pub(crate) fn run_with_input(command: &mut Command, input: &str) -> Result<String> {
    let shown = format!("{command:?}");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = spawn(command).with_context(|| format!("run {shown}"))?;
    // A command that fails early closes the pipe: its own message is more useful than a write error.
    let written = child.stdin.take().map(|mut stdin| stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().with_context(|| format!("wait for {shown}"))?;
    let said = finish(&shown, output).with_context(|| format!("given {input:?}"))?;
    written.transpose().with_context(|| format!("write to {shown}"))?;
    Ok(said)
}

fn finish(shown: &str, output: Output) -> Result<String> {
    if !output.status.success() {
        bail!("{shown}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A process that is killed on drop.
#[derive(Debug)]
pub struct Process {
    child: Child,
    shown: String,
}

impl Process {
    /// Starts `command`.
    ///
    /// # Errors
    /// The command cannot be started.
    pub fn start(command: &mut Command) -> Result<Self> {
        let shown = format!("{command:?}");
        let child = spawn(command).with_context(|| format!("start {shown}"))?;
        Ok(Self { child, shown })
    }

    /// The process ID.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The child, for access to its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Sends a signal (`libc::SIG…`).
    ///
    /// # Errors
    /// The process has already ended.
    pub fn signal(&mut self, signal: i32) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("{} has ended already: {status}", self.shown);
        }
        let named = Signal::from_named_raw(signal).with_context(|| format!("no signal {signal}"))?;
        // The ID is still the child's, because the child has not been waited for.
        kill_process(Pid::from_child(&self.child), named).with_context(|| format!("signal {}", self.shown))
    }

    /// Waits for the process to end.
    ///
    /// # Errors
    /// The process has not ended after `limit`.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                bail!("{} has not ended after {limit:?}", self.shown);
            }
            thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use std::mem::MaybeUninit;
    use std::os::unix::process::CommandExt;
    use std::process::Command;
    use std::{env, io, ptr};

    use super::{SIGNALS, run};

    /// Makes this process ignore and block all of [`SIGNALS`].
    fn ignore_signals() -> io::Result<()> {
        for signal in SIGNALS {
            let mut set = MaybeUninit::uninit();
            // SAFETY: no handler is installed, and sigemptyset initializes the set before it is read.
            unsafe {
                libc::signal(signal, libc::SIG_IGN);
                libc::sigemptyset(set.as_mut_ptr());
                libc::sigaddset(set.as_mut_ptr(), signal);
                libc::sigprocmask(libc::SIG_BLOCK, set.as_ptr(), ptr::null_mut());
            }
        }
        Ok(())
    }

    /// The signals of [`SIGNALS`] in a set of a process's status (`SigIgn`, `SigBlk`).
    fn among(status: &str, set: &str) -> Vec<libc::c_int> {
        let line = status.lines().find_map(|line| line.strip_prefix(set)?.strip_prefix(":\t"));
        let set = u64::from_str_radix(line.expect("a set of signals"), 16).expect("hexadecimal");
        SIGNALS.into_iter().filter(|signal| set >> (signal - 1) & 1 == 1).collect()
    }

    fn status() -> Command {
        let mut command = Command::new("cat");
        command.arg("/proc/self/status");
        command
    }

    #[test]
    fn signals_are_default_even_if_the_caller_ignores_them() {
        const NAME: &str = "signals_are_default_even_if_the_caller_ignores_them";
        const CHILD: &str = "HANDSHAKE_LAB_SIGNALS";
        if env::var_os(CHILD).is_some() {
            return compare();
        }
        let mut again = Command::new(env::current_exe().expect("this test's program"));
        again.arg(NAME).env(CHILD, "1");
        // SAFETY: the function makes only async-signal-safe system calls; it allocates nothing and takes no
        // lock.
        unsafe { again.pre_exec(ignore_signals) };
        let again = again.output().expect("this test again");
        let said = String::from_utf8_lossy(&again.stdout);
        assert!(again.status.success() && said.contains("1 passed"), "{said}");
    }

    /// In a process that ignores and blocks signals, compares what children inherit from the standard library
    /// and from [`run`].
    fn compare() {
        let inherited = status().output().expect("cat").stdout;
        let inherited = String::from_utf8_lossy(&inherited);
        // The standard library resets SIGPIPE, and nothing else.
        let but_sigpipe = [libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGHUP];
        assert_eq!(among(&inherited, "SigIgn"), but_sigpipe);
        assert_eq!(among(&inherited, "SigBlk"), SIGNALS);
        let ours = run(&mut status()).expect("cat");
        assert!(among(&ours, "SigIgn").is_empty() && among(&ours, "SigBlk").is_empty(), "{ours}");
    }
}
