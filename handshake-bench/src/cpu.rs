//! Pins threads to CPUs, and reads their CPU time.

use std::time::Duration;

use anyhow::{Context, Result};

/// The first two CPUs that this process may use; if there is only one, that one twice.
pub(crate) fn two() -> Result<[usize; 2]> {
    // SAFETY: a set of CPUs is plain bits, so zeros are a value; the kernel writes at most the given size.
    let cpus: Vec<usize> = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        done(libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set))
            .context("read this process's CPUs")?;
        (0..usize::try_from(libc::CPU_SETSIZE)?).filter(|cpu| libc::CPU_ISSET(*cpu, &set)).collect()
    };
    let first = *cpus.first().context("this process may use no CPU")?;
    Ok([first, cpus.get(1).copied().unwrap_or(first)])
}

/// Pins this thread to a CPU.
pub(crate) fn pin(cpu: usize) -> Result<()> {
    // SAFETY: as above; the kernel only reads the set.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        done(libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set))
    }
    .with_context(|| format!("pin to CPU {cpu}"))
}

/// Pins this thread to its current CPU.
pub(crate) fn stay() -> Result<()> {
    // SAFETY: the call has no arguments and no preconditions.
    let cpu = unsafe { libc::sched_getcpu() };
    pin(usize::try_from(cpu).context("read this thread's CPU")?)
}

/// The CPU time of this thread, including its system calls, and so the packets that they send.
pub(crate) fn time() -> Result<Duration> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one timespec, a local variable.
    done(unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) })
        .context("read a thread's clock")?;
    Ok(Duration::new(u64::try_from(time.tv_sec)?, u32::try_from(time.tv_nsec)?))
}

fn done(result: libc::c_int) -> std::io::Result<()> {
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}
