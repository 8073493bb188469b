//! The way of one signal to its collector: a queue that is never waited for, and a task that empties it. What
//! was taken once is never sent again. What a dead collector does not take waits, the oldest is dropped where
//! there is no more room, and each one that was not taken is counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper::body::Bytes;
use rustix::rand::{GetRandomFlags, getrandom};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, sleep, timeout_at};

use super::post::{Client, Outcome};
use super::settings::Signal;
use crate::page::pack;
use crate::queue::Queue;

/// The first pause after a failure; each one is twice as long as the one before.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How long one message is tried: it may be what the collector fails at.
const TRIED_FOR: Duration = Duration::from_secs(300);

/// What waits for a collector.
pub(super) struct Lane<T> {
    signal: Signal,
    queue: Queue<T>,
    fed: Notify,
    /// How many points or records an element is.
    weight: fn(&T) -> u64,
    dropped: AtomicU64,
}

/// How elements become messages.
pub(super) struct Packing<T> {
    /// Elements of a message at most.
    pub(super) most: usize,
    /// How long a message waits for more elements.
    pub(super) patience: Duration,
    /// The message of some elements.
    pub(super) encode: Box<dyn Fn(&[T]) -> Vec<u8> + Send>,
}

impl<T> Lane<T> {
    pub(super) fn new(signal: Signal, most: usize, weight: fn(&T) -> u64) -> Self {
        let (queue, fed) = (Queue::of(most), Notify::new());
        Self { signal, queue, fed, weight, dropped: AtomicU64::new(0) }
    }

    /// Adds an element, in the place of the oldest one where there is no room.
    pub(super) fn push(&self, element: T) {
        if let Some(oldest) = self.queue.push(element) {
            self.drop_many((self.weight)(&oldest));
        }
        self.fed.notify_one();
    }

    /// How many points or records were dropped or refused.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    fn drop_many(&self, count: u64) {
        self.dropped.fetch_add(count, Ordering::Relaxed);
    }

    /// Waits for elements, and takes those of one message; none where there are none at the end.
    async fn take(&self, packing: &Packing<T>, stop: &mut watch::Receiver<bool>) -> Vec<T> {
        while self.queue.is_empty() {
            tokio::select! {
                () = self.fed.notified() => {}
                () = stopped(stop) => break,
            }
        }
        let deadline = Instant::now() + packing.patience;
        while self.queue.len() < packing.most {
            let more = async {
                tokio::select! {
                    () = self.fed.notified() => true,
                    () = stopped(stop) => false,
                }
            };
            if !timeout_at(deadline, more).await.unwrap_or(false) {
                break;
            }
        }
        self.queue.take(packing.most)
    }
}

/// Waits until the end.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // Without a sender it is the end, too.
    let _ = stop.wait_for(|is_stopped| *is_stopped).await;
}

/// Sends what comes until the end. From then on each message is sent once more at most.
pub(super) async fn run<T>(
    lane: Arc<Lane<T>>,
    packing: Packing<T>,
    mut client: Client,
    mut stop: watch::Receiver<bool>,
    tell: mpsc::UnboundedSender<String>,
) {
    let mut news = News { tell, what: format!("OTLP: {}", client.target().endpoint), is_told: false };
    loop {
        let elements = lane.take(&packing, &mut stop).await;
        if elements.is_empty() {
            if *stop.borrow() {
                return;
            }
            continue;
        }
        let count = elements.iter().map(lane.weight).sum();
        let message = Message { body: body(&client, &(packing.encode)(&elements)), count };
        drop(elements);
        if !send(&lane, message, &mut client, &mut stop, &mut news).await {
            return;
        }
    }
}

/// The body of a request.
fn body(client: &Client, message: &[u8]) -> Bytes {
    let packed = if client.target().is_packed { pack(message) } else { Ok(message.to_vec()) };
    packed.unwrap_or_default().into()
}

/// A message on its way.
struct Message {
    body: Bytes,
    /// Its points or records.
    count: u64,
}

