//! Async tasks on one thread: a waiting call is a suspended future.
//!
//! [`Executor`] owns the futures; [`Answers`] connects a future that asked a server
//! something with the posted answer that comes later.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::sync::Arc;
use alloc::task::Wake;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};

/// Names a task: slot and generation.
#[derive(Clone, Copy)]
struct TaskId {
    slot: u32,
    generation: u32,
}

/// A task's future, pinned on the heap.
type Boxed = Pin<Box<dyn Future<Output = ()>>>;
type Ready = Rc<RefCell<VecDeque<TaskId>>>;

struct TaskWaker {
    id: TaskId,
    ready: Ready,
}

// SAFETY: there is one thread; a waker never leaves it.
unsafe impl Send for TaskWaker {}
// SAFETY: likewise.
unsafe impl Sync for TaskWaker {}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }
    fn wake_by_ref(self: &Arc<Self>) {
        self.ready.borrow_mut().push_back(self.id);
    }
}

struct Slot {
    generation: u32,
    task: Option<Boxed>,
    waker: Arc<TaskWaker>,
}

/// Runs futures. Tasks may spawn tasks ([`Spawner`]).
#[derive(Default)]
pub struct Executor {
    slots: Vec<Slot>,
    free: Vec<u32>,
    ready: Ready,
    spawner: Spawner,
    /// Which of so many tasks that can go on does.
    chooser: Option<fn(usize) -> usize>,
}

/// Spawns onto an [`Executor`].
#[derive(Clone, Default)]
pub struct Spawner {
    spawned: Rc<RefCell<VecDeque<Boxed>>>,
    alive: Rc<Cell<usize>>,
}

impl Spawner {
    /// Starts `future` when the current task next waits.
    pub fn spawn(&self, future: impl Future<Output = ()> + 'static) {
        self.alive.set(self.alive.get() + 1);
        self.spawned.borrow_mut().push_back(Box::pin(future));
    }

    /// Tasks alive.
    pub fn tasks(&self) -> usize {
        self.alive.get()
    }
}

impl Executor {
    /// An executor without tasks.
    pub fn new() -> Executor {
        Executor::default()
    }

    /// Has `chooser` decide which of several tasks goes on; without one it is the oldest.
    pub fn set_chooser(&mut self, chooser: fn(usize) -> usize) {
        self.chooser = Some(chooser);
    }

    fn next_ready(&self) -> Option<TaskId> {
        let mut ready = self.ready.borrow_mut();
        match self.chooser.filter(|_| ready.len() > 1) {
            Some(choose) => {
                let choice = choose(ready.len());
                ready.remove(choice)
            }
            None => ready.pop_front(),
        }
    }

    /// A handle for spawning.
    pub fn spawner(&self) -> Spawner {
        self.spawner.clone()
    }

    fn adopt(&mut self, task: Boxed) {
        let index = self.free.pop().unwrap_or(self.slots.len() as u32);
        let fresh = |generation| {
            let slot = index;
            let id = TaskId { slot, generation };
            let ready = self.ready.clone();
            Arc::new(TaskWaker { id, ready })
        };
        if index as usize == self.slots.len() {
            self.slots.push(Slot {
                generation: 0,
                task: None,
                waker: fresh(0),
            });
        }
        let slot = &mut self.slots[index as usize];
        match Arc::get_mut(&mut slot.waker) {
            Some(waker) => waker.id.generation = slot.generation,
            // Somebody may still wake the task that was here.
            None => slot.waker = fresh(slot.generation),
        }
        slot.task = Some(task);
        self.ready.borrow_mut().push_back(slot.waker.id);
    }

    fn next_spawned(&self) -> Option<Boxed> {
        self.spawner.spawned.borrow_mut().pop_front()
    }

    /// Polls tasks until none can go on.
    pub fn run(&mut self) {
        loop {
            while let Some(task) = self.next_spawned() {
                self.adopt(task);
            }
            let Some(id) = self.next_ready() else {
                return;
            };
            let slot = &mut self.slots[id.slot as usize];
            if slot.generation != id.generation {
                continue;
            }
            let Some(mut task) = slot.task.take() else {
                continue;
            };
            let waker = Waker::from(slot.waker.clone());
            match task.as_mut().poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(()) => {
                    drop(task);
                    slot.generation = slot.generation.wrapping_add(1);
                    self.free.push(id.slot);
                    let alive = &self.spawner.alive;
                    alive.set(alive.get() - 1);
                }
                Poll::Pending => slot.task = Some(task),
            }
        }
    }
}

