//! Decides which hooks to try on each interface, and why. Pure: facts in, a plan with reasons out.

use handshake_common::abi::MAX_INTERFACES;
use handshake_common::interface::GROUPS;

use super::bpf::ProgramName;
use super::driver::{NATIVE_SAVES_PERCENT, NativeEffect, native_effect, with_driver};
use super::interface::InterfaceInfo;
use super::selection::{Demand, Selection};
use crate::error::Error;
use crate::hook::{DirectionChoice, Hook, HookChoice};
use crate::source::settings::FEW_INTERFACES;

/// The facts about an interface before anything is attached.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The interface.
    pub info: InterfaceInfo,
    /// Whether the kernel has TCX (Linux 6.6).
    pub tcx: bool,
    /// The program on its XDP hook, if any.
    pub xdp_holder: Option<ProgramName>,
    /// Whether it must be watched.
    pub demand: Demand,
}

/// The hooks to try on all interfaces, those that come later included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The interfaces that are there.
    pub interfaces: Vec<PlannedInterface>,
    /// Those that a pattern chooses and that cannot be watched, with the reason.
    pub refused: Vec<(InterfaceInfo, String)>,
    /// Which interfaces are wanted.
    pub selection: Selection,
    /// The hook to attach to.
    pub choice: HookChoice,
    /// The directions to watch.
    pub direction: DirectionChoice,
    /// Whether the reason of each choice is said.
    pub explains: bool,
}

impl Plan {
    /// Whether no more interfaces come than there are groups.
    #[must_use]
    pub fn is_of_few(&self) -> bool {
        !self.selection.is_open() && self.interfaces.len() <= GROUPS
    }

    /// How many interfaces there must be room for. A number that is given up is free a moment later, so those
    /// that come back need a second one.
    #[must_use]
    pub fn room(&self) -> u16 {
        let most = u16::try_from(MAX_INTERFACES).unwrap_or(u16::MAX);
        if self.selection.is_open() {
            return most;
        }
        let twice = 2 * u16::try_from(self.interfaces.len()).unwrap_or(most);
        twice.clamp(FEW_INTERFACES, most)
    }

    /// Whether clsact is a first choice for an interface that comes later.
    pub(super) fn may_choose_clsact(&self, has_tcx: bool) -> bool {
        let is_xdp_alone = matches!(self.choice, HookChoice::Named(hook) if hook.is_xdp() && self.direction == DirectionChoice::Ingress);
        self.choice == HookChoice::Named(Hook::Clsact) || (!has_tcx && !is_xdp_alone)
    }

    /// Demands that an interface is there.
    ///
    /// # Errors
    ///
    /// [`Error::NoInterface`].
    pub fn require_any(&self) -> Result<(), Error> {
        if self.interfaces.is_empty() {
            return Err(self.selection.nothing());
        }
        Ok(())
    }
}

/// The hooks to try on one interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedInterface {
    /// The interface.
    pub info: InterfaceInfo,
    /// The ingress hooks, best first; only one if it was requested by name.
    pub ingress: Vec<HookStep>,
    /// The egress hooks, best first; empty if only ingress is watched.
    pub egress: Vec<HookStep>,
    /// Whether the ingress hook was requested by name: a refusal is then an error.
    pub named: bool,
    /// Whether the kernel has TCX.
    pub has_tcx: bool,
    /// Warnings for the operator, whichever hook is attached.
    pub notes: Vec<String>,
    /// Whether it must be watched.
    pub demand: Demand,
}

/// A hook to try, with the reason for its place in the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HookStep {
    /// The hook.
    pub hook: Hook,
    /// The reason: the end of the sentence `eth0: ingress by tcx: …`.
    pub why: &'static str,
}

/// Plans hooks for the interfaces of a selection that are there.
///
/// # Errors
///
/// [`Error::Hook`] if a hook requested by name is known to be unavailable on an interface that must be
/// watched, or on each of them.
pub fn plan(
    selection: Selection,
    facts: &[Facts],
    choice: HookChoice,
    direction: DirectionChoice,
) -> Result<Plan, Error> {
    let mut plan =
        Plan { interfaces: Vec::new(), refused: Vec::new(), selection, choice, direction, explains: true };
    let mut first = None;
    for facts in facts {
        match plan_interface(facts, choice, direction) {
            Ok(planned) => plan.interfaces.push(planned),
            Err(error) if facts.demand == Demand::Required => return Err(error),
            Err(error) => {
                plan.refused.push((facts.info.clone(), error.to_string()));
                first.get_or_insert(error);
            }
        }
    }
    match first.filter(|_| plan.interfaces.is_empty()) {
        Some(error) => Err(error),
        None => Ok(plan),
    }
}

