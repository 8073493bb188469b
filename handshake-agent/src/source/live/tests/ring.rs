//! Tests that an event does not wake the ring's reader.

use std::os::fd::{FromRawFd, OwnedFd};

use super::*;

/// Waking a reader costs microseconds per record, so one that waits at the ring is not woken by an event.
#[test]
fn an_event_does_not_wake_the_reader() {
    let Some(live) = loaded(&Settings { events: true, ..small() }) else { return };
    let ring = live.events.as_ref().expect("the setting is on").as_raw_fd();
    let waiting = wait_at(ring);
    handshake(&live);
    let mut event = libc::epoll_event { events: 0, u64: 0 };
    let mut poll = libc::pollfd { fd: ring, events: libc::POLLIN, revents: 0 };
    // SAFETY: both descriptors are open, and each call writes one structure, a local variable.
    let (woken, readable) = unsafe {
        let woken = libc::epoll_wait(waiting.as_raw_fd(), &raw mut event, 1, 50);
        (woken, libc::poll(&raw mut poll, 1, 0))
    };
    assert_eq!((woken, readable), (0, 1), "there is an event, and it did not wake the reader");
}

/// Waits at the ring, edge-triggered: reports a wake-up, not the mere presence of an event.
fn wait_at(ring: i32) -> OwnedFd {
    let edge = (libc::EPOLLIN | libc::EPOLLET).cast_unsigned();
    let mut event = libc::epoll_event { events: edge, u64: 0 };
    // SAFETY: the first call returns a descriptor that nothing else owns; the second reads one structure, a
    // local variable.
    let (waiting, added) = unsafe {
        let waiting = libc::epoll_create1(libc::EPOLL_CLOEXEC);
        assert!(waiting >= 0, "{}", io::Error::last_os_error());
        let added = libc::epoll_ctl(waiting, libc::EPOLL_CTL_ADD, ring, &raw mut event);
        (OwnedFd::from_raw_fd(waiting), added)
    };
    assert_eq!(added, 0, "{}", io::Error::last_os_error());
    waiting
}
