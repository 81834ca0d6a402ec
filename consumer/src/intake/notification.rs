//! Decodes the notifications in a message: events that S3 sends directly, through SNS or through EventBridge.
//!
//! The structs have only the fields that are used. Each record is decoded separately, so an invalid record
//! does not affect the others.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::Deserialize;
use serde_json::{Value, json};
use vidstreamx_job::{BucketName, InvalidLocation, ObjectKey, Source, unquote_etag};

/// One notification of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notification {
    /// An object was created.
    Created(Source),
    /// S3's test event, sent when notifications are configured.
    Test,
    /// Another S3 event, such as a removal.
    Other {
        /// S3's name of the event.
        event: String,
        /// The object, as far as the event names it.
        object_ref: ObjectRef,
    },
    /// This program cannot decode the message or record.
    Unreadable {
        /// The fault.
        fault: Fault,
        /// The object, as far as the event names it.
        object_ref: ObjectRef,
        /// The record, as a separate message.
        text: String,
    },
}

/// Bucket and key as an event names them, not validated. For log lines and for listings of dead letters.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ObjectRef {
    /// The bucket.
    pub bucket: Option<String>,
    /// The key, decoded if possible.
    pub key: Option<String>,
}

/// The fault of an unreadable message or record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The message, or the message that SNS wraps, is not JSON.
    #[error("the message is not JSON")]
    NotJson,
    /// The message is JSON, but not an event.
    #[error("the message is no S3 event (no Records, no S3 event of EventBridge, no SNS notification)")]
    NotAnEvent,
    /// The event has an empty list of records.
    #[error("the event has no records")]
    NoRecords,
    /// S3 sends few records in a message, so this is not an event of S3.
    #[error("the event has {0} records, and at most {MOST_RECORDS} are processed")]
    TooManyRecords(usize),
    /// The record is of another service.
    #[error("the record's source is \"{0}\", not S3")]
    Foreign(String),
    /// A field is missing or of another type.
    #[error("a field is missing or has another type: {0}")]
    Shape(String),
    /// The key is not percent-encoded UTF-8.
    #[error("the key is not UTF-8 text")]
    Key,
    /// The bucket's name or the key is invalid.
    #[error(transparent)]
    Location(#[from] InvalidLocation),
    /// Without version id and ETag, different contents of the key would be the same job.
    #[error("the object has neither version id nor ETag")]
    NoContent,
}

/// An event about an object, in S3's form, so that messages from this program are decoded like any other
/// event.
#[must_use]
pub fn about(source: &Source) -> String {
    let mut object = json!({"key": encoded_key(source.key.as_str())});
    if let Some(fields) = object.as_object_mut() {
        let text = |text: &Option<String>| text.clone().map(Value::from);
        let optional = [
            ("size", source.size.map(Value::from)),
            ("eTag", text(&source.etag)),
            ("versionId", text(&source.version_id)),
        ];
        fields.extend(optional.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
    }
    json!({"Records": [{
        "eventSource": "aws:s3",
        "eventName": "ObjectCreated:Put",
        "s3": {"bucket": {"name": source.bucket.as_str()}, "object": object},
    }]})
    .to_string()
}

/// Encodes a key like S3: a space as `+`, and all but letters, digits and a few marks percent-encoded.
fn encoded_key(key: &str) -> String {
    const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'.').remove(b'-').remove(b'_');
    utf8_percent_encode(key, ENCODED).to_string().replace("%20", "+")
}

/// Maximum number of SNS notifications around an event: SNS does not wrap its own notifications.
const WRAPPERS: usize = 1;

/// Maximum number of records in a message. S3 sends one, and a message has at most a megabyte. A message with
/// more is set aside as a whole, because each bad record would become a dead letter.
const MOST_RECORDS: usize = 1_000;

/// Maximum bytes that are quoted from a parser's error.
const LONGEST_QUOTE: usize = 160;

/// Decodes a message into at least one notification.
#[must_use]
pub fn decode(body: &str) -> Vec<Notification> {
    decode_within(body, WRAPPERS)
}

