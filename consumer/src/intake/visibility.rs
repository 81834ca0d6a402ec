//! Keeps messages invisible to other consumers while their videos are in progress.
//!
//! A background loop extends all visibility timeouts, ten per call, well before they end. SQS limits a
//! delivery to twelve hours. After that it refuses to extend the timeout and delivers the message again. The
//! consumer that receives it finds the running task by the job's record.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{StreamExt, stream};
use tokio::time::{MissedTickBehavior, interval};
use tracing::{debug, error, warn};

use super::message_span;
use crate::aws::{
    sqs::{Message, Queue, Receipt},
    sqs_send::BATCH,
};

/// Visibility timeout after each extension. Another consumer takes over this long after this consumer has
/// crashed.
pub(super) const VISIBILITY: Duration = Duration::from_secs(90);
/// Interval of extensions. Two consecutive extensions can fail before a message becomes visible.
const EXTEND_EVERY: Duration = Duration::from_secs(25);
/// Number of concurrent calls: enough to extend 10,000 messages within seconds.
const CONCURRENT_CALLS: usize = 8;
/// Number of concurrent calls at shutdown, which must return all messages within a few seconds.
const CONCURRENT_RETURNS: usize = 64;

/// Keeps the messages of this consumer invisible.
pub(super) struct VisibilityKeeper {
    queue: Arc<dyn Queue>,
    /// The held deliveries, with the ids of their messages.
    held: Mutex<BTreeMap<Receipt, Arc<str>>>,
}

impl VisibilityKeeper {
    /// A keeper without messages. Run [`Self::run`] in the background.
    pub(super) fn new(queue: Arc<dyn Queue>) -> Self {
        Self { queue, held: Mutex::default() }
    }

    /// Keeps a received message invisible until the returned value is dropped.
    pub(super) fn hold(self: &Arc<Self>, message: &Message) -> HeldMessage {
        self.held().insert(message.receipt.clone(), message.id.clone());
        HeldMessage { keeper: self.clone(), receipt: message.receipt.clone(), keep: false }
    }