/// Plans the hooks of one interface.
pub(super) fn plan_interface(
    facts: &Facts,
    choice: HookChoice,
    direction: DirectionChoice,
) -> Result<PlannedInterface, Error> {
    let ingress = match choice {
        HookChoice::Auto => auto_ingress(facts),
        HookChoice::Named(hook) => vec![named_ingress(facts, hook)?],
    };
    let both = match direction {
        DirectionChoice::Auto => !facts.info.is_loopback,
        DirectionChoice::Ingress => false,
        DirectionChoice::Both => true,
    };
    let egress = if both { egress(facts, choice) } else { Vec::new() };
    let named = choice != HookChoice::Auto;
    let notes = notes(facts, choice, direction, ingress.first().map(|step| step.hook));
    Ok(PlannedInterface {
        info: facts.info.clone(),
        ingress,
        egress,
        named,
        has_tcx: facts.tcx,
        notes,
        demand: facts.demand,
    })
}

/// The ingress hooks of `--hook auto`, best first.
fn auto_ingress(facts: &Facts) -> Vec<HookStep> {
    let info = &facts.info;
    let why_tc = if info.raw {
        "its frames have no Ethernet header, which XDP needs"
    } else if info.xdp.is_some() {
        "its XDP hook is taken"
    } else if info.is_loopback {
        "loopback has no native XDP"
    } else if info.is_virtual {
        "no hardware behind it, and native XDP would end segmentation offload"
    } else if let Some(effect) = left_out(info) {
        effect.sentence()
    } else {
        "native XDP is not available"
    };
    let mut steps = tc_steps(facts, why_tc);
    if info.raw || info.xdp.is_some() {
        return steps;
    }
    if !info.is_virtual && native_effect(info).is_some_and(NativeEffect::suits_auto) {
        steps.insert(0, HookStep { hook: Hook::XdpNative, why: "the device has hardware behind it" });
    }
    steps.push(HookStep { hook: Hook::XdpGeneric, why: "nothing better is available" });
    steps
}

/// What native XDP does to this hardware, if `--hook auto` leaves it out for that.
fn left_out(info: &InterfaceInfo) -> Option<NativeEffect> {
    native_effect(info).filter(|effect| !info.is_virtual && info.xdp.is_none() && !effect.suits_auto())
}

/// TCX if the kernel has it, then clsact.
fn tc_steps(facts: &Facts, why: &'static str) -> Vec<HookStep> {
    let clsact = if facts.tcx { "TCX is refused" } else { "the kernel has no TCX (Linux 6.6)" };
    let tcx = facts.tcx.then_some(HookStep { hook: Hook::Tcx, why });
    tcx.into_iter().chain([HookStep { hook: Hook::Clsact, why: clsact }]).collect()
}

/// The ingress hook requested by name, unless it is known to be unavailable.
fn named_ingress(facts: &Facts, hook: Hook) -> Result<HookStep, Error> {
    let refuse = |problem: String, fix: String| {
        Err(Error::Hook { interface: facts.info.name.clone(), hook, problem, fix, kernel: None })
    };
    match hook {
        Hook::Tcx if !facts.tcx => refuse("needs Linux 6.6".into(), "use --hook clsact".into()),
        Hook::XdpNative | Hook::XdpGeneric if facts.info.raw => refuse(
            "needs frames with an Ethernet header, and these have none".into(),
            "use --hook tcx".into(),
        ),
        Hook::XdpNative | Hook::XdpGeneric if facts.info.xdp.is_some() => {
            let holder = holder(facts);
            refuse(format!("is taken by {holder}"), "use --hook tcx, or detach that program first".into())
        }
        Hook::XdpNative | Hook::XdpGeneric | Hook::Tcx | Hook::Clsact => {
            Ok(HookStep { hook, why: "requested by name" })
        }
    }
}

/// The egress hooks. XDP sees no outgoing packets, so egress always uses TC.
fn egress(facts: &Facts, choice: HookChoice) -> Vec<HookStep> {
    if choice == HookChoice::Named(Hook::Clsact) {
        return vec![HookStep { hook: Hook::Clsact, why: "requested by name" }];
    }
    tc_steps(facts, "TC alone sees outgoing packets")
}

