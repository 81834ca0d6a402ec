//! Sends messages in batches of ten.

use std::{collections::HashMap, time::Duration};

use aws_sdk_sqs::{
    Client,
    types::{MessageAttributeValue, SendMessageBatchRequestEntry},
};
use backon::{BackoffBuilder as _, ExponentialBuilder};

use crate::{aws::error::CallError, aws::names::QueueUrl};

/// Maximum number of entries in one call to SQS.
pub(crate) const BATCH: usize = 10;

/// Maximum bytes of a batch. Some queues still have this older limit of SQS; the current one is 1 MiB.
const BATCH_BYTES: usize = 256 * 1024;

/// Maximum number of tries for an entry whose refusal is not the sender's fault.
const TRIES: usize = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// A message to send.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct OutgoingMessage {
    /// The text of the message.
    pub body: String,
    /// The attributes by name.
    pub attributes: HashMap<String, MessageAttributeValue>,
}

impl OutgoingMessage {
    /// Sets an attribute. `data_type` is a type of SQS, such as `String`.
    pub fn set_attribute(&mut self, name: &str, data_type: &str, value: impl Into<String>) {
        let value = MessageAttributeValue::builder().data_type(data_type).string_value(value);
        // Fails only without a data type.
        if let Ok(value) = value.build() {
            self.attributes.insert(name.to_owned(), value);
        }
    }

    /// The text of an attribute.
    #[must_use]
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.get(name)?.string_value()
    }

    /// Size as SQS counts it: body, and names, types and values of attributes.
    fn bytes(&self) -> usize {
        let attributes = self.attributes.iter().map(|(name, value)| {
            let text = value.string_value().map_or(0, str::len);
            let binary = value.binary_value().map_or(0, |value| value.as_ref().len());
            name.len() + value.data_type().len() + text + binary
        });
        self.body.len() + attributes.sum::<usize>()
    }
}

/// A message that SQS refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedMessage {
    /// The message's index.
    pub index: usize,
    /// AWS's code and message.
    pub reason: String,
}

/// Sends messages. Retries a refused message if the refusal is not the sender's fault. Returns the messages
/// that were not sent.
///
/// # Errors
/// A whole call failed. Some messages may have been sent.
pub async fn send(
    client: &Client,
    queue: &QueueUrl,
    messages: &[OutgoingMessage],
) -> Result<Vec<RefusedMessage>, CallError> {
    let mut refused = Vec::new();
    let mut pending: Vec<(usize, &OutgoingMessage)> = messages.iter().enumerate().collect();
    // backon computes only the pauses. Its `Retryable` would repeat a whole call, but a retry must send only
    // the refused entries.
    let mut pauses = ExponentialBuilder::new().with_min_delay(FIRST_PAUSE).with_max_times(TRIES - 1).build();
    loop {
        let pause = pauses.next();
        let mut retry = Vec::new();
        for batch in batches(&pending) {
            let answer = client
                .send_message_batch()
                .queue_url(queue.as_str())
                .set_entries(Some(entries(batch)?))
                .send()
                .await
                .map_err(|error| CallError::new("SendMessageBatch", &error))?;
            for entry in answer.failed {
                let Some(&(index, message)) = entry.id.parse().ok().and_then(|at: usize| batch.get(at))
                else {
                    continue;
                };
                if entry.sender_fault || pause.is_none() {
                    let reason = format!("{}: {}", entry.code, entry.message.unwrap_or_default());
                    refused.push(RefusedMessage { index, reason });
                } else {
                    retry.push((index, message));
                }
            }
        }
        let Some(pause) = pause.filter(|_| !retry.is_empty()) else { break };
        pending = retry;
        tokio::time::sleep(pause).await;
    }
    refused.sort_by_key(|refused| refused.index);
    Ok(refused)
}

