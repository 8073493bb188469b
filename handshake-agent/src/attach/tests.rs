//! Tests with programs on real interfaces, each in a network namespace of its own.

use crate::hook::{DirectionChoice, HookChoice};
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::channel;
use std::time::Duration;

use aya::programs::{SchedClassifier, TcAttachType, Xdp, XdpMode};
use rustix::thread::CapabilitySet;

use crate::confine::{Confinement, NOBODY, shed_capabilities};
use crate::hook::{HookState, LinkState};
use crate::source::live::Hooks as _;

use super::interface::{XdpProgram, by_index};
use super::testing::{broken, in_namespace, killed, ours, run, theirs};
use super::*;

/// Attaches to one interface as the command line would. Returns what is attached and what was said.
fn attach_to(name: &str, choice: HookChoice) -> Result<(Attached, Vec<String>), Error> {
    let facts = facts_named(&[name])?;
    attach_facts(&facts, choice)
}

fn facts_named(names: &[&str]) -> Result<Vec<Facts>, Error> {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    survey(&InterfaceChoice { names, wait: false }).map(|(_, facts)| facts)
}

fn attach_facts(facts: &[Facts], choice: HookChoice) -> Result<(Attached, Vec<String>), Error> {
    let plan = plan(Selection::default(), facts, choice, DirectionChoice::Auto)?;
    let mut said = Vec::new();
    let attached = attach(&mut ours(), &plan, false, &mut |sentence| said.push(sentence.to_owned()))?;
    Ok((attached, said))
}

fn index_of(name: &str) -> u32 {
    selection::named(name).expect("it exists").index
}

/// The TC hook of this kernel: TCX since 6.6, clsact before.
fn tc() -> Hook {
    if has_tcx(index_of("lo")).expect("it is permitted") { Hook::Tcx } else { Hook::Clsact }
}

/// The ids of the programs on the TC hooks of one direction, in the order they run.
fn on_tc(name: &str, direction: Direction) -> Vec<u32> {
    let index = index_of(name);
    let filters =
        clsact::filters(index, direction).expect("it is permitted").into_iter().filter_map(|f| f.program);
    tcx_chain(index, direction).unwrap_or_default().into_iter().chain(filters).collect()
}

fn xdp_on(name: &str) -> Option<XdpProgram> {
    by_index(index_of(name)).expect("it exists").xdp
}

/// Attaches a foreign XDP program to an interface for as long as the returned object lives.
fn their_xdp(name: &str, mode: XdpMode) -> Ebpf {
    let mut bpf = theirs();
    let program: &mut Xdp = loaded(&mut bpf, "their_xdp").expect("it loads");
    program.attach(name, mode).expect("the hook is free");
    bpf
}

#[test]
fn addresses_are_those_of_this_namespace() {
    in_namespace(|| {
        run("ip addr add 192.0.2.1 peer 192.0.2.2 dev hs-a");
        run("ip addr add 2001:db8::1/64 dev hs-a nodad");
        let all = interface::addresses().expect("they can be read");
        let has = |address: &str| all.contains(&address.parse().expect(address));
        assert!(["127.0.0.1", "::1", "192.0.2.1", "2001:db8::1"].into_iter().all(has), "{all:?}");
        assert!(!has("192.0.2.2"), "a peer's is not ours: {all:?}");
    });
}

#[test]
fn auto_on_a_veth_attaches_first_to_tc_in_both_directions() {
    in_namespace(|| {
        run("tc qdisc add dev hs-a clsact");
        let mut bpf = theirs();
        let program: &mut SchedClassifier = loaded(&mut bpf, "their_tc").expect("it loads");
        program.attach("hs-a", TcAttachType::Ingress).expect("TC");
        let theirs = program.info().expect("it is loaded").id();

        let (attached, said) = attach_to("hs-a", HookChoice::Auto).expect("auto");
        let [on] = &attached.interfaces()[..] else { panic!("one interface") };
        assert_eq!((on.ingress, on.egress), (tc(), Some(tc())));
        assert_eq!(on_tc("hs-a", Direction::Ingress), [on.program_ids[0], theirs]);
        assert_eq!(on_tc("hs-a", Direction::Egress), [on.program_ids[1]]);
        assert_eq!(on.before_ours, [""; 0]);
        let says = |at: usize, direction| said[at].starts_with(&format!("hs-a: {direction} by {}: ", tc()));
        assert!(said.len() == 2 && says(0, Direction::Egress) && says(1, Direction::Ingress), "{said:?}");

        drop(attached);
        assert_eq!(on_tc("hs-a", Direction::Ingress), [theirs]);
        assert_eq!(on_tc("hs-a", Direction::Egress), [0; 0]);
    });
}

