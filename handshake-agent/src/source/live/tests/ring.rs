//! The ring of events, and who is told of one.

use std::os::fd::{FromRawFd, OwnedFd};

use super::*;

/// To wake a reader costs microseconds a record. One that waits at the ring hears nothing, though there is an event.
#[test]
fn no_event_wakes_the_reader() {
    let Some(live) = loaded(&Settings { events: true, ..small() }) else { return };
    let ring = live.events.as_ref().expect("asked for").as_raw_fd();
    let waiting = wait_at(ring);
    handshake(&live);
    let mut event = libc::epoll_event { events: 0, u64: 0 };
    let mut poll = libc::pollfd { fd: ring, events: libc::POLLIN, revents: 0 };
    // SAFETY: both descriptors are open, and each call writes one structure of ours.
    let (woken, readable) = unsafe {
        let woken = libc::epoll_wait(waiting.as_raw_fd(), &raw mut event, 1, 50);
        (woken, libc::poll(&raw mut poll, 1, 0))
    };
    assert_eq!((woken, readable), (0, 1), "an event is there, and woke nobody");
}

/// By edge: what this will tell is that somebody was woken, not that there is something.
fn wait_at(ring: i32) -> OwnedFd {
    let edge = (libc::EPOLLIN | libc::EPOLLET).cast_unsigned();
    let mut event = libc::epoll_event { events: edge, u64: 0 };
    // SAFETY: the first call gives a descriptor that nobody else knows, the second reads one structure of ours.
    let (waiting, added) = unsafe {
        let waiting = libc::epoll_create1(libc::EPOLL_CLOEXEC);
        assert!(waiting >= 0, "{}", std::io::Error::last_os_error());
        let added = libc::epoll_ctl(waiting, libc::EPOLL_CTL_ADD, ring, &raw mut event);
        (OwnedFd::from_raw_fd(waiting), added)
    };
    assert_eq!(added, 0, "{}", std::io::Error::last_os_error());
    waiting
}