/// The warnings about this interface.
fn notes(facts: &Facts, choice: HookChoice, direction: DirectionChoice, first: Option<Hook>) -> Vec<String> {
    let InterfaceInfo { name, .. } = &facts.info;
    let mut notes = Vec::new();
    let xdp_holds = facts.info.xdp.filter(|_| first.is_some_and(|hook| !hook.is_xdp()));
    if let Some(xdp) = xdp_holds {
        let holder = holder(facts);
        let mode = xdp.mode.name();
        notes.push(format!(
            "{name}: {holder} holds the XDP hook ({mode}): packets that it drops or redirects are not seen"
        ));
    }
    if choice == HookChoice::Auto && !facts.info.is_virtual && facts.info.native_xdp() == Some(false) {
        let driver = facts.info.driver.as_deref().unwrap_or("its driver");
        notes.push(format!("{name}: {driver} has no native XDP"));
    }
    if choice == HookChoice::Auto
        && let Some(effect) = left_out(&facts.info)
    {
        let (interface, sentence) = (with_driver(&facts.info), effect.sentence());
        notes.push(format!(
            "{interface}: {sentence}: TC is used; --hook xdp-native takes some {NATIVE_SAVES_PERCENT} % less time per packet of a known IPv4 connection"
        ));
    }
    if facts.info.is_loopback && direction == DirectionChoice::Both {
        notes.push(format!(
            "{name}: both directions pass its ingress: with --direction both every packet counts twice"
        ));
    }
    if facts.demand == Demand::Welcome {
        // Many that a pattern chooses are down.
    } else if !facts.info.is_up {
        notes.push(format!("{name} is down: nothing will be seen until `ip link set {name} up`"));
    } else if !facts.info.has_carrier {
        notes.push(format!("{name} has no carrier: nothing will be seen until its other end is up"));
    }
    notes
}

