//! The attempts in hand: those that run, and the results that no Recorded has named yet. They outlive streams.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::proto::worker_message::Kind;
use crate::proto::{
    Attempt, AttemptStart, Cancel, Draining, NeedJournal, Payload, Recorded, StepFailed, StepRun, TaskStart, Welcome,
    WorkerMessage, attempt_start, cancel,
};
use crate::task::{Call, Failure, Task};

/// Queues what is to be sent: it never blocks, and all that has gathered leaves in one frame.
#[derive(Default)]
pub struct Outbox {
    messages: Mutex<Vec<WorkerMessage>>,
    pub ready: Notify,
}

impl Outbox {
    pub fn put(&self, kind: Kind) {
        self.messages.lock().expect("nobody panics with it").push(WorkerMessage { kind: Some(kind) });
        self.ready.notify_one();
    }

    pub fn take(&self) -> Vec<WorkerMessage> {
        std::mem::take(&mut self.messages.lock().expect("nobody panics with it"))
    }
}

/// What attempts are matched by: all of `Attempt`.
type Name = (String, String, u32, u64);

fn name_of(attempt: &Attempt) -> Name {
    let key = attempt.key.clone().unwrap_or_default();
    (attempt.run_id.clone(), key.id, key.index, attempt.fence)
}

struct Held {
    attempt: Attempt,
    cancelled: Arc<AtomicBool>,
    work: Option<AbortHandle>,
    /// None while it runs.
    report: Option<Kind>,
    /// The place of its report among all.
    ended: u64,
}

#[derive(Default)]
struct State {
    attempts: BTreeMap<Name, Held>,
    ended: u64,
    max_output_bytes: u64,
    draining: bool,
    /// Of the stream that was welcomed; None while there is none.
    out: Option<Arc<Outbox>>,
}

/// Holds the attempts. Whatever changes them also queues the message about it, under one lock: so the executor hears of
/// things in the order in which they happened.
pub struct Hand {
    tasks: HashMap<String, Task>,
    state: Mutex<State>,
    /// Told when the last attempt leaves.
    pub emptied: Notify,
}

