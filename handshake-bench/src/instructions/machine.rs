//! The interpreter of BPF: the instruction set up to its third version, which the object is compiled for
//! (RFC 9669 without the conformance groups that came later). Anything else is an error.
//!
//! It runs what the loader hands to the kernel. The kernel goes on from there: it looks up arrays inline, and
//! leaves out what constants decide. So its own listing has other numbers.

use anyhow::{Context, Result, bail, ensure};
use aya_obj::generated::{
    BPF_ADD, BPF_ALU, BPF_ALU64, BPF_AND, BPF_ARSH, BPF_ATOMIC, BPF_B, BPF_CALL, BPF_CMPXCHG, BPF_DIV,
    BPF_DW, BPF_END, BPF_EXIT, BPF_FETCH, BPF_H, BPF_IMM, BPF_JA, BPF_JEQ, BPF_JGE, BPF_JGT, BPF_JLE,
    BPF_JLT, BPF_JMP, BPF_JMP32, BPF_JNE, BPF_JSET, BPF_JSGE, BPF_JSGT, BPF_JSLE, BPF_JSLT, BPF_LD, BPF_LDX,
    BPF_LSH, BPF_MEM, BPF_MOD, BPF_MOV, BPF_MUL, BPF_NEG, BPF_OR, BPF_PSEUDO_CALL, BPF_PSEUDO_MAP_FD,
    BPF_PSEUDO_MAP_VALUE, BPF_RSH, BPF_ST, BPF_STX, BPF_SUB, BPF_W, BPF_X, BPF_XCHG, BPF_XOR, bpf_insn,
};

use super::memory::Memory;

/// The stack of a function, bytes.
const STACK: usize = 512;
/// Calls within each other, the program's own included.
const DEPTH: usize = 8;
/// Instructions after which a program is taken for one that does not end.
const LIMIT: u64 = 1_000_000;
/// The registers that a call keeps for its caller.
const KEPT: std::ops::Range<usize> = 6..10;
const STACK_POINTER: usize = 10;
/// What a call is of, and what a constant is: its register says so.
const HELPER: usize = 0;
const FUNCTION: usize = BPF_PSEUDO_CALL as usize;
const NUMBER: usize = 0;
const MAP: usize = BPF_PSEUDO_MAP_FD as usize;
const VALUE: usize = BPF_PSEUDO_MAP_VALUE as usize;

/// An instruction. One of 16 bytes is two, of which the second is not executed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Instruction {
    code: u32,
    to: usize,
    from: usize,
    offset: i16,
    immediate: i32,
}

impl From<&bpf_insn> for Instruction {
    fn from(insn: &bpf_insn) -> Self {
        Self {
            code: u32::from(insn.code),
            to: usize::from(insn.dst_reg()),
            from: usize::from(insn.src_reg()),
            offset: insn.off,
            immediate: insn.imm,
        }
    }
}

impl Instruction {
    const fn class(self) -> u32 {
        self.code & 0x07
    }

    const fn operation(self) -> u32 {
        self.code & 0xf0
    }

    /// The bytes that a load or a store moves.
    fn size(self) -> usize {
        match self.code & (BPF_B | BPF_H) {
            BPF_B => 1,
            BPF_H => 2,
            BPF_W => 4,
            _ => 8,
        }
    }
}

/// What was executed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Executed {
    /// Of a helper's call only the call.
    pub(super) instructions: u64,
    /// Calls of helpers, lookups in maps included.
    pub(super) helpers: u64,
    /// Atomic operations.
    pub(super) atomics: u64,
}

/// What a helper's call ends in.
#[derive(Clone, Copy, Debug)]
pub(super) enum Answer {
    /// The program goes on with this.
    Value(u64),
    /// The program with this number takes its place.
    TailCall(usize),
}

