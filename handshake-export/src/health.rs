//! How the service stands: what `/healthz` and `/readyz` say. The loop writes, the server's thread reads.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// The loop turns once a second at least. It stands still after this time.
const STANDS_STILL: Duration = Duration::from_secs(10);
/// The kernel is asked once a second. Its answer is late after this time.
const IS_LATE: Duration = Duration::from_secs(5);
/// A time that has not come.
const NEVER: u64 = u64::MAX;

/// What a service without interfaces does, in all words about it.
pub const WAITS: &str = "waiting for interfaces";

/// The latest times of what should come again and again, in ms.
pub struct Health {
    began: Instant,
    turned: AtomicU64,
    answered: AtomicU64,
    /// How many interfaces are watched.
    interfaces: AtomicUsize,
}

impl Health {
    /// The service begins to load.
    #[must_use]
    pub fn begin() -> Self {
        Self {
            began: Instant::now(),
            turned: AtomicU64::new(NEVER),
            answered: AtomicU64::new(NEVER),
            interfaces: AtomicUsize::new(0),
        }
    }

    /// The loop has turned: so many interfaces are watched, and the kernel answered at `answered` for the last
    /// time.
    pub fn turn(&self, answered: Instant, interfaces: usize) {
        let ms = |time: Instant| {
            u64::try_from(time.saturating_duration_since(self.began).as_millis()).unwrap_or(NEVER - 1)
        };
        self.interfaces.store(interfaces, Ordering::Relaxed);
        self.answered.store(ms(answered), Ordering::Relaxed);
        self.turned.store(ms(Instant::now()), Ordering::Relaxed);
    }

    /// Why the service is not healthy at `now`. While it loads and attaches it is: systemd and the kernel
    /// set the limits there.
    pub fn fault(&self, now: Instant) -> Option<String> {
        let still = self.since(&self.turned, now)?;
        (still > STANDS_STILL).then(|| format!("the loop stands still for {} s", still.as_secs()))
    }

    /// Why the service is not ready at `now`.
    pub fn unready(&self, now: Instant) -> Option<String> {
        let Some(age) = self.since(&self.answered, now) else { return Some("not attached yet".to_owned()) };
        let late = (age > IS_LATE).then(|| format!("the latest reading is {} s old", age.as_secs()));
        let waits = (self.interfaces.load(Ordering::Relaxed) == 0).then(|| WAITS.to_owned());
        self.fault(now).or(waits).or(late)
    }

    /// Whether the service has attached.
    pub fn is_attached(&self) -> bool {
        self.turned.load(Ordering::Relaxed) != NEVER
    }

    fn since(&self, time: &AtomicU64, now: Instant) -> Option<Duration> {
        let ms = time.load(Ordering::Relaxed);
        (ms != NEVER).then(|| now.saturating_duration_since(self.began + Duration::from_millis(ms)))
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Health, WAITS};

    #[test]
    fn it_is_healthy_while_it_loads_and_ready_while_readings_come() {
        let (health, now) = (Health::begin(), Instant::now());
        let later = |seconds| now + Duration::from_secs(seconds);
        assert_eq!(health.fault(later(600)), None);
        assert_eq!(health.unready(now).as_deref(), Some("not attached yet"));
        health.turn(now, 1);
        assert_eq!((health.fault(later(4)), health.unready(later(4))), (None, None));
        assert_eq!(health.fault(later(9)), None);
        assert_eq!(health.unready(later(9)).as_deref(), Some("the latest reading is 9 s old"));
        assert!(
            health.fault(later(12)).is_some_and(|fault| fault.starts_with("the loop stands still for 1"))
        );
        assert!(health.unready(later(12)).is_some_and(|fault| fault.starts_with("the loop")));
    }

    /// Readings come from what is loaded, attached or not.
    #[test]
    fn without_an_interface_it_is_not_ready() {
        let (health, now) = (Health::begin(), Instant::now());
        for (interfaces, expected) in [(0, Some(WAITS)), (2, None), (0, Some(WAITS))] {
            health.turn(now, interfaces);
            assert_eq!((health.unready(now).as_deref(), health.fault(now)), (expected, None));
        }
    }
}
