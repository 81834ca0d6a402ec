//! Records the metrics, and formats them for Prometheus and CloudWatch.

use std::{
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
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use vidstreamx_job::State;

use super::{
    emf::{self, Gauges},
    window::Window,
};
use crate::aws::sqs::QueueKind;

/// Interval of lines. CloudWatch stores one value per minute.
const LINE_EVERY: Duration = Duration::from_mins(1);
/// Time without a response of the queue after which the consumer is unhealthy. A long poll takes 20 s, and a
/// failed poll is retried within 30 s.
const NO_RESPONSE: Duration = Duration::from_mins(2);
/// Time without a retry after which a refused launch counts as given up. Retries come within five minutes.
const GIVEN_UP: Duration = Duration::from_mins(10);

/// Bounds of the histogram of launch latencies, in seconds: tens of milliseconds without delays, hours if all
/// slots are taken.
const LATENCIES: [f64; 14] =
    [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0];
/// Bounds of the histogram of message ages, in seconds, up to SQS's retention of 14 days.
const AGES: [f64; 13] =
    [1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 43_200.0, 86_400.0, 1_209_600.0];
const ATTEMPTS: [f64; 6] = [1.0, 2.0, 3.0, 5.0, 8.0, 13.0];

/// All metrics of a consumer.
#[derive(Debug)]
pub struct Metrics {
    /// The cluster's name, CloudWatch's dimension.
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

/// The state that is neither a total nor a gauge.
#[derive(Debug)]
struct Now {
    /// The state of receiving, by queue.
    receiving: [Receiving; QueueKind::COUNT],
    refusing: Option<Refusing>,
    window: Window,
}

#[derive(Debug)]
enum Receiving {
    /// The queue is polled. Holds the time of its last response, or of the start of polling.
    Polling(Instant),
    /// Receiving pauses for a temporary reason.
    Paused(String),
    /// Receiving pauses until an operator acts.
    Misconfigured(String),
}

/// The period in which ECS refuses launches.
#[derive(Debug, Clone, Copy)]
struct Refusing {
    since: Instant,
    last: Instant,
}

impl Metrics {
    /// Metrics with all values at 0. `cluster` is the cluster's name or ARN.
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
                receiving: [Receiving::Polling(Instant::now()), Receiving::Polling(Instant::now())],
                refusing: None,
                window: Window::default(),
            }),
        };
        for state in [State::Done, State::Rejected, State::Obsolete, State::Failed, State::Cancelled] {
            // Creates all series at the start, because a rate cannot be computed from a series' first value.
            drop(metrics.videos.get_or_create(&[("end", state.name())]));
        }
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register("videos", "Videos that ended, by state", self.videos.clone());
        registry.register(
            "video_attempts",
            "Attempts of each video that ended, including attempts that AWS interrupted",
            self.attempts.clone(),
        );
        registry.register("cost_usd", "Estimated cost of ended videos' tasks, in USD", self.cost_usd.clone());
        registry.register(
            "videos_in_flight",
            "Videos of held messages: in work, or waiting for a slot or for ECS",
            self.in_flight.clone(),
        );
        registry.register(
            "launch_latency_seconds",
            "Time from the receive of a message, or from when a retry is due, to the task's acceptance by ECS",
            self.launch_latency.clone(),
        );
        registry.register(
            "launches_refused",
            "RunTask calls that started no task",
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
            "1 while nothing is received because all slots are taken or ECS refuses launches",
            self.paused.clone(),
        );
        registry.register(
            "misconfigured",
            "1 while nothing is received because a setting or permission is wrong",
            self.misconfigured.clone(),
        );
    }

    /// Counts the first receive of a message of this age. Later deliveries do not count, because their age
    /// includes the processing of their videos.
    pub(crate) fn received(&self, age: Duration) {
        let age = age.as_secs_f64();
        self.receive_age.observe(age);
        self.now().window.receive_age.add(age);
    }

    /// Counts an accepted launch. `latency` is the time since the video's message was received, or since its
    /// retry became due.
    pub(crate) fn launched(&self, latency: Duration) {
        let latency = latency.as_secs_f64();
        self.launch_latency.observe(latency);
        let mut now = self.now();
        now.window.launch_latency.add(latency);
        now.refusing = None;
    }

    /// Counts a launch that ECS refused or did not respond to.
    pub(crate) fn launch_refused(&self) {
        self.launches_refused.inc();
        let mut now = self.now();
        now.window.launches_refused += 1;
        let last = Instant::now();
        let since = now.refusing(last).map_or(last, |refusing| refusing.since);
        now.refusing = Some(Refusing { since, last });
    }

    /// Counts a video that ended, with the number of its attempts and the cost of their tasks.
    pub(crate) fn ended(&self, state: State, attempts: u32, cost_usd: f64) {
        if state == State::Running {
            return;
        }
        let attempts = f64::from(attempts);
        // A counter panics on a negative value and on NaN.
        let cost_usd = if cost_usd.is_finite() { cost_usd.max(0.0) } else { 0.0 };
        self.videos.get_or_create(&[("end", state.name())]).inc();
        self.attempts.observe(attempts);
        self.cost_usd.inc_by(cost_usd);
        let window = &mut self.now().window;
        window.ended.add(state);
        window.attempts.add(attempts);
        window.cost_usd += cost_usd;
    }

    /// Counts a message that was sent to the dead-letter queue.
    pub(crate) fn dead_lettered(&self) {
        self.dead_lettered.inc();
        self.now().window.dead_lettered += 1;
    }

    pub(crate) fn in_flight(&self, videos: usize) {
        self.in_flight.set(i64::try_from(videos).unwrap_or(i64::MAX));
    }

    /// Records a response of a queue to a receive, with or without messages.
    pub(crate) fn polled(&self, queue: QueueKind) {
        self.receiving(queue, Receiving::Polling(Instant::now()));
    }

    /// Records that receiving pauses for a temporary reason: all slots are taken, or ECS refuses launches.
    /// The reason is a clause, such as "all 10 slots are taken".
    pub(crate) fn paused(&self, queue: QueueKind, reason: &str) {
        self.receiving(queue, Receiving::Paused(one_line(reason)));
    }

    /// Records that receiving pauses because a setting or permission is wrong.
    pub(crate) fn misconfigured(&self, queue: QueueKind, reason: &str) {
        self.receiving(queue, Receiving::Misconfigured(one_line(reason)));
    }

    /// Records that receiving continues after a pause.
    pub(crate) fn resumed(&self, queue: QueueKind) {
        self.receiving(queue, Receiving::Polling(Instant::now()));
    }

    fn receiving(&self, queue: QueueKind, receiving: Receiving) {
        let mut now = self.now();
        now.receiving[queue as usize] = receiving;
        // Back-fills wait while uploads come first, which is no pause of the consumer.
        let [uploads, _] = &now.receiving;
        self.paused.set(matches!(uploads, Receiving::Paused(_)).into());
        let misconfigured = now.is_misconfigured();
        self.misconfigured.set(misconfigured.into());
        now.window.misconfigured |= misconfigured;
    }

    /// The health of the consumer, as a sentence.
    ///
    /// # Errors
    /// The consumer is unhealthy: a setting or permission is wrong, or a queue has not responded for two
    /// minutes. Holds a sentence with the reason.
    pub(crate) fn health(&self) -> Result<String, String> {
        let now = self.now();
        let [uploads, back_fill] = &now.receiving;
        for (queue, receiving) in [(QueueKind::Uploads, uploads), (QueueKind::BackFill, back_fill)] {
            match receiving {
                Receiving::Polling(answered) if answered.elapsed() >= NO_RESPONSE => {
                    let (queue, ago) = (queue.name(), answered.elapsed().as_secs());
                    return Err(format!(
                        "the {queue} queue has not responded for {ago} s: see the consumer's log for the reason"
                    ));
                }
                Receiving::Misconfigured(reason) => {
                    return Err(format!(
                        "a setting or permission is wrong, and nothing is received: {reason}"
                    ));
                }
                Receiving::Polling(_) | Receiving::Paused(_) => {}
            }
        }
        Ok(match uploads {
            Receiving::Polling(answered) => {
                let ago = answered.elapsed().as_secs();
                format!("{ago} s since the queue's last response, or the start")
            }
            Receiving::Paused(reason) | Receiving::Misconfigured(reason) => {
                format!("receiving pauses: {reason}")
            }
        })
    }

    /// All totals as OpenMetrics text for Prometheus.
    #[must_use]
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a `String` cannot fail, and this module's metrics can be encoded.
        let _ = encode(&mut text, &self.registry);
        text
    }

    /// Writes lines for CloudWatch: at the start, every minute, and when `ended`. Each line takes all values
    /// since the previous line and resets them, so only one writer may run.
    ///
    /// # Errors
    /// Writing to `out` failed.
    pub(crate) async fn write_lines(
        &self,
        mut out: impl io::Write,
        clock: impl Fn() -> Timestamp,
        ended: CancellationToken,
    ) -> io::Result<()> {
        let mut ticks = interval(LINE_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let is_last = tokio::select! {
                biased;
                () = ended.cancelled() => true,
                _ = ticks.tick() => false,
            };
            writeln!(out, "{}", self.line(clock()))?;
            out.flush()?;
            if is_last {
                return Ok(());
            }
        }
    }

    /// Takes the window since the previous line, and formats it.
    fn line(&self, at: Timestamp) -> String {
        let (window, gauges) = {
            let mut now = self.now();
            let at = Instant::now();
            let gauges = Gauges {
                in_flight: self.in_flight.get(),
                refused_for: now.refusing(at).map_or(Duration::ZERO, |refusing| at - refusing.since),
                misconfigured: now.is_misconfigured(),
            };
            (std::mem::take(&mut now.window), gauges)
        };
        emf::line(window, gauges, &self.cluster, at)
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Now {
    fn is_misconfigured(&self) -> bool {
        self.receiving.iter().any(|receiving| matches!(receiving, Receiving::Misconfigured(_)))
    }

    fn refusing(&self, at: Instant) -> Option<Refusing> {
        self.refusing.filter(|refusing| at - refusing.last < GIVEN_UP)
    }
}

fn one_line(text: &str) -> String {
    text.split(char::is_control).map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests;
