//! The queues of uploads and of back-fills, and their dead-letter queue. Methods without a kind are about
//! uploads, or about both.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::{Instant, sleep_until};
use vidstreamx_consumer::aws::{
    sqs::{Backlog, Message, QueueKind, RESTART_ATTRIBUTE, Receipt, RefusedEntry},
    sqs_send::OutgoingMessage,
};

use super::{FakeAws, epoch};

/// Number of receives after which SQS moves a message to the dead-letter queue, as in the template.
const MAX_RECEIVES: u32 = 100;
/// SQS's limit on how long one delivery can be held.
const LONGEST_HOLD: Duration = Duration::from_hours(12);

#[derive(Default)]
pub(super) struct State {
    messages: BTreeMap<u64, Queued>,
    /// Bodies that SQS itself moved, after too many receives.
    moved_by_sqs: Vec<String>,
    next: u64,
    most_receives: u32,
    receives: usize,
}

struct Queued {
    body: String,
    restart: Option<String>,
    sent_at: Instant,
    /// Time of the last receive.
    received_at: Instant,
    visible_at: Instant,
    receives: u32,
    receipt: u64,
}

impl FakeAws {
    pub(crate) fn send(&self, body: String) {
        self.send_with_restart(body, None);
    }

    pub(crate) fn send_with_restart(&self, body: String, restart: Option<String>) {
        self.send_to(QueueKind::Uploads, body, restart);
    }

    pub(crate) fn send_to(&self, kind: QueueKind, body: String, restart: Option<String>) {
        let queue = &mut self.state().queues[kind as usize];
        let id = queue.next;
        queue.next += 1;
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
        queue.messages.insert(id, queued);
        self.changed.notify_waiters();
    }

    /// Deletes all messages.
    pub(crate) fn purge(&self) {
        self.state().queues.iter_mut().for_each(|queue| queue.messages.clear());
    }

    /// Moves all dead letters back, as SQS does it: with body and attributes.
    pub(crate) fn redrive(&self) {
        let letters = std::mem::take(&mut self.state().letters);
        for letter in letters {
            let restart = letter.attribute(RESTART_ATTRIBUTE).map(str::to_owned);
            let is_back_fill = letter.attribute("vidstreamx-queue") == Some("back-fill");
            let kind = if is_back_fill { QueueKind::BackFill } else { QueueKind::Uploads };
            self.send_to(kind, letter.body, restart);
        }
    }

    /// The messages that consumers sent to the dead-letter queue.
    pub(crate) fn letters(&self) -> Vec<OutgoingMessage> {
        self.state().letters.clone()
    }

    /// The messages that SQS itself moved to the dead-letter queue.
    pub(crate) fn moved_by_sqs(&self) -> Vec<String> {
        let queues = &self.state().queues;
        queues.iter().flat_map(|queue| queue.moved_by_sqs.clone()).collect()
    }

    /// The bodies of all messages in the dead-letter queue.
    pub(crate) fn dead(&self) -> Vec<String> {
        let letters = self.letters().into_iter().map(|letter| letter.body);
        letters.chain(self.moved_by_sqs()).collect()
    }

    /// Number of messages in the queue, visible or not.
    pub(crate) fn queued(&self) -> usize {
        self.state().queues.iter().map(|queue| queue.messages.len()).sum()
    }

    /// Number of messages that a receive could return now.
    pub(crate) fn visible(&self) -> usize {
        self.visible_in(QueueKind::Uploads) + self.visible_in(QueueKind::BackFill)
    }

    fn visible_in(&self, kind: QueueKind) -> usize {
        let now = Instant::now();
        self.state().queues[kind as usize]
            .messages
            .values()
            .filter(|message| message.visible_at <= now)
            .count()
    }

    /// The receive count of the most received message in the queue.
    pub(crate) fn most_receives(&self) -> u32 {
        let queues = &self.state().queues;
        let messages = queues.iter().flat_map(|queue| queue.messages.values());
        messages.map(|message| message.receives).max().unwrap_or_default()
    }

