//! Publishes segments as they close, and playlists as they grow.
//!
//! Every rendition has an [`Uploader`], which cuts the content of the rendition's pipe into segments and
//! uploads them in order, a few at a time: if the store is slow, pipes fill and FFmpeg waits. Only the
//! publisher writes playlists. It lists a segment only when players can fetch the segment and the checkpoint
//! holds it.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::try_join_all;
use tokio::{net::unix::pipe, sync::mpsc, time::sleep_until};
use tokio_util::sync::CancellationToken;
use vidstreamx_job::{self as job, JobId};

use crate::{
    config::profile::{Format, Profile},
    package::{
        dash, file_names, hls,
        init_segment::Init,
        presentation::{Published, Timeline},
        segmenter::SegmentationRules,
        stills::Stills,
        webvtt,
    },
    plan::{
        model::{Plan, SubtitleRendition},
        still_interval,
    },
    progress::ProgressState,
    source::object::PinnedObject,
    store::{CachePolicy, Store, StoreError},
};

use super::{
    PublishError,
    checkpoint::{Checkpoint, Entry, Recovered},
    lockstep::Lockstep,
    manifests::{presentation, target_duration, write_media_playlist, write_side_playlists},
    mp4_files::write_files,
    recovery::ResumeRule,
    stable_address::StableAddress,
    track::{Planned, Rating, SubtitleTrack, Track, folders},
    uploader::{Event, Uploader},
};

/// Usual time between two flushes of checkpoint and growing playlists; less at the beginning, see
/// [`Publisher::due`]. Each write costs money, and players
/// reload once per target duration. A killed attempt loses what it published since its last flush.
const FLUSH_INTERVAL: Duration = Duration::from_secs(3);
/// Time to finish open segments after a termination signal. With the work that follows, the task exits within
/// 20 s; ECS allows 30 s by default.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(10);
const VIDEO: &str = "video/mp4";
const AUDIO: &str = "audio/mp4";
const WEBVTT: &str = "text/vtt";

/// The publisher of one stream.
#[derive(Debug)]
pub(crate) struct Publisher {
    store: Store,
    /// Folder of all objects except those at the stable address: `<job id>/<plan id>`.
    folder: String,
    formats: Vec<Format>,
    /// True if the stream is published while it grows.
    grows: bool,
    rules: SegmentationRules,
    tracks: Vec<Track>,
    subtitles: Vec<SubtitleTrack>,
    address: StableAddress,
    checkpoint: Checkpoint,
    stills: Stills,
    resume_rule: ResumeRule,
    /// The interval up to which the checkpoint and the playlists are written, and the time of that flush.
    flushed: Option<(i64, tokio::time::Instant)>,
}

