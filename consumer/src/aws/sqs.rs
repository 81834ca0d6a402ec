//! The calls to SQS for a queue of events.

use std::{sync::Arc, time::Duration};

use aws_sdk_sqs::{
    Client,
    config::timeout::TimeoutConfig,
    types::{
        ChangeMessageVisibilityBatchRequestEntry, MessageAttributeValue, MessageSystemAttributeName,
        QueueAttributeName,
    },
};

use jiff::Timestamp;

use crate::{
    aws::error::{CallError, CallFuture},
    aws::names::QueueUrl,
    aws::sqs_send::{BATCH, OutgoingMessage},
};

/// The message attribute that requests a restart of the message's ended jobs.
pub const RESTART_ATTRIBUTE: &str = "vidstreamx-restart";

/// A received message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The message id, the same at every delivery.
    pub id: Arc<str>,
    /// The receipt of this delivery, for deleting the message and changing its visibility.
    pub receipt: Receipt,
    /// Number of deliveries, this one included.
    pub receive_count: u32,
    /// Time of sending, if known.
    pub sent_at: Option<Timestamp>,
    /// The attribute [`RESTART_ATTRIBUTE`].
    pub restart: Option<String>,
    /// The text of the message.
    pub body: String,
}

/// The receipt of one delivery of a message.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Receipt(pub Arc<str>);

/// The queues of events. Uploads come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueKind {
    /// Events of the upload bucket.
    Uploads,
    /// Events that operators send about older objects.
    BackFill,
}

impl QueueKind {
    pub(crate) const COUNT: usize = 2;

    /// The queue's name in logs, messages and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Uploads => "uploads",
            Self::BackFill => "back-fill",
        }
    }
}

/// Approximate numbers of messages in a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Backlog {
    /// Visible messages.
    pub visible: u64,
    /// In flight: received and not deleted.
    pub in_flight: u64,
    /// Delayed messages.
    pub delayed: u64,
}

impl Backlog {
    /// Whether the queue is empty.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.visible == 0 && self.in_flight == 0 && self.delayed == 0
    }
}

/// A failed entry of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedEntry {
    /// The receipt of the entry's delivery.
    pub receipt: Receipt,
    /// AWS's code and message.
    pub reason: String,
    /// Whether a retry is useless, because the delivery is over.
    pub for_good: bool,
}

/// A queue of events.
pub trait Queue: Send + Sync {
    /// Waits up to `wait` for at most `most` messages, and never more than `BATCH`. The messages then stay
    /// invisible for `visibility`.
    ///
    /// # Errors
    /// The call failed. Messages may have been delivered.
    fn receive(&self, most: usize, wait: Duration, visibility: Duration) -> CallFuture<'_, Vec<Message>>;

    /// Deletes a message. Deleting one that is gone succeeds.
    ///
    /// # Errors
    /// The call failed. The message may be deleted.
    fn delete<'a>(&'a self, receipt: &'a Receipt) -> CallFuture<'a, ()>;

    /// Sends a message to the dead-letter queue.
    ///
    /// # Errors
    /// The call failed. The message may have been sent.
    fn send_dead_letter<'a>(&'a self, message: &'a OutgoingMessage) -> CallFuture<'a, ()>;

    /// Makes up to `BATCH` messages visible again after `visibility`, counted from now. Returns the
    /// entries that were refused.
    ///
    /// # Errors
    /// The whole call failed.
    fn set_visibility<'a>(
        &'a self,
        receipts: &'a [Receipt],
        visibility: Duration,
    ) -> CallFuture<'a, Vec<RefusedEntry>>;

    /// The numbers of messages in the queue. They can be a minute old.
    ///
    /// # Errors
    /// The call failed.
    fn backlog(&self) -> CallFuture<'_, Backlog>;
}

/// A queue in SQS.
#[derive(Debug, Clone)]
pub struct Sqs {
    client: Client,
    url: String,
    dead_letters: String,
}

impl Sqs {
    /// A queue and its dead-letter queue by their URLs.
    #[must_use]
    pub fn new(client: Client, url: &QueueUrl, dead_letters: &QueueUrl) -> Self {
        Self { client, url: url.as_str().to_owned(), dead_letters: dead_letters.as_str().to_owned() }
    }
}

/// A long poll times out this long after its wait time.
const POLL_GRACE: Duration = Duration::from_secs(10);