/// Sends a message until it is taken or refused. Returns whether there is any use in another one.
async fn send<T>(
    lane: &Lane<T>,
    message: Message,
    client: &mut Client,
    stop: &mut watch::Receiver<bool>,
    news: &mut News,
) -> bool {
    let (mut pauses, unit) = (Pauses { next: FIRST_PAUSE }, lane.signal.unit());
    let until = Instant::now() + TRIED_FOR;
    loop {
        let was_stopped = *stop.borrow();
        match client.post(message.body.clone()).await {
            Outcome::Taken { rejected, why } => {
                let rejected = rejected.min(message.count);
                lane.drop_many(rejected);
                if rejected > 0 {
                    news.fails(&format!("{rejected} {unit} are not taken: {why}"));
                } else {
                    news.works();
                }
                return true;
            }
            Outcome::Refused(why) => {
                lane.drop_many(message.count);
                news.fails(&format!("{why}; {} {unit} are dropped", message.count));
                return true;
            }
            Outcome::Later { why, after } => {
                news.fails(&format!("{why}; it is tried again"));
                if was_stopped || Instant::now() > until {
                    lane.drop_many(message.count);
                    return !was_stopped;
                }
                tokio::select! {
                    () = sleep(pauses.next(after)) => {}
                    () = stopped(stop) => {}
                }
            }
        }
    }
}

/// The pauses between two tries.
struct Pauses {
    next: Duration,
}

impl Pauses {
    /// The next one: some part between a half and all of it, so that many agents do not come at once. Where
    /// the collector says when, not before, and up to a tenth later.
    fn next(&mut self, after: Option<Duration>) -> Duration {
        let usual = self.next;
        self.next = (usual * 2).min(LONGEST_PAUSE);
        match after {
            Some(after) => after + (after / 10).mul_f64(chance()),
            None => usual.mul_f64(0.5 + chance() / 2.0),
        }
    }
}

/// A number from 0 to 1.
fn chance() -> f64 {
    let mut bytes = [0; 4];
    // Where there is no randomness yet, it is 0.
    let _ = getrandom(&mut bytes, GetRandomFlags::NONBLOCK);
    f64::from(u32::from_ne_bytes(bytes)) / f64::from(u32::MAX)
}

/// Says the first failure of several, and the first success after them.
struct News {
    tell: mpsc::UnboundedSender<String>,
    what: String,
    is_told: bool,
}

impl News {
    fn fails(&mut self, why: &str) {
        if !self.is_told {
            self.say(why);
        }
        self.is_told = true;
    }

    fn works(&mut self) {
        if self.is_told {
            self.say("it works again");
        }
        self.is_told = false;
    }

    fn say(&self, words: &str) {
        // The loop may have ended.
        let _ = self.tell.send(format!("{}: {words}", self.what));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{LONGEST_PAUSE, Lane, News, Pauses};
    use crate::otlp::settings::Signal;

    #[test]
    fn pauses_grow_to_a_limit_and_differ() {
        let mut pauses = Pauses { next: Duration::from_secs(1) };
        for seconds in [1, 2, 4, 8, 16, 30, 30] {
            let (whole, pause) = (Duration::from_secs(seconds), pauses.next(None));
            assert!((whole / 2..=whole).contains(&pause), "{pause:?} of {whole:?}");
        }
        assert_eq!(pauses.next, LONGEST_PAUSE);
        let after = Duration::from_secs(50);
        let pause = pauses.next(Some(after));
        assert!((after..=after + after / 10).contains(&pause), "{pause:?}");
        assert_eq!(pauses.next(Some(Duration::ZERO)), Duration::ZERO);
        let some: Vec<_> = (0..20).map(|_| pauses.next(None)).collect();
        assert!(some.iter().any(|pause| *pause != some[0]), "{some:?}");
    }

    #[test]
    fn what_has_no_room_is_counted_by_its_weight() {
        let lane: Lane<u64> = Lane::new(Signal::Metrics, 2, |points| *points);
        [10, 20, 30, 40].into_iter().for_each(|points| lane.push(points));
        assert_eq!((lane.dropped(), lane.queue.take(9)), (30, vec![30, 40]));
    }

    #[test]
    fn a_failure_is_said_once_and_so_is_its_end() {
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        let mut news = News { tell, what: "collector".to_owned(), is_told: false };
        news.works();
        ["dead", "dead", "slow"].into_iter().for_each(|why| news.fails(why));
        news.works();
        news.works();
        news.fails("dead");
        let said: Vec<String> = std::iter::from_fn(|| told.try_recv().ok()).collect();
        assert_eq!(said, ["collector: dead", "collector: it works again", "collector: dead"]);
    }
}