impl Publisher {
    /// A publisher of the plan's renditions. `folder` is `<job id>/<plan id>`, `started` the task's start.
    pub(crate) fn new(
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
            address: StableAddress::new(store.clone(), job_id, source, started),
            store,
            folder,
            grows: profile.grows(),
            formats: profile.formats.clone(),
            rules: SegmentationRules::new(plan),
            tracks,
            subtitles: Vec::new(),
            resume_rule: ResumeRule::new(plan),
            stills: Stills::every(still_interval::seconds(plan.duration_seconds)),
            flushed: None,
        }
    }

    /// Continues after the segments of an earlier attempt.
    pub(crate) fn resume(&mut self, recovered: Recovered) {
        self.checkpoint.resume(&recovered);
        for (track, recovered) in self.tracks.iter_mut().zip(&recovered.tracks) {
            track.resume(recovered);
        }
        self.stills = recovered.stills;
    }

    /// The stills of earlier attempts.
    #[must_use]
    pub(crate) fn stills(&self) -> Stills {
        self.stills.clone()
    }

    /// Publishes the segments from the renditions' pipes (rungs first, then audio) until they end. Each pair
    /// holds the pipe of the encoded prefix, if the rendition has one, and the rendition's main pipe. Adds
    /// `stills` to the checkpoint.
    ///
    /// # Errors
    /// [`PublishError::Terminated`] after a stop, with the open segments finished if there was time; a failed
    /// upload; output that does not continue the earlier attempt's.
    pub(crate) async fn stream(
        &mut self,
        pipes: Vec<(Option<pipe::Receiver>, pipe::Receiver)>,
        mut stills: mpsc::Receiver<Bytes>,
        progress_state: &ProgressState,
        stop: &CancellationToken,
    ) -> Result<(), PublishError> {
        let (events, mut inbox) = mpsc::channel(16);
        let lockstep = Lockstep::of(&self.tracks);
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
                    policy: CachePolicy::Immutable(content_type),
                    init: track.init.clone(),
                    lockstep: &lockstep,
                    prefix_until: track.prefix_until(),
                    level: track.level(),
                    in_lockstep: encoded_prefix.is_some(),
                };
                let first = track.timeline.segments.len();
                uploader.run(encoded_prefix, pipe, self.rules.clone(), first, events.clone())
            },
        ));
        drop(events);
        let playlists = async {
            // A resumed stream is already playable, so this puts it at the stable address immediately.
            self.flush(&mut stills).await?;
            let (mut shutdown, mut held) = (None, Vec::new());
            loop {
                let due = self.due();
                tokio::select! {
                    event = inbox.recv() => match event {
                        Some(Event::Init { track, init }) => self.begin(track, &init),
                        // Held back from playlists and checkpoint: if FFmpeg fails, this segment may be
                        // incomplete.
                        Some(Event::Segment { track, entry, is_last: true }) => held.push((track, entry)),
                        Some(Event::Segment { track, entry, .. }) => {
                            self.add(track, &entry, progress_state)?;
                            self.checkpoint.add(track, entry);
                        }
                        None => break,
                    },
                    () = until(due) => self.flush(&mut stills).await?,
                    () = stop.cancelled(), if shutdown.is_none() => {
                        shutdown = Some((self.next(), tokio::time::Instant::now() + SHUTDOWN_GRACE));
                        tracing::info!("finishing the open segments");
                    }
                    () = until(shutdown.map(|(_, deadline)| deadline)) => break,
                }
                if shutdown.is_some_and(|(open, _)| self.next() > open) {
                    break;
                }
            }
            self.flush(&mut stills).await?;
            if stop.is_cancelled() {
                return Err(PublishError::Terminated);
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

    fn add(
        &mut self,
        index: usize,
        entry: &Entry,
        progress_state: &ProgressState,
    ) -> Result<(), PublishError> {
        let Some(track) = self.tracks.get_mut(index) else { return Ok(()) };
        if track.init.take().is_some() {
            track.check_continuity(&entry.published)?;
        }
        track.add(entry);
        progress_state.published(index);
        Ok(())
    }

    /// The interval at which another attempt would resume now; `None` for the beginning.
    fn next(&self) -> Option<i64> {
        self.resume_rule.next(self.checkpoint.tracks().iter().map(Vec::as_slice))
    }

    /// Time of the next flush. A flush needs progress in all renditions, and [`FLUSH_INTERVAL`] since the
    /// last one. While the announced segments last less than that, their duration counts instead, because a
    /// viewer may already have played all of them.
    fn due(&self) -> Option<tokio::time::Instant> {
        let next = self.next()?;
        match self.flushed {
            None => Some(tokio::time::Instant::now()),
            Some((flushed, at)) => {
                let announced =
                    Duration::from_secs_f64(self.rules.boundaries.start_seconds(flushed).max(0.0));
                (next > flushed).then(|| at + FLUSH_INTERVAL.min(announced))
            }
        }
    }

    /// Writes the checkpoint, then announces in growing playlists the segments that no later attempt would
    /// replace. The stream becomes playable when every rendition has a segment.
    async fn flush(&mut self, stills: &mut mpsc::Receiver<Bytes>) -> Result<(), PublishError> {
        let Some(next) = self.next() else { return Ok(()) };
        self.flushed = Some((next, tokio::time::Instant::now()));
        let stills: Vec<Bytes> = std::iter::from_fn(|| stills.try_recv().ok()).collect();
        self.checkpoint.save(&stills).await?;
        if !self.grows {
            return Ok(());
        }
        let mut longer = Vec::new();
        let mut all_begun = true;
        for (index, (track, entries)) in self.tracks.iter_mut().zip(self.checkpoint.tracks()).enumerate() {
            let final_segments = entries.partition_point(|entry| entry.interval < next);
            all_begun &= final_segments > 0;
            // A growing playlist must not remove announced segments (RFC 8216, 6.2.1).
            if final_segments > track.announced {
                track.announced = final_segments;
                longer.push(index);
            }
        }
        let target = self.target_duration();
        let growing = longer.iter().filter_map(|index| self.tracks.get(*index));
        try_join_all(growing.map(|track| write_media_playlist(&self.store, track, target, false))).await?;
        if all_begun && self.address.playable_seconds().is_none() {
            let presentation = presentation(&self.tracks, &self.subtitles, target, Rating::Planned);
            self.address.switch(hls::master(&presentation)).await?;
        }
        Ok(())
    }

    /// Writes an object into the stream's folder.
    ///
    /// # Errors
    /// The store fails.
    pub(crate) async fn put_in_folder(
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

    /// Publishes a subtitle track as one file and in segments.
    ///
    /// # Errors
    /// The store fails.
    pub(crate) async fn put_subtitles(
        &mut self,
        rendition: SubtitleRendition,
        track: &webvtt::TextTrack,
    ) -> Result<(), StoreError> {
        let folder = format!("subtitles/{}", rendition.name);
        self.put_in_folder(&format!("{folder}/{}", file_names::TEXT_NAME), WEBVTT, track.whole().into())
            .await?;
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
                repeats: 0,
                repeated_ticks: 0,
                bytes: segment.text.len() as u64,
                key_bytes: 0,
            });
            let name = file_names::text_segment_name(number);
            self.put_in_folder(&format!("{folder}/{name}"), WEBVTT, segment.text.into()).await?;
        }
        self.subtitles.push(SubtitleTrack {
            folder: format!("{}/{folder}", self.folder),
            rendition,
            timeline,
        });
        Ok(())
    }

    /// The renditions with media segments, in the plan's order, rungs first.
    #[must_use]
    pub(crate) fn tracks(&self) -> &[Track] {
        &self.tracks
    }

    /// Keeps the results of the read-back, in the order of the tracks, for the report.
    pub(crate) fn verified(&mut self, verified: Vec<job::Verified>) {
        for (track, verified) in self.tracks.iter_mut().zip(verified) {
            track.verified = Some(verified);
        }
    }

    /// Removes renditions without segments. FFmpeg could decode nothing of their tracks.
    pub(crate) fn drop_empty(&mut self) {
        self.tracks.retain(|track| !track.timeline.segments.is_empty());
    }

    /// Removes audio after the end of the video. If the end of the source is missing, that audio is only the
    /// silence that extends the track to the expected end of the video.
    pub(crate) fn drop_audio_after_video(&mut self) {
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

    /// Publishes final files, playlists and manifests, the stable address last. Returns the published
    /// renditions.
    ///
    /// # Errors
    /// The source was replaced, the segments do not fit together, or the store fails.
    pub(crate) async fn finish(
        &mut self,
        progress_state: &ProgressState,
    ) -> Result<Vec<job::Rendition>, PublishError> {
        self.address.check_source().await?;
        let mut renditions: Vec<_> = self.tracks.iter().map(Track::report).collect();
        renditions.extend(self.subtitles.iter().map(SubtitleTrack::report));
        if self.formats.contains(&Format::Mp4) {
            renditions.extend(write_files(&self.store, &self.folder, &self.tracks, progress_state).await?);
        }
        let target = self.target_duration();
        let presentation = presentation(&self.tracks, &self.subtitles, target, Rating::Measured);
        let (is_hls, is_dash) = (self.formats.contains(&Format::Hls), self.formats.contains(&Format::Dash));
        if is_hls {
            for track in &self.tracks {
                write_media_playlist(&self.store, track, target, true).await?;
            }
            write_side_playlists(&self.store, &self.tracks, &self.subtitles, target).await?;
        }
        let manifest = is_dash.then(|| dash::mpd(&presentation));
        let master = is_hls.then(|| hls::master(&presentation));
        self.address.complete(manifest, master).await?;
        Ok(renditions)
    }

    /// Seconds from the task's start until the growing stream was playable.
    #[must_use]
    pub(crate) fn playable_seconds(&self) -> Option<f64> {
        self.address.playable_seconds()
    }

    fn target_duration(&self) -> u64 {
        target_duration(self.rules.boundaries.longest_seconds(), &self.tracks)
    }
}

/// Waits for an instant, or forever if there is none.
async fn until(instant: Option<tokio::time::Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}
