use std::ops::Range;

use aws_sdk_s3::primitives::ByteStream;
use aws_smithy_mocks::{Rule, RuleMode, mock, mock_client};

use super::*;
use crate::{
    fixtures,
    inspect::{header_walk::MOST_READS, samples::*},
};

fn source(version_id: Option<&str>, size: Option<u64>) -> Source {
    Source { version_id: version_id.map(str::to_owned), size, ..fixtures::source("a.mp4") }
}

fn client(rules: &[&Rule]) -> Client {
    mock_client!(aws_sdk_s3, RuleMode::MatchAny, rules)
}

/// S3's response to a GET request with a range.
fn part(object: &Object, range: Range<u64>) -> GetObjectOutput {
    let bytes = object.read(range.clone());
    GetObjectOutput::builder()
        .e_tag("\"e\"")
        .version_id("v")
        .content_range(format!(
            "bytes {}-{}/{}",
            range.start,
            range.start + bytes.len() as u64 - 1,
            object.bytes
        ))
        .content_length(bytes.len() as i64)
        .body(ByteStream::from(bytes))
        .build()
}

fn refusal(http: u16, code: &str) -> Rule {
    let body = format!("<Error><Code>{code}</Code><Message>m</Message></Error>");
    mock!(Client::get_object).sequence().http_status(http, Some(body)).repeatedly().build()
}

fn at_end() -> Object {
    let header = moov(&[mvhd(60_000), trak(b"mp4a", None, 9, 9), trak(b"avc1", FULL_HD, 1500, 9)]);
    Object::new([ftyp(b"isom"), mdat(5 << 30)].concat()).then(5 << 30, header)
}

#[tokio::test]
async fn later_reads_require_the_etag_of_the_first() {
    let object = at_end();
    let second = object.parts[1].0..object.bytes;
    let (start, header) = (object.clone(), object.clone());
    let first = mock!(Client::get_object)
        .match_requests(|get| {
            get.range() == Some("bytes=0-16383") && get.if_match().is_none() && get.version_id().is_none()
        })
        .then_output(move || part(&start, Walk::FIRST));
    let range = format!("bytes={}-{}", second.start, second.end - 1);
    let second = mock!(Client::get_object)
        .match_requests(move |get| {
            get.range() == Some(range.as_str())
                && get.if_match() == Some("\"e\"")
                && get.version_id().is_none()
        })
        .then_output(move || part(&header, second.clone()));
    let client = client(&[&first, &second]);
    for version_id in [None, Some("v")] {
        let found = inspect(&client, &source(version_id, None)).await;
        assert_eq!(found, Ok(Inspection::Video(expected("h264", Some(true)))));
    }
    assert_eq!((first.num_calls(), second.num_calls()), (2, 2));
}

#[tokio::test]
async fn replaced_and_deleted_objects_are_not_errors() {
    let rule = mock!(Client::get_object).then_output(|| part(&at_end(), Walk::FIRST));
    let other = Source { etag: Some("f".into()), ..source(None, None) };
    for source in [source(Some("w"), None), other] {
        assert_eq!(inspect(&client(&[&rule]), &source).await, Ok(Inspection::Replaced));
    }
    let empty = || Ok(Inspection::NotVideo("the file is empty".into()));
    for (http, code, size, expected) in [
        (404, "NoSuchKey", None, Ok(Inspection::Gone)),
        (412, "PreconditionFailed", None, Ok(Inspection::Replaced)),
        (416, "InvalidRange", None, empty()),
        (416, "InvalidRange", Some(0), empty()),
        (416, "InvalidRange", Some(9), Ok(Inspection::Replaced)),
        (404, "NoSuchBucket", None, Err(true)),
        (403, "AccessDenied", None, Err(true)),
        (400, "ExpiredToken", None, Err(false)),
    ] {
        let found = inspect(&client(&[&refusal(http, code)]), &source(None, size)).await;
        assert_eq!(found.map_err(|error| error.is_configuration()), expected, "{code}");
    }
}

#[tokio::test]
async fn a_replacement_between_two_reads_is_detected() {
    let first = mock!(Client::get_object)
        .match_requests(|get| get.if_match().is_none())
        .then_output(|| part(&at_end(), Walk::FIRST));
    for (http, code, expected) in
        [(412, "PreconditionFailed", Inspection::Replaced), (404, "NoSuchKey", Inspection::Gone)]
    {
        let found = inspect(&client(&[&first, &refusal(http, code)]), &source(None, None)).await;
        assert_eq!(found, Ok(expected));
    }
}

#[tokio::test]
async fn only_the_first_read_detects_an_empty_file() {
    let first = mock!(Client::get_object)
        .match_requests(|get| get.if_match().is_none())
        .then_output(|| part(&at_end(), Walk::FIRST));
    let found = inspect(&client(&[&first, &refusal(416, "InvalidRange")]), &source(None, None)).await;
    assert!(matches!(found, Err(CallError::Passing { .. })), "{found:?}");
    for range in [None, Some("bytes 0-15/*"), Some("nonsense")] {
        let rule = mock!(Client::get_object).then_output(move || {
            let head = ByteStream::from(ftyp(b"isom"));
            GetObjectOutput::builder()
                .e_tag("\"e\"")
                .set_content_range(range.map(str::to_owned))
                .body(head)
                .build()
        });
        let found = inspect(&client(&[&rule]), &source(None, None)).await;
        assert!(matches!(found, Ok(Inspection::Video(_))), "{range:?}: {found:?}");
    }
}

#[tokio::test]
async fn a_response_without_range_is_read_up_to_the_limit() {
    let rule = mock!(Client::get_object).then_output(|| {
        let whole = at_end().read(0..1 << 20);
        GetObjectOutput::builder()
            .e_tag("\"e\"")
            .content_length(at_end().bytes as i64)
            .body(ByteStream::from(whole))
            .build()
    });
    let Ok(Inspection::Video(found)) = inspect(&client(&[&rule]), &source(None, None)).await else {
        panic!()
    };
    assert_eq!((found.container, found.codec), (Some("MP4"), None));
    assert_eq!(rule.num_calls(), MOST_READS);
}

#[tokio::test]
async fn a_document_is_rejected_after_one_read() {
    let pdf = Object::new(b"%PDF-1.7\n\xe2\xe3\xcf\xd3".to_vec());
    let rule = mock!(Client::get_object).then_output(move || part(&pdf, Walk::FIRST));
    let reason = "the file is a document (PDF), not a video".to_owned();
    assert_eq!(inspect(&client(&[&rule]), &source(None, None)).await, Ok(Inspection::NotVideo(reason)));
    assert_eq!(rule.num_calls(), 1);
}
