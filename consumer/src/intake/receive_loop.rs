//! The loop: receives what can be launched, follows every message to its settlement.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{StreamExt as _, future::join_all, stream::FuturesUnordered};
use tokio::{
    sync::{Semaphore, watch},
    task::{JoinError, JoinSet},
    time::{Instant, sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::{error, info, warn};
use vidstreamx_job::Job;

use crate::{
    aws::ecs::Tasks,
    aws::error::CallError,
    aws::record_store::RecordStore,
    aws::sqs::{BATCH, Message, Queue, RESTART_ATTRIBUTE},
    aws::task_definition::TaskDefaults,
    clock::Clock,
    config::Settings,
    inspect::Uploads,
    intake::dead_letter::DeadLetter,
    intake::decide::{self, Decision, Rules},
    intake::notification::ObjectRef,
    intake::settle,
    intake::visibility::{HeldMessage, VISIBILITY, VisibilityKeeper},
    metrics::Metrics,
    reconcile::launch_throttle::LaunchThrottle,
    reconcile::reconciler::Reconciler,
    reconcile::restart::RestartRequest,
    reconcile::task_outcome::Policy,
    reconcile::task_watcher::Watcher,
    sizing::Sizing,
};

/// The services and the clock that the consumer works with.
#[derive(Clone)]
pub struct Services {
    /// Where messages come from.
    pub queue: Arc<dyn Queue>,
    /// Where tasks run.
    pub tasks: Arc<dyn Tasks>,
    /// Where records are.
    pub records: Arc<dyn RecordStore>,
    /// Where uploads are.
    pub uploads: Arc<dyn Uploads>,
    /// The time, for records.
    pub clock: Clock,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

/// What the loop needs of the settings.
#[derive(Debug, Clone)]
pub struct Options {
    /// Which uploads become which jobs.
    pub rules: Rules,
    /// How often to try, and on what.
    pub policy: Policy,
    /// The container that is given the job.
    pub container: String,
    /// Most videos in flight.
    pub max_tasks: usize,
    /// Most launches per second.
    pub launches_per_second: u32,
    /// Which task a video gets, and what that costs.
    pub sizing: Sizing,
    /// What the task definition says.
    pub defaults: TaskDefaults,
    /// Whether to end when the queue is empty.
    pub drain: bool,
}

impl Options {
    /// The loop's part of the settings.
    #[must_use]
    pub fn new(settings: &Settings, defaults: TaskDefaults, drain: bool) -> Self {
        Self {
            rules: Rules {
                upload: settings.upload_bucket.clone(),
                output: settings.output_bucket.clone(),
                profile: settings.profile.clone(),
            },
            policy: Policy { max_attempts: settings.max_attempts.get(), capacity: settings.capacity },
            container: settings.container.clone(),
            max_tasks: usize::try_from(settings.max_tasks.get()).unwrap_or(Semaphore::MAX_PERMITS),
            launches_per_second: settings.launches_per_second.get(),
            sizing: settings.sizing.clone().unwrap_or_default(),
            defaults,
            drain,
        }
    }
}

/// SQS's longest poll: the fewest calls for an idle queue.
const LONG_POLL: Duration = Duration::from_secs(20);
/// While draining, an empty queue shall be noticed soon. Any wait makes SQS ask all its servers.
const DRAIN_POLL: Duration = Duration::from_secs(2);
/// The counts of a queue lag behind; a queue that looks empty twice in a row, after empty polls, is.
const EMPTY_LOOKS: u32 = 2;
/// First and longest pause after a failed receive, and the pause where only a person can help.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
const RETRY_CONFIGURATION: Duration = Duration::from_mins(1);
/// Messages that one receive after the other brings from a full queue, at some 50 to 100 ms each.
const RECEIVED_PER_SECOND: usize = 100;
/// Most receives at a time, and how long each waits in case the queue has just become empty.
const RECEIVES: usize = 8;
const FULL_POLL: Duration = Duration::from_secs(1);
/// How long calls that have begun may take at shutdown, before it goes on without them.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(5);

/// Videos that are looked into or settled at once, and that are launched at once: five calls of some 50 ms in
/// all, for hundreds of videos a second, also when ten thousand tasks end together.
const AT_WORK: usize = 128;

/// Added to the time that an open poll has left, for its way to SQS.
const POLL_MARGIN: Duration = Duration::from_secs(1);

/// Runs until `shutdown`, or until the queue is empty when draining. Running tasks are left alone; their
/// messages are made visible for the next consumer.
pub async fn run(services: Services, options: Options, shutdown: CancellationToken) {
    let Services { queue, tasks, records, uploads, clock, metrics } = services;
    let lease = Arc::new(VisibilityKeeper::new(queue.clone()));
    let reconciler = Arc::new(Reconciler {
        tasks: tasks.clone(),
        records,
        uploads,
        clock,
        gate: LaunchThrottle::new(options.launches_per_second, metrics.clone()),
        watcher: Watcher::new(tasks, options.launches_per_second),
        at_work: Semaphore::new(AT_WORK),
        launching: Semaphore::new(AT_WORK),
        sizing: options.sizing.clone(),
        defaults: options.defaults,
        slots: Semaphore::new(options.max_tasks.min(Semaphore::MAX_PERMITS)),
        policy: options.policy,
        container: options.container.clone(),
        metrics,
        shutdown: shutdown.clone(),
        followed: Mutex::default(),
    });
    let watching = AbortOnDropHandle::new(tokio::spawn({
        let reconciler = reconciler.clone();
        async move { reconciler.watcher.run().await }
    }));
    let holding = AbortOnDropHandle::new(tokio::spawn({
        let lease = lease.clone();
        async move { lease.run().await }
    }));
    let (in_flight, _) = watch::channel(0);
    let mut receive_loop = ReceiveLoop {
        queue,
        lease,
        reconciler,
        options,
        in_flight,
        poll_ends: None,
        messages: JoinSet::new(),
    };

    tokio::select! {
        () = shutdown.cancelled() => info!("shutting down: running tasks go on without this consumer"),
        () = receive_loop.receive_all() => info!("the queue is empty"),
    }

    let begun = async { while receive_loop.messages.join_next().await.is_some() {} };
    if timeout(SHUTDOWN_PATIENCE, begun).await.is_err() {
        warn!("calls to AWS that had begun are not waited for any longer");
        receive_loop.messages.shutdown().await;
    }
    drop((watching, holding));
    match timeout(SHUTDOWN_PATIENCE, receive_loop.give_back()).await {
        Ok(0) => {}
        Ok(messages) => info!(messages, "messages were given back for the next consumer"),
        Err(_) => warn!(
            visible_in_seconds = VISIBILITY.as_secs(),
            "not every message was given back: those become visible by themselves"
        ),
    }
}

struct ReceiveLoop {
    queue: Arc<dyn Queue>,
    lease: Arc<VisibilityKeeper>,
    reconciler: Arc<Reconciler>,
    options: Options,
    /// Videos of messages that are held, waiting for a slot or in work, and not at their end yet.
    in_flight: watch::Sender<usize>,
    /// When the open poll runs out, if there is one. SQS goes on with it when its caller is gone.
    poll_ends: Option<Instant>,
    messages: JoinSet<()>,
}

impl ReceiveLoop {
    /// Ends only when draining. May be dropped at any of its waits.
    async fn receive_all(&mut self) {
        let wait = if self.options.drain { DRAIN_POLL } else { LONG_POLL };
        let mut pause = RETRY.0;
        let mut empty_looks = 0;
        // A queue that gives full batches is asked by several calls at a time, for a moment each.
        let mut is_full = false;
        loop {
            let free = self.free().await;
            self.reconciler.gate.may_receive().await;
            let free = if self.reconciler.gate.is_refusing() { 1 } else { free };
            let calls = if is_full { self.receives().min(free.div_ceil(BATCH)) } else { 1 };
            let wait = if is_full { FULL_POLL } else { wait };
            let mut received = 0;
            let mut failed = None;
            let mut polls: FuturesUnordered<_> =
                (0..calls).map(|call| receive(self.queue.clone(), share(free, call), wait)).collect();
            self.poll_ends = Some(Instant::now() + wait);
            loop {
                tokio::select! {
                    biased;
                    answer = polls.next() => match answer {
                        None => break,
                        Some(Ok(messages)) => {
                            self.reconciler.metrics.polled();
                            received += messages.len();
                            messages.into_iter().for_each(|message| self.accept(message));
                        }
                        Some(Err(error)) => failed = Some(error),
                    },
                    Some(ended) = self.messages.join_next() => log_panic(ended),
                }
            }
            self.poll_ends = None;
            is_full = received > 0 && received >= (calls * BATCH).min(free);
            match failed {
                None => {
                    pause = RETRY.0;
                    if received == 0 && self.options.drain && self.is_drained().await {
                        empty_looks += 1;
                        if empty_looks == EMPTY_LOOKS {
                            return;
                        }
                    } else {
                        empty_looks = 0;
                    }
                }
                Some(error) => {
                    if error.is_configuration() {
                        pause = RETRY_CONFIGURATION;
                        self.reconciler.metrics.misconfigured(&error.to_string());
                        error!(%error, retry_seconds = pause.as_secs(), "nothing can be received");
                    } else {
                        warn!(%error, retry_seconds = pause.as_secs(), "nothing was received");
                    }
                    sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
                    pause = (pause * 2).min(RETRY.1);
                }
            }
        }
    }

    /// How many receives at a time keep up with the launch rate. What can't be launched soon is better left
    /// to other consumers.
    fn receives(&self) -> usize {
        let rate = usize::try_from(self.options.launches_per_second).unwrap_or(usize::MAX);
        rate.div_ceil(RECEIVED_PER_SECOND).min(RECEIVES)
    }

    /// Makes all messages visible for the next consumer: at once, or when an open poll has run out, which
    /// would otherwise get them and hand them to nobody.
    async fn give_back(&self) -> usize {
        let left = self.poll_ends.map(|end| end.saturating_duration_since(Instant::now()));
        self.lease.give_back(left.map_or(Duration::ZERO, |left| left + POLL_MARGIN)).await
    }

    /// How many more videos may be in flight; waits until it is at least one.
    async fn free(&self) -> usize {
        let most = self.options.max_tasks;
        let mut in_flight = self.in_flight.subscribe();
        let below = |videos: &usize| *videos < most;
        let full = !below(&in_flight.borrow());
        if full {
            self.reconciler.metrics.paused(&format!("{most} videos are in flight, which is the limit"));
        }
        // Never an error, as the sender lives as long as `self`.
        let free = in_flight.wait_for(below).await.map_or(1, |videos| most - *videos);
        if full {
            self.reconciler.metrics.resumed();
        }
        free
    }

    /// Whether nothing is left: neither here nor in the queue, where messages that other consumers hold
    /// and messages on their way to the dead-letter queue count as well. Ending then means that all that
    /// was in the queue has come to its end.
    async fn is_drained(&self) -> bool {
        if !self.messages.is_empty() {
            return false;
        }
        match self.queue.backlog().await {
            Ok(backlog) => backlog.is_empty(),
            Err(error) => {
                warn!(%error, "whether the queue is empty is not known");
                false
            }
        }
    }

    /// Holds a message and follows it in the background.
    fn accept(&mut self, message: Message) {
        let held = self.lease.hold(message.receipt.clone());
        if message.receive_count <= 1
            && let Some(sent_at) = message.sent_at
        {
            let age = (self.reconciler.clock)().duration_since(sent_at);
            // By two clocks, of which SQS's may be ahead.
            let age = if age.is_negative() { Duration::ZERO } else { age.unsigned_abs() };
            self.reconciler.metrics.received(age);
        }
        let decisions = decide::decide(&message.body, &self.options.rules);
        let mut letters = Vec::new();
        let mut jobs = Vec::new();
        for decision in decisions {
            match decision {
                Decision::Run(job) => jobs.push(job),
                Decision::Ignore { reason, object_ref } => {
                    let ObjectRef { bucket, key } = object_ref;
                    info!(message.id, s3.bucket = bucket, s3.key = key, reason, "event ignored");
                }
                Decision::SetAside { reason, object_ref, body } => {
                    let ObjectRef { bucket, key } = object_ref;
                    warn!(message.id, s3.bucket = bucket, s3.key = key, reason, "event set aside");
                    letters.push(DeadLetter { body, reason, job: None });
                }
            }
        }
        let counted = jobs.iter().map(|_| InFlight::new(&self.in_flight, &self.reconciler.metrics)).collect();
        jobs.shrink_to_fit();
        // The text is not needed any longer, and may be long.
        let message = Message { body: String::new(), ..message };
        self.messages.spawn(follow(
            self.queue.clone(),
            self.reconciler.clone(),
            message,
            held,
            jobs,
            letters,
            counted,
        ));
    }
}

/// One receive.
async fn receive(queue: Arc<dyn Queue>, most: usize, wait: Duration) -> Result<Vec<Message>, CallError> {
    queue.receive(most, wait, VISIBILITY).await
}

/// How many messages the n-th of several receives may bring, so that together they bring at most `free`.
const fn share(free: usize, call: usize) -> usize {
    let left = free.saturating_sub(call * BATCH);
    if left < BATCH { left } else { BATCH }
}

fn log_panic(ended: Result<(), JoinError>) {
    if let Err(panic) = ended {
        // Its message is no longer held, becomes visible, and is tried again.
        error!(%panic, "following a message failed: this is a bug");
    }
}

async fn follow(
    queue: Arc<dyn Queue>,
    reconciler: Arc<Reconciler>,
    message: Message,
    held: HeldMessage,
    jobs: Vec<Job>,
    letters: Vec<DeadLetter>,
    counted: Vec<InFlight>,
) {
    let received = Instant::now();
    let restart = restart_request(&message);
    let followed = jobs.iter().zip(counted).map(async |(job, counted)| {
        let end = reconciler.follow(job, restart.as_ref(), received).await;
        drop(counted);
        end
    });
    let settlement = settle::settlement(letters, join_all(followed).await);
    let letters = Box::pin(settle::settle(&*queue, &message, held, settlement)).await;
    (0..letters).for_each(|_| reconciler.metrics.dead_lettered());
}

/// The restart request of a message. One that does not parse is ignored.
fn restart_request(message: &Message) -> Option<RestartRequest> {
    let request = message.restart.as_deref()?.parse();
    request
        .inspect_err(
            |error| warn!(message.id, %error, "the message's attribute {RESTART_ATTRIBUTE} is ignored"),
        )
        .ok()
}

/// Counts a video as in flight for as long as it lives.
struct InFlight {
    count: watch::Sender<usize>,
    metrics: Arc<Metrics>,
}

impl InFlight {
    fn new(count: &watch::Sender<usize>, metrics: &Arc<Metrics>) -> Self {
        let counted = Self { count: count.clone(), metrics: metrics.clone() };
        counted.change(|count| count + 1);
        counted
    }

    fn change(&self, change: impl FnOnce(usize) -> usize) {
        self.count.send_modify(|count| {
            *count = change(*count);
            self.metrics.in_flight(*count);
        });
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.change(|count| count - 1);
    }
}
