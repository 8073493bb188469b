//! A packet flood inside the kernel: an XDP program that makes a new packet each time it runs and tail-calls
//! the program under test. The packet comes from one of several templates, with a client that is random or
//! the next in turn. BPF_PROG_TEST_RUN repeats this a million times per second.

use std::os::fd::{AsFd, FromRawFd, OwnedFd};

use aya::programs::Xdp;

use super::*;

/// The size of every packet of a flood, bytes; shorter frames are padded.
const FRAME: usize = 120;
/// The size of a template in words: the frame, and one word with the place of the client's address in it and
/// the number of the next client.
const WORDS: usize = FRAME / 8 + 1;
/// The place of the next client's number in a template, bytes.
const NEXT: usize = FRAME + 4;

/// A frame, and the place of the last four bytes of the client's address in it.
pub(super) struct Template {
    pub(super) frame: Vec<u8>,
    pub(super) client: u8,
}

impl Template {
    fn words(&self) -> [u64; WORDS] {
        let mut bytes = [0; WORDS * 8];
        bytes[..self.frame.len()].copy_from_slice(&self.frame);
        bytes[FRAME..FRAME + 4].copy_from_slice(&u32::from(self.client).to_ne_bytes());
        let mut words = [0; WORDS];
        for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = u64::from_ne_bytes(bytes.try_into().expect("eight bytes"));
        }
        words
    }
}

/// The clients of the packets. A client's number is XORed into the template's address.
#[derive(Clone, Copy)]
enum Clients {
    /// A random one of 2^n clients.
    AtRandom(u32),
    /// Client 0, 1, 2 …, the next one with each run.
    InTurn,
}

/// The loaded flood program and its maps.
pub(super) struct Flood {
    program: OwnedFd,
    templates: OwnedFd,
    _target: OwnedFd,
}

impl Flood {
    /// A flood from 2^`client_bits` random clients. The number of `templates` is a power of two; all are
    /// equally likely.
    pub(super) fn new(live: &Live, templates: &[Template], client_bits: u32) -> Self {
        Self::of(live, templates, Clients::AtRandom(client_bits))
    }

    /// A flood with one packet per client, from client 0 on. The client's number is XORed into the template's
    /// address.
    pub(super) fn in_turn(live: &Live, template: &Template) -> Self {
        Self::of(live, std::slice::from_ref(template), Clients::InTurn)
    }

    /// Replaces the only template by another, and starts again with client 0.
    pub(super) fn begin(&self, template: &Template) {
        update(&self.templates, 0, template.words().as_ptr().cast());
    }

    fn of(live: &Live, templates: &[Template], clients: Clients) -> Self {
        let count = u32::try_from(templates.len()).expect("a few templates");
        assert!(count.is_power_of_two());
        let map = create_map(ARRAY, (WORDS * 8).try_into().expect("a small value"), count);
        for (index, template) in (0..).zip(templates) {
            update(&map, index, template.words().as_ptr().cast());
        }
        let target = create_map(PROGRAM_ARRAY, 4, 1);
        let program: &Xdp = live.bpf.program("handshake_xdp").expect("loaded").try_into().expect("XDP");
        let fd = program.fd().expect("loaded").as_fd().as_raw_fd();
        update(&target, 0, (&raw const fd).cast());
        let program = load(&program_of(&map, &target, count - 1, clients));
        Self { program, templates: map, _target: target }
    }

    /// Runs `repeat` packets on this CPU. Returns the average time per packet while the program had the CPU,
    /// ns.
    pub(super) fn run(&self, repeat: u32) -> u32 {
        let frame = [0_u8; FRAME];
        let mut test = Test {
            program: self.program.as_raw_fd().cast_unsigned(),
            size_in: frame.len().try_into().expect("a short frame"),
            data_in: frame.as_ptr() as u64,
            repeat,
            ..Test::default()
        };
        bpf(10, &mut test).expect("a test run");
        assert_eq!(test.result, XDP_PASS, "the tail call did not happen, or the program does not pass");
        test.duration
    }
}

/// `BPF_MAP_TYPE_ARRAY` and `BPF_MAP_TYPE_PROG_ARRAY`.
const ARRAY: u32 = 2;
const PROGRAM_ARRAY: u32 = 3;

/// `struct bpf_insn`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Instruction {
    opcode: u8,
    /// The destination register in the low nibble, the source in the high.
    registers: u8,
    offset: i16,
    immediate: i32,
}

