use std::sync::{Arc, Mutex};

use aws_sdk_s3::{
    Client,
    operation::get_object::{GetObjectError, GetObjectOutput},
    primitives::ByteStream,
};
use aws_smithy_mocks::{MockResponse, mock};
use aws_smithy_types::error::ErrorMetadata;

use super::{test_track::wrap, *};
use crate::source::{loopback::ServedObject, object::PinnedObject};

/// An object behind the loopback server, and the ranges of its reads. S3 refuses reads from `denied_from` on.
async fn served(bytes: Vec<u8>, denied_from: u64) -> (Input, Arc<Mutex<Vec<(u64, u64)>>>) {
    let size = bytes.len() as u64;
    let ranges = Arc::new(Mutex::new(Vec::new()));
    let seen = ranges.clone();
    let get = mock!(Client::get_object).then_compute_response(move |request| {
        let range = request.range().unwrap().strip_prefix("bytes=").unwrap();
        let (start, last) = range.split_once('-').unwrap();
        let (start, end): (u64, u64) = (start.parse().unwrap(), last.parse::<u64>().unwrap() + 1);
        seen.lock().unwrap().push((start, end));
        if start >= denied_from {
            let meta = ErrorMetadata::builder().code("AccessDenied").message("not yours").build();
            return MockResponse::Error(GetObjectError::generic(meta));
        }
        let body = ByteStream::from(bytes[start as usize..end as usize].to_vec());
        let range = format!("bytes {start}-{last}/{size}");
        MockResponse::Output(GetObjectOutput::builder().content_range(range).body(body).build())
    });
    let object = PinnedObject::of_tests(size, &[&get]).await;
    (Input::Served(ServedObject::start(object).await.unwrap()), ranges)
}

#[tokio::test]
async fn an_objects_index_takes_few_reads() {
    let folder = tempfile::tempdir().unwrap();
    let options = "-c:v libx264 -preset ultrafast -g 50";
    let larger = "-f lavfi -i testsrc2=size=320x240:rate=25:duration=6";
    for (flags, most) in [("+faststart", 1), ("-faststart", 3)] {
        let file = clip(&folder, "clip.mp4", &format!("{larger} {options} -movflags {flags}"));
        let bytes = std::fs::read(&file).unwrap();
        assert!(bytes.len() as u64 > 2 * FIRST_READ);
        let (input, ranges) = served(bytes, u64::MAX).await;
        let read = Index::read(&input).await.unwrap();
        assert_eq!(read, index(&file).await);
        let keyframes = video_of(&read.unwrap()).1.as_ref().unwrap().keyframes.len();
        let ranges = ranges.lock().unwrap();
        assert!(ranges.len() <= most + keyframes, "{ranges:?}");
    }
}

#[tokio::test]
async fn an_unreadable_object_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let file = clip(&folder, "clip.mp4", &format!("{SOURCE} -c:v libx264"));
    let mut bytes = std::fs::read(file).unwrap();
    // This box moves the rest of the file beyond the first read.
    let free = wrap(b"free", &[vec![0; FIRST_READ as usize]]);
    bytes.splice(0..0, free);
    let (input, _) = served(bytes, 1).await;
    let error = Index::read(&input).await.unwrap_err();
    assert_eq!(error.exit(), vidstreamx_job::Exit::Misconfigured, "{error}");
}
