//! What tests of the real kernel stand on: a network namespace of their own, and a small object whose programs carry our
//! programs' names and let everything pass.

use std::io::Write as _;
use std::panic::resume_unwind;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use aya::{Ebpf, EbpfLoader};
use object::write::{Object, Symbol, SymbolSection};
use object::{Architecture, BinaryFormat, Endianness, SectionKind, SymbolFlags, SymbolKind, SymbolScope};

use super::capability::{Capabilities, SYS_ADMIN};
use super::{Direction, clsact, interface, loaded};

/// `XDP_PASS`, and `TC_ACT_UNSPEC` which is also `TCX_NEXT`.
const XDP_PASS: i32 = 2;
const TC_NEXT: i32 = -1;

/// Tests of the kernel run one at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// Runs a test in a network namespace that lives as long as its thread, with `lo` up and veths `hs-a` and `hs-b` as peers.
/// Without the privileges it takes, the test counts as skipped.
pub fn in_namespace(test: impl FnOnce() + Send) {
    let capabilities = Capabilities::of_this_thread();
    if capabilities.require(true).is_err() || !capabilities.has(SYS_ADMIN) {
        return skipped("needs CAP_BPF, CAP_NET_ADMIN and CAP_SYS_ADMIN");
    }
    // A process that another test is just starting holds copies of our descriptors until it runs its program, and a link
    // or a claim lives as long as any copy.
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let body = || {
        // SAFETY: unshare(2) takes no pointers, and only this thread, made for it, changes its namespace.
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

/// Says that a test was skipped, and counts it where somebody counts.
fn skipped(why: &str) {
    let line = format!("skipped: {why}");
    eprintln!("{line}");
    if let Some(path) = std::env::var_os("HANDSHAKE_SKIP_LOG") {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(path);
        writeln!(log.expect("the skip log can be opened"), "{line}").expect("the skip log can be written");
    }
}

/// Runs a command in this thread's network namespace and gives its output.
pub fn run(line: &str) -> String {
    let mut words = line.split_whitespace();
    let program = words.next().expect("a command has a first word");
    let output = Command::new(program).args(words).output().expect(line);
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Our programs' names on programs that let everything pass.
pub fn ours() -> Ebpf {
    object(&[
        ("xdp.frags", "handshake_xdp", returns(XDP_PASS)),
        ("classifier/ingress", "handshake_ingress", returns(TC_NEXT)),
        ("classifier/egress", "handshake_egress", returns(TC_NEXT)),
    ])
}

/// Somebody else's programs.
pub fn theirs() -> Ebpf {
    object(&[("xdp", "their_xdp", returns(XDP_PASS)), ("classifier", "their_tc", returns(TC_NEXT))])
}

/// Leaves what an agent leaves that is killed: filters, and nobody who claims them.
pub fn killed(name: &str) {
    let info = interface::select(&[name.to_owned()]).expect("it exists").remove(0);
    let mut bpf = ours();
    for direction in [Direction::Ingress, Direction::Egress] {
        let program = loaded(&mut bpf, direction.classifier()).expect("it loads");
        clsact::attach(program, &info, direction).expect("clsact").kill();
    }
}

/// A program under our name that the verifier refuses.
pub fn broken() -> Ebpf {
    let mut code = [0; 16];
    // `r0 = *(u64 *)(r2 + 0)`: r2 holds nothing yet.
    code[0] = 0x79;
    code[1] = 0x20;
    code[8] = 0x95;
    object(&[("xdp.frags", "handshake_xdp", code)])
}

/// An object of programs, each in a section of its own: section, name, instructions.
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

/// `r0 = result` (BPF_ALU64 | BPF_MOV | BPF_K) and BPF_EXIT.
fn returns(result: i32) -> [u8; 16] {
    let mut code = [0; 16];
    code[0] = 0xb7;
    code[4..8].copy_from_slice(&result.to_ne_bytes());
    code[8] = 0x95;
    code
}