    /// The receive count of the most received message of the whole run.
    pub(crate) fn most_receives_ever(&self) -> u32 {
        self.state().queues.iter().map(|queue| queue.most_receives).max().unwrap_or_default()
    }

    /// Number of ReceiveMessage calls for uploads.
    pub(crate) fn receives(&self) -> usize {
        self.state().queues[QueueKind::Uploads as usize].receives
    }

    /// Polls the queue. As in SQS, the poll continues after its client has disconnected.
    pub(super) async fn poll(
        &self,
        kind: QueueKind,
        most: usize,
        wait: Duration,
        visibility: Duration,
    ) -> Vec<Message> {
        let server = self.this.upgrade().unwrap();
        tokio::spawn(async move {
            let deadline = Instant::now() + wait;
            server.state().queues[kind as usize].receives += 1;
            loop {
                let now = Instant::now();
                let messages = server.take_visible(kind, most, now + visibility);
                if !messages.is_empty() || now >= deadline {
                    return messages;
                }
                let changed = server.changed.notified();
                let next = server.state().queues[kind as usize].next_visible_at();
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

    fn take_visible(&self, kind: QueueKind, most: usize, until: Instant) -> Vec<Message> {
        let queue = &mut self.state().queues[kind as usize];
        let now = Instant::now();
        let due: Vec<_> =
            queue.messages.iter().filter(|(_, m)| m.visible_at <= now).map(|(id, _)| *id).collect();
        let mut taken = Vec::new();
        for id in due {
            if taken.len() == most {
                break;
            }
            let receipt = queue.next;
            queue.next += 1;
            let message = queue.messages.get_mut(&id).unwrap();
            if message.receives >= MAX_RECEIVES {
                let body = queue.messages.remove(&id).unwrap().body;
                queue.moved_by_sqs.push(body);
                continue;
            }
            message.receives += 1;
            message.received_at = now;
            message.visible_at = until;
            message.receipt = receipt;
            taken.push(Message {
                id: id.to_string().into(),
                receipt: Receipt(format!("{id}:{receipt}").into()),
                receive_count: message.receives,
                sent_at: Some(epoch() + (message.sent_at - self.start)),
                restart: message.restart.clone(),
                body: message.body.clone(),
            });
            queue.most_receives = queue.most_receives.max(message.receives);
        }
        taken
    }

    pub(super) fn delete(&self, kind: QueueKind, receipt: &Receipt) {
        let queue = &mut self.state().queues[kind as usize];
        if let Some(id) = queue.current(receipt) {
            queue.messages.remove(&id);
        }
    }

    pub(super) fn send_dead_letter(&self, message: &OutgoingMessage) {
        self.state().letters.push(message.clone());
    }

    pub(super) fn set_visibility(
        &self,
        kind: QueueKind,
        receipts: &[Receipt],
        visibility: Duration,
    ) -> Vec<RefusedEntry> {
        assert!(receipts.len() <= 10);
        let queue = &mut self.state().queues[kind as usize];
        let mut refused = Vec::new();
        for receipt in receipts {
            let until = Instant::now() + visibility;
            match queue.current(receipt).and_then(|id| queue.messages.get_mut(&id)) {
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

    pub(super) fn backlog(&self, kind: QueueKind) -> Backlog {
        let visible = self.visible_in(kind) as u64;
        let queued = self.state().queues[kind as usize].messages.len() as u64;
        Backlog { visible, in_flight: queued - visible, delayed: 0 }
    }
}

impl State {
    fn next_visible_at(&self) -> Option<Instant> {
        self.messages.values().map(|message| message.visible_at).min()
    }

    /// The id of the receipt's message; `None` if the message was deleted or received again.
    fn current(&self, receipt: &Receipt) -> Option<u64> {
        let (id, receipt) = receipt.0.split_once(':').unwrap();
        let id = id.parse().unwrap();
        let message = self.messages.get(&id)?;
        (message.receipt == receipt.parse::<u64>().unwrap()).then_some(id)
    }
}
