//! Which CPU a thread is on, and what it has had of it.

use std::time::Duration;

use anyhow::{Context, Result};

/// The first two CPUs that this process may use; where there is but one, twice that.
pub(crate) fn two() -> Result<[usize; 2]> {
    // SAFETY: a set of CPUs is plain bits, of which the kernel writes as many as it has.
    let cpus: Vec<usize> = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        done(libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set))
            .context("ask for our CPUs")?;
        (0..usize::try_from(libc::CPU_SETSIZE)?).filter(|cpu| libc::CPU_ISSET(*cpu, &set)).collect()
    };
    let first = *cpus.first().context("a process without a CPU")?;
    Ok([first, cpus.get(1).copied().unwrap_or(first)])
}

/// Keeps this thread on one CPU.
pub(crate) fn pin(cpu: usize) -> Result<()> {
    // SAFETY: as above; the kernel only reads the set.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        done(libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set))
    }
    .with_context(|| format!("stay on CPU {cpu}"))
}

/// Keeps this thread on the CPU that it is on.
pub(crate) fn stay() -> Result<()> {
    // SAFETY: it takes nothing.
    let cpu = unsafe { libc::sched_getcpu() };
    pin(usize::try_from(cpu).context("ask for our CPU")?)
}

/// What this thread has had of its CPU, in its system calls too, and so in the packets that these send.
pub(crate) fn time() -> Result<Duration> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one timespec, which is ours.
    done(unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) })
        .context("read a thread's clock")?;
    Ok(Duration::new(u64::try_from(time.tv_sec)?, u32::try_from(time.tv_nsec)?))
}

fn done(result: libc::c_int) -> std::io::Result<()> {
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}
