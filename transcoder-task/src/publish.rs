//! Publishes segments as they close, and playlists as they grow.
//!
//! Every rendition has a task of its own that cuts its pipe into segments and uploads them, a few at a time
//! and in order: when the store is slow, pipes fill and FFmpeg waits. Playlists have one owner, which lists a
//! segment only when it can be fetched.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{TryStreamExt, future::try_join_all};
use tokio::{net::unix::pipe, sync::mpsc};
use vidstreamx_job::{self as job, JobId, RenditionKind};

use crate::{
    cmaf::{self, Init, Piece},
    error::TaskError,
    plan::{Boundaries, Plan},
    playlist::{self, Published, Rates, Sound, Variant},
    source::PinnedObject,
    store::{Kind, PLAYLIST, Store, StoreError},
};

/// Uploads at a time for each rendition: enough to hide a round trip, few enough to bound memory.
const UPLOADS_PER_RENDITION: usize = 2;
/// A growing playlist is written again at most this often: each write is paid for, and players look again once
/// per target duration.
const GROW_EVERY: Duration = Duration::from_secs(4);
/// The stable address's playlist.
pub const MASTER: &str = "master.m3u8";
/// In the job's folder: the master playlist that this job's took the place of.
const REPLACED: &str = "replaced.m3u8";
const VIDEO: &str = "video/mp4";
const AUDIO: &str = "audio/mp4";

/// A stream on its way into the store.
#[derive(Debug)]
pub struct Publisher {
    store: Store,
    job_id: JobId,
    boundaries: Boundaries,
    started: Instant,
    tracks: Vec<Track>,
    master: Master,
    /// What must still be current for the stream to take the stable address; absent for plain files.
    source: Option<PinnedObject>,
}

/// A rendition and what of it is published.
#[derive(Debug)]
struct Track {
    /// Below the job's folder: `video/1080p`.
    folder: String,
    facts: Facts,
    init: Option<(String, u64)>,
    segments: Vec<Published>,
    playlist_written: Option<Instant>,
}

#[derive(Debug)]
enum Facts {
    Video { name: String, width: u32, height: u32, frame_rate: f64, max_kbps: u32 },
    Audio { name: String, label: String, language: Option<String>, kbps: u32 },
}

/// What is at the stable address.
#[derive(Debug)]
enum Master {
    /// Whatever was there before.
    Untouched,
    /// Ours, since the stream was playable.
    Switched { playable_seconds: f64 },
}

/// Gives the stable address back to what was there before this job, for a stream that will never be whole.
/// Leaves it alone if it is not this job's (any more).
pub async fn retract(store: &Store, job_id: &JobId) -> Result<(), StoreError> {
    match store.get(MASTER).await? {
        Some(current) if is_of(&current, job_id) => {}
        _ => return Ok(()),
    }
    match store.get(&format!("{job_id}/{REPLACED}")).await? {
        Some(before) => store.put(MASTER, Kind::Stable(PLAYLIST), before).await,
        None => store.delete(MASTER).await,
    }
}

/// Whether a master playlist points into the job's folder.
fn is_of(master: &Bytes, job_id: &JobId) -> bool {
    String::from_utf8_lossy(master).contains(&format!("{job_id}/"))
}

enum Event {
    Init { track: usize, codecs: String, bytes: u64 },
    Segment { track: usize, published: Published },
}

impl Publisher {
    /// A publisher for the plan's renditions; `started` is the task's start.
    pub fn new(
        store: Store,
        job_id: JobId,
        source: Option<PinnedObject>,
        plan: &Plan,
        started: Instant,
    ) -> Self {
        let video = plan.rungs.iter().map(|rung| {
            (
                format!("video/{}", rung.name),
                Facts::Video {
                    name: rung.name.clone(),
                    width: rung.width,
                    height: rung.height,
                    frame_rate: rung.frame_rate,
                    max_kbps: rung.max_kbps,
                },
            )
        });
        let audio = plan.audio.iter().map(|track| {
            (
                format!("audio/{}", track.name),
                Facts::Audio {
                    name: track.name.clone(),
                    label: track.label.clone(),
                    language: track.language.clone(),
                    kbps: track.kbps,
                },
            )
        });
        let tracks = video
            .chain(audio)
            .map(|(folder, facts)| Track {
                folder,
                facts,
                init: None,
                segments: Vec::new(),
                playlist_written: None,
            })
            .collect();
        Self {
            store,
            job_id,
            boundaries: plan.boundaries,
            started,
            tracks,
            master: Master::Untouched,
            source,
        }
    }

