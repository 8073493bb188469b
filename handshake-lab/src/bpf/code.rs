//! Assembles programs instruction by instruction (RFC 9669), so that the lab's own programs need no BPF
//! toolchain.

use std::os::fd::{AsRawFd, OwnedFd};

/// `struct bpf_insn`; RFC 9669 §3.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Instruction {
    opcode: u8,
    /// Destination in the low nibble, source in the high.
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// A register, r0 to r10.
pub(crate) type Register = u8;

/// A jump whose target is not known yet.
#[must_use = "a jump must land"]
#[derive(Debug)]
pub(crate) struct Jump(usize);

/// The condition of a jump.
#[derive(Clone, Copy, Debug)]
pub(crate) enum When {
    /// Always.
    Always,
    /// The first register is greater than the second.
    Above(Register, Register),
    /// The register equals the immediate; also the test for a null pointer.
    Equal(Register, i32),
    /// The register's lower 32 bits differ from the immediate.
    Differs(Register, i32),
}

/// A program under construction. Each method appends one instruction; loading a map takes two.
#[derive(Clone, Debug, Default)]
pub(crate) struct Code {
    instructions: Vec<Instruction>,
    /// The offsets of the functions after the first.
    functions: Vec<usize>,
}

impl Code {
    fn push(&mut self, opcode: u8, to: Register, from: Register, offset: i16, immediate: i32) -> &mut Self {
        self.instructions.push(Instruction { opcode, registers: from << 4 | to, offset, immediate });
        self
    }

    /// `to = immediate`
    pub(crate) fn set(&mut self, to: Register, immediate: i32) -> &mut Self {
        self.push(0xb7, to, 0, 0, immediate)
    }

    /// `to = from`
    pub(crate) fn copy(&mut self, to: Register, from: Register) -> &mut Self {
        self.push(0xbf, to, from, 0, 0)
    }

    /// `to += immediate`
    pub(crate) fn add(&mut self, to: Register, immediate: i32) -> &mut Self {
        self.push(0x07, to, 0, 0, immediate)
    }

    /// `to += from`
    pub(crate) fn add_register(&mut self, to: Register, from: Register) -> &mut Self {
        self.push(0x0f, to, from, 0, 0)
    }

    /// `to *= immediate`, modulo 2³²
    pub(crate) fn multiply32(&mut self, to: Register, immediate: i32) -> &mut Self {
        self.push(0x24, to, 0, 0, immediate)
    }

    /// `to &= immediate`
    pub(crate) fn and(&mut self, to: Register, immediate: i32) -> &mut Self {
        self.push(0x57, to, 0, 0, immediate)
    }

    /// `to |= immediate`
    pub(crate) fn or(&mut self, to: Register, immediate: i32) -> &mut Self {
        self.push(0x47, to, 0, 0, immediate)
    }

    /// `to ^= immediate`
    pub(crate) fn xor(&mut self, to: Register, immediate: i32) -> &mut Self {
        self.push(0xa7, to, 0, 0, immediate)
    }

    /// `to <<= bits`, modulo 2³²
    pub(crate) fn shift_left32(&mut self, to: Register, bits: i32) -> &mut Self {
        self.push(0x64, to, 0, 0, bits)
    }

    /// `to >>= bits`
    pub(crate) fn shift_right(&mut self, to: Register, bits: i32) -> &mut Self {
        self.push(0x77, to, 0, 0, bits)
    }

    /// `to = *(u8 *)(from + offset)`
    pub(crate) fn load8(&mut self, to: Register, from: Register, offset: i16) -> &mut Self {
        self.push(0x71, to, from, offset, 0)
    }

    /// `to = *(u32 *)(from + offset)`
    pub(crate) fn load32(&mut self, to: Register, from: Register, offset: i16) -> &mut Self {
        self.push(0x61, to, from, offset, 0)
    }

    /// `*(u16 *)(to + offset) = from`
    pub(crate) fn store16(&mut self, to: Register, offset: i16, from: Register) -> &mut Self {
        self.push(0x6b, to, from, offset, 0)
    }

    /// `*(u32 *)(to + offset) = from`
    pub(crate) fn store32(&mut self, to: Register, offset: i16, from: Register) -> &mut Self {
        self.push(0x63, to, from, offset, 0)
    }

    /// `*(u32 *)(to + offset) = immediate`
    pub(crate) fn store32_immediate(&mut self, to: Register, offset: i16, immediate: i32) -> &mut Self {
        self.push(0x62, to, 0, offset, immediate)
    }

    /// `*(u64 *)to += from`, atomically; `from` receives the previous value.
    pub(crate) fn fetch_add(&mut self, to: Register, from: Register) -> &mut Self {
        const ADD_AND_FETCH: i32 = 1;
        self.push(0xdb, to, from, 0, ADD_AND_FETCH)
    }

    /// `to = map`, for a helper.
    pub(crate) fn map(&mut self, to: Register, map: &OwnedFd) -> &mut Self {
        self.push(0x18, to, 1, 0, map.as_raw_fd()).push(0, 0, 0, 0, 0)
    }

    /// `to = &map[0]`, the address of an array's first value.
    pub(crate) fn value(&mut self, to: Register, map: &OwnedFd) -> &mut Self {
        self.push(0x18, to, 2, 0, map.as_raw_fd()).push(0, 0, 0, 0, 0)
    }

    /// Calls the helper with this number.
    pub(crate) fn call(&mut self, helper: i32) -> &mut Self {
        self.push(0x85, 0, 0, 0, helper)
    }

    /// Appends a jump; [`Code::land`] sets its target.
    pub(crate) fn jump(&mut self, when: When) -> Jump {
        match when {
            When::Always => self.push(0x05, 0, 0, 0, 0),
            When::Above(register, other) => self.push(0x2d, register, other, 0, 0),
            When::Equal(register, value) => self.push(0x15, register, 0, 0, value),
            When::Differs(register, value) => self.push(0x56, register, 0, 0, value),
        };
        Jump(self.instructions.len() - 1)
    }

    /// Makes the next instruction the jump's target.
    ///
    /// # Panics
    /// The distance exceeds 32,767 instructions.
    pub(crate) fn land(&mut self, jump: Jump) -> &mut Self {
        let here = self.instructions.len();
        let distance = i16::try_from(here - jump.0 - 1).expect("a short program");
        let jump = &mut self.instructions[jump.0];
        if jump.opcode == 0x85 {
            self.functions.push(here);
            jump.immediate = distance.into();
        } else {
            jump.offset = distance;
        }
        self
    }

    /// Ends the program or function; r0 is the return value.
    pub(crate) fn exit(&mut self) -> &mut Self {
        self.push(0x95, 0, 0, 0, 0)
    }

    /// The instructions up to now.
    pub(crate) fn instructions(&self) -> &[Instruction] {
        &self.instructions
    }

    /// The offsets of all functions in order; empty if there is only one.
    pub(crate) fn functions(&self) -> Vec<usize> {
        let first = (!self.functions.is_empty()).then_some(0);
        first.into_iter().chain(self.functions.iter().copied()).collect()
    }
}
