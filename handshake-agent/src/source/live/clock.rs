//! Reads the two clocks of the records, and the wall clock beside them. The kernel's jiffies are read by
//! running our program `handshake_clock`: no file shows them, and `CLK_TCK` is not their rate.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aya::Ebpf;
use aya::programs::{ProgramError, TestRun, TestRunOptions, Xdp};
use handshake_common::abi::ClockPair;
use handshake_common::shared::Shared64;
use rustix::time::{ClockId, clock_gettime};

use super::mapping::Mapping;
use super::maps::{map_array, missing};
use crate::error::LiveError;
use crate::load::uninterrupted;

/// The program that reads both clocks.
pub(super) const PROGRAM: &str = "handshake_clock";
/// BPF_PROG_TEST_RUN needs a frame of at least 14 bytes; the program does not look at it.
const ANY_FRAME: [u8; 64] = [0; 64];

/// The tick rates that a kernel's configuration offers (`kernel/Kconfig.hz`), Hz.
const RATES: [u32; 4] = [100, 250, 300, 1000];
/// The duration of the first measurement: five jiffies of the slowest rate.
const FIRST_SPAN: Duration = Duration::from_millis(50);
/// The most measurements, each twice as long as the one before: 0.75 s in all.
const MEASUREMENTS: u32 = 4;
/// The error of a measured span, in jiffies: one for the phase at its start and end, half for a late tick.
const TOLERANCE: f64 = 1.5;

/// The map CLOCK. The program that writes it stays with the object.
pub(super) struct Clock(Mapping<[Shared64; 2]>);

impl Clock {
    /// Loads the program and maps the clocks that it writes.
    pub(super) fn start(bpf: &mut Ebpf) -> Result<Self, LiveError> {
        let program = bpf.program_mut(PROGRAM).ok_or_else(|| missing(PROGRAM))?;
        let program: Result<&mut Xdp, ProgramError> = program.try_into();
        program
            .and_then(|program| uninterrupted(|| program.load()))
            .map_err(|e| LiveError::from_program(PROGRAM, e, 0))?;
        map_array(bpf, "CLOCK", 1).map(Self)
    }

    /// Reads both clocks at the same moment, by one run of the program.
    pub(super) fn read(&self, bpf: &Ebpf) -> Result<ClockPair, LiveError> {
        let program = bpf.program(PROGRAM).ok_or_else(|| missing(PROGRAM))?;
        let program: Result<&Xdp, ProgramError> = program.try_into();
        let options = TestRunOptions { data_in: Some(&ANY_FRAME), ..TestRunOptions::default() };
        let run = program.and_then(|program| program.test_run(options));
        run.map_err(|error| LiveError::from_program(PROGRAM, error, 0))?;
        Ok(self.standing())
    }

    /// The clocks as the last run, or a test, has written them.
    pub(super) fn standing(&self) -> ClockPair {
        let [now_ns, jiffies] = &self.0[0];
        ClockPair { now_ns: now_ns.load(), jiffies: jiffies.load() }
    }
}

/// Measures the rate of the jiffies, Hz, from the pairs that `read` returns; `sleep` waits between them.
pub(super) fn measure_hz<E>(
    mut read: impl FnMut() -> Result<ClockPair, E>,
    mut sleep: impl FnMut(Duration),
) -> Result<u32, E> {
    let start = read()?;
    let mut estimate = 0.0;
    for measurement in 0..MEASUREMENTS {
        sleep(FIRST_SPAN * (1 << measurement));
        let end = read()?;
        let seconds = Duration::from_nanos(end.now_ns.saturating_sub(start.now_ns)).as_secs_f64();
        let ticks = f64::from(u32::try_from(end.jiffies.wrapping_sub(start.jiffies)).unwrap_or(u32::MAX));
        if let Some(rate) = nearest_rate(seconds, ticks) {
            return Ok(rate);
        }
        estimate = ticks / seconds;
    }
    // A kernel with an unusual rate: after 0.75 s the estimate is accurate to a jiffy or two.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a saturating cast of a positive number; zero and NaN end as 1"
    )]
    Ok((estimate.round() as u32).max(1))
}

/// The only rate at which `seconds` last about `ticks` jiffies; `None` if several rates fit, or none.
fn nearest_rate(seconds: f64, ticks: f64) -> Option<u32> {
    let mut fitting =
        RATES.into_iter().filter(|rate| (seconds * f64::from(*rate) - ticks).abs() <= TOLERANCE);
    fitting.next().filter(|_| fitting.next().is_none())
}

/// Converts `monotonic_ns`, a time on CLOCK_MONOTONIC, to ns since the Unix epoch. The offset is measured
/// each time, because the wall clock may be set.
pub fn wall_ns(monotonic_ns: u64) -> u64 {
    let before = monotonic();
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let between = before.midpoint(monotonic());
    // In i128: neither clock reaches 2⁶⁴ ns before the year 2554.
    let offset = i128::try_from(wall).unwrap_or(i128::MAX).saturating_sub(i128::from(between));
    u64::try_from(offset.saturating_add(i128::from(monotonic_ns))).unwrap_or(0)
}

fn monotonic() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds.wrapping_mul(1_000_000_000).wrapping_add(nanos)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::convert::Infallible;

    use super::*;

    /// The measured rate of a kernel with `hz` whose clock is at `phase_ns` of a jiffy at the start, and the
    /// duration of the measurement.
    fn measured(hz: u64, phase_ns: u64) -> (u32, Duration) {
        let now = Cell::new(300_000_000_000 + phase_ns);
        let start = now.get();
        let pair = || {
            let now_ns = now.get();
            Ok::<_, Infallible>(ClockPair { now_ns, jiffies: now_ns * hz / 1_000_000_000 })
        };
        // Sleeps are never exact.
        let sleep = |time: Duration| {
            now.set(now.get() + u64::try_from(time.as_nanos()).expect("a short sleep") + 137_000);
        };
        let Ok(rate) = measure_hz(pair, sleep);
        (rate, Duration::from_nanos(now.get() - start))
    }

    #[test]
    fn every_rate_is_found_at_every_phase() {
        for hz in RATES {
            for phase in 0..100 {
                let (found, took) = measured(u64::from(hz), phase * 10_000_000 / 100);
                assert_eq!(found, hz, "phase {phase}");
                assert!(took < Duration::from_millis(200), "{hz} took {took:?}");
            }
        }
    }

    #[test]
    fn an_unusual_rate_is_estimated() {
        for hz in [500, 864, 2000] {
            for phase in 0..10 {
                let (found, _) = measured(u64::from(hz), phase * 1_000_000);
                assert!(found.abs_diff(hz) <= 2, "{found} for {hz}");
            }
        }
    }

    #[test]
    fn stopped_clocks_still_give_a_rate() {
        let still = || Ok::<_, Infallible>(ClockPair { now_ns: 5, jiffies: 5 });
        let Ok(rate) = measure_hz(still, |_| {});
        assert!(rate >= 1);
    }

    #[test]
    fn the_wall_clock_agrees_with_the_system() {
        let now = monotonic();
        let wall = wall_ns(now);
        let system = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos();
        assert!(u128::from(wall).abs_diff(system) < 1_000_000_000, "{wall} and {system}");
        let earlier = wall_ns(now - 5_000_000_000);
        assert!((wall - earlier).abs_diff(5_000_000_000) < 100_000_000, "{earlier} is not 5 s before {wall}");
    }
}