#[test]
fn the_planned_programs_are_loaded_before_the_first_is_attached() {
    in_namespace(|| {
        let is_loaded =
            |bpf: &Ebpf| [XDP, INGRESS, EGRESS].map(|name| bpf.program(name).is_some_and(|p| p.fd().is_ok()));
        for (choice, expected) in [
            (HookChoice::Auto, [false, true, true]),
            (HookChoice::Named(Hook::XdpNative), [true, false, true]),
        ] {
            let facts = facts_named(&["hs-a"]).expect("it exists");
            let mut bpf = ours();
            let mut steps = Vec::new();
            let plan = plan(Selection::default(), &facts, choice, DirectionChoice::Auto).expect("a plan");
            load(&mut bpf, &plan, &mut |done, of| steps.push((done, of))).expect("they load");
            assert_eq!(is_loaded(&bpf), expected, "{choice:?}");
            assert_eq!(steps, [(0, 2), (1, 2), (2, 2)], "{choice:?}");
        }
    });
}

#[test]
fn a_program_that_runs_before_ours_is_named() {
    in_namespace(|| {
        let (attached, _) = attach_to("hs-a", HookChoice::Auto).expect("auto");
        let (second, _) = attach_to("hs-a", HookChoice::Auto).expect("two agents share an interface");
        let ours = &attached.interfaces()[0];
        let before = before_ours(&ours.info, ours.ingress, Direction::Ingress, ours.program_ids[0]);
        let id = second.interfaces()[0].program_ids[0];
        assert_eq!(before, [format!("handshake_ingre (id {id}) on {} ingress", tc())]);
    });
}

#[test]
fn auto_on_loopback_attaches_to_tc_ingress_only() {
    in_namespace(|| {
        let (attached, _) = attach_to("lo", HookChoice::Auto).expect("auto");
        let on = &attached.interfaces()[0];
        assert_eq!((on.ingress, on.egress), (tc(), None));
        assert_eq!(on_tc("lo", Direction::Ingress), on.program_ids);
        assert_eq!(on_tc("lo", Direction::Egress), [0; 0]);
    });
}

#[test]
fn xdp_by_name_has_the_requested_mode_and_is_detached_on_drop() {
    in_namespace(|| {
        for (name, hook, mode) in [
            ("hs-a", Hook::XdpNative, interface::XdpMode::Native),
            ("hs-a", Hook::XdpGeneric, interface::XdpMode::Generic),
            ("lo", Hook::XdpGeneric, interface::XdpMode::Generic),
        ] {
            let (attached, _) = attach_to(name, HookChoice::Named(hook)).expect(name);
            let on = &attached.interfaces()[0];
            assert_eq!(on.ingress, hook);
            assert_eq!(xdp_on(name), Some(XdpProgram { mode, id: on.program_ids[0] }), "{name} {hook}");
            drop(attached);
            assert_eq!(xdp_on(name), None, "{name} {hook}");
        }
    });
}

#[test]
fn native_xdp_refused_by_the_driver_is_an_error_with_the_kernels_words() {
    in_namespace(|| {
        let error =
            attach_to("lo", HookChoice::Named(Hook::XdpNative)).expect_err("loopback has no native XDP");
        assert!(matches!(error, Error::Hook { .. }), "{error}");
        let text = error.to_string();
        assert!(text.starts_with("lo: xdp-native is not supported") && text.contains("--hook tcx"), "{text}");
        let words = error.kernel_words().expect("the kernel was asked");
        assert!(words.contains("not supported (os error 95): "), "{words}");
        assert!(words.to_lowercase().contains("native"), "{words}");
        assert_eq!(xdp_on("lo"), None);
    });
}

#[test]
fn auto_reports_a_refusal_and_attaches_to_the_next_hook() {
    in_namespace(|| {
        let mut facts = facts_named(&["lo"]).expect("lo exists");
        facts[0].info.is_virtual = false;
        facts[0].info.driver = Some("virtio_net".into());
        facts[0].info.xdp_features = None;
        let (attached, said) = attach_facts(&facts, HookChoice::Auto).expect("auto falls back");
        assert_eq!(attached.interfaces()[0].ingress, tc());
        assert!(said[0].starts_with("lo (virtio_net): native XDP turns off the offloads"), "{said:?}");
        assert!(said[1].starts_with("lo: ingress by xdp-native refused: "), "{said:?}");
        assert!(said[2].starts_with(&format!("lo: ingress by {}: ", tc())), "{said:?}");
    });
}

#[test]
fn a_verifier_refusal_is_a_load_error_not_a_permission_error() {
    in_namespace(|| {
        let error =
            loaded::<Xdp>(&mut broken(), XDP).map(|_| ()).expect_err("it reads an uninitialised register");
        assert!(matches!(error, Error::Load { .. }), "{error}");
        assert!(
            error.kernel_words().is_some_and(|words| words.contains("R2 !read_ok")),
            "{:?}",
            error.kernel_words()
        );
        let error = loaded::<Xdp>(&mut theirs(), XDP).map(|_| ()).expect_err("there is no such program");
        assert!(matches!(error, Error::Load { .. }), "{error}");
    });
}

