//! The measured programs: loads a program of an object, runs it on a frame, and holds the bench's own object.

use anyhow::{Context, Result, ensure};
use aya::maps::{Array, ProgramArray};
use aya::programs::{ProgramFd, SchedClassifier, TestRun, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader, Pod};
use handshake_agent::load;
use zerocopy::{FromBytes, IntoBytes};

use crate::hook::{BenchHook, Subject};

/// A map's value that is read and written as plain bytes.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct PodValue<T>(pub(crate) T);

// SAFETY: `FromBytes` means that every byte pattern is a value, `IntoBytes` that no byte is padding.
unsafe impl<T: FromBytes + IntoBytes + Copy + 'static> Pod for PodValue<T> {}

/// The addresses that a walker goes through: the value of the map WALK in the bench's object, field by field.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AddressWalk {
    /// The bits that all addresses share, in host order.
    pub(crate) base: u32,
    /// The bits in which they differ.
    pub(crate) mask: u32,
    /// Whether the destination is walked, and not the source.
    pub(crate) reply: bool,
}

/// The bench's own programs: empty, reference and walkers.
pub(crate) struct Others(Ebpf);

impl Others {
    /// Loads the programs of a hook. The reference's map has `flows` entries, and tracks `port` alone unless
    /// it is 0.
    pub(crate) fn load(elf: &[u8], hook: BenchHook, flows: u32, port: u16) -> Result<Self> {
        let mut loader = EbpfLoader::new();
        loader.map_max_entries("FLOWS", flows).override_global("REFERENCE_PORT", &port, true);
        let mut bpf = loader.load(elf).context("create the maps of the bench's own programs")?;
        let own = [hook.program(Subject::Empty), hook.program(Subject::Reference)];
        for name in own.into_iter().chain([hook.walker(true), hook.walker(false)]) {
            load::program(&mut bpf, name)?;
        }
        Ok(Self(bpf))
    }

    /// Runs a program on a frame; returns ns per run.
    pub(crate) fn run(&self, hook: BenchHook, subject: Subject, frame: &[u8], repeat: u32) -> Result<f64> {
        run(&self.0, hook, hook.program(subject), frame, repeat)
    }

    /// Walks a program through flows; returns ns per run, including the walker's own time.
    pub(crate) fn walk(&mut self, steps: &Steps<'_>) -> Result<f64> {
        let AddressWalk { base, mask, reply } = steps.walk;
        let map = self.0.map_mut("WALK").context("no map WALK")?;
        let mut walks: Array<_, PodValue<[u32; 4]>> = map.try_into()?;
        walks.set(0, PodValue([base, mask, 0, u32::from(reply)]), 0).context("write WALK")?;
        let map = self.0.map_mut(steps.hook.target()).context("no array of targets")?;
        let mut targets: ProgramArray<_> = map.try_into()?;
        targets.set(0, steps.program, 0).context("choose the program under test")?;
        run(&self.0, steps.hook, steps.hook.walker(steps.at_random), steps.frame, steps.repeat)
    }

    /// The descriptor of one of the bench's own programs, for a walk.
    pub(crate) fn descriptor(&self, hook: BenchHook, subject: Subject) -> Result<ProgramFd> {
        descriptor(&self.0, hook.program(subject))
    }
}

/// The parameters of one program's walk.
pub(crate) struct Steps<'a> {
    pub(crate) hook: BenchHook,
    pub(crate) program: &'a ProgramFd,
    pub(crate) walk: AddressWalk,
    pub(crate) at_random: bool,
    pub(crate) frame: &'a [u8],
    pub(crate) repeat: u32,
}

/// A duplicate of a loaded program's descriptor.
pub(crate) fn descriptor(bpf: &Ebpf, name: &str) -> Result<ProgramFd> {
    let program = bpf.program(name).with_context(|| format!("no program {name}"))?;
    program.fd()?.try_clone().with_context(|| format!("open {name}"))
}

/// Runs a loaded program on a frame `repeat` times; returns ns per run, as measured by the kernel.
pub(crate) fn run(bpf: &Ebpf, hook: BenchHook, name: &str, frame: &[u8], repeat: u32) -> Result<f64> {
    let program = bpf.program(name).with_context(|| format!("no program {name}"))?;
    let options = TestRunOptions { data_in: Some(frame), repeat, ..TestRunOptions::default() };
    let result = match hook {
        BenchHook::Xdp => <&Xdp>::try_from(program).and_then(|program| program.test_run(options)),
        BenchHook::Tc => <&SchedClassifier>::try_from(program).and_then(|program| program.test_run(options)),
    };
    let result = result.with_context(|| format!("run {name}"))?;
    let verdict = result.return_value;
    ensure!(verdict == hook.verdict(), "{name} ended with {verdict}: the program under test was not reached");
    Ok(result.duration.as_nanos() as f64)
}
