//! Receives messages within the limits on videos and launches, and follows each message to its settlement.
//!
//! Each of the two queues has a loop of its own. They share the limits, which give uploads precedence.

use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::{
    FutureExt as _, StreamExt as _,
    future::{join, join_all},
    stream::FuturesUnordered,
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::{Instrument as _, error, info, warn};
use vidstreamx_job::{Backoff, Job, jittered};

use super::{
    dead_letter::DeadLetter,
    decide::{self, Decision, DecisionSettings},
    message_span,
    notification::ObjectRef,
    settle,
    visibility::{HeldMessage, VISIBILITY, VisibilityKeeper},
};
use crate::{
    aws::{
        error::CallError,
        sqs::{Message, Queue, QueueKind, RESTART_ATTRIBUTE},
        sqs_send::BATCH,
    },
    metrics::Metrics,
    reconcile::{InFlight, JobOptions, PauseSwitch, Place, Reconciler, RestartRequest, SharedCauses},
    services::Services,
};

/// The settings of the loop.
#[derive(Debug, Clone)]
pub struct Options {
    /// The settings of decisions about uploads.
    pub decisions: DecisionSettings,
    /// The settings of jobs.
    pub jobs: JobOptions,
    /// Whether the loop ends when the queues are empty.
    pub drain: bool,
}

/// Duration of a poll: the maximum of SQS, so an idle queue costs few calls.
const LONG_POLL: Duration = Duration::from_secs(20);
/// Duration of a poll when draining. It is short, so the program ends soon after the queue is empty. It is
/// not 0, because only a poll that waits queries all servers of SQS.
const DRAIN_POLL: Duration = Duration::from_secs(2);
/// Number of consecutive empty polls that end the draining, because SQS updates the queue's counts late.
const EMPTY_POLLS: u32 = 2;
/// Pauses after failed receives.
const BACKOFF: Backoff = Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(30) };
/// Pause after a failed receive if an operator must act.
const CONFIGURATION_PAUSE: Duration = Duration::from_mins(1);
/// Messages per second that sequential receives get from a full queue. A call takes 50 to 100 ms.
const RECEIVED_PER_SECOND: usize = 100;
/// Maximum number of concurrent receives.
const CONCURRENT_RECEIVES: usize = 8;
/// Duration of a poll of a full queue. It is short, because the queue may have become empty.
const FULL_POLL: Duration = Duration::from_secs(1);
/// Time at shutdown for calls that have begun.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);
/// Margin after the end of an open poll, for the latency of its request.
const POLL_MARGIN: Duration = Duration::from_secs(1);

/// Runs until `shutdown`, or, when draining, until the queues are empty. At shutdown, running tasks continue
/// and their messages become visible for the next consumer.
pub async fn run(services: Services, options: Options, shutdown: CancellationToken) {
    let causes = Arc::new(SharedCauses::new(services.metrics.clone()));
    let pause = Arc::new(PauseSwitch::new());
    let in_flight = InFlight::new(options.jobs.max_tasks, services.metrics.clone());
    let reconciler = Arc::new(Reconciler::new(
        services.clone(),
        options.jobs.clone(),
        causes.clone(),
        pause.clone(),
        &in_flight,
        shutdown.clone(),
    ));
    let reading_pause = AbortOnDropHandle::new(tokio::spawn({
        let (pause, records) = (pause.clone(), services.records.clone());
        async move { pause.run(&*records).await }
    }));
    let watching = AbortOnDropHandle::new(tokio::spawn({
        let reconciler = reconciler.clone();
        async move { reconciler.watch_tasks().await }
    }));
    let options = Arc::new(options);
    let drained = Arc::new(Drained::default());
    let receive_loop = |kind, queue: &Arc<dyn Queue>| ReceiveLoop {
        kind,
        queue: queue.clone(),
        services: services.clone(),
        visibility: Arc::new(VisibilityKeeper::new(queue.clone())),
        causes: causes.clone(),
        pause: pause.clone(),
        reconciler: reconciler.clone(),
        options: options.clone(),
        in_flight: in_flight.clone(),
        drained: drained.clone(),
        poll_ends: None,
        messages: JoinSet::new(),
    };
    let mut uploads = receive_loop(QueueKind::Uploads, &services.upload_queue);
    let mut back_fill = receive_loop(QueueKind::BackFill, &services.back_fill_queue);
    let keeping_invisible = AbortOnDropHandle::new(tokio::spawn({
        let (uploads, back_fill) = (uploads.visibility.clone(), back_fill.visibility.clone());
        async move { tokio::join!(uploads.run(), back_fill.run()) }
    }));

    tokio::select! {
        () = shutdown.cancelled() => info!("shutting down: running tasks continue without this consumer"),
        _ = join(uploads.receive_all(), back_fill.receive_all()) => info!("the queues are empty"),
    }

    let begun = join(uploads.until_messages_end(), back_fill.until_messages_end());
    if timeout(SHUTDOWN_GRACE, begun).await.is_err() {
        warn!("calls to AWS took too long at shutdown and were aborted");
        join(uploads.messages.shutdown(), back_fill.messages.shutdown()).await;
    }
    drop((watching, keeping_invisible, reading_pause));
    let returned = join(uploads.return_messages(), back_fill.return_messages());
    match timeout(SHUTDOWN_GRACE, returned.map(|(uploads, back_fill)| uploads + back_fill)).await {
        Ok(0) => {}
        Ok(messages) => info!(messages, "messages returned to the queue for the next consumer"),
        Err(_) => warn!(
            visible_in_seconds = VISIBILITY.as_secs(),
            "not all messages were returned to the queue; they become visible after their timeout"
        ),
    }
}

