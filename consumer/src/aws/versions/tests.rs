//! Tests of listing and deleting versions.

use std::sync::{Arc, Mutex};

use aws_sdk_s3::{
    operation::{delete_object::DeleteObjectOutput, delete_objects::DeleteObjectsOutput},
    types::Error,
};
use aws_smithy_mocks::{Rule, RuleMode, mock, mock_client};

use super::*;
use crate::commands::removal::fake_s3::FakeS3;

fn bucket(rules: &[&Rule]) -> VersionedBucket {
    VersionedBucket::new(mock_client!(aws_sdk_s3, RuleMode::MatchAny, rules), "streams".parse().unwrap())
}

fn version(key: &str) -> Version {
    Version {
        key: key.into(),
        id: Some("v1".into()),
        bytes: Some(1),
        written: Timestamp::UNIX_EPOCH,
        is_latest: true,
    }
}

fn error(key: &str, code: &str) -> Error {
    Error::builder().key(key).version_id("v1").code(code).message("m").build()
}

#[tokio::test]
async fn all_versions_and_markers_of_one_object_are_listed_over_several_pages() {
    let s3 = FakeS3::default();
    for time in 0..7 {
        s3.put("streams", "film é+.mp4", "x", Timestamp::from_second(time).unwrap());
    }
    s3.hide("streams", "film é+.mp4", Timestamp::from_second(8).unwrap());
    s3.put("streams", "film é+.mp4.txt", "x", Timestamp::UNIX_EPOCH);
    s3.put("streams", "film é+.mp4/a", "x", Timestamp::UNIX_EPOCH);
    let bucket = VersionedBucket::new(s3.client(), "streams".parse().unwrap());
    let versions = bucket.object("film é+.mp4").await.unwrap();
    assert_eq!(versions.len(), 8);
    assert_eq!(versions.iter().filter(|version| version.bytes.is_none() && version.is_latest).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn temporary_refusals_are_retried_and_missing_versions_count_as_deleted() {
    let sent = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&sent);
    let rule = mock!(Client::delete_objects).then_compute_output(move |input| {
        let keys: Vec<_> = input.delete().unwrap().objects().iter().map(|object| object.key()).collect();
        let first = seen.lock().unwrap().is_empty();
        seen.lock().unwrap().push(keys.join(" "));
        let output = DeleteObjectsOutput::builder().errors(error("busy", "SlowDown"));
        if first {
            output.errors(error("gone", "NoSuchVersion")).errors(error("locked", "AccessDenied")).build()
        } else {
            output.build()
        }
    });
    let refused = bucket(&[&rule]).delete(&["busy", "gone", "locked", "ok"].map(version)).await.unwrap();
    let expected = [("locked", "AccessDenied: m", true), ("busy", "SlowDown: m", false)];
    let expected = expected.map(|(key, reason, is_denied)| Refused {
        key: key.into(),
        reason: reason.into(),
        is_denied,
    });
    assert_eq!(refused, expected);
    let sent = sent.lock().unwrap();
    assert_eq!((sent.len(), sent[0].as_str(), sent[1].as_str()), (TRIES, "busy gone locked ok", "busy"));
}

#[tokio::test]
async fn keys_that_xml_does_not_allow_are_deleted_one_by_one() {
    let one = mock!(Client::delete_object)
        .match_requests(|request| request.key() == Some("a\u{1}.mp4") && request.version_id() == Some("v1"))
        .then_output(|| DeleteObjectOutput::builder().build());
    let batch = mock!(Client::delete_objects)
        .match_requests(|request| request.delete().is_some_and(|delete| delete.objects().len() == 1))
        .then_output(|| DeleteObjectsOutput::builder().build());
    let refused = bucket(&[&one, &batch]).delete(&["a\u{1}.mp4", "b.mp4"].map(version)).await.unwrap();
    assert_eq!((refused, one.num_calls(), batch.num_calls()), (vec![], 1, 1));
}

#[tokio::test]
async fn a_denied_call_names_the_permission_problem() {
    let body = "<Error><Code>AccessDenied</Code><Message>m</Message></Error>";
    let rule =
        mock!(Client::delete_objects).sequence().http_status(403, Some(body.into())).repeatedly().build();
    let error = bucket(&[&rule]).delete(&[version("a")]).await.unwrap_err();
    assert!(error.is_configuration(), "{error}");
}
