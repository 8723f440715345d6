//! Iterators whose work is done by other threads: what rustic_core uses of the crate pariter, by its names.
//!
//! pariter wakes its reader ten thousand times a second, to see whether a worker panicked. A backup waits for the line most
//! of its time: behind 20 Mbit/s that took six sevenths of all its processor time. Here nobody wakes before there is something to do: a
//! worker that panics says so.

use std::iter::Fuse;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Scope, available_parallelism};

/// Any iterator, with the work of what came before done elsewhere.
pub trait IteratorExt: Iterator + Sized {
    /// The same items; when nobody wants more, the rest is still taken, and dropped. In pariter a thread takes each before it is asked
    /// for, and holds it: a pack or a piece of a file, wherever rustic_core wants that. The workers are ahead enough.
    fn readahead_scoped<'env, 'scope>(self, _: &'scope Scope<'scope, 'env>) -> Readahead<Self> {
        Readahead { items: self.fuse() }
    }

    /// Applies `work` to each item, in as many threads as there are processors; the results come in the order of the items.
    fn parallel_map_scoped<'env, 'scope, F, O>(
        self,
        scope: &'scope Scope<'scope, 'env>,
        work: F,
    ) -> ParallelMap<Self, O>
    where
        F: FnMut(Self::Item) -> O + Send + Clone + 'env,
        Self::Item: Send + 'env,
        O: Send + 'env,
    {
        let threads = available_parallelism().map_or(1, usize::from);
        // One is ready when a worker has done with the last. More would only be more memory.
        let at_work = threads + 1;
        // Room for all of them: no worker waits for its reader.
        let (todo, items) = sync_channel::<(usize, Self::Item)>(at_work);
        let (sender, done) = sync_channel(at_work);
        let items = Arc::new(Mutex::new(items));
        for _ in 0..threads {
            let (items, sender, mut work) = (items.clone(), sender.clone(), work.clone());
            scope.spawn(move || {
                let end = End { items: sender.clone() };
                while let Some((number, item)) = next(&items) {
                    let _ = sender.send(Message::Item((number, work(item))));
                }
                drop(end);
            });
        }
        ParallelMap { items: self, todo: Some(todo), done, at_work, sent: 0, taken: 0, early: Vec::new() }
    }
}

impl<I: Iterator> IteratorExt for I {}

/// The lock is held by the one who waits.
fn next<T>(items: &Mutex<Receiver<T>>) -> Option<T> {
    items.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()
}

enum Message<T> {
    Item(T),
    Panicked,
}

/// Tells the reader when its thread ends by a panic: else it would wait for ever for what that thread was at work on.
struct End<T> {
    items: SyncSender<Message<T>>,
}

impl<T> Drop for End<T> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = self.items.send(Message::Panicked);
        }
    }
}

/// None: all have ended.
fn receive<T>(items: &Receiver<Message<T>>) -> Option<T> {
    match items.recv().ok()? {
        Message::Item(item) => Some(item),
        Message::Panicked => panic!("a thread at work for this one panicked"),
    }
}

/// See [`IteratorExt::readahead_scoped`].
pub struct Readahead<I: Iterator> {
    items: Fuse<I>,
}

impl<I: Iterator> Iterator for Readahead<I> {
    type Item = I::Item;

    fn next(&mut self) -> Option<I::Item> {
        self.items.next()
    }
}

impl<I: Iterator> Drop for Readahead<I> {
    fn drop(&mut self) {
        // What panicked once is not asked again.
        if !std::thread::panicking() {
            self.items.by_ref().for_each(drop);
        }
    }
}

/// See [`IteratorExt::parallel_map_scoped`].
pub struct ParallelMap<I: Iterator, O> {
    items: I,
    /// None: there are no more.
    todo: Option<SyncSender<(usize, I::Item)>>,
    done: Receiver<Message<(usize, O)>>,
    at_work: usize,
    sent: usize,
    taken: usize,
    /// Done before an earlier one.
    early: Vec<(usize, O)>,
}

impl<I: Iterator, O> ParallelMap<I, O> {
    fn send(&mut self) {
        while let Some(todo) = &self.todo
            && self.sent < self.taken + self.at_work
        {
            match self.items.next() {
                Some(item) => {
                    // Fails only when all workers panicked, which is told by them.
                    let _ = todo.send((self.sent, item));
                    self.sent += 1;
                }
                None => self.todo = None,
            }
        }
    }
}

impl<I: Iterator, O> Iterator for ParallelMap<I, O> {
    type Item = O;

    fn next(&mut self) -> Option<O> {
        self.send();
        if self.taken == self.sent {
            return None;
        }
        let is_next = |(number, _): &(usize, O)| *number == self.taken;
        let result = match self.early.iter().position(is_next) {
            Some(at) => self.early.swap_remove(at).1,
            None => loop {
                let (number, result) = receive(&self.done).expect("whoever ends with work to do has panicked");
                if number == self.taken {
                    break result;
                }
                self.early.push((number, result));
            },
        };
        self.taken += 1;
        Some(result)
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::thread::scope;
    use std::time::Duration;

    use super::*;

    #[test]
    fn results_come_in_order() {
        let results: Vec<u64> = scope(|scope| {
            let slow_at_first = |number: u64| {
                std::thread::sleep(Duration::from_micros(500 / (number + 1)));
                number * 2
            };
            (0..1000_u64).readahead_scoped(scope).parallel_map_scoped(scope, slow_at_first).collect()
        });
        assert!(results.into_iter().eq((0..1000).map(|number| number * 2)));
    }

    #[test]
    fn nothing_is_taken_before_it_is_wanted() {
        let mut taken = 0;
        scope(|scope| drop((0..10).inspect(|_| taken += 1).parallel_map_scoped(scope, |number| number)));
        assert_eq!(taken, 0);
        assert_eq!(scope(|scope| (0..0).parallel_map_scoped(scope, |number: u8| number).count()), 0);
    }

    #[test]
    fn what_nobody_wants_is_taken_all_the_same() {
        let (sender, items) = sync_channel(0);
        scope(|scope| {
            let mut first = items.into_iter().readahead_scoped(scope);
            scope.spawn(move || {
                for number in 0..100 {
                    sender.send(number).expect("somebody takes it");
                }
            });
            assert_eq!(first.next(), Some(0));
        });
    }

    #[test]
    fn a_panic_is_told_and_waited_for_by_nobody() {
        let panics = |number: u32| assert_ne!(number, 7, "as planned");
        for ahead in [true, false] {
            let ended = catch_unwind(AssertUnwindSafe(|| {
                scope(|scope| match ahead {
                    true => (0..1000).map(panics).readahead_scoped(scope).count(),
                    false => (0..1000).parallel_map_scoped(scope, panics).count(),
                })
            }));
            assert!(ended.is_err());
        }
    }
}
