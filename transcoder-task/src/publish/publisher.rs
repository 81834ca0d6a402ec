//! Publishes segments as they close, and playlists as they grow.
//!
//! Every rendition has a task of its own that cuts its pipe into segments and uploads them, a few at a time
//! and in order: when the store is slow, pipes fill and FFmpeg waits. Playlists have one owner, which lists a
//! segment only when it can be fetched, and when the next attempt would find it.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, future::try_join_all};
use tokio::{
    net::unix::pipe,
    sync::{mpsc, watch},
    time::sleep_until,
};
use tokio_util::sync::CancellationToken;
use vidstreamx_job::{self as job, JobId, RenditionKind};

use crate::{
    config::profile::{Format, Profile},
    error::TaskError,
    package::dash,
    package::hls::{self, Layout, Presentation, Published, Rates, Rendition, Sound, Text, Timeline, Variant},
    package::progressive,
    package::segmenter::{self, CmafError, Init, Output, Segment},
    package::stills::{self, Stills},
    package::webvtt,
    plan::language,
    plan::model::{AudioRendition, Plan, SubtitleRendition, VideoRendition},
    plan::segmentation::Boundaries,
    progress::ProgressState,
    publish::checkpoint::{self, Checkpoint, Entry, Recovered},
    publish::recovery::Joints,
    source::object::PinnedObject,
    store::{CachePolicy, PLAYLIST, Store, StoreError, Tag},
};

/// Uploads at a time for each rendition: enough to hide a round trip, few enough to bound memory.
const UPLOADS_PER_RENDITION: usize = 2;
/// Notes and growing playlists are written at most this often: each write is paid for, and players look again once per
/// target duration. What an attempt has made since the last time is lost to the next one if this is killed.
const FLUSH_INTERVAL: Duration = Duration::from_secs(3);
/// For a rendition that keeps pace with others: what is in its pipe waits for them.
const UPLOADS_IN_STEP: usize = 1;
/// How long open segments may take to be finished when the task has to end. With what comes behind it, it fits into
/// the 20 s in which the task is to be gone, and into the 30 s that ECS gives as a rule.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(10);
/// Most that pictures of two attempts may lie apart; frames that last longer may do so for one.
const MOST_GAP_SECONDS: f64 = 0.1;
/// The stable address's playlist.
pub const MASTER: &str = "master.m3u8";
/// The stable address's MPD.
const MANIFEST: &str = "manifest.mpd";
/// In the job's folder: the master playlist that this job's took the place of.
const REPLACED: &str = "replaced.m3u8";
const VIDEO: &str = "video/mp4";
const AUDIO: &str = "audio/mp4";
const MPD: &str = "application/dash+xml";
const WEBVTT: &str = "text/vtt";

/// A stream on its way into the store.
#[derive(Debug)]
pub struct Publisher {
    store: Store,
    job_id: JobId,
    /// Of everything but what is at the stable address: `<job id>/<plan id>`.
    folder: String,
    formats: Vec<Format>,
    /// Whether the stream can be played before it is complete.
    grows: bool,
    boundaries: Boundaries,
    /// The longest segment, as planned.
    longest_seconds: f64,
    started: Instant,
    tracks: Vec<Track>,
    texts: Vec<SubtitleTrack>,
    master: Master,
    checkpoint: Checkpoint,
    stills: Stills,
    joints: Joints,
    /// The interval that all renditions are noted and announced up to, and when that was done.
    round: Option<(i64, tokio::time::Instant)>,
    /// What must still be current for the stream to take the stable address; absent for plain files.
    source: Option<PinnedObject>,
}

/// A rendition and what of it is published.
#[derive(Debug)]
pub struct Track {
    /// Below the store: `<job id>/<plan id>/video/1080p`.
    pub folder: String,
    /// As planned.
    pub rendition: Planned,
    /// RFC 6381; empty before the init segment is published.
    pub codecs: String,
    init_bytes: u64,
    /// What is published.
    pub timeline: Timeline,
    /// How many segments begin with a keyframe.
    pub keyframes_at_boundaries: usize,
    /// How many segments are in the growing playlist.
    announced: usize,
    /// What an earlier attempt published.
    init: Option<Init>,
    verified: Option<job::Verified>,
}

/// A rendition of the plan that has segments.
#[derive(Debug)]
pub enum Planned {
    /// A rung.
    Video(VideoRendition),
    /// An audio track.
    Audio(AudioRendition),
}

