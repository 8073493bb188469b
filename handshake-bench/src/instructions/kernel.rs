//! What the kernel is to the interpreted programs: maps as plain memory, helpers, contexts, and clocks that
//! stand where they are set. One CPU.

use anyhow::{Context, Result, bail, ensure};
use aya_obj::Map;
use aya_obj::generated::{bpf_func_id, bpf_map_type};

use super::machine::{Answer, Environment};
use super::memory::Memory;
use crate::hook::BenchHook;

/// Jiffies a second.
pub(super) const HZ: u32 = 250;
/// Bytes of an entry of a ring at most.
const ENTRY: usize = 4096;

/// A map's values.
struct MapValues {
    kind: u32,
    /// The bytes between two values.
    stride: usize,
    count: u32,
    start: u64,
}

/// The maps, the packet that is seen, and the clocks.
pub(super) struct Kernel {
    /// By descriptor, from 1 on: no descriptor is an address.
    maps: Vec<MapValues>,
    /// The program that the tail calls end in.
    next: usize,
    /// Where frames, contexts and entries of rings are.
    frame: u64,
    context: u64,
    entry: u64,
    length: usize,
    /// The monotonic clock, ns.
    pub(super) now_ns: u64,
    /// The control group of the socket that sent the packet; 0: not this host's.
    pub(super) group: u64,
}

impl Kernel {
    /// Gives each map its memory. `next`: the number of the program that the others tail-call.
    pub(super) fn new<'a>(
        memory: &mut Memory,
        maps: impl Iterator<Item = &'a Map>,
        next: usize,
    ) -> Result<Self> {
        let maps = maps.map(|map| MapValues::new(memory, map)).collect::<Result<_>>()?;
        let [frame, context] = [(); 2].map(|()| memory.add(Vec::new()));
        let entry = memory.add(vec![0; ENTRY]);
        Ok(Self { maps, next, frame, context, entry, length: 0, now_ns: 1_000_000_000_000, group: 0 })
    }

    /// Puts a frame and its context in memory. Returns the context's address.
    pub(super) fn receive(
        &mut self,
        memory: &mut Memory,
        hook: BenchHook,
        interface: u32,
        frame: &[u8],
    ) -> Result<u64> {
        memory.replace(self.frame, frame)?;
        self.length = frame.len();
        let (start, length) = (u32::try_from(self.frame)?, u32::try_from(frame.len())?);
        let context = match hook {
            BenchHook::Xdp => xdp_context(start, start + length, interface),
            BenchHook::Tc => socket_buffer(start, start + length, interface, frame),
        };
        memory.replace(self.context, &context)?;
        Ok(self.context)
    }

    /// The bytes of a map's values.
    pub(super) fn all_values<'a>(&self, memory: &'a Memory, descriptor: i32) -> Result<&'a [u8]> {
        let map = self.map(u64::try_from(descriptor)?)?;
        memory.bytes(map.start, map.stride * map.count as usize)
    }

    fn map(&self, descriptor: u64) -> Result<&MapValues> {
        let place = usize::try_from(descriptor)?.checked_sub(1);
        place.and_then(|place| self.maps.get(place)).with_context(|| format!("no map {descriptor}"))
    }

    fn look_up(&self, memory: &Memory, map: u64, key: u64) -> Result<u64> {
        let map = self.map(map)?;
        if map.kind == bpf_map_type::BPF_MAP_TYPE_HASH as u32 {
            // No address of this host is known.
            return Ok(0);
        }
        ensure!(map.is_array(), "a lookup in a map of type {}", map.kind);
        let index = memory.load(key, size_of::<u32>())?;
        Ok(if index < u64::from(map.count) { map.start + index * map.stride as u64 } else { 0 })
    }

    /// Copies bytes of the frame, as the helpers do that say with a number below 0 that there are none.
    fn copy(&self, memory: &mut Memory, from: u64, [to, size]: [u64; 2]) -> Result<u64> {
        const FAULT: u64 = (-14_i64).cast_unsigned();
        let (from, size) = (usize::try_from(from)?, usize::try_from(size)?);
        if from + size > self.length {
            return Ok(FAULT);
        }
        let bytes = memory.bytes(self.frame + from as u64, size)?.to_vec();
        memory.set(to, &bytes)?;
        Ok(0)
    }

    fn jiffies(&self) -> u64 {
        self.now_ns / (1_000_000_000 / u64::from(HZ))
    }
}

