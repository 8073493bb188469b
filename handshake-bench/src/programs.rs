//! The programs under measurement: loading one of an object, running it on a frame, and the bench's own object.

use anyhow::{Context, Result, ensure};
use aya::maps::{Array, ProgramArray};
use aya::programs::{ProgramFd, SchedClassifier, TestRun, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader, Pod};
use zerocopy::{FromBytes, IntoBytes};

use crate::hook::{Hook, Subject};

/// A map's value that is plain bytes both ways.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Plain<T>(pub(crate) T);

// SAFETY: `FromBytes` says that every byte pattern is a value, `IntoBytes` that no byte is padding.
unsafe impl<T: FromBytes + IntoBytes + Copy + 'static> Pod for Plain<T> {}

/// Which addresses a walker goes through: the map WALK of the bench's object, field by field.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Walk {
    /// What all addresses share.
    pub(crate) base: u32,
    /// In which bits they differ.
    pub(crate) mask: u32,
    /// Walk the destination.
    pub(crate) reply: bool,
}

/// The bench's own programs: empty, the usual way, walkers.
pub(crate) struct Others(Ebpf);

impl Others {
    /// Loads what a hook needs. The reference's map has `flows` entries, and tracks `port` alone unless it is 0.
    pub(crate) fn load(elf: &[u8], hook: Hook, flows: u32, port: u16) -> Result<Self> {
        let mut loader = EbpfLoader::new();
        loader.map_max_entries("FLOWS", flows).override_global("REFERENCE_PORT", &port, true);
        let mut bpf = loader.load(elf).context("create the maps of the bench's own programs")?;
        let own = [hook.program(Subject::Empty), hook.program(Subject::Reference)];
        for name in own.into_iter().chain([hook.walker(true), hook.walker(false)]) {
            load(&mut bpf, name)?;
        }
        Ok(Self(bpf))
    }

    /// Runs a program on a frame; ns a run.
    pub(crate) fn run(&self, hook: Hook, subject: Subject, frame: &[u8], repeat: u32) -> Result<f64> {
        run(&self.0, hook, hook.program(subject), frame, repeat)
    }

    /// Walks a program through flows; ns a run, the walker's own time included.
    pub(crate) fn walk(&mut self, steps: &Steps<'_>) -> Result<f64> {
        let Walk { base, mask, reply } = steps.walk;
        let map = self.0.map_mut("WALK").context("no map WALK")?;
        let mut walks: Array<_, Plain<[u32; 4]>> = map.try_into()?;
        walks.set(0, Plain([base, mask, 0, u32::from(reply)]), 0).context("write WALK")?;
        let map = self.0.map_mut(steps.hook.target()).context("no array of targets")?;
        let mut targets: ProgramArray<_> = map.try_into()?;
        targets.set(0, steps.program, 0).context("choose the program under test")?;
        run(&self.0, steps.hook, steps.hook.walker(steps.at_random), steps.frame, steps.repeat)
    }

    /// A program of the bench's own, to be walked.
    pub(crate) fn descriptor(&self, hook: Hook, subject: Subject) -> Result<ProgramFd> {
        descriptor(&self.0, hook.program(subject))
    }
}

/// A walk of one program.
pub(crate) struct Steps<'a> {
    pub(crate) hook: Hook,
    pub(crate) program: &'a ProgramFd,
    pub(crate) walk: Walk,
    pub(crate) at_random: bool,
    pub(crate) frame: &'a [u8],
    pub(crate) repeat: u32,
}

/// Has the kernel take a program.
pub(crate) fn load(bpf: &mut Ebpf, name: &str) -> Result<()> {
    let program = bpf.program_mut(name).with_context(|| format!("no program {name}"))?;
    let loaded = match <&mut Xdp>::try_from(&mut *program) {
        Ok(program) => program.load(),
        Err(_) => <&mut SchedClassifier>::try_from(program).and_then(SchedClassifier::load),
    };
    loaded.with_context(|| format!("load {name}"))
}

/// A loaded program's descriptor, of one's own.
pub(crate) fn descriptor(bpf: &Ebpf, name: &str) -> Result<ProgramFd> {
    let program = bpf.program(name).with_context(|| format!("no program {name}"))?;
    program.fd()?.try_clone().with_context(|| format!("open {name}"))
}

/// Runs a loaded program on a frame again and again; ns a run, as the kernel has measured it.
pub(crate) fn run(bpf: &Ebpf, hook: Hook, name: &str, frame: &[u8], repeat: u32) -> Result<f64> {
    let program = bpf.program(name).with_context(|| format!("no program {name}"))?;
    let options = TestRunOptions { data_in: Some(frame), repeat, ..TestRunOptions::default() };
    let result = match hook {
        Hook::Xdp => <&Xdp>::try_from(program).and_then(|program| program.test_run(options)),
        Hook::Tc => <&SchedClassifier>::try_from(program).and_then(|program| program.test_run(options)),
    };
    let result = result.with_context(|| format!("run {name}"))?;
    let verdict = result.return_value;
    ensure!(verdict == hook.verdict(), "{name} ended with {verdict}: the program under test was not reached");
    Ok(result.duration.as_nanos() as f64)
}
