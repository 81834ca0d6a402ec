//! Reads the source object in chunks: several at a time, handed on in order, and no further ahead than whoever reads
//! has shown to be worth it.
//!
//! FFmpeg hangs up and asks anew for every seek: for the index at a file's end, and without end where sound and
//! picture lie far apart. So a reading begins small, and the chunks that were asked for last are kept for whoever comes
//! next, whether they are here or still on their way. A chunk is passed on when it is whole.

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

use crate::{
    source::object::PinnedObject,
    store::{S3Error, s3::READ},
};

/// The first chunk of a reading, and the least that is asked for: 16 s of sound, half a second of a camera's picture.
/// S3 takes longer to begin than to send this (docs: 100 to 200 ms; 85 MB/s).
const FIRST_CHUNK: u64 = 256 << 10;
/// With four on their way this is 75 MB/s if S3 takes 80 ms for each.
const LARGEST_CHUNK: u64 = 1536 << 10;
/// Chunks on their way at a time: enough to hide the time until S3 begins, few enough to bound memory.
const CHUNKS_AHEAD: u64 = 4;
/// The most that one reading has asked for and nobody has taken.
const MOST_AHEAD: u64 = CHUNKS_AHEAD * LARGEST_CHUNK;
/// Of what was asked for or used last, this much is kept: what a reading is ahead, or two or three places to which
/// FFmpeg goes to and fro.
const MOST_KEPT: u64 = 8 << 20;
/// A request that has not brought its chunk by then has stalled, or is too slow: the rest is asked for anew. S3 takes
/// a tenth of a second.
const REQUEST_LIMIT: Duration = Duration::from_secs(20);
/// Requests in a row without a byte. With the pauses between them that is half a minute of refusals, or three and a
/// half of silence.
const READ_TRIES: u32 = 9;
/// Before the second try; doubles with every further one.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// As the SDK's.
const LONGEST_PAUSE: Duration = Duration::from_secs(20);

/// A source object to read from; clones share what was asked for last.
#[derive(Debug, Clone)]
pub struct Reader {
    object: PinnedObject,
    recent: Arc<Mutex<ChunkCache>>,
}

impl Reader {
    /// Nothing is read yet.
    pub fn new(object: PinnedObject) -> Self {
        Self { object, recent: Arc::default() }
    }

    /// What is read.
    pub fn object(&self) -> &PinnedObject {
        &self.object
    }

    /// The bytes from `start` up to and without `end`, of which nobody knows how many will be taken. While it
    /// is not polled, nothing more is asked for.
    pub fn stream(&self, start: u64, end: u64) -> impl Stream<Item = Result<Bytes, S3Error>> + use<> {
        self.chunks(ReadWindow { next: start, end, taken: 0 })
    }

