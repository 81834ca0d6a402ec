//! The queue: synthetic events of uploads, made when they are received, and messages that were sent to it.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::store::{UPLOAD_BUCKET, Upload};

/// As long as the handle in SQS's documentation of ReceiveMessage: the consumer keeps one per message.
const RECEIPT_LENGTH: usize = 412;

/// A queue with SQS's visibility. Messages are numbers, and handles name number and delivery.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    visible: VecDeque<Waiting>,
    held: HashMap<u64, Held>,
    ends: BTreeSet<(Instant, u64)>,
    sent: HashMap<u64, Sent>,
    next: u64,
    /// Deleted for good.
    pub deleted: u64,
    /// Deliveries.
    pub received: u64,
}

#[derive(Debug)]
struct Waiting {
    number: u64,
    receives: u32,
}

#[derive(Debug)]
struct Held {
    receives: u32,
    until: Instant,
}

#[derive(Debug)]
struct Sent {
    body: String,
    attributes: Value,
}

impl Queue {
    /// Adds events of so many uploads that were not there before.
    pub(crate) fn fill(&mut self, uploads: u64) {
        self.visible.extend((self.next..self.next + uploads).map(|number| Waiting { number, receives: 0 }));
        self.next += uploads;
    }

    /// Adds a message with this text, and gives its number.
    pub(crate) fn send(&mut self, body: String, attributes: Value) -> u64 {
        let number = self.next;
        self.sent.insert(number, Sent { body, attributes });
        self.fill(1);
        number
    }

    /// Up to `most` messages, held for `visibility`.
    pub(crate) fn receive(
        &mut self,
        most: usize,
        visibility: Duration,
        upload: &Upload,
        now: Instant,
    ) -> Vec<Value> {
        self.expire(now);
        let taken = self.visible.len().min(most);
        let taken: Vec<_> = self.visible.drain(..taken).collect();
        self.received += taken.len() as u64;
        taken
            .into_iter()
            .map(|Waiting { number, receives }| {
                let receives = receives + 1;
                self.hold(number, receives, now + visibility);
                self.message(number, receives, upload)
            })
            .collect()
    }

    /// When the next held message becomes visible by itself.
    pub(crate) fn next_end(&self) -> Option<Instant> {
        self.ends.first().map(|(end, _)| *end)
    }

    /// Deletes a message. Says whether the handle is one; deleting twice is no error.
    pub(crate) fn delete(&mut self, receipt: &str) -> bool {
        let Some((number, receives)) = read_receipt(receipt) else { return false };
        if self.held.get(&number).is_some_and(|held| held.receives == receives) {
            self.release(number);
            self.sent.remove(&number);
            self.deleted += 1;
        }
        true
    }

    /// Makes a message visible after `wait`. Says whether this delivery is still on.
    pub(crate) fn set_visibility(&mut self, receipt: &str, wait: Duration, now: Instant) -> bool {
        self.expire(now);
        let Some((number, receives)) = read_receipt(receipt) else { return false };
        if self.held.get(&number).is_none_or(|held| held.receives != receives) {
            return false;
        }
        self.release(number);
        if wait.is_zero() {
            self.visible.push_back(Waiting { number, receives });
        } else {
            self.hold(number, receives, now + wait);
        }
        true
    }

    /// Messages to be had, and messages that are held.
    pub(crate) fn counts(&mut self, now: Instant) -> (usize, usize) {
        self.expire(now);
        (self.visible.len(), self.held.len())
    }

    fn expire(&mut self, now: Instant) {
        while let Some((_, number)) = self.ends.first().copied().filter(|(end, _)| *end <= now) {
            if let Some(held) = self.release(number) {
                self.visible.push_back(Waiting { number, receives: held.receives });
            }
        }
    }

    fn hold(&mut self, number: u64, receives: u32, until: Instant) {
        self.held.insert(number, Held { receives, until });
        self.ends.insert((until, number));
    }

    fn release(&mut self, number: u64) -> Option<Held> {
        let held = self.held.remove(&number)?;
        self.ends.remove(&(held.until, number));
        Some(held)
    }

