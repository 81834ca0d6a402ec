//! Queue, cluster and record store in memory, with the semantics that AWS documents: visibility,
//! receive counts and redrive; client tokens, `failures`, and tasks that end by themselves; conditional
//! writes. Time is tokio's, which the tests pause.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, Weak},
    time::Duration,
};

use futures::future::BoxFuture;
use jiff::Timestamp;
use tokio::time::{Instant, sleep, sleep_until};
use vidstreamx_consumer::{
    call::CallError,
    engine::World,
    launch::{self, Launch, LaunchError},
    queue::{Backlog, Message, Queue, Receipt, Refused},
    records::{LoadError, Presence, Records, SaveError, Stored},
    tasks::{Status, Stopped, Tasks},
};
use vidstreamx_job::{Job, JobId, Layout, Outcome, Record, Report, Source, Timings};

/// What every call takes.
const LATENCY: Duration = Duration::from_millis(50);
/// DescribeTasks and ListTasks show a new task with a delay.
const SHOWN_AFTER: Duration = Duration::from_secs(3);
/// As the template has it.
const MAX_RECEIVES: u32 = 10;

/// How a task plays out.
#[derive(Debug, Clone)]
pub struct Play {
    pub lasts: Duration,
    pub stopped: Stopped,
    /// The report it leaves.
    pub report: Option<Outcome>,
}

impl Play {
    /// A container that exits by itself, with the report that belongs to the code.
    pub fn exit(code: i32, seconds: u64) -> Self {
        let report = vidstreamx_job::Exit::from_code(code).map(Outcome::from);
        let stopped = Stopped {
            exit_code: Some(code),
            stop_code: Some("EssentialContainerExited".into()),
            reason: Some("Essential container in task exited".into()),
        };
        Self { lasts: Duration::from_secs(seconds), stopped, report }
    }

    /// A task that AWS ends.
    pub fn stopped(exit_code: Option<i32>, stop_code: &str, seconds: u64) -> Self {
        let stopped = Stopped { exit_code, stop_code: Some(stop_code.into()), reason: None };
        Self { lasts: Duration::from_secs(seconds), stopped, report: None }
    }
}

/// Plays the n-th task (from 1) of a source key.
type Script = Box<dyn Fn(&str, usize) -> Play + Send + Sync>;

/// All of AWS that the consumer sees.
pub struct Cloud {
    state: Mutex<State>,
    script: Script,
    start: Instant,
    this: Weak<Self>,
}

#[derive(Default)]
struct State {
    messages: BTreeMap<u64, Queued>,
    dead: Vec<String>,
    next: u64,
    tokens: HashMap<String, (Launch, String)>,
    forgets_tokens: bool,
    tasks: BTreeMap<String, Task>,
    refuse_until: Option<Instant>,
    launches: Vec<Launch>,
    run_task_calls: usize,
    receives: usize,
    records: HashMap<JobId, (Record, u64)>,
    gone: HashSet<String>,
    failing_looks: usize,
    refused_keys: HashSet<String>,
}

struct Queued {
    body: String,
    visible_at: Instant,
    receives: u32,
    receipt: u64,
}

struct Task {
    job: Job,
    started_at: Instant,
    play: Play,
}

impl Task {
    fn ends_at(&self) -> Instant {
        self.started_at + self.play.lasts
    }

    /// ECS forgets stopped tasks after an hour.
    fn is_forgotten(&self, now: Instant) -> bool {
        now > self.ends_at() + Duration::from_hours(1)
    }
}