#[test]
fn an_occupied_xdp_hook_is_left_alone() {
    in_namespace(|| {
        let _theirs = their_xdp("hs-a", XdpMode::Skb);
        let id = xdp_on("hs-a").expect("theirs").id;
        let (attached, said) = attach_to("hs-a", HookChoice::Auto).expect("auto");
        let on = &attached.interfaces()[0];
        assert_eq!(on.ingress, tc());
        assert!(on.info.foreign_generic_xdp());
        assert!(said[0].contains(&format!("their_xdp (id {id}) holds the XDP hook (generic)")), "{said:?}");
        assert_eq!(on.before_ours, [format!("their_xdp (id {id}) on XDP (generic)")]);

        for hook in [Hook::XdpNative, Hook::XdpGeneric] {
            let error = attach_to("hs-a", HookChoice::Named(hook)).expect_err("the hook is taken");
            assert!(error.to_string().contains(&format!("is taken by their_xdp (id {id})")), "{error}");
            assert!(matches!(error, Error::Hook { .. }), "{error}");
        }
        assert_eq!(xdp_on("hs-a").map(|xdp| xdp.id), Some(id));
    });
}

#[test]
fn an_xdp_hook_occupied_after_the_survey_is_refused_by_the_kernel() {
    in_namespace(|| {
        let facts = facts_named(&["hs-a"]).expect("hs-a exists");
        let _theirs = their_xdp("hs-a", XdpMode::Driver);
        for hook in [Hook::XdpNative, Hook::XdpGeneric] {
            let error = attach_facts(&facts, HookChoice::Named(hook)).expect_err("the hook is taken");
            assert!(error.to_string().contains("is taken by another program"), "{error}");
            assert!(
                error
                    .kernel_words()
                    .is_some_and(|words| words.len() > "Device or resource busy (os error 16)".len())
            );
        }
    });
}

#[test]
fn native_xdp_attaches_with_frames_of_several_pages() {
    in_namespace(|| {
        // Without frags, veth refuses XDP if the MTU does not fit a page.
        run("ip link set hs-a mtu 9000");
        run("ip link set hs-b mtu 9000");
        let (attached, _) = attach_to("hs-a", HookChoice::Named(Hook::XdpNative)).expect("ours has frags");
        assert_eq!(attached.interfaces()[0].ingress, Hook::XdpNative);
    });
}

#[test]
fn clsact_attaches_in_both_directions_and_leaves_other_filters_alone() {
    in_namespace(|| {
        run("tc qdisc add dev hs-a clsact");
        run("tc filter add dev hs-a ingress prio 1 protocol ip u32 match u32 0 0");
        let (attached, _) = attach_to("hs-a", HookChoice::Named(Hook::Clsact)).expect("clsact");
        let on = &attached.interfaces()[0];
        assert_eq!((on.ingress, on.egress), (Hook::Clsact, Some(Hook::Clsact)));
        assert_eq!(on.before_ours, ["a filter of kind u32 on clsact ingress"]);
        let ours = |direction| {
            clsact::filters(on.info.index, direction).expect("filters").into_iter().filter_map(|f| f.program)
        };
        assert_eq!(
            ours(Direction::Ingress).chain(ours(Direction::Egress)).collect::<Vec<_>>(),
            on.program_ids
        );
        assert!(run("tc filter show dev hs-a ingress").contains("handshake_ingress"));

        drop(attached);
        let left = run("tc filter show dev hs-a ingress");
        assert!(left.contains("u32") && !left.contains("handshake"), "{left}");
    });
}

/// The variable with the hook that [`an_agent_to_kill`] attaches to on `hs-a`.
const HOOK_TO_TAKE: &str = "HANDSHAKE_TEST_HOOK";

#[test]
fn sigkill_leaves_no_link_and_no_promiscuous_mode() {
    in_namespace(|| {
        let index = index_of("hs-a");
        for hook in Hook::ALL {
            kill_an_agent_on(hook);
            assert_eq!(xdp_on("hs-a"), None, "{hook}");
            assert_eq!(tcx_chain(index, Direction::Egress).unwrap_or_default(), [0; 0], "{hook}");
            assert!(run("ip -d link show hs-a").contains("promiscuity 0"), "{hook}");
        }
        // Filters left by clsact are recognised as stale: the last agent's egress filter too, whatever its
        // ingress hook was.
        let left = clsact::filters(index, Direction::Ingress).expect("filters");
        assert_eq!(left.iter().filter(|f| f.handle != 0).count(), 1);
        assert_eq!(clsact::stale(index).iter().filter(|f| f.direction == Direction::Ingress).count(), 1);
    });
}

/// Starts an agent in this namespace, checks that its programs are attached, and kills it.
fn kill_an_agent_on(hook: Hook) {
    let mut child = Command::new(std::env::current_exe().expect("this test's program"))
        .args(["--exact", "--nocapture", "attach::tests::an_agent_to_kill"])
        .env(HOOK_TO_TAKE, hook.name())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let output = BufReader::new(child.stdout.take().expect("it is piped"));
    let ready = output.lines().map_while(Result::ok).any(|line| line.ends_with("attached"));
    let there = hook.is_xdp() == xdp_on("hs-a").is_some() && !on_tc("hs-a", Direction::Egress).is_empty();
    let promiscuous = run("ip -d link show hs-a").contains("promiscuity 1");
    child.kill().expect("it lives");
    child.wait().expect("it ends");
    assert!(ready && there && promiscuous, "{hook}: {ready} {there} {promiscuous}");
}

