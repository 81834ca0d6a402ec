//! What is counted, and the two forms in which it is shown: text for Prometheus, and lines from which
//! CloudWatch makes metrics.
//!
//! Prometheus reads totals since the start and works out the rest. CloudWatch adds up what it is sent:
//! each line holds what happened since the one before. All of it is kept here, so that both speak of the
//! same; nothing is global, and a lock is never held across a wait.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, AtomicU64},
    },
    time::Duration,
};

use jiff::Timestamp;
use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};
use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use vidstreamx_job::State;

/// Of all metrics in CloudWatch.
const NAMESPACE: &str = "VidStreamX";
/// Their one dimension: the name of the ECS cluster, which is the stack's.
const DIMENSION: &str = "Cluster";
/// Between two lines: CloudWatch keeps one value a minute.
const LINE_EVERY: Duration = Duration::from_mins(1);
/// Most values of a metric in a line, by the embedded metric format's specification.
const MOST_VALUES: usize = 100;

/// A long poll takes 20 s and a failed one is tried again within 30 s: after this long none can be on
/// its way.
const NO_ANSWER: Duration = Duration::from_mins(2);
/// A launch that was refused is tried again within five minutes. One that was not was given up.
const GIVEN_UP: Duration = Duration::from_mins(10);

/// Bounds of the buckets, in seconds. A launch takes tens of milliseconds where nothing is in its way,
/// and hours where all slots are taken.
const LATENCIES: [f64; 14] =
    [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0];
/// From a message that was waited for to one that waited as long as SQS keeps it: 14 days.
const AGES: [f64; 13] =
    [1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 43_200.0, 86_400.0, 1_209_600.0];
const ATTEMPTS: [f64; 6] = [1.0, 2.0, 3.0, 5.0, 8.0, 13.0];

/// A video's ends by their label and their metric in CloudWatch.
const ENDS: [(&str, &str); 4] = [
    ("done", "VideosDone"),
    ("rejected", "VideosRejected"),
    ("obsolete", "VideosObsolete"),
    ("failed", "VideosFailed"),
];
const FAILED: usize = 3;
const OBSOLETE: usize = 2;

const fn end(state: State) -> Option<usize> {
    match state {
        State::Running => None,
        State::Done => Some(0),
        State::Rejected => Some(1),
        State::Obsolete => Some(OBSOLETE),
        State::Failed => Some(FAILED),
    }
}

/// Everything that is counted.
#[derive(Debug)]
pub struct Metrics {
    /// The dimension's value.
    cluster: String,
    registry: Registry,
    videos: Family<[(&'static str, &'static str); 1], Counter>,
    attempts: Histogram,
    cost_usd: Counter<f64, AtomicU64>,
    in_flight: Gauge<i64, AtomicI64>,
    launch_latency: Histogram,
    launches_refused: Counter,
    receive_age: Histogram,
    dead_lettered: Counter,
    paused: Gauge<i64, AtomicI64>,
    misconfigured: Gauge<i64, AtomicI64>,
    now: Mutex<Now>,
}

/// What is neither a total nor a gauge.
#[derive(Debug)]
struct Now {
    receiving: Receiving,
    refusing: Option<Refusing>,
    minute: Minute,
}

#[derive(Debug)]
enum Receiving {
    /// The queue is asked for messages; when it last answered, or else since when it is asked.
    Polling(Instant),
    /// Nothing is received, for a reason that will pass.
    Paused(String),
    /// Nothing is received, for a reason that a person has to end.
    Misconfigured(String),
}

/// ECS takes no launch.
#[derive(Debug, Clone, Copy)]
struct Refusing {
    since: Instant,
    last: Instant,
}

/// What happened since the last line.
#[derive(Debug, Default)]
struct Minute {
    videos: [u64; ENDS.len()],
    attempts: Sample,
    cost_usd: f64,
    launch_latency: Sample,
    launches_refused: u64,
    receive_age: Sample,
    dead_lettered: u64,
    misconfigured: bool,
}

/// Values as a line takes them: all of them while they are few, else a fair choice and the largest.
#[derive(Debug, Default)]
struct Sample {
    values: Vec<f64>,
    seen: usize,
    largest: f64,
}

impl Sample {
    fn add(&mut self, value: f64) {
        self.seen += 1;
        self.largest = self.largest.max(value);
        // Leaves room for the largest.
        if self.values.len() < MOST_VALUES - 1 {
            self.values.push(value);
        } else if let Some(replaced) = self.values.get_mut(fastrand::usize(..self.seen)) {
            *replaced = value;
        }
    }