fn holder(facts: &Facts) -> String {
    facts.xdp_holder.as_ref().map_or_else(|| "another program".into(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::super::interface::{XdpMode, XdpProgram};
    use super::*;
    use Hook::{Clsact, Tcx, XdpGeneric, XdpNative};

    fn veth() -> Facts {
        let info = InterfaceInfo {
            name: "eth0".into(),
            index: 2,
            arphrd: 1,
            is_virtual: true,
            is_up: true,
            has_carrier: true,
            ..InterfaceInfo::default()
        };
        Facts { info, tcx: true, xdp_holder: None, demand: Demand::Required }
    }

    fn with(change: impl FnOnce(&mut Facts)) -> Facts {
        let mut facts = veth();
        change(&mut facts);
        facts
    }

    fn physical(features: Option<u64>) -> Facts {
        driven("virtio_net", features)
    }

    fn driven(driver: &str, features: Option<u64>) -> Facts {
        with(|f| {
            f.info.is_virtual = false;
            f.info.driver = Some(driver.into());
            f.info.xdp_features = features;
        })
    }

    fn loopback() -> Facts {
        with(|f| f.info.is_loopback = true)
    }

    fn raw() -> Facts {
        with(|f| f.info.raw = true)
    }

    fn taken(mut facts: Facts) -> Facts {
        facts.info.xdp = Some(XdpProgram { mode: XdpMode::Generic, id: 12 });
        facts.xdp_holder = Some(ProgramName { id: 12, name: Some("theirs".into()) });
        facts
    }

    fn old(mut facts: Facts) -> Facts {
        facts.tcx = false;
        facts
    }

    fn hooks(steps: &[HookStep]) -> Vec<Hook> {
        steps.iter().map(|step| step.hook).collect()
    }

    #[test]
    fn auto_hooks_by_facts() {
        /// Ingress hooks, egress hooks, and a part of the reason for the first ingress hook.
        type Expected = (&'static [Hook], &'static [Hook], &'static str);
        let table: [(&str, Facts, Expected); 17] = [
            ("veth", veth(), (&[Tcx, Clsact, XdpGeneric], &[Tcx, Clsact], "segmentation offload")),
            ("veth, 6.1", old(veth()), (&[Clsact, XdpGeneric], &[Clsact], "no TCX")),
            ("loopback", loopback(), (&[Tcx, Clsact, XdpGeneric], &[], "loopback")),
            ("nic", physical(Some(1)), (&[XdpNative, Tcx, Clsact, XdpGeneric], &[Tcx, Clsact], "hardware")),
            ("nic, 6.1", old(physical(None)), (&[XdpNative, Clsact, XdpGeneric], &[Clsact], "hardware")),
            (
                "nic, no driver XDP",
                physical(Some(0)),
                (&[Tcx, Clsact, XdpGeneric], &[Tcx, Clsact], "not available"),
            ),
            (
                "link down",
                driven("ice", Some(1)),
                (&[Tcx, Clsact, XdpGeneric], &[Tcx, Clsact], "takes its link down"),
            ),
            (
                "queues anew",
                driven("ionic", Some(1)),
                (&[Tcx, Clsact, XdpGeneric], &[Tcx, Clsact], "sets them up anew"),
            ),
            ("link down, 6.1", old(driven("ice", None)), (&[Clsact, XdpGeneric], &[Clsact], "no TCX")),
            (
                "passed on",
                driven("hv_netvsc", Some(1)),
                (&[Tcx, Clsact, XdpGeneric], &[Tcx, Clsact], "devices beneath"),
            ),
            ("no row", driven("new", Some(1)), (&[Tcx, Clsact, XdpGeneric], &[Tcx, Clsact], "is not known")),
            (
                "nothing happens",
                driven("sfc", Some(1)),
                (&[XdpNative, Tcx, Clsact, XdpGeneric], &[Tcx, Clsact], "hardware"),
            ),
            ("tun", raw(), (&[Tcx, Clsact], &[Tcx, Clsact], "no Ethernet header")),
            ("tun, 6.1", old(raw()), (&[Clsact], &[Clsact], "no TCX")),
            ("nic, XDP taken", taken(physical(Some(1))), (&[Tcx, Clsact], &[Tcx, Clsact], "taken")),
            ("veth, XDP taken", taken(veth()), (&[Tcx, Clsact], &[Tcx, Clsact], "taken")),
            ("nic, XDP taken, 6.1", old(taken(physical(None))), (&[Clsact], &[Clsact], "no TCX")),
        ];
        for (name, facts, (ingress, egress, why)) in table {
            let planned = plan_interface(&facts, HookChoice::Auto, DirectionChoice::Auto).expect(name);
            assert_eq!(hooks(&planned.ingress), ingress, "{name}: ingress");
            assert_eq!(hooks(&planned.egress), egress, "{name}: egress");
            assert!(planned.ingress[0].why.contains(why), "{name}: {}", planned.ingress[0].why);
            assert!(!planned.named);
        }
    }

    #[test]
    fn named_hooks_by_facts() {
        /// The ingress and egress hooks, or a part of the error message.
        type Expected = Result<(Hook, &'static [Hook]), &'static str>;
        let table: [(&str, Facts, Hook, Expected); 12] = [
            ("native on veth", veth(), XdpNative, Ok((XdpNative, &[Tcx, Clsact]))),
            ("generic on lo", loopback(), XdpGeneric, Ok((XdpGeneric, &[]))),
            ("clsact is both", veth(), Clsact, Ok((Clsact, &[Clsact]))),
            ("tcx on a nic", physical(Some(1)), Tcx, Ok((Tcx, &[Tcx, Clsact]))),
            ("native, 6.1", old(veth()), XdpNative, Ok((XdpNative, &[Clsact]))),
            ("the kernel has the last word", physical(Some(0)), XdpNative, Ok((XdpNative, &[Tcx, Clsact]))),
            ("tcx beside XDP", taken(veth()), Tcx, Ok((Tcx, &[Tcx, Clsact]))),
            ("tcx, 6.1", old(veth()), Tcx, Err("--hook clsact")),
            ("native on tun", raw(), XdpNative, Err("Ethernet header")),
            ("generic on tun", raw(), XdpGeneric, Err("Ethernet header")),
            ("native, taken", taken(veth()), XdpNative, Err("taken by theirs (id 12): use --hook tcx")),
            ("generic, taken", taken(veth()), XdpGeneric, Err("taken by theirs (id 12)")),
        ];
        for (name, facts, hook, expected) in table {
            match (plan_interface(&facts, HookChoice::Named(hook), DirectionChoice::Auto), expected) {
                (Ok(planned), Ok((ingress, egress))) => {
                    assert_eq!(hooks(&planned.ingress), [ingress], "{name}");
                    assert_eq!(hooks(&planned.egress), egress, "{name}");
                    assert!(planned.named);
                }
                (Err(error), Err(part)) => {
                    assert!(error.to_string().contains(part), "{name}: {error}");
                    assert!(matches!(error, Error::Hook { .. }), "{name}: {error}");
                }
                (result, _) => panic!("{name}: {result:?}"),
            }
        }
    }

    #[test]
    fn egress_hooks_by_direction_and_facts() {
        let table = [
            (loopback(), DirectionChoice::Auto, false),
            (loopback(), DirectionChoice::Both, true),
            (loopback(), DirectionChoice::Ingress, false),
            (veth(), DirectionChoice::Auto, true),
            (veth(), DirectionChoice::Both, true),
            (veth(), DirectionChoice::Ingress, false),
        ];
        for (facts, direction, egress) in table {
            let planned = plan_interface(&facts, HookChoice::Auto, direction).expect("auto is never refused");
            assert_eq!(!planned.egress.is_empty(), egress, "{direction:?}");
        }
    }

    #[test]
    fn warnings_by_facts_and_choices() {
        let unplugged = with(|f| f.info.has_carrier = false);
        let down = with(|f| f.info.is_up = false);
        let table: [(Facts, HookChoice, DirectionChoice, &[&str]); 14] = [
            (veth(), HookChoice::Auto, DirectionChoice::Auto, &[]),
            (
                taken(veth()),
                HookChoice::Auto,
                DirectionChoice::Auto,
                &["theirs (id 12) holds the XDP hook (generic)"],
            ),
            (taken(veth()), HookChoice::Named(Tcx), DirectionChoice::Auto, &["are not seen"]),
            (physical(Some(0)), HookChoice::Auto, DirectionChoice::Auto, &["no native XDP"]),
            (physical(Some(0)), HookChoice::Named(Tcx), DirectionChoice::Auto, &[]),
            (physical(Some(1)), HookChoice::Auto, DirectionChoice::Auto, &[]),
            (
                driven("ice", Some(1)),
                HookChoice::Auto,
                DirectionChoice::Auto,
                &[
                    "eth0 (ice): native XDP sets up the device's queues anew, and takes its link down for that time: TC is used; --hook xdp-native takes some 27 % less time",
                ],
            ),
            (driven("new", Some(1)), HookChoice::Auto, DirectionChoice::Auto, &["is not known: TC is used"]),
            (driven("ice", Some(0)), HookChoice::Auto, DirectionChoice::Auto, &["ice has no native XDP"]),
            (driven("ice", Some(1)), HookChoice::Named(XdpNative), DirectionChoice::Auto, &[]),
            (taken(driven("ice", Some(1))), HookChoice::Auto, DirectionChoice::Auto, &["are not seen"]),
            (loopback(), HookChoice::Auto, DirectionChoice::Both, &["counts twice"]),
            (down, HookChoice::Auto, DirectionChoice::Auto, &["ip link set eth0 up"]),
            (unplugged, HookChoice::Auto, DirectionChoice::Auto, &["no carrier"]),
        ];
        for (facts, choice, direction, expected) in table {
            let notes = plan_interface(&facts, choice, direction).expect("none is refused").notes;
            assert_eq!(notes.len(), expected.len(), "{notes:?}");
            for (note, part) in notes.iter().zip(expected) {
                assert!(note.contains(part), "{note}");
            }
        }
    }

    /// What a pattern chooses may be unfit for a hook; what was named may not, and neither may all.
    #[test]
    fn an_interface_that_is_unfit_is_refused_alone_unless_it_was_named() {
        let welcome = |facts: Facts| Facts { demand: Demand::Welcome, ..facts };
        let native = |facts: &[Facts]| {
            plan(Selection::default(), facts, HookChoice::Named(XdpNative), DirectionChoice::Auto)
        };
        let planned = native(&[welcome(raw()), welcome(veth())]).expect("one is fit");
        assert_eq!((planned.interfaces.len(), planned.refused.len()), (1, 1));
        assert!(planned.refused[0].1.contains("Ethernet header"), "{:?}", planned.refused);
        assert!(native(&[raw(), welcome(veth())]).is_err(), "it was named");
        assert!(native(&[welcome(raw()), welcome(raw())]).is_err(), "none is fit");
        assert!(native(&[]).expect("none is there yet").interfaces.is_empty());
    }

    #[test]
    fn an_interface_of_a_pattern_is_not_warned_of_while_it_is_down() {
        let down = with(|f| {
            f.info.is_up = false;
            f.demand = Demand::Welcome;
        });
        let notes = plan_interface(&down, HookChoice::Auto, DirectionChoice::Auto).expect("auto").notes;
        assert_eq!(notes, [""; 0]);
    }
}