fn entries(batch: &[(usize, &OutgoingMessage)]) -> Result<Vec<SendMessageBatchRequestEntry>, CallError> {
    let entries = batch.iter().enumerate().map(|(at, (_, message))| {
        let attributes = Some(&message.attributes).filter(|attributes| !attributes.is_empty());
        SendMessageBatchRequestEntry::builder()
            .id(at.to_string())
            .message_body(&message.body)
            .set_message_attributes(attributes.cloned())
            .build()
    });
    entries
        .collect::<Result<_, _>>()
        .map_err(|error| CallError::Passing { call: "SendMessageBatch", reason: error.to_string() })
}

/// Splits messages into batches that fit a call.
fn batches<'a, 'l>(
    mut messages: &'a [(usize, &'l OutgoingMessage)],
) -> Vec<&'a [(usize, &'l OutgoingMessage)]> {
    let mut batches = Vec::new();
    while !messages.is_empty() {
        let mut bytes = 0;
        let fit = messages.iter().take(BATCH).take_while(|(_, message)| {
            bytes += message.bytes();
            bytes <= BATCH_BYTES
        });
        let (batch, rest) = messages.split_at(fit.count().max(1));
        batches.push(batch);
        messages = rest;
    }
    batches
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use aws_sdk_sqs::types::BatchResultErrorEntry;
    use aws_smithy_mocks::{RuleMode, mock, mock_client};

    use super::*;
    use crate::fixtures::batch_answer;

    fn message(body: &str) -> OutgoingMessage {
        OutgoingMessage { body: body.into(), ..OutgoingMessage::default() }
    }

    fn failed(id: &str, sender_fault: bool) -> BatchResultErrorEntry {
        BatchResultErrorEntry::builder()
            .id(id)
            .code("Code")
            .message("m")
            .sender_fault(sender_fault)
            .build()
            .unwrap()
    }

    #[test]
    fn batches_have_at_most_ten_messages_and_fit_the_byte_limit() {
        let small: Vec<_> = (0..23).map(|_| message("x")).collect();
        let sizes = |messages: &[OutgoingMessage]| {
            let all: Vec<_> = messages.iter().enumerate().collect();
            batches(&all).iter().map(|batch| batch.len()).collect::<Vec<_>>()
        };
        assert_eq!(sizes(&small), [10, 10, 3]);
        let large: Vec<_> = (0..5).map(|_| message(&"x".repeat(100 * 1024))).collect();
        assert_eq!(sizes(&large), [2, 2, 1]);
        assert_eq!(sizes(&[message(&"x".repeat(300 * 1024))]), [1]);
    }

    #[tokio::test(start_paused = true)]
    async fn only_refused_messages_are_retried_and_a_sender_fault_is_final() {
        let sent = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&sent);
        let rule = mock!(Client::send_message_batch)
            .match_requests(move |request| {
                let bodies: Vec<_> =
                    request.entries().iter().map(|entry| entry.message_body().to_owned()).collect();
                seen.lock().unwrap().push(bodies.join(""));
                true
            })
            .sequence()
            .output(|| batch_answer(vec![failed("0", false), failed("1", true)]))
            .output(|| batch_answer(vec![]))
            .build();
        let client = mock_client!(aws_sdk_sqs, RuleMode::Sequential, [&rule]);
        let messages = ["a", "b", "c"].map(message);
        let refused = send(&client, &"http://localhost/1/uploads".parse().unwrap(), &messages).await.unwrap();
        assert_eq!(refused, [RefusedMessage { index: 1, reason: "Code: m".into() }]);
        let mut sent = sent.lock().unwrap().clone();
        // The mock calls its matcher more than once per request.
        sent.dedup();
        assert_eq!(sent, ["abc", "a"]);
    }

    #[tokio::test(start_paused = true)]
    async fn retries_end_after_the_maximum_number_of_tries() {
        let rule = mock!(Client::send_message_batch).then_output(|| batch_answer(vec![failed("0", false)]));
        let client = mock_client!(aws_sdk_sqs, RuleMode::MatchAny, [&rule]);
        let refused =
            send(&client, &"http://localhost/1/uploads".parse().unwrap(), &[message("a")]).await.unwrap();
        assert_eq!(refused.len(), 1);
        assert_eq!(rule.num_calls(), TRIES);
    }
}