struct Waiting<K, T> {
    txn: u64,
    from: K,
    shared: Rc<AnswerCell<T>>,
}

struct AnswerCell<T> {
    value: Cell<Option<T>>,
    waker: Cell<Option<Waker>>,
}

struct AnswersInner<K, T> {
    next: Cell<u64>,
    waiting: RefCell<Vec<Waiting<K, T>>>,
    /// Peers that will not answer any more, and what counts as their answer.
    closed: RefCell<Vec<(K, T)>>,
}

/// Questions that wait for an answer, by transaction number *and* the peer that may answer.
pub struct Answers<K, T>(Rc<AnswersInner<K, T>>);

impl<K, T> Clone for Answers<K, T> {
    fn clone(&self) -> Self {
        Answers(self.0.clone())
    }
}

impl<K: Copy + PartialEq, T> Default for Answers<K, T> {
    fn default() -> Self {
        Answers::new()
    }
}

impl<K: Copy + PartialEq, T> Answers<K, T> {
    /// No questions. Transaction numbers start at 1.
    pub fn new() -> Self {
        Answers(Rc::new(AnswersInner {
            next: Cell::new(1),
            waiting: RefCell::new(Vec::new()),
            closed: RefCell::new(Vec::new()),
        }))
    }

    /// A new question to `from`: its number and the future of the answer. Dropping the
    /// future withdraws the question; a late answer is then ignored.
    pub fn ask(&self, from: K) -> (u64, Answer<K, T>)
    where
        T: Clone,
    {
        let txn = self.0.next.get();
        self.0.next.set(txn + 1);
        let closed = self.0.closed.borrow();
        let value = closed.iter().find(|(k, _)| *k == from);
        let value = value.map(|(_, value)| value.clone());
        let open = value.is_none();
        let shared = Rc::new(AnswerCell {
            value: Cell::new(value),
            waker: Cell::new(None),
        });
        if open {
            self.0.waiting.borrow_mut().push(Waiting {
                txn,
                from,
                shared: shared.clone(),
            });
        }
        (
            txn,
            Answer {
                txn,
                shared,
                answers: self.clone(),
            },
        )
    }

    /// Delivers an answer; `false` when nobody (any more) asked `from` that.
    pub fn answer(&self, from: K, txn: u64, value: T) -> bool {
        let mut waiting = self.0.waiting.borrow_mut();
        let Some(i) = waiting.iter().position(|w| w.txn == txn && w.from == from) else {
            return false;
        };
        let entry = waiting.swap_remove(i);
        drop(waiting);
        entry.shared.value.set(Some(value));
        if let Some(waker) = entry.shared.waker.take() {
            waker.wake();
        }
        true
    }

    /// `from` died: answers everything that it was asked, and whatever it will be.
    pub fn close(&self, from: K, value: T)
    where
        T: Clone,
    {
        self.0.closed.borrow_mut().push((from, value.clone()));
        let waiting = self.0.waiting.borrow();
        let asked = waiting.iter().filter(|w| w.from == from);
        let txns: Vec<u64> = asked.map(|w| w.txn).collect();
        drop(waiting);
        for txn in txns {
            self.answer(from, txn, value.clone());
        }
    }

    /// Whether [`Answers::close`] was said of `from`.
    pub fn is_closed(&self, from: K) -> bool {
        self.0.closed.borrow().iter().any(|(k, _)| *k == from)
    }

    /// The number of a question to `from` that waits, if there is one.
    pub fn any(&self, from: K) -> Option<u64> {
        let waiting = self.0.waiting.borrow();
        waiting.iter().find(|w| w.from == from).map(|w| w.txn)
    }

    /// Questions without an answer.
    pub fn len(&self) -> usize {
        self.0.waiting.borrow().len()
    }

    /// Whether nothing is asked.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The future of an answer.
pub struct Answer<K: Copy + PartialEq, T> {
    txn: u64,
    shared: Rc<AnswerCell<T>>,
    answers: Answers<K, T>,
}

impl<K: Copy + PartialEq, T> Future for Answer<K, T> {
    type Output = T;
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        match self.shared.value.take() {
            Some(value) => Poll::Ready(value),
            None => {
                self.shared.waker.set(Some(cx.waker().clone()));
                Poll::Pending
            }
        }
    }
}

impl<K: Copy + PartialEq, T> Drop for Answer<K, T> {
    fn drop(&mut self) {
        self.answers
            .0
            .waiting
            .borrow_mut()
            .retain(|w| w.txn != self.txn);
    }
}