/// A subtitle track that is published.
#[derive(Debug)]
struct SubtitleTrack {
    folder: String,
    rendition: SubtitleRendition,
    timeline: Timeline,
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
        Some(before) => {
            store.put(MASTER, CachePolicy::Stable(PLAYLIST), before).await?;
            Ok(())
        }
        None => store.delete(MASTER).await,
    }
}

/// Whether a master playlist points into the job's folder.
fn is_of(master: &Bytes, job_id: &JobId) -> bool {
    String::from_utf8_lossy(master).contains(&format!("{job_id}/"))
}

enum Event {
    Init { track: usize, init: Init },
    Segment { track: usize, entry: Entry, is_last: bool },
}

/// The folders of a plan's renditions in the stream's folder, rungs first.
pub fn folders(folder: &str, plan: &Plan) -> Vec<String> {
    let rungs = plan.rungs.iter().map(|rung| format!("{folder}/video/{}", rung.name));
    rungs.chain(plan.audio.iter().map(|audio| format!("{folder}/audio/{}", audio.name))).collect()
}

impl Publisher {
    /// A publisher for the plan's renditions into `folder`, `<job id>/<plan id>`; `started` is the task's start.
    pub fn new(
        store: Store,
        job_id: JobId,
        folder: String,
        profile: &Profile,
        source: Option<PinnedObject>,
        plan: &Plan,
        started: Instant,
    ) -> Self {
        let video = plan.rungs.iter().cloned().map(Planned::Video);
        let audio = plan.audio.iter().cloned().map(Planned::Audio);
        let folders = folders(&folder, plan);
        let tracks: Vec<_> = folders
            .into_iter()
            .zip(video.chain(audio))
            .map(|(folder, rendition)| Track::new(folder, rendition))
            .collect();
        Self {
            checkpoint: Checkpoint::new(store.clone(), folder.clone(), tracks.len()),
            store,
            job_id,
            folder,
            grows: profile.grows(),
            formats: profile.formats.clone(),
            boundaries: plan.boundaries.clone(),
            longest_seconds: plan.boundaries.longest_seconds(),
            started,
            tracks,
            texts: Vec::new(),
            master: Master::Untouched,
            joints: Joints::new(plan),
            stills: Stills::every(stills::interval_seconds(plan.duration_seconds)),
            round: None,
            source,
        }
    }

    /// Goes on behind what an earlier attempt published.
    pub fn resume(&mut self, kept: Recovered) {
        self.checkpoint.resume(&kept);
        for (track, kept) in self.tracks.iter_mut().zip(&kept.tracks) {
            track.resume(kept);
        }
        self.stills = kept.stills;
    }

    /// The stills of an earlier attempt, and where those of this one go.
    pub fn stills(&self) -> Stills {
        self.stills.clone()
    }

    /// Publishes what comes out of the renditions' pipes (rungs first, then audio) until they end; of each its encoded prefix first, if
    /// there is one. Keeps `stills` for the next attempt as they come.
    ///
    /// # Errors
    /// Terminated, if that was asked for: then the open segments were finished, if that was possible in time.
    pub async fn stream(
        &mut self,
        pipes: Vec<(Option<pipe::Receiver>, pipe::Receiver)>,
        mut stills: mpsc::Receiver<Bytes>,
        progress_state: &ProgressState,
        stop: &CancellationToken,
    ) -> Result<(), TaskError> {
        let (events, mut inbox) = mpsc::channel(16);
        let pace = Lockstep::of(&self.tracks);
        let uploads = try_join_all(pipes.into_iter().zip(&self.tracks).enumerate().map(
            |(index, ((encoded_prefix, pipe), track))| {
                let content_type = match track.rendition {
                    Planned::Video(_) => VIDEO,
                    Planned::Audio(_) => AUDIO,
                };
                let uploader = Uploader {
                    store: self.store.clone(),
                    folder: track.folder.clone(),
                    track: index,
                    kind: CachePolicy::Immutable(content_type),
                    init: track.init.clone(),
                    pace: &pace,
                    lead_until: track.lead_until(),
                    follows: encoded_prefix.is_some(),
                };
                let first = track.timeline.segments.len();
                uploader.run(encoded_prefix, pipe, self.boundaries.clone(), first, events.clone())
            },
        ));
        drop(events);
        let playlists = async {
            // What viewers have of an earlier attempt's stream is at the stable address again at once.
            self.flush(&mut stills).await?;
            let (mut last, mut held) = (None, Vec::new());
            loop {
                let due = self.due();
                tokio::select! {
                    event = inbox.recv() => match event {
                        Some(Event::Init { track, init }) => self.begin(track, &init),
                        // It may not be whole: who knows why FFmpeg has ended.
                        Some(Event::Segment { track, entry, is_last: true }) => held.push((track, entry)),
                        Some(Event::Segment { track, entry, .. }) => {
                            self.add(track, &entry, progress_state)?;
                            self.checkpoint.add(track, entry);
                        }
                        None => break,
                    },
                    () = until(due) => self.flush(&mut stills).await?,
                    () = stop.cancelled(), if last.is_none() => {
                        last = Some((self.next(), tokio::time::Instant::now() + SHUTDOWN_GRACE));
                        tracing::info!("finishing the open segments");
                    }
                    () = until(last.map(|(_, deadline)| deadline)) => break,
                }
                if last.is_some_and(|(open, _)| self.next() > open) {
                    break;
                }
            }
            self.flush(&mut stills).await?;
            if stop.is_cancelled() {
                return Err(TaskError::Terminated);
            }
            held.into_iter().try_for_each(|(track, entry)| self.add(track, &entry, progress_state))
        };
        tokio::try_join!(uploads, playlists)?;
        Ok(())
    }

