//! What may happen to a command queue at once.

use std::rc::Rc;

use loom::thread::{self, JoinHandle};

use super::explore;
use super::queue::{BAD, Queue, REPLACED, Sent};

/// Batches, one after the other.
type Batches = &'static [&'static [u64]];

/// Lets `senders` send their batches at once, each on a thread of its own, while the SMMU looks at the queue `looks` times.
/// `handlers` more threads are a global error interrupt each. Returns what the SMMU consumed.
///
/// The main thread only waits: who comes first is then no preemption, and the bound on those is for what matters.
fn race(log2_entries: u8, senders: &[Batches], handlers: usize, looks: usize) -> Vec<u64> {
    let queue = Rc::new(Queue::new(log2_entries));
    let senders = spawn_each(&queue, senders, |queue, batches| {
        batches.iter().map_while(|batch| send(queue, batch)).collect::<Vec<_>>()
    });
    let handlers = spawn_each(&queue, &vec![(); handlers], |queue, ()| queue.get_on());
    let smmu = spawn_each(&queue, &[looks], |queue, looks| {
        let mut consumed = Vec::new();
        (0..looks).for_each(|_| queue.consume(&mut consumed));
        consumed
    });
    let sent: Vec<_> = senders.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
    handlers.into_iter().for_each(|thread| thread.join().unwrap());
    let mut consumed: Vec<_> = smmu.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
    queue.settle(&mut consumed, &sent);
    consumed
}

/// A thread for each of `roles`.
fn spawn_each<R: Copy + 'static, T: 'static>(
    queue: &Rc<Queue>,
    roles: &[R],
    act: impl Fn(&Queue, R) -> T + Copy + 'static,
) -> Vec<JoinHandle<T>> {
    let spawn = |&role: &R| {
        let queue = Rc::clone(queue);
        thread::spawn(move || act(&queue, role))
    };
    roles.iter().map(spawn).collect()
}

/// Sends a batch, and does what a waiter does, for a turn.
fn send(queue: &Queue, batch: &[u64]) -> Option<Sent> {
    let sent = queue.send(batch)?;
    if !queue.is_done(&sent) {
        queue.get_on();
    }
    Some(sent)
}

/// Whether `commands` holds these in this order, whatever is in between.
fn in_order(commands: &[u64], expected: &[u64]) -> bool {
    let mut rest = commands.iter();
    expected.iter().all(|wanted| rest.any(|command| command == wanted))
}

#[test]
fn batches_of_two_producers_are_published_whole_and_in_order() {
    explore(2, || {
        let consumed = race(2, &[&[&[10, 11]], &[&[20, 21]]], 0, 1);
        assert!(consumed == [10, 11, 20, 21] || consumed == [20, 21, 10, 11], "{consumed:?}");
    });
}

#[test]
fn three_producers() {
    explore(2, || {
        let queue = Rc::new(Queue::new(2));
        // They do no more than they must, and one of them has the main thread: fewer schedules to try.
        let send = |command| {
            let queue = Rc::clone(&queue);
            move || {
                let sent = queue.send(&[command]).unwrap();
                queue.get_on();
                sent
            }
        };
        let others = [10, 20].map(|command| thread::spawn(send(command)));
        let first = send(30)();
        let sent: Vec<_> = others.into_iter().map(|thread| thread.join().unwrap()).chain([first]).collect();
        let mut consumed = Vec::new();
        queue.settle(&mut consumed, &sent);
        consumed.sort_unstable();
        assert_eq!(consumed, [10, 20, 30]);
    });
}

#[test]
fn slots_are_used_again_only_when_they_are_consumed() {
    explore(1, || {
        let consumed = race(1, &[&[&[10], &[11], &[12]], &[&[20], &[21]]], 0, 2);
        assert!(consumed.len() >= 2, "{consumed:?}");
        let of =
            |producer: u64| consumed.iter().copied().filter(|command| command / 10 == producer).collect::<Vec<_>>();
        assert!(in_order(&[10, 11, 12], &of(1)) && in_order(&[20, 21], &of(2)), "{consumed:?}");
    });
}

#[test]
fn three_producers_fight_for_two_slots() {
    explore(1, || {
        let mut consumed = race(1, &[&[&[10, 11]], &[&[20]], &[&[30]]], 0, 1);
        consumed.sort_unstable();
        consumed.dedup();
        assert!((2..=5).contains(&consumed.len()), "{consumed:?}");
    });
}

#[test]
fn a_queue_of_one_slot() {
    explore(2, || {
        let consumed = race(0, &[&[&[10], &[11]], &[&[20]]], 0, 2);
        assert!(!consumed.is_empty());
    });
}

#[test]
fn an_error_in_the_middle_is_repaired_once_and_told_to_its_sender() {
    explore(2, || {
        let consumed = race(2, &[&[&[10, BAD, 11]], &[&[20]]], 0, 1);
        assert!(in_order(&consumed, &[10, REPLACED, 11]) && consumed.len() <= 4, "{consumed:?}");
    });
}

#[test]
fn an_error_is_on_record_before_the_queue_goes_on() {
    explore(3, || {
        let queue = Rc::new(Queue::new(1));
        let sent = queue.send(&[BAD, 11]).unwrap();
        let mut consumed = Vec::new();
        queue.consume(&mut consumed);
        let handler = thread::spawn({
            let queue = Rc::clone(&queue);
            move || queue.get_on()
        });
        let smmu = thread::spawn({
            let queue = Rc::clone(&queue);
            move || {
                queue.consume(&mut consumed);
                consumed
            }
        });
        let waiter = thread::spawn({
            let queue = Rc::clone(&queue);
            move || {
                queue.is_done(&sent);
                sent
            }
        });
        handler.join().unwrap();
        let (mut consumed, sent) = (smmu.join().unwrap(), waiter.join().unwrap());
        queue.settle(&mut consumed, &[sent]);
        assert_eq!(consumed, [REPLACED, 11]);
    });
}

#[test]
fn two_waiters_and_a_handler_repair_at_once() {
    explore(1, || {
        let consumed = race(1, &[&[&[BAD], &[11]], &[&[20]]], 1, 2);
        assert_eq!(consumed.iter().filter(|command| **command == REPLACED).count(), 1, "{consumed:?}");
    });
}

#[test]
fn nobody_touches_a_register_once_a_suspended_queue_is_idle() {
    explore(3, || {
        let queue = Rc::new(Queue::new(2));
        let senders = [10, 20].map(|command| {
            let queue = Rc::clone(&queue);
            thread::spawn(move || {
                let sent = send(&queue, &[command])?;
                queue.retire(&sent);
                Some(sent)
            })
        });
        queue.suspend();
        let sent: Vec<_> = senders.into_iter().filter_map(|thread| thread.join().unwrap()).collect();
        assert!(queue.suspend(), "all senders have gone");
        queue.resume();
        queue.settle(&mut Vec::new(), &sent);
    });
}