const fn instruction(opcode: u8, to: u8, from: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { opcode, registers: from << 4 | to, offset, immediate }
}

/// Opcodes, named as the kernel's disassembler writes them.
mod op {
    pub(super) const MOV: u8 = 0xbf;
    pub(super) const MOV_K: u8 = 0xb7;
    pub(super) const ADD: u8 = 0x0f;
    pub(super) const ADD_K: u8 = 0x07;
    pub(super) const AND_K: u8 = 0x57;
    pub(super) const RSH_K: u8 = 0x77;
    pub(super) const XOR: u8 = 0xaf;
    pub(super) const LOAD_32: u8 = 0x61;
    pub(super) const LOAD_64: u8 = 0x79;
    pub(super) const STORE_32: u8 = 0x63;
    pub(super) const STORE_64: u8 = 0x7b;
    pub(super) const JUMP_GT: u8 = 0x2d;
    pub(super) const JUMP_EQ_K: u8 = 0x15;
    /// The immediate is the number of bits.
    pub(super) const TO_BIG_ENDIAN: u8 = 0xdc;
    pub(super) const CALL: u8 = 0x85;
    pub(super) const EXIT: u8 = 0x95;
    /// Takes two instructions. With source 1, the immediate is a map's descriptor.
    pub(super) const LOAD_MAP: u8 = 0x18;
}

/// Helper functions: `bpf_map_lookup_elem`, `bpf_get_prandom_u32`, `bpf_tail_call`.
const LOOK_UP: i32 = 1;
const RANDOM: i32 = 7;
const TAIL_CALL: i32 = 12;

/// The flood program. r6: the context, r7: the packet, r8: its end, r9: the random word.
fn program_of(templates: &OwnedFd, target: &OwnedFd, mask: u32, clients: Clients) -> Vec<Instruction> {
    let i = instruction;
    let frame = i32::try_from(FRAME).expect("a short frame");
    let mut code = vec![
        i(op::MOV, 6, 1, 0, 0),
        i(op::LOAD_32, 7, 6, 0, 0),
        i(op::LOAD_32, 8, 6, 4, 0),
        i(op::CALL, 0, 0, 0, RANDOM),
        i(op::MOV, 9, 0, 0, 0),
        // The template: *(r10 - 4) = r9 & mask; r0 = lookup(templates, r10 - 4)
        i(op::MOV, 1, 9, 0, 0),
        i(op::AND_K, 1, 0, 0, mask.cast_signed()),
        i(op::STORE_32, 10, 1, -4, 0),
        i(op::MOV, 2, 10, 0, 0),
        i(op::ADD_K, 2, 0, 0, -4),
        i(op::LOAD_MAP, 1, 1, 0, templates.as_raw_fd()),
        i(0, 0, 0, 0, 0),
        i(op::CALL, 0, 0, 0, LOOK_UP),
        i(op::JUMP_EQ_K, 0, 0, 0, 0),
        // The frame, if the packet is as long as expected.
        i(op::MOV, 1, 7, 0, 0),
        i(op::ADD_K, 1, 0, 0, frame),
        i(op::JUMP_GT, 1, 8, 0, 0),
    ];
    for word in 0..i16::try_from(WORDS - 1).expect("a few words") {
        code.push(i(op::LOAD_64, 1, 0, word * 8, 0));
        code.push(i(op::STORE_64, 7, 1, word * 8, 0));
    }
    code.extend(client_of(clients));
    code.extend([
        // The client: *(r7 + template.client) ^= r9
        i(op::LOAD_32, 1, 0, i16::try_from(FRAME).expect("a short frame"), 0),
        i(op::AND_K, 1, 0, 0, 63),
        i(op::ADD, 7, 1, 0, 0),
        i(op::MOV, 1, 7, 0, 0),
        i(op::ADD_K, 1, 0, 0, 4),
        i(op::JUMP_GT, 1, 8, 0, 0),
        i(op::LOAD_32, 1, 7, 0, 0),
        i(op::XOR, 1, 9, 0, 0),
        i(op::STORE_32, 7, 1, 0, 0),
        i(op::MOV, 1, 6, 0, 0),
        i(op::LOAD_MAP, 2, 1, 0, target.as_raw_fd()),
        i(0, 0, 0, 0, 0),
        i(op::MOV_K, 3, 0, 0, 0),
        i(op::CALL, 0, 0, 0, TAIL_CALL),
        i(op::MOV_K, 0, 0, 0, 0),
        i(op::EXIT, 0, 0, 0, 0),
    ]);
    land_jumps(&mut code);
    code
}