    fn begin(&mut self, track: usize, init: &Init) {
        if let Some(track) = self.tracks.get_mut(track) {
            track.begin(init);
        }
    }

    fn add(&mut self, index: usize, entry: &Entry, progress_state: &ProgressState) -> Result<(), TaskError> {
        let Some(track) = self.tracks.get_mut(index) else { return Ok(()) };
        if track.init.take().is_some() {
            track.check_joint(&entry.published)?;
        }
        track.add(entry);
        progress_state.published(index);
        Ok(())
    }

    /// The interval that an attempt would go on with now; `None` for the beginning.
    fn next(&self) -> Option<i64> {
        self.joints.next(self.checkpoint.tracks().iter().map(Vec::as_slice))
    }

    /// When the next round is to be written: when all renditions have got further, but not too soon after the last,
    /// unless a viewer who began then has seen it all.
    fn due(&self) -> Option<tokio::time::Instant> {
        let next = self.next()?;
        match self.round {
            None => Some(tokio::time::Instant::now()),
            Some((noted, at)) => {
                let announced = Duration::from_secs_f64(self.boundaries.start_seconds(noted).max(0.0));
                (next > noted).then(|| at + FLUSH_INTERVAL.min(announced))
            }
        }
    }

    /// Notes what is published, then announces in growing playlists what no next attempt would make again. When all
    /// renditions have begun, the stream is playable.
    async fn flush(&mut self, stills: &mut mpsc::Receiver<Bytes>) -> Result<(), TaskError> {
        let Some(next) = self.next() else { return Ok(()) };
        self.round = Some((next, tokio::time::Instant::now()));
        let stills: Vec<Bytes> = std::iter::from_fn(|| stills.try_recv().ok()).collect();
        self.checkpoint.save(&stills).await?;
        if !self.grows {
            return Ok(());
        }
        let mut longer = Vec::new();
        let mut begun = true;
        for (index, (track, entries)) in self.tracks.iter_mut().zip(self.checkpoint.tracks()).enumerate() {
            let sure = entries.partition_point(|entry| entry.interval < next);
            begun &= sure > 0;
            // A growing playlist never takes back what it has announced (RFC 8216, 6.2.1).
            if sure > track.announced {
                track.announced = sure;
                longer.push(index);
            }
        }
        try_join_all(longer.iter().map(|index| self.write_media(*index, false))).await?;
        if begun && matches!(self.master, Master::Untouched) {
            self.switch_master().await?;
        }
        Ok(())
    }

