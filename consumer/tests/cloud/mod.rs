//! Queue, cluster and record store in memory, with the semantics that AWS documents: visibility, twelve
//! hours for a delivery, receive counts and redrive; client tokens, launch buckets, `failures`, tasks that
//! end by themselves and are forgotten; conditional writes. Time is tokio's, which the tests pause.
//!
//! Every consumer works through a [`FaultyClient`], where its calls can be made to fail.

// Not every test binary uses all of it.
#![allow(dead_code)]

mod faulty_client;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, Weak},
    time::Duration,
};

pub use faulty_client::{Faults, FaultyClient};
use futures::future::BoxFuture;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, sleep_until},
};
use vidstreamx_consumer::{
    aws::ecs::{Stopped, TaskStatus, Tasks},
    aws::error::CallError,
    aws::record_store::{LoadError, RecordStore, SaveError, Stored},
    aws::run_task::{self, Launch, LaunchError},
    aws::sqs::{Backlog, Message, Queue, RESTART_ATTRIBUTE, Receipt, RefusedEntry},
    aws::sqs_send::OutgoingMessage,
    aws::task_definition::TaskDefaults,
    inspect::{Inspection, MediaFacts, Presence, Uploads},
    intake::{Options, Rules},
    metrics::Metrics,
    reconcile::{JobOptions, Policy},
    services::Services,
    sizing::Sizing,
};
use vidstreamx_job::{Capacity, Job, JobId, Layout, Outcome, Record, Report, Size, Source, Timings};

/// Attempts before a job fails.
pub const MAX_ATTEMPTS: u32 = 3;
/// What every call takes.
const LATENCY: Duration = Duration::from_millis(50);
/// DescribeTasks and ListTasks show a new task with a delay.
const SHOWN_AFTER: Duration = Duration::from_secs(3);
/// As the template has it.
const MAX_RECEIVES: u32 = 10;
/// SQS's limit on how long one delivery can be held.
const LONGEST_HOLD: Duration = Duration::from_hours(12);
/// ECS's limit on a token's life.
const TOKEN_LIFE: Duration = Duration::from_hours(24);
/// ECS's bucket of launches: its size, and how many come back a second.
const LAUNCH_BUCKET: (f64, f64) = (100.0, 20.0);

/// How a task plays out.
#[derive(Debug, Clone)]
pub struct TaskScript {
    pub lasts: Duration,
    pub stopped: Stopped,
    /// The report it leaves.
    pub report: Option<Outcome>,
}

impl TaskScript {
    /// Whether it makes a stream.
    pub fn succeeds(&self) -> bool {
        self.stopped.exit_code == Some(0) && self.report == Some(Outcome::Complete)
    }
}

impl TaskScript {
    /// A container that exits by itself, with the report that belongs to the code.
    pub fn exit(code: i32, seconds: u64) -> Self {
        let report = vidstreamx_job::Exit::from_code(code).map(Outcome::from);
        let stopped = Stopped {
            billed: Some(Duration::from_secs(seconds)),
            exit_code: Some(code),
            stop_code: Some("EssentialContainerExited".into()),
            reason: Some("Essential container in task exited".into()),
        };
        Self { lasts: Duration::from_secs(seconds), stopped, report }
    }

    /// A task that AWS ends.
    pub fn stopped(exit_code: Option<i32>, stop_code: &str, seconds: u64) -> Self {
        let stopped = Stopped { billed: None, exit_code, stop_code: Some(stop_code.into()), reason: None };
        Self { lasts: Duration::from_secs(seconds), stopped, report: None }
    }
}

/// Plays the n-th task (from 1) of a source key.
type ScriptFn = Box<dyn Fn(&str, usize, &Launch) -> TaskScript + Send + Sync>;

/// All of AWS that the consumer sees.
pub struct Cloud {
    state: Mutex<State>,
    /// A message was sent, or is visible earlier than it was to be.
    changed: Notify,
    script: ScriptFn,
    start: Instant,
    this: Weak<Self>,
}