impl Hand {
    pub fn new(tasks: HashMap<String, Task>) -> Self {
        Hand { tasks, state: Mutex::default(), emptied: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics with it")
    }

    pub fn task_names(&self) -> Vec<String> {
        self.tasks.keys().cloned().collect()
    }

    /// Gives the attempts in hand, for Hello.
    pub fn attempts(&self) -> Vec<Attempt> {
        self.state().attempts.values().map(|held| held.attempt.clone()).collect()
    }

    pub fn count(&self) -> usize {
        self.state().attempts.len()
    }

    /// Begins a stream: unwanted attempts are forgotten, kept results are sent again.
    pub fn welcome(&self, welcome: &Welcome, out: Arc<Outbox>) {
        let mut state = self.state();
        state.max_output_bytes = welcome.limits.as_ref().map_or(0, |limits| limits.max_output_bytes);
        for attempt in &welcome.unwanted_attempts {
            self.forget(&mut state, &name_of(attempt));
        }
        let mut kept: Vec<_> =
            state.attempts.values().filter_map(|held| Some((held.ended, held.report.clone()?))).collect();
        kept.sort_by_key(|(ended, _)| *ended);
        kept.into_iter().for_each(|(_, report)| out.put(report));
        state.out = Some(out);
    }

    /// Ends a stream: what finishes from here on waits for the next Welcome.
    pub fn lost(&self) {
        self.state().out = None;
    }

    /// Begins an attempt.
    pub fn start(self: &Arc<Self>, start: AttemptStart) {
        let Some(attempt) = start.attempt.clone() else { return };
        let mut state = self.state();
        if state.draining {
            // It was on its way when Draining was sent.
            put(&state, draining(vec![attempt], false));
            return;
        }
        let name = name_of(&attempt);
        if state.attempts.contains_key(&name) {
            return; // a repeated RunSteps is the same attempt
        }
        let task = match start.work.clone() {
            Some(attempt_start::Work::Task(task)) => task,
            Some(attempt_start::Work::Closure(closure)) => {
                // There is no invocation here that could hold one.
                let (run_id, invocation) = (attempt.run_id.clone(), closure.invocation);
                put(&state, Kind::NeedJournal(NeedJournal { run_id, invocation, returned_attempts: vec![attempt] }));
                return;
            }
            None => return,
        };
        let cancelled = Arc::new(AtomicBool::new(false));
        let work = tokio::spawn(self.clone().run(start, task, name.clone(), cancelled.clone())).abort_handle();
        state.attempts.insert(name, Held { attempt, cancelled, work: Some(work), report: None, ended: 0 });
    }

    /// Runs an attempt and reports it, however the task leaves.
    async fn run(self: Arc<Self>, start: AttemptStart, called: TaskStart, name: Name, cancelled: Arc<AtomicBool>) {
        let began = Instant::now();
        let result = match self.tasks.get(&called.name) {
            None => {
                let message = format!("this worker has no task {:?}", called.name);
                Err(Failure { r#final: true, ..Failure::new("TaskNotFoundError", message) })
            }
            Some(task) => {
                let (run_id, step_id, index, _) = name.clone();
                let (number, traceparent) = (start.number, start.traceparent);
                let call = Call { run_id, step_id, index, number, traceparent, cancelled };
                let (task, input) = (task.clone(), called.input);
                // In a task of its own, so that a panic ends there. It ends with this one, which may be aborted.
                let mut work = tokio::task::JoinSet::new();
                work.spawn(async move { task.run(call, input).await });
                match work.join_next().await.expect("there is one") {
                    Ok(result) => result,
                    Err(error) => Err(Failure::of_panic(error.into_panic())),
                }
            }
        };
        self.report(&name, &called.name, result, began);
    }

    fn report(&self, name: &Name, task: &str, result: Result<Payload, Failure>, began: Instant) {
        let mut state = self.state();
        let limit = state.max_output_bytes;
        let result = match result {
            Ok(output) if limit != 0 && output.data.len() as u64 > limit => {
                let size = output.data.len();
                let message = format!(
                    "task {task} returned {size} bytes; the executor takes {limit} at most (--max-output-bytes)"
                );
                Err(Failure { r#final: true, ..Failure::new("OutputTooLargeError", message) })
            }
            result => result,
        };
        state.ended += 1;
        let ended = state.ended;
        let Some(held) = state.attempts.get_mut(name) else { return }; // it was cancelled: nothing is reported
        let attempt = Some(held.attempt.clone());
        let elapsed = prost_types::Duration::try_from(began.elapsed()).ok();
        let report = match result {
            Ok(output) => Kind::StepRun(StepRun { attempt, output: Some(output), elapsed }),
            Err(failure) => Kind::StepFailed(StepFailed { attempt, failure: Some(failure.message()), elapsed }),
        };
        (held.report, held.ended, held.work) = (Some(report.clone()), ended, None);
        put(&state, report);
    }

    /// Forgets the attempts that the executor has answered.
    pub fn recorded(&self, recorded: &Recorded) {
        let mut state = self.state();
        let refused = recorded.refusals.iter().filter_map(|refusal| refusal.attempt.as_ref());
        for attempt in recorded.attempts.iter().chain(refused) {
            self.forget(&mut state, &name_of(attempt));
        }
    }

    /// Stops what a Cancel names, and reports nothing.
    pub fn cancel(&self, cancel: &Cancel) {
        let mut state = self.state();
        let names: Vec<Name> = match &cancel.target {
            Some(cancel::Target::Attempt(attempt)) => vec![name_of(attempt)],
            Some(cancel::Target::RunId(run)) => state.attempts.keys().filter(|name| name.0 == *run).cloned().collect(),
            None => Vec::new(),
        };
        names.iter().for_each(|name| self.forget(&mut state, name));
    }

    /// Tells the executor that nothing new is taken.
    pub fn drain(&self) {
        let mut state = self.state();
        state.draining = true;
        put(&state, draining(Vec::new(), false));
    }

    /// Says the last word of a drain.
    pub fn goodbye(&self) {
        put(&self.state(), draining(Vec::new(), true));
    }

    /// Cancels what still runs, and returns it to the executor.
    pub fn give_back(&self) {
        let mut state = self.state();
        state.draining = true;
        let running = state.attempts.iter().filter(|(_, held)| held.report.is_none());
        let (names, unfinished): (Vec<Name>, Vec<Attempt>) =
            running.map(|(name, held)| (name.clone(), held.attempt.clone())).unzip();
        names.iter().for_each(|name| self.forget(&mut state, name));
        if !unfinished.is_empty() {
            put(&state, draining(unfinished, false));
        }
    }

    fn forget(&self, state: &mut State, name: &Name) {
        let Some(held) = state.attempts.remove(name) else { return };
        held.cancelled.store(true, Ordering::Relaxed);
        if let Some(work) = held.work {
            work.abort();
        }
        if state.attempts.is_empty() {
            self.emptied.notify_one();
        }
    }
}

fn put(state: &State, kind: Kind) {
    if let Some(out) = &state.out {
        out.put(kind);
    }
}

fn draining(returned_attempts: Vec<Attempt>, done: bool) -> Kind {
    Kind::Draining(Draining { returned_attempts, done })
}
