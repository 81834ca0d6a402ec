//! Reads the source object in chunks, several at a time, and delivers them in order. Prefetch grows only
//! while reads stay sequential.
//!
//! FFmpeg opens a new connection for each seek: to the index at a file's end, and constantly if audio and
//! video are interleaved far apart. So a read begins with small chunks, and a cache keeps the latest chunks,
//! complete or in flight, for the next read. A chunk is delivered when it is complete.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures::{
    FutureExt, Stream, TryStreamExt,
    future::{BoxFuture, Shared},
    stream,
};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;
use vidstreamx_job::Backoff;

use crate::{
    source::object::PinnedObject,
    store::{S3Error, s3::READ},
};

/// Size of the first chunk and of the smallest request: 16 s of audio, or half a second of a camera's video.
/// S3 needs longer to begin the response than to send this much (documented: 100 to 200 ms; 85 MB/s).
const MIN_CHUNK: u64 = 256 << 10;
/// With four requests in flight this allows 75 MB/s if S3 needs 80 ms for each.
const MAX_CHUNK: u64 = 1536 << 10;
/// Chunks in flight: enough to hide S3's latency, few enough to bound memory.
const CHUNKS_AHEAD: u64 = 4;
/// Most bytes that one read has requested and not delivered.
const MAX_PREFETCH: u64 = CHUNKS_AHEAD * MAX_CHUNK;
/// Size of the cache of latest chunks: the prefetch of one read, or two or three places between which FFmpeg
/// seeks.
const CACHE_BYTES: u64 = 8 << 20;
/// A request that is incomplete after this time has stalled, so the rest of its chunk is requested again. S3
/// usually needs a tenth of a second.
const REQUEST_LIMIT: Duration = Duration::from_secs(20);
/// Consecutive requests without a byte before a read fails. With the pauses between them this is half a
/// minute of refusals, or three and a half minutes without a response.
const READ_TRIES: u32 = 9;
/// Pauses between requests without progress. The longest is the SDK's. The retry loop is written by hand,
/// because its count restarts with each byte received.
const BACKOFF: Backoff = Backoff { first: Duration::from_millis(200), longest: Duration::from_secs(20) };

/// A reader of the source object. Clones share the cache of latest chunks.
#[derive(Debug, Clone)]
pub(crate) struct Reader {
    object: PinnedObject,
    cache: Arc<Mutex<ChunkCache>>,
}

impl Reader {
    pub(crate) fn new(object: PinnedObject) -> Self {
        Self { object, cache: Arc::default() }
    }

    pub(crate) fn object(&self) -> &PinnedObject {
        &self.object
    }

    /// A stream of the bytes `start..end`, which the caller may drop at any time. It sends requests only when
    /// polled.
    pub(crate) fn stream(&self, start: u64, end: u64) -> impl Stream<Item = Result<Bytes, S3Error>> + use<> {
        self.chunks(ReadWindow { next: start, end, taken: 0 })
    }

    /// The bytes `start..end`, which must lie in the object.
    ///
    /// # Errors
    /// As for [`PinnedObject::read`], after [`READ_TRIES`] tries without progress.
    pub(crate) async fn bytes(&self, start: u64, end: u64) -> Result<Bytes, S3Error> {
        // The caller needs all bytes, so prefetch starts at its maximum.
        let mut chunks = Box::pin(self.chunks(ReadWindow { next: start, end, taken: MAX_PREFETCH }));
        let Some(first) = chunks.try_next().await? else { return Ok(Bytes::new()) };
        let length = usize::try_from(end.saturating_sub(start)).unwrap_or(usize::MAX);
        if first.len() == length {
            return Ok(first);
        }
        let mut all = BytesMut::with_capacity(length);
        all.extend_from_slice(&first);
        drop(first);
        while let Some(chunk) = chunks.try_next().await? {
            all.extend_from_slice(&chunk);
        }
        Ok(all.freeze())
    }

    fn chunks(&self, window: ReadWindow) -> impl Stream<Item = Result<Bytes, S3Error>> + use<> {
        let state = (self.clone(), window, VecDeque::<ChunkPart>::new());
        stream::try_unfold(state, |(reader, mut window, mut in_flight)| async move {
            while let Some(end) = window.chunk(in_flight.iter().map(|part| part.length).sum()) {
                let part = reader.part(window.next, end);
                window.next += part.length;
                in_flight.push_back(part);
            }
            let Some(part) = in_flight.pop_front() else { return Ok(None) };
            let bytes = part.bytes().await?;
            window.taken = window.taken.saturating_add(bytes.len() as u64);
            Ok(Some((bytes, (reader, window, in_flight))))
        })
    }

    /// The part from `start` to at most `end`: from the cache, or requested up to the next cached chunk.
    fn part(&self, start: u64, end: u64) -> ChunkPart {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(chunk) = cache.over(start) {
            return ChunkPart { start, length: chunk.end.min(end) - start, chunk };
        }
        let end = cache.next_after(start).map_or(end, |next| next.min(end));
        let object = self.object.clone();
        // A task of its own, because a body that is not polled while FFmpeg waits would look stalled.
        let task = AbortOnDropHandle::new(tokio::spawn({
            let object = object.clone();
            async move { fetch(&object, start, end).await }
        }));
        let content =
            async move { task.await.unwrap_or_else(|error| Err(transient(&object, error.to_string()))) };
        let chunk = Chunk { start, end, content: content.boxed().shared() };
        cache.keep(chunk.clone());
        ChunkPart { start, length: end - start, chunk }
    }
}

