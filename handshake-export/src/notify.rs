//! The words with systemd, sd_notify(3): one datagram each to the socket that `NOTIFY_SOCKET` names. The
//! socket is connected before privileges are given up; afterwards no other socket could be reached.

use std::env;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

/// The service manager, where there is one.
pub struct Manager {
    socket: Option<UnixDatagram>,
    /// How often it wants to hear of the service, and when it last did.
    watchdog: Option<(Duration, Instant)>,
}

impl Manager {
    /// The manager that started this process.
    ///
    /// # Errors
    ///
    /// The socket that is named cannot be connected to.
    pub fn of_process() -> io::Result<Self> {
        let named = env::var("NOTIFY_SOCKET").ok().filter(|name| !name.is_empty());
        let own = env::var("WATCHDOG_PID").map_or(true, |pid| pid == std::process::id().to_string());
        let period = env::var("WATCHDOG_USEC").ok().filter(|_| own).and_then(|time| time.parse().ok());
        Self::at(named.as_deref(), period.map(Duration::from_micros))
    }

    fn at(name: Option<&str>, period: Option<Duration>) -> io::Result<Self> {
        let Some(name) = name else { return Ok(Self { socket: None, watchdog: None }) };
        let address = match name.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(name)?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.connect_addr(&address)?;
        socket.set_nonblocking(true)?;
        // Twice as often as it must be, as sd_watchdog_enabled(3) asks for.
        let watchdog = period.map(|period| (period / 2, Instant::now()));
        Ok(Self { socket: Some(socket), watchdog })
    }

    /// The service is ready, as `status` says in words.
    pub fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={status}"));
    }

    /// How the service stands, in words.
    pub fn status(&self, status: &str) {
        self.tell(&format!("STATUS={status}"));
    }

    /// The service reads its configuration again; `ready` ends that.
    pub fn reloading(&self) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={}", now.tv_sec * 1_000_000 + now.tv_nsec / 1_000));
    }

    /// The service ends.
    pub fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    /// The loop turns: says so as often as the manager wants to know.
    pub fn turn(&mut self) {
        let now = Instant::now();
        if let Some((period, last)) = &mut self.watchdog
            && now.duration_since(*last) >= *period
        {
            *last = now;
            self.tell("WATCHDOG=1");
        }
    }

    /// A manager that does not listen misses it.
    fn tell(&self, words: &str) {
        let _unheard = self.socket.as_ref().map(|socket| socket.send(words.as_bytes()));
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;
    use std::time::Duration;

    use super::Manager;

    #[test]
    fn a_manager_hears_of_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let listener = UnixDatagram::bind(&path).expect("a socket");
        let mut manager = Manager::at(path.to_str(), Some(Duration::ZERO)).expect("it is bound");
        let heard = || {
            let mut words = [0; 256];
            let length = listener.recv(&mut words).expect("a datagram");
            String::from_utf8_lossy(&words[..length]).into_owned()
        };
        manager.ready("watching lo");
        assert_eq!(heard(), "READY=1\nSTATUS=watching lo");
        manager.turn();
        assert_eq!(heard(), "WATCHDOG=1");
        manager.reloading();
        assert!(heard().starts_with("RELOADING=1\nMONOTONIC_USEC="));
        manager.stopping();
        assert_eq!(heard(), "STOPPING=1");
        let none = Manager::at(None, None).expect("none is no error");
        none.status("to none");
        assert!(Manager::at(Some("/no/such/socket"), None).is_err());
    }
}