/// What the programs call and refer to.
pub(super) trait Environment {
    /// Calls the helper with this number.
    fn call(&mut self, memory: &mut Memory, helper: i32, arguments: &[u64; 5]) -> Result<Answer>;
    /// The address of the values of the map with this descriptor.
    fn values(&self, descriptor: i32) -> Result<u64>;
}

/// Programs, and the memory that they share.
pub(super) struct Machine<E> {
    pub(super) memory: Memory,
    pub(super) environment: E,
    /// The end of each function's stack, by depth.
    stacks: [u64; DEPTH],
}

impl<E: Environment> Machine<E> {
    pub(super) fn new(mut memory: Memory, environment: E) -> Self {
        let stacks = [(); DEPTH].map(|()| memory.add(vec![0; STACK]) + STACK as u64);
        Self { memory, environment, stacks }
    }

    /// Runs one of the programs on a context. Returns what it returns, and what was executed.
    pub(super) fn run(
        &mut self,
        programs: &[Vec<Instruction>],
        program: usize,
        context: u64,
    ) -> Result<(u64, Executed)> {
        let mut run = Run {
            machine: self,
            programs,
            registers: [0; 11],
            program,
            at: 0,
            callers: Vec::new(),
            executed: Executed::default(),
        };
        run.begin(program, context);
        loop {
            let (at, instruction) = (run.at, run.fetch()?);
            let is_over =
                run.step(instruction).with_context(|| format!("instruction {at}: {instruction:x?}"))?;
            if is_over {
                return Ok((run.registers[0], run.executed));
            }
            ensure!(run.executed.instructions < LIMIT, "the program does not end");
        }
    }
}

/// A program that is being run.
struct Run<'a, E> {
    machine: &'a mut Machine<E>,
    programs: &'a [Vec<Instruction>],
    registers: [u64; 11],
    program: usize,
    /// The next instruction.
    at: usize,
    /// Where each caller goes on, and its kept registers.
    callers: Vec<(usize, [u64; KEPT.end - KEPT.start])>,
    executed: Executed,
}