/// Not a test by itself: the agent that [`kill_an_agent_on`] starts and kills.
#[test]
fn an_agent_to_kill() {
    let Ok(word) = std::env::var(HOOK_TO_TAKE) else { return };
    let hook = Hook::ALL.into_iter().find(|hook| hook.name() == word).expect("a hook");
    let choice =
        if hook == Hook::Tcx && tc() != Hook::Tcx { HookChoice::Auto } else { HookChoice::Named(hook) };
    let (attached, _) = attach_to("hs-a", choice).expect("hs-a takes it");
    let promisc = Promisc::open().expect("CAP_NET_RAW");
    promisc.hold(attached.interfaces()[0].info.index).expect("it exists");
    println!("\nattached");
    std::thread::sleep(Duration::from_secs(60));
    drop((attached, promisc));
}

#[test]
fn only_filters_of_a_killed_agent_are_stale() {
    in_namespace(|| {
        let index = index_of("hs-a");
        let (living, _) = attach_to("hs-a", HookChoice::Named(Hook::Clsact)).expect("clsact");
        assert_eq!(clsact::stale(index), []);
        killed("hs-a");
        let stale = clsact::stale(index);
        assert_eq!(
            stale.iter().map(|f| f.direction).collect::<Vec<_>>(),
            [Direction::Ingress, Direction::Egress]
        );

        let (next, said) = attach_to("hs-a", HookChoice::Auto).expect("the next start");
        assert_eq!(said.iter().filter(|s| s.contains("of an agent that was killed")).count(), 2, "{said:?}");
        assert_eq!(clsact::stale(index), []);
        drop(next);
        assert_eq!(on_tc("hs-a", Direction::Egress), living.interfaces()[0].program_ids[1..]);
    });
}

#[test]
fn the_removal_command_removes_a_stale_filter() {
    in_namespace(|| {
        killed("hs-a");
        let stale = clsact::stale(index_of("hs-a"));
        assert_eq!(stale.len(), 2);
        for filter in stale {
            run(&clsact::removal_command("hs-a", &filter));
        }
        assert_eq!(clsact::stale(index_of("hs-a")), []);
    });
}

#[test]
fn a_link_without_ethernet_headers_gets_tc() {
    in_namespace(|| {
        run("ip tuntap add dev hs-tun mode tun");
        let facts = facts_named(&["hs-tun"]).expect("hs-tun exists");
        let (attached, said) = attach_facts(&facts, HookChoice::Auto).expect("auto");
        assert_eq!(attached.interfaces()[0].ingress, tc());
        assert!(tc() == Hook::Clsact || said.iter().any(|s| s.contains("no Ethernet header")), "{said:?}");
        assert!(said.iter().any(|s| s.contains("is down")), "{said:?}");
        let planned =
            plan(Selection::default(), &facts, HookChoice::Auto, DirectionChoice::Auto).expect("auto");
        assert!(planned.interfaces[0].is_raw());
        let error =
            attach_facts(&facts, HookChoice::Named(Hook::XdpGeneric)).expect_err("XDP needs Ethernet");
        assert!(error.to_string().contains("Ethernet header"), "{error}");
    });
}

#[test]
fn without_a_name_the_interfaces_of_the_default_routes_are_chosen() {
    in_namespace(|| {
        let error = facts_named(&[]).expect_err("there is no route");
        assert_eq!(
            error.to_string(),
            "no default route to choose an interface by: name one with -i; there are: lo, hs-b, hs-a"
        );
        run("ip addr add 10.9.0.1/24 dev hs-a");
        run("ip route add default via 10.9.0.2");
        run("ip -6 addr add fd09::1/64 dev hs-b nodad");
        run("ip -6 route add default via fd09::2");
        let facts = facts_named(&[]).expect("two routes");
        assert_eq!(facts.iter().map(|f| f.info.name.as_str()).collect::<Vec<_>>(), ["hs-a", "hs-b"]);
    });
}

#[test]
fn several_interfaces_keep_their_order() {
    in_namespace(|| {
        let facts = facts_named(&["hs-b", "lo", "hs-a"]).expect("all exist");
        let (attached, _) = attach_facts(&facts, HookChoice::Auto).expect("auto");
        assert_eq!(
            attached.interfaces().iter().map(|i| i.info.name.as_str()).collect::<Vec<_>>(),
            ["hs-b", "lo", "hs-a"]
        );
    });
}

#[test]
fn a_missing_interface_detaches_the_other_interfaces() {
    in_namespace(|| {
        run("ip link add hs-c type veth peer name hs-d");
        let facts = facts_named(&["lo", "hs-c"]).expect("both exist");
        run("ip link del hs-c");
        let error = attach_facts(&facts, HookChoice::Auto).expect_err("hs-c is gone");
        assert!(matches!(&error, Error::UnknownInterface { name, .. } if name == "hs-c"), "{error}");
        assert_eq!(on_tc("lo", Direction::Ingress), [0; 0]);
    });
}

