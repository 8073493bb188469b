//! The memory that a run takes at its peak, and what is free. Asked before anything is attached: a run for
//! which there is no room would be killed later, without a word.
//!
//! ```text
//! maps (the tables, and a part per CPU) ───────────────────────────────── from loading on
//! the object, in the process, and the verifier, in the kernel ─────────── while loading
//! counters of all CPUs, copied ────────────────────────────────────────── while reading
//! ended attempts, listed flows ────────────────────────────────────────── on request
//! ```

use handshake_common::abi::{CpuCounts, Histogram};
use handshake_common::verdict::Leg;

use crate::error::Error;
use crate::free::{Free, free};
use crate::model::flow::Flow;
use crate::options::Options;
use crate::source::settings::{Sizes, size};

/// What the process takes without the maps while it loads, 3 to 5.5 MiB, and the verifier for the largest program,
/// 27.3 MiB on 6.18. Later the process takes less than both: 3 MiB, and with a screen 10.
const LOADING: u64 = 33 << 20;
/// Programs, and what the kernel adds to each map: 1.4 MiB at one hook of TC, 2.4 MiB with native XDP and TC.
const KERNEL: u64 = 3 << 20;
/// What waits to be written, and what is announced, where attempts are listed one by one.
const ENDED: u64 = 8 << 20;
/// The slots of packets, 4 MiB, and those of failures: at most 16,384 packets, twice as they are written.
const EVIDENCE: u64 = 16 << 20;
/// Copies of the counters of all CPUs during a reading.
const COPIES: u64 = 3;

/// The most memory that a run takes at one moment on a machine with `cpus` possible CPUs and with room for so
/// many interfaces ([`Plan::room`](crate::attach::Plan::room)), bytes: maps in the kernel and the process
/// together. Left out are pages of files, which the kernel takes back.
#[must_use]
pub fn peak(options: &Options, cpus: usize, interfaces: u16) -> u64 {
    let sizes = Sizes::for_flows(options.max_flows);
    let counters = size::<CpuCounts>() + Leg::ALL.len() as u64 * size::<Histogram>();
    let ended = if options.events { ENDED } else { 0 };
    // Sorting takes half as much again.
    let flow = size::<Flow>() * 3 / 2;
    let listed = if options.flows { (u64::from(sizes.slots4) + u64::from(sizes.slots6)) * flow } else { 0 };
    sizes.bytes(cpus, interfaces, options.events, options.processes)
        + COPIES * counters * cpus as u64
        + KERNEL
        + LOADING
        + ended
        + if options.evidence { EVIDENCE } else { 0 }
        + listed
}

/// Checks that the memory of a run is free.
///
/// # Errors
///
/// [`Error::Memory`], with the largest `max_flows` for which there is room.
pub fn require(options: &Options, cpus: usize, interfaces: u16) -> Result<(), Error> {
    free().map_or(Ok(()), |free| fits(options, cpus, interfaces, &free))
}

fn fits(options: &Options, cpus: usize, interfaces: u16, free: &Free) -> Result<(), Error> {
    let needed = peak(options, cpus, interfaces);
    if needed <= free.bytes {
        return Ok(());
    }
    // Tables are powers of two.
    let smaller = (0..u32::BITS).rev().map(|bit| Options { max_flows: 1 << bit, ..options.clone() });
    let mut smaller = smaller.filter(|smaller| smaller.max_flows < options.max_flows);
    let fitting = smaller.find(|smaller| peak(smaller, cpus, interfaces) <= free.bytes);
    Err(Error::Memory {
        needed,
        free: free.bytes,
        whose: free.whose.clone(),
        fitting: fitting.map(|fitting| fitting.max_flows),
    })
}

#[cfg(test)]
mod tests {
    use super::{Free, fits, peak};
    use crate::error::Error;
    use crate::options::Options;
    use crate::source::settings::FEW_INTERFACES;

    const MEBIBYTE: u64 = 1 << 20;

    #[test]
    fn the_defaults_fit_a_small_machine() {
        let options = Options::default();
        let table = [(2, 87..=89), (64, 96..=99), (256, 124..=128)];
        for (cpus, expected) in table {
            let peak = peak(&options, cpus, FEW_INTERFACES).div_ceil(MEBIBYTE);
            assert!(expected.contains(&peak), "{peak} MiB on {cpus} CPUs");
        }
        let events = Options { events: true, ..Options::default() };
        let peak = |options| peak(options, 2, FEW_INTERFACES);
        assert_eq!((peak(&events) - peak(&options)) / MEBIBYTE, 12);
        let evidence = Options { evidence: true, ..Options::default() };
        assert_eq!((peak(&evidence) - peak(&options)) / MEBIBYTE, 16);
        let flows = Options { flows: true, ..Options::default() };
        assert!(peak(&flows) > peak(&options) + 100 * MEBIBYTE);
    }

    #[test]
    fn too_little_memory_names_what_fits() {
        let free = |bytes| Free { bytes, whose: "here".to_owned() };
        let options = Options::default();
        let needed = peak(&options, 2, FEW_INTERFACES);
        let fits = |options: &Options, free: &Free| fits(options, 2, FEW_INTERFACES, free);
        assert!(fits(&options, &free(needed)).is_ok());
        let refused = |bytes| fits(&options, &free(bytes)).expect_err("it does not fit");
        let Error::Memory { fitting: Some(fitting), .. } = refused(64 * MEBIBYTE) else {
            panic!("none fits")
        };
        assert_eq!(fitting, 131_072);
        let smaller = Options { max_flows: fitting, ..Options::default() };
        assert!(fits(&smaller, &free(64 * MEBIBYTE)).is_ok());
        let words = refused(64 * MEBIBYTE).to_string();
        assert!(words.contains("64 MiB are free here") && words.contains("--max-flows 131072"), "{words}");
        let words = refused(16 * MEBIBYTE).to_string();
        assert!(!words.contains("--max-flows"), "{words}");
    }
}