    fn values(self) -> Vec<Value> {
        let all = self.seen == self.values.len();
        let largest = (!all).then_some(self.largest);
        self.values.into_iter().chain(largest).map(rounded).collect()
    }
}

/// To a millisecond, or a ten-thousandth of a cent.
fn rounded(value: f64) -> Value {
    json!((value * 1e6).round() / 1e6)
}

/// `Value` and `Unit` of each metric in a line.
type Line = BTreeMap<&'static str, (Value, &'static str)>;

impl Metrics {
    /// Nothing has happened yet. `cluster` is the cluster's name or ARN.
    #[must_use]
    pub fn new(cluster: &str) -> Self {
        let name = cluster.rsplit_once('/').map_or(cluster, |(_, name)| name);
        let mut metrics = Self {
            cluster: if name.is_empty() { cluster.to_owned() } else { name.to_owned() },
            registry: Registry::with_prefix("vidstreamx"),
            videos: Family::default(),
            attempts: Histogram::new(ATTEMPTS),
            cost_usd: Counter::default(),
            in_flight: Gauge::default(),
            launch_latency: Histogram::new(LATENCIES),
            launches_refused: Counter::default(),
            receive_age: Histogram::new(AGES),
            dead_lettered: Counter::default(),
            paused: Gauge::default(),
            misconfigured: Gauge::default(),
            now: Mutex::new(Now {
                receiving: Receiving::Polling(Instant::now()),
                refusing: None,
                minute: Minute::default(),
            }),
        };
        for (label, _) in ENDS {
            // All are there from the start: a rate can't be worked out from a series' first value.
            drop(metrics.videos.get_or_create(&[("end", label)]));
        }
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register("videos", "Videos that came to an end, by which", self.videos.clone());
        registry.register(
            "video_attempts",
            "Attempts of each video that came to an end, interruptions by AWS included",
            self.attempts.clone(),
        );
        registry.register("cost_usd", "Estimated cost of ended videos' tasks, in USD", self.cost_usd.clone());
        registry.register(
            "videos_in_flight",
            "Videos of messages that are held: in work, or waiting for a slot or for ECS",
            self.in_flight.clone(),
        );
        registry.register(
            "launch_latency_seconds",
            "From a message's receive to the task's acceptance by ECS",
            self.launch_latency.clone(),
        );
        registry.register(
            "launches_refused",
            "Calls of RunTask that started nothing",
            self.launches_refused.clone(),
        );
        registry.register(
            "receive_age_seconds",
            "Age of messages at their first receive",
            self.receive_age.clone(),
        );
        registry.register(
            "dead_lettered",
            "Messages sent to the dead-letter queue with a reason",
            self.dead_lettered.clone(),
        );
        registry.register(
            "paused",
            "1 while nothing is received for a reason that will pass: all slots are taken, or ECS refuses",
            self.paused.clone(),
        );
        registry.register(
            "misconfigured",
            "1 while nothing is received because a setting or permission is wrong",
            self.misconfigured.clone(),
        );
    }

    /// A message was received for the first time, this long after it was sent. Later deliveries do not
    /// count: those are as old as their videos take.
    pub fn received(&self, age: Duration) {
        let age = age.as_secs_f64();
        self.receive_age.observe(age);
        self.now().minute.receive_age.add(age);
    }

    /// ECS accepted a launch, this long after the video's message was received.
    pub fn launched(&self, latency: Duration) {
        let latency = latency.as_secs_f64();
        self.launch_latency.observe(latency);
        let mut now = self.now();
        now.minute.launch_latency.add(latency);
        now.refusing = None;
    }

    /// ECS refused a launch, or gave no answer.
    pub fn launch_refused(&self) {
        self.launches_refused.inc();
        let mut now = self.now();
        now.minute.launches_refused += 1;
        let last = Instant::now();
        let since = now.refusing(last).map_or(last, |refusing| refusing.since);
        now.refusing = Some(Refusing { since, last });
    }

    /// A video came to its end after so many attempts, whose tasks cost so much together.
    pub fn ended(&self, state: State, attempts: u32, cost_usd: f64) {
        let Some(end) = end(state) else { return };
        let attempts = f64::from(attempts);
        // A counter does not take a sum that is none.
        let cost_usd = if cost_usd.is_finite() { cost_usd.max(0.0) } else { 0.0 };
        self.videos.get_or_create(&[("end", ENDS[end].0)]).inc();
        self.attempts.observe(attempts);
        self.cost_usd.inc_by(cost_usd);
        let minute = &mut self.now().minute;
        minute.videos[end] += 1;
        minute.attempts.add(attempts);
        minute.cost_usd += cost_usd;
    }

