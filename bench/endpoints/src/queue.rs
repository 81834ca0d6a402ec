//! The SQS queue. It holds upload events, whose text is generated when they are received, and messages that
//! were sent to it.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::store::{UPLOAD_BUCKET, Upload};

/// Length of the receipt handle in SQS's documentation of ReceiveMessage. The consumer keeps a handle per
/// message, so the length affects the consumer's memory.
const RECEIPT_LENGTH: usize = 412;

/// A queue with SQS's visibility timeout. Each message has a number. A receipt handle contains the message's
/// number and the number of its delivery.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    visible: VecDeque<Visible>,
    hidden: HashMap<u64, Hidden>,
    ends: BTreeSet<(Instant, u64)>,
    sent: HashMap<u64, Sent>,
    next: u64,
    /// Number of deleted messages.
    pub deleted: u64,
    /// Number of deliveries.
    pub received: u64,
}

#[derive(Debug)]
struct Visible {
    number: u64,
    receives: u32,
}

#[derive(Debug)]
struct Hidden {
    receives: u32,
    until: Instant,
}

#[derive(Debug)]
struct Sent {
    body: String,
    attributes: Value,
}

impl Queue {
    /// Adds the events of this many new uploads.
    pub(crate) fn fill(&mut self, uploads: u64) {
        self.visible.extend((self.next..self.next + uploads).map(|number| Visible { number, receives: 0 }));
        self.next += uploads;
    }

    /// Adds a message. Returns its number.
    pub(crate) fn send(&mut self, body: String, attributes: Value) -> u64 {
        let number = self.next;
        self.sent.insert(number, Sent { body, attributes });
        self.fill(1);
        number
    }

    /// Receives at most `most` messages, and hides them for `visibility`.
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
            .map(|Visible { number, receives }| {
                let receives = receives + 1;
                self.hide(number, receives, now + visibility);
                self.message(number, receives, upload)
            })
            .collect()
    }

    /// The time when the next message becomes visible again.
    pub(crate) fn next_end(&self) -> Option<Instant> {
        self.ends.first().map(|(end, _)| *end)
    }

    /// Deletes a message, unless the handle is of an earlier delivery. Returns whether the handle is
    /// well-formed. As in SQS, it is no error if there was nothing to delete.
    pub(crate) fn delete(&mut self, receipt: &str) -> bool {
        let Some((number, receives)) = read_receipt(receipt) else { return false };
        if self.hidden.get(&number).is_some_and(|hidden| hidden.receives == receives) {
            self.unhide(number);
            self.sent.remove(&number);
            self.deleted += 1;
        }
        true
    }

    /// Makes a message visible after `wait`. Returns false if the handle is not of the current delivery.
    pub(crate) fn set_visibility(&mut self, receipt: &str, wait: Duration, now: Instant) -> bool {
        self.expire(now);
        let Some((number, receives)) = read_receipt(receipt) else { return false };
        if self.hidden.get(&number).is_none_or(|hidden| hidden.receives != receives) {
            return false;
        }
        self.unhide(number);
        if wait.is_zero() {
            self.visible.push_back(Visible { number, receives });
        } else {
            self.hide(number, receives, now + wait);
        }
        true
    }

    /// Numbers of visible and of hidden messages.
    pub(crate) fn counts(&mut self, now: Instant) -> (usize, usize) {
        self.expire(now);
        (self.visible.len(), self.hidden.len())
    }

    fn expire(&mut self, now: Instant) {
        while let Some((_, number)) = self.ends.first().copied().filter(|(end, _)| *end <= now) {
            if let Some(hidden) = self.unhide(number) {
                self.visible.push_back(Visible { number, receives: hidden.receives });
            }
        }
    }

    fn hide(&mut self, number: u64, receives: u32, until: Instant) {
        self.hidden.insert(number, Hidden { receives, until });
        self.ends.insert((until, number));
    }

    fn unhide(&mut self, number: u64) -> Option<Hidden> {
        let hidden = self.hidden.remove(&number)?;
        self.ends.remove(&(hidden.until, number));
        Some(hidden)
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

/// An event with all fields that S3 sends.
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
    fn a_message_is_visible_again_after_its_timeout_and_its_old_handle_is_ignored() {
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
    fn a_sent_message_is_received_unchanged() {
        let mut queue = Queue::default();
        queue.send("text".into(), json!({"a": {"DataType": "String", "StringValue": "b"}}));
        let message = &queue.receive(1, VISIBILITY, &Upload::default(), Instant::now())[0];
        assert_eq!(
            (&message["Body"], &message["MessageAttributes"]["a"]["StringValue"]),
            (&json!("text"), &json!("b"))
        );
    }
}
