//! The kernel's side: programs are loaded once, maps are cleared between scenarios, and frames are run by
//! BPF_PROG_TEST_RUN.

use std::sync::Arc;

use aya::maps::{Array, PerCpuArray, PerCpuValues};
use aya::programs::{ProgramError, SchedClassifier};
use handshake_common::abi::{ConnectTimes, ControlGroups, ROWS, Service};
use handshake_common::table::Set;
use zerocopy::IntoBytes;

use super::*;
use crate::source::live::NoHooks;
use crate::source::live::maps::PlainBytes;
use crate::source::sight::Sight;

/// `TC_ACT_UNSPEC`, which is `TCX_NEXT`.
const TC_NEXT: u32 = u32::MAX;

/// The rate of the jiffies when a test sets them, Hz.
pub(super) const HZ: u32 = 250;

/// As [`loaded`], and loads the TC programs too.
pub(super) fn loaded_whole(settings: &Settings) -> Option<Live> {
    let mut live = loaded(settings)?;
    load_tc(&mut live);
    Some(live)
}

/// As [`loaded_whole`], with the test's clocks, room for `settings`' flows and for events, and maps that are
/// not frozen.
pub(super) fn unfrozen(settings: &Settings) -> Option<Live> {
    let elf = privileged_object()?;
    let settings = Settings { events: true, test_clock: true, ..settings.clone() };
    let sizes = Sizes::for_flows(settings.max_flows);
    let mut bpf = maps::create(&elf, &settings, sizes, 0).expect("the object's maps");
    let mut live = Live {
        clock: Clock::start(&mut bpf).expect("the clock's program"),
        flows4: map_array(&bpf, "FLOWS4", sizes.slots4 as usize).expect("the table"),
        flows6: map_array(&bpf, "FLOWS6", sizes.slots6 as usize).expect("the table"),
        owners4: map_array(&bpf, "OWNERS4", sizes.slots4 as usize).expect("the owners"),
        owners6: map_array(&bpf, "OWNERS6", sizes.slots6 as usize).expect("the owners"),
        makers4: None,
        makers6: None,
        services: map_array(&bpf, "SERVICES", ROWS as usize).expect("the rows"),
        kept: None,
        connects: map_array(&bpf, "CONNECTS", TCP_SERVICES as usize).expect("the rows"),
        events: Some(take(&mut bpf, "EVENTS").expect("the ring")),
        kernel_log: None,
        clocks: settings.clocks(HZ),
        interfaces: Interfaces::new(settings.interfaces),
        test_clock: true,
        missed_snapshots: 0,
        opens: None,
        hooks: Box::new(NoHooks),
        sight: Sight::default(),
        addresses: Box::new(|| None),
        host: Arc::default(),
        bpf,
    };
    load_xdp(&mut live);
    load_tc(&mut live);
    Some(live)
}

fn load_tc(live: &mut Live) {
    for hook in [Hook::Ingress, Hook::Egress] {
        crate::load::program(live.programs(), hook.program()).expect("the verifier accepts the TC programs");
    }
}

/// Clears all tables and counters, and writes other settings and interfaces to the maps that the programs
/// read.
pub(super) fn configure(live: &mut Live, settings: &Settings, interfaces: &[WatchedInterface]) {
    clear::<Set<[u64; 8]>>(live, "FLOWS4");
    clear::<Set<[u64; 16]>>(live, "FLOWS6");
    clear::<ControlGroups>(live, "OWNERS4");
    clear::<ControlGroups>(live, "OWNERS6");
    clear::<[u64; size_of::<Service>() / 8]>(live, "SERVICES");
    clear::<ConnectTimes>(live, "CONNECTS");
    clear::<u64>(live, "CLIENTS");
    clear_per_cpu::<CpuCounts>(live, "COUNTERS");
    clear_per_cpu::<ClassBlock>(live, "CLASSES");
    clear::<u64>(live, "INTERFACES");
    clear_per_cpu::<[u64; BUCKETS]>(live, "LATENCY");
    live.clocks = settings.clocks(HZ);
    live.interfaces = Interfaces::new(settings.interfaces);
    let sizes = Sizes::for_flows(settings.max_flows);
    maps::fill(&mut live.bpf, settings, sizes, HZ).expect("maps that are not frozen");
    for interface in interfaces {
        let number = live.enter(*interface).expect("there is room");
        live.set_gate(number, true).expect("the map takes it");
    }
}