/// Which queues are drained. The loops end together, so that none stops while the other one works.
#[derive(Default)]
struct Drained([AtomicBool; QueueKind::COUNT]);

impl Drained {
    /// Notes whether this queue is drained. Returns true if all are.
    fn note(&self, queue: QueueKind, is_drained: bool) -> bool {
        self.0[queue as usize].store(is_drained, Ordering::Relaxed);
        self.0.iter().all(|queue| queue.load(Ordering::Relaxed))
    }
}

struct ReceiveLoop {
    kind: QueueKind,
    queue: Arc<dyn Queue>,
    services: Services,
    visibility: Arc<VisibilityKeeper>,
    causes: Arc<SharedCauses>,
    pause: Arc<PauseSwitch>,
    reconciler: Arc<Reconciler>,
    options: Arc<Options>,
    in_flight: InFlight,
    drained: Arc<Drained>,
    /// End of the open poll, if any. SQS continues a poll after its client has disconnected.
    poll_ends: Option<Instant>,
    /// The tasks that follow messages.
    messages: JoinSet<()>,
}

impl ReceiveLoop {
    /// Receives messages and follows them in the background. Ends only when draining. Can be cancelled at any
    /// await point.
    async fn receive_all(&mut self) {
        let poll = if self.options.drain { DRAIN_POLL } else { LONG_POLL };
        let mut failures = 0;
        let mut empty_polls = 0;
        // While a queue returns full batches, several short polls run concurrently.
        let mut is_full = false;
        loop {
            self.until_running().await;
            self.causes.until_receiving(self.kind).await;
            let free = self.in_flight.free(self.kind).await;
            let free = if self.causes.begin_receive(self.kind) { 1 } else { free };
            let calls = if is_full { self.concurrent_receives().min(free.div_ceil(BATCH)) } else { 1 };
            let (received, failed) = self.receive(free, calls, if is_full { FULL_POLL } else { poll }).await;
            is_full = received > 0 && received >= (calls * BATCH).min(free);
            if self.kind == QueueKind::Uploads {
                self.in_flight.upload_queue_is_empty(!is_full);
            }
            if let Some(error) = failed {
                failures += 1;
                let pause = if error.is_configuration() {
                    self.services.metrics.misconfigured(self.kind, &error.to_string());
                    let retry_seconds = CONFIGURATION_PAUSE.as_secs();
                    error!(%error, retry_seconds, queue = self.kind.name(), "messages cannot be received");
                    jittered(CONFIGURATION_PAUSE)
                } else {
                    let pause = BACKOFF.pause(failures);
                    let retry_seconds = pause.as_secs_f64();
                    warn!(%error, retry_seconds, queue = self.kind.name(), "messages were not received");
                    pause
                };
                sleep(pause).await;
                continue;
            }
            failures = 0;
            if received == 0 && self.options.drain && self.is_drained().await {
                empty_polls += 1;
            } else {
                empty_polls = 0;
            }
            if self.drained.note(self.kind, empty_polls >= EMPTY_POLLS) {
                return;
            }
        }
    }

    /// Waits while an operator pauses the stack.
    async fn until_running(&self) {
        if let Some(reason) = self.pause.reason() {
            self.services.metrics.paused(self.kind, &reason);
            self.pause.until_running().await;
            self.services.metrics.resumed(self.kind);
        }
    }

    /// Receives at most `free` messages with concurrent calls, and accepts them. Returns their number and the
    /// last error.
    async fn receive(&mut self, free: usize, calls: usize, poll: Duration) -> (usize, Option<CallError>) {
        let mut received = 0;
        let mut failed = None;
        let queue = self.queue.clone();
        let receive = |call| queue.receive(share(free, call), poll, VISIBILITY);
        let mut polls: FuturesUnordered<_> = (0..calls).map(receive).collect();
        self.poll_ends = Some(Instant::now() + poll);
        loop {
            tokio::select! {
                biased;
                answer = polls.next() => match answer {
                    None => break,
                    Some(Ok(messages)) => {
                        self.services.metrics.polled(self.kind);
                        received += messages.len();
                        messages.into_iter().for_each(|message| self.accept(message));
                    }
                    Some(Err(error)) => failed = Some(error),
                },
                Some(_) = self.messages.join_next() => {}
            }
        }
        self.poll_ends = None;
        (received, failed)
    }