    async fn switch_master(&mut self) -> Result<(), TaskError> {
        let before = async { Ok(self.store.get(MASTER).await?) };
        let ((), before) = tokio::try_join!(self.check_source(), before)?;
        if let Some(before) = before.filter(|before| !is_of(before, &self.job_id)) {
            let kept = format!("{}/{REPLACED}", self.job_id);
            self.store.put(&kept, CachePolicy::Stable(PLAYLIST), before).await?;
        }
        let text = hls::master(&self.presentation(Rating::Planned));
        self.store.put(MASTER, CachePolicy::GrowingPlaylist, text.into()).await?;
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

    /// Writes an object below the stream's folder.
    pub async fn put_own(
        &self,
        path: &str,
        content_type: &'static str,
        content: Bytes,
    ) -> Result<(), StoreError> {
        self.store
            .put(&format!("{}/{path}", self.folder), CachePolicy::Immutable(content_type), content)
            .await?;
        Ok(())
    }

    /// Publishes a track of subtitles, in segments of about the length of the stream's longest.
    pub async fn put_subtitles(
        &mut self,
        rendition: SubtitleRendition,
        track: &webvtt::Track,
    ) -> Result<(), TaskError> {
        let folder = format!("subtitles/{}", rendition.name);
        self.put_own(&format!("{folder}/{}", hls::TEXT_NAME), WEBVTT, track.whole().into()).await?;
        let end_seconds = self.tracks.iter().map(|track| track.timeline.end_seconds()).fold(0.0, f64::max);
        let boundaries = self.tracks.first().map_or(Vec::new(), |track| {
            let segments = track.timeline.segments.iter();
            segments.map(|segment| track.timeline.seconds(segment.start_ticks)).collect()
        });
        let mut timeline = Timeline { timescale: 1000, segments: Vec::new() };
        for (number, segment) in track.segments(&boundaries, end_seconds).enumerate() {
            let ticks = |seconds: f64| (seconds * f64::from(timeline.timescale)).round() as u64;
            timeline.segments.push(Published {
                start_ticks: ticks(segment.start_seconds),
                duration_ticks: ticks(segment.duration_seconds),
                samples: 0,
                bytes: segment.text.len() as u64,
                key_bytes: 0,
            });
            let name = hls::text_segment_name(number);
            self.put_own(&format!("{folder}/{name}"), WEBVTT, segment.text.into()).await?;
        }
        self.texts.push(SubtitleTrack { folder: format!("{}/{folder}", self.folder), rendition, timeline });
        Ok(())
    }

    /// What has segments, rungs first, largest first; with what was seen when they were read back.
    pub fn tracks(&self) -> &[Track] {
        &self.tracks
    }

    /// Keeps what was seen when the tracks were read back, in their order, for the report.
    pub fn verified(&mut self, verified: Vec<job::Verified>) {
        for (track, verified) in self.tracks.iter_mut().zip(verified) {
            track.verified = Some(verified);
        }
    }

    /// Leaves out renditions without a sample: nothing of their track could be decoded.
    pub fn drop_empty(&mut self) {
        self.tracks.retain(|track| !track.timeline.segments.is_empty());
    }

    /// Leaves out sound behind the picture's end: there is only the silence that fills a picture of which a part is
    /// missing.
    pub fn drop_sound_behind_the_picture(&mut self) {
        let is_video = |track: &&Track| matches!(track.rendition, Planned::Video(_));
        let Some(end) = self.tracks.iter().find(is_video).map(|track| track.timeline.end_seconds()) else {
            return;
        };
        for track in &mut self.tracks {
            if matches!(track.rendition, Planned::Audio(_)) {
                let timeline = &track.timeline;
                let kept =
                    timeline.segments.partition_point(|s| timeline.seconds(s.start_ticks) < end).max(1);
                track.timeline.segments.truncate(kept);
            }
        }
    }

    /// Final files, playlists and manifests; returns what was published. What takes the place of an earlier
    /// upload's stream comes last.
    pub async fn finish(&mut self, progress_state: &ProgressState) -> Result<Vec<job::Rendition>, TaskError> {
        self.check_source().await?;
        let mut renditions: Vec<_> = self.tracks.iter().map(Track::report).collect();
        renditions.extend(self.texts.iter().map(SubtitleTrack::report));
        if self.formats.contains(&Format::Mp4) {
            renditions.extend(self.write_files(progress_state).await?);
        }
        let presentation = self.presentation(Rating::Measured);
        if self.formats.contains(&Format::Hls) {
            for index in 0..self.tracks.len() {
                self.write_media(index, true).await?;
            }
            self.write_side_playlists().await?;
        }
        if self.formats.contains(&Format::Dash) {
            self.store.put(MANIFEST, CachePolicy::Stable(MPD), dash::mpd(&presentation).into()).await?;
        } else {
            // An earlier upload's, perhaps, which is not what is at this address any more.
            self.store.delete(MANIFEST).await?;
        }
        if self.formats.contains(&Format::Hls) {
            let text = hls::master(&presentation);
            self.store.put(MASTER, CachePolicy::Stable(PLAYLIST), text.into()).await?;
        } else {
            self.store.delete(MASTER).await?;
        }
        Ok(renditions)
    }

    /// I-frame playlists of the rungs, and the playlists of subtitles.
    async fn write_side_playlists(&self) -> Result<(), TaskError> {
        let target = self.target_duration();
        let rungs = self.tracks.iter().filter(|track| matches!(track.rendition, Planned::Video(_)));
        let i_frames = rungs.map(|track| {
            let path = format!("{}/{}", track.folder, hls::I_FRAMES_NAME);
            (path, hls::i_frames(&track.timeline, target))
        });
        let texts = self.texts.iter().map(|text| {
            let path = format!("{}/{}", text.folder, hls::MEDIA_NAME);
            // Their segments are longer, and finished playlists may have targets of their own.
            let target = hls::target_duration(0.0, [&text.timeline].into_iter());
            (path, hls::subtitles(&text.timeline, target))
        });
        for (path, playlist) in i_frames.chain(texts) {
            self.store.put(&path, CachePolicy::FinalPlaylist, playlist.into()).await?;
        }
        Ok(())
    }

    /// One progressive file for each rung, with every track of sound in stereo.
    async fn write_files(&self, progress_state: &ProgressState) -> Result<Vec<job::Rendition>, TaskError> {
        let part = |track: &Track, language: Option<String>, label: &str| progressive::Part {
            folder: track.folder.clone(),
            segments: track.timeline.segments.len(),
            language,
            label: label.to_owned(),
        };
        let mut sounds = Vec::new();
        let mut rungs = Vec::new();
        for track in &self.tracks {
            match &track.rendition {
                Planned::Video(rung) => rungs.push((rung.name.as_str(), part(track, None, ""), track)),
                Planned::Audio(audio) if audio.channels <= 2 => {
                    sounds.push((part(track, audio.language.clone(), &audio.label), track));
                }
                Planned::Audio(_) => {}
            }
        }
        let bytes = |track: &Track| track.timeline.segments.iter().map(|segment| segment.bytes).sum::<u64>();
        let of_sounds: u64 = sounds.iter().map(|(_, track)| bytes(track)).sum();
        let of_rungs: u64 = rungs.iter().map(|(_, _, track)| bytes(track)).sum();
        // Everything is read twice, and the sound for every file.
        let all = 2 * (of_rungs + of_sounds * rungs.len().max(1) as u64);
        let read = Cell::new(0);
        let read_bytes = |bytes: u64| {
            read.set(read.get() + bytes);
            progress_state.reached(read.get() as f64 / all as f64);
        };
        let mut files = Vec::with_capacity(rungs.len());
        let parts = |rung: &[progressive::Part]| {
            rung.iter().cloned().chain(sounds.iter().map(|(part, _)| part.clone())).collect::<Vec<_>>()
        };
        if rungs.is_empty()
            && let Some((_, track)) = sounds.first()
        {
            files.push(self.write_file("audio", &parts(&[]), track, read_bytes).await?);
        }
        for (name, rung, track) in rungs {
            files.push(self.write_file(name, &parts(&[rung]), track, read_bytes).await?);
        }
        Ok(files)
    }

    async fn write_file(
        &self,
        name: &str,
        parts: &[progressive::Part],
        track: &Track,
        read_bytes: impl Fn(u64),
    ) -> Result<job::Rendition, TaskError> {
        let path = format!("{}/mp4/{name}.mp4", self.folder);
        let file = progressive::remux(&self.store, parts, &path, read_bytes).await?;
        let of_parts = |track: &&Track| parts.iter().any(|part| part.folder == track.folder);
        let mut codecs: Vec<_> =
            self.tracks.iter().filter(of_parts).map(|track| track.codecs.as_str()).collect();
        codecs.dedup();
        let report = track.report();
        let seconds = report.duration_seconds.max(f64::MIN_POSITIVE);
        Ok(job::Rendition {
            name: name.to_owned(),
            kind: RenditionKind::Mp4,
            codecs: codecs.join(","),
            segments: 0,
            bytes: file.bytes,
            average_bandwidth: (file.bytes as f64 * 8.0 / seconds).ceil() as u64,
            verified: None,
            ..report
        })
    }

    /// Seconds from the task's start until the stream was playable while it grew.
    pub fn playable_seconds(&self) -> Option<f64> {
        match self.master {
            Master::Switched { playable_seconds } => Some(playable_seconds),
            Master::Untouched => None,
        }
    }

    fn target_duration(&self) -> u64 {
        hls::target_duration(self.longest_seconds, self.tracks.iter().map(|track| &track.timeline))
    }

    async fn write_media(&self, index: usize, finished: bool) -> Result<(), TaskError> {
        let Some(track) = self.tracks.get(index) else { return Ok(()) };
        let text = if finished {
            hls::media(&track.timeline, self.target_duration(), true)
        } else {
            hls::media(&track.timeline.first(track.announced), self.target_duration(), false)
        };
        let kind = if finished { CachePolicy::FinalPlaylist } else { CachePolicy::GrowingPlaylist };
        let path = format!("{}/{}", track.folder, hls::MEDIA_NAME);
        self.store.put(&path, kind, text.into()).await?;
        Ok(())
    }

    fn presentation(&self, rating: Rating) -> Presentation {
        let target = self.target_duration();
        let mut presentation = Presentation::default();
        for track in &self.tracks {
            match &track.rendition {
                Planned::Video(rung) => presentation.rungs.push(Variant {
                    rendition: track.describe(rating, rung.max_kbps, target),
                    width: rung.width,
                    height: rung.height,
                    frame_rate: match rating {
                        Rating::Planned => rung.frame_rate,
                        Rating::Measured => track.frames() as f64 / track.timeline.duration_seconds(),
                    },
                    key_rates: match rating {
                        Rating::Planned => None,
                        Rating::Measured => Some(track.timeline.key_rates(target)),
                    },
                }),
                Planned::Audio(audio) if audio.channels <= 2 => presentation.sounds.push(Sound {
                    label: audio.label.clone(),
                    language: audio.language.as_deref().and_then(language::tag),
                    default: audio.default,
                    stereo: track.layout(audio, rating, target),
                    surround: self.tracks.iter().find_map(|other| match &other.rendition {
                        Planned::Audio(surround)
                            if surround.channels > 2 && surround.stream == audio.stream =>
                        {
                            Some(other.layout(surround, rating, target))
                        }
                        _ => None,
                    }),
                }),
                Planned::Audio(_) => {}
            }
        }
        presentation.texts = self.texts.iter().map(SubtitleTrack::describe).collect();
        presentation
    }
}

#[derive(Clone, Copy)]
enum Rating {
    /// The caps, while little is published yet.
    Planned,
    /// What came out.
    Measured,
}

impl Track {
    /// A rendition that is published already.
    #[cfg(test)]
    pub fn of_tests(folder: &str, rendition: Planned, timeline: Timeline, keyframes: usize) -> Self {
        Self { timeline, keyframes_at_boundaries: keyframes, ..Self::new(folder.to_owned(), rendition) }
    }