#[test]
fn promiscuous_mode_ends_when_its_guard_is_dropped() {
    in_namespace(|| {
        let promiscuous = || run("ip -d link show hs-a").contains("promiscuity 1");
        assert!(!promiscuous());
        let held = Promisc::open().expect("CAP_NET_RAW");
        held.hold(index_of("hs-a")).expect("it exists");
        assert!(promiscuous());
        drop(held);
        assert!(!promiscuous());
    });
}

#[test]
fn the_owner_of_a_program_is_named_with_its_pid() {
    in_namespace(|| {
        let _theirs = their_xdp("hs-a", XdpMode::Driver);
        let id = xdp_on("hs-a").expect("theirs").id;
        let owners = bpf::owners(&[id]);
        assert!(
            owners[&id].iter().any(|owner| owner.ends_with(&format!("(pid {})", std::process::id()))),
            "{owners:?}"
        );
    });
}

#[test]
fn facts_of_real_interfaces() {
    in_namespace(|| {
        let info = &selection::named("hs-a").expect("hs-a exists");
        assert_eq!((info.driver.as_deref(), info.mtu), (Some("veth"), 1500));
        assert!(info.is_up && info.has_carrier);
        assert!(info.is_virtual && !info.raw && !info.is_loopback);
        let lo = &selection::named("lo").expect("lo exists");
        assert!(lo.is_virtual && !lo.raw && lo.is_loopback);
        assert_ne!(lo.native_xdp(), Some(true));
        assert_eq!((info.rx_missed, info.kind.as_deref()), (0, Some("veth")));
        assert!(by_index(9999).is_err());
    });
}

/// What a look found of a hook, and whether it was attached again.
type Found = (HookState, Option<Result<(), String>>);

fn look(attached: &mut Attached) -> (LinkState, Vec<Found>) {
    let mut look = attached.look().remove(0);
    attached.attach_again(&mut look);
    (look.state, look.hooks.into_iter().map(|hook| (hook.state, hook.again)).collect())
}

/// Two hooks, egress first, as they should be.
fn fine() -> Vec<Found> {
    vec![(HookState::Ours, None), (HookState::Ours, None)]
}

#[test]
fn a_look_at_hooks_that_nothing_happened_to_finds_them_so() {
    in_namespace(|| {
        for hook in Hook::ALL {
            let (mut attached, _) = attach_to("hs-a", HookChoice::Named(hook)).expect("it attaches");
            for _ in 0..3 {
                assert_eq!(look(&mut attached), (LinkState::Up, fine()), "{hook}");
            }
            assert_eq!(on_tc("hs-a", Direction::Egress), attached.interfaces()[0].program_ids[1..], "{hook}");
        }
    });
}

/// A veth stands in for hardware: the kernel attaches to it, and the driver's name decides.
#[test]
fn a_device_that_would_be_set_up_anew_is_attached_to_once() {
    in_namespace(|| {
        let table = [("ice", false), ("mlx4_en", false), ("new", false), ("virtio_net", true), ("sfc", true)];
        for (driver, expected) in table {
            let mut facts = facts_named(&["hs-a"]).expect("hs-a exists");
            facts[0].info.is_virtual = false;
            facts[0].info.driver = Some(driver.into());
            let choice = HookChoice::Named(Hook::XdpNative);
            let (mut attached, _) = attach_facts(&facts, choice).expect("it attaches");
            let mut lost = attached.look().remove(0);
            lost.hooks[1].state = HookState::Gone;
            attached.attach_again(&mut lost);
            let again = lost.hooks[1].again.as_ref().expect("it was tried");
            assert_eq!(again.is_ok(), expected, "{driver}: {again:?}");
        }
    });
}

#[test]
fn a_warning_says_what_xdp_does_to_this_device() {
    let with = |driver: Option<&str>, is_virtual, hook| {
        let driver = driver.map(Into::into);
        let info = InterfaceInfo { name: "eth0".into(), driver, is_virtual, ..InterfaceInfo::default() };
        before_touching(&info, hook).unwrap_or_default()
    };
    let (native, generic) = (Hook::XdpNative, Hook::XdpGeneric);
    let table = [
        (
            with(Some("ice"), false, native),
            "eth0 (ice): native XDP sets up the device's queues anew, and takes its link down for that time, now and when it is detached (--hook tcx leaves the device as it is)",
        ),
        (
            with(None, false, native),
            "eth0: what native XDP does to a device of this driver is not known, now and when it is detached (--hook tcx leaves the device as it is)",
        ),
        (
            with(Some("virtio_net"), false, native),
            "eth0 (virtio_net): native XDP turns off the offloads that merge packets, while it is attached (--hook tcx leaves the device as it is)",
        ),
        (
            with(Some("vif"), false, native),
            "eth0 (vif): native XDP may be accepted and never run (--hook tcx leaves the device as it is)",
        ),
        (with(Some("sfc"), false, native), ""),
        (with(None, true, native), ""),
        (
            with(Some("bonding"), true, native),
            "eth0 (bonding): native XDP is passed to the devices beneath, which may be set up anew, now and when it is detached (--hook tcx leaves the device as it is)",
        ),
        (
            with(Some("ice"), false, generic),
            "eth0 (ice): generic XDP turns off LRO and hardware GRO (--hook tcx leaves the device as it is)",
        ),
        (with(Some("veth"), true, generic), ""),
        (with(Some("ice"), false, Hook::Tcx), ""),
        (with(Some("ice"), false, Hook::Clsact), ""),
    ];
    for (said, expected) in table {
        assert_eq!(said, expected);
    }
}

