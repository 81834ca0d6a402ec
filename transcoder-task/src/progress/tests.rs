use std::{
    cell::{Cell, RefCell},
    future::pending,
    time::Duration,
};

use proptest::prelude::*;

use bytes::Bytes;
use tokio::time::Instant;
use vidstreamx_job::{Exit, Progress, Stage};

use crate::store::S3Error;

use super::{
    ProgressState, Writer,
    ffmpeg_progress::FfmpegProgress,
    status_writer::{Task, WRITE_LIMIT, write_regularly},
};

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
    progress_state.at(seconds, speed);
}

fn now(progress_state: &ProgressState) -> Progress {
    let updated_at = "2026-01-02T04:00:00Z".parse().unwrap();
    let Task { job_id, started_at } = task();
    progress_state.subscribe().borrow().progress(&job_id, started_at, Instant::now(), updated_at).unwrap()
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
        for (stage, positions) in steps {
            progress_state.begin(STAGES[stage]);
            for position in positions {
                at(&progress_state, position, position);
                progress_state.reached(position);
                let progress = now(&progress_state);
                prop_assert!(before <= progress.share && progress.share < 1.0, "{before} {progress:?}");
                prop_assert!((0.0..=duration).contains(&progress.done_seconds), "{progress:?}");
                before = progress.share;
            }
        }
        progress_state.end(if done { Exit::Done } else { Exit::Transient });
        let end = now(&progress_state);
        let failed = (Stage::Failed, before, end.done_seconds);
        let expected = if done { (Stage::Complete, 1.0, duration) } else { failed };
        prop_assert_eq!((end.stage, end.share, end.done_seconds), expected);
        prop_assert_eq!((end.speed, end.expected_end), (None, None));
    }
}

#[tokio::test(start_paused = true)]
async fn expected_end_follows_the_stages_speed() {
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
    assert_eq!((now(&progress_state).share, seconds_left()), (0.05, None), "too early for an estimate");
    tokio::time::advance(Duration::from_secs(100)).await;
    at(&progress_state, 300.0, 3.0);
    // Half of the stage's share, 0.95 * 0.98, took 100 s.
    assert_eq!((now(&progress_state).share, seconds_left()), (0.5155, Some(104.0)));
    assert_eq!((now(&progress_state).speed, now(&progress_state).done_seconds), (Some(3.0), 300.0));
    // Without progress, the expected end moves away.
    tokio::time::advance(Duration::from_secs(100)).await;
    assert_eq!(seconds_left(), Some(208.0));
    // A repeated stage continues from the share that the first one reached.
    progress_state.begin(Stage::Finishing);
    assert_eq!((now(&progress_state).done_seconds, seconds_left()), (600.0, None));
    progress_state.begin(Stage::Encoding);
    assert_eq!((now(&progress_state).share, now(&progress_state).done_seconds), (0.5155, 0.0));
}