    fn new(folder: String, rendition: Planned) -> Self {
        Self {
            folder,
            rendition,
            codecs: String::new(),
            init_bytes: 0,
            timeline: Timeline::default(),
            keyframes_at_boundaries: 0,
            announced: 0,
            init: None,
            verified: None,
        }
    }

    fn resume(&mut self, kept: &checkpoint::Track) {
        self.begin(&kept.init);
        self.init = Some(kept.init.clone());
        for entry in &kept.entries {
            self.add(entry);
        }
    }

    fn begin(&mut self, init: &Init) {
        self.codecs.clone_from(&init.codecs);
        self.timeline.timescale = init.timescale;
        self.init_bytes = init.bytes.len() as u64;
    }

    /// Adds a segment, and corrects the one before: only now is it known when that ends, if frames last
    /// differently long.
    fn add(&mut self, entry: &Entry) {
        if let Some(last) = self.timeline.segments.last_mut() {
            last.duration_ticks = entry.published.start_ticks.saturating_sub(last.start_ticks).max(1);
        }
        self.timeline.segments.push(entry.published);
        self.keyframes_at_boundaries += usize::from(entry.starts_with_keyframe);
    }

    /// The first segment of this attempt follows on the last one of the attempt before.
    fn check_joint(&self, next: &Published) -> Result<(), TaskError> {
        let Some(last) = self.timeline.segments.last() else { return Ok(()) };
        let end = self.timeline.seconds(last.start_ticks + last.duration_ticks);
        let gap = self.timeline.seconds(next.start_ticks) - end;
        let frame = self.timeline.seconds(last.duration_ticks) / last.samples.max(1) as f64;
        let most = match self.rendition {
            // How long the last frame lasts is not always known.
            Planned::Video(_) => frame.max(MOST_GAP_SECONDS),
            Planned::Audio(_) => 0.0,
        };
        if gap.abs() > most {
            return Err(TaskError::Resume(format!("{} goes on {gap:.3} s late", self.folder)));
        }
        Ok(())
    }

