//! How far the work is: for people a bar on a terminal or a log line every few seconds, for other programs a small
//! object beside the job's record.
//!
//! Whoever does a part of the work tells [`ProgressState`], which neither waits nor fails. What is shown and written is
//! taken from there at a pace of its own.

use std::{
    convert::Infallible,
    io::IsTerminal,
    time::{Duration, Instant as StdInstant},
};

use bytes::Bytes;
use indicatif::{FormattedDuration, ProgressBar, ProgressStyle};
use jiff::{Timestamp, Unit};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::unix::pipe,
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep_until, timeout},
};
use tracing::Instrument;
use vidstreamx_job::{Exit, JobId, Progress, RungProgress, Stage};

use crate::{process::FfmpegError, store::S3Error, store::StatusObject};

/// Between log lines.
const LOG_EVERY: Duration = Duration::from_secs(5);
/// Between the beginnings of two writes; each is paid for.
const WRITE_EVERY: Duration = Duration::from_secs(5);
/// What a write may take, and what the task waits for the last one at its end.
const WRITE_LIMIT: Duration = Duration::from_secs(3);
/// FFmpeg reports about once a second; a decoder that hangs, or an encoder whose output nobody takes, stops
/// reporting. Uploads have time limits of their own, well under this.
pub const STALL_LIMIT: Duration = Duration::from_secs(600);

/// The share of what is left that goes to each stage. Rough: decoding sound takes a few seconds per hour of it,
/// encoding anything from minutes to hours.
const MEASURING: f64 = 0.05;
const ENCODING: f64 = 0.98;
/// MP4 files are made at the end, out of all segments.
const ENCODING_BEFORE_FILES: f64 = 0.95;
/// FFmpeg is slow to begin: how fast it is shows after this time.
const TELLING: Duration = Duration::from_secs(3);
/// 1 is for what is complete.
const MOST_BEFORE_THE_END: f64 = 0.999;

/// Where the work stands.
#[derive(Debug, Default)]
pub struct ProgressState(watch::Sender<State>);

impl ProgressState {
    /// It is known what the source is and what is made of it; `files` if MP4 files are.
    pub fn planned<'a>(&self, duration_seconds: f64, rungs: impl Iterator<Item = &'a str>, files: bool) {
        let rungs = rungs.map(|name| RungProgress { name: name.to_owned(), segments: 0 }).collect();
        self.0.send_modify(|state| {
            state.duration_seconds = duration_seconds;
            state.rungs = rungs;
            state.encoding = if files { ENCODING_BEFORE_FILES } else { ENCODING };
        });
    }

    /// A stage begins.
    pub fn begin(&self, stage: Stage) {
        let now = Instant::now();
        self.0.send_modify(|state| state.begin(stage, now));
    }

    /// Encoding goes on at an instant of the source, up to which an earlier attempt has published so many segments of
    /// each rung.
    pub fn resumed(&self, at_seconds: f64, segments: impl Iterator<Item = usize>) {
        self.0.send_modify(|state| {
            state.from_seconds = at_seconds.clamp(0.0, state.duration_seconds);
            state.done_seconds = state.from_seconds;
            state.share.skip(state.from_seconds / state.duration_seconds);
            for (rung, segments) in state.rungs.iter_mut().zip(segments) {
                rung.segments = segments;
            }
        });
    }

    /// FFmpeg's place in the source, counted from where it began.
    fn at(&self, latest: &Latest) {
        self.0.send_modify(|state| {
            let all = state.duration_seconds - state.from_seconds;
            let seconds = latest.seconds.min(all);
            state.done_seconds = state.done_seconds.max(state.from_seconds + seconds);
            state.speed = (latest.speed > 0.0).then_some(latest.speed);
            state.share.reach(seconds / all);
        });
    }

    /// A segment of a rendition is published; rungs count first.
    pub fn published(&self, rendition: usize) {
        self.0.send_modify(|state| {
            if let Some(rung) = state.rungs.get_mut(rendition) {
                rung.segments += 1;
            }
        });
    }

    /// So much of what the stage does is done, from 0 to 1; for stages that FFmpeg has no part in.
    pub fn reached(&self, fraction: f64) {
        self.0.send_modify(|state| state.share.reach(fraction));
    }

    /// The task is at its end.
    pub fn end(&self, exit: Exit) {
        let stage = if exit == Exit::Done { Stage::Complete } else { Stage::Failed };
        self.begin(stage);
    }
}

