use std::{ops::Range, sync::atomic::AtomicBool, sync::atomic::Ordering};

use aws_sdk_s3::{
    Client,
    operation::get_object::GetObjectOutput,
    primitives::{ByteStream, SdkBody},
};
use aws_smithy_mocks::{Rule, mock};
use futures::StreamExt;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use proptest::prelude::*;
use tokio::time::{Instant, advance};
use vidstreamx_job::Exit;

use super::*;

const SIZE: u64 = 20 << 20;

/// The object's bytes: 251 different values in a cycle.
fn content(range: Range<u64>) -> Bytes {
    range.map(|at| (at % 251) as u8).collect::<Vec<_>>().into()
}

fn requested(range: Option<&str>) -> Range<u64> {
    let (first, last) = range.unwrap().strip_prefix("bytes=").unwrap().split_once('-').unwrap();
    first.parse().unwrap()..last.parse::<u64>().unwrap() + 1
}

fn answer(range: &Range<u64>, body: impl Into<ByteStream>) -> GetObjectOutput {
    let range = format!("bytes {}-{}/{SIZE}", range.start, range.end - 1);
    GetObjectOutput::builder().content_range(range).body(body.into()).build()
}

fn whole() -> Rule {
    mock!(Client::get_object).then_compute_output(|request| {
        let range = requested(request.range());
        answer(&range, content(range.clone()))
    })
}

async fn reader(reads: &Rule) -> Reader {
    Reader::new(PinnedObject::of_tests(SIZE, &[reads]).await)
}

#[tokio::test(start_paused = true)]
async fn chunks_are_complete_and_in_order() {
    let reads = whole();
    let stream = reader(&reads).await.stream(1000, SIZE);
    let chunks: Vec<_> = stream.try_collect().await.unwrap();
    assert!(chunks.concat() == content(1000..SIZE));
    assert_eq!(chunks[0].len() as u64, MIN_CHUNK);
    assert_eq!(chunks.iter().map(Bytes::len).max(), Some(MAX_CHUNK as usize));
    assert_eq!(reads.num_calls(), chunks.len());
}

#[tokio::test(start_paused = true)]
async fn no_request_is_sent_without_a_poll() {
    let reads = whole();
    let mut stream = Box::pin(reader(&reads).await.stream(0, SIZE));
    assert_eq!(reads.num_calls(), 0);
    for _ in 0..20 {
        stream.next().await.unwrap().unwrap();
        // Requests in flight complete.
        advance(Duration::from_secs(1)).await;
        let requested = reads.num_calls();
        // No other request is sent.
        advance(Duration::from_secs(60)).await;
        assert_eq!(reads.num_calls(), requested);
    }
    assert!(reads.num_calls() <= 20 + CHUNKS_AHEAD as usize, "{}", reads.num_calls());
}

#[tokio::test(start_paused = true)]
async fn cached_chunks_are_not_requested_again() {
    let reads = whole();
    let reader = reader(&reads).await;
    let first = async |at: u64| {
        let bytes = Box::pin(reader.stream(at, SIZE)).next().await.unwrap().unwrap();
        assert!(bytes == content(at..at + bytes.len() as u64));
    };
    // Alternate between two places in small steps.
    for step in 0..100 {
        first(step * 1000).await;
        first((10 << 20) + step * 100).await;
    }
    assert_eq!(reads.num_calls(), 2);
    // A gap is requested up to the next cached chunk.
    first((10 << 20) - 5000).await;
    let bytes = reader.bytes((10 << 20) - 5000, (10 << 20) + 5000).await.unwrap();
    assert!(bytes == content((10 << 20) - 5000..(10 << 20) + 5000));
    assert_eq!(reads.num_calls(), 3);
    // A long read evicts older chunks.
    reader.bytes(0, 10 << 20).await.unwrap();
    let calls = reads.num_calls();
    first(10 << 20).await;
    assert_eq!(reads.num_calls(), calls + 1);
}

#[tokio::test(start_paused = true)]
async fn dropping_the_reader_cancels_its_requests() {
    let reads = mock!(Client::get_object).then_compute_output(|request| {
        let body = StreamBody::new(stream::pending::<Result<Frame<Bytes>, std::io::Error>>());
        answer(&requested(request.range()), SdkBody::from_body_1_x(BodyExt::boxed(body)))
    });
    let reader = reader(&reads).await;
    assert!(timeout(Duration::from_secs(1), reader.bytes(0, SIZE)).await.is_err());
    assert_eq!(reads.num_calls(), CHUNKS_AHEAD as usize);
    drop(reader);
    advance(Duration::from_secs(600)).await;
    assert_eq!(reads.num_calls(), CHUNKS_AHEAD as usize);
}