/// A place where tasks wait until somebody says that things changed.
#[derive(Default)]
pub struct Event {
    waiters: RefCell<Vec<Waker>>,
    epoch: Cell<u64>,
}

impl Event {
    /// Nobody waits.
    pub const fn new() -> Event {
        Event {
            waiters: RefCell::new(Vec::new()),
            epoch: Cell::new(0),
        }
    }

    /// Wakes all who wait.
    pub fn signal(&self) {
        self.epoch.set(self.epoch.get() + 1);
        for waker in self.waiters.take() {
            waker.wake();
        }
    }

    /// Waits for the next [`Event::signal`]. Check the condition, then wait: nothing can
    /// happen between, there is one thread.
    pub fn wait(&self) -> EventWait<'_> {
        EventWait {
            event: self,
            seen: self.epoch.get(),
        }
    }
}

/// The future of [`Event::wait`].
pub struct EventWait<'a> {
    event: &'a Event,
    seen: u64,
}

impl Future for EventWait<'_> {
    type Output = ();
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.event.epoch.get() != self.seen {
            return Poll::Ready(());
        }
        self.event.waiters.borrow_mut().push(cx.waker().clone());
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_reaches_only_who_asked_that_peer() {
        let mut executor = Executor::new();
        let answers: Answers<u32, u32> = Answers::new();
        let got = Rc::new(Cell::new(0));
        let (txn, answer) = answers.ask(7);
        let sink = got.clone();
        executor
            .spawner()
            .spawn(async move { sink.set(answer.await) });
        executor.run();
        assert!(!answers.answer(8, txn, 1), "another peer must not answer");
        assert!(
            !answers.answer(7, txn + 1, 1),
            "another transaction must not answer"
        );
        executor.run();
        assert_eq!(got.get(), 0);
        assert!(answers.answer(7, txn, 42));
        executor.run();
        assert_eq!(got.get(), 42);
        assert_eq!(executor.spawner().tasks(), 0);
    }

    #[test]
    fn a_dropped_answer_withdraws_its_question() {
        let answers: Answers<u32, u32> = Answers::new();
        let (txn, answer) = answers.ask(1);
        drop(answer);
        assert!(answers.is_empty());
        assert!(!answers.answer(1, txn, 0));
    }

    #[test]
    fn a_task_is_not_woken_in_the_name_of_the_one_before() {
        let mut executor = Executor::new();
        let kept: Rc<Cell<Option<Waker>>> = Rc::default();
        let polls = Rc::new(Cell::new(0));
        let sink = kept.clone();
        executor
            .spawner()
            .spawn(core::future::poll_fn(move |context| {
                sink.set(Some(context.waker().clone()));
                Poll::Ready(())
            }));
        executor.run();
        let count = polls.clone();
        executor.spawner().spawn(core::future::poll_fn(move |_| {
            count.set(count.get() + 1);
            Poll::Pending
        }));
        executor.run();
        kept.take().unwrap().wake();
        executor.run();
        assert_eq!((polls.get(), executor.spawner().tasks()), (1, 1));
    }

    #[test]
    fn a_closed_peer_has_answered_everything() {
        let answers: Answers<u32, u32> = Answers::new();
        let got = Rc::new(RefCell::new(Vec::new()));
        let mut executor = Executor::new();
        let ask = |executor: &mut Executor, from| {
            let (_, answer) = answers.ask(from);
            let sink = got.clone();
            executor.spawner().spawn(async move {
                let value = answer.await;
                sink.borrow_mut().push((from, value));
            });
            executor.run();
        };
        for from in [1, 2, 1] {
            ask(&mut executor, from);
        }
        answers.close(1, 5);
        executor.run();
        ask(&mut executor, 1);
        assert_eq!(*got.borrow(), [(1, 5); 3]);
        assert!(answers.is_closed(1) && !answers.is_closed(2));
        assert_eq!(answers.len(), 1);
    }

    #[test]
    fn an_event_wakes_all_and_a_task_can_spawn() {
        let mut executor = Executor::new();
        let event = Rc::new(Event::new());
        let count = Rc::new(Cell::new(0));
        let spawner = executor.spawner();
        for _ in 0..3 {
            let (event, count, spawner) = (event.clone(), count.clone(), spawner.clone());
            executor.spawner().spawn(async move {
                event.wait().await;
                let count = count.clone();
                spawner.spawn(async move { count.set(count.get() + 1) });
            });
        }
        executor.run();
        event.signal();
        executor.run();
        assert_eq!(count.get(), 3);
    }
}