/// What [`ProgressState`] holds; of a size that the number of rungs decides.
#[derive(Debug, Clone, Default)]
struct State {
    /// Absent before it is known what the source is.
    stage: Option<Stage>,
    share: Share,
    /// What of the rest encoding takes.
    encoding: f64,
    speed: Option<f64>,
    /// Where FFmpeg began.
    from_seconds: f64,
    done_seconds: f64,
    duration_seconds: f64,
    rungs: Vec<RungProgress>,
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

    fn is_end(&self) -> bool {
        self.stage.is_some_and(Stage::is_end)
    }

    /// How long the rest takes. How fast sound is measured says nothing about it.
    fn left(&self, now: Instant) -> Option<Duration> {
        match self.stage? {
            Stage::Encoding | Stage::Finishing => self.share.left(now),
            Stage::Measuring | Stage::Complete | Stage::Failed => None,
        }
    }

    fn progress(&self, task: &Task, now: Instant, updated_at: Timestamp) -> Option<Progress> {
        Some(Progress {
            schema: Progress::SCHEMA,
            job_id: task.job_id.clone(),
            started_at: task.started_at,
            updated_at,
            stage: self.stage?,
            // Rounded down, so that only 1 becomes 1.
            share: (self.share.done * 1e4).floor() / 1e4,
            speed: self.speed,
            expected_end: self.left(now).and_then(|left| updated_at.checked_add(left).ok()),
            done_seconds: self.done_seconds,
            duration_seconds: self.duration_seconds,
            rungs: self.rungs.clone(),
        })
    }
}

/// How much of all work is done. Each stage gets a part of what is left when it begins, so that work that must be
/// done once more goes on where the first try came to.
#[derive(Debug, Clone, Copy)]
struct Share {
    done: f64,
    /// Of the stage.
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
        self.to = (self.done + (1.0 - self.done) * part).min(MOST_BEFORE_THE_END);
        self.since = now;
    }

    /// This fraction of the stage was done before: it says nothing about its pace.
    fn skip(&mut self, fraction: f64) {
        self.reach(fraction);
        self.from = self.done;
    }

    /// The stage has done this fraction of its part. A header may lie about the duration, and an unknown one is 0.
    fn reach(&mut self, fraction: f64) {
        let fraction = if fraction.is_finite() { fraction.clamp(0.0, 1.0) } else { 0.0 };
        self.done = self.done.max(self.from + (self.to - self.from) * fraction);
    }

    fn complete(&mut self) {
        self.done = 1.0;
    }

    /// How long the rest takes at the stage's pace so far.
    fn left(&self, now: Instant) -> Option<Duration> {
        let passed = now.duration_since(self.since);
        if !self.has_moved() || passed < TELLING {
            return None;
        }
        let seconds = passed.as_secs_f64() * (1.0 - self.done) / (self.done - self.from);
        Duration::try_from_secs_f64(seconds).ok()
    }

    /// Since the stage began.
    fn has_moved(&self) -> bool {
        self.done > self.from
    }
}

/// Follows FFmpeg's progress until the pipe ends.
///
/// # Errors
/// Stalled, if neither position nor frames move for [`STALL_LIMIT`].
pub async fn follow(pipe: pipe::Receiver, progress_state: &ProgressState) -> Result<(), FfmpegError> {
    let mut lines = BufReader::new(pipe).lines();
    let mut latest = Latest::default();
    let mut moved = StdInstant::now();
    loop {
        let line = match timeout(STALL_LIMIT.saturating_sub(moved.elapsed()), lines.next_line()).await {
            Err(_) => return Err(FfmpegError::Stalled(STALL_LIMIT.as_secs())),
            Ok(Ok(Some(line))) => line,
            Ok(_) => return Ok(()),
        };
        let before = (latest.seconds, latest.frames);
        if latest.read(&line) {
            progress_state.at(&latest);
        }
        if latest.seconds > before.0 || latest.frames > before.1 {
            moved = StdInstant::now();
        }
    }
}

#[derive(Debug, Default, PartialEq)]
struct Latest {
    /// The furthest that any output is.
    seconds: f64,
    /// Of the picture.
    frames: u64,
    speed: f64,
}

impl Latest {
    /// Takes one `key=value` line; true when a report is complete.
    fn read(&mut self, line: &str) -> bool {
        match line.split_once('=').map(|(key, value)| (key.trim(), value.trim())) {
            // "N/A" before the first frame.
            Some(("out_time_us", value)) => {
                if let Ok(microseconds) = value.parse::<i64>() {
                    self.seconds = microseconds.max(0) as f64 / 1e6;
                }
            }
            Some(("frame", value)) => self.frames = value.parse().unwrap_or(self.frames),
            Some(("speed", value)) => {
                if let Ok(speed) = value.trim_end_matches('x').trim().parse() {
                    self.speed = speed;
                }
            }
            Some(("progress", _)) => return true,
            _ => {}
        }
        false
    }
}