impl<E: Environment> Run<'_, E> {
    fn begin(&mut self, program: usize, context: u64) {
        (self.program, self.at) = (program, 0);
        self.registers[1] = context;
        self.registers[STACK_POINTER] = self.machine.stacks[0];
    }

    fn fetch(&mut self) -> Result<Instruction> {
        let program = self.programs.get(self.program).context("no such program")?;
        let instruction = *program.get(self.at).context("the program ends without an exit")?;
        self.at += 1;
        Ok(instruction)
    }

    /// Executes an instruction; `true`: it was the last.
    fn step(&mut self, instruction: Instruction) -> Result<bool> {
        self.executed.instructions += 1;
        match instruction.class() {
            BPF_ALU | BPF_ALU64 => self.calculate(instruction)?,
            BPF_JMP | BPF_JMP32 => return self.jump(instruction),
            BPF_LD => self.load_constant(instruction)?,
            BPF_LDX => {
                ensure!(instruction.code & 0xe0 == BPF_MEM, "an unknown kind of load");
                let address = self.address(instruction.from, instruction);
                self.registers[instruction.to] = self.machine.memory.load(address, instruction.size())?;
            }
            BPF_STX if instruction.code & 0xe0 == BPF_ATOMIC => self.change(instruction)?,
            BPF_ST | BPF_STX => {
                ensure!(instruction.code & 0xe0 == BPF_MEM, "an unknown kind of store");
                let is_constant = instruction.class() == BPF_ST;
                let value =
                    if is_constant { wide(instruction.immediate) } else { self.registers[instruction.from] };
                let address = self.address(instruction.to, instruction);
                self.machine.memory.store(address, instruction.size(), value)?;
            }
            class => bail!("an unknown class of instructions, {class}"),
        }
        Ok(false)
    }

    fn address(&self, register: usize, instruction: Instruction) -> u64 {
        self.registers[register].wrapping_add_signed(i64::from(instruction.offset))
    }

    /// The second operand of a calculation or a comparison.
    fn operand(&self, instruction: Instruction) -> u64 {
        if instruction.code & BPF_X != 0 {
            self.registers[instruction.from]
        } else {
            wide(instruction.immediate)
        }
    }

    fn calculate(&mut self, instruction: Instruction) -> Result<()> {
        ensure!(instruction.offset == 0, "a calculation of a later version");
        let is_wide = instruction.class() == BPF_ALU64;
        let value = self.registers[instruction.to];
        self.registers[instruction.to] = if instruction.operation() == BPF_END {
            ensure!(!is_wide, "a byte swap of a later version");
            swapped(value, instruction.immediate, instruction.code & BPF_X != 0)?
        } else if is_wide {
            calculated(instruction.operation(), value, self.operand(instruction))?
        } else {
            calculated32(instruction.operation(), value, self.operand(instruction))?
        };
        Ok(())
    }

    fn jump(&mut self, instruction: Instruction) -> Result<bool> {
        let is_wide = instruction.class() == BPF_JMP;
        match instruction.operation() {
            BPF_CALL if is_wide => self.call(instruction)?,
            BPF_EXIT if is_wide => {
                let Some((at, kept)) = self.callers.pop() else { return Ok(true) };
                self.at = at;
                self.registers[KEPT].copy_from_slice(&kept);
                self.registers[STACK_POINTER] = self.machine.stacks[self.callers.len()];
            }
            operation => {
                let (a, b) = (self.registers[instruction.to], self.operand(instruction));
                let jumps = if is_wide {
                    operation == BPF_JA || holds(operation, [a, b], [a, b].map(u64::cast_signed))?
                } else {
                    let halves = [a, b].map(low_half);
                    holds(operation, halves.map(u64::from), halves.map(|half| i64::from(half.cast_signed())))?
                };
                if jumps {
                    self.go(i64::from(instruction.offset))?;
                }
            }
        }
        Ok(false)
    }

    /// Goes so many instructions further.
    fn go(&mut self, distance: i64) -> Result<()> {
        let at = i64::try_from(self.at)? + distance;
        self.at = usize::try_from(at).context("a jump before the program")?;
        Ok(())
    }

    fn call(&mut self, instruction: Instruction) -> Result<()> {
        match instruction.from {
            HELPER => {
                self.executed.helpers += 1;
                let arguments: [u64; 5] = std::array::from_fn(|place| self.registers[1 + place]);
                let Machine { memory, environment, .. } = &mut *self.machine;
                match environment.call(memory, instruction.immediate, &arguments)? {
                    Answer::Value(value) => self.registers[0] = value,
                    Answer::TailCall(program) => {
                        ensure!(self.callers.is_empty(), "a tail call from a function");
                        self.begin(program, arguments[0]);
                    }
                }
            }
            FUNCTION => {
                let kept = std::array::from_fn(|place| self.registers[KEPT.start + place]);
                self.callers.push((self.at, kept));
                let stack = self.machine.stacks.get(self.callers.len()).context("too many calls")?;
                self.registers[STACK_POINTER] = *stack;
                self.go(i64::from(instruction.immediate))?;
            }
            kind => bail!("an unknown kind of call, {kind}"),
        }
        Ok(())
    }

    /// The one instruction of 16 bytes: a number of 64 bits, a map, or a place in a map's values.
    fn load_constant(&mut self, instruction: Instruction) -> Result<()> {
        ensure!(instruction.code == BPF_LD | BPF_DW | BPF_IMM, "an unknown kind of load");
        let (low, high) = (low_half(wide(instruction.immediate)), low_half(wide(self.fetch()?.immediate)));
        self.registers[instruction.to] = match instruction.from {
            NUMBER => u64::from(high) << 32 | u64::from(low),
            MAP => u64::from(low),
            VALUE => self.machine.environment.values(instruction.immediate)? + u64::from(high),
            kind => bail!("an unknown kind of constant, {kind}"),
        };
        Ok(())
    }

    /// An atomic operation.
    fn change(&mut self, instruction: Instruction) -> Result<()> {
        self.executed.atomics += 1;
        let size = instruction.size();
        let address = self.address(instruction.to, instruction);
        ensure!(size >= 4 && address.is_multiple_of(size as u64), "an atomic operation on no word");
        let old = self.machine.memory.load(address, size)?;
        let operand = self.registers[instruction.from];
        let operation = u32::try_from(instruction.immediate)?;
        let new = match operation & !BPF_FETCH {
            plain @ (BPF_ADD | BPF_OR | BPF_AND | BPF_XOR) => calculated(plain, old, operand)?,
            _ if operation == BPF_XCHG => operand,
            _ if operation == BPF_CMPXCHG => {
                let expected = self.registers[0];
                let is_equal = if size == 4 { u64::from(low_half(expected)) == old } else { expected == old };
                self.registers[0] = old;
                if is_equal { operand } else { old }
            }
            _ => bail!("an unknown atomic operation"),
        };
        if operation & BPF_FETCH != 0 && operation != BPF_CMPXCHG {
            self.registers[instruction.from] = old;
        }
        self.machine.memory.store(address, size, new)
    }
}

