//! The state of the work, and the share of it that is done.

use std::time::Duration;

use jiff::Timestamp;
use tokio::{sync::watch, time::Instant};
use vidstreamx_job::{Exit, JobId, Progress, RungProgress, Stage};

/// The share of the remaining work that each stage gets. Rough estimates: measuring takes a few seconds per
/// hour of audio, encoding from minutes to hours.
const MEASURING: f64 = 0.05;
const ENCODING: f64 = 0.98;
/// For profiles with MP4 files, which are written in the last stage.
const ENCODING_BEFORE_FILES: f64 = 0.95;
/// Time before the speed of a stage is meaningful, because FFmpeg starts slowly.
const MIN_OBSERVATION: Duration = Duration::from_secs(3);
/// Largest share of an unfinished stream. Only a complete one has a share of 1.
const MAX_SHARE_BEFORE_END: f64 = 0.999;

/// The state of the work, shared with its observers.
#[derive(Debug, Default)]
pub(crate) struct ProgressState(watch::Sender<State>);

impl ProgressState {
    pub(super) fn subscribe(&self) -> watch::Receiver<State> {
        self.0.subscribe()
    }

    /// Sets the duration and the rungs of the plan. `files` is true if MP4 files are published.
    pub(crate) fn planned<'a>(
        &self,
        duration_seconds: f64,
        rungs: impl Iterator<Item = &'a str>,
        files: bool,
    ) {
        let rungs = rungs.map(|name| RungProgress { name: name.to_owned(), segments: 0 }).collect();
        self.0.send_modify(|state| {
            state.duration_seconds = duration_seconds;
            state.rungs = rungs;
            state.encoding = if files { ENCODING_BEFORE_FILES } else { ENCODING };
        });
    }

    pub(crate) fn begin(&self, stage: Stage) {
        let now = Instant::now();
        self.0.send_modify(|state| state.begin(stage, now));
    }

    /// Reports that encoding resumes at `at_seconds` of the source. `segments` holds, for each rung, the
    /// number of segments that earlier attempts have published.
    pub(crate) fn resumed(&self, at_seconds: f64, segments: impl Iterator<Item = usize>) {
        self.0.send_modify(|state| {
            state.from_seconds = at_seconds.clamp(0.0, state.duration_seconds);
            state.done_seconds = state.from_seconds;
            state.share.skip(state.from_seconds / state.duration_seconds);
            for (rung, segments) in state.rungs.iter_mut().zip(segments) {
                rung.segments = segments;
            }
        });
    }

    /// Updates FFmpeg's position, which counts from FFmpeg's start point in the source.
    pub(super) fn at(&self, seconds: f64, speed: f64) {
        self.0.send_modify(|state| {
            let all = state.duration_seconds - state.from_seconds;
            let seconds = seconds.min(all);
            state.done_seconds = state.done_seconds.max(state.from_seconds + seconds);
            state.speed = (speed > 0.0).then_some(speed);
            state.share.reach(seconds / all);
        });
    }

    /// Counts a published segment. Renditions are numbered in the plan's order, rungs first.
    pub(crate) fn published(&self, rendition: usize) {
        self.0.send_modify(|state| {
            if let Some(rung) = state.rungs.get_mut(rendition) {
                rung.segments += 1;
            }
        });
    }

    /// Reports the completed fraction (0 to 1) of a stage that has no FFmpeg process.
    pub(crate) fn reached(&self, fraction: f64) {
        self.0.send_modify(|state| state.share.reach(fraction));
    }

    pub(crate) fn end(&self, exit: Exit) {
        let stage = if exit == Exit::Done { Stage::Complete } else { Stage::Failed };
        self.begin(stage);
    }
}

/// The content of [`ProgressState`]. Its size depends only on the number of rungs.
#[derive(Debug, Clone, Default)]
pub(super) struct State {
    /// Absent before the first stage.
    pub(super) stage: Option<Stage>,
    pub(super) share: Share,
    /// Share of encoding in the remaining work.
    encoding: f64,
    pub(super) speed: Option<f64>,
    /// FFmpeg's start point in the source.
    from_seconds: f64,
    done_seconds: f64,
    duration_seconds: f64,
    pub(super) rungs: Vec<RungProgress>,
}