#[tokio::test(start_paused = true)]
async fn a_stalled_body_is_requested_again_from_its_last_byte() {
    let stalled = AtomicBool::new(false);
    let reads = mock!(Client::get_object).then_compute_output(move |request| {
        let range = requested(request.range());
        if stalled.swap(true, Ordering::Relaxed) {
            assert_eq!(range, 2000..5000);
            return answer(&range, content(range.clone()));
        }
        let begun = stream::iter([Ok(Frame::data(content(1000..2000)))]);
        let body = StreamBody::new(begun.chain(stream::pending::<Result<_, std::io::Error>>()));
        answer(&range, SdkBody::from_body_1_x(BodyExt::boxed(body)))
    });
    let started = Instant::now();
    let bytes = reader(&reads).await.bytes(1000, 5000).await.unwrap();
    assert!(bytes == content(1000..5000));
    assert_eq!(reads.num_calls(), 2);
    assert!((20..25).contains(&started.elapsed().as_secs()), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_response_with_another_range_is_not_delivered() {
    let other = mock!(Client::get_object).then_output(|| answer(&(0..1000), content(0..1000)));
    let no_range = mock!(Client::get_object)
        .then_output(|| GetObjectOutput::builder().body(content(0..1000).into()).build());
    let longer = mock!(Client::get_object).then_output(|| answer(&(1000..2000), content(1000..2001)));
    let nothing = mock!(Client::get_object).then_output(|| answer(&(1000..2000), Bytes::new()));
    for (reads, complaint) in [
        (other, "requested bytes 1000-1999 of 20971520, got bytes 0-999/20971520"),
        (no_range, "requested bytes 1000-1999 of 20971520, got the whole object"),
        (longer, "the body is longer than the requested range"),
        (nothing, "the body ended at byte 1000 of 2000"),
    ] {
        let reader = reader(&reads).await;
        let error = reader.bytes(1000, 2000).await.unwrap_err();
        let expected = format!("cannot read s3://uploads/a.mp4: {complaint}");
        assert_eq!((error.to_string(), error.exit()), (expected, Exit::Transient));
        assert_eq!(reads.num_calls(), READ_TRIES as usize);
        // A failed chunk is not cached.
        reader.bytes(1500, 2000).await.unwrap_err();
        assert_eq!(reads.num_calls(), 2 * READ_TRIES as usize);
    }
}

#[tokio::test(start_paused = true)]
async fn short_refusals_are_retried_and_long_refusals_are_errors() {
    for (code, minutes, expected) in [(503, 0.3, true), (500, 0.3, true), (503, 60.0, false)] {
        let begun = Instant::now();
        let refused = mock!(Client::get_object)
            .match_requests(move |_| begun.elapsed().as_secs_f64() < minutes * 60.0)
            .then_http_response(move || {
                aws_sdk_s3::config::http::HttpResponse::new(code.try_into().unwrap(), SdkBody::empty())
            });
        let then = whole();
        let reader = Reader::new(PinnedObject::of_tests(SIZE, &[&refused, &then]).await);
        assert_eq!(reader.bytes(0, 10).await.is_ok(), expected, "{code} for {minutes} minutes");
        assert!(begun.elapsed() < Duration::from_secs(300));
    }
}

proptest! {
    /// Models a reader that takes each chunk as it arrives.
    #[test]
    fn a_read_is_requested_in_order_with_bounded_prefetch(
        start in 0..40_u64 << 20,
        length in 0..40_u64 << 20,
        // Sizes to which the cache shortens requests.
        kept in prop::collection::vec(1..=MAX_CHUNK, 1..5),
    ) {
        let mut window = ReadWindow { next: start, end: start + length, taken: 0 };
        let mut in_flight = VecDeque::new();
        let mut kept = kept.into_iter().cycle();
        loop {
            while let Some(end) = window.chunk(in_flight.iter().sum()) {
                prop_assert!(end > window.next && end <= start + length);
                prop_assert!(end - window.next <= MAX_CHUNK);
                let got = (end - window.next).min(kept.next().unwrap());
                window.next += got;
                in_flight.push_back(got);
            }
            let waiting: u64 = in_flight.iter().sum();
            prop_assert!(waiting <= MAX_PREFETCH && waiting <= MIN_CHUNK.max(2 * window.taken));
            let Some(taken) = in_flight.pop_front() else { break };
            window.taken += taken;
        }
        prop_assert_eq!((window.next, window.taken), (start + length, length));
    }
}
