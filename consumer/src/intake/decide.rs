//! Decides about each record of a message: a job, or the reason why there is no job. Pure functions.

use std::collections::HashSet;

use vidstreamx_job::{BucketName, Job};

use super::notification::{self, Notification, ObjectRef};

/// The settings that decisions depend on.
#[derive(Debug, Clone)]
pub struct DecisionSettings {
    /// The upload bucket.
    pub upload: BucketName,
    /// The output bucket.
    pub output: BucketName,
    /// The profile's name.
    pub profile: String,
}

/// The decision about one record of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub(super) enum Decision {
    /// Transcode the upload.
    Run(Job),
    /// Do nothing.
    Ignore { reason: String, object_ref: ObjectRef },
    /// Send a dead letter, for an operator. `body` is the record as a separate message.
    DeadLetter { reason: String, object_ref: ObjectRef, body: String },
}

/// Decides about each record of a message, in the order of the message.
#[must_use]
pub(super) fn decide(body: &str, settings: &DecisionSettings) -> Vec<Decision> {
    let mut seen = HashSet::new();
    notification::decode(body)
        .into_iter()
        .map(|notification| match notification {
            Notification::Created(source) => {
                let object_ref =
                    ObjectRef { bucket: Some(source.bucket.to_string()), key: Some(source.key.to_string()) };
                if source.bucket != settings.upload {
                    let reason = "the bucket is not the upload bucket (VIDSTREAMX_UPLOAD_BUCKET)".to_owned();
                    let body = notification::about(&source);
                    return Decision::DeadLetter { reason, object_ref, body };
                }
                let job = Job::new(source, settings.output.clone(), settings.profile.clone());
                if seen.insert(job.id.clone()) {
                    Decision::Run(job)
                } else {
                    let reason = "the message names the same video twice".to_owned();
                    Decision::Ignore { reason, object_ref }
                }
            }
            Notification::Test => {
                let reason = "it is S3's test event".to_owned();
                Decision::Ignore { reason, object_ref: ObjectRef::default() }
            }
            Notification::Other { event, object_ref } => {
                Decision::Ignore { reason: format!("{event} is not about a new object"), object_ref }
            }
            Notification::Unreadable { fault, object_ref, text } => {
                Decision::DeadLetter { reason: fault.to_string(), object_ref, body: text }
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn settings() -> DecisionSettings {
        DecisionSettings {
            upload: "uploads".parse().unwrap(),
            output: "streams".parse().unwrap(),
            profile: "default".into(),
        }
    }

    fn record(event: &str, bucket: &str, key: &str) -> serde_json::Value {
        json!({
            "eventSource": "aws:s3", "eventName": event,
            "s3": {"bucket": {"name": bucket}, "object": {"key": key, "size": 9, "eTag": "e"}},
        })
    }

    #[test]
    fn every_record_gets_its_own_decision() {
        let body = json!({"Records": [
            record("ObjectCreated:Put", "uploads", "a.mp4"),
            record("ObjectCreated:Copy", "uploads", "b.mp4"),
            record("ObjectCreated:Put", "uploads", "a.mp4"),
            record("ObjectCreated:Put", "another-bucket", "a.mp4"),
            record("ObjectRemoved:Delete", "uploads", "b.mp4"),
            record("ObjectCreated:Put", "uploads", "%FF.mp4"),
        ]});
        let decisions = decide(&body.to_string(), &settings());
        let texts: Vec<_> = decisions
            .iter()
            .map(|decision| match decision {
                Decision::Run(job) => format!("run {}/{}", job.source.bucket, job.source.key),
                Decision::Ignore { reason, .. } => format!("ignore: {reason}"),
                Decision::DeadLetter { reason, object_ref, .. } => {
                    format!("dead letter {:?}: {reason}", object_ref.key)
                }
            })
            .collect();
        assert_eq!(
            texts,
            [
                "run uploads/a.mp4",
                "run uploads/b.mp4",
                "ignore: the message names the same video twice",
                "dead letter Some(\"a.mp4\"): the bucket is not the upload bucket (VIDSTREAMX_UPLOAD_BUCKET)",
                "ignore: ObjectRemoved:Delete is not about a new object",
                "dead letter Some(\"%FF.mp4\"): the key is not UTF-8 text",
            ]
        );
    }

    #[test]
    fn the_job_goes_to_the_output_bucket_under_the_profile() {
        let body = json!({"Records": [record("ObjectCreated:Put", "uploads", "my+film.mp4")]});
        let [Decision::Run(job)] = &decide(&body.to_string(), &settings())[..] else { panic!() };
        assert_eq!((job.output.as_str(), job.profile.as_str()), ("streams", "default"));
        assert_eq!((job.source.key.as_str(), job.source.size), ("my film.mp4", Some(9)));
    }

    #[test]
    fn a_test_event_is_ignored_and_an_unreadable_message_is_a_dead_letter() {
        let test = json!({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "uploads"});
        assert!(matches!(decide(&test.to_string(), &settings())[..], [Decision::Ignore { .. }]));
        assert!(matches!(decide("rubbish", &settings())[..], [Decision::DeadLetter { .. }]));
    }
}
