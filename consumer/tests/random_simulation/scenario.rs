//! What a seed stands for: the videos, their tasks' ends, and everything that goes wrong.

use std::{ops::RangeInclusive, time::Duration};

use serde_json::{Value, json};
use vidstreamx_consumer::{aws::run_task::Launch, intake::Options};

use crate::cloud::{self, Faults, MAX_ATTEMPTS, TaskScript, s3_record};

/// Every run's uploads; duplicates and rubbish come on top.
pub const VIDEOS: usize = 200;

/// What a video is like. `times` tasks end like that before one makes the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Good,
    /// Longer than SQS lets a delivery be held.
    Endless,
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
    /// Exits with 0 and leaves no report, once.
    Unreported,
    /// Crashes until somebody has repaired the transcoder.
    Hopeless,
    /// Only a task finds out that it is no video.
    Unusable,
    /// Its first bytes say that it is no video.
    NoVideo,
    Empty,
    /// Before anybody could look at it.
    Deleted,
    /// While its task ran.
    Replaced,
}

impl Kind {
    /// The end of the n-th task (from 1).
    pub fn play(self, nth: usize, launch: &Launch, repaired: bool, seconds: u64) -> TaskScript {
        let before = |times, play: TaskScript| if nth <= times { play } else { TaskScript::exit(0, seconds) };
        match self {
            Self::Good | Self::Endless => TaskScript::exit(0, seconds),
            Self::Transient { times } => before(times, TaskScript::exit(75, seconds / 2)),
            Self::Interrupted { times } => {
                before(times, TaskScript::stopped(Some(143), "SpotInterruption", seconds / 2))
            }
            Self::NotStarted { times } => before(times, TaskScript::stopped(None, "TaskFailedToStart", 40)),
            Self::Misconfigured { times } => before(times, TaskScript::exit(78, 20)),
            Self::NeedsMemory { gib } => {
                let enough = launch.size.is_some_and(|size| size.memory_mib >= gib * 1024);
                TaskScript::exit(if enough { 0 } else { 137 }, seconds)
            }
            Self::Unreported => before(1, TaskScript { report: None, ..TaskScript::exit(0, seconds) }),
            Self::Hopeless if repaired => TaskScript::exit(0, seconds),
            Self::Hopeless => TaskScript::exit(if nth.is_multiple_of(2) { 101 } else { 70 }, seconds),
            // A task finds out where S3 did not let the consumer look.
            Self::Unusable | Self::NoVideo | Self::Empty => TaskScript::exit(65, 15),
            Self::Replaced | Self::Deleted => TaskScript::exit(66, 15),
        }
    }

    /// How many tasks that takes, one after the other.
    pub fn tasks(self, fair_weather: bool) -> RangeInclusive<usize> {
        let tasks = match self {
            // A look that S3 does not allow saves no task.
            Self::NoVideo | Self::Deleted => return 0..=usize::from(!fair_weather),
            Self::Empty => 0,
            Self::Good | Self::Endless | Self::Unusable | Self::Replaced => 1,
            Self::Transient { times }
            | Self::Interrupted { times }
            | Self::NotStarted { times }
            | Self::Misconfigured { times } => times + 1,
            // The base has 8 GiB, and the next size twice as much.
            Self::NeedsMemory { gib } if gib <= 8 => 1,
            Self::NeedsMemory { .. } | Self::Unreported => 2,
            Self::Hopeless => MAX_ATTEMPTS as usize,
        };
        tasks..=tasks
    }

    fn any(rng: &mut fastrand::Rng) -> Self {
        match rng.u32(0..100) {
            0..=54 => Self::Good,
            55..=61 => Self::Transient { times: rng.usize(1..MAX_ATTEMPTS as usize) },
            62..=71 => Self::Interrupted { times: rng.usize(1..6) },
            72..=74 => Self::NotStarted { times: rng.usize(1..4) },
            75 => Self::Misconfigured { times: rng.usize(1..3) },
            76..=79 => Self::NeedsMemory { gib: rng.u32(4..=16) },
            80..=82 => Self::Unreported,
            83..=86 => Self::Hopeless,
            87..=90 => Self::Unusable,
            91..=93 => Self::NoVideo,
            94..=95 => Self::Empty,
            96..=97 => Self::Deleted,
            _ => Self::Replaced,
        }
    }
}

/// What happens from outside.
pub enum Event {
    /// A message of S3's.
    Upload(String),
    /// ECS has no capacity for so long.
    Drought(Duration),
    /// Nothing of AWS answers for so long.
    Outage(Duration),
}