fn decode_within(body: &str, wrappers: usize) -> Vec<Notification> {
    let unreadable = |fault| {
        vec![Notification::Unreadable { fault, object_ref: ObjectRef::default(), text: body.to_owned() }]
    };
    let Ok(mut message) = serde_json::from_str::<Value>(body) else {
        return unreadable(Fault::NotJson);
    };
    match message.get_mut("Records").map(Value::take) {
        Some(Value::Array(records)) if records.is_empty() => return unreadable(Fault::NoRecords),
        Some(Value::Array(records)) if records.len() > MOST_RECORDS => {
            return unreadable(Fault::TooManyRecords(records.len()));
        }
        Some(Value::Array(records)) => return records.into_iter().map(s3_record).collect(),
        _ => {}
    }
    let text = |field: &str| message.get(field).and_then(Value::as_str);
    match (text("Type"), text("Message")) {
        (Some("Notification"), Some(wrapped)) if wrappers > 0 => {
            return decode_within(wrapped, wrappers - 1);
        }
        _ => {}
    }
    if text("Event") == Some("s3:TestEvent") {
        return vec![Notification::Test];
    }
    if message.get("detail-type").is_some() {
        return vec![event_bridge(message)];
    }
    unreadable(Fault::NotAnEvent)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct S3Record {
    event_source: String,
    event_name: String,
    s3: S3Entity<S3Object>,
}

#[derive(Deserialize)]
struct EventBridgeEvent {
    source: String,
    #[serde(rename = "detail-type")]
    detail_type: String,
    detail: S3Entity<EventBridgeObject>,
}

#[derive(Deserialize)]
struct S3Entity<O> {
    bucket: S3Bucket,
    object: O,
}

#[derive(Deserialize)]
struct S3Bucket {
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct S3Object {
    key: String,
    size: Option<u64>,
    e_tag: Option<String>,
    version_id: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct EventBridgeObject {
    key: String,
    size: Option<u64>,
    etag: Option<String>,
    version_id: Option<String>,
}

fn s3_record(record: Value) -> Notification {
    let object_ref = object_ref_in(record.get("s3"), |key| decoded_key(key).ok());
    let unreadable = |fault, object_ref| Notification::Unreadable {
        fault,
        object_ref,
        text: json!({"Records": [&record]}).to_string(),
    };
    let record: S3Record = match typed(&record) {
        Ok(record) => record,
        Err(fault) => return unreadable(fault, object_ref),
    };
    if record.event_source != "aws:s3" {
        return unreadable(Fault::Foreign(record.event_source), object_ref);
    }
    if !record.event_name.starts_with("ObjectCreated:") {
        return Notification::Other { event: record.event_name, object_ref };
    }
    let S3Entity { bucket, object } = record.s3;
    decoded_key(&object.key)
        .and_then(|key| source(&bucket.name, &key, object.version_id, object.e_tag, object.size))
        .map_or_else(|fault| unreadable(fault, object_ref), Notification::Created)
}

fn event_bridge(event: Value) -> Notification {
    // EventBridge does not encode keys, unlike S3 in its own events.
    let object_ref = object_ref_in(event.get("detail"), |key| Some(key.to_owned()));
    let unreadable =
        |fault, object_ref| Notification::Unreadable { fault, object_ref, text: event.to_string() };
    let event: EventBridgeEvent = match typed(&event) {
        Ok(event) => event,
        Err(fault) => return unreadable(fault, object_ref),
    };
    if event.source != "aws.s3" {
        return unreadable(Fault::Foreign(event.source), object_ref);
    }
    if event.detail_type != "Object Created" {
        return Notification::Other { event: event.detail_type, object_ref };
    }
    let S3Entity { bucket, object } = event.detail;
    source(&bucket.name, &object.key, object.version_id, object.etag, object.size)
        .map_or_else(|fault| unreadable(fault, object_ref), Notification::Created)
}

fn typed<'a, T: Deserialize<'a>>(value: &'a Value) -> Result<T, Fault> {
    T::deserialize(value).map_err(|error| {
        // The error quotes the value, which can be very long.
        let mut text = error.to_string();
        text.truncate(text.floor_char_boundary(LONGEST_QUOTE));
        Fault::Shape(text)
    })
}

fn object_ref_in(entity: Option<&Value>, key: impl Fn(&str) -> Option<String>) -> ObjectRef {
    let text = |path| entity.and_then(|entity| entity.pointer(path)).and_then(Value::as_str);
    let raw_key = text("/object/key");
    ObjectRef {
        bucket: text("/bucket/name").map(str::to_owned),
        key: raw_key.and_then(key).or_else(|| raw_key.map(str::to_owned)),
    }
}

fn decoded_key(encoded: &str) -> Result<String, Fault> {
    let spaced = encoded.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8().map_err(|_| Fault::Key)?;
    Ok(decoded.into_owned())
}

fn source(
    bucket: &str,
    key: &str,
    version_id: Option<String>,
    etag: Option<String>,
    size: Option<u64>,
) -> Result<Source, Fault> {
    let source = Source {
        bucket: bucket.parse::<BucketName>()?,
        key: key.parse::<ObjectKey>()?,
        // "null" is the version id of all objects that were written without versioning, so it identifies no
        // content.
        version_id: version_id.filter(|id| !id.is_empty() && id != "null"),
        etag: etag.map(|etag| unquote_etag(&etag).to_owned()).filter(|etag| !etag.is_empty()),
        size,
    };
    if source.content().is_empty() { Err(Fault::NoContent) } else { Ok(source) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fixtures;

    fn fixture(name: &str) -> String {
        std::fs::read_to_string(format!("{}/tests/events/{name}.json", env!("CARGO_MANIFEST_DIR"))).unwrap()
    }

    #[test]
    fn real_events_of_all_forms_are_decoded() {
        for name in [
            "s3-put",
            "s3-multipart-versioned",
            "s3-odd-keys",
            "s3-several-one-bad",
            "s3-removed",
            "s3-test-event",
            "sns-s3",
            "eventbridge-created",
            "eventbridge-deleted",
            "sns-eventbridge",
            "foreign",
        ] {
            insta::assert_debug_snapshot!(name, decode(&fixture(name)));
        }
    }

    #[test]
    fn invalid_messages_are_unreadable() {
        for (body, fault) in [
            ("", Fault::NotJson),
            ("rubbish", Fault::NotJson),
            ("[]", Fault::NotAnEvent),
            ("{}", Fault::NotAnEvent),
            (r#"{"Records":{}}"#, Fault::NotAnEvent),
            (r#"{"Records":[]}"#, Fault::NoRecords),
            (r#"{"Type":"Notification","Message":"rubbish"}"#, Fault::NotJson),
        ] {
            let [Notification::Unreadable { fault: found, .. }] = &decode(body)[..] else { panic!("{body}") };
            assert_eq!(*found, fault, "{body}");
        }
    }

    #[test]
    fn a_message_with_too_many_records_is_set_aside_as_a_whole() {
        let body = format!(r#"{{"Records":[{}1]}}"#, "1,".repeat(500_000));
        let [Notification::Unreadable { fault, text, .. }] = &decode(&body)[..] else { panic!() };
        assert_eq!((fault, text), (&Fault::TooManyRecords(500_001), &body));
        let body = format!(r#"{{"Records":[{}1]}}"#, "1,".repeat(999));
        assert_eq!(decode(&body).len(), 1000);
    }

    #[test]
    fn nested_sns_notifications_are_unreadable() {
        let mut body = fixture("s3-put");
        for _ in 0..3 {
            body = serde_json::json!({"Type": "Notification", "Message": body}).to_string();
        }
        assert!(matches!(decode(&body)[..], [Notification::Unreadable { fault: Fault::NotAnEvent, .. }]));
    }

    proptest! {
        #[test]
        fn an_event_about_an_object_decodes_to_the_object(
            key in "\\PC{1,200}", size in any::<Option<u64>>(), version in "[a-z.]{0,9}",
        ) {
            let version_id = Some(version).filter(|id| !id.is_empty() && id != "null");
            let source = Source { version_id, etag: Some("e-1".into()), size, ..fixtures::source(&key) };
            prop_assert_eq!(decode(&about(&source)), [Notification::Created(source)]);
        }

        #[test]
        fn every_text_decodes_to_a_notification(body in "\\PC*") {
            prop_assert!(!decode(&body).is_empty());
        }

        #[test]
        fn every_damaged_event_decodes_to_a_notification(cut in 0usize..600, with in "\\PC{0,3}") {
            for name in ["s3-put", "eventbridge-created", "sns-s3"] {
                let mut body = fixture(name);
                let at = body.floor_char_boundary(cut.min(body.len()));
                let end = body.ceil_char_boundary((at + 1).min(body.len()));
                body.replace_range(at..end, &with);
                prop_assert!(!decode(&body).is_empty());
            }
        }
    }
}