/// An immediate operand as all instructions of 64 bits have it.
const fn wide(immediate: i32) -> u64 {
    (immediate as i64).cast_unsigned()
}

#[expect(clippy::cast_possible_truncation, reason = "the lower half is what is asked for")]
const fn low_half(word: u64) -> u32 {
    word as u32
}

/// The result of an operation on 64 bits.
fn calculated(operation: u32, a: u64, b: u64) -> Result<u64> {
    Ok(match operation {
        BPF_ADD => a.wrapping_add(b),
        BPF_SUB => a.wrapping_sub(b),
        BPF_MUL => a.wrapping_mul(b),
        BPF_DIV => a.checked_div(b).unwrap_or(0),
        BPF_MOD => a.checked_rem(b).unwrap_or(a),
        BPF_OR => a | b,
        BPF_AND => a & b,
        BPF_XOR => a ^ b,
        BPF_LSH => a << (b & 63),
        BPF_RSH => a >> (b & 63),
        BPF_ARSH => (a.cast_signed() >> (b & 63)).cast_unsigned(),
        BPF_NEG => a.wrapping_neg(),
        BPF_MOV => b,
        _ => bail!("an unknown operation, {operation:#x}"),
    })
}

/// The result of the same operation on the lower halves: its upper half is zero.
fn calculated32(operation: u32, a: u64, b: u64) -> Result<u64> {
    let (a, b) = (low_half(a), low_half(b));
    let wide_a =
        if operation == BPF_ARSH { i64::from(a.cast_signed()).cast_unsigned() } else { u64::from(a) };
    let b = if matches!(operation, BPF_LSH | BPF_RSH | BPF_ARSH) { b & 31 } else { b };
    Ok(u64::from(low_half(calculated(operation, wide_a, u64::from(b))?)))
}

/// The lower `bits` of a word, in the order of bytes that the network has, or in the machine's.
fn swapped(value: u64, bits: i32, to_network: bool) -> Result<u64> {
    let shift = match bits {
        16 | 32 | 64 => 64 - bits,
        _ => bail!("a byte swap of {bits} bits"),
    };
    Ok(if to_network { value.swap_bytes() >> shift } else { value << shift >> shift })
}