/// Runs a writer for 62 s with one progress report per second, then until it ends. Returns the start (in ms)
/// and content of each write, and the largest number of concurrent writes.
async fn written(put: impl AsyncFn() -> Result<(), S3Error>) -> (Vec<(u128, Progress)>, usize) {
    let progress_state = planned(100.0);
    let begun = Instant::now();
    let (writes, at_once, most) = (RefCell::new(Vec::new()), Cell::new(0), Cell::new(0));
    let put = async |json: Bytes| {
        let progress = Progress::parse(&json).unwrap();
        writes.borrow_mut().push((begun.elapsed().as_millis(), progress));
        at_once.set(at_once.get() + 1);
        most.set(most.get().max(at_once.get()));
        // Also decremented when the write is cancelled.
        let _one = Guard(&at_once);
        put().await
    };
    let task = task();
    let writing = write_regularly(progress_state.subscribe(), &task, put);
    let working = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        progress_state.begin(Stage::Encoding);
        for second in 0..62 {
            at(&progress_state, f64::from(second), 1.0);
            progress_state.published(usize::try_from(second).unwrap() % 2);
            let reported = Instant::now();
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert_eq!(reported.elapsed(), Duration::from_secs(1), "the work must not wait for a write");
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

fn assert_every_five_seconds_and_at_the_end(writes: &[(u128, Progress)]) {
    let times: Vec<_> = writes.iter().map(|(time, _)| *time).collect();
    let last = times.last().copied().unwrap();
    assert_eq!(times[0], 500, "no write before the first stage");
    assert!(times[..13].windows(2).all(|pair| pair[1] - pair[0] == 5000), "{times:?}");
    assert!((62_500..=63_500).contains(&last), "{times:?}");
    assert_eq!(times.len(), 14, "{times:?}");
    assert_eq!((writes[13].1.stage, writes[13].1.share), (Stage::Complete, 1.0));
}

#[tokio::test(start_paused = true)]
async fn the_state_is_written_every_five_seconds_and_at_the_end() {
    let (writes, at_once) = written(async || Ok(())).await;
    assert_every_five_seconds_and_at_the_end(&writes);
    assert_eq!(at_once, 1);
    let (_, second) = &writes[1];
    assert_eq!((second.stage, second.done_seconds, second.share), (Stage::Encoding, 5.0, 0.049));
    let segments: Vec<_> = second.rungs.iter().map(|rung| (rung.name.as_str(), rung.segments)).collect();
    assert_eq!(segments, [("360p", 3), ("240p", 3)]);
}

#[tokio::test(start_paused = true)]
async fn a_failing_or_silent_store_gets_as_many_writes_as_a_working_one() {
    let transient = || S3Error::Transient { action: "write", object: "o".into(), detail: "500".into() };
    let (writes, at_once) = written(async || Err(transient())).await;
    assert_every_five_seconds_and_at_the_end(&writes);
    assert_eq!(at_once, 1);
    let (writes, at_once) = written(async || pending().await).await;
    assert_every_five_seconds_and_at_the_end(&writes);
    assert_eq!(at_once, 1);
    // The response comes just before the time limit.
    let (writes, at_once) = written(async || {
        tokio::time::sleep(Duration::from_millis(2900)).await;
        Ok(())
    })
    .await;
    assert_every_five_seconds_and_at_the_end(&writes);
    assert_eq!(at_once, 1);
}

#[tokio::test(start_paused = true)]
async fn no_write_follows_a_refused_one() {
    let refused = || S3Error::Refused { action: "write", object: "o".into(), detail: "no".into() };
    assert_eq!(written(async || Err(refused())).await.0.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_end_before_the_first_stage_is_written_once() {
    let progress_state = ProgressState::default();
    let (writes, task) = (RefCell::new(Vec::new()), task());
    let put = async |json: Bytes| {
        writes.borrow_mut().push(Progress::parse(&json).unwrap());
        Ok(())
    };
    let states = progress_state.subscribe();
    progress_state.end(Exit::Unusable);
    write_regularly(states, &task, put).await;
    let writes = writes.into_inner();
    assert_eq!((writes.len(), writes[0].stage, writes[0].share), (1, Stage::Failed, 0.0));
}

#[tokio::test(start_paused = true)]
async fn the_wait_for_the_final_write_is_bounded() {
    let began = Instant::now();
    Writer(tokio::spawn(pending())).end().await;
    assert_eq!(began.elapsed().as_secs(), WRITE_LIMIT.as_secs());
}

#[test]
fn ffmpeg_progress_lines_are_parsed() {
    let mut latest = FfmpegProgress::default();
    for line in ["frame=10", "out_time_us=N/A", "speed=N/A"] {
        assert!(!latest.read(line));
    }
    assert!(latest.read("progress=continue"));
    assert_eq!(latest, FfmpegProgress { frames: 10, ..FfmpegProgress::default() });
    for line in ["out_time_us=1500000", "speed= 3.2x", "progress=end"] {
        latest.read(line);
    }
    assert_eq!(latest, FfmpegProgress { seconds: 1.5, frames: 10, speed: 3.2 });
}