    fn describe(&self, rating: Rating, max_kbps: u32, target_seconds: u64) -> Rendition {
        let planned = u64::from(max_kbps) * 1000;
        Rendition {
            folder: self.folder.clone(),
            codecs: self.codecs.clone(),
            timeline: self.timeline.clone(),
            rates: match rating {
                Rating::Planned => Rates { peak: planned, average: planned },
                Rating::Measured => self.timeline.rates(target_seconds),
            },
        }
    }

    fn layout(&self, audio: &AudioRendition, rating: Rating, target_seconds: u64) -> Layout {
        Layout {
            rendition: self.describe(rating, audio.kbps, target_seconds),
            channels: audio.channels,
            sample_rate: audio.sample_rate,
        }
    }

    fn report(&self) -> job::Rendition {
        let bytes: u64 = self.timeline.segments.iter().map(|segment| segment.bytes).sum();
        let longest = self.timeline.longest_seconds().ceil() as u64;
        let rates = self.timeline.rates(longest);
        let blank = job::Rendition {
            name: String::new(),
            kind: RenditionKind::Video,
            codecs: self.codecs.clone(),
            copied: false,
            width: 0,
            height: 0,
            channels: 0,
            language: None,
            segments: self.timeline.segments.len(),
            frames: self.frames(),
            duration_seconds: self.timeline.duration_seconds(),
            bytes: self.init_bytes + bytes,
            peak_bandwidth: rates.peak,
            average_bandwidth: rates.average,
            verified: self.verified.clone(),
        };
        match &self.rendition {
            Planned::Video(rung) => job::Rendition {
                name: rung.name.clone(),
                copied: rung.encoding.is_none(),
                width: rung.width,
                height: rung.height,
                ..blank
            },
            Planned::Audio(audio) => job::Rendition {
                name: audio.name.clone(),
                kind: RenditionKind::Audio,
                copied: audio.layout.is_none(),
                channels: audio.channels,
                language: audio.language.clone(),
                ..blank
            },
        }
    }

