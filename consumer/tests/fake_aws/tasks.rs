//! The cluster and its tasks.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;
use vidstreamx_consumer::aws::{
    ecs::{Stopped, TaskStatus},
    run_task::{self, Launch, LaunchError},
};
use vidstreamx_job::{Exit, Job, JobId, Outcome};

use super::FakeAws;

/// DescribeTasks and ListTasks show a new task after this delay.
const VISIBLE_AFTER: Duration = Duration::from_secs(3);
/// A task's container runs after this time.
const STARTS_AFTER: Duration = Duration::from_secs(10);
/// ECS forgets a stopped task after this time.
const FORGOTTEN_AFTER: Duration = Duration::from_hours(1);
/// ECS recognises a client token for this time, or, if that is less, until [`FORGOTTEN_AFTER`] after the
/// task's end (Amazon ECS API Reference, "Ensuring idempotency").
const TOKEN_LIFE: Duration = Duration::from_hours(24);
/// ECS's token bucket for launches: its size, and the tokens that it gains per second.
const LAUNCH_BUCKET: (f64, f64) = (100.0, 20.0);

/// The course of a task.
#[derive(Debug, Clone)]
pub(crate) struct TaskScript {
    pub duration: Duration,
    pub stopped: Stopped,
    /// The outcome in the report that it leaves.
    pub report: Option<Outcome>,
}

impl TaskScript {
    /// A container that exits by itself, with the report that belongs to the exit code.
    pub(crate) fn exit(code: i32, seconds: u64) -> Self {
        let stopped = Stopped {
            billed: Some(Duration::from_secs(seconds)),
            exit_code: Some(code),
            stop_code: Some("EssentialContainerExited".into()),
            reason: Some("Essential container in task exited".into()),
        };
        let report = Exit::from_code(code).map(Outcome::from);
        Self { duration: Duration::from_secs(seconds), stopped, report }
    }

    /// A task that AWS ends.
    pub(crate) fn stopped(exit_code: Option<i32>, stop_code: &str, seconds: u64) -> Self {
        let stopped = Stopped { billed: None, exit_code, stop_code: Some(stop_code.into()), reason: None };
        Self { duration: Duration::from_secs(seconds), stopped, report: None }
    }

    /// Whether the task publishes a stream.
    pub(crate) fn succeeds(&self) -> bool {
        self.stopped.exit_code == Some(0) && self.report == Some(Outcome::Complete)
    }
}

/// A task, from its launch to its end.
#[derive(Debug, Clone)]
pub(crate) struct Task {
    pub job: Job,
    pub launch: Launch,
    pub started_at: Instant,
    pub script: TaskScript,
}

impl Task {
    pub(crate) fn ends_at(&self) -> Instant {
        self.started_at + self.script.duration
    }

    fn is_forgotten(&self, now: Instant) -> bool {
        now > self.ends_at() + FORGOTTEN_AFTER
    }
}

#[derive(Default)]
pub(super) struct State {
    /// Each token with its launch and task, and the time of the launch.
    tokens: HashMap<String, (Launch, String, Instant)>,
    forgets_tokens: bool,
    /// The refusals that are repeated for the same token, if ECS repeats refusals.
    refusals: Option<HashMap<String, (LaunchError, Instant)>>,
    /// Neither DescribeTasks nor ListTasks shows any task until this time.
    hidden_until: Option<Instant>,
    pub(super) tasks: BTreeMap<String, Task>,
    tasks_of_jobs: HashMap<JobId, usize>,
    /// Tokens left in ECS's bucket for launches, and the time when they were counted.
    bucket: Option<(f64, Instant)>,
    refuse_until: Option<Instant>,
    refused_keys: HashSet<String>,
    /// The most CPU units that a quota allows for a video.
    cpu_quotas: HashMap<String, u32>,
    launches: Vec<Launch>,
    run_task_calls: usize,
}

impl FakeAws {
    /// Refuses RunTask with `failures` for this time.
    pub(crate) fn refuse_for(&self, duration: Duration) {
        self.state().tasks.refuse_until = Some(Instant::now() + duration);
    }

    /// Refuses RunTask for this video, as invalid.
    pub(crate) fn refuse_key(&self, key: &str) {
        self.state().tasks.refused_keys.insert(key.to_owned());
    }

    /// Makes this video one in 4K, and refuses RunTask for it because of a quota, if the task has more CPU
    /// units than this.
    pub(crate) fn limit_cpu_of(&self, key: &str, cpu: u32) {
        self.state().objects.large.insert(key.to_owned());
        self.state().tasks.cpu_quotas.insert(key.to_owned(), cpu);
    }