/// A requested chunk. Dropping its last clone cancels the request.
#[derive(Debug, Clone)]
struct Chunk {
    start: u64,
    end: u64,
    content: Shared<BoxFuture<'static, Result<Bytes, S3Error>>>,
}

/// The part of a chunk that one read needs.
struct ChunkPart {
    start: u64,
    length: u64,
    chunk: Chunk,
}

impl ChunkPart {
    async fn bytes(self) -> Result<Bytes, S3Error> {
        let content = self.chunk.content.await?;
        let from = self.start - self.chunk.start;
        let index = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
        Ok(content.slice(index(from)..index(from + self.length)))
    }
}

/// The position of one read. The bytes delivered so far decide how far it prefetches.
#[derive(Debug, Clone, Copy)]
struct ReadWindow {
    /// Start of the next chunk.
    next: u64,
    /// End of the read.
    end: u64,
    /// Bytes delivered so far.
    taken: u64,
}

impl ReadWindow {
    /// End of the next chunk to request, if any, while `waiting` bytes are requested and not delivered.
    /// Prefetch is at most twice the delivered bytes, in four chunks.
    fn chunk(&self, waiting: u64) -> Option<u64> {
        let ahead = self.taken.saturating_mul(2).clamp(MIN_CHUNK, MAX_PREFETCH);
        let size = (ahead / CHUNKS_AHEAD).clamp(MIN_CHUNK, MAX_CHUNK);
        (self.next < self.end && waiting.saturating_add(size) <= ahead)
            .then(|| self.end.min(self.next.saturating_add(size)))
    }
}

/// The chunks that were requested or used last, the latest at the end.
#[derive(Debug, Default)]
struct ChunkCache(VecDeque<Chunk>);

impl ChunkCache {
    /// The chunk that covers a position, unless its request failed.
    fn over(&mut self, at: u64) -> Option<Chunk> {
        self.0.retain(|chunk| !matches!(chunk.content.peek(), Some(Err(_))));
        let found = self.0.iter().position(|chunk| (chunk.start..chunk.end).contains(&at))?;
        let chunk = self.0.remove(found)?;
        self.0.push_back(chunk.clone());
        Some(chunk)
    }

    /// Start of the next cached chunk.
    fn next_after(&self, at: u64) -> Option<u64> {
        self.0.iter().map(|chunk| chunk.start).filter(|start| *start > at).min()
    }

    fn keep(&mut self, chunk: Chunk) {
        self.0.push_back(chunk);
        while self.0.iter().map(|chunk| chunk.end - chunk.start).sum::<u64>() > CACHE_BYTES {
            self.0.pop_front();
        }
    }
}

/// Fetches a complete chunk. After a broken request the next one continues from the last byte.
async fn fetch(object: &PinnedObject, start: u64, end: u64) -> Result<Bytes, S3Error> {
    let mut chunk = BytesMut::with_capacity(usize::try_from(end - start).unwrap_or_default());
    let mut tries = 0;
    loop {
        let before = chunk.len();
        let problem = match timeout(REQUEST_LIMIT, receive(object, start, end, &mut chunk)).await {
            Ok(Ok(())) => return Ok(chunk.freeze()),
            Ok(Err(error @ S3Error::Transient { .. })) => error,
            Ok(Err(error)) => return Err(error),
            Err(_) => {
                let (came, all) = (chunk.len() - before, end - start - before as u64);
                let limit = REQUEST_LIMIT.as_secs();
                transient(object, format!("{came} of {all} bytes arrived within {limit} seconds"))
            }
        };
        tries = if chunk.len() > before { 1 } else { tries + 1 };
        if tries >= READ_TRIES {
            return Err(problem);
        }
        tracing::debug!("{problem}; retrying");
        tokio::time::sleep(BACKOFF.pause(tries)).await;
    }
}

/// Appends the response of one request to the chunk.
async fn receive(object: &PinnedObject, start: u64, end: u64, chunk: &mut BytesMut) -> Result<(), S3Error> {
    let before = chunk.len();
    let mut body = object.read(start + before as u64, end).await?;
    while let Some(bytes) = body.next().await {
        let bytes = bytes.map_err(|error| transient(object, error.to_string()))?;
        chunk.extend_from_slice(&bytes);
        if chunk.len() as u64 > end - start {
            chunk.truncate(before);
            return Err(transient(object, "the body is longer than the requested range".into()));
        }
    }
    match start + chunk.len() as u64 {
        at if at < end => Err(transient(object, format!("the body ended at byte {at} of {end}"))),
        _ => Ok(()),
    }
}

fn transient(object: &PinnedObject, detail: String) -> S3Error {
    S3Error::Transient { action: READ, object: object.uri(), detail }
}

#[cfg(test)]
mod tests {
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
    async fn refusals_of_seconds_are_retried_and_of_an_hour_are_errors() {
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
}
