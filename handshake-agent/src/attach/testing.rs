//! Support for tests against the real kernel: a network namespace per test, and a small BPF object whose
//! programs have our programs' names and pass every packet.

use std::io::Write as _;
use std::panic::resume_unwind;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use aya::programs::SchedClassifier;
use aya::{Ebpf, EbpfLoader};
use object::write::{Object, Symbol, SymbolSection};
use object::{Architecture, BinaryFormat, Endianness, SectionKind, SymbolFlags, SymbolKind, SymbolScope};

use super::capability::{Capabilities, SYS_ADMIN};
use super::{ClsactGuard, Direction, descriptor_and_id, loaded, selection};
use crate::error::LiveError;
use crate::source::live::KernelSide;
use crate::source::settings::WatchedInterface;

/// `XDP_PASS`, and `TC_ACT_UNSPEC` which is also `TCX_NEXT`.
const XDP_PASS: i32 = 2;
const TC_NEXT: i32 = -1;

/// Held by each test in a namespace, so that they run one at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// Runs a test in a new network namespace, which ends with its thread. `lo` is up, and the veth interfaces
/// `hs-a` and `hs-b` are peers. Without the necessary privileges, the test counts as skipped.
pub fn in_namespace(test: impl FnOnce() + Send) {
    let capabilities = Capabilities::of_this_thread();
    if capabilities.require(true).is_err() || !capabilities.has(SYS_ADMIN) {
        return skipped("needs CAP_BPF, CAP_NET_ADMIN and CAP_SYS_ADMIN");
    }
    // A process that another test is just starting holds copies of our descriptors until it executes its
    // program, and a link or a claim lives as long as any copy.
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let body = || {
        // SAFETY: unshare(2) takes no pointers, and it changes the namespace of this thread only, which was
        // created for it.
        let result = unsafe { libc::unshare(libc::CLONE_NEWNET) };
        assert_eq!(result, 0, "unshare: {}", std::io::Error::last_os_error());
        run("ip link set lo up");
        run("ip link add hs-a type veth peer name hs-b");
        run("ip link set hs-a up");
        run("ip link set hs-b up");
        test();
    };
    std::thread::scope(|scope| scope.spawn(body).join()).unwrap_or_else(|panic| resume_unwind(panic));
}

/// Reports on stderr that a test was skipped, and adds a line to the file `HANDSHAKE_SKIP_LOG` if that is
/// set.
fn skipped(why: &str) {
    let line = format!("skipped: {why}");
    #[expect(clippy::print_stderr, reason = "the test's output")]
    {
        eprintln!("{line}");
    }
    if let Some(path) = std::env::var_os("HANDSHAKE_SKIP_LOG") {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(path);
        writeln!(log.expect("the skip log can be opened"), "{line}").expect("the skip log can be written");
    }
}

/// Runs a command in this thread's network namespace and returns its stdout. Panics if the command fails.
pub fn run(line: &str) -> String {
    let mut words = line.split_whitespace();
    let program = words.next().expect("a command has a first word");
    let output = Command::new(program).args(words).output().expect(line);
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Programs with our programs' names that pass every packet.
pub fn ours() -> Ebpf {
    object(&[
        ("xdp.frags", "handshake_xdp", returns(XDP_PASS)),
        ("classifier/ingress", "handshake_ingress", returns(TC_NEXT)),
        ("classifier/egress", "handshake_egress", returns(TC_NEXT)),
    ])
}

/// Programs with foreign names that pass every packet.
pub fn theirs() -> Ebpf {
    object(&[("xdp", "their_xdp", returns(XDP_PASS)), ("classifier", "their_tc", returns(TC_NEXT))])
}

/// Programs without a table of interfaces: each gets the number of its index.
impl KernelSide for Ebpf {
    fn programs(&mut self) -> &mut Ebpf {
        self
    }

    fn enter(&mut self, interface: WatchedInterface) -> Result<u16, LiveError> {
        u16::try_from(interface.index).map_err(|_| LiveError::NoRoom)
    }

    fn set_gate(&mut self, _: u16, _: bool) -> Result<(), LiveError> {
        Ok(())
    }

    fn leave(&mut self, _: u16) -> Result<(), LiveError> {
        Ok(())
    }
}

/// Leaves what a killed agent leaves on an interface: filters in both directions that no process claims.
pub fn killed(name: &str) {
    let info = selection::named(name).expect("it exists");
    let mut bpf = ours();
    for direction in [Direction::Ingress, Direction::Egress] {
        let program: &mut SchedClassifier = loaded(&mut bpf, direction.classifier()).expect("it loads");
        let descriptor = descriptor_and_id(program.fd(), program.info());
        let Ok((program, id)) = descriptor else { panic!("it is loaded") };
        ClsactGuard::attach(program.into(), id, info.index, direction).expect("clsact").kill();
    }
}

/// A program with our XDP program's name that the verifier refuses.
pub fn broken() -> Ebpf {
    let mut code = [0; 16];
    // `r0 = *(u64 *)(r2 + 0)`: r2 is not initialised.
    code[0] = 0x79;
    code[1] = 0x20;
    code[8] = 0x95;
    object(&[("xdp.frags", "handshake_xdp", code)])
}

/// An object with each program in its own section: section, name, instructions.
fn object(programs: &[(&str, &str, [u8; 16])]) -> Ebpf {
    let mut elf = Object::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::default());
    for (section, name, code) in programs {
        let id = elf.add_section(Vec::new(), section.as_bytes().to_vec(), SectionKind::Text);
        elf.append_section_data(id, code, 8);
        elf.add_symbol(Symbol {
            name: name.as_bytes().to_vec(),
            value: 0,
            size: code.len() as u64,
            kind: SymbolKind::Text,
            scope: SymbolScope::Dynamic,
            weak: false,
            section: SymbolSection::Section(id),
            flags: SymbolFlags::None,
        });
    }
    EbpfLoader::new().load(&elf.write().expect("a small object")).expect("the loader takes it")
}

/// Encodes `r0 = result` (BPF_ALU64 | BPF_MOV | BPF_K) and BPF_EXIT.
fn returns(result: i32) -> [u8; 16] {
    let mut code = [0; 16];
    code[0] = 0xb7;
    code[4..8].copy_from_slice(&result.to_ne_bytes());
    code[8] = 0x95;
    code
}