/// Whether a comparison holds, of unsigned or of signed numbers.
fn holds(operation: u32, [a, b]: [u64; 2], [signed_a, signed_b]: [i64; 2]) -> Result<bool> {
    Ok(match operation {
        BPF_JEQ => a == b,
        BPF_JNE => a != b,
        BPF_JGT => a > b,
        BPF_JGE => a >= b,
        BPF_JLT => a < b,
        BPF_JLE => a <= b,
        BPF_JSET => a & b != 0,
        BPF_JSGT => signed_a > signed_b,
        BPF_JSGE => signed_a >= signed_b,
        BPF_JSLT => signed_a < signed_b,
        BPF_JSLE => signed_a <= signed_b,
        _ => bail!("an unknown jump, {operation:#x}"),
    })
}

#[cfg(test)]
mod tests {
    use aya_obj::generated::{BPF_K, BPF_PSEUDO_KFUNC_CALL, BPF_TO_BE, BPF_TO_LE};

    use super::*;

    const NEW64: u32 = BPF_ALU64 | BPF_MOV;
    const EXIT: Instruction = op(BPF_JMP | BPF_EXIT, 0, 0, 0, 0);

    const fn op(code: u32, to: usize, from: usize, offset: i16, immediate: i32) -> Instruction {
        Instruction { code, to, from, offset, immediate }
    }

    /// One helper, which returns its first argument, and one map.
    struct Plain {
        values: u64,
    }

    impl Environment for Plain {
        fn call(&mut self, _: &mut Memory, helper: i32, arguments: &[u64; 5]) -> Result<Answer> {
            ensure!(helper == 1, "an unknown helper, {helper}");
            Ok(Answer::Value(arguments[0]))
        }

        fn values(&self, descriptor: i32) -> Result<u64> {
            ensure!(descriptor == 1, "no such map");
            Ok(self.values)
        }
    }

    /// Runs a program whose first argument is the address of these words. Returns what it returns, the words
    /// afterwards, and what was executed.
    fn ran(words: [u64; 2], program: &[Instruction]) -> Result<(u64, [u64; 2], Executed)> {
        let mut memory = Memory::default();
        let at = memory.add(words.iter().flat_map(|word| word.to_le_bytes()).collect());
        let mut machine = Machine::new(memory, Plain { values: at });
        let (result, executed) = machine.run(&[program.to_vec()], 0, at)?;
        Ok((result, [machine.memory.load(at, 8)?, machine.memory.load(at + 8, 8)?], executed))
    }

    /// The result of an operation on a word and an operand, both from memory.
    fn result(code: u32, word: u64, operand: u64) -> u64 {
        let load = BPF_LDX | BPF_MEM | BPF_DW;
        let program = [op(load, 0, 1, 0, 0), op(load, 2, 1, 8, 0), op(code | BPF_X, 0, 2, 0, 0), EXIT];
        ran([word, operand], &program).expect("a known operation").0
    }

    /// The same of an operand in the instruction.
    fn result_of_immediate(code: u32, word: u64, operand: i32) -> u64 {
        let program = [op(BPF_LDX | BPF_MEM | BPF_DW, 0, 1, 0, 0), op(code | BPF_K, 0, 0, 0, operand), EXIT];
        ran([word, 0], &program).expect("a known operation").0
    }

    #[test]
    fn immediate_operands_are_extended_by_their_sign() {
        assert_eq!(result_of_immediate(BPF_ALU64 | BPF_MOV, 0, -2), u64::MAX - 1);
        assert_eq!(result_of_immediate(BPF_ALU64 | BPF_ADD, 5, -6), u64::MAX);
        assert_eq!(result_of_immediate(BPF_ALU64 | BPF_AND, u64::MAX, i32::MIN), 0xffff_ffff_8000_0000);
        assert_eq!(result_of_immediate(BPF_ALU64 | BPF_DIV, u64::MAX, -1), 1);
    }