impl Cloud {
    pub fn new(script: impl Fn(&str, usize) -> Play + Send + Sync + 'static) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            state: Mutex::default(),
            script: Box::new(script),
            start: Instant::now(),
            this: this.clone(),
        })
    }

    pub fn world(self: &Arc<Self>) -> World {
        let start = self.start;
        World {
            queue: self.clone(),
            tasks: self.clone(),
            records: self.clone(),
            clock: Arc::new(move || epoch() + start.elapsed()),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub fn send(&self, body: String) {
        let mut state = self.state();
        let id = state.next;
        state.next += 1;
        let visible_at = Instant::now();
        state.messages.insert(id, Queued { body, visible_at, receives: 0, receipt: 0 });
    }

    /// Refuses RunTask with `failures` for so long.
    pub fn refuse_for(&self, duration: Duration) {
        self.state().refuse_until = Some(Instant::now() + duration);
    }

    /// Refuses RunTask for this video, as a mistake in the request.
    pub fn refuse_key(&self, key: &str) {
        self.state().refused_keys.insert(key.to_owned());
    }

    /// Takes every RunTask for a new one, as after a token's 24 hours.
    pub fn forget_tokens(&self) {
        self.state().forgets_tokens = true;
    }

    pub fn delete_object(&self, key: &str) {
        self.state().gone.insert(key.to_owned());
    }

    pub fn upload_object(&self, key: &str) {
        self.state().gone.remove(key);
    }

    /// The next so many looks at a source object fail.
    pub fn fail_looks(&self, times: usize) {
        self.state().failing_looks = times;
    }

    pub fn delete_record(&self, key: &str) {
        self.state().records.retain(|_, (record, _)| record.source.key.as_str() != key);
    }

    pub fn put_record(&self, record: Record) {
        self.state().records.insert(record.job_id.clone(), (record, 1));
    }

    /// Bodies in the dead-letter queue.
    pub fn dead(&self) -> Vec<String> {
        self.state().dead.clone()
    }

    /// Messages that are neither deleted nor dead.
    pub fn queued(&self) -> usize {
        self.state().messages.len()
    }

    /// Messages that a receive would get now.
    pub fn visible(&self) -> usize {
        let now = Instant::now();
        self.state().messages.values().filter(|message| message.visible_at <= now).count()
    }

    pub fn most_receives(&self) -> u32 {
        self.state().messages.values().map(|message| message.receives).max().unwrap_or_default()
    }

    pub fn receives(&self) -> usize {
        self.state().receives
    }

    pub fn run_task_calls(&self) -> usize {
        self.state().run_task_calls
    }

    /// What was launched, in order.
    pub fn launches(&self) -> Vec<Launch> {
        self.state().launches.clone()
    }

    pub fn tasks_running(&self) -> usize {
        let now = Instant::now();
        self.state().tasks.values().filter(|task| task.started_at <= now && now < task.ends_at()).count()
    }

    /// The most tasks that ran at the same time: of all, and of one job.
    pub fn most_at_once(&self) -> (usize, usize) {
        let state = self.state();
        let overlap = |task: &Task, same_job: bool| {
            let others = state.tasks.values().filter(|other| !same_job || other.job.id == task.job.id);
            others.filter(|o| o.started_at <= task.started_at && task.started_at < o.ends_at()).count()
        };
        let most = |same_job| state.tasks.values().map(|task| overlap(task, same_job)).max().unwrap_or(0);
        (most(false), most(true))
    }

    pub fn record(&self, key: &str) -> Record {
        let state = self.state();
        let mut found = state.records.values().filter(|(record, _)| record.source.key.as_str() == key);
        let record = found.next().unwrap_or_else(|| panic!("no record of {key}")).0.clone();
        assert!(found.next().is_none(), "several records of {key}");
        record
    }

    pub fn records(&self) -> usize {
        self.state().records.len()
    }
}

impl Queue for Cloud {
    fn receive(
        &self,
        most: usize,
        wait: Duration,
        visibility: Duration,
    ) -> BoxFuture<'_, Result<Vec<Message>, CallError>> {
        Box::pin(async move {
            // On the server's side a poll goes on when its client is gone.
            let server = self.this.upgrade().unwrap();
            tokio::spawn(async move {
                let deadline = Instant::now() + wait;
                server.state().receives += 1;
                sleep(LATENCY).await;
                loop {
                    let now = Instant::now();
                    let messages = server.take_visible(most, now + visibility);
                    if !messages.is_empty() || now >= deadline {
                        return Ok(messages);
                    }
                    sleep_until((now + Duration::from_millis(100)).min(deadline)).await;
                }
            })
            .await
            .unwrap()
        })
    }

    fn delete<'a>(&'a self, receipt: &'a Receipt) -> BoxFuture<'a, Result<(), CallError>> {
        Box::pin(async move {
            sleep(LATENCY).await;
            let mut state = self.state();
            if let Some(id) = current(&state, receipt) {
                state.messages.remove(&id);
            }
            Ok(())
        })
    }

    fn set_visibility<'a>(
        &'a self,
        receipts: &'a [Receipt],
        visibility: Duration,
    ) -> BoxFuture<'a, Result<Vec<Refused>, CallError>> {
        Box::pin(async move {
            sleep(LATENCY).await;
            let mut state = self.state();
            let mut refused = Vec::new();
            for receipt in receipts {
                match current(&state, receipt).and_then(|id| state.messages.get_mut(&id)) {
                    Some(message) => message.visible_at = Instant::now() + visibility,
                    None => refused.push(Refused {
                        receipt: receipt.clone(),
                        reason: "ReceiptHandleIsInvalid".into(),
                        for_good: true,
                    }),
                }
            }
            Ok(refused)
        })
    }

    fn backlog(&self) -> BoxFuture<'_, Result<Backlog, CallError>> {
        Box::pin(async move {
            sleep(LATENCY).await;
            let visible = self.visible() as u64;
            Ok(Backlog { visible, in_flight: self.queued() as u64 - visible, delayed: 0 })
        })
    }
}