    /// Publishes what comes out of the renditions' pipes (rungs first, then audio) until they end.
    pub async fn stream(&mut self, pipes: Vec<pipe::Receiver>) -> Result<(), TaskError> {
        let (events, mut inbox) = mpsc::channel(16);
        let uploads = try_join_all(pipes.into_iter().enumerate().map(|(index, pipe)| {
            let folder = self.tracks.get(index).map(|track| track.folder.clone()).unwrap_or_default();
            let content_type = if folder.starts_with("video/") { VIDEO } else { AUDIO };
            let uploader = Uploader {
                store: self.store.clone(),
                path: format!("{}/{folder}", self.job_id),
                track: index,
                kind: Kind::Immutable(content_type),
            };
            uploader.run(pipe, self.boundaries, events.clone())
        }));
        drop(events);
        let playlists = async {
            while let Some(event) = inbox.recv().await {
                self.apply(event).await?;
            }
            Ok(())
        };
        tokio::try_join!(uploads, playlists)?;
        Ok(())
    }

    async fn apply(&mut self, event: Event) -> Result<(), TaskError> {
        match event {
            Event::Init { track, codecs, bytes } => {
                if let Some(track) = self.tracks.get_mut(track) {
                    track.init = Some((codecs, bytes));
                }
            }
            Event::Segment { track: index, published } => {
                let Some(track) = self.tracks.get_mut(index) else { return Ok(()) };
                track.segments.push(published);
                if track.playlist_written.is_none_or(|written| written.elapsed() >= GROW_EVERY) {
                    track.playlist_written = Some(Instant::now());
                    self.write_media(index, false).await?;
                }
                let playable = self.tracks.iter().all(|track| track.playlist_written.is_some());
                if playable && matches!(self.master, Master::Untouched) {
                    self.switch_master().await?;
                }
            }
        }
        Ok(())
    }

    async fn switch_master(&mut self) -> Result<(), TaskError> {
        self.check_source().await?;
        if let Some(before) = self.store.get(MASTER).await?
            && !is_of(&before, &self.job_id)
        {
            let kept = format!("{}/{REPLACED}", self.job_id);
            self.store.put(&kept, Kind::Stable(PLAYLIST), before).await?;
        }
        let text = self.master_playlist(Rating::Planned);
        self.store.put(MASTER, Kind::GrowingPlaylist, text).await?;
        let playable_seconds = self.started.elapsed().as_secs_f64();
        tracing::info!(playable_seconds, master = self.store.locate(MASTER), "playable");
        self.master = Master::Switched { playable_seconds };
        Ok(())
    }

    /// A stream of content that is not there any more must not take the address from a newer one's.
    async fn check_source(&self) -> Result<(), TaskError> {
        match &self.source {
            Some(source) => Ok(source.check_current().await?),
            None => Ok(()),
        }
    }

    /// Writes an object below the job's folder.
    pub async fn put_own(
        &self,
        path: &str,
        content_type: &'static str,
        content: Bytes,
    ) -> Result<(), StoreError> {
        self.store.put(&format!("{}/{path}", self.job_id), Kind::Immutable(content_type), content).await
    }

    /// Final playlists; returns what was published. Renditions without a sample are left out.
    pub async fn finish(&mut self) -> Result<Vec<job::Rendition>, TaskError> {
        self.check_source().await?;
        self.tracks.retain(|track| track.init.is_some() && !track.segments.is_empty());
        for index in 0..self.tracks.len() {
            self.write_media(index, true).await?;
        }
        let text = self.master_playlist(Rating::Measured);
        self.store.put(MASTER, Kind::Stable(PLAYLIST), text).await?;
        Ok(self.tracks.iter().map(Track::report).collect())
    }

    /// The published segments of each rung, largest rung first, and of each audio track.
    pub fn published(&self) -> (Vec<&[Published]>, Vec<&[Published]>) {
        let of = |video: bool| {
            self.tracks
                .iter()
                .filter(|track| matches!(track.facts, Facts::Video { .. }) == video)
                .map(|track| track.segments.as_slice())
                .collect()
        };
        (of(true), of(false))
    }

    /// Seconds from the task's start until the stream was playable while it grew.
    pub fn playable_seconds(&self) -> Option<f64> {
        match self.master {
            Master::Switched { playable_seconds } => Some(playable_seconds),
            Master::Untouched => None,
        }
    }

    async fn write_media(&self, index: usize, finished: bool) -> Result<(), TaskError> {
        let Some(track) = self.tracks.get(index) else { return Ok(()) };
        let text = playlist::media(&track.segments, self.boundaries.segment_seconds, finished);
        let kind = if finished { Kind::FinalPlaylist } else { Kind::GrowingPlaylist };
        let path = format!("{}/{}/{}", self.job_id, track.folder, playlist::MEDIA_NAME);
        Ok(self.store.put(&path, kind, text.into()).await?)
    }