#[derive(Default)]
struct State {
    messages: BTreeMap<u64, Queued>,
    /// What SQS itself moved, after too many receives.
    given_up: Vec<String>,
    letters: Vec<OutgoingMessage>,
    next: u64,
    tokens: HashMap<String, (Launch, String, Instant)>,
    /// Launches that ECS would take at once, and when that was counted.
    bucket: Option<(f64, Instant)>,
    forgets_tokens: bool,
    tasks: BTreeMap<String, Task>,
    refuse_until: Option<Instant>,
    fail_until: Option<Instant>,
    most_receives: u32,
    launches: Vec<Launch>,
    run_task_calls: usize,
    receives: usize,
    records: HashMap<JobId, (Record, u64)>,
    gone: HashSet<String>,
    failing_looks: usize,
    refused_keys: HashSet<String>,
    too_large: HashSet<String>,
    not_videos: HashSet<String>,
}

struct Queued {
    body: String,
    restart: Option<String>,
    sent_at: Instant,
    /// When it was received last.
    received_at: Instant,
    visible_at: Instant,
    receives: u32,
    receipt: u64,
}

/// A task, from its launch to its end.
#[derive(Debug, Clone)]
pub struct Task {
    pub job: Job,
    pub launch: Launch,
    pub started_at: Instant,
    pub play: TaskScript,
}

impl Task {
    pub fn ends_at(&self) -> Instant {
        self.started_at + self.play.lasts
    }

    /// ECS forgets stopped tasks after an hour.
    fn is_forgotten(&self, now: Instant) -> bool {
        now > self.ends_at() + Duration::from_hours(1)
    }
}

impl Cloud {
    pub fn new(script: impl Fn(&str, usize) -> TaskScript + Send + Sync + 'static) -> Arc<Self> {
        Self::that_looks_at_launches(move |key, nth, _| script(key, nth))
    }

