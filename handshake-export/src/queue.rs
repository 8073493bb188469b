//! The queue before an exporter's reader: bounded, so that a dead reader takes no memory, and never waited
//! for, so that it stops nothing.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A queue that drops its oldest element where it is full, and counts what it dropped.
pub struct Queue<T> {
    inner: Mutex<Inner<T>>,
    fed: Condvar,
    most: usize,
}

struct Inner<T> {
    waiting: VecDeque<T>,
    dropped: u64,
    is_closed: bool,
}

impl<T> Queue<T> {
    /// A queue of at most `most` elements.
    pub fn of(most: usize) -> Self {
        let inner =
            Mutex::new(Inner { waiting: VecDeque::with_capacity(most), dropped: 0, is_closed: false });
        Self { inner, fed: Condvar::new(), most }
    }

    /// Adds an element, and never waits.
    pub fn push(&self, element: T) {
        let mut inner = self.lock();
        if inner.waiting.len() == self.most {
            inner.waiting.pop_front();
            inner.dropped += 1;
        }
        inner.waiting.push_back(element);
        self.fed.notify_one();
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
    }

    /// Counts elements that the reader took and could not hand on, or that found no room on their way here.
    pub fn count_dropped(&self, count: u64) {
        self.lock().dropped += count;
    }

    /// How many elements wait.
    pub fn waiting(&self) -> usize {
        self.lock().waiting.len()
    }

    /// How many elements were dropped.
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

    use super::Queue;

    #[test]
    fn the_oldest_goes_first_and_is_dropped_first() {
        let queue = Queue::of(2);
        (1..=5).for_each(|number| queue.push(number));
        assert_eq!((queue.pop(), queue.pop(), queue.dropped()), (4, 5, 3));
        queue.push(6);
        assert_eq!((queue.pop(), queue.dropped()), (6, 3));
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