impl Cloud {
    fn take_visible(&self, most: usize, until: Instant) -> Vec<Message> {
        let mut state = self.state();
        let now = Instant::now();
        let due: Vec<_> =
            state.messages.iter().filter(|(_, m)| m.visible_at <= now).map(|(id, _)| *id).collect();
        let mut taken = Vec::new();
        for id in due {
            if taken.len() == most {
                break;
            }
            let receipt = state.next;
            state.next += 1;
            let message = state.messages.get_mut(&id).unwrap();
            if message.receives >= MAX_RECEIVES {
                let body = state.messages.remove(&id).unwrap().body;
                state.dead.push(body);
                continue;
            }
            message.receives += 1;
            message.visible_at = until;
            message.receipt = receipt;
            taken.push(Message {
                id: id.to_string(),
                receipt: Receipt(format!("{id}:{receipt}")),
                receive_count: message.receives,
                body: message.body.clone(),
            });
        }
        taken
    }
}

fn epoch() -> Timestamp {
    "2026-05-04T09:00:00Z".parse().unwrap()
}

/// The message of a receipt, if it was not received again since.
fn current(state: &State, receipt: &Receipt) -> Option<u64> {
    let (id, receipt) = receipt.0.split_once(':').unwrap();
    let id = id.parse().unwrap();
    let message = state.messages.get(&id)?;
    (message.receipt == receipt.parse::<u64>().unwrap()).then_some(id)
}

impl Tasks for Cloud {
    fn run<'a>(&'a self, launch: &'a Launch) -> BoxFuture<'a, Result<String, LaunchError>> {
        Box::pin(async move {
            sleep(LATENCY).await;
            let mut state = self.state();
            state.run_task_calls += 1;
            let now = Instant::now();
            if state.refuse_until.is_some_and(|until| now < until) {
                return Err(LaunchError::Refused("Capacity is unavailable at this time.".into()));
            }
            let known = state.tokens.get(&launch.token).filter(|_| !state.forgets_tokens);
            if let Some((same, arn)) = known {
                let arn = arn.clone();
                return if same == launch { Ok(arn) } else { Err(LaunchError::Conflict(vec![arn])) };
            }
            let environment: HashMap<_, _> = launch.environment.iter().cloned().collect();
            let job = Job::from_env(|name| environment.get(name).cloned()).unwrap();
            if state.refused_keys.contains(job.source.key.as_str()) {
                let told = "InvalidParameterException: Some tags contain invalid characters.";
                return Err(launch::error_meaning(Some("InvalidParameterException"), told.into()));
            }
            let nth = state.tasks.values().filter(|task| task.job.id == job.id).count() + 1;
            let play = (self.script)(job.source.key.as_str(), nth);
            let arn = format!("arn:task/{}", state.tasks.len());
            state.tokens.insert(launch.token.clone(), (launch.clone(), arn.clone()));
            state.launches.push(launch.clone());
            state.tasks.insert(arn.clone(), Task { job, started_at: now, play });
            Ok(arn)
        })
    }