    /// Whether it is a rung that is the source's own picture.
    pub fn is_copied(&self) -> bool {
        matches!(&self.rendition, Planned::Video(rung) if rung.encoding.is_none())
    }

    /// The interval that the source's own picture begins with, if something is encoded in front of it.
    fn lead_until(&self) -> Option<i64> {
        match &self.rendition {
            Planned::Video(rung) => rung.encoded_prefix.as_ref().map(|encoded_prefix| encoded_prefix.until),
            Planned::Audio(_) => None,
        }
    }

    /// Of all segments.
    pub fn frames(&self) -> usize {
        self.timeline.segments.iter().map(|segment| segment.samples).sum()
    }
}

impl SubtitleTrack {
    fn describe(&self) -> Text {
        let folder = self.folder.clone();
        Text {
            rendition: Rendition {
                folder,
                codecs: String::new(),
                timeline: self.timeline.clone(),
                rates: self.timeline.rates(self.timeline.longest_seconds().ceil() as u64),
            },
            label: self.rendition.label.clone(),
            language: self.rendition.language.as_deref().and_then(language::tag),
            default: self.rendition.default,
            forced: self.rendition.forced,
        }
    }

    fn report(&self) -> job::Rendition {
        let rates = self.timeline.rates(self.timeline.longest_seconds().ceil() as u64);
        job::Rendition {
            name: self.rendition.name.clone(),
            kind: RenditionKind::Subtitles,
            codecs: "wvtt".into(),
            copied: false,
            width: 0,
            height: 0,
            channels: 0,
            language: self.rendition.language.clone(),
            segments: self.timeline.segments.len(),
            frames: 0,
            duration_seconds: self.timeline.duration_seconds(),
            bytes: self.timeline.segments.iter().map(|segment| segment.bytes).sum(),
            peak_bandwidth: rates.peak,
            average_bandwidth: rates.average,
            verified: None,
        }
    }
}

/// How far the renditions have come. A rung that comes from FFmpegs of its own would run away from the others and take their
/// time: it may be a segment ahead.
struct Lockstep {
    /// The last interval that is published of each rendition that others wait for.
    reached: watch::Sender<Vec<i64>>,
}

impl Lockstep {
    fn of(tracks: &[Track]) -> Self {
        let reached = |track: &Track| if track.is_copied() { i64::MAX } else { -1 };
        Self { reached: watch::Sender::new(tracks.iter().map(reached).collect()) }
    }

    fn reach(&self, track: usize, interval: i64) {
        self.reached.send_modify(|reached| {
            if let Some(last) = reached.get_mut(track) {
                *last = interval.max(*last);
            }
        });
    }

    /// Until the rendition that is the last has come near an interval, or has ended.
    async fn follow(&self, interval: i64) {
        let is_near = |reached: &Vec<i64>| {
            let last = reached.iter().min().copied().unwrap_or(i64::MAX);
            interval <= last.saturating_add(1)
        };
        // The sender is ours.
        let _ = self.reached.subscribe().wait_for(is_near).await;
    }
}

struct Uploader<'a> {
    store: Store,
    folder: String,
    track: usize,
    kind: CachePolicy,
    /// What an earlier attempt published.
    init: Option<Init>,
    pace: &'a Lockstep,
    /// The interval up to which its segments come from its encoded prefix, if this attempt or an earlier one made one.
    lead_until: Option<i64>,
    /// Whether it keeps pace with the others.
    follows: bool,
}