    /// Ends all quotas of single videos.
    pub(crate) fn lift_cpu_limits(&self) {
        self.state().tasks.cpu_quotas.clear();
    }

    /// Repeats a refusal for the same client token, as a service may that returns "the original result".
    pub(crate) fn repeat_refusals(&self) {
        self.state().tasks.refusals = Some(HashMap::new());
    }

    /// Shows no task for this time: ECS's lists are only eventually consistent.
    pub(crate) fn hide_tasks_for(&self, duration: Duration) {
        self.state().tasks.hidden_until = Some(Instant::now() + duration);
    }

    /// Starts a new task for every RunTask call, as ECS does when a token is older than 24 hours.
    pub(crate) fn forget_tokens(&self) {
        self.state().tasks.forgets_tokens = true;
    }

    pub(crate) fn tasks(&self) -> Vec<Task> {
        self.state().tasks.tasks.values().cloned().collect()
    }

    pub(crate) fn run_task_calls(&self) -> usize {
        self.state().tasks.run_task_calls
    }

    /// The launches that started a task, in order.
    pub(crate) fn launches(&self) -> Vec<Launch> {
        self.state().tasks.launches.clone()
    }

    /// Maximum number of these tasks that ran at the same time.
    pub(super) fn most_at_once_of(&self, arns: &HashSet<String>) -> usize {
        let tasks = &self.state().tasks.tasks;
        let tasks = tasks.iter().filter(|(arn, _)| arns.contains(*arn)).map(|(_, task)| task);
        most_at_once(tasks)
    }

    pub(crate) fn tasks_running(&self) -> usize {
        let now = Instant::now();
        let tasks = &self.state().tasks.tasks;
        tasks.values().filter(|task| task.started_at <= now && now < task.ends_at()).count()
    }

    /// Maximum number of tasks that ran at the same time: of all jobs, and of any single job.
    pub(crate) fn most_at_once(&self) -> (usize, usize) {
        let tasks = &self.state().tasks.tasks;
        let mut by_job: HashMap<&JobId, Vec<&Task>> = HashMap::new();
        for task in tasks.values() {
            by_job.entry(&task.job.id).or_default().push(task);
        }
        let of_one_job = by_job.into_values().map(|tasks| most_at_once(tasks.into_iter())).max();
        (most_at_once(tasks.values()), of_one_job.unwrap_or(0))
    }

    pub(super) fn run(&self, launch: &Launch) -> Result<String, LaunchError> {
        let now = Instant::now();
        {
            let ecs = &mut self.state().tasks;
            ecs.run_task_calls += 1;
            if !ecs.takes_a_launch(now) {
                return Err(LaunchError::Throttled("ThrottlingException: Rate exceeded".into()));
            }
            let repeated = ecs.refusals.as_ref().and_then(|refusals| refusals.get(&launch.token));
            if let Some((refusal, _)) = repeated.filter(|(_, at)| now < *at + TOKEN_LIFE) {
                return Err(refusal.clone());
            }
        }
        let result = self.run_unthrottled(launch, now);
        if let (Err(refusal @ LaunchError::NotNow(_)), Some(refusals)) =
            (&result, &mut self.state().tasks.refusals)
        {
            refusals.insert(launch.token.clone(), (refusal.clone(), now));
        }
        result
    }

