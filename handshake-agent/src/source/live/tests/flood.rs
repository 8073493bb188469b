//! A flood inside the kernel: an XDP program that makes a new packet each time it runs, out of one of some templates with
//! a client at random or the next one, and tail-calls the program under test. BPF_PROG_TEST_RUN then repeats it a million
//! times a second.

use std::os::fd::{AsFd, FromRawFd, OwnedFd};

use aya::programs::Xdp;

use super::*;

/// Bytes of every packet of a flood; shorter ones are padded.
const FRAME: usize = 120;
/// Words of a template: the frame's, and one of where the client's address is in it and of the next client.
const WORDS: usize = FRAME / 8 + 1;
/// Where the next client is in a template.
const NEXT: usize = FRAME + 4;

/// A frame, and where in it the last four bytes of the client's address are.
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

/// Which clients the packets come from: these bits are put before the low ones of the template's.
#[derive(Clone, Copy)]
enum Clients {
    /// Any of 2^n.
    AtRandom(u32),
    /// 0, 1, 2 …, as far as the runs go.
    InTurn,
}

/// The loaded program and its maps.
pub(super) struct Flood {
    program: OwnedFd,
    templates: OwnedFd,
    _target: OwnedFd,
}

impl Flood {
    /// `templates`: a power of two of them, each as likely. Clients are 2^`client_bits`.
    pub(super) fn new(live: &Live, templates: &[Template], client_bits: u32) -> Self {
        Self::of(live, templates, Clients::AtRandom(client_bits))
    }

    /// One packet of each client, from client 0 on: the template's address with the client's number put over it.
    pub(super) fn in_turn(live: &Live, template: &Template) -> Self {
        Self::of(live, std::slice::from_ref(template), Clients::InTurn)
    }

    /// Has the one template give way to another, which begins with client 0.
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

    /// Runs `repeat` packets through on this CPU, and gives the ns each took while it had the CPU.
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
    /// Destination in the low nibble, source in the high.
    registers: u8,
    offset: i16,
    immediate: i32,
}

const fn instruction(opcode: u8, to: u8, from: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { opcode, registers: from << 4 | to, offset, immediate }
}

/// Named as the kernel's disassembler writes them.
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
    /// The immediate is how many bits.
    pub(super) const TO_BIG_ENDIAN: u8 = 0xdc;
    pub(super) const CALL: u8 = 0x85;
    pub(super) const EXIT: u8 = 0x95;
    /// Two instructions; source 1: the immediate is a map's descriptor.
    pub(super) const LOAD_MAP: u8 = 0x18;
}

/// `bpf_map_lookup_elem`, `bpf_get_prandom_u32`, `bpf_tail_call`.
const LOOK_UP: i32 = 1;
const RANDOM: i32 = 7;
const TAIL_CALL: i32 = 12;

/// r6 the context, r7 the packet, r8 its end, r9 what is random.
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
        // The frame: as long as it was made.
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

/// r9 from what is random, or from the template at r0; in the frame's order of bytes.
fn client_of(clients: Clients) -> Vec<Instruction> {
    let i = instruction;
    let next = i16::try_from(NEXT).expect("a short frame");
    match clients {
        // Random bits, shifted past the template's.
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

/// Every jump goes to the end, which returns 0 (`XDP_ABORTED`).
fn land_jumps(code: &mut [Instruction]) {
    let end = code.len() - 2;
    for (place, instruction) in code.iter_mut().enumerate() {
        if matches!(instruction.opcode, op::JUMP_GT | op::JUMP_EQ_K) {
            instruction.offset = i16::try_from(end - place - 1).expect("a short program");
        }
    }
}

/// Members of `union bpf_attr` for BPF_MAP_CREATE (0).
#[repr(C)]
struct MapCreate {
    kind: u32,
    key: u32,
    value: u32,
    entries: u32,
}

/// For BPF_MAP_UPDATE_ELEM (2).
#[repr(C)]
struct Update {
    map: u64,
    key: u64,
    value: u64,
    flags: u64,
}

/// For BPF_PROG_LOAD (5).
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

/// For BPF_PROG_TEST_RUN (10).
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

/// An XDP program that takes frames in fragments: only such may tail-call one that does.
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
    // SAFETY: the kernel has just made it for us, and nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}

/// `bpf(2)`: `attributes` are the command's part of `union bpf_attr`; what they point to lives through the call.
fn bpf<T>(command: i64, attributes: &mut T) -> std::io::Result<i64> {
    // SAFETY: the structs above lie as the kernel's, and their pointers are to memory of the sizes they say.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attributes, size_of::<T>()) };
    if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(result) }
}
