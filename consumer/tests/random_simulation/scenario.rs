//! The scenario of a seed: the videos, the ends of their tasks, and all faults.

use std::{ops::RangeInclusive, time::Duration};

use jiff::SignedDuration;
use serde_json::{Value, json};
use vidstreamx_consumer::{
    aws::{run_task::Launch, sqs::QueueKind},
    intake::Options,
};

use crate::fake_aws::{self, Faults, MAX_ATTEMPTS, TaskScript, s3_record};

/// Number of uploads per run, without duplicates and foreign messages.
pub(crate) const VIDEOS: usize = 200;

/// Number of good uploads that arrive later than the others, within this time. They show that tasks work.
const LATE: usize = 8;
const LATE_WITHIN: Duration = Duration::from_hours(48);

/// The kind of a video. `times`: the number of tasks that end like this before one succeeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum VideoKind {
    Good,
    /// Its task runs longer than SQS lets a delivery be held.
    VeryLong,
    Transient {
        times: usize,
    },
    Interrupted {
        times: usize,
    },
    NotStarted {
        times: usize,
    },
    Misconfigured {
        times: usize,
    },
    NeedsMemory {
        gib: u32,
    },
    /// The first task exits with 0 and leaves no report.
    WithoutReport,
    /// Its tasks crash until the transcoder is repaired.
    Crashing,
    /// Not a video; only a task detects it.
    Unusable,
    /// Not a video; the inspection detects it.
    NoVideo,
    Empty,
    /// Deleted before a consumer inspects it.
    Deleted,
    /// Replaced while its task runs.
    Replaced,
    /// Its tasks end with 78 until the transcoder is repaired, while the tasks of others work.
    NoAccess,
    /// A quota never allows a task with more CPU units.
    Limited {
        cpu: u32,
    },
    /// A person stops its task.
    Stopped,
    /// S3 does not answer about the object.
    Unanswered,
    /// Deleted while its first task runs, and uploaded again with the same content around the task's end.
    BackAgain,
    /// A person forces a restart, and the request is delivered twice.
    Forced,
    /// A good one that an operator cancels at some time.
    Cancelled,
}

impl VideoKind {
    /// The script of the n-th task (from 1).
    pub(crate) fn script(self, nth: usize, launch: &Launch, repaired: bool, seconds: u64) -> TaskScript {
        let first =
            |times, script: TaskScript| if nth <= times { script } else { TaskScript::exit(0, seconds) };
        match self {
            Self::Good | Self::VeryLong => TaskScript::exit(0, seconds),
            Self::Transient { times } => first(times, TaskScript::exit(75, seconds / 2)),
            Self::Interrupted { times } => {
                first(times, TaskScript::stopped(Some(143), "SpotInterruption", seconds / 2))
            }
            Self::NotStarted { times } => first(times, TaskScript::stopped(None, "TaskFailedToStart", 40)),
            Self::Misconfigured { times } => first(times, TaskScript::exit(78, 20)),
            Self::NeedsMemory { gib } => {
                let is_enough = launch.size.is_some_and(|size| size.memory_mib >= gib * 1024);
                TaskScript::exit(if is_enough { 0 } else { 137 }, seconds)
            }
            Self::WithoutReport => first(1, TaskScript { report: None, ..TaskScript::exit(0, seconds) }),
            Self::Crashing if repaired => TaskScript::exit(0, seconds),
            Self::Crashing => TaskScript::exit(if nth.is_multiple_of(2) { 101 } else { 70 }, seconds),
            Self::NoAccess if repaired => TaskScript::exit(0, seconds),
            Self::NoAccess => TaskScript::exit(78, 20),
            Self::Limited { .. } | Self::Forced | Self::Cancelled => TaskScript::exit(0, seconds),
            Self::Stopped => first(usize::MAX, TaskScript::stopped(Some(143), "UserInitiated", seconds)),
            Self::Unanswered => TaskScript::exit(66, 15),
            Self::BackAgain => first(1, TaskScript::exit(66, 30)),
            // A `NoVideo` gets a task only if its inspection failed.
            Self::Unusable | Self::NoVideo | Self::Empty => TaskScript::exit(65, 15),
            Self::Replaced | Self::Deleted => TaskScript::exit(66, 15),
        }
    }