    fn message(&self, number: u64, receives: u32, upload: &Upload) -> Value {
        let mut message = json!({
            "MessageId": format!("{number:08x}-0000-4000-8000-000000000000"),
            "ReceiptHandle": receipt(number, receives),
            "MD5OfBody": "d41d8cd98f00b204e9800998ecf8427e",
            "Attributes": {
                "ApproximateReceiveCount": receives.to_string(),
                "SentTimestamp": jiff::Timestamp::now().as_millisecond().to_string(),
            },
        });
        let (body, attributes) = match self.sent.get(&number) {
            Some(sent) => (sent.body.clone(), sent.attributes.clone()),
            None => (event(number, upload), Value::Null),
        };
        message["Body"] = body.into();
        if !attributes.is_null() {
            message["MessageAttributes"] = attributes;
        }
        message
    }
}

fn receipt(number: u64, receives: u32) -> String {
    format!("{:x<RECEIPT_LENGTH$}", format!("{number}-{receives}-"))
}

fn read_receipt(receipt: &str) -> Option<(u64, u32)> {
    let mut parts = receipt.split('-');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// An event as S3 sends it, with all of its fields.
fn event(number: u64, upload: &Upload) -> String {
    json!({"Records": [{
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "awsRegion": "us-east-1",
        "eventTime": "2026-05-04T09:12:33.123Z",
        "eventName": "ObjectCreated:CompleteMultipartUpload",
        "userIdentity": {"principalId": "AWS:AIDAJDPLRKLG7UEXAMPLE"},
        "requestParameters": {"sourceIPAddress": "192.0.2.3"},
        "responseElements": {
            "x-amz-request-id": "C3D13FE58DE4C810",
            "x-amz-id-2": "FMyUVURIY8/IgAtTv8xRjskZQpcIZ9KG4V5Wp6S7S/JRWeUWerMUE5JgHvANOjpD",
        },
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": "Uploads",
            "bucket": {
                "name": UPLOAD_BUCKET,
                "ownerIdentity": {"principalId": "A3NL1KOZZKExample"},
                "arn": format!("arn:aws:s3:::{UPLOAD_BUCKET}"),
            },
            "object": {
                "key": format!("films/2026/05/upload-{number:08}.mp4"),
                "size": upload.bytes.len(),
                "eTag": upload.etag,
                "sequencer": "0055AED6DCD90281E5",
            },
        },
    }]})
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const VISIBILITY: Duration = Duration::from_secs(90);

    fn receipts(queue: &mut Queue, now: Instant) -> Vec<String> {
        let messages = queue.receive(10, VISIBILITY, &Upload::default(), now);
        messages.iter().map(|message| message["ReceiptHandle"].as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn a_message_comes_again_when_its_time_is_up_and_its_old_handle_is_worth_nothing() {
        let (mut queue, start) = (Queue::default(), Instant::now());
        queue.fill(12);
        let first = receipts(&mut queue, start);
        assert_eq!((first.len(), first[0].len()), (10, RECEIPT_LENGTH));
        assert_eq!(queue.counts(start), (2, 10));

        let later = start + Duration::from_secs(60);
        assert!(queue.set_visibility(&first[0], VISIBILITY, later));
        let after = start + VISIBILITY;
        assert_eq!(queue.counts(after), (11, 1));
        assert!(!queue.set_visibility(&first[1], VISIBILITY, after));
        assert!(queue.delete(&first[1]));
        assert!(queue.delete(&first[0]));
        assert_eq!((queue.deleted, queue.counts(after)), (1, (11, 0)));
    }

    #[test]
    fn a_message_that_was_sent_is_received_as_it_was() {
        let mut queue = Queue::default();
        queue.send("text".into(), json!({"a": {"DataType": "String", "StringValue": "b"}}));
        let message = &queue.receive(1, VISIBILITY, &Upload::default(), Instant::now())[0];
        assert_eq!(
            (&message["Body"], &message["MessageAttributes"]["a"]["StringValue"]),
            (&json!("text"), &json!("b"))
        );
    }
}
