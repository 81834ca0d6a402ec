use std::{collections::HashMap, io};

use aws_sdk_s3::{
    Client,
    operation::{
        abort_multipart_upload::AbortMultipartUploadOutput,
        complete_multipart_upload::{CompleteMultipartUploadError, CompleteMultipartUploadOutput},
        create_multipart_upload::CreateMultipartUploadOutput,
        list_objects_v2::ListObjectsV2Output,
        put_object::PutObjectOutput,
        upload_part::{UploadPartError, UploadPartOutput},
    },
    types::Object,
};
use aws_smithy_mocks::{Rule, RuleMode, mock, mock_client};
use aws_smithy_types::error::ErrorMetadata;
use bytes::Bytes;
use futures::{Stream, TryStreamExt, stream};
use proptest::prelude::*;
use vidstreamx_job::Exit;

use crate::fixtures::folder_store;

use super::{
    Bucket, CachePolicy, JSON, StatusObject, Store, StoreError,
    multipart::{PART_BYTES, part_bytes, parts, put_parts},
};

const MP4: CachePolicy = CachePolicy::Immutable("video/mp4");
const PATH: &str = "mp4/1080p.mp4";

fn bucket(rules: &[&Rule]) -> Store {
    Store::Bucket(in_bucket(rules))
}

fn in_bucket(rules: &[&Rule]) -> Bucket {
    Bucket {
        client: mock_client!(aws_sdk_s3, RuleMode::MatchAny, rules),
        name: "streams".parse().unwrap(),
        prefix: "a.mp4".into(),
    }
}

/// Yields `ab`, `cd`, `e`, then an error if `breaks`.
fn content(breaks: bool) -> impl Stream<Item = Result<Bytes, StoreError>> {
    let error = breaks.then(|| Err(StoreError::File { path: "x".into(), error: io::Error::other("torn") }));
    stream::iter(["ab", "cd", "e"].map(|part| Ok(part.into())).into_iter().chain(error))
}

async fn put_in_parts(rules: &[&Rule], breaks: bool) -> Result<(), StoreError> {
    put_parts(&in_bucket(rules), PATH, MP4, content(breaks)).await
}

fn created() -> Rule {
    mock!(Client::create_multipart_upload)
        .match_requests(|request| {
            request.key() == Some("a.mp4/mp4/1080p.mp4")
                && request.content_type() == Some("video/mp4")
                && request.cache_control().is_some_and(|control| control.ends_with("immutable"))
        })
        .then_output(|| CreateMultipartUploadOutput::builder().upload_id("id").build())
}

fn part(number: i32, content: &'static str) -> Rule {
    mock!(Client::upload_part)
        .match_requests(move |request| {
            request.part_number() == Some(number)
                && request.upload_id() == Some("id")
                && request.body().bytes() == Some(content.as_bytes())
        })
        .then_output(move || UploadPartOutput::builder().e_tag(format!("etag {number}")).build())
}

fn completed() -> Rule {
    mock!(Client::complete_multipart_upload)
        .match_requests(|request| {
            let parts = request.multipart_upload().map(|upload| upload.parts()).unwrap_or_default();
            let parts = parts.iter().map(|part| (part.part_number(), part.e_tag()));
            parts.eq([(Some(1), Some("etag 1")), (Some(2), Some("etag 2")), (Some(3), Some("etag 3"))])
        })
        .then_output(|| CompleteMultipartUploadOutput::builder().build())
}

fn aborted() -> Rule {
    mock!(Client::abort_multipart_upload)
        .match_requests(|request| request.upload_id() == Some("id"))
        .then_output(|| AbortMultipartUploadOutput::builder().build())
}

#[tokio::test]
async fn parts_of_a_large_object_are_joined_in_order() {
    let rules = [created(), part(1, "ab"), part(2, "cd"), part(3, "e"), completed(), aborted()];
    put_in_parts(&rules.each_ref(), false).await.unwrap();
    assert_eq!(rules.map(|rule| rule.num_calls()), [1, 1, 1, 1, 1, 0]);
}

#[tokio::test]
async fn a_failed_part_or_content_or_completion_aborts_the_upload() {
    let denied = || ErrorMetadata::builder().code("AccessDenied").message("not yours").build();
    let no_part = mock!(Client::upload_part).then_error(move || UploadPartError::generic(denied()));
    let rules = [created(), no_part, completed(), aborted()];
    let error = put_in_parts(&rules.each_ref(), false).await.unwrap_err();
    let expected = "may not write s3://streams/a.mp4/mp4/1080p.mp4: AccessDenied: not yours";
    assert_eq!((error.to_string().as_str(), error.exit()), (expected, Exit::Misconfigured));
    let [.., completions, aborts] = rules.map(|rule| rule.num_calls());
    assert_eq!((completions, aborts), (0, 1));

    let rules = [created(), part(1, "ab"), part(2, "cd"), part(3, "e"), completed(), aborted()];
    let error = put_in_parts(&rules.each_ref(), true).await.unwrap_err();
    assert!(error.to_string().contains("torn"), "{error}");
    let [.., completions, aborts] = rules.map(|rule| rule.num_calls());
    assert_eq!((completions, aborts), (0, 1));

    let no_completion = mock!(Client::complete_multipart_upload)
        .then_error(move || CompleteMultipartUploadError::generic(denied()));
    let rules = [created(), part(1, "ab"), part(2, "cd"), part(3, "e"), no_completion, aborted()];
    let error = put_in_parts(&rules.each_ref(), false).await.unwrap_err();
    assert_eq!(error.to_string(), expected);
    assert_eq!(rules[5].num_calls(), 1);
}