    /// The bytes from `start` up to and without `end`, which lie in the object.
    ///
    /// # Errors
    /// As [`PinnedObject::read`], after as many tries as make sense.
    pub async fn bytes(&self, start: u64, end: u64) -> Result<Bytes, S3Error> {
        // All of it is wanted, so all of it counts as taken.
        let mut chunks = Box::pin(self.chunks(ReadWindow { next: start, end, taken: MOST_AHEAD }));
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

    fn chunks(&self, demand: ReadWindow) -> impl Stream<Item = Result<Bytes, S3Error>> + use<> {
        let state = (self.clone(), demand, VecDeque::<Part>::new());
        stream::try_unfold(state, |(reader, mut demand, mut coming)| async move {
            while let Some(end) = demand.chunk(coming.iter().map(|part| part.length).sum()) {
                let part = reader.part(demand.next, end);
                demand.next += part.length;
                coming.push_back(part);
            }
            let Some(part) = coming.pop_front() else { return Ok(None) };
            let bytes = part.bytes().await?;
            demand.taken = demand.taken.saturating_add(bytes.len() as u64);
            Ok(Some((bytes, (reader, demand, coming))))
        })
    }

    /// What begins at `start` and goes no further than `end`: of what is kept, or asked for up to what is kept.
    fn part(&self, start: u64, end: u64) -> Part {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(chunk) = recent.over(start) {
            return Part { start, length: chunk.end.min(end) - start, chunk };
        }
        let end = recent.next_after(start).map_or(end, |next| next.min(end));
        let object = self.object.clone();
        // A task of its own: a body that is not read while FFmpeg waits would look as if it had stalled.
        let task = AbortOnDropHandle::new(tokio::spawn({
            let object = object.clone();
            async move { fetch(&object, start, end).await }
        }));
        let content =
            async move { task.await.unwrap_or_else(|error| Err(trouble(&object, error.to_string()))) };
        let chunk = Chunk { start, end, content: content.boxed().shared() };
        recent.keep(chunk.clone());
        Part { start, length: end - start, chunk }
    }
}

/// A chunk that was asked for. The request ends with the last of its clones.
#[derive(Debug, Clone)]
struct Chunk {
    start: u64,
    end: u64,
    content: Shared<BoxFuture<'static, Result<Bytes, S3Error>>>,
}

/// What a reading wants of a chunk.
struct Part {
    start: u64,
    length: u64,
    chunk: Chunk,
}

impl Part {
    async fn bytes(self) -> Result<Bytes, S3Error> {
        let content = self.chunk.content.await?;
        let from = self.start - self.chunk.start;
        let index = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
        Ok(content.slice(index(from)..index(from + self.length)))
    }
}

/// What a reader has taken, from which follows how much it is worth asking for ahead of it.
#[derive(Debug, Clone, Copy)]
struct ReadWindow {
    /// Where the next chunk begins.
    next: u64,
    /// Where the reading ends.
    end: u64,
    /// Bytes handed on so far.
    taken: u64,
}

impl ReadWindow {
    /// Where the next chunk ends, if one should be asked for while `waiting` bytes are asked for and not taken: at most
    /// twice of what was taken, in four pieces.
    fn chunk(&self, waiting: u64) -> Option<u64> {
        let ahead = self.taken.saturating_mul(2).clamp(FIRST_CHUNK, MOST_AHEAD);
        let size = (ahead / CHUNKS_AHEAD).clamp(FIRST_CHUNK, LARGEST_CHUNK);
        (self.next < self.end && waiting.saturating_add(size) <= ahead)
            .then(|| self.end.min(self.next.saturating_add(size)))
    }
}

/// The chunks that were asked for or used last, the latest one at the end.
#[derive(Debug, Default)]
struct ChunkCache(VecDeque<Chunk>);

impl ChunkCache {
    /// The chunk that has a place in it, unless it could not be read.
    fn over(&mut self, at: u64) -> Option<Chunk> {
        self.0.retain(|chunk| !matches!(chunk.content.peek(), Some(Err(_))));
        let found = self.0.iter().position(|chunk| (chunk.start..chunk.end).contains(&at))?;
        let chunk = self.0.remove(found)?;
        self.0.push_back(chunk.clone());
        Some(chunk)
    }

    /// Where the next chunk that is kept begins.
    fn next_after(&self, at: u64) -> Option<u64> {
        self.0.iter().map(|chunk| chunk.start).filter(|start| *start > at).min()
    }

    fn keep(&mut self, chunk: Chunk) {
        self.0.push_back(chunk);
        while self.0.iter().map(|chunk| chunk.end - chunk.start).sum::<u64>() > MOST_KEPT {
            self.0.pop_front();
        }
    }
}

/// A chunk, whole; where a request breaks off, the next one goes on.
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
                trouble(object, format!("{came} bytes of {all} came within {limit} seconds"))
            }
        };
        tries = if chunk.len() > before { 1 } else { tries + 1 };
        if tries >= READ_TRIES {
            return Err(problem);
        }
        tracing::debug!("{problem}; trying again");
        tokio::time::sleep(pause(tries)).await;
    }
}

/// Adds to the chunk what one request brings.
async fn receive(object: &PinnedObject, start: u64, end: u64, chunk: &mut BytesMut) -> Result<(), S3Error> {
    let before = chunk.len();
    let mut body = object.read(start + before as u64, end).await?;
    while let Some(bytes) = body.next().await {
        let bytes = bytes.map_err(|error| trouble(object, error.to_string()))?;
        chunk.extend_from_slice(&bytes);
        if chunk.len() as u64 > end - start {
            chunk.truncate(before);
            return Err(trouble(object, "the body is longer than what was asked for".into()));
        }
    }
    match start + chunk.len() as u64 {
        at if at < end => Err(trouble(object, format!("the body ended at byte {at} of {end}"))),
        _ => Ok(()),
    }
}

/// After this many tries. Jittered, so that tasks that were refused together do not come again together.
fn pause(tries: u32) -> Duration {
    let pause = FIRST_PAUSE.saturating_mul(1 << tries.saturating_sub(1).min(16)).min(LONGEST_PAUSE);
    pause.mul_f64(0.5 + fastrand::f64() / 2.0)
}

fn trouble(object: &PinnedObject, detail: String) -> S3Error {
    S3Error::Transient { action: READ, object: object.uri(), detail }
}

#[cfg(test)]
mod tests {
    use std::{ops::Range, sync::atomic::AtomicBool, sync::atomic::Ordering};