    fn run_unthrottled(&self, launch: &Launch, now: Instant) -> Result<String, LaunchError> {
        let mut state = self.state();
        let ecs = &mut state.tasks;
        if ecs.refuse_until.is_some_and(|until| now < until) {
            return Err(LaunchError::NotNow("Capacity is unavailable at this time.".into()));
        }
        let is_alive = |(_, arn, at): &&(Launch, String, Instant)| {
            now < *at + TOKEN_LIFE && ecs.tasks.get(arn).is_none_or(|task| !task.is_forgotten(now))
        };
        let known = ecs.tokens.get(&launch.token).filter(is_alive);
        if let Some((same, arn, _)) = known.filter(|_| !ecs.forgets_tokens) {
            let arn = arn.clone();
            return if same == launch { Ok(arn) } else { Err(LaunchError::Conflict(vec![arn])) };
        }
        let environment: HashMap<_, _> = launch.environment.iter().cloned().collect();
        let job = Job::from_env(|name| environment.get(name).cloned()).unwrap();
        let key = job.source.key.as_str();
        let cpu = launch.size.map_or(0, |size| size.cpu);
        if ecs.cpu_quotas.get(key).is_some_and(|quota| cpu > *quota) {
            return Err(LaunchError::NotNow("You've reached the limit on the number of vCPUs".into()));
        }
        if ecs.refused_keys.contains(key) {
            let text = "InvalidParameterException: Some tags contain invalid characters.";
            return Err(run_task::error_meaning(Some("InvalidParameterException"), text.into()));
        }
        let nth = ecs.tasks_of_jobs.entry(job.id.clone()).or_default();
        *nth += 1;
        let nth = *nth;
        let script = (self.script)(key, nth, launch);
        let source_is_gone = script.stopped.exit_code == Some(Exit::Obsolete.code().into());
        let source_key = key.to_owned();
        let arn = format!("arn:task/{:06}", ecs.tasks.len());
        ecs.tokens.insert(launch.token.clone(), (launch.clone(), arn.clone(), now));
        ecs.launches.push(launch.clone());
        let task = Task { job, launch: launch.clone(), started_at: now, script };
        ecs.tasks.insert(arn.clone(), task);
        if source_is_gone {
            state.objects.delete(&source_key);
        }
        Ok(arn)
    }

    pub(super) fn describe(&self, arns: &[Arc<str>]) -> Vec<TaskStatus> {
        assert!(arns.len() <= 100);
        let state = self.state();
        let tasks = &state.tasks.tasks;
        let now = Instant::now();
        let is_hidden = state.tasks.hides(now);
        let status = |arn: &Arc<str>| match tasks.get(&**arn) {
            _ if is_hidden => TaskStatus::Missing,
            Some(task) if task.is_forgotten(now) => TaskStatus::Missing,
            Some(task) if now >= task.ends_at() => TaskStatus::Stopped(task.script.stopped.clone()),
            Some(task) if now < task.started_at + VISIBLE_AFTER => TaskStatus::Missing,
            Some(task) if now < task.started_at + STARTS_AFTER => TaskStatus::Starting,
            Some(task) if task.script.stopped.stop_code.as_deref() == Some("TaskFailedToStart") => {
                TaskStatus::Starting
            }
            Some(_) => TaskStatus::Running,
            None => TaskStatus::Missing,
        };
        arns.iter().map(status).collect()
    }

    /// Ends a task for an operator. Its container has ten seconds to exit. Returns whether ECS knows the
    /// task.
    pub(super) fn stop_task(&self, arn: &str) -> bool {
        let tasks = &mut self.state().tasks.tasks;
        let (now, grace) = (Instant::now(), Duration::from_secs(10));
        let Some(task) = tasks.get_mut(arn).filter(|task| !task.is_forgotten(now)) else { return false };
        if now + grace < task.ends_at() {
            let seconds = (now + grace - task.started_at).as_secs();
            task.script = TaskScript::stopped(Some(143), "UserInitiated", seconds);
        }
        true
    }

    pub(super) fn find(&self, job: &JobId, token: &str) -> Option<String> {
        let state = self.state();
        let tasks = &state.tasks.tasks;
        let now = Instant::now();
        if state.tasks.hides(now) {
            return None;
        }
        let is_shown = |task: &Task| task.started_at + VISIBLE_AFTER <= now && !task.is_forgotten(now);
        let mut tasks = tasks.iter().filter(|(_, task)| task.job.id == *job && is_shown(task));
        tasks.find(|(_, task)| task.launch.token == token).map(|(arn, _)| arn.clone())
    }
}

/// Maximum number of tasks that ran at the same time.
fn most_at_once<'a>(tasks: impl Iterator<Item = &'a Task>) -> usize {
    // At the same time, ends come before starts.
    let mut changes: Vec<_> = tasks.flat_map(|task| [(task.started_at, 1), (task.ends_at(), -1)]).collect();
    changes.sort_unstable();
    let mut running = 0_isize;
    let counts = changes.into_iter().map(|(_, change)| {
        running += change;
        running
    });
    counts.max().unwrap_or(0).unsigned_abs()
}

impl State {
    fn hides(&self, now: Instant) -> bool {
        self.hidden_until.is_some_and(|until| now < until)
    }

    fn takes_a_launch(&mut self, now: Instant) -> bool {
        let (size, per_second) = LAUNCH_BUCKET;
        let (left, at) = self.bucket.unwrap_or((size, now));
        let left = (left + (now - at).as_secs_f64() * per_second).min(size);
        self.bucket = Some((if left >= 1.0 { left - 1.0 } else { left }, now));
        left >= 1.0
    }
}