/// Shows people how far the work is, until it is dropped.
pub async fn show(progress_state: &ProgressState) -> Infallible {
    let mut states = progress_state.0.subscribe();
    let mut display = Display::default();
    while states.changed().await.is_ok() {
        display.show(&states.borrow_and_update());
    }
    // Not reached: what sends is borrowed.
    std::future::pending().await
}

#[derive(Default)]
struct Display {
    bar: Option<ProgressBar>,
    logged: Option<Instant>,
}

impl Display {
    /// Of the bar.
    const STEPS: u64 = 1000;

    fn show(&mut self, state: &State) {
        let now = Instant::now();
        let Some(stage) = state.stage.filter(|_| !state.is_end() && state.share.has_moved()) else { return };
        let left = state.left(now);
        let speed = state.speed.map(|speed| format!("{speed:.1}x"));
        if std::io::stderr().is_terminal() {
            let bar = self.bar.get_or_insert_with(Self::new_bar);
            bar.set_position((state.share.done * Self::STEPS as f64) as u64);
            let left = left.map(|left| format!("  ETA {}", FormattedDuration(left)));
            bar.set_message(format!("{}{}", speed.unwrap_or_default(), left.unwrap_or_default()));
        } else if self.logged.is_none_or(|logged| now.duration_since(logged) >= LOG_EVERY) {
            self.logged = Some(now);
            let end = left.and_then(|left| Timestamp::now().checked_add(left).ok()?.round(Unit::Second).ok());
            let names: Vec<_> = state.rungs.iter().map(|rung| rung.name.as_str()).collect();
            tracing::info!(
                stage = ?stage,
                percent = (state.share.done * 100.0) as u64,
                speed,
                expected_end = end.map(|end| end.to_string()),
                rungs = names.join(" "),
                "progress"
            );
        }
    }