    use aws_sdk_s3::{
        Client,
        operation::{get_object::GetObjectOutput, head_object::HeadObjectOutput},
        primitives::{ByteStream, SdkBody},
    };
    use aws_smithy_mocks::{Rule, RuleMode, mock, mock_client};
    use futures::StreamExt;
    use http_body_util::{BodyExt, StreamBody};
    use hyper::body::Frame;
    use proptest::prelude::*;
    use tokio::time::{Instant, advance};
    use vidstreamx_job::Exit;

    use super::*;

    const SIZE: u64 = 20 << 20;

    /// The object's bytes: no two of 251 in a row are alike.
    fn content(range: Range<u64>) -> Bytes {
        range.map(|at| (at % 251) as u8).collect::<Vec<_>>().into()
    }

    fn asked(range: Option<&str>) -> Range<u64> {
        let (first, last) = range.unwrap().strip_prefix("bytes=").unwrap().split_once('-').unwrap();
        first.parse().unwrap()..last.parse::<u64>().unwrap() + 1
    }

    fn answer(range: &Range<u64>, body: impl Into<ByteStream>) -> GetObjectOutput {
        let range = format!("bytes {}-{}/{SIZE}", range.start, range.end - 1);
        GetObjectOutput::builder().content_range(range).body(body.into()).build()
    }

    fn whole() -> Rule {
        mock!(Client::get_object).then_compute_output(|request| {
            let range = asked(request.range());
            answer(&range, content(range.clone()))
        })
    }

    async fn reader(reads: &Rule) -> Reader {
        let head = mock!(Client::head_object)
            .then_output(|| HeadObjectOutput::builder().e_tag("\"abc\"").content_length(SIZE as i64).build());
        let client = mock_client!(aws_sdk_s3, RuleMode::MatchAny, [&head, reads]);
        Reader::new(PinnedObject::of_tests(client).await)
    }