    /// A message was sent to the dead-letter queue.
    pub fn dead_lettered(&self) {
        self.dead_lettered.inc();
        self.now().minute.dead_lettered += 1;
    }

    /// So many videos are in flight now.
    pub fn in_flight(&self, videos: usize) {
        self.in_flight.set(i64::try_from(videos).unwrap_or(i64::MAX));
    }

    /// The queue answered a receive, with messages or without.
    pub fn polled(&self) {
        self.receiving(Receiving::Polling(Instant::now()));
    }

    /// Receiving stops for a reason that will pass: all slots are taken, or ECS refuses launches. The
    /// reason is a sentence's rest, such as "all 10 slots are taken".
    pub fn paused(&self, reason: &str) {
        self.receiving(Receiving::Paused(one_line(reason)));
    }

    /// Receiving stops, or is refused, because a setting or permission is wrong.
    pub fn misconfigured(&self, reason: &str) {
        self.receiving(Receiving::Misconfigured(one_line(reason)));
    }

    /// Receiving goes on after a pause.
    pub fn resumed(&self) {
        self.receiving(Receiving::Polling(Instant::now()));
    }

    fn receiving(&self, receiving: Receiving) {
        self.paused.set(matches!(receiving, Receiving::Paused(_)).into());
        let misconfigured = matches!(receiving, Receiving::Misconfigured(_));
        self.misconfigured.set(misconfigured.into());
        let mut now = self.now();
        now.minute.misconfigured |= misconfigured;
        now.receiving = receiving;
    }

    /// Whether the consumer does its work, and why not, as a sentence.
    ///
    /// # Errors
    /// A setting or permission is wrong, or the queue has not answered for two minutes.
    pub fn health(&self) -> Result<String, String> {
        match &self.now().receiving {
            Receiving::Polling(answered) => {
                let ago = answered.elapsed();
                if ago < NO_ANSWER {
                    Ok(format!("{} s since the queue's last answer, or the start", ago.as_secs()))
                } else {
                    Err(format!(
                        "the queue has not answered for {} s: look at the consumer's log for the reason",
                        ago.as_secs()
                    ))
                }
            }
            Receiving::Paused(reason) => Ok(format!("receiving pauses: {reason}")),
            Receiving::Misconfigured(reason) => {
                Err(format!("a setting or permission is wrong, and nothing is received: {reason}"))
            }
        }
    }

