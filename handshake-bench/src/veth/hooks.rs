//! The hooks of a veth row, and the empty programs on them.

use anyhow::{Context, Result, ensure};
use aya::Ebpf;
use aya::programs::tc::{SchedClassifierLinkId, TcAttachType};
use aya::programs::{SchedClassifier, Xdp, XdpMode};
use handshake_agent::load;
use handshake_lab::topology::DEVICE;
use handshake_lab::{Namespace, bpf};

/// The ingress hook of a row; the egress hook is always TCX.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VethHook {
    Tcx,
    /// Native XDP, in the driver.
    Xdp,
}

impl VethHook {
    /// The egress hook, in the words of `--hook`.
    pub(super) const EGRESS: &'static str = "tcx";

    /// The ingress hook, in the words of `--hook`.
    pub(super) const fn ingress(self) -> &'static str {
        match self {
            Self::Tcx => "tcx",
            Self::Xdp => "xdp-native",
        }
    }
}

/// The bench's empty programs on both hooks of a host; detached on drop.
pub(super) struct Empty {
    _bpf: Ebpf,
    ids: Vec<u32>,
}

impl Empty {
    /// Attaches the programs to the host's device.
    pub(super) fn attach(elf: &[u8], hook: VethHook, host: &Namespace) -> Result<Self> {
        let mut bpf = Ebpf::load(elf).context("create the maps of the bench's own programs")?;
        let names: &[&str] = match hook {
            VethHook::Tcx => &["empty_tc"],
            VethHook::Xdp => &["empty_xdp", "empty_tc"],
        };
        for name in names {
            load::program(&mut bpf, name)?;
        }
        host.enter(|| attach(&mut bpf, hook))?;
        let id = |name: &&str| {
            let program = bpf.program(name).with_context(|| format!("no program {name}"))?;
            Ok(program.info().with_context(|| format!("ask for {name}"))?.id())
        };
        let ids = names.iter().map(id).collect::<Result<_>>()?;
        Ok(Self { _bpf: bpf, ids })
    }

    /// Fails unless `traffic` runs each of the programs.
    pub(super) fn ensure_run_by(&self, traffic: impl FnOnce() -> Result<()>) -> Result<()> {
        let _counting = bpf::RunCounts::hold()?;
        traffic()?;
        for id in &self.ids {
            let program = bpf::program(*id)?;
            ensure!(program.runs > 0, "{} was not run by the traffic", program.name);
        }
        Ok(())
    }
}

/// Attaches the programs in the current network namespace.
fn attach(bpf: &mut Ebpf, hook: VethHook) -> Result<()> {
    attach_tcx(bpf, TcAttachType::Egress)?;
    match hook {
        VethHook::Tcx => attach_tcx(bpf, TcAttachType::Ingress).map(|_| ()),
        VethHook::Xdp => {
            let program: &mut Xdp =
                bpf.program_mut("empty_xdp").context("no program empty_xdp")?.try_into()?;
            program.attach(DEVICE, XdpMode::Driver).context("attach empty_xdp")?;
            Ok(())
        }
    }
}

fn attach_tcx(bpf: &mut Ebpf, direction: TcAttachType) -> Result<SchedClassifierLinkId> {
    let program: &mut SchedClassifier =
        bpf.program_mut("empty_tc").context("no program empty_tc")?.try_into()?;
    program.attach(DEVICE, direction).context("attach empty_tc")
}