/// What one seed stands for.
pub struct Plan {
    pub seed: u64,
    pub kinds: Vec<Kind>,
    pub max_tasks: usize,
    pub launches_per_second: u32,
    strangers: usize,
    /// Whether everything works that is AWS's or the consumer's.
    pub fair_weather: bool,
    errors: f64,
    delays: f64,
    crashes: f64,
    pub seats: usize,
    messages: Vec<(Duration, String)>,
    droughts: Vec<(Duration, Duration)>,
    outages: Vec<(Duration, Duration)>,
    /// When a consumer is told to end, and replaced.
    pub replacements: Vec<Duration>,
    /// Whether the dead letters are moved back once the transcoder is repaired.
    pub redrive: bool,
}

impl Plan {
    pub fn key(video: usize) -> String {
        format!("{video}.mp4")
    }

    pub fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let rng = &mut rng;
        let mut kinds: Vec<_> = (0..VIDEOS).map(|_| Kind::any(rng)).collect();
        if rng.u8(0..5) == 0 {
            kinds[rng.usize(0..VIDEOS)] = Kind::Endless;
        }
        let fair_weather = rng.u8(0..10) == 0;
        let within = |rng: &mut fastrand::Rng, hours: u64| Duration::from_secs(rng.u64(0..hours * 3600));
        let periods = |rng: &mut fastrand::Rng, most: usize, minutes: u64| {
            let count = if fair_weather { 0 } else { rng.usize(0..=most) };
            (0..count).map(|_| (within(rng, 3), Duration::from_secs(rng.u64(1..minutes * 60)))).collect()
        };
        let share = |rng: &mut fastrand::Rng, most: f64| if fair_weather { 0.0 } else { rng.f64() * most };
        Self {
            seed,
            max_tasks: rng.choice([3, 10, 40, 150]).unwrap(),
            launches_per_second: rng.choice([1, 5, 20, 20]).unwrap(),
            strangers: rng.usize(0..5),
            fair_weather,
            errors: share(rng, 0.04),
            delays: share(rng, 0.01),
            crashes: share(rng, 0.001),
            seats: if fair_weather { 1 } else { rng.usize(1..=2) },
            messages: Self::messages(&kinds, rng),
            droughts: periods(rng, 2, 60),
            outages: periods(rng, 2, 10),
            replacements: if fair_weather {
                Vec::new()
            } else {
                (0..rng.usize(0..3)).map(|_| within(rng, 2)).collect()
            },
            redrive: rng.bool(),
            kinds,
        }
    }

    /// Every video at least once, alone or with others, with duplicates soon or late.
    fn messages(kinds: &[Kind], rng: &mut fastrand::Rng) -> Vec<(Duration, String)> {
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
            let at = Duration::from_secs(if backlog { 0 } else { rng.u64(0..5000) });
            let body = json!({ "Records": records }).to_string();
            if rng.u8(0..8) == 0 {
                messages.push((at + Duration::from_secs(rng.u64(0..10_000)), body.clone()));
            }
            messages.push((at, body));
            video += count;
        }
        messages
    }

    /// Messages that nobody can read, and one that is not for this consumer.
    pub fn strangers(&self) -> Vec<String> {
        let foreign = json!({"Records": [record("a.mp4", Kind::Good)]}).to_string();
        let rubbish = (1..self.strangers).map(|stranger| format!("rubbish {stranger}"));
        rubbish.chain((self.strangers > 0).then(|| foreign.replace("uploads", "elsewhere"))).collect()
    }

    /// What happens from outside, in order of time.
    pub fn events(&self) -> Vec<(Duration, Event)> {
        let uploads = self.messages.iter().map(|(at, body)| (*at, Event::Upload(body.clone())));
        let droughts = self.droughts.iter().map(|(at, lasts)| (*at, Event::Drought(*lasts)));
        let outages = self.outages.iter().map(|(at, lasts)| (*at, Event::Outage(*lasts)));
        let mut events: Vec<_> = uploads.chain(droughts).chain(outages).collect();
        events.sort_by_key(|(at, _)| *at);
        events
    }

    pub fn faults(&self, seed: u64) -> Faults {
        let mut faults = Faults::seeded(seed);
        (faults.errors, faults.delays, faults.crashes) = (self.errors, self.delays, self.crashes);
        faults
    }

    /// How long a video's n-th task runs.
    pub fn seconds(&self, video: usize, nth: usize) -> u64 {
        let mut rng = fastrand::Rng::with_seed(self.seed ^ (video * 64 + nth) as u64);
        match self.kinds[video] {
            Kind::Endless => rng.u64(13 * 3600..30 * 3600),
            _ if rng.u8(0..20) == 0 => rng.u64(600..7200),
            _ => rng.u64(5..600),
        }
    }

    pub fn options(&self) -> Options {
        cloud::options(self.max_tasks, self.launches_per_second, false)
    }
}

fn record(key: &str, kind: Kind) -> Value {
    s3_record(key, if kind == Kind::Empty { 0 } else { 9_000_000 })
}