    /// All totals as OpenMetrics text, in which Prometheus reads them.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a `String` can't fail, and what comes from this module can be encoded.
        let _ = encode(&mut text, &self.registry);
        text
    }

    /// Writes lines for CloudWatch: one at once, one a minute, and a last one when `ended`. Each takes what
    /// happened since the one before, so that there is one such writer.
    ///
    /// # Errors
    /// `out` takes nothing more.
    pub async fn write_lines(
        &self,
        mut out: impl io::Write,
        clock: impl Fn() -> Timestamp,
        ended: CancellationToken,
    ) -> io::Result<()> {
        let mut ticks = interval(LINE_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let last = tokio::select! {
                biased;
                () = ended.cancelled() => true,
                _ = ticks.tick() => false,
            };
            writeln!(out, "{}", self.line(clock()))?;
            out.flush()?;
            if last {
                return Ok(());
            }
        }
    }

    /// What happened since the last line, in CloudWatch's embedded metric format. What did not happen is
    /// left out, as each metric is paid for by the hours in which it has values; only the gauges are
    /// always there, and show that the consumer runs.
    fn line(&self, at: Timestamp) -> String {
        let (minute, misconfigured, refused_for) = {
            let mut now = self.now();
            let at = Instant::now();
            let refused_for = now.refusing(at).map_or(Duration::ZERO, |refusing| at - refusing.since);
            let misconfigured = matches!(now.receiving, Receiving::Misconfigured(_));
            let minute = std::mem::take(&mut now.minute);
            (minute, misconfigured, refused_for)
        };
        let mut line = Line::new();
        line.insert("InFlight", (json!(self.in_flight.get()), "Count"));
        line.insert("LaunchesRefusedFor", (rounded(refused_for.as_secs_f64()), "Seconds"));
        line.insert("Misconfigured", (json!(u8::from(minute.misconfigured || misconfigured)), "None"));
        let counts = ENDS.iter().map(|(_, name)| *name).zip(minute.videos);
        let others = [("LaunchesRefused", minute.launches_refused), ("DeadLettered", minute.dead_lettered)];
        for (name, count) in counts.chain(others).filter(|(_, count)| *count > 0) {
            line.insert(name, (json!(count), "Count"));
        }
        if minute.cost_usd > 0.0 {
            line.insert("CostUSD", (rounded(minute.cost_usd), "None"));
        }
        for (name, values, unit) in [
            ("Attempts", minute.attempts.values(), "Count"),
            ("LaunchLatency", minute.launch_latency.values(), "Seconds"),
            ("ReceiveAge", minute.receive_age.values(), "Seconds"),
            ("FailureShare", failures(minute.videos), "None"),
        ] {
            if !values.is_empty() {
                line.insert(name, (values.into(), unit));
            }
        }
        embedded(line, &self.cluster, at)
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Now {
    fn refusing(&self, at: Instant) -> Option<Refusing> {
        self.refusing.filter(|refusing| at - refusing.last < GIVEN_UP)
    }
}

/// 1 for each video that failed and 0 for each other: their average over any time is the share that
/// failed. Obsolete videos were nobody's to make.
fn failures(videos: [u64; ENDS.len()]) -> Vec<Value> {
    let failed = videos[FAILED];
    let ended = videos.iter().sum::<u64>() - videos[OBSOLETE];
    let most = MOST_VALUES as u64;
    let (ended, failed) =
        if ended > most { (most, (failed * most).div_ceil(ended)) } else { (ended, failed) };
    (0..ended).map(|video| json!(u8::from(video < failed))).collect()
}

/// CloudWatch's embedded metric format: the metrics as members of an object, and beside them where in
/// CloudWatch they belong.
/// <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html>
fn embedded(line: Line, cluster: &str, at: Timestamp) -> String {
    let definitions: Vec<_> =
        line.iter().map(|(name, (_, unit))| json!({"Name": name, "Unit": unit})).collect();
    let directive = json!({
        "Namespace": NAMESPACE,
        "Dimensions": [[DIMENSION]],
        "Metrics": definitions,
    });
    let mut root: serde_json::Map<_, _> =
        line.into_iter().map(|(name, (value, _))| (name.to_owned(), value)).collect();
    root.insert(DIMENSION.to_owned(), cluster.into());
    root.insert(
        "_aws".to_owned(),
        json!({"Timestamp": at.as_millisecond(), "CloudWatchMetrics": [directive]}),
    );
    Value::Object(root).to_string()
}

fn one_line(text: &str) -> String {
    text.split(char::is_control).map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::time::advance;

    use super::*;

    fn at() -> Timestamp {
        Timestamp::from_millisecond(1_780_000_000_123).unwrap()
    }

    fn line(metrics: &Metrics) -> Value {
        serde_json::from_str(&metrics.line(at())).unwrap()
    }

    /// Their names in order.
    fn members(object: &serde_json::Map<String, Value>) -> Vec<&str> {
        let mut names: Vec<_> = object.keys().map(String::as_str).collect();
        names.sort_unstable();
        names
    }

    /// The rules of the specification and of its JSON schema that say anything about such a line.
    fn assert_is_embedded_metric_format(text: &str) {
        const UNITS: [&str; 5] = ["Seconds", "Milliseconds", "Bytes", "Count", "None"];
        assert!(!text.contains('\n') && text.len() < 256 * 1024);
        let root: Value = serde_json::from_str(text).unwrap();
        let aws = root["_aws"].as_object().unwrap();
        assert_eq!(members(aws), ["CloudWatchMetrics", "Timestamp"]);
        // In milliseconds: CloudWatch drops what is more than two weeks old or two hours ahead.
        assert_eq!(aws["Timestamp"].as_i64(), Some(1_780_000_000_123));
        let name = |value: &Value| {
            let name = value.as_str().unwrap().to_owned();
            assert!((1..=255).contains(&name.len()), "{name}");
            name
        };
        for directive in aws["CloudWatchMetrics"].as_array().unwrap() {
            let directive = directive.as_object().unwrap();
            assert_eq!(members(directive), ["Dimensions", "Metrics", "Namespace"]);
            assert_eq!(name(&directive["Namespace"]), "VidStreamX");
            let sets = directive["Dimensions"].as_array().unwrap();
            assert!(!sets.is_empty());
            for set in sets.iter().map(|set| set.as_array().unwrap()) {
                assert!(set.len() <= 9);
                for dimension in set {
                    assert!(!root[name(dimension)].as_str().unwrap().is_empty(), "{dimension}");
                }
            }
            let metrics = directive["Metrics"].as_array().unwrap();
            assert!((1..=100).contains(&metrics.len()));
            for metric in metrics.iter().map(|metric| metric.as_object().unwrap()) {
                assert_eq!(members(metric), ["Name", "Unit"]);
                assert!(UNITS.contains(&metric["Unit"].as_str().unwrap()), "{metric:?}");
                match &root[name(&metric["Name"])] {
                    Value::Number(_) => {}
                    Value::Array(values) => {
                        assert!((1..=100).contains(&values.len()), "{}", values.len());
                        assert!(values.iter().all(Value::is_number), "{values:?}");
                    }
                    other => panic!("{metric:?} is {other}"),
                }
            }
            // Nothing is sent under a name that CloudWatch is not told of.
            assert_eq!(root.as_object().unwrap().len(), metrics.len() + 2);
        }
    }

    fn a_busy_minute() -> Metrics {
        let metrics = Metrics::new("arn:aws:ecs:eu-central-1:123456789012:cluster/videos");
        metrics.received(Duration::from_millis(1500));
        metrics.received(Duration::from_mins(30));
        metrics.launch_refused();
        metrics.launched(Duration::from_millis(250));
        metrics.ended(State::Done, 1, 0.0123);
        metrics.ended(State::Done, 2, 0.5);
        metrics.ended(State::Rejected, 0, 0.0);
        metrics.ended(State::Failed, 3, f64::NAN);
        metrics.ended(State::Obsolete, 1, -1.0);
        metrics.ended(State::Running, 1, 1.0);
        metrics.dead_lettered();
        metrics.in_flight(7);
        metrics.misconfigured("exit code 78");
        metrics.polled();
        metrics
    }

    #[tokio::test(start_paused = true)]
    async fn prometheus_reads_totals_with_their_units_and_meanings() {
        let metrics = a_busy_minute();
        // What CloudWatch is sent takes nothing away from the totals.
        let before = metrics.text();
        metrics.line(at());
        assert_eq!(before, metrics.text());
        let (ends, others): (Vec<_>, Vec<_>) =
            before.lines().partition(|line| line.starts_with("vidstreamx_videos_total"));
        // In no order of their own.
        let ends: std::collections::BTreeSet<_> = ends.into_iter().collect();
        insta::assert_snapshot!(ends.into_iter().chain(others).collect::<Vec<_>>().join("\n"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_is_what_happened_since_the_line_before() {
        let metrics = a_busy_minute();
        insta::assert_json_snapshot!(line(&metrics));
        metrics.ended(State::Done, 1, 0.25);
        let second = line(&metrics);
        assert_eq!(second["VideosDone"], 1);
        assert_eq!(second["CostUSD"], 0.25);
        assert_eq!(second["FailureShare"], json!([0]));
        assert_eq!(second.get("VideosFailed"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn every_line_is_embedded_metric_format() {
        assert_is_embedded_metric_format(&Metrics::new("videos").line(at()));
        assert_is_embedded_metric_format(&a_busy_minute().line(at()));
        let metrics = Metrics::new("cluster/");
        for n in 0..10_000 {
            metrics.received(Duration::from_millis(n));
            metrics.launched(Duration::from_millis(n));
            metrics.ended(if n % 10 == 0 { State::Failed } else { State::Done }, 1, 0.001);
        }
        assert_is_embedded_metric_format(&metrics.line(at()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_minute_without_anything_still_has_the_gauges() {
        let metrics = Metrics::new("videos");
        metrics.in_flight(3);
        let line = line(&metrics);
        let names = members(line.as_object().unwrap());
        assert_eq!(names, ["Cluster", "InFlight", "LaunchesRefusedFor", "Misconfigured", "_aws"]);
        assert_eq!((&line["InFlight"], &line["Cluster"]), (&json!(3), &json!("videos")));
    }

    proptest! {
        #[test]
        fn a_sample_holds_all_values_or_a_hundred_with_the_largest(
            values in prop::collection::vec(0_u32..100_000, 0..400)
        ) {
            let mut sample = Sample::default();
            for value in &values {
                sample.add(f64::from(*value));
            }
            let held: Vec<_> = sample.values().iter().map(|value| value.as_f64().unwrap()).collect();
            prop_assert_eq!(held.len(), values.len().min(MOST_VALUES));
            prop_assert!(held.iter().all(|held| values.iter().any(|value| f64::from(*value) == *held)));
            if let Some(largest) = values.iter().max() {
                prop_assert!(held.contains(&f64::from(*largest)));
            }
        }

        #[test]
        fn the_average_of_failures_is_the_share_that_failed(
            done in 0_u64..2000, rejected in 0_u64..50, obsolete in 0_u64..50, failed in 0_u64..2000
        ) {
            let values = failures([done, rejected, obsolete, failed]);
            prop_assert!(values.len() <= MOST_VALUES);
            let ended = done + rejected + failed;
            prop_assert_eq!(values.is_empty(), ended == 0);
            if ended > 0 {
                let sum: u64 = values.iter().map(|value| value.as_u64().unwrap()).sum();
                let share = sum as f64 / values.len() as f64;
                prop_assert!((share - failed as f64 / ended as f64).abs() <= 0.01);
                // A single failure among many is not lost.
                prop_assert_eq!(sum == 0, failed == 0);
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn refusals_are_timed_from_the_first_until_a_launch_succeeds_or_nobody_tries() {
        let metrics = Metrics::new("videos");
        let refused_for = || line(&metrics)["LaunchesRefusedFor"].as_f64().unwrap();
        for _ in 0..10 {
            metrics.launch_refused();
            advance(Duration::from_mins(5)).await;
        }
        assert_eq!(refused_for(), 3000.0);
        metrics.launched(Duration::ZERO);
        assert_eq!(refused_for(), 0.0);

        metrics.launch_refused();
        advance(Duration::from_mins(9)).await;
        assert_eq!(refused_for(), 540.0);
        advance(Duration::from_mins(1)).await;
        assert_eq!(refused_for(), 0.0);
        metrics.launch_refused();
        advance(Duration::from_secs(1)).await;
        assert_eq!(refused_for(), 1.0);
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_well_while_the_queue_answers_or_receiving_pauses_on_purpose() {
        let metrics = Metrics::new("videos");
        let is_well = || metrics.health().is_ok();
        assert!(is_well());
        advance(Duration::from_secs(119)).await;
        assert!(is_well());
        advance(Duration::from_secs(1)).await;
        assert!(metrics.health().unwrap_err().starts_with("the queue has not answered for 120 s"));
        metrics.polled();
        assert!(is_well());

        metrics.paused("all 10 slots are taken");
        advance(Duration::from_hours(5)).await;
        assert_eq!(metrics.health().unwrap(), "receiving pauses: all 10 slots are taken");
        metrics.resumed();
        assert!(is_well());
        advance(NO_ANSWER).await;
        assert!(!is_well());

        metrics.misconfigured("AccessDenied:\r\n no sqs:ReceiveMessage");
        let why = metrics.health().unwrap_err();
        assert!(why.ends_with(": AccessDenied: no sqs:ReceiveMessage"), "{why}");
        metrics.polled();
        assert!(is_well());
    }

    #[tokio::test(start_paused = true)]
    async fn a_wrong_setting_is_told_even_if_it_was_one_for_a_moment() {
        let metrics = Metrics::new("videos");
        metrics.misconfigured("exit code 78");
        metrics.resumed();
        assert_eq!(line(&metrics)["Misconfigured"], 1);
        assert_eq!(line(&metrics)["Misconfigured"], 0);
        metrics.misconfigured("exit code 78");
        assert_eq!([&line(&metrics)["Misconfigured"], &line(&metrics)["Misconfigured"]], [1, 1]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_is_written_at_the_start_every_minute_and_at_the_end() {
        let metrics = Metrics::new("videos");
        let ended = CancellationToken::new();
        let mut out = Vec::new();
        let writing = metrics.write_lines(&mut out, at, ended.clone());
        let ending = async {
            tokio::time::sleep(Duration::from_secs(150)).await;
            metrics.ended(State::Done, 1, 0.0);
            ended.cancel();
        };
        let (written, ()) = tokio::join!(writing, ending);
        written.unwrap();
        let lines: Vec<_> = std::str::from_utf8(&out).unwrap().lines().collect();
        assert_eq!(lines.len(), 4);
        lines.iter().for_each(|line| assert_is_embedded_metric_format(line));
        assert!(lines[3].contains("VideosDone") && !lines[2].contains("VideosDone"));
    }
}