    fn describe<'a>(&'a self, arns: &'a [String]) -> BoxFuture<'a, Result<Vec<Status>, CallError>> {
        Box::pin(async move {
            assert!(arns.len() <= 100);
            sleep(LATENCY).await;
            let state = self.state();
            let now = Instant::now();
            let status = |arn| match state.tasks.get(arn) {
                Some(task) if task.is_forgotten(now) => Status::Missing,
                Some(task) if now >= task.ends_at() => Status::Stopped(task.play.stopped.clone()),
                Some(task) if now < task.started_at + SHOWN_AFTER => Status::Missing,
                Some(_) => Status::Alive,
                None => Status::Missing,
            };
            Ok(arns.iter().map(status).collect())
        })
    }

    fn started_for<'a>(
        &'a self,
        job: &'a JobId,
        since: Timestamp,
    ) -> BoxFuture<'a, Result<Vec<String>, CallError>> {
        Box::pin(async move {
            sleep(LATENCY).await;
            let state = self.state();
            let now = Instant::now();
            let shown = |task: &Task| task.started_at + SHOWN_AFTER <= now && !task.is_forgotten(now);
            let recent = |task: &Task| epoch() + (task.started_at - self.start) >= since;
            let tasks =
                state.tasks.iter().filter(|(_, task)| task.job.id == *job && shown(task) && recent(task));
            Ok(tasks.map(|(arn, _)| arn.clone()).collect())
        })
    }
}

impl Records for Cloud {
    fn load<'a>(&'a self, job: &'a JobId) -> BoxFuture<'a, Result<Option<Stored>, LoadError>> {
        Box::pin(async move {
            sleep(LATENCY).await;
            let state = self.state();
            let Some((record, etag)) = state.records.get(job) else { return Ok(None) };
            let json = serde_json::to_vec(record).unwrap();
            let record = Record::parse(&json).map_err(|error| LoadError::Unreadable {
                bucket: "streams".parse().unwrap(),
                key: Layout::record(job),
                error,
            })?;
            Ok(Some(Stored { record, etag: etag.to_string() }))
        })
    }

    fn save<'a>(
        &'a self,
        record: &'a Record,
        replaced: Option<&'a str>,
    ) -> BoxFuture<'a, Result<String, SaveError>> {
        Box::pin(async move {
            sleep(LATENCY).await;
            let mut state = self.state();
            let stored = state.records.get(&record.job_id).map(|(_, etag)| *etag);
            if stored.map(|etag| etag.to_string()).as_deref() != replaced {
                return Err(SaveError::Conflict);
            }
            let etag = stored.unwrap_or_default() + 1;
            state.records.insert(record.job_id.clone(), (record.clone(), etag));
            Ok(etag.to_string())
        })
    }

    fn report<'a>(&'a self, job: &'a Job) -> BoxFuture<'a, Result<Option<Report>, LoadError>> {
        Box::pin(async move {
            sleep(LATENCY).await;
            let state = self.state();
            let now = Instant::now();
            let mut tasks: Vec<_> =
                state.tasks.values().filter(|task| task.job.id == job.id && task.ends_at() <= now).collect();
            tasks.sort_by_key(|task| task.ends_at());
            let outcome = tasks.iter().rev().find_map(|task| task.play.report);
            Ok(outcome.map(|outcome| Report {
                schema: Report::SCHEMA,
                job_id: job.id.clone(),
                outcome,
                reason: (outcome != Outcome::Complete).then(|| format!("the task says {outcome:?}")),
                source: None,
                probe: None,
                renditions: Vec::new(),
                warnings: Vec::new(),
                timings: Timings {
                    started_at: Timestamp::UNIX_EPOCH,
                    finished_at: Timestamp::UNIX_EPOCH,
                    probe_seconds: None,
                    first_playable_seconds: None,
                    encode_seconds: None,
                    total_seconds: 1.0,
                },
            }))
        })
    }

    fn presence<'a>(&'a self, source: &'a Source) -> BoxFuture<'a, Result<Presence, CallError>> {
        Box::pin(async move {
            sleep(LATENCY).await;
            let mut state = self.state();
            if state.failing_looks > 0 {
                state.failing_looks -= 1;
                return Err(CallError::Passing { call: "HeadObject", reason: "SlowDown".into() });
            }
            let gone = state.gone.contains(source.key.as_str());
            Ok(if gone { Presence::Gone } else { Presence::Present })
        })
    }
}