fn clear<T: FromBytes + IntoBytes + Copy + 'static>(live: &mut Live, name: &str) {
    let map = live.bpf.map_mut(name).expect("the map is there");
    let mut array: Array<_, PlainBytes<T>> = map.try_into().expect("an array of such values");
    let zero = PlainBytes(T::new_zeroed());
    (0..array.len()).for_each(|index| array.set(index, zero, 0).expect("it is not frozen"));
}

fn clear_per_cpu<T: FromBytes + IntoBytes + Copy + 'static>(live: &mut Live, name: &str) {
    let cpus = possible_cpus().expect("the possible CPUs");
    let map = live.bpf.map_mut(name).expect("the map is there");
    let mut array: PerCpuArray<_, PlainBytes<T>> = map.try_into().expect("an array of such values");
    for index in 0..array.len() {
        let zeros =
            PerCpuValues::try_from(vec![PlainBytes(T::new_zeroed()); cpus]).expect("one value per CPU");
        array.set(index, zeros, 0).expect("it is not frozen");
    }
}

/// Reads the lock words.
pub(in crate::source::live::tests) fn stripes(live: &Live) -> Vec<u64> {
    array_of_words(live, "STRIPES")
}

/// Reads the clients' words.
pub(super) fn clients(live: &Live) -> Vec<u64> {
    array_of_words(live, "CLIENTS")
}

fn array_of_words(live: &Live, name: &str) -> Vec<u64> {
    let map = live.bpf.map(name).expect("the map is there");
    let array: Array<_, u64> = map.try_into().expect("an array of words");
    array.iter().map(|word| word.expect("it is there")).collect()
}

/// Runs a hook's program on a frame, which must pass unchanged. Returns false if the kernel refuses the
/// frame.
pub(super) fn offer(live: &Live, interfaces: &[WatchedInterface], arrival: &Arrival, bytes: &[u8]) -> bool {
    let mut out = vec![0; bytes.len() + 16];
    let context = context(interfaces, arrival);
    let options = TestRunOptions {
        data_in: Some(bytes),
        data_out: Some(&mut out),
        ctx_in: (!context.is_empty()).then_some(&context),
        ..TestRunOptions::default()
    };
    let program = live.bpf.program(arrival.hook.program()).expect("loaded");
    let (result, passes) = if arrival.hook == Hook::Xdp {
        let program: &Xdp = program.try_into().expect("it is an XDP program");
        (program.test_run(options), XDP_PASS)
    } else {
        let program: &SchedClassifier = program.try_into().expect("it is a TC program");
        (program.test_run(options), TC_NEXT)
    };
    match result {
        Ok(result) => {
            assert_eq!(result.return_value, passes, "{arrival:?} did not pass the packet on");
            assert_eq!(&out[..result.data_size_out as usize], bytes, "{arrival:?} changed the packet");
            true
        }
        Err(ProgramError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::EINVAL) => {
            false
        }
        Err(error) => panic!("{arrival:?}: {error}"),
    }
}

/// The context of a test run: `struct xdp_md` or `struct __sk_buff` of linux/bpf.h, as far as a test run
/// reads it.
fn context(interfaces: &[WatchedInterface], arrival: &Arrival) -> Vec<u8> {
    const XDP_WORDS: usize = 6;
    const DATA_END: usize = 1;
    const SKB_WORDS: usize = 48;
    const IFINDEX: usize = 10;
    const GSO_SEGS: usize = 41;
    const GSO_SIZE: usize = 44;
    let mut words = Vec::new();
    if let Some(linear) = arrival.linear {
        words.resize(XDP_WORDS, 0);
        words[DATA_END] = u32::try_from(linear).expect("a short frame");
    } else if arrival.hook != Hook::Xdp {
        words.resize(SKB_WORDS, 0);
        words[IFINDEX] = interfaces[usize::from(arrival.interface)].index;
        words[GSO_SEGS] = arrival.segments;
        words[GSO_SIZE] = arrival.segment_size;
    }
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}