/// What the descriptors alone allow: the chain cannot be read then, so its revision is searched for.
#[test]
fn looks_and_links_take_no_privilege() {
    in_namespace(|| {
        let has_links = tc() == Hook::Tcx;
        for hook in [Hook::Tcx, Hook::XdpNative, Hook::XdpGeneric] {
            // Before 6.6 there is no link for TC, and clsact takes CAP_NET_ADMIN.
            if hook == Hook::Tcx && !has_links {
                continue;
            }
            let facts = facts_named(&["hs-a"]).expect("hs-a exists");
            let direction = if has_links { DirectionChoice::Both } else { DirectionChoice::Ingress };
            let choice = HookChoice::Named(hook);
            let plan = plan(Selection::default(), &facts, choice, direction).expect("a plan");
            let mut attached = attach(&mut ours(), &plan, false, &mut |_| ()).expect("it attaches");
            let fine = || vec![(HookState::Ours, None); plan.interfaces[0].egress.len().min(1) + 1];
            std::thread::scope(|scope| {
                let unprivileged = scope.spawn(|| {
                    drop_capabilities();
                    assert!(!has_links || has_tcx(index_of("hs-a")).is_err(), "the chain can still be read");
                    let before = look(&mut attached);
                    // As if it had been detached: the links are closed, and the program is attached again.
                    let mut lost = attached.look().remove(0);
                    lost.hooks.iter_mut().for_each(|hook| hook.state = HookState::Gone);
                    attached.attach_again(&mut lost);
                    let again: Vec<_> = lost.hooks.into_iter().map(|hook| hook.again).collect();
                    (before, again, look(&mut attached))
                });
                let (before, again, after) = unprivileged.join().expect("no panic");
                let linked = vec![Some(Ok(())); fine().len()];
                assert_eq!((before, again), ((LinkState::Up, fine()), linked), "{hook}");
                assert_eq!(after, (LinkState::Up, fine()), "{hook}");
            });
        }
    });
}

/// What comes is attached to with what a running agent is left with: no capability, no file, and its system
/// calls alone. BPF_LINK_CREATE with a program that is loaded asks for none of TCX and XDP.
#[test]
fn what_comes_later_is_attached_to_without_a_privilege() {
    in_namespace(|| {
        // Before 6.6 clsact takes CAP_NET_ADMIN, which is kept then.
        if tc() != Hook::Tcx {
            return;
        }
        for hook in [Hook::Tcx, Hook::XdpNative, Hook::XdpGeneric] {
            let choice = InterfaceChoice { names: vec!["hs-x*".to_owned()], wait: false };
            let (selection, facts) = survey(&choice).expect("a pattern may match nothing");
            let plan = plan(selection, &facts, HookChoice::Named(hook), DirectionChoice::Both);
            let plan = plan.expect("a plan");
            let mut kernel = ours();
            for name in later(&plan) {
                load::program(&mut kernel, name).expect("the verifier takes it");
            }
            let mut attached = attach(&mut kernel, &plan, false, &mut |_| ()).expect("of none");
            assert!(!attached.may_use_clsact());
            let (ask, asked) = channel();
            let (answer, answered) = channel();
            std::thread::scope(|scope| {
                scope.spawn(move || {
                    let confined = Confinement::of(NOBODY).apply();
                    assert_eq!(confined.expect("it takes no privilege").seccomp, Ok(()));
                    while asked.recv() == Ok(()) {
                        let mut said = Vec::new();
                        let followed = attached.follow(&mut kernel, &mut |line| said.push(line.to_owned()));
                        let looks: Vec<_> = attached.look().into_iter().flat_map(|look| look.hooks).collect();
                        answer.send((followed.is_ok(), attached.interfaces(), looks, said)).expect("heard");
                    }
                });
                let step = |command: &str, names: &[&str], words: &str| {
                    run(command);
                    ask.send(()).expect("it listens");
                    let (is_ok, interfaces, looks, said) = answered.recv().expect("it answers");
                    let now: Vec<&str> = interfaces.iter().map(|on| on.info.name.as_str()).collect();
                    assert_eq!((is_ok, &now[..]), (true, names), "{hook}, {command}: {said:?}");
                    assert!(said.iter().any(|line| line.contains(words)), "{hook}, {command}: {said:?}");
                    assert!(looks.iter().all(|look| look.state == HookState::Ours), "{hook}: {looks:?}");
                    assert_eq!(looks.len(), 2 * names.len(), "{hook}, {command}");
                    for on in &interfaces {
                        let is_on = on_tc(&on.info.name, Direction::Egress).contains(&on.program_ids[1]);
                        assert!(is_on, "{hook}: {on}");
                    }
                };
                step("ip link add hs-x1 type veth peer name hs-y1", &["hs-x1"], "attached hs-x1: ");
                step("ip link add hs-x2 type veth peer name hs-y2", &["hs-x1", "hs-x2"], "attached hs-x2: ");
                step("ip link set hs-x1 name hs-z1", &["hs-z1", "hs-x2"], "hs-x1 is now called hs-z1");
                step("ip link del hs-z1", &["hs-x2"], "hs-z1 is gone");
                step("ip link add hs-x1 type veth peer name hs-y1", &["hs-x2", "hs-x1"], "attached hs-x1: ");
                step("ip link del hs-y1", &["hs-x2"], "hs-x1 is gone");
                run("ip link del hs-x2");
                drop(ask);
            });
        }
    });
}