#[tokio::test]
async fn small_objects_are_written_by_one_request() {
    let whole = mock!(Client::put_object)
        .match_requests(|request| {
            request.key() == Some("a.mp4/mp4/1080p.mp4")
                && request.content_type() == Some("video/mp4")
                && request.body().bytes() == Some(b"abcde")
        })
        .then_output(|| PutObjectOutput::builder().build());
    let rules = [whole, created(), aborted()];
    let store = bucket(&rules.each_ref());
    store.put_stream(PATH, MP4, PART_BYTES, content(false)).await.unwrap();
    assert_eq!(rules.each_ref().map(|rule| rule.num_calls()), [1, 0, 0]);
    assert!(store.put_stream(PATH, MP4, PART_BYTES + 1, content(true)).await.is_err());
    assert_eq!(rules.map(|rule| rule.num_calls()), [1, 1, 1]);
}

#[tokio::test]
async fn a_status_object_is_written_without_retries() {
    let busy = || {
        let after_two = mock!(Client::put_object).sequence().http_status(503, None).times(2);
        after_two.output(|| PutObjectOutput::builder().build()).build()
    };
    let retried = busy();
    let store = bucket(&[&retried]);
    store.put("job.json", CachePolicy::Replaceable(JSON), Bytes::new()).await.unwrap();
    assert_eq!(retried.num_calls(), 3);

    let single = busy();
    let Bucket { client, name: bucket, .. } = in_bucket(&[&single]);
    let status = StatusObject { client, bucket, key: ".vidstreamx/progress/1.json".into() };
    let error = status.put(Bytes::new()).await.unwrap_err();
    let expected = "cannot write s3://streams/.vidstreamx/progress/1.json: ";
    assert!(error.to_string().starts_with(expected), "{error}");
    assert_eq!(single.num_calls(), 1);
}

#[tokio::test]
async fn tags_list_a_folder_with_the_tags_of_its_writes() {
    let object = |key: &str, tag: &str| Object::builder().key(key).e_tag(tag).build();
    let wrote = mock!(Client::put_object).then_output(|| PutObjectOutput::builder().e_tag("\"1\"").build());
    let first = mock!(Client::list_objects_v2)
        .match_requests(|request| {
            request.prefix() == Some("a.mp4/job/plan/") && request.continuation_token().is_none()
        })
        .then_output(move || {
            let page = ListObjectsV2Output::builder().is_truncated(true).next_continuation_token("more");
            page.contents(object("a.mp4/job/plan/video/1", "\"1\"")).build()
        });
    let second = mock!(Client::list_objects_v2)
        .match_requests(|request| request.continuation_token() == Some("more"))
        .then_output(move || {
            ListObjectsV2Output::builder().contents(object("a.mp4/job/plan/video/2", "\"2\"")).build()
        });
    let store = bucket(&[&wrote, &first, &second]);
    let tag = store.put("job/plan/video/1", MP4, Bytes::new()).await.unwrap();
    let tags = store.tags("job/plan").await.unwrap();
    assert_eq!((tags.len(), &tags["job/plan/video/1"]), (2, &tag));
    assert_ne!(tags["job/plan/video/2"], tag);
}

#[tokio::test]
async fn tags_of_files_follow_their_content_and_skip_links() {
    let (folder, store) = folder_store();
    assert!(store.tags("job").await.unwrap().is_empty());
    let tag = store.put("job/video/1", MP4, "content".into()).await.unwrap();
    store.put("other/video/1", MP4, "content".into()).await.unwrap();
    // Reading this link would never end.
    std::os::unix::fs::symlink("/dev/zero", folder.path().join("job/link")).unwrap();
    assert_eq!(store.tags("job").await.unwrap(), HashMap::from([("job/video/1".to_owned(), tag.clone())]));
    std::fs::write(folder.path().join("job/video/1"), "changed").unwrap();
    assert_ne!(store.tags("job").await.unwrap()["job/video/1"], tag);
}

#[tokio::test]
async fn a_file_appears_only_when_it_is_whole() {
    let (folder, store) = folder_store();
    assert!(store.put_stream(PATH, MP4, 5, content(true)).await.is_err());
    assert_eq!(std::fs::read_dir(folder.path().join("mp4")).unwrap().count(), 0);
    store.put_stream(PATH, MP4, 5, content(false)).await.unwrap();
    assert_eq!(store.get(PATH).await.unwrap().unwrap(), "abcde");
}

#[test]
fn part_sizes_stay_within_s3s_limits() {
    for size in [1, 17 << 20, 156 << 30, 157 << 30, 5 << 40] {
        let part = part_bytes(size);
        assert!((5 << 20..=5 << 30).contains(&part) && size.div_ceil(part) <= 10_000, "{size}");
    }
}

proptest! {
    #[test]
    fn parts_hold_the_content_in_equal_sizes(
        outputs in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..20),
        part_bytes in 1_usize..30,
    ) {
        let content = stream::iter(outputs.clone().into_iter().map(|output| Ok::<_, ()>(output.into())));
        let parts: Vec<Bytes> =
            futures::executor::block_on(parts(content, part_bytes).try_collect()).unwrap();
        prop_assert_eq!(parts.concat(), outputs.concat());
        if let Some((last, others)) = parts.split_last() {
            prop_assert!(others.iter().all(|part| part.len() == part_bytes));
            prop_assert!(!last.is_empty() && last.len() <= part_bytes);
        }
    }
}