    /// The number of tasks that the video needs.
    pub(crate) fn tasks(self, without_faults: bool) -> RangeInclusive<usize> {
        let tasks = match self {
            // If the inspection fails, a task starts.
            Self::NoVideo | Self::Deleted => return 0..=usize::from(!without_faults),
            Self::Empty => 0,
            Self::Good | Self::VeryLong | Self::Unusable | Self::Replaced => 1,
            Self::Transient { times }
            | Self::Interrupted { times }
            | Self::NotStarted { times }
            | Self::Misconfigured { times } => times + 1,
            // The first size has 8 GiB, and each next size twice as much.
            Self::NeedsMemory { gib } if gib <= 8 => 1,
            Self::NeedsMemory { .. } | Self::WithoutReport => 2,
            Self::Crashing => MAX_ATTEMPTS as usize,
            // The tasks of a day, in which other tasks rarely work.
            Self::NoAccess => return MAX_ATTEMPTS as usize..=16,
            Self::Limited { cpu } => usize::from(cpu > 0),
            Self::Stopped | Self::Unanswered => 1,
            Self::BackAgain => 2,
            Self::Forced => return 1..=2,
            Self::Cancelled => return 0..=1,
        };
        tasks..=tasks
    }

    fn any(rng: &mut fastrand::Rng) -> Self {
        match rng.u32(0..100) {
            0..=39 => Self::Good,
            40..=42 => Self::Cancelled,
            43..=45 => Self::NoAccess,
            46..=47 => Self::Limited { cpu: rng.choice([0, 1024, 2048]).unwrap() },
            48..=49 => Self::Stopped,
            50 => Self::Unanswered,
            51..=52 => Self::BackAgain,
            53..=54 => Self::Forced,
            55..=61 => Self::Transient { times: rng.usize(1..MAX_ATTEMPTS as usize) },
            62..=71 => Self::Interrupted { times: rng.usize(1..6) },
            72..=74 => Self::NotStarted { times: rng.usize(1..4) },
            75 => Self::Misconfigured { times: rng.usize(1..3) },
            76..=79 => Self::NeedsMemory { gib: rng.u32(4..=16) },
            80..=82 => Self::WithoutReport,
            83..=86 => Self::Crashing,
            87..=90 => Self::Unusable,
            91..=93 => Self::NoVideo,
            94..=95 => Self::Empty,
            96..=97 => Self::Deleted,
            _ => Self::Replaced,
        }
    }
}

/// An event outside the consumer.
pub(crate) enum Event {
    /// A message in a queue about uploads, and the restart request that it carries.
    Message(QueueKind, String, Option<String>),
    /// ECS shows no task for this time.
    Hidden(Duration),
    /// The n-th consumer (of those that run) loses its connection for this time.
    CutOff(usize, Duration),
    /// ECS has no capacity for this time.
    Shortage(Duration),
    /// No AWS service responds for this time.
    Outage(Duration),
    /// An operator pauses the stack for this time.
    Pause(Duration),
    /// An operator cancels this video.
    Cancel(usize),
}

/// The scenario of a seed.
pub(crate) struct Scenario {
    pub seed: u64,
    pub kinds: Vec<VideoKind>,
    pub max_tasks: usize,
    pub launches_per_second: u32,
    foreign_messages: usize,
    /// Whether the run has no faults.
    pub without_faults: bool,
    errors: f64,
    delays: f64,
    crashes: f64,
    pub consumers: usize,
    messages: Vec<(Duration, String, Option<String>)>,
    /// Share of the messages that an operator sends, in percent.
    back_fills: u64,
    pub shortages: Vec<(Duration, Duration)>,
    pub outages: Vec<(Duration, Duration)>,
    pub hidden: Vec<(Duration, Duration)>,
    pub cut_offs: Vec<(Duration, Duration)>,
    pub pauses: Vec<(Duration, Duration)>,
    /// The cancelled videos and the times of cancelling.
    cancellations: Vec<(Duration, usize)>,
    /// Whether ECS repeats refusals for the same token.
    pub repeats_refusals: bool,
    /// By how much the consumers' clocks are wrong, in seconds.
    clock_error: i64,
    /// Times at which a consumer is shut down and replaced.
    pub replacements: Vec<Duration>,
    /// Whether the dead letters are redriven after the transcoder is repaired.
    pub redrive: bool,
}