    #[test]
    fn operations_of_32_bits_clear_the_upper_half() {
        const A: u64 = 0x1234_5678_9abc_def0;
        for (operation, operand, expected) in [
            (BPF_MOV, u64::MAX, 0xffff_ffff),
            (BPF_ADD, 0xffff_ffff, 0x9abc_deef),
            (BPF_SUB, 0x9abc_def1, 0xffff_ffff),
            (BPF_MUL, 0x1_0000_0010, 0xabcd_ef00),
            (BPF_OR, 0xff, 0x9abc_deff),
            (BPF_XOR, u64::MAX, 0x6543_210f),
            (BPF_LSH, 36, 0xabcd_ef00),
            (BPF_RSH, 36, 0x09ab_cdef),
            (BPF_ARSH, 36, 0xf9ab_cdef),
            (BPF_DIV, 0xffff_ffff_0000_0010, 0x09ab_cdef),
            (BPF_MOD, 0xffff_ffff_0000_0100, 0xf0),
            (BPF_NEG, 0, 0x6543_2110),
        ] {
            assert_eq!(result(BPF_ALU | operation, A, operand), expected, "{operation:#x}");
        }
    }

    #[test]
    fn operations_of_64_bits_have_all_of_them() {
        const A: u64 = 0x8000_0000_0000_0010;
        for (operation, operand, expected) in [
            (BPF_MUL, 16, 0x100),
            (BPF_LSH, 68, 0x100),
            (BPF_RSH, 68, 0x0800_0000_0000_0001),
            (BPF_ARSH, 68, 0xf800_0000_0000_0001),
            (BPF_DIV, 16, 0x0800_0000_0000_0001),
            (BPF_MOD, 0x8000_0000_0000_0000, 0x10),
            (BPF_NEG, 0, 0x7fff_ffff_ffff_fff0),
        ] {
            assert_eq!(result(BPF_ALU64 | operation, A, operand), expected, "{operation:#x}");
        }
    }

    #[test]
    fn division_by_zero_is_zero_and_what_remains_is_the_whole() {
        const A: u64 = 0x1_0000_0007;
        assert_eq!(result(BPF_ALU64 | BPF_DIV, A, 0), 0);
        assert_eq!(result(BPF_ALU64 | BPF_MOD, A, 0), A);
        assert_eq!(result(BPF_ALU | BPF_DIV, A, 0xffff_ffff_0000_0000), 0);
        assert_eq!(result(BPF_ALU | BPF_MOD, A, 0xffff_ffff_0000_0000), 7);
    }

    #[test]
    fn byte_swaps_clear_what_they_do_not_swap() {
        const A: u64 = 0x0102_0304_0506_0708;
        for (order, bits, expected) in [
            (BPF_TO_BE, 16, 0x0807),
            (BPF_TO_BE, 32, 0x0807_0605),
            (BPF_TO_BE, 64, 0x0807_0605_0403_0201),
            (BPF_TO_LE, 16, 0x0708),
            (BPF_TO_LE, 32, 0x0506_0708),
            (BPF_TO_LE, 64, A),
        ] {
            assert_eq!(result_of_immediate(BPF_ALU | BPF_END | order, A, bits), expected, "{order} {bits}");
        }
    }

    /// Whether a jump is taken, with its second operand in the instruction.
    fn jumps(code: u32, word: u64, operand: i32) -> bool {
        let program = [
            op(BPF_LDX | BPF_MEM | BPF_DW, 2, 1, 0, 0),
            op(NEW64, 0, 0, 0, 1),
            op(code, 2, 0, 1, operand),
            op(NEW64, 0, 0, 0, 0),
            EXIT,
        ];
        ran([word, 0], &program).expect("a known jump").0 == 1
    }

