//! The process that made a socket: noted in the socket's storage when it is made, and read at TC of what it sends.
//!
//! ```text
//! socket(2) ─▶ note ─▶ SOCKETS, with the socket ─▶ find, at TC of its SYN or SYN+ACK ─▶ Current
//! ```

use core::mem::{offset_of, size_of};

use aya_ebpf::bindings::{__sk_buff, BPF_SK_STORAGE_GET_F_CREATE, bpf_sock};
use aya_ebpf::btf_maps::SkStorage;
use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::helpers::generated::{
    bpf_get_current_comm, bpf_get_listener_sock, bpf_sk_fullsock, bpf_sk_storage_get,
};
use aya_ebpf::macros::btf_map;
use handshake_common::abi::{MAKER_WORDS, Maker};

/// `SOCK_STREAM` of `linux/net.h`.
const STREAM: u32 = 1;

/// The maker of each socket that was made while the agent watched, and of those that it has found before.
#[btf_map]
static SOCKETS: SkStorage<Maker> = SkStorage::new();

/// The words of the storage of a socket, made if there is none and `flags` say so.
#[inline(always)]
fn storage(socket: *mut bpf_sock, flags: u64) -> *mut [u64; MAKER_WORDS] {
    let map = (&raw const SOCKETS).cast_mut();
    // SAFETY: the map is a storage of sockets, and the verifier holds callers to a whole socket.
    let words = unsafe { bpf_sk_storage_get(map.cast(), socket.cast(), core::ptr::null_mut(), flags) };
    words.cast()
}

/// Notes this process as the maker of a new socket.
#[inline(always)]
pub(crate) fn note(socket: *mut bpf_sock) {
    // SAFETY: the context is the program's own.
    if unsafe { (*socket).type_ } != STREAM {
        return;
    }
    let words = storage(socket, u64::from(BPF_SK_STORAGE_GET_F_CREATE));
    if words.is_null() {
        return;
    }
    const { assert!(offset_of!(Maker, pid) == 0 && offset_of!(Maker, command) == 8) };
    const NAME: u32 = (size_of::<Maker>() - 8) as u32;
    // SAFETY: not null, and no one else has the socket yet.
    unsafe {
        bpf_get_current_comm((&raw mut (*words)[1]).cast(), NAME);
        (*words)[0] = bpf_get_current_pid_tgid() >> 32;
    }
}

/// The words of the maker of the socket that sent a packet: of the listener where a request is answered. Zeros
/// where it is not known.
#[inline(always)]
pub(crate) fn find(skb: *mut __sk_buff) -> [u64; MAKER_WORDS] {
    // SAFETY: the context is the program's own.
    let sender = unsafe { (*skb).__bindgen_anon_2.sk };
    if sender.is_null() {
        return [0; MAKER_WORDS];
    }
    // SAFETY: not null. Either helper answers with a whole socket, or null.
    let mut socket = unsafe { bpf_sk_fullsock(sender) };
    if socket.is_null() {
        // SAFETY: likewise.
        socket = unsafe { bpf_get_listener_sock(sender) };
        if socket.is_null() {
            return [0; MAKER_WORDS];
        }
    }
    let words = storage(socket, 0);
    // SAFETY: null, or whole; it was written before the socket could send.
    if words.is_null() { [0; MAKER_WORDS] } else { unsafe { *words } }
}
