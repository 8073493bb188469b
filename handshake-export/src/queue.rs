//! The queue before an exporter's reader: bounded, so that a dead reader takes no memory, and never waited
//! for, so that it stops nothing.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

/// A queue that drops its oldest element where it is full, and counts what it dropped.
pub struct Queue<T> {
    inner: Mutex<Inner<T>>,
    fed: Condvar,
    /// The same for a reader that is a task.
    news: Notify,
    most: usize,
    /// What an element counts where it is dropped.
    weight: fn(&T) -> u64,
}

struct Inner<T> {
    waiting: VecDeque<T>,
    dropped: u64,
    is_closed: bool,
    /// How many elements a task waits for.
    wanted: usize,
}

impl<T> Queue<T> {
    /// A queue of at most `most` elements.
    pub fn of(most: usize) -> Self {
        Self::weighing(most, |_| 1)
    }

    /// A queue that counts each element it dropped by its weight.
    pub fn weighing(most: usize, weight: fn(&T) -> u64) -> Self {
        let waiting = VecDeque::with_capacity(most);
        let inner = Mutex::new(Inner { waiting, dropped: 0, is_closed: false, wanted: usize::MAX });
        Self { inner, fed: Condvar::new(), news: Notify::new(), most, weight }
    }

    /// Adds an element, and never waits.
    pub fn push(&self, element: T) {
        let mut inner = self.lock();
        let oldest = if inner.waiting.len() == self.most { inner.waiting.pop_front() } else { None };
        inner.dropped += oldest.as_ref().map_or(0, self.weight);
        inner.waiting.push_back(element);
        self.fed.notify_one();
        if inner.waiting.len() >= inner.wanted {
            self.news.notify_one();
        }
    }

    /// Waits for the oldest element.
    pub fn pop(&self) -> T {
        let mut inner = self.lock();
        loop {
            if let Some(element) = inner.waiting.pop_front() {
                return element;
            }
            inner = self.fed.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits for elements, for `limit` at most, and takes the oldest of them out, `most` at most. There may be
    /// none. `None`: there are none, and none will come.
    pub fn take(&self, most: usize, limit: Duration) -> Option<Vec<T>> {
        let is_idle = |inner: &mut Inner<T>| inner.waiting.is_empty() && !inner.is_closed;
        let waited = self.fed.wait_timeout_while(self.lock(), limit, is_idle);
        let (mut inner, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let count = most.min(inner.waiting.len());
        let taken: Vec<T> = inner.waiting.drain(..count).collect();
        (!taken.is_empty() || !inner.is_closed).then_some(taken)
    }

    /// Tells the reader that nothing will come any more.
    pub fn close(&self) {
        self.lock().is_closed = true;
        self.fed.notify_all();
        self.news.notify_one();
    }

    /// Waits for so many elements, or for the end. For the one task that reads. Cancel-safe.
    pub async fn holds(&self, count: usize) {
        while !self.has_or_wants(count) {
            self.news.notified().await;
        }
    }

    /// Whether there are so many, or is the end. If not, the task is woken then.
    fn has_or_wants(&self, count: usize) -> bool {
        let mut inner = self.lock();
        let has = inner.is_closed || inner.waiting.len() >= count;
        inner.wanted = if has { usize::MAX } else { count };
        has
    }

    /// Waits for the end, as [`holds`](Self::holds) does.
    pub async fn closed(&self) {
        self.holds(usize::MAX).await;
    }

    /// Whether nothing will come any more.
    pub fn is_closed(&self) -> bool {
        self.lock().is_closed
    }

    /// Counts elements that the reader took and could not hand on, or that found no room on their way here.
    pub fn count_dropped(&self, count: u64) {
        self.lock().dropped += count;
    }

    /// How many elements wait.
    pub fn waiting(&self) -> usize {
        self.lock().waiting.len()
    }

    /// How many elements were dropped, by their weight.
    pub fn dropped(&self) -> u64 {
        self.lock().dropped
    }

    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::Queue;

    #[test]
    fn the_oldest_goes_first_and_is_dropped_first() {
        let queue = Queue::of(2);
        (1..=5).for_each(|number| queue.push(number));
        assert_eq!((queue.pop(), queue.pop(), queue.dropped()), (4, 5, 3));
        queue.push(6);
        assert_eq!((queue.pop(), queue.dropped()), (6, 3));
        let queue = Queue::weighing(2, |points: &u64| *points);
        [10, 20, 30, 40].into_iter().for_each(|points| queue.push(points));
        assert_eq!((queue.pop(), queue.dropped()), (30, 30));
    }

    /// A task waits for so many elements, and no longer than to the end.
    #[tokio::test]
    async fn a_task_waits_for_elements_or_the_end() {
        let queue = Arc::new(Queue::of(4));
        let wait = |count| timeout(Duration::from_millis(1), queue.holds(count));
        queue.push(1);
        queue.push(2);
        assert!(wait(2).await.is_ok() && wait(3).await.is_err());
        let waiting = tokio::spawn({
            let queue = Arc::clone(&queue);
            async move { queue.closed().await }
        });
        tokio::task::yield_now().await;
        queue.push(3);
        assert!(wait(3).await.is_ok() && !waiting.is_finished());
        queue.close();
        waiting.await.expect("it has not panicked");
        assert!(wait(4).await.is_ok());
    }

    /// A reader that takes several at once gets what is there, nothing where its time is over, and the end.
    #[test]
    fn several_are_taken_at_once_until_the_end() {
        let queue = Arc::new(Queue::of(4));
        let soon = Duration::from_millis(1);
        assert_eq!(queue.take(2, soon), Some(vec![]));
        (1..=6).for_each(|number| queue.push(number));
        queue.count_dropped(10);
        assert_eq!((queue.take(3, soon), queue.waiting(), queue.dropped()), (Some(vec![3, 4, 5]), 1, 12));
        queue.close();
        assert_eq!((queue.take(3, soon), queue.take(3, soon)), (Some(vec![6]), None));
        let queue = Arc::new(Queue::<u8>::of(4));
        let reader = thread::spawn({
            let queue = Arc::clone(&queue);
            move || queue.take(1, Duration::from_secs(600))
        });
        queue.close();
        assert_eq!(reader.join().expect("it has not panicked"), None);
    }
}