impl Queue for Sqs {
    fn receive(&self, most: usize, wait: Duration, visibility: Duration) -> CallFuture<'_, Vec<Message>> {
        Box::pin(async move {
            let timeouts = TimeoutConfig::builder()
                .read_timeout(wait + POLL_GRACE)
                .operation_attempt_timeout(wait + POLL_GRACE)
                .build();
            let answer = self
                .client
                .receive_message()
                .queue_url(&self.url)
                .max_number_of_messages(i32::try_from(most.min(BATCH)).unwrap_or(1))
                .wait_time_seconds(whole_seconds(wait))
                .visibility_timeout(whole_seconds(visibility))
                .message_system_attribute_names(MessageSystemAttributeName::ApproximateReceiveCount)
                .message_system_attribute_names(MessageSystemAttributeName::SentTimestamp)
                .message_attribute_names(RESTART_ATTRIBUTE)
                .customize()
                .config_override(aws_sdk_sqs::config::Builder::new().timeout_config(timeouts))
                .send()
                .await
                .map_err(|error| CallError::new("ReceiveMessage", &error))?;
            Ok(answer.messages.unwrap_or_default().into_iter().filter_map(message).collect())
        })
    }

    fn delete<'a>(&'a self, receipt: &'a Receipt) -> CallFuture<'a, ()> {
        Box::pin(async move {
            self.client
                .delete_message()
                .queue_url(&self.url)
                .receipt_handle(&*receipt.0)
                .send()
                .await
                .map_err(|error| CallError::new("DeleteMessage", &error))?;
            Ok(())
        })
    }

    fn send_dead_letter<'a>(&'a self, message: &'a OutgoingMessage) -> CallFuture<'a, ()> {
        Box::pin(async move {
            self.client
                .send_message()
                .queue_url(&self.dead_letters)
                .message_body(&message.body)
                .set_message_attributes(Some(message.attributes.clone()))
                .send()
                .await
                .map_err(|error| CallError::new("SendMessage to the dead-letter queue", &error))?;
            Ok(())
        })
    }

    fn set_visibility<'a>(
        &'a self,
        receipts: &'a [Receipt],
        visibility: Duration,
    ) -> CallFuture<'a, Vec<RefusedEntry>> {
        Box::pin(async move {
            let entries = receipts
                .iter()
                .enumerate()
                .map(|(index, receipt)| {
                    ChangeMessageVisibilityBatchRequestEntry::builder()
                        .id(index.to_string())
                        .receipt_handle(&*receipt.0)
                        .visibility_timeout(whole_seconds(visibility))
                        .build()
                })
                .collect::<Result<Vec<_>, _>>()
                .map_err(|error| CallError::Passing {
                    call: "ChangeMessageVisibilityBatch",
                    reason: error.to_string(),
                })?;
            let answer = self
                .client
                .change_message_visibility_batch()
                .queue_url(&self.url)
                .set_entries(Some(entries))
                .send()
                .await
                .map_err(|error| CallError::new("ChangeMessageVisibilityBatch", &error))?;
            let refused = answer.failed.into_iter().filter_map(|entry| {
                let receipt = receipts.get(entry.id.parse::<usize>().ok()?)?;
                Some(RefusedEntry {
                    receipt: receipt.clone(),
                    reason: format!("{}: {}", entry.code, entry.message.unwrap_or_default()),
                    for_good: entry.sender_fault,
                })
            });
            Ok(refused.collect())
        })
    }

    fn backlog(&self) -> CallFuture<'_, Backlog> {
        Box::pin(async move {
            use QueueAttributeName as Name;
            let names = [
                Name::ApproximateNumberOfMessages,
                Name::ApproximateNumberOfMessagesNotVisible,
                Name::ApproximateNumberOfMessagesDelayed,
            ];
            let answer = self
                .client
                .get_queue_attributes()
                .queue_url(&self.url)
                .set_attribute_names(Some(names.to_vec()))
                .send()
                .await
                .map_err(|error| CallError::new("GetQueueAttributes", &error))?;
            let attributes = answer.attributes.unwrap_or_default();
            let count = |name| {
                attributes.get(&name).and_then(|count| count.parse().ok()).ok_or_else(|| CallError::Passing {
                    call: "GetQueueAttributes",
                    reason: format!("the answer lacks {name}"),
                })
            };
            let [visible, in_flight, delayed] = names;
            Ok(Backlog { visible: count(visible)?, in_flight: count(in_flight)?, delayed: count(delayed)? })
        })
    }
}

fn message(message: aws_sdk_sqs::types::Message) -> Option<Message> {
    let system = |name| message.attributes.as_ref()?.get(&name);
    let receive_count = system(MessageSystemAttributeName::ApproximateReceiveCount);
    let sent_at = system(MessageSystemAttributeName::SentTimestamp);
    let restart = message.message_attributes.as_ref().and_then(|own| own.get(RESTART_ATTRIBUTE));
    let restart = restart.and_then(MessageAttributeValue::string_value).map(str::to_owned);
    Some(Message {
        receive_count: receive_count.and_then(|count| count.parse().ok()).unwrap_or(1),
        sent_at: sent_at
            .and_then(|milliseconds| Timestamp::from_millisecond(milliseconds.parse().ok()?).ok()),
        restart,
        id: message.message_id.unwrap_or_default().into(),
        // A message without a receipt can be neither deleted nor held.
        receipt: Receipt(message.receipt_handle?.into()),
        body: message.body.unwrap_or_default(),
    })
}