    fn new_bar() -> ProgressBar {
        let bar = ProgressBar::new(Self::STEPS);
        if let Ok(style) = ProgressStyle::with_template("{bar:40} {percent:>3}%  {msg}") {
            bar.set_style(style);
        }
        bar
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Whose progress it is.
#[derive(Debug)]
struct Task {
    job_id: JobId,
    started_at: Timestamp,
}

/// Writes how far the work is while others do it.
#[derive(Debug)]
pub struct Writer(JoinHandle<()>);

impl Writer {
    /// Begins as soon as it is known what the source is.
    pub fn start(
        progress_state: &ProgressState,
        job_id: JobId,
        started_at: Timestamp,
        slot: StatusObject,
    ) -> Self {
        let states = progress_state.0.subscribe();
        let task = Task { job_id, started_at };
        let write = async move { write_regularly(states, &task, |json| slot.put(json)).await };
        Self(tokio::spawn(write.in_current_span()))
    }

    /// Waits until what [`ProgressState::end`] said is written, or not much longer.
    pub async fn end(self) {
        if timeout(WRITE_LIMIT, self.0).await.is_err() {
            tracing::debug!("the last state of the progress is not written in time");
        }
    }
}

/// One write at a time, each of what is the case when it begins; the last one, at the end, at once. It says every few
/// seconds that the task is there, even where nothing moves.
async fn write_regularly<F>(mut states: watch::Receiver<State>, task: &Task, put: impl Fn(Bytes) -> F)
where
    F: Future<Output = Result<(), S3Error>>,
{
    // An error: the task ends without having said so.
    if states.wait_for(|state| state.stage.is_some()).await.is_err() {
        return;
    }
    loop {
        let began = Instant::now();
        let (progress, is_end) = {
            let state = states.borrow_and_update();
            (state.progress(task, began, Timestamp::now()), state.is_end())
        };
        let Some(Ok(json)) = progress.map(|progress| serde_json::to_vec(&progress)) else { return };
        match timeout(WRITE_LIMIT, put(json.into())).await {
            Ok(Ok(())) => {}
            // The role of an older template: it will not change while the task runs.
            Ok(Err(error @ S3Error::Refused { .. })) => {
                tracing::warn!("nobody can see how far this video is, but it will be made: {error}");
                return;
            }
            Ok(Err(error)) => tracing::debug!("progress: {error}"),
            Err(_) => tracing::debug!("progress is not written within {} s", WRITE_LIMIT.as_secs()),
        }
        if is_end {
            return;
        }
        tokio::select! {
            () = sleep_until(began + WRITE_EVERY) => {}
            end = states.wait_for(State::is_end) => if end.is_err() { return },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        cell::{Cell, RefCell},
        future::pending,
    };

    use proptest::prelude::*;

    use super::*;

    const STAGES: [Stage; 3] = [Stage::Measuring, Stage::Encoding, Stage::Finishing];

    fn task() -> Task {
        Task {
            job_id: "0123456789abcdef0123456789abcdef".parse().unwrap(),
            started_at: "2026-01-02T03:00:00Z".parse().unwrap(),
        }
    }

    fn planned(duration_seconds: f64) -> ProgressState {
        let progress_state = ProgressState::default();
        progress_state.planned(duration_seconds, ["360p", "240p"].into_iter(), false);
        progress_state
    }

    fn at(progress_state: &ProgressState, seconds: f64, speed: f64) {
        progress_state.at(&Latest { seconds, frames: 0, speed });
    }

    fn now(progress_state: &ProgressState) -> Progress {
        let updated_at = "2026-01-02T04:00:00Z".parse().unwrap();
        progress_state.0.borrow().progress(&task(), Instant::now(), updated_at).unwrap()
    }

    proptest! {
        #[test]
        fn the_share_never_falls_and_is_1_only_at_the_end(
            duration in prop_oneof![Just(0.0), 0.1..1e6],
            steps in prop::collection::vec((0..3_usize, prop::collection::vec(any::<f64>(), 0..4)), 0..40),
            files: bool,
            done: bool,
        ) {
            let progress_state = ProgressState::default();
            progress_state.planned(duration, [].into_iter(), files);
            let mut before = 0.0;
            for (stage, places) in steps {
                progress_state.begin(STAGES[stage]);
                for place in places {
                    at(&progress_state, place, place);
                    progress_state.reached(place);
                    let progress = now(&progress_state);
                    prop_assert!(before <= progress.share && progress.share < 1.0, "{before} {progress:?}");
                    prop_assert!((0.0..=duration).contains(&progress.done_seconds), "{progress:?}");
                    before = progress.share;
                }
            }
            progress_state.end(if done { Exit::Done } else { Exit::Transient });
            let end = now(&progress_state);
            let expected = if done { (Stage::Complete, 1.0, duration) } else { (Stage::Failed, before, end.done_seconds) };
            prop_assert_eq!((end.stage, end.share, end.done_seconds), expected);
            prop_assert_eq!((end.speed, end.expected_end), (None, None));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_is_expected_by_the_pace_of_the_stage() {
        let progress_state = planned(600.0);
        let seconds_left = || {
            let progress = now(&progress_state);
            progress.expected_end.map(|end| end.duration_since(progress.updated_at).as_secs_f64().round())
        };
        progress_state.begin(Stage::Measuring);
        tokio::time::advance(Duration::from_secs(30)).await;
        at(&progress_state, 600.0, 20.0);
        assert_eq!(seconds_left(), None);
        progress_state.begin(Stage::Encoding);
        at(&progress_state, 0.04, 0.1);
        assert_eq!((now(&progress_state).share, seconds_left()), (0.05, None), "too early to tell");
        tokio::time::advance(Duration::from_secs(100)).await;
        at(&progress_state, 300.0, 3.0);
        // Half of its 0.95 * 0.98 in 100 s.
        assert_eq!((now(&progress_state).share, seconds_left()), (0.5155, Some(104.0)));
        assert_eq!((now(&progress_state).speed, now(&progress_state).done_seconds), (Some(3.0), 300.0));
        // Where nothing moves, the end moves away.
        tokio::time::advance(Duration::from_secs(100)).await;
        assert_eq!(seconds_left(), Some(208.0));
        // What was copied in vain is encoded, and goes on where the first try came to.
        progress_state.begin(Stage::Finishing);
        assert_eq!((now(&progress_state).done_seconds, seconds_left()), (600.0, None));
        progress_state.begin(Stage::Encoding);
        assert_eq!((now(&progress_state).share, now(&progress_state).done_seconds), (0.5155, 0.0));
    }

    /// Runs a writer for 62 s in which something is told every second, then for as long as it takes to end. Says when
    /// each write began (in ms), what it wrote, and how many were on their way at most.
    async fn written(put: impl AsyncFn() -> Result<(), S3Error>) -> (Vec<(u128, Progress)>, usize) {
        let progress_state = planned(100.0);
        let begun = Instant::now();
        let (writes, at_once, most) = (RefCell::new(Vec::new()), Cell::new(0), Cell::new(0));
        let put = async |json: Bytes| {
            let progress = Progress::parse(&json).unwrap();
            writes.borrow_mut().push((begun.elapsed().as_millis(), progress));
            at_once.set(at_once.get() + 1);
            most.set(most.get().max(at_once.get()));
            // Counts down also where the write is given up.
            let _one = Guard(&at_once);
            put().await
        };
        let task = task();
        let writing = write_regularly(progress_state.0.subscribe(), &task, put);
        let working = async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            progress_state.begin(Stage::Encoding);
            for second in 0..62 {
                at(&progress_state, f64::from(second), 1.0);
                progress_state.published(usize::try_from(second).unwrap() % 2);
                let told = Instant::now();
                tokio::time::sleep(Duration::from_secs(1)).await;
                assert_eq!(told.elapsed(), Duration::from_secs(1), "the work waited");
            }
            progress_state.end(Exit::Done);
        };
        tokio::join!(writing, working);
        (writes.into_inner(), most.get())
    }

    struct Guard<'a>(&'a Cell<usize>);

    impl Drop for Guard<'_> {
        fn drop(&mut self) {
            self.0.set(self.0.get() - 1);
        }
    }

    fn every_five_seconds_and_at_the_end(writes: &[(u128, Progress)]) {
        let times: Vec<_> = writes.iter().map(|(time, _)| *time).collect();
        let last = times.last().copied().unwrap();
        assert_eq!(times[0], 500, "nothing is known before");
        assert!(times[..13].windows(2).all(|pair| pair[1] - pair[0] == 5000), "{times:?}");
        assert!((62_500..=63_500).contains(&last), "{times:?}");
        assert_eq!(times.len(), 14, "{times:?}");
        assert_eq!((writes[13].1.stage, writes[13].1.share), (Stage::Complete, 1.0));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_the_case_is_written_every_five_seconds_and_at_the_end() {
        let (writes, at_once) = written(async || Ok(())).await;
        every_five_seconds_and_at_the_end(&writes);
        assert_eq!(at_once, 1);
        let (_, second) = &writes[1];
        assert_eq!((second.stage, second.done_seconds, second.share), (Stage::Encoding, 5.0, 0.049));
        let segments: Vec<_> = second.rungs.iter().map(|rung| (rung.name.as_str(), rung.segments)).collect();
        assert_eq!(segments, [("360p", 3), ("240p", 3)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_fails_or_never_answers_is_asked_no_more_often() {
        let trouble = || S3Error::Transient { action: "write", object: "o".into(), detail: "500".into() };
        let (writes, at_once) = written(async || Err(trouble())).await;
        every_five_seconds_and_at_the_end(&writes);
        assert_eq!(at_once, 1);
        let (writes, at_once) = written(async || pending().await).await;
        every_five_seconds_and_at_the_end(&writes);
        assert_eq!(at_once, 1);
        // It answers, but late.
        let (writes, at_once) = written(async || {
            tokio::time::sleep(Duration::from_millis(2900)).await;
            Ok(())
        })
        .await;
        every_five_seconds_and_at_the_end(&writes);
        assert_eq!(at_once, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_refuses_is_not_asked_again() {
        let refused = || S3Error::Refused { action: "write", object: "o".into(), detail: "no".into() };
        assert_eq!(written(async || Err(refused())).await.0.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_ends_before_anything_is_known_is_written_once() {
        let progress_state = ProgressState::default();
        let (writes, task) = (RefCell::new(Vec::new()), task());
        let put = async |json: Bytes| {
            writes.borrow_mut().push(Progress::parse(&json).unwrap());
            Ok(())
        };
        let states = progress_state.0.subscribe();
        progress_state.end(Exit::Unusable);
        write_regularly(states, &task, put).await;
        let writes = writes.into_inner();
        assert_eq!((writes.len(), writes[0].stage, writes[0].share), (1, Stage::Failed, 0.0));
    }

    #[tokio::test(start_paused = true)]
    async fn the_task_does_not_wait_for_ever_for_the_last_write() {
        let began = Instant::now();
        Writer(tokio::spawn(pending())).end().await;
        assert_eq!(began.elapsed().as_secs(), WRITE_LIMIT.as_secs());
    }

    #[test]
    fn ffmpegs_lines() {
        let mut latest = Latest::default();
        for line in ["frame=10", "out_time_us=N/A", "speed=N/A"] {
            assert!(!latest.read(line));
        }
        assert!(latest.read("progress=continue"));
        assert_eq!(latest, Latest { frames: 10, ..Latest::default() });
        for line in ["out_time_us=1500000", "speed= 3.2x", "progress=end"] {
            latest.read(line);
        }
        assert_eq!(latest, Latest { seconds: 1.5, frames: 10, speed: 3.2 });
    }
}