impl State {
    fn begin(&mut self, stage: Stage, now: Instant) {
        self.stage = Some(stage);
        self.speed = None;
        match stage {
            Stage::Measuring => self.share.begin(MEASURING, now),
            Stage::Encoding => self.share.begin(self.encoding, now),
            Stage::Finishing => self.share.begin(1.0, now),
            Stage::Complete => self.share.complete(),
            Stage::Failed => {}
        }
        match stage {
            Stage::Measuring | Stage::Encoding => (self.from_seconds, self.done_seconds) = (0.0, 0.0),
            Stage::Finishing | Stage::Complete => self.done_seconds = self.duration_seconds,
            Stage::Failed => {}
        }
    }

    #[must_use]
    pub(super) fn is_end(&self) -> bool {
        self.stage.is_some_and(Stage::is_end)
    }

    /// Estimated remaining time. Absent while loudness is measured, because the speed of the measurement does
    /// not predict the speed of encoding.
    #[must_use]
    pub(super) fn left(&self, now: Instant) -> Option<Duration> {
        match self.stage? {
            Stage::Encoding | Stage::Finishing => self.share.left(now),
            Stage::Measuring | Stage::Complete | Stage::Failed => None,
        }
    }

    #[must_use]
    pub(super) fn progress(
        &self,
        job_id: &JobId,
        started_at: Timestamp,
        now: Instant,
        updated_at: Timestamp,
    ) -> Option<Progress> {
        Some(Progress {
            schema: Progress::SCHEMA,
            job_id: job_id.clone(),
            started_at,
            updated_at,
            stage: self.stage?,
            // Rounded down, so that only a complete stream has 1.
            share: (self.share.done * 1e4).floor() / 1e4,
            speed: self.speed,
            expected_end: self.left(now).and_then(|left| updated_at.checked_add(left).ok()),
            done_seconds: self.done_seconds,
            duration_seconds: self.duration_seconds,
            rungs: self.rungs.clone(),
        })
    }
}

/// The completed share of all work. Each stage gets a part of the work that remains when it begins, so the
/// share never falls if a stage is repeated.
#[derive(Debug, Clone, Copy)]
pub(super) struct Share {
    pub(super) done: f64,
    /// Range and start time of the current stage.
    from: f64,
    to: f64,
    since: Instant,
}

impl Default for Share {
    fn default() -> Self {
        Self { done: 0.0, from: 0.0, to: 0.0, since: Instant::now() }
    }
}

impl Share {
    fn begin(&mut self, part: f64, now: Instant) {
        self.from = self.done;
        self.to = (self.done + (1.0 - self.done) * part).min(MAX_SHARE_BEFORE_END);
        self.since = now;
    }

    /// Skips the fraction of the stage that an earlier attempt has done, so that the estimate of the
    /// remaining time ignores it.
    fn skip(&mut self, fraction: f64) {
        self.reach(fraction);
        self.from = self.done;
    }

    /// Advances the stage to this fraction. Values out of range are possible, because the duration may be
    /// wrong or unknown (0).
    fn reach(&mut self, fraction: f64) {
        let fraction = if fraction.is_finite() { fraction.clamp(0.0, 1.0) } else { 0.0 };
        self.done = self.done.max(self.from + (self.to - self.from) * fraction);
    }

    fn complete(&mut self) {
        self.done = 1.0;
    }

    /// Remaining time at the stage's speed so far.
    fn left(&self, now: Instant) -> Option<Duration> {
        let passed = now.duration_since(self.since);
        if !self.has_moved() || passed < MIN_OBSERVATION {
            return None;
        }
        let seconds = passed.as_secs_f64() * (1.0 - self.done) / (self.done - self.from);
        Duration::try_from_secs_f64(seconds).ok()
    }

    /// Returns true if the share has grown in the current stage.
    #[must_use]
    pub(super) fn has_moved(&self) -> bool {
        self.done > self.from
    }
}
