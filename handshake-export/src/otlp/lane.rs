//! The way of one signal to its collector: a queue that is never waited for, and a task that empties it. What
//! was taken once is never sent again. What a dead collector does not take waits, the oldest is dropped where
//! there is no more room, and each one that was not taken is counted.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::body::Bytes;
use rustix::rand::{GetRandomFlags, getrandom};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::post::{Client, Outcome};
use super::settings::Signal;
use crate::page::pack;
use crate::queue::Queue;

/// The first pause after a failure; each one is twice as long as the one before.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How long a way that works, and fails in turn for the same reason, is not spoken of again.
const SILENT_FOR: Duration = Duration::from_secs(60);
/// How long one message is tried: it may be what the collector fails at.
const TRIED_FOR: Duration = Duration::from_secs(300);

/// A signal on its way.
pub(super) struct Lane<T> {
    pub(super) signal: Signal,
    /// What waits.
    pub(super) queue: Arc<Queue<T>>,
    /// Elements of a message at most.
    pub(super) most: usize,
    /// How long a message waits for more elements.
    pub(super) patience: Duration,
    /// The message of some elements, and how many points or records it has.
    pub(super) encode: Encode<T>,
}

pub(super) type Encode<T> = Box<dyn Fn(&[T]) -> (Vec<u8>, u64) + Send>;

impl<T> Lane<T> {
    /// Waits for elements, and takes those of one message. `None` at the end.
    async fn take(&self) -> Option<Vec<T>> {
        self.queue.holds(1).await;
        // What is there after that time is taken.
        let _ = timeout(self.patience, self.queue.holds(self.most)).await;
        self.queue.take(self.most, Duration::ZERO)
    }

    /// Sends what comes until the end. From then on each message is sent once more at most.
    pub(super) async fn run(self, mut client: Client, tell: mpsc::UnboundedSender<String>) {
        let mut news = News::new(tell, format!("OTLP: {}", client.target().endpoint));
        while let Some(elements) = self.take().await {
            if elements.is_empty() {
                continue;
            }
            let (message, count) = (self.encode)(&elements);
            drop(elements);
            let message = Message { body: body(&client, message), count };
            if !self.send(message, &mut client, &mut news).await {
                return;
            }
        }
    }

    /// Sends a message until it is taken or refused. Returns whether there is any use in another one.
    async fn send(&self, message: Message, client: &mut Client, news: &mut News) -> bool {
        let (mut pauses, unit) = (Pauses { next: FIRST_PAUSE }, self.signal.unit());
        let until = Instant::now() + TRIED_FOR;
        loop {
            let is_last = self.queue.is_closed();
            match client.post(message.body.clone()).await {
                Outcome::Taken { rejected, why } => {
                    let rejected = rejected.min(message.count);
                    self.queue.count_dropped(rejected);
                    if rejected > 0 {
                        news.fails(&why, &format!("{rejected} {unit} are not taken: {why}"));
                    } else {
                        news.works();
                    }
                    return true;
                }
                Outcome::Refused(why) => {
                    self.queue.count_dropped(message.count);
                    news.fails(&why, &format!("{why}; {} {unit} are dropped", message.count));
                    return true;
                }
                Outcome::Later { why, .. } if is_last => {
                    self.queue.count_dropped(message.count);
                    news.say(&format!("{why}; what it has not taken is dropped"));
                    return false;
                }
                Outcome::Later { why, after } => {
                    news.fails(&why, &format!("{why}; it is tried again"));
                    if Instant::now() > until {
                        self.queue.count_dropped(message.count);
                        return true;
                    }
                    // At the end it is tried at once.
                    let _ = timeout(pauses.next(after), self.queue.closed()).await;
                }
            }
        }
    }
}

/// The body of a request.
fn body(client: &Client, message: Vec<u8>) -> Bytes {
    // Memory takes all.
    if client.target().is_packed { pack(&message).unwrap_or_default().into() } else { message.into() }
}

/// A message on its way.
struct Message {
    body: Bytes,
    /// Its points or records.
    count: u64,
}

/// The pauses between two tries.
struct Pauses {
    next: Duration,
}

impl Pauses {
    /// The next one: some part between a half and all of it, so that many agents do not come at once. Where
    /// the collector says when, not before, and up to a tenth later; never at once, whatever it says.
    fn next(&mut self, after: Option<Duration>) -> Duration {
        let usual = self.next;
        self.next = (usual * 2).min(LONGEST_PAUSE);
        let some_of = |pause: Duration| pause.mul_f64(0.5 + chance() / 2.0);
        match after {
            Some(after) => (after + (after / 10).mul_f64(chance())).max(some_of(FIRST_PAUSE)),
            None => some_of(usual),
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

/// Says the first failure of several, and the first success after them; of many in turn not each.
struct News {
    tell: mpsc::UnboundedSender<String>,
    what: String,
    /// Whether a failure was said whose end was not.
    is_told: bool,
    /// The failure that was said last, and when.
    said: Option<(String, Instant)>,
}

impl News {
    const fn new(tell: mpsc::UnboundedSender<String>, what: String) -> Self {
        Self { tell, what, is_told: false, said: None }
    }

    fn fails(&mut self, why: &str, words: &str) {
        let is_old = |(said, at): &(String, Instant)| said != why || at.elapsed() >= SILENT_FOR;
        if !self.is_told && self.said.as_ref().is_none_or(is_old) {
            self.say(words);
            (self.is_told, self.said) = (true, Some((why.to_owned(), Instant::now())));
        }
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

    use super::{FIRST_PAUSE, LONGEST_PAUSE, News, Pauses, SILENT_FOR};

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
        // As after a date that has passed: a collector that always says so is not asked in a loop.
        assert!(pauses.next(Some(Duration::ZERO)) >= FIRST_PAUSE / 2);
        let some: Vec<_> = (0..20).map(|_| pauses.next(None)).collect();
        assert!(some.iter().any(|pause| *pause != some[0]), "{some:?}");
    }

    #[test]
    fn a_failure_is_said_once_and_so_is_its_end() {
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        let mut news = News::new(tell, "collector".to_owned());
        news.works();
        ["dead", "dead", "slow"].into_iter().for_each(|why| news.fails(why, why));
        news.works();
        news.works();
        // A collector that takes a part of each second message is not a line for each of them.
        for _ in 0..3 {
            news.fails("dead", "dead again");
            news.works();
        }
        news.fails("full", "full: 3 are dropped");
        news.works();
        news.fails("full", "full: 4 are dropped");
        news.said = news.said.and_then(|(why, said)| Some((why, said.checked_sub(SILENT_FOR)?)));
        news.fails("full", "full: 5 are dropped");
        let said: Vec<String> = std::iter::from_fn(|| told.try_recv().ok()).collect();
        let [works, full] = ["it works again", "full: 3 are dropped"];
        let expected =
            ["dead", works, full, works, "full: 5 are dropped"].map(|words| format!("collector: {words}"));
        assert_eq!(said, expected);
    }
}