/// Programs with room for two interfaces.
struct RoomForTwo {
    programs: Ebpf,
    watched: u16,
}

impl KernelSide for RoomForTwo {
    fn programs(&mut self) -> &mut Ebpf {
        &mut self.programs
    }

    fn enter(&mut self, interface: WatchedInterface) -> Result<u16, LiveError> {
        let number = self.programs.enter(interface)?;
        self.watched = Some(self.watched + 1).filter(|watched| *watched <= 2).ok_or(LiveError::NoRoom)?;
        Ok(number)
    }

    fn set_gate(&mut self, _: u16, _: bool) -> Result<(), LiveError> {
        Ok(())
    }

    fn leave(&mut self, _: u16) -> Result<(), LiveError> {
        self.watched -= 1;
        Ok(())
    }
}

/// Of the interfaces that find no room one is said, and each is watched when there is room for it.
#[test]
fn an_interface_without_room_waits_until_another_goes() {
    in_namespace(|| {
        let choice = InterfaceChoice { names: vec!["hs-x*".to_owned()], wait: false };
        run("ip link add hs-x1 type veth peer name hs-x2");
        run("ip link add hs-x3 type veth peer name hs-x4");
        let (selection, facts) = survey(&choice).expect("they are there");
        let ingress = DirectionChoice::Ingress;
        let plan = plan(selection, &facts, HookChoice::Named(Hook::XdpGeneric), ingress).expect("a plan");
        let mut kernel = RoomForTwo { programs: ours(), watched: 0 };
        let mut said = Vec::new();
        let mut attached = attach(&mut kernel, &plan, false, &mut |line| said.push(line.to_owned()))
            .expect("there is room for some");
        let mut follow = |said: &mut Vec<String>| {
            attached.follow(&mut kernel, &mut |line| said.push(line.to_owned())).expect("it follows");
            let looks = attached.look();
            let waiting = looks.iter().filter(|look| matches!(look.state, LinkState::Refused(_))).count();
            (attached.interfaces().len(), waiting)
        };
        assert_eq!(follow(&mut said), (2, 2));
        run("ip link add hs-x5 type veth peer name hs-y5");
        assert_eq!(follow(&mut said), (2, 3));
        let without: Vec<_> = said.iter().filter(|line| line.contains("is not watched: ")).collect();
        assert!(without.len() == 1 && without[0].contains("(2); others wait for room"), "{said:?}");
        for pair in ["hs-x1", "hs-x3"] {
            run(&format!("ip link del {pair}"));
            // At the first call one goes, and at the next there is room for certain.
            follow(&mut said);
            follow(&mut said);
        }
        assert_eq!(follow(&mut said), (1, 0));
        assert!(said.iter().any(|line| line.starts_with("attached hs-x5: ")), "{said:?}");
        assert_eq!(said.iter().filter(|line| line.contains("is not watched: ")).count(), 1, "{said:?}");
    });
}

/// Takes all capabilities from this thread.
fn drop_capabilities() {
    shed_capabilities(CapabilitySet::empty()).expect("it takes no privilege");
}

