//! Parses dead letters.

use aws_sdk_sqs::types::{Message, MessageSystemAttributeName};
use jiff::Timestamp;

use crate::{
    aws::sqs::{QueueKind, Receipt},
    aws::sqs_send::OutgoingMessage,
    commands::format,
    intake::dead_letter::{ATTEMPTS, BACK_FILL, JOB_ID, QUEUE, REASON},
    intake::notification::{self, Notification, ObjectRef},
};

/// A dead letter. If SQS itself moved the message, it has none of the consumer's attributes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ReceivedDeadLetter {
    /// The message id.
    pub id: String,
    /// The receipt of this delivery.
    pub receipt: Receipt,
    /// The message to send back.
    pub outgoing: OutgoingMessage,
    /// The keys of its objects, as far as they can be decoded.
    pub keys: Vec<String>,
    /// The consumer's reason.
    pub reason: Option<String>,
    /// The id of a failed job.
    pub job: Option<String>,
    /// The queue that it came from, as far as is known.
    pub from: QueueKind,
    /// Time when it was sent.
    pub sent: Option<Timestamp>,
    attempts: Option<String>,
    /// The reason why the body is not an upload event.
    fault: Option<String>,
}

impl ReceivedDeadLetter {
    /// Parses a message; `None` without a receipt.
    #[must_use]
    pub(crate) fn new(message: Message) -> Option<Self> {
        let attributes = message.message_attributes.unwrap_or_default();
        let text = |name| attributes.get(name).and_then(|value| value.string_value()).map(str::to_owned);
        let (reason, job, attempts) = (text(REASON), text(JOB_ID), text(ATTEMPTS));
        let is_back_fill = text(QUEUE).as_deref() == Some(BACK_FILL);
        let sent = message.attributes.as_ref().and_then(|attributes| {
            let sent = attributes.get(&MessageSystemAttributeName::SentTimestamp)?;
            Timestamp::from_millisecond(sent.parse().ok()?).ok()
        });
        let body = message.body.unwrap_or_default();
        let mut keys = Vec::new();
        let mut fault = None;
        for notification in notification::decode(&body) {
            let why = match &notification {
                Notification::Created(source) => {
                    keys.push(source.key.as_str().to_owned());
                    continue;
                }
                Notification::Test => "S3's test event".to_owned(),
                Notification::Other { event, .. } => format!("event {event}"),
                Notification::Unreadable { fault, .. } => fault.to_string(),
            };
            if let Notification::Other { object_ref, .. } | Notification::Unreadable { object_ref, .. } =
                notification
            {
                let ObjectRef { key, .. } = object_ref;
                keys.extend(key);
            }
            fault.get_or_insert(why);
        }
        Some(Self {
            id: message.message_id.unwrap_or_default(),
            receipt: Receipt(message.receipt_handle?.into()),
            outgoing: OutgoingMessage { body, attributes },
            keys,
            reason,
            job,
            attempts,
            from: if is_back_fill { QueueKind::BackFill } else { QueueKind::Uploads },
            sent,
            fault,
        })
    }

    /// One line with keys, reason and details.
    #[must_use]
    pub(crate) fn line(&self) -> String {
        let what = match self.keys.as_slice() {
            [] => format!("message {}", self.id),
            [key] => key.clone(),
            [key, rest @ ..] => format!("{key} and {}", format::count(rest.len() as u64, "other")),
        };
        let why = match (&self.reason, &self.fault) {
            (Some(reason), _) => reason.clone(),
            (None, Some(fault)) => format!("no reason given, but: {fault}"),
            (None, None) => "no reason given: received too often".to_owned(),
        };
        let facts = [
            self.attempts.as_ref().map(|attempts| format!("attempts {attempts}")),
            self.job.as_ref().map(|job| format!("job {job}")),
            self.sent.map(|sent| format!("sent {} UTC", format::minute(sent))),
        ];
        let facts = facts.into_iter().flatten().collect::<Vec<_>>().join(", ");
        let facts = if facts.is_empty() { facts } else { format!(" ({facts})") };
        format::clean(&format!("{what}: {why}{facts}"))
    }
}