/// Computes the client's number in r9, from the random word or from the template at r0, in network byte
/// order.
fn client_of(clients: Clients) -> Vec<Instruction> {
    let i = instruction;
    let next = i16::try_from(NEXT).expect("a short frame");
    match clients {
        // Random bits above those that choose the template.
        Clients::AtRandom(bits) => {
            vec![i(op::RSH_K, 9, 0, 0, 8), i(op::AND_K, 9, 0, 0, (1 << bits) - 1)]
        }
        Clients::InTurn => vec![
            i(op::LOAD_32, 9, 0, next, 0),
            i(op::MOV, 1, 9, 0, 0),
            i(op::ADD_K, 1, 0, 0, 1),
            i(op::STORE_32, 0, 1, next, 0),
            i(op::TO_BIG_ENDIAN, 9, 0, 0, 32),
        ],
    }
}

/// Points every jump at the end, which returns 0 (`XDP_ABORTED`).
fn land_jumps(code: &mut [Instruction]) {
    let end = code.len() - 2;
    for (place, instruction) in code.iter_mut().enumerate() {
        if matches!(instruction.opcode, op::JUMP_GT | op::JUMP_EQ_K) {
            instruction.offset = i16::try_from(end - place - 1).expect("a short program");
        }
    }
}

/// The members of `union bpf_attr` for BPF_MAP_CREATE (0).
#[repr(C)]
struct MapCreate {
    kind: u32,
    key: u32,
    value: u32,
    entries: u32,
}

/// The members of `union bpf_attr` for BPF_MAP_UPDATE_ELEM (2).
#[repr(C)]
struct Update {
    map: u64,
    key: u64,
    value: u64,
    flags: u64,
}

/// The members of `union bpf_attr` for BPF_PROG_LOAD (5).
#[repr(C)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    attach_type: u32,
}

/// The members of `union bpf_attr` for BPF_PROG_TEST_RUN (10).
#[derive(Default)]
#[repr(C)]
struct Test {
    program: u32,
    result: u32,
    size_in: u32,
    size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
}

fn create_map(kind: u32, value: u32, entries: u32) -> OwnedFd {
    owned(bpf(0, &mut MapCreate { kind, key: 4, value, entries }).expect("a map"))
}

fn update(map: &OwnedFd, index: u32, value: *const u8) {
    let map = u64::from(map.as_raw_fd().cast_unsigned());
    let key = &raw const index as u64;
    bpf(2, &mut Update { map, key, value: value as u64, flags: 0 }).expect("a map's value");
}

/// Loads an XDP program that accepts frames in fragments: only such a program may tail-call another one.
fn load(code: &[Instruction]) -> OwnedFd {
    const XDP: u32 = 6;
    const HAS_FRAGS: u32 = 1 << 5;
    const ATTACH_XDP: u32 = 37;
    let mut log = vec![0_u8; 1 << 16];
    let loaded = bpf(
        5,
        &mut Load {
            kind: XDP,
            count: u32::try_from(code.len()).expect("a short program"),
            instructions: code.as_ptr() as u64,
            license: c"Dual MIT/GPL".as_ptr() as u64,
            log_level: 1,
            log_size: u32::try_from(log.len()).expect("a short log"),
            log: log.as_mut_ptr() as u64,
            kernel_version: 0,
            flags: HAS_FRAGS,
            name: *b"flood\0\0\0\0\0\0\0\0\0\0\0",
            interface: 0,
            attach_type: ATTACH_XDP,
        },
    );
    owned(loaded.unwrap_or_else(|error| panic!("{error}\n{}", String::from_utf8_lossy(&log))))
}

fn owned(descriptor: i64) -> OwnedFd {
    let descriptor = i32::try_from(descriptor).expect("a descriptor");
    // SAFETY: the kernel has just created this descriptor, and nothing else owns it.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}

/// Calls bpf(2). `attributes` are the command's part of `union bpf_attr`; the memory they point to outlives
/// the call.
fn bpf<T>(command: i64, attributes: &mut T) -> io::Result<i64> {
    // SAFETY: the structs above have the kernel's layout, and their pointers are to memory of the sizes they
    // state.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attributes, size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