/// Where the chain cannot be read, other agents are known by their claims, and any other change puts the
/// program first again.
#[test]
fn agents_that_come_and_go_change_nothing_where_the_chain_cannot_be_read() {
    in_namespace(|| {
        if tc() != Hook::Tcx {
            return;
        }
        let attach = || attach_to("hs-a", HookChoice::Named(Hook::Tcx)).expect("it attaches").0;
        let (early, mut attached) = (attach(), attach());
        let mut bpf = theirs();
        let program: &mut SchedClassifier = loaded(&mut bpf, "their_tc").expect("it loads");
        let theirs = program.fd().expect("it is loaded").as_fd().try_clone_to_owned().expect("a descriptor");
        // Each change is made with privileges, and looked at without.
        let mut found = |change: &mut dyn FnMut()| {
            change();
            std::thread::scope(|scope| {
                let unprivileged = scope.spawn(|| {
                    drop_capabilities();
                    look(&mut attached)
                });
                unprivileged.join().expect("no panic")
            })
        };
        let (mut first, mut second, mut early) = (None, None, Some(early));
        assert_eq!(found(&mut || first = Some(attach())), (LinkState::Up, fine()), "one comes");
        assert_eq!(found(&mut || second = Some(attach())), (LinkState::Up, fine()), "another comes");
        let swap = &mut || (first, second) = (None, Some(attach()));
        assert_eq!(found(swap), (LinkState::Up, fine()), "two go, one comes");
        assert_eq!(found(&mut || early = None), (LinkState::Up, fine()), "one goes that was there before");
        let index = index_of("hs-a");
        let mut link = None;
        let (_, hooks) = found(&mut || {
            link = bpf::link_tcx(&theirs, index, Direction::Ingress, 0).ok();
            second = None;
        });
        assert!(link.is_some());
        assert_eq!(hooks[0], (HookState::Ours, None), "egress");
        assert!(matches!(&hooks[1], (HookState::Behind(_), Some(Ok(())))), "{hooks:?}");
        let ours = on_tc("hs-a", Direction::Ingress);
        assert_eq!(ours.len(), 2, "{ours:?}");
        assert_eq!(found(&mut || ()), (LinkState::Up, fine()), "it is first again");
    });
}

/// Two take one revision of the chain for theirs until the kernel decides, and one ends soon.
#[test]
fn agents_that_attach_at_once_know_each_other_when_one_ends() {
    in_namespace(|| {
        if tc() != Hook::Tcx {
            return;
        }
        let attach = || attach_to("hs-a", HookChoice::Named(Hook::Tcx)).expect("it attaches").0;
        let is_over = AtomicBool::new(false);
        let go = || {
            let attached = attach();
            std::thread::sleep(Duration::from_millis(100));
            drop(attached);
        };
        let stay = || {
            let mut attached = attach();
            drop_capabilities();
            while !is_over.load(Relaxed) {
                assert_eq!(look(&mut attached), (LinkState::Up, fine()));
                std::thread::sleep(Duration::from_millis(500));
            }
            assert_eq!(look(&mut attached), (LinkState::Up, fine()));
        };
        for _ in 0..5 {
            std::thread::scope(|scope| {
                let stays = scope.spawn(stay);
                scope.spawn(go).join().expect("no panic");
                is_over.store(true, Relaxed);
                stays.join().expect("no panic");
            });
            is_over.store(false, Relaxed);
        }
    });
}

#[test]
fn another_agent_before_ours_takes_nothing_from_it() {
    in_namespace(|| {
        for hook in [tc(), Hook::Clsact] {
            let (mut first, _) = attach_to("hs-a", HookChoice::Named(hook)).expect("it attaches");
            let (mut second, _) = attach_to("hs-a", HookChoice::Named(hook)).expect("it attaches");
            for attached in [&mut first, &mut second] {
                assert_eq!(look(attached), (LinkState::Up, fine()), "{hook}");
            }
        }
    });
}

#[test]
fn an_interface_that_got_the_index_of_ours_is_not_taken_for_it() {
    in_namespace(|| {
        let (mut attached, _) = attach_to("hs-a", HookChoice::Auto).expect("it attaches");
        let index = index_of("hs-a");
        run("ip link set hs-a down");
        run("ip link set hs-a name hs-new");
        assert_eq!(look(&mut attached), (LinkState::Down, fine()), "a renamed interface is the same");
        run("ip link del hs-new");
        run(&format!("ip link add hs-other index {index} type veth peer name hs-peer"));
        run("ip link set hs-other up");
        let gone = (HookState::Gone, None);
        assert_eq!(look(&mut attached), (LinkState::Gone, vec![gone.clone(), gone]));
        assert_eq!(on_tc("hs-other", Direction::Ingress), [0; 0]);
    });
}

#[test]
fn two_programs_that_want_to_be_first_do_not_take_turns() {
    in_namespace(|| {
        if tc() != Hook::Tcx {
            return;
        }
        let (mut attached, _) = attach_to("hs-a", HookChoice::Named(Hook::Tcx)).expect("it attaches");
        let index = index_of("hs-a");
        let mut bpf = theirs();
        let program: &mut SchedClassifier = loaded(&mut bpf, "their_tc").expect("it loads");
        let theirs = program.fd().expect("it is loaded").as_fd().try_clone_to_owned().expect("a descriptor");
        let egress = (HookState::Ours, None);
        let first = bpf::link_tcx(&theirs, index, Direction::Ingress, 0).expect("before ours");
        let (_, hooks) = look(&mut attached);
        assert!(hooks[0] == egress && hooks[1].1 == Some(Ok(())), "{hooks:?}");
        assert_eq!(look(&mut attached), (LinkState::Up, fine()));
        drop(first);
        let second = bpf::link_tcx(&theirs, index, Direction::Ingress, 0).expect("before ours");
        let (_, hooks) = look(&mut attached);
        assert!(
            matches!(&hooks[1], (HookState::Behind(names), None) if names[0].contains("their_tc")),
            "{hooks:?}"
        );
        drop(second);
        assert_eq!(look(&mut attached), (LinkState::Up, fine()));
    });
}
