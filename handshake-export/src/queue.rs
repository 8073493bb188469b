//! The queue before an exporter's reader: bounded, so that a dead reader takes no memory, and never waited
//! for, so that it stops nothing.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// A queue that drops its oldest element where it is full, and counts what it dropped.
pub struct Queue<T> {
    inner: Mutex<Inner<T>>,
    fed: Condvar,
    most: usize,
}

struct Inner<T> {
    waiting: VecDeque<T>,
    dropped: u64,
}

impl<T> Queue<T> {
    /// A queue of at most `most` elements.
    pub fn of(most: usize) -> Self {
        let inner = Mutex::new(Inner { waiting: VecDeque::with_capacity(most), dropped: 0 });
        Self { inner, fed: Condvar::new(), most }
    }

    /// Adds an element, and never waits. Returns what it dropped.
    pub fn push(&self, element: T) -> Option<T> {
        let mut inner = self.lock();
        let is_full = inner.waiting.len() == self.most;
        let dropped = if is_full { inner.waiting.pop_front() } else { None };
        inner.dropped += u64::from(is_full);
        inner.waiting.push_back(element);
        self.fed.notify_one();
        dropped
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

    /// Takes the oldest elements, `most` at most, and never waits.
    pub fn take(&self, most: usize) -> Vec<T> {
        let mut inner = self.lock();
        let taken = inner.waiting.len().min(most);
        inner.waiting.drain(..taken).collect()
    }

    /// How many elements wait.
    pub fn len(&self) -> usize {
        self.lock().waiting.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
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
    use super::Queue;

    #[test]
    fn the_oldest_goes_first_and_is_dropped_first() {
        let queue = Queue::of(2);
        let dropped: Vec<_> = (1..=5).map(|number| queue.push(number)).collect();
        assert_eq!(dropped, [None, None, Some(1), Some(2), Some(3)]);
        assert_eq!((queue.pop(), queue.pop(), queue.dropped()), (4, 5, 3));
        queue.push(6);
        assert_eq!((queue.pop(), queue.dropped()), (6, 3));
        (7..=8).for_each(|number| drop(queue.push(number)));
        assert_eq!(
            (queue.len(), queue.take(1), queue.take(9), queue.is_empty()),
            (2, vec![7], vec![8], true)
        );
    }
}
