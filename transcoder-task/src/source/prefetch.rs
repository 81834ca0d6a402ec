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
use tracing::Instrument;
use vidstreamx_job::Backoff;

use crate::{
    source::object::PinnedObject,
    store::{S3Error, s3::READ},
};

/// Size of the first and smallest chunk: 16 s of audio, or half a second of a camera's video. A chunk is
/// smaller only at the end of a read, or before a cached chunk. S3 needs longer to begin the response than to
/// send this much (documented: 100 to 200 ms; 85 MB/s).
const MIN_CHUNK: u64 = 256 << 10;
/// Size of the largest chunk. Four in flight allow 75 MB/s if S3 needs 80 ms for each.
const MAX_CHUNK: u64 = 1536 << 10;
/// Chunks in flight: enough to hide S3's latency, few enough to bound memory.
const CHUNKS_AHEAD: u64 = 4;
/// Most bytes that one read may have requested but not delivered.
const MAX_PREFETCH: u64 = CHUNKS_AHEAD * MAX_CHUNK;
/// Size of the cache of latest chunks: enough for the prefetch of one read, or for two or three places
/// between which FFmpeg seeks.
const CACHE_BYTES: u64 = 8 << 20;
/// A request that is incomplete after this time has stalled, so the rest of its chunk is requested again. S3
/// usually needs a tenth of a second.
const REQUEST_LIMIT: Duration = Duration::from_secs(20);
/// Consecutive requests without a byte before a read fails. With the pauses between them this is half a
/// minute of refusals, or three and a half minutes without a response.
const READ_TRIES: u32 = 9;
/// Pauses between requests without progress. The longest pause is as long as the SDK's. The retry loop is
/// written by hand, because its count restarts with each byte received.
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
        // The request has its own task. Polled by the reader, its body would look stalled while FFmpeg does
        // not read.
        let task = AbortOnDropHandle::new(tokio::spawn({
            let object = object.clone();
            async move { fetch(&object, start, end).await }.in_current_span()
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
    /// End of the next chunk to request; `None` if the read is at its end, or enough is requested. `waiting`
    /// is the number of bytes that are requested but not delivered. A read prefetches one chunk, then twice
    /// as many bytes as it has delivered, up to [`MAX_PREFETCH`].
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
                let (received, requested) = (chunk.len() - before, end - start - before as u64);
                let limit = REQUEST_LIMIT.as_secs();
                transient(object, format!("{received} of {requested} bytes arrived within {limit} seconds"))
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
mod tests;