    #[tokio::test(start_paused = true)]
    async fn chunks_come_in_order_and_whole() {
        let reads = whole();
        let stream = reader(&reads).await.stream(1000, SIZE);
        let chunks: Vec<_> = stream.try_collect().await.unwrap();
        assert!(chunks.concat() == content(1000..SIZE));
        assert_eq!(chunks[0].len() as u64, FIRST_CHUNK);
        assert_eq!(chunks.iter().map(Bytes::len).max(), Some(LARGEST_CHUNK as usize));
        assert_eq!(reads.num_calls(), chunks.len());
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_asked_for_that_nobody_waits_for() {
        let reads = whole();
        let mut stream = Box::pin(reader(&reads).await.stream(0, SIZE));
        assert_eq!(reads.num_calls(), 0);
        for _ in 0..20 {
            stream.next().await.unwrap().unwrap();
            // What is on its way arrives…
            advance(Duration::from_secs(1)).await;
            let asked = reads.num_calls();
            // …and that is all.
            advance(Duration::from_secs(60)).await;
            assert_eq!(reads.num_calls(), asked);
        }
        assert!(reads.num_calls() <= 20 + CHUNKS_AHEAD as usize, "{}", reads.num_calls());
    }

    #[tokio::test(start_paused = true)]
    async fn what_came_last_is_not_asked_for_again() {
        let reads = whole();
        let reader = reader(&reads).await;
        let first = async |at: u64| {
            let bytes = Box::pin(reader.stream(at, SIZE)).next().await.unwrap().unwrap();
            assert!(bytes == content(at..at + bytes.len() as u64));
        };
        // To and fro between two places, forward by little.
        for step in 0..100 {
            first(step * 1000).await;
            first((10 << 20) + step * 100).await;
        }
        assert_eq!(reads.num_calls(), 2);
        // What lies in between is asked for up to what is there.
        first((10 << 20) - 5000).await;
        let bytes = reader.bytes((10 << 20) - 5000, (10 << 20) + 5000).await.unwrap();
        assert!(bytes == content((10 << 20) - 5000..(10 << 20) + 5000));
        assert_eq!(reads.num_calls(), 3);
        // But not for long.
        reader.bytes(0, 10 << 20).await.unwrap();
        let calls = reads.num_calls();
        first(10 << 20).await;
        assert_eq!(reads.num_calls(), calls + 1);
    }

    #[tokio::test(start_paused = true)]
    async fn requests_end_with_those_who_want_them() {
        let reads = mock!(Client::get_object).then_compute_output(|request| {
            let body = StreamBody::new(stream::pending::<Result<Frame<Bytes>, std::io::Error>>());
            answer(&asked(request.range()), SdkBody::from_body_1_x(BodyExt::boxed(body)))
        });
        let reader = reader(&reads).await;
        assert!(timeout(Duration::from_secs(1), reader.bytes(0, SIZE)).await.is_err());
        assert_eq!(reads.num_calls(), CHUNKS_AHEAD as usize);
        drop(reader);
        advance(Duration::from_secs(600)).await;
        assert_eq!(reads.num_calls(), CHUNKS_AHEAD as usize);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stalls_is_asked_for_anew_from_where_it_did() {
        let stalled = AtomicBool::new(false);
        let reads = mock!(Client::get_object).then_compute_output(move |request| {
            let range = asked(request.range());
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
    async fn an_answer_that_is_not_what_was_asked_for_is_never_passed_on() {
        let other = mock!(Client::get_object).then_output(|| answer(&(0..1000), content(0..1000)));
        let no_range = mock!(Client::get_object)
            .then_output(|| GetObjectOutput::builder().body(content(0..1000).into()).build());
        let longer = mock!(Client::get_object).then_output(|| answer(&(1000..2000), content(1000..2001)));
        let nothing = mock!(Client::get_object).then_output(|| answer(&(1000..2000), Bytes::new()));
        for (reads, complaint) in [
            (other, "asked for bytes 1000-1999 of 20971520, got bytes 0-999/20971520"),
            (no_range, "asked for bytes 1000-1999 of 20971520, got the whole object"),
            (longer, "the body is longer than what was asked for"),
            (nothing, "the body ended at byte 1000 of 2000"),
        ] {
            let reader = reader(&reads).await;
            let error = reader.bytes(1000, 2000).await.unwrap_err();
            let expected = format!("cannot read s3://uploads/a.mp4: {complaint}");
            assert_eq!((error.to_string(), error.exit()), (expected, Exit::Transient));
            assert_eq!(reads.num_calls(), READ_TRIES as usize);
            // What could not be read is not kept.
            reader.bytes(1500, 2000).await.unwrap_err();
            assert_eq!(reads.num_calls(), 2 * READ_TRIES as usize);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn refusals_for_some_seconds_are_overcome_and_for_an_hour_are_not() {
        for (code, minutes, expected) in [(503, 0.3, true), (500, 0.3, true), (503, 60.0, false)] {
            let begun = Instant::now();
            let refused = mock!(Client::get_object)
                .match_requests(move |_| begun.elapsed().as_secs_f64() < minutes * 60.0)
                .then_http_response(move || {
                    aws_sdk_s3::config::http::HttpResponse::new(code.try_into().unwrap(), SdkBody::empty())
                });
            let then = whole();
            let head = mock!(Client::head_object)
                .then_output(|| HeadObjectOutput::builder().content_length(SIZE as i64).build());
            let client = mock_client!(aws_sdk_s3, RuleMode::MatchAny, [&head, &refused, &then]);
            let reader = Reader::new(PinnedObject::of_tests(client).await);
            assert_eq!(reader.bytes(0, 10).await.is_ok(), expected, "{code} for {minutes} minutes");
            assert!(begun.elapsed() < Duration::from_secs(300));
        }
    }

    proptest! {
        /// A reader that takes chunks one by one, as they come.
        #[test]
        fn a_reading_is_asked_for_in_order_to_its_end_and_never_far_ahead(
            start in 0..40_u64 << 20,
            length in 0..40_u64 << 20,
            // How much of what is asked for comes out of what is kept.
            kept in prop::collection::vec(1..=LARGEST_CHUNK, 1..5),
        ) {
            let mut demand = ReadWindow { next: start, end: start + length, taken: 0 };
            let mut coming = VecDeque::new();
            let mut kept = kept.into_iter().cycle();
            loop {
                while let Some(end) = demand.chunk(coming.iter().sum()) {
                    prop_assert!(end > demand.next && end <= start + length);
                    prop_assert!(end - demand.next <= LARGEST_CHUNK);
                    let got = (end - demand.next).min(kept.next().unwrap());
                    demand.next += got;
                    coming.push_back(got);
                }
                let waiting: u64 = coming.iter().sum();
                prop_assert!(waiting <= MOST_AHEAD && waiting <= FIRST_CHUNK.max(2 * demand.taken));
                let Some(taken) = coming.pop_front() else { break };
                demand.taken += taken;
            }
            prop_assert_eq!((demand.next, demand.taken), (start + length, length));
        }

        #[test]
        fn pauses_grow_up_to_a_limit(tries in 1..u32::MAX) {
            let pause = pause(tries);
            prop_assert!(pause >= FIRST_PAUSE / 2 && pause <= LONGEST_PAUSE);
            prop_assert!(tries < 9 || pause >= LONGEST_PAUSE / 2);
        }
    }
}