    fn master_playlist(&self, rating: Rating) -> Bytes {
        let uri = |track: &Track| format!("{}/{}/{}", self.job_id, track.folder, playlist::MEDIA_NAME);
        let (mut variants, mut sounds) = (Vec::new(), Vec::new());
        for track in &self.tracks {
            let codecs = track.init.as_ref().map(|(codecs, _)| codecs.clone()).unwrap_or_default();
            match &track.facts {
                Facts::Video { width, height, frame_rate, max_kbps, .. } => variants.push(Variant {
                    uri: uri(track),
                    codecs,
                    width: *width,
                    height: *height,
                    frame_rate: *frame_rate,
                    rates: rating.of(track, *max_kbps),
                }),
                Facts::Audio { label, language, kbps, .. } => sounds.push(Sound {
                    uri: uri(track),
                    label: label.clone(),
                    language: language.clone(),
                    codecs,
                    rates: rating.of(track, *kbps),
                }),
            }
        }
        playlist::master(&variants, &sounds).into()
    }
}

#[derive(Clone, Copy)]
enum Rating {
    /// The caps, while little is published yet.
    Planned,
    /// What came out.
    Measured,
}

impl Rating {
    fn of(self, track: &Track, max_kbps: u32) -> Rates {
        match self {
            Self::Planned => Rates { peak: u64::from(max_kbps) * 1000, average: u64::from(max_kbps) * 1000 },
            Self::Measured => Rates::measured(&track.segments),
        }
    }
}

impl Track {
    fn report(&self) -> job::Rendition {
        let (codecs, init_bytes) = self.init.clone().unwrap_or_default();
        let rates = Rates::measured(&self.segments);
        let (kind, name, width, height) = match &self.facts {
            Facts::Video { name, width, height, .. } => (RenditionKind::Video, name, *width, *height),
            Facts::Audio { name, .. } => (RenditionKind::Audio, name, 0, 0),
        };
        job::Rendition {
            name: name.clone(),
            kind,
            codecs,
            width,
            height,
            segments: self.segments.len(),
            duration_seconds: self.segments.iter().map(|segment| segment.duration_seconds).sum(),
            bytes: init_bytes + self.segments.iter().map(|segment| segment.bytes).sum::<u64>(),
            peak_bandwidth: rates.peak,
            average_bandwidth: rates.average,
        }
    }
}

struct Uploader {
    store: Store,
    path: String,
    track: usize,
    kind: Kind,
}

impl Uploader {
    async fn run(
        self,
        pipe: pipe::Receiver,
        boundaries: Boundaries,
        events: mpsc::Sender<Event>,
    ) -> Result<(), TaskError> {
        let broken = |error: cmaf::CmafError| TaskError::Output {
            rendition: self.path.clone(),
            reason: error.to_string(),
        };
        cmaf::pieces(pipe, boundaries)
            .map_err(broken)
            .map_ok(|piece| self.upload(piece))
            .try_buffered(UPLOADS_PER_RENDITION)
            .try_for_each(|event| async {
                // The owner of the playlists only goes when it has failed, and its error is the one to report.
                let _ = events.send(event).await;
                Ok(())
            })
            .await
    }

    async fn upload(&self, piece: Piece) -> Result<Event, TaskError> {
        match piece {
            Piece::Init(Init { bytes, codecs }) => {
                let size = bytes.len() as u64;
                self.put(playlist::INIT_NAME, bytes).await?;
                Ok(Event::Init { track: self.track, codecs, bytes: size })
            }
            Piece::Segment(segment) => {
                let published = Published {
                    start_seconds: segment.start_seconds,
                    duration_seconds: segment.duration_seconds,
                    samples: segment.samples,
                    bytes: segment.bytes.len() as u64,
                };
                self.put(&playlist::segment_name(segment.number), segment.bytes).await?;
                Ok(Event::Segment { track: self.track, published })
            }
        }
    }

    async fn put(&self, name: &str, bytes: Bytes) -> Result<(), TaskError> {
        Ok(self.store.put(&format!("{}/{name}", self.path), self.kind, bytes).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(digit: &str) -> JobId {
        digit.repeat(32).parse().unwrap()
    }

    fn master(job: &JobId) -> Bytes {
        format!("#EXTM3U\n{job}/video/720p/index.m3u8\n").into()
    }

    async fn at_the_stable_address(
        now: &JobId,
        replaced: Option<&JobId>,
        retracted: &JobId,
    ) -> Option<Bytes> {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::Folder(folder.path().to_owned());
        store.put(MASTER, Kind::Stable(PLAYLIST), master(now)).await.unwrap();
        if let Some(replaced) = replaced {
            let kept = format!("{retracted}/{REPLACED}");
            store.put(&kept, Kind::Stable(PLAYLIST), master(replaced)).await.unwrap();
        }
        retract(&store, retracted).await.unwrap();
        store.get(MASTER).await.unwrap()
    }

    #[tokio::test]
    async fn a_stream_that_is_taken_back_leaves_what_was_there_before() {
        let (old, ours, newer) = (job("a"), job("b"), job("c"));
        assert_eq!(at_the_stable_address(&ours, Some(&old), &ours).await, Some(master(&old)));
        assert_eq!(at_the_stable_address(&ours, None, &ours).await, None);
        // A newer upload's stream has taken the address in the meantime.
        assert_eq!(at_the_stable_address(&newer, Some(&old), &ours).await, Some(master(&newer)));
    }
}