    /// Extends all held messages while it is polled.
    pub(super) async fn run(&self) {
        let mut ticks = interval(EXTEND_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.tick().await;
        loop {
            ticks.tick().await;
            self.set_all(VISIBILITY, CONCURRENT_CALLS).await;
        }
    }

    /// Returns all held messages to the queue, where they become visible after `wait`. Returns their number.
    /// Their jobs need not have ended, because the records keep two consumers from taking the same step.
    pub(super) async fn return_all(&self, wait: Duration) -> usize {
        self.set_all(wait, CONCURRENT_RETURNS).await;
        std::mem::take(&mut *self.held()).len()
    }

    async fn set_all(&self, visibility: Duration, concurrent_calls: usize) {
        let receipts: Vec<_> = self.held().keys().cloned().collect();
        stream::iter(receipts.chunks(BATCH))
            .for_each_concurrent(concurrent_calls, |batch| self.set(batch, visibility))
            .await;
    }

    async fn set(&self, batch: &[Receipt], visibility: Duration) {
        match self.queue.set_visibility(batch, visibility).await {
            Ok(refused) => {
                for refused in refused {
                    // The message may have been settled during the call.
                    let Some(id) = self.held().get(&refused.receipt).cloned() else { continue };
                    let _span = message_span(&id).entered();
                    let reason = refused.reason;
                    if refused.for_good {
                        self.held().remove(&refused.receipt);
                        warn!(reason, "a message cannot be held any longer and will be received again");
                    } else {
                        debug!(reason, "a message was not extended this time");
                    }
                }
            }
            Err(error) if error.is_configuration() => {
                error!(%error, messages = batch.len(), "messages cannot be held and will be received again");
            }
            Err(error) => warn!(%error, messages = batch.len(), "messages were not extended this time"),
        }
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<Receipt, Arc<str>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A held message. After this value is dropped, the message becomes visible at the end of its timeout.
#[must_use]
pub(super) struct HeldMessage {
    keeper: Arc<VisibilityKeeper>,
    receipt: Receipt,
    keep: bool,
}

impl HeldMessage {
    /// Whether the message is still held. If not, it will be received again, and that delivery settles it.
    pub(super) fn is_held(&self) -> bool {
        self.keeper.held().contains_key(&self.receipt)
    }

    /// Holds the message until [`VisibilityKeeper::return_all`].
    pub(super) fn until_returned(mut self) {
        self.keep = true;
    }
}

impl Drop for HeldMessage {
    fn drop(&mut self) {
        if !self.keep {
            self.keeper.held().remove(&self.receipt);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, sleep};

    use super::*;
    use crate::{
        aws::error::CallFuture,
        aws::sqs::{Backlog, RefusedEntry},
        aws::sqs_send::OutgoingMessage,
        fixtures::Log,
    };

    /// Records every batch. Permanently refuses receipts that begin with "over".
    #[derive(Default)]
    struct RecordingQueue(Mutex<Vec<(Vec<Receipt>, Duration)>>);

    impl Queue for RecordingQueue {
        fn receive(&self, _: usize, _: Duration, _: Duration) -> CallFuture<'_, Vec<Message>> {
            unimplemented!()
        }
        fn delete<'a>(&'a self, _: &'a Receipt) -> CallFuture<'a, ()> {
            unimplemented!()
        }
        fn send_dead_letter<'a>(&'a self, _: &'a OutgoingMessage) -> CallFuture<'a, ()> {
            unimplemented!()
        }
        fn set_visibility<'a>(
            &'a self,
            receipts: &'a [Receipt],
            visibility: Duration,
        ) -> CallFuture<'a, Vec<RefusedEntry>> {
            self.0.lock().unwrap().push((receipts.to_vec(), visibility));
            let over = receipts.iter().filter(|receipt| receipt.0.starts_with("over"));
            let refused = over
                .map(|receipt| RefusedEntry {
                    receipt: receipt.clone(),
                    reason: "12 hours".into(),
                    for_good: true,
                })
                .collect();
            Box::pin(async { Ok(refused) })
        }
        fn backlog(&self) -> CallFuture<'_, Backlog> {
            unimplemented!()
        }
    }

    fn message(receipt: &str) -> Message {
        Message {
            id: format!("message {receipt}").into(),
            receipt: Receipt(receipt.into()),
            receive_count: 1,
            sent_at: None,
            restart: None,
            body: String::new(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn messages_are_extended_in_batches_and_refused_ones_are_dropped() {
        let queue = Arc::new(RecordingQueue::default());
        let keeper = Arc::new(VisibilityKeeper::new(queue.clone()));
        let held: Vec<_> = (0..25).map(|n| keeper.hold(&message(&format!("{n:02}")))).collect();
        let lost = keeper.hold(&message("over"));
        let (log, _logging) = Log::start();
        let start = Instant::now();
        let running = tokio::spawn({
            let keeper = keeper.clone();
            async move { keeper.run().await }
        });
        sleep(EXTEND_EVERY + Duration::from_secs(1)).await;
        let calls = std::mem::take(&mut *queue.0.lock().unwrap());
        assert_eq!(calls.iter().map(|(batch, _)| batch.len()).collect::<Vec<_>>(), [10, 10, 6]);
        assert!(calls.iter().all(|(_, visibility)| *visibility == VISIBILITY));
        assert!(start.elapsed() * 3 < VISIBILITY);
        let lost_lines = log.lines("a message cannot be held any longer and will be received again");
        let ids: Vec<_> = lost_lines.iter().map(|line| &line["span"]["message.id"]).collect();
        assert_eq!(ids, ["message over"]);

        drop(held);
        keeper.hold(&message("kept")).until_returned();
        sleep(EXTEND_EVERY).await;
        running.abort();
        assert_eq!(keeper.return_all(Duration::ZERO).await, 1);
        let kept = vec![Receipt("kept".into())];
        assert_eq!(*queue.0.lock().unwrap(), [(kept.clone(), VISIBILITY), (kept, Duration::ZERO)]);
        drop(lost);
    }
}