    pub fn that_looks_at_launches(
        script: impl Fn(&str, usize, &Launch) -> TaskScript + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            state: Mutex::default(),
            changed: Notify::new(),
            script: Box::new(script),
            start: Instant::now(),
            this: this.clone(),
        })
    }

    /// For a consumer whose calls all work.
    pub fn services(self: &Arc<Self>) -> Services {
        self.services_through(&Arc::new(FaultyClient::new(self.clone(), Faults::none())))
    }

    pub fn services_through(&self, seat: &Arc<FaultyClient>) -> Services {
        let start = self.start;
        Services {
            queue: seat.clone(),
            tasks: seat.clone(),
            records: seat.clone(),
            uploads: seat.clone(),
            clock: Arc::new(move || epoch() + start.elapsed()),
            metrics: Arc::new(Metrics::new("videos")),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub fn send(&self, body: String) {
        self.send_with_restart(body, None);
    }

    pub fn send_with_restart(&self, body: String, restart: Option<String>) {
        let mut state = self.state();
        let id = state.next;
        state.next += 1;
        let now = Instant::now();
        let queued = Queued {
            body,
            restart,
            sent_at: now,
            received_at: now,
            visible_at: now,
            receives: 0,
            receipt: 0,
        };
        state.messages.insert(id, queued);
        self.changed.notify_waiters();
    }

    /// Moves everything from the dead-letter queue back, as SQS does it: text and attributes.
    pub fn redrive(&self) {
        let letters = std::mem::take(&mut self.state().letters);
        for letter in letters {
            let restart = letter.attribute(RESTART_ATTRIBUTE).map(str::to_owned);
            self.send_with_restart(letter.body, restart);
        }
    }

    /// What is no video shows it in its first bytes.
    pub fn is_no_video(&self, key: &str) {
        self.state().not_videos.insert(key.to_owned());
    }

    /// Refuses RunTask with `failures` for so long.
    pub fn refuse_for(&self, duration: Duration) {
        self.state().refuse_until = Some(Instant::now() + duration);
    }

    /// Fails all calls of all services for so long.
    pub fn fail_all_for(&self, duration: Duration) {
        self.state().fail_until = Some(Instant::now() + duration);
    }

    fn is_failing(&self) -> bool {
        self.state().fail_until.is_some_and(|until| Instant::now() < until)
    }

    /// Refuses RunTask for this video, as a mistake in the request.
    pub fn refuse_key(&self, key: &str) {
        self.state().refused_keys.insert(key.to_owned());
    }

    /// Refuses RunTask for this video, as beyond a quota.
    pub fn never_has_room_for(&self, key: &str) {
        self.state().too_large.insert(key.to_owned());
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

    /// What consumers put into the dead-letter queue.
    pub fn letters(&self) -> Vec<OutgoingMessage> {
        self.state().letters.clone()
    }

    /// What SQS put there, as nobody else did.
    pub fn given_up(&self) -> Vec<String> {
        self.state().given_up.clone()
    }

    /// All that is in the dead-letter queue.
    pub fn dead(&self) -> Vec<String> {
        let state = self.state();
        let letters = state.letters.iter().map(|letter| letter.body.clone());
        letters.chain(state.given_up.iter().cloned()).collect()
    }

    pub fn tasks(&self) -> Vec<Task> {
        self.state().tasks.values().cloned().collect()
    }

    pub fn all_records(&self) -> Vec<Record> {
        self.state().records.values().map(|(record, _)| record.clone()).collect()
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

    /// Of all messages that there were.
    pub fn most_receives_ever(&self) -> u32 {
        self.state().most_receives
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

    fn running(&self, arns: &HashSet<String>) -> usize {
        let now = Instant::now();
        let state = self.state();
        arns.iter().filter(|arn| state.tasks.get(*arn).is_some_and(|task| now < task.ends_at())).count()
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

impl Cloud {
    /// A poll on the server's side, which goes on when its client is gone.
    async fn poll(&self, most: usize, wait: Duration, visibility: Duration) -> Vec<Message> {
        let server = self.this.upgrade().unwrap();
        tokio::spawn(async move {
            let deadline = Instant::now() + wait;
            server.state().receives += 1;
            loop {
                let now = Instant::now();
                let messages = server.take_visible(most, now + visibility);
                if !messages.is_empty() || now >= deadline {
                    return messages;
                }
                let changed = server.changed.notified();
                let next = server.state().messages.values().map(|message| message.visible_at).min();
                let next = next.map_or(deadline, |next| next.min(deadline));
                tokio::select! {
                    biased;
                    () = sleep_until(next) => {}
                    () = changed => {}
                }
            }
        })
        .await
        .unwrap()
    }

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
                state.given_up.push(body);
                continue;
            }
            message.receives += 1;
            let receives = message.receives;
            message.received_at = now;
            message.visible_at = until;
            message.receipt = receipt;
            taken.push(Message {
                id: id.to_string(),
                receipt: Receipt(format!("{id}:{receipt}").into()),
                receive_count: message.receives,
                sent_at: Some(epoch() + (message.sent_at - self.start)),
                restart: message.restart.clone(),
                body: message.body.clone(),
            });
            state.most_receives = state.most_receives.max(receives);
        }
        taken
    }

    fn delete(&self, receipt: &Receipt) {
        let mut state = self.state();
        if let Some(id) = current(&state, receipt) {
            state.messages.remove(&id);
        }
    }

    fn send_dead_letter(&self, message: &OutgoingMessage) {
        self.state().letters.push(message.clone());
    }

    fn set_visibility(&self, receipts: &[Receipt], visibility: Duration) -> Vec<RefusedEntry> {
        assert!(receipts.len() <= 10);
        let mut state = self.state();
        let mut refused = Vec::new();
        for receipt in receipts {
            let until = Instant::now() + visibility;
            match current(&state, receipt).and_then(|id| state.messages.get_mut(&id)) {
                Some(message) if until <= message.received_at + LONGEST_HOLD => message.visible_at = until,
                _ => refused.push(RefusedEntry {
                    receipt: receipt.clone(),
                    reason: "ReceiptHandleIsInvalid".into(),
                    for_good: true,
                }),
            }
        }
        self.changed.notify_waiters();
        refused
    }

    fn backlog(&self) -> Backlog {
        let visible = self.visible() as u64;
        Backlog { visible, in_flight: self.queued() as u64 - visible, delayed: 0 }
    }
}

/// The consumer's options, as the template has them.
pub fn options(max_tasks: usize, launches_per_second: u32, drain: bool) -> Options {
    Options {
        rules: Rules {
            upload: "uploads".parse().unwrap(),
            output: "streams".parse().unwrap(),
            profile: "default".into(),
        },
        jobs: JobOptions {
            policy: Policy { max_attempts: MAX_ATTEMPTS, capacity: Capacity::Spot },
            container: "transcoder".into(),
            max_tasks,
            launches_per_second,
            sizing: Sizing::default(),
            defaults: TaskDefaults {
                size: Size { cpu: 4096, memory_mib: 8192, storage_gib: 21 },
                arm: false,
            },
        },
        drain,
    }
}

/// A record of S3's event about a new object.
pub fn s3_record(key: &str, bytes: u64) -> Value {
    json!({
        "eventSource": "aws:s3", "eventName": "ObjectCreated:Put",
        "s3": {
            "bucket": {"name": "uploads"},
            "object": {"key": key, "size": bytes, "eTag": format!("e-{key}")},
        },
    })
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

impl Cloud {
    fn run(&self, launch: &Launch) -> Result<String, LaunchError> {
        let mut state = self.state();
        state.run_task_calls += 1;
        let now = Instant::now();
        if !state.takes_a_launch(now) {
            return Err(LaunchError::Refused("ThrottlingException: Rate exceeded".into()));
        }
        if state.refuse_until.is_some_and(|until| now < until) {
            return Err(LaunchError::Refused("Capacity is unavailable at this time.".into()));
        }
        let known = state.tokens.get(&launch.token).filter(|(_, _, at)| now < *at + TOKEN_LIFE);
        if let Some((same, arn, _)) = known.filter(|_| !state.forgets_tokens) {
            let arn = arn.clone();
            return if same == launch { Ok(arn) } else { Err(LaunchError::Conflict(vec![arn])) };
        }
        let environment: HashMap<_, _> = launch.environment.iter().cloned().collect();
        let job = Job::from_env(|name| environment.get(name).cloned()).unwrap();
        if state.too_large.contains(job.source.key.as_str()) {
            return Err(LaunchError::Refused("You've reached the limit on the number of vCPUs".into()));
        }
        if state.refused_keys.contains(job.source.key.as_str()) {
            let told = "InvalidParameterException: Some tags contain invalid characters.";
            return Err(run_task::error_meaning(Some("InvalidParameterException"), told.into()));
        }
        let nth = state.tasks.values().filter(|task| task.job.id == job.id).count() + 1;
        let play = (self.script)(job.source.key.as_str(), nth, launch);
        if play.stopped.exit_code == Some(66) {
            state.gone.insert(job.source.key.to_string());
        }
        let arn = format!("arn:task/{:06}", state.tasks.len());
        state.tokens.insert(launch.token.clone(), (launch.clone(), arn.clone(), now));
        state.launches.push(launch.clone());
        let task = Task { job, launch: launch.clone(), started_at: now, play };
        state.tasks.insert(arn.clone(), task);
        Ok(arn)
    }

    fn describe(&self, arns: &[Arc<str>]) -> Vec<TaskStatus> {
        assert!(arns.len() <= 100);
        let state = self.state();
        let now = Instant::now();
        let status = |arn: &Arc<str>| match state.tasks.get(&**arn) {
            Some(task) if task.is_forgotten(now) => TaskStatus::Missing,
            Some(task) if now >= task.ends_at() => TaskStatus::Stopped(task.play.stopped.clone()),
            Some(task) if now < task.started_at + SHOWN_AFTER => TaskStatus::Missing,
            Some(_) => TaskStatus::Alive,
            None => TaskStatus::Missing,
        };
        arns.iter().map(status).collect()
    }

    fn find(&self, job: &JobId, token: &str) -> Option<String> {
        let state = self.state();
        let now = Instant::now();
        let shown = |task: &Task| task.started_at + SHOWN_AFTER <= now && !task.is_forgotten(now);
        let mut tasks = state.tasks.iter().filter(|(_, task)| task.job.id == *job && shown(task));
        tasks.find(|(_, task)| task.launch.token == token).map(|(arn, _)| arn.clone())
    }
}

impl State {
    fn takes_a_launch(&mut self, now: Instant) -> bool {
        let (size, a_second) = LAUNCH_BUCKET;
        let (left, at) = self.bucket.unwrap_or((size, now));
        let left = (left + (now - at).as_secs_f64() * a_second).min(size);
        self.bucket = Some((if left >= 1.0 { left - 1.0 } else { left }, now));
        left >= 1.0
    }
}

impl Cloud {
    fn load(&self, job: &JobId) -> Result<Option<Stored>, LoadError> {
        let state = self.state();
        let Some((record, etag)) = state.records.get(job) else { return Ok(None) };
        let json = serde_json::to_vec(record).unwrap();
        let record = Record::parse(&json).map_err(|error| LoadError::Unreadable {
            bucket: "streams".parse().unwrap(),
            key: Layout::record(job),
            error,
        })?;
        Ok(Some(Stored { record, etag: etag.to_string() }))
    }

    fn save(&self, record: &Record, replaced: Option<&str>) -> Result<String, SaveError> {
        let mut state = self.state();
        let stored = state.records.get(&record.job_id).map(|(_, etag)| *etag);
        if stored.map(|etag| etag.to_string()).as_deref() != replaced {
            return Err(SaveError::Conflict);
        }
        let etag = stored.unwrap_or_default() + 1;
        state.records.insert(record.job_id.clone(), (record.clone(), etag));
        Ok(etag.to_string())
    }

    fn report(&self, job: &Job) -> Option<Report> {
        let state = self.state();
        let now = Instant::now();
        let mut tasks: Vec<_> =
            state.tasks.values().filter(|task| task.job.id == job.id && task.ends_at() <= now).collect();
        tasks.sort_by_key(|task| task.ends_at());
        let told = tasks.iter().rev().find(|task| task.play.report.is_some())?;
        let outcome = told.play.report?;
        Some(Report {
            schema: Report::SCHEMA,
            job_id: job.id.clone(),
            outcome,
            reason: (outcome != Outcome::Complete).then(|| format!("the task says {outcome:?}")),
            source: None,
            folder: None,
            probe: None,
            renditions: Vec::new(),
            warnings: Vec::new(),
            timings: Timings {
                started_at: Timestamp::UNIX_EPOCH,
                finished_at: epoch() + (told.ends_at() - self.start),
                probe_seconds: None,
                first_playable_seconds: None,
                encode_seconds: None,
                total_seconds: 1.0,
            },
        })
    }

    fn presence(&self, source: &Source) -> Result<Presence, CallError> {
        let mut state = self.state();
        if state.failing_looks > 0 {
            state.failing_looks -= 1;
            return Err(CallError::Passing { call: "HeadObject", reason: "SlowDown".into() });
        }
        let gone = state.gone.contains(source.key.as_str());
        Ok(if gone { Presence::Gone } else { Presence::Present })
    }

    fn inspect(&self, source: &Source) -> Result<Inspection, CallError> {
        match self.presence(source)? {
            Presence::Gone => Ok(Inspection::Gone),
            Presence::Replaced => Ok(Inspection::Replaced),
            Presence::Present if self.state().not_videos.contains(source.key.as_str()) => {
                Ok(Inspection::NotVideo("the file is text, not a video".to_owned()))
            }
            Presence::Present => Ok(Inspection::Video(MediaFacts::default())),
        }
    }
}