    #[test]
    fn jumps_compare_with_and_without_signs_and_halves() {
        const LOW_MINUS_ONE: u64 = 0xffff_ffff;
        for (operation, with_64, with_32) in [
            (BPF_JEQ, false, true),
            (BPF_JNE, true, false),
            (BPF_JGT, false, false),
            (BPF_JGE, false, true),
            (BPF_JLT, true, false),
            (BPF_JLE, true, true),
            (BPF_JSET, true, true),
            (BPF_JSGT, true, false),
            (BPF_JSGE, true, true),
            (BPF_JSLT, false, false),
            (BPF_JSLE, false, true),
        ] {
            assert_eq!(jumps(BPF_JMP | operation, LOW_MINUS_ONE, -1), with_64, "{operation:#x}");
            assert_eq!(jumps(BPF_JMP32 | operation, LOW_MINUS_ONE, -1), with_32, "{operation:#x}, 32 bits");
        }
        assert!(
            jumps(BPF_JMP32 | BPF_JSLT, 0x1_8000_0000, 0) && !jumps(BPF_JMP | BPF_JSLT, 0x1_8000_0000, 0)
        );
    }

    /// What an atomic operation leaves of memory, in the register that it names, and in register 0. The first is
    /// 5 before, the second 3, and register 0 is 5.
    fn atomic(size: u32, operation: u32) -> [u64; 3] {
        let operation = i32::try_from(operation).expect("a small number");
        let program = [
            op(NEW64, 0, 0, 0, 5),
            op(NEW64, 2, 0, 0, 3),
            op(BPF_STX | BPF_ATOMIC | size, 1, 2, 0, operation),
            op(BPF_STX | BPF_MEM | BPF_DW, 1, 2, 8, 0),
            EXIT,
        ];
        let (result, [word, register], executed) = ran([5, 0], &program).expect("a known operation");
        assert_eq!(executed, Executed { instructions: 5, helpers: 0, atomics: 1 });
        [word, register, result]
    }

    #[test]
    fn atomic_operations_fetch_what_was_there() {
        for size in [BPF_W, BPF_DW] {
            for (operation, word) in [(BPF_ADD, 8), (BPF_OR, 7), (BPF_AND, 1), (BPF_XOR, 6)] {
                assert_eq!(atomic(size, operation), [word, 3, 5], "{operation:#x}");
                assert_eq!(atomic(size, operation | BPF_FETCH), [word, 5, 5], "{operation:#x}, fetched");
            }
            assert_eq!(atomic(size, BPF_XCHG), [3, 5, 5]);
            assert_eq!(atomic(size, BPF_CMPXCHG), [3, 3, 5]);
        }
    }

    #[test]
    fn an_exchange_that_does_not_compare_leaves_memory_as_it_is() {
        let exchange = |size, expected| {
            let operation = i32::try_from(BPF_CMPXCHG).expect("a small number");
            let program = [
                op(BPF_LDX | BPF_MEM | BPF_DW, 0, 1, 8, 0),
                op(NEW64, 2, 0, 0, 3),
                op(BPF_STX | BPF_ATOMIC | size, 1, 2, 0, operation),
                EXIT,
            ];
            let (old, [word, _], _) = ran([0x1_0000_0005, expected], &program).expect("a known operation");
            (old, word)
        };
        assert_eq!(exchange(BPF_DW, 5), (0x1_0000_0005, 0x1_0000_0005));
        assert_eq!(
            exchange(BPF_W, 0x7_0000_0005),
            (5, 0x1_0000_0003),
            "only halves are compared and written"
        );
        assert_eq!(exchange(BPF_W, 6), (5, 0x1_0000_0005));
    }

    #[test]
    fn loads_are_extended_by_zeros_and_stores_write_their_size() {
        for (size, loaded, stored) in [
            (BPF_B, 0xff, 0xffff_ffff_ffff_00fe),
            (BPF_H, 0xffff, 0xffff_ffff_ff00_00fe),
            (BPF_W, 0xffff_ffff, 0xffff_ff00_0000_00fe),
        ] {
            let load = [op(BPF_LDX | BPF_MEM | size, 0, 1, 1, 0), EXIT];
            assert_eq!(ran([u64::MAX, 0], &load).expect("within").0, loaded, "misaligned");
            let store = [op(NEW64, 0, 0, 0, 0), op(BPF_ST | BPF_MEM | size, 1, 0, 1, 0), EXIT];
            assert_eq!(ran([u64::MAX - 1, 0], &store).expect("within").1[0], stored, "misaligned");
        }
        let program = [op(NEW64, 0, 0, 0, 0), op(BPF_ST | BPF_MEM | BPF_DW, 1, 0, 8, -3), EXIT];
        assert_eq!(ran([0, 0], &program).expect("within").1[1], u64::MAX - 2);
    }