    /// The number of concurrent receives for the launch rate. With more, this consumer would hold messages
    /// whose videos other consumers could launch sooner.
    fn concurrent_receives(&self) -> usize {
        let rate = usize::try_from(self.options.jobs.launches_per_second).unwrap_or(usize::MAX);
        rate.div_ceil(RECEIVED_PER_SECOND).min(CONCURRENT_RECEIVES)
    }

    /// Waits until the processing of all messages has ended.
    async fn until_messages_end(&mut self) {
        while self.messages.join_next().await.is_some() {}
    }

    /// Makes all messages visible for the next consumer, but not before this consumer's open poll has ended.
    /// SQS would deliver them to that poll, whose client is gone.
    async fn return_messages(&self) -> usize {
        let left = self.poll_ends.map(|end| end.saturating_duration_since(Instant::now()));
        self.visibility.return_all(left.map_or(Duration::ZERO, |left| left + POLL_MARGIN)).await
    }

    /// Whether all videos have ended: no message is in work here, and the queue has none, not even one that
    /// another consumer holds.
    async fn is_drained(&self) -> bool {
        if !self.messages.is_empty() {
            return false;
        }
        match self.queue.backlog().await {
            Ok(backlog) => backlog.is_empty(),
            Err(error) => {
                warn!(%error, queue = self.kind.name(), "the queue's backlog is unknown");
                false
            }
        }
    }

    /// Holds a message and follows its jobs in the background.
    fn accept(&mut self, message: Message) {
        let held = self.visibility.hold(&message);
        // Back-fills wait on purpose.
        if message.receive_count <= 1
            && self.kind == QueueKind::Uploads
            && let Some(sent_at) = message.sent_at
        {
            let age = (self.services.clock)().duration_since(sent_at);
            // SQS's clock can be ahead of this machine's clock.
            let age = if age.is_negative() { Duration::ZERO } else { age.unsigned_abs() };
            self.services.metrics.received(age);
        }
        let (jobs, letters) = message_span(&message.id).in_scope(|| self.jobs_of(&message));
        // The body is no longer needed and can be long, so its memory is freed.
        let message = Message { body: String::new(), ..message };
        let id = message.id.clone();
        let follow = follow(
            (self.kind, self.queue.clone()),
            self.services.metrics.clone(),
            self.reconciler.clone(),
            message,
            held,
            jobs,
            letters,
        );
        self.messages.spawn(AssertUnwindSafe(follow).catch_unwind().map(move |end| {
            if let Err(panic) = end {
                let text = panic.downcast_ref::<&str>().copied();
                let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
                // The message is no longer held, so it is received again.
                message_span(&id)
                    .in_scope(|| error!(panic = text, "a bug: the processing of a message panicked"));
            }
        }));
    }

    /// The jobs of a message, and the dead letters about its records without a job.
    fn jobs_of(&self, message: &Message) -> (Vec<(Job, Place)>, Vec<DeadLetter>) {
        let mut jobs = Vec::new();
        let mut letters = Vec::new();
        for decision in decide::decide(&message.body, &self.options.decisions) {
            match decision {
                Decision::Run(job) => jobs.push((job, self.in_flight.enter(self.kind))),
                Decision::Ignore { reason, object_ref: ObjectRef { bucket, key } } => {
                    info!(s3.bucket = bucket, s3.key = key, reason, "event ignored");
                }
                Decision::DeadLetter { reason, object_ref: ObjectRef { bucket, key }, body } => {
                    warn!(s3.bucket = bucket, s3.key = key, reason, "event rejected");
                    letters.push(DeadLetter { body, reason, job: None });
                }
            }
        }
        jobs.shrink_to_fit();
        (jobs, letters)
    }
}

/// The maximum number of messages for the n-th concurrent receive, so that all receives together return at
/// most `free` messages.
const fn share(free: usize, call: usize) -> usize {
    let left = free.saturating_sub(call * BATCH);
    if left < BATCH { left } else { BATCH }
}

/// Follows all jobs of a message to their end, then settles the message.
async fn follow(
    (kind, queue): (QueueKind, Arc<dyn Queue>),
    metrics: Arc<Metrics>,
    reconciler: Arc<Reconciler>,
    message: Message,
    held: HeldMessage,
    jobs: Vec<(Job, Place)>,
    letters: Vec<DeadLetter>,
) {
    let received = Instant::now();
    let restart = message_span(&message.id).in_scope(|| restart_request(&message));
    let ends = jobs
        .into_iter()
        .map(async |(job, place)| reconciler.follow(&job, restart.as_ref(), received, place).await);
    let settlement = settle::settlement(letters, join_all(ends).await);
    let letters = Box::pin(
        settle::settle((kind, &*queue), &message.receipt, held, settlement)
            .instrument(message_span(&message.id)),
    )
    .await;
    (0..letters).for_each(|_| metrics.dead_lettered());
}

/// The restart request of a message. A request that does not parse is ignored.
fn restart_request(message: &Message) -> Option<RestartRequest> {
    let request = message.restart.as_deref()?.parse();
    let ignored = |error: &_| warn!(%error, "the attribute {RESTART_ATTRIBUTE} is ignored");
    request.inspect_err(ignored).ok()
}