impl MapValues {
    fn new(memory: &mut Memory, map: &Map) -> Result<Self> {
        let (kind, count) = (map.map_type(), map.max_entries());
        let stride = usize::try_from(map.value_size())?.next_multiple_of(8);
        let values = Self { kind, stride, count, start: 0 };
        let mut bytes = vec![0; if values.is_array() { stride * count as usize } else { 0 }];
        let data = map.data();
        bytes.get_mut(..data.len()).context("a section larger than its map")?.copy_from_slice(data);
        Ok(Self { start: memory.add(bytes), ..values })
    }

    const fn is_array(&self) -> bool {
        self.kind == bpf_map_type::BPF_MAP_TYPE_ARRAY as u32
            || self.kind == bpf_map_type::BPF_MAP_TYPE_PERCPU_ARRAY as u32
    }
}

impl Environment for Kernel {
    fn call(&mut self, memory: &mut Memory, helper: i32, arguments: &[u64; 5]) -> Result<Answer> {
        const LOOK_UP: i32 = bpf_func_id::BPF_FUNC_map_lookup_elem as i32;
        const TAIL_CALL: i32 = bpf_func_id::BPF_FUNC_tail_call as i32;
        const CLOCK: i32 = bpf_func_id::BPF_FUNC_ktime_get_ns as i32;
        const JIFFIES: i32 = bpf_func_id::BPF_FUNC_jiffies64 as i32;
        const CPU: i32 = bpf_func_id::BPF_FUNC_get_smp_processor_id as i32;
        const GROUP: i32 = bpf_func_id::BPF_FUNC_skb_cgroup_id as i32;
        const LENGTH: i32 = bpf_func_id::BPF_FUNC_xdp_get_buff_len as i32;
        const XDP_LOAD: i32 = bpf_func_id::BPF_FUNC_xdp_load_bytes as i32;
        const SKB_LOAD: i32 = bpf_func_id::BPF_FUNC_skb_load_bytes as i32;
        const RESERVE: i32 = bpf_func_id::BPF_FUNC_ringbuf_reserve as i32;
        const SUBMIT: i32 = bpf_func_id::BPF_FUNC_ringbuf_submit as i32;
        const DISCARD: i32 = bpf_func_id::BPF_FUNC_ringbuf_discard as i32;
        let [one, two, three, four, _] = *arguments;
        Ok(Answer::Value(match helper {
            LOOK_UP => self.look_up(memory, one, two)?,
            TAIL_CALL => {
                let is_array = self.map(two)?.kind == bpf_map_type::BPF_MAP_TYPE_PROG_ARRAY as u32;
                ensure!(is_array && three == 0, "a tail call to entry {three} of map {two}");
                return Ok(Answer::TailCall(self.next));
            }
            CLOCK => self.now_ns,
            JIFFIES => self.jiffies(),
            CPU => 0,
            GROUP => self.group,
            LENGTH => self.length as u64,
            XDP_LOAD | SKB_LOAD => self.copy(memory, two, [three, four])?,
            RESERVE => {
                ensure!(two <= ENTRY as u64, "an entry of {two} bytes");
                self.entry
            }
            // What is sent is dropped.
            SUBMIT | DISCARD => 0,
            _ => bail!("an unknown helper, {helper}"),
        }))
    }

    fn values(&self, descriptor: i32) -> Result<u64> {
        Ok(self.map(u64::try_from(descriptor)?)?.start)
    }
}

/// Writes the fields of a context at their offsets (include/uapi/linux/bpf.h).
fn context<const SIZE: usize>(fields: &[(usize, u32)]) -> Vec<u8> {
    let mut bytes = [0; SIZE];
    for (offset, value) in fields {
        bytes[*offset..][..4].copy_from_slice(&value.to_le_bytes());
    }
    bytes.to_vec()
}

/// `struct xdp_md`: `data`, `data_end`, `ingress_ifindex`.
fn xdp_context(start: u32, end: u32, interface: u32) -> Vec<u8> {
    context::<24>(&[(0, start), (4, end), (12, interface)])
}

/// `struct __sk_buff`: `len`, `protocol`, `ifindex`, `data`, `data_end`. Of one segment, as test runs make it.
fn socket_buffer(start: u32, end: u32, interface: u32, frame: &[u8]) -> Vec<u8> {
    const PROTOCOL: std::ops::Range<usize> = 12..14;
    // In the order of the network, in the lower half.
    let protocol = frame.get(PROTOCOL).map_or(0, |bytes| u32::from_le_bytes([bytes[0], bytes[1], 0, 0]));
    context::<192>(&[(0, end - start), (16, protocol), (40, interface), (76, start), (80, end)])
}
