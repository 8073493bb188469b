//! How the server's kernel is set: SYN cookies, Fast Open.

use std::fmt;

/// `net.ipv4.tcp_syncookies`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cookies {
    /// Never.
    Off,
    /// Once the queue of requests is full.
    On,
    /// To every SYN.
    Always,
}

impl Cookies {
    pub(super) const fn value(self) -> &'static str {
        match self {
            Self::Off => "0",
            Self::On => "1",
            Self::Always => "2",
        }
    }
}

/// How the server's kernel is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) cookies: Cookies,
    pub(super) fast_open: bool,
}

impl Setting {
    /// Every setting.
    pub(super) const ALL: [Self; 6] = [
        Self { cookies: Cookies::Off, fast_open: false },
        Self { cookies: Cookies::On, fast_open: false },
        Self { cookies: Cookies::Always, fast_open: false },
        Self { cookies: Cookies::Off, fast_open: true },
        Self { cookies: Cookies::On, fast_open: true },
        Self { cookies: Cookies::Always, fast_open: true },
    ];

    /// The setting of a conversation, as a place in [`Setting::ALL`].
    pub(super) fn place_of(stream: u64) -> usize {
        usize::try_from(stream % 6).unwrap_or_default()
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fast_open = if self.fast_open { "on" } else { "off" };
        write!(formatter, "tcp_syncookies {}, Fast Open {fast_open}", self.cookies.value())
    }
}