    #[test]
    fn a_call_keeps_four_registers_and_has_a_stack_of_its_own() {
        let store = |from| op(BPF_STX | BPF_MEM | BPF_DW, STACK_POINTER, from, -8, 0);
        let program = [
            op(NEW64, 6, 0, 0, 7),
            store(6),
            op(BPF_JMP | BPF_CALL, 0, FUNCTION, 0, 3),
            op(BPF_LDX | BPF_MEM | BPF_DW, 0, STACK_POINTER, -8, 0),
            op(BPF_ALU64 | BPF_ADD | BPF_X, 0, 6, 0, 0),
            EXIT,
            op(NEW64, 6, 0, 0, 9),
            store(6),
            EXIT,
        ];
        let (result, _, executed) = ran([0, 0], &program).expect("it ends");
        assert_eq!((result, executed.instructions), (14, 9));
    }

    #[test]
    fn a_constant_of_16_bytes_and_a_helpers_call_are_an_instruction_each() {
        const WIDE: u32 = BPF_LD | BPF_IMM | BPF_DW;
        let program = [
            op(WIDE, 1, NUMBER, 0, -2),
            op(0, 0, 0, 0, 1),
            op(BPF_JMP | BPF_CALL, 0, 0, 0, 1),
            op(WIDE, 2, VALUE, 0, 1),
            op(0, 0, 0, 0, 8),
            op(BPF_STX | BPF_MEM | BPF_DW, 2, 0, 0, 0),
            EXIT,
        ];
        let (result, words, executed) = ran([0, 0], &program).expect("it ends");
        assert_eq!((result, words), (0x1_ffff_fffe, [0, 0x1_ffff_fffe]));
        assert_eq!(executed, Executed { instructions: 5, helpers: 1, atomics: 0 });
    }

    #[test]
    fn what_is_not_known_is_an_error() {
        let kernel_function = usize::try_from(BPF_PSEUDO_KFUNC_CALL).expect("a small number");
        for (instruction, what) in [
            (op(BPF_ALU64 | BPF_MOV | BPF_X, 0, 1, 8, 0), "a move that extends the sign"),
            (op(BPF_ALU64 | BPF_DIV | BPF_X, 0, 1, 1, 0), "a division with signs"),
            (op(BPF_ALU64 | BPF_END, 0, 0, 0, 16), "a byte swap of the fourth version"),
            (op(BPF_JMP32 | BPF_JA, 0, 0, 0, 0), "a long jump"),
            (op(BPF_LDX | 0x80 | BPF_W, 0, 1, 0, 0), "a load that extends the sign"),
            (op(BPF_STX | BPF_ATOMIC | BPF_W, 1, 0, 2, 0), "a misaligned atomic operation"),
            (op(BPF_JMP | BPF_CALL, 0, 0, 0, 2), "another helper"),
            (op(BPF_JMP | BPF_CALL, 0, kernel_function, 0, 1), "a function of the kernel"),
            (op(BPF_JMP | BPF_JA, 0, 0, -1, 0), "a program that does not end"),
            (op(BPF_LDX | BPF_MEM | BPF_DW, 0, 1, 9, 0), "a load outside of memory"),
            (op(BPF_LDX | BPF_MEM | BPF_DW, 0, STACK_POINTER, 0, 0), "a load above the stack"),
        ] {
            assert!(ran([0, 0], &[instruction, EXIT]).is_err(), "{what}");
        }
    }
}
