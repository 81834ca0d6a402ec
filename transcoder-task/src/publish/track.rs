//! The renditions of a stream, and the part of them that is published.

use vidstreamx_job::{self as job, RenditionKind};

use crate::{
    package::{
        captions::Captions,
        init_segment::Init,
        presentation::{AudioLayout, Published, Rates, Rendition, TextRendition, Timeline},
    },
    plan::{
        language,
        model::{AudioRendition, Plan, SubtitleRendition, VideoRendition},
    },
};

use super::{
    PublishError,
    checkpoint::{self, Entry},
};

/// Largest difference in seconds between the end of a rung's segment and the start of the next one. Clocks
/// round.
pub(super) const SAME_INSTANT_SECONDS: f64 = 0.002;

/// A rendition with its published segments.
#[derive(Debug)]
pub(crate) struct Track {
    /// Folder below the store: `<job id>/<plan id>/video/1080p`.
    pub(crate) folder: String,
    pub(crate) rendition: Planned,
    /// RFC 6381 string; empty before the init segment is published.
    pub(crate) codecs: String,
    pub(super) init_bytes: u64,
    /// The published segments.
    pub(crate) timeline: Timeline,
    /// Number of segments that begin with a keyframe.
    pub(crate) keyframes_at_boundaries: usize,
    /// Caption channels of all segments.
    pub(super) captions: Captions,
    /// Number of segments in the growing playlist.
    pub(super) announced: usize,
    /// The init segment of an earlier attempt; `None` once this attempt's first segment is checked and added.
    pub(super) init: Option<Init>,
    pub(super) verified: Option<job::Verified>,
}

/// A planned rendition with media segments.
#[derive(Debug)]
pub(crate) enum Planned {
    Video(VideoRendition),
    Audio(AudioRendition),
}

/// A published subtitle track.
#[derive(Debug)]
pub(super) struct SubtitleTrack {
    pub(super) folder: String,
    pub(super) rendition: SubtitleRendition,
    pub(super) timeline: Timeline,
}

/// The folders of a plan's renditions, rungs first.
#[must_use]
pub(crate) fn folders(folder: &str, plan: &Plan) -> Vec<String> {
    let rungs = plan.rungs.iter().map(|rung| format!("{folder}/video/{}", rung.name));
    rungs.chain(plan.audio.iter().map(|audio| format!("{folder}/audio/{}", audio.name))).collect()
}

/// The source of the rates in manifests.
#[derive(Clone, Copy)]
pub(super) enum Rating {
    /// Maximum rates of the plan, for a growing stream.
    Planned,
    /// Measured rates.
    Measured,
}

impl Track {
    /// A rendition with published segments.
    #[cfg(test)]
    pub(crate) fn of_tests(folder: &str, rendition: Planned, timeline: Timeline, keyframes: usize) -> Self {
        Self { timeline, keyframes_at_boundaries: keyframes, ..Self::new(folder.to_owned(), rendition) }
    }

    pub(super) fn new(folder: String, rendition: Planned) -> Self {
        Self {
            folder,
            rendition,
            codecs: String::new(),
            init_bytes: 0,
            timeline: Timeline::default(),
            keyframes_at_boundaries: 0,
            captions: Captions::NONE,
            announced: 0,
            init: None,
            verified: None,
        }
    }

    pub(super) fn resume(&mut self, recovered: &checkpoint::RecoveredTrack) {
        self.begin(&recovered.init);
        self.init = Some(recovered.init.clone());
        for entry in &recovered.entries {
            self.add(entry);
        }
    }

    pub(super) fn begin(&mut self, init: &Init) {
        self.codecs.clone_from(&init.codecs);
        self.timeline.timescale = init.timescale;
        self.init_bytes = init.bytes.len() as u64;
    }

    pub(super) fn add(&mut self, entry: &Entry) {
        self.timeline.segments.push(entry.published);
        self.captions |= entry.captions;
        self.keyframes_at_boundaries += usize::from(entry.starts_with_keyframe);
    }

    /// Checks that this attempt's first segment follows the earlier attempt's last one.
    ///
    /// # Errors
    /// [`PublishError::Resume`] if they overlap, or if the gap between them is too long.
    pub(super) fn check_continuity(&self, next: &Published) -> Result<(), PublishError> {
        let Some(last) = self.timeline.segments.last() else { return Ok(()) };
        let end = self.timeline.seconds(last.start_ticks + last.duration_ticks);
        let gap = self.timeline.seconds(next.start_ticks) - end;
        let most = match self.rendition {
            Planned::Video(_) => SAME_INSTANT_SECONDS,
            Planned::Audio(_) => 0.0,
        };
        if gap.abs() > most {
            return Err(PublishError::Resume(format!(
                "{} continues {gap:.3} s after its last segment",
                self.folder
            )));
        }
        Ok(())
    }

    pub(super) fn describe(&self, rating: Rating, max_kbps: u32, target_seconds: u64) -> Rendition {
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

    pub(super) fn layout(&self, audio: &AudioRendition, rating: Rating, target_seconds: u64) -> AudioLayout {
        AudioLayout {
            rendition: self.describe(rating, audio.kbps, target_seconds),
            channels: audio.channels,
            sample_rate: audio.sample_rate,
        }
    }

    pub(super) fn report(&self) -> job::Rendition {
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
                copied: rung.is_copied(),
                width: rung.width,
                height: rung.height,
                ..blank
            },
            Planned::Audio(audio) => job::Rendition {
                name: audio.name.clone(),
                kind: RenditionKind::Audio,
                copied: audio.is_copied(),
                channels: audio.channels,
                language: audio.language.clone(),
                ..blank
            },
        }
    }

    /// Returns true for a copied rung.
    #[must_use]
    pub(crate) fn is_copied(&self) -> bool {
        matches!(&self.rendition, Planned::Video(rung) if rung.is_copied())
    }

    /// The interval that follows the encoded prefix, if the rung has one.
    pub(super) fn prefix_until(&self) -> Option<i64> {
        match &self.rendition {
            Planned::Video(rung) => rung.encoded_prefix.as_ref().map(|encoded_prefix| encoded_prefix.until),
            Planned::Audio(_) => None,
        }
    }

    /// The H.264 level to state for a copied rung.
    pub(super) fn level(&self) -> Option<u8> {
        match &self.rendition {
            Planned::Video(rung) => rung.level,
            Planned::Audio(_) => None,
        }
    }

    /// Number of frames.
    #[must_use]
    pub(crate) fn frames(&self) -> usize {
        self.timeline.segments.iter().map(|segment| segment.samples).sum()
    }
}

impl SubtitleTrack {
    pub(super) fn describe(&self) -> TextRendition {
        let folder = self.folder.clone();
        TextRendition {
            rendition: Rendition {
                folder,
                codecs: String::new(),
                timeline: self.timeline.clone(),
                rates: self.timeline.rates(self.timeline.longest_seconds().ceil() as u64),
            },
            label: self.rendition.label.clone(),
            language: self.rendition.language.as_deref().and_then(language::tag),
            role: self.rendition.role,
        }
    }

    pub(super) fn report(&self) -> job::Rendition {
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