fn whole_seconds(duration: Duration) -> i32 {
    i32::try_from(duration.as_secs()).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use aws_sdk_sqs::{
        operation::{
            change_message_visibility_batch::ChangeMessageVisibilityBatchOutput,
            get_queue_attributes::GetQueueAttributesOutput,
            receive_message::{ReceiveMessageError, ReceiveMessageOutput},
            send_message::SendMessageOutput,
        },
        types::{BatchResultErrorEntry, error::QueueDoesNotExist},
    };
    use aws_smithy_mocks::{Rule, mock, mock_client};
    use aws_smithy_types::error::ErrorMetadata;

    use super::*;

    fn sqs(rule: &Rule) -> Sqs {
        let [queue, dead] = ["http://localhost/1/uploads", "http://localhost/1/dead"];
        Sqs::new(mock_client!(aws_sdk_sqs, [rule]), &queue.parse().unwrap(), &dead.parse().unwrap())
    }

    #[tokio::test]
    async fn receives_with_count_and_explicit_visibility() {
        let rule = mock!(Client::receive_message)
            .match_requests(|request| {
                request.max_number_of_messages() == Some(10)
                    && request.wait_time_seconds() == Some(20)
                    && request.visibility_timeout() == Some(120)
                    && request.message_attribute_names() == [RESTART_ATTRIBUTE]
            })
            .then_output(|| {
                let message = aws_sdk_sqs::types::Message::builder()
                    .message_id("m")
                    .receipt_handle("r")
                    .body("b")
                    .attributes(MessageSystemAttributeName::ApproximateReceiveCount, "3")
                    .attributes(MessageSystemAttributeName::SentTimestamp, "1500")
                    .message_attributes(RESTART_ATTRIBUTE, text("failed-after-3"))
                    .build();
                let no_receipt = aws_sdk_sqs::types::Message::builder().message_id("n").build();
                ReceiveMessageOutput::builder().messages(message).messages(no_receipt).build()
            });
        let (wait, visibility) = (Duration::from_secs(20), Duration::from_secs(120));
        let messages = sqs(&rule).receive(50, wait, visibility).await.unwrap();
        let expected = Message {
            id: "m".into(),
            receipt: Receipt("r".into()),
            receive_count: 3,
            sent_at: Some(Timestamp::from_millisecond(1500).unwrap()),
            restart: Some("failed-after-3".into()),
            body: "b".into(),
        };
        assert_eq!(messages, [expected]);
    }

    fn text(value: &str) -> MessageAttributeValue {
        MessageAttributeValue::builder().data_type("String").string_value(value).build().unwrap()
    }

    #[tokio::test]
    async fn a_dead_letter_goes_to_its_queue_with_its_reason() {
        let rule = mock!(Client::send_message)
            .match_requests(|request| {
                let attributes = request.message_attributes().unwrap();
                request.queue_url() == Some("http://localhost/1/dead")
                    && request.message_body() == Some("b")
                    && attributes.get("vidstreamx-reason") == Some(&text("why"))
                    && attributes.len() == 1
            })
            .then_output(|| SendMessageOutput::builder().build());
        let mut letter = OutgoingMessage { body: "b".into(), ..OutgoingMessage::default() };
        letter.set_attribute("vidstreamx-reason", "String", "why");
        sqs(&rule).send_dead_letter(&letter).await.unwrap();
    }

    #[tokio::test]
    async fn a_missing_queue_is_configuration() {
        let rule = mock!(Client::receive_message).then_error(|| {
            let meta = ErrorMetadata::builder().code("QueueDoesNotExist").message("gone").build();
            ReceiveMessageError::QueueDoesNotExist(QueueDoesNotExist::builder().meta(meta).build())
        });
        let error = sqs(&rule).receive(1, Duration::ZERO, Duration::ZERO).await.unwrap_err();
        assert!(error.is_configuration());
        assert_eq!(error.to_string(), "ReceiveMessage: QueueDoesNotExist: gone");
    }

    #[tokio::test]
    async fn refused_entries_of_a_batch_are_named() {
        let rule = mock!(Client::change_message_visibility_batch)
            .match_requests(|request| request.entries().len() == 2)
            .then_output(|| {
                let failed = BatchResultErrorEntry::builder()
                    .id("1")
                    .code("ReceiptHandleIsInvalid")
                    .sender_fault(true)
                    .build()
                    .unwrap();
                ChangeMessageVisibilityBatchOutput::builder()
                    .set_successful(Some(vec![]))
                    .failed(failed)
                    .build()
                    .unwrap()
            });
        let receipts = [Receipt("good".into()), Receipt("bad".into())];
        let refused = sqs(&rule).set_visibility(&receipts, Duration::from_secs(120)).await.unwrap();
        let expected = RefusedEntry {
            receipt: Receipt("bad".into()),
            reason: "ReceiptHandleIsInvalid: ".into(),
            for_good: true,
        };
        assert_eq!(refused, [expected]);
    }

    #[tokio::test]
    async fn a_count_that_is_missing_is_not_zero() {
        let rule = mock!(Client::get_queue_attributes).then_output(|| {
            GetQueueAttributesOutput::builder()
                .attributes(QueueAttributeName::ApproximateNumberOfMessages, "0")
                .build()
        });
        assert!(sqs(&rule).backlog().await.is_err());
    }
}