impl Uploader<'_> {
    async fn run(
        self,
        encoded_prefix: Option<pipe::Receiver>,
        pipe: pipe::Receiver,
        boundaries: Boundaries,
        first_number: usize,
        events: mpsc::Sender<Event>,
    ) -> Result<(), TaskError> {
        let broken = |error: CmafError| match error {
            // The index promised otherwise.
            CmafError::Splice(_) => TaskError::Verify(format!("{}: {error}", self.folder)),
            _ => TaskError::Output { rendition: self.folder.clone(), reason: error.to_string() },
        };
        let outputs = match encoded_prefix.zip(self.lead_until) {
            None => segmenter::outputs(pipe, boundaries, first_number).left_stream(),
            Some((encoded_prefix, until)) => {
                segmenter::outputs_after_prefix(encoded_prefix, until, pipe, boundaries, first_number)
                    .right_stream()
            }
        };
        outputs
            .map_err(broken)
            .map_ok(|piece| self.upload(piece))
            .try_buffered(if self.follows { UPLOADS_IN_STEP } else { UPLOADS_PER_RENDITION })
            .try_for_each(|event| async {
                // The owner of the playlists only goes when it has failed, and its error is the one to report.
                let _ = events.send(event).await;
                Ok(())
            })
            .await?;
        self.pace.reach(self.track, i64::MAX);
        Ok(())
    }

    async fn upload(&self, piece: Output) -> Result<Event, TaskError> {
        match piece {
            Output::Init(init) => {
                let Some(published) = &self.init else {
                    self.put(hls::INIT_NAME, init.bytes.clone()).await?;
                    return Ok(Event::Init { track: self.track, init });
                };
                // Behind its encoded prefix, a rung knows nothing of that any more.
                let whole = match self.lead_until {
                    Some(_) => init.with_parameter_sets_of(published).ok(),
                    None => Some(init),
                };
                let same = whole.filter(|init| init.bytes == published.bytes);
                let init = same.ok_or_else(|| {
                    TaskError::Resume(format!("{} has another init segment now", self.folder))
                })?;
                Ok(Event::Init { track: self.track, init })
            }
            Output::Segment(segment) => {
                if self.follows {
                    self.pace.follow(segment.interval).await;
                }
                let published = Published {
                    start_ticks: segment.start_ticks,
                    duration_ticks: segment.duration_ticks,
                    samples: segment.samples,
                    bytes: segment.bytes.len() as u64,
                    key_bytes: segment.key_bytes,
                };
                let tag = self.put(&hls::segment_name(segment.number), segment.bytes.clone()).await?;
                let Segment { interval, starts_with_keyframe, is_last, .. } = segment;
                self.pace.reach(self.track, interval);
                let entry = Entry { interval, published, starts_with_keyframe, tag };
                Ok(Event::Segment { track: self.track, entry, is_last })
            }
        }
    }

    async fn put(&self, name: &str, bytes: Bytes) -> Result<Tag, TaskError> {
        Ok(self.store.put(&format!("{}/{name}", self.folder), self.kind, bytes).await?)
    }
}

/// Never, if there is no such instant.
async fn until(instant: Option<tokio::time::Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn what_is_copied_is_a_segment_ahead_of_what_is_encoded() {
        let pace = Lockstep { reached: watch::Sender::new(vec![i64::MAX, -1, -1]) };
        let furthest = || (0..9).filter(|at| pace.follow(*at).now_or_never().is_some()).max();
        assert_eq!(furthest(), Some(0));
        pace.reach(1, 3);
        assert_eq!(furthest(), Some(0), "the last one counts");
        pace.reach(2, 2);
        assert_eq!(furthest(), Some(3));
        pace.reach(2, 3);
        assert_eq!(furthest(), Some(4));
        pace.reach(1, i64::MAX);
        pace.reach(2, 4);
        assert_eq!(furthest(), Some(5));
        pace.reach(2, i64::MAX);
        assert_eq!(furthest(), Some(8), "nobody to wait for");
    }

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
        store.put(MASTER, CachePolicy::Stable(PLAYLIST), master(now)).await.unwrap();
        if let Some(replaced) = replaced {
            let kept = format!("{retracted}/{REPLACED}");
            store.put(&kept, CachePolicy::Stable(PLAYLIST), master(replaced)).await.unwrap();
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