impl Scenario {
    pub(crate) fn key(video: usize) -> String {
        format!("{video}.mp4")
    }

    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let rng = &mut rng;
        let mut kinds: Vec<_> = (0..VIDEOS - LATE).map(|_| VideoKind::any(rng)).collect();
        kinds.resize(VIDEOS, VideoKind::Good);
        if rng.u8(0..5) == 0 {
            kinds[rng.usize(0..VIDEOS - LATE)] = VideoKind::VeryLong;
        }
        let without_faults = rng.u8(0..10) == 0;
        let within = |rng: &mut fastrand::Rng, hours: u64| Duration::from_secs(rng.u64(0..hours * 3600));
        let periods = |rng: &mut fastrand::Rng, most: usize, minutes: u64| {
            let count = if without_faults { 0 } else { rng.usize(0..=most) };
            (0..count).map(|_| (within(rng, 3), Duration::from_secs(rng.u64(1..minutes * 60)))).collect()
        };
        let share = |rng: &mut fastrand::Rng, most: f64| if without_faults { 0.0 } else { rng.f64() * most };
        Self {
            seed,
            max_tasks: rng.choice([3, 10, 40, 150]).unwrap(),
            launches_per_second: rng.choice([1, 5, 20, 20]).unwrap(),
            foreign_messages: rng.usize(0..5),
            without_faults,
            errors: share(rng, 0.04),
            delays: share(rng, 0.01),
            crashes: share(rng, 0.001),
            consumers: if without_faults { 1 } else { rng.usize(1..=2) },
            messages: Self::messages(&kinds, rng),
            shortages: periods(rng, 2, 60),
            outages: periods(rng, 2, 10),
            hidden: periods(rng, 2, 10),
            cut_offs: periods(rng, 1, 180),
            pauses: periods(rng, 1, 90),
            cancellations: Self::cancellations(&kinds, rng),
            repeats_refusals: rng.bool(),
            clock_error: if rng.bool() { rng.i64(-7200..7200) } else { 0 },
            replacements: if without_faults {
                Vec::new()
            } else {
                (0..rng.usize(0..3)).map(|_| within(rng, 2)).collect()
            },
            redrive: rng.bool(),
            back_fills: rng.choice([0, 0, 30, 95]).unwrap(),
            kinds,
        }
    }

    fn cancellations(kinds: &[VideoKind], rng: &mut fastrand::Rng) -> Vec<(Duration, usize)> {
        let cancelled = (0..kinds.len()).filter(|video| kinds[*video] == VideoKind::Cancelled);
        cancelled.map(|video| (Duration::from_secs(rng.u64(0..8000)), video)).collect()
    }

    /// Messages about all videos, with one or several records, and with early and late duplicates.
    fn messages(kinds: &[VideoKind], rng: &mut fastrand::Rng) -> Vec<(Duration, String, Option<String>)> {
        let mut messages = Vec::new();
        let backlog = rng.bool();
        let mut video = 0;
        while video < kinds.len() {
            let count = if rng.u8(0..6) == 0 { rng.usize(1..12) } else { 1 }.min(kinds.len() - video);
            let mut records: Vec<_> =
                (video..video + count).map(|video| record(&Self::key(video), kinds[video])).collect();
            if rng.u8(0..20) == 0 {
                records.push(records[0].clone());
            }
            let is_late = video + count > kinds.len() - LATE;
            let at = Duration::from_secs(match (is_late, backlog) {
                (true, _) => rng.u64(0..LATE_WITHIN.as_secs()),
                (_, true) => 0,
                _ => rng.u64(0..5000),
            });
            let body = json!({ "Records": records }).to_string();
            if rng.u8(0..8) == 0 {
                messages.push((at + Duration::from_secs(rng.u64(0..10_000)), body.clone(), None));
            }
            messages.push((at, body, None));
            for forced in (video..video + count).filter(|video| kinds[*video] == VideoKind::Forced) {
                let body = json!({ "Records": [record(&Self::key(forced), kinds[forced])] }).to_string();
                for _ in 0..2 {
                    let after = Duration::from_secs(rng.u64(0..1000));
                    messages.push((at + after, body.clone(), Some("force-1".to_owned())));
                }
            }
            video += count;
        }
        messages
    }

    /// Unreadable messages, and a message about another bucket.
    pub(crate) fn foreign_messages(&self) -> Vec<String> {
        let foreign = json!({"Records": [record("a.mp4", VideoKind::Good)]}).to_string();
        let rubbish = (1..self.foreign_messages).map(|nth| format!("rubbish {nth}"));
        rubbish.chain((self.foreign_messages > 0).then(|| foreign.replace("uploads", "elsewhere"))).collect()
    }

    /// The queue of a message. Messages about late videos are always uploads.
    fn queue_of(&self, at: Duration, body: &str) -> QueueKind {
        let is_late = (VIDEOS - LATE..VIDEOS).any(|video| body.contains(&Self::quoted_key(video)));
        let chance = (self.seed ^ at.as_secs()) % 100;
        if !is_late && chance < self.back_fills { QueueKind::BackFill } else { QueueKind::Uploads }
    }

    fn quoted_key(video: usize) -> String {
        format!("\"{}\"", Self::key(video))
    }

    /// All events in chronological order.
    pub(crate) fn events(&self) -> Vec<(Duration, Event)> {
        let messages = self.messages.iter();
        let uploads = messages.map(|(at, body, restart)| {
            (*at, Event::Message(self.queue_of(*at, body), body.clone(), restart.clone()))
        });
        let shortages = self.shortages.iter().map(|(at, duration)| (*at, Event::Shortage(*duration)));
        let outages = self.outages.iter().map(|(at, duration)| (*at, Event::Outage(*duration)));
        let hidden = self.hidden.iter().map(|(at, duration)| (*at, Event::Hidden(*duration)));
        let cut_offs = self.cut_offs.iter().zip(self.seed as usize..);
        let cut_offs = cut_offs.map(|((at, duration), nth)| (*at, Event::CutOff(nth, *duration)));
        let pauses = self.pauses.iter().map(|(at, duration)| (*at, Event::Pause(*duration)));
        let cancellations = self.cancellations.iter().map(|(at, video)| (*at, Event::Cancel(*video)));
        let events = uploads.chain(shortages).chain(outages).chain(hidden).chain(cut_offs);
        let mut events: Vec<_> = events.chain(pauses).chain(cancellations).collect();
        events.sort_by_key(|(at, _)| *at);
        events
    }

    pub(crate) fn faults(&self, seed: u64) -> Faults {
        let mut faults = Faults::seeded(seed);
        (faults.errors, faults.delays, faults.crashes) = (self.errors, self.delays, self.crashes);
        faults
    }

    /// The duration of a video's n-th task.
    pub(crate) fn seconds(&self, video: usize, nth: usize) -> u64 {
        let mut rng = fastrand::Rng::with_seed(self.seed ^ (video * 64 + nth) as u64);
        match self.kinds[video] {
            VideoKind::VeryLong => rng.u64(13 * 3600..30 * 3600),
            _ if rng.u8(0..20) == 0 => rng.u64(600..7200),
            _ => rng.u64(5..600),
        }
    }

    /// The kind of a video; `None` if the key is not one of an upload.
    pub(crate) fn kind_of(&self, key: &str) -> Option<VideoKind> {
        self.kinds.get(key.strip_suffix(".mp4")?.parse::<usize>().ok()?).copied()
    }

    /// By how much the clock of the n-th consumer is ahead.
    pub(crate) fn clock_error(&self, nth: usize) -> SignedDuration {
        SignedDuration::from_secs(if nth.is_multiple_of(2) { self.clock_error } else { -self.clock_error })
    }

    /// Time of the first event about a video; `None` if it comes through the queue of back-fills.
    pub(crate) fn uploaded_at(&self, video: usize) -> Option<Duration> {
        let key = Self::quoted_key(video);
        let about = self.messages.iter().filter(|(_, body, _)| body.contains(&key));
        let (at, body, _) = about.min_by_key(|(at, ..)| *at)?;
        (self.queue_of(*at, body) == QueueKind::Uploads).then_some(*at)
    }

    /// The event about a video.
    pub(crate) fn event(&self, video: usize) -> String {
        json!({ "Records": [record(&Self::key(video), self.kinds[video])] }).to_string()
    }

    pub(crate) fn options(&self) -> Options {
        fake_aws::options(self.max_tasks, self.launches_per_second, false)
    }
}

fn record(key: &str, kind: VideoKind) -> Value {
    s3_record(key, if kind == VideoKind::Empty { 0 } else { 9_000_000 })
}
