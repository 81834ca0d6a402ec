//! One video from source to report.

use std::{
    io::Write,
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use futures::future::{join_all, try_join_all};
use jiff::Timestamp;
use tempfile::NamedTempFile;
use tokio::{
    net::unix::pipe,
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;
use vidstreamx_job::{
    Exit, Job, JobId, Layout, Outcome, Probe, Rendition, Report, S3Uri, Source, Stage, Timings,
};

use crate::{
    analysis::ffprobe::{Media, probe},
    analysis::sample_index::Index,
    config::profile::{Format, Profile},
    config::settings::{self, Settings, Work},
    error::TaskError,
    ffmpeg::arguments::{self, Pipe},
    ffmpeg::loudness::{self, Change},
    package::stills::{self, Stills},
    package::webvtt,
    plan::builder::{Copyable, Plan},
    plan::resume_point::ResumePoint,
    process::{self, Ffmpeg, FfmpegError},
    progress::{self, ProgressState, Writer},
    publish::checkpoint::{self, PriorOutput},
    publish::publisher::{self, MASTER, Publisher, retract},
    publish::verify,
    source::loopback::{Input, ServedObject},
    source::object::PinnedObject,
    store::bucket::{CachePolicy, JSON, StatusObject, Store, StoreError},
    store::s3::{self, S3Error},
};

/// Whoever asks the task to end kills it soon after: ECS after 30 s if nothing else is set.
const STOP_LIMIT: Duration = Duration::from_secs(15);
/// What removing takes at most that nobody waits for.
const TIDY_LIMIT: Duration = Duration::from_secs(5);
/// Stills that wait for being noted: as many as are kept in the end.
const MOST_STILLS_AT_ONCE: usize = 100;
const REPORT: &str = "job.json";
const POSTER: &str = "images/poster.jpg";
const STORYBOARD: &str = "images/storyboard.vtt";

/// Does the work, writes the report, and says how the process should exit.
pub async fn run(settings: Settings) -> Exit {
    let clock = Clock { at: Timestamp::now(), instant: Instant::now() };
    let opened = match Opened::new(settings.work, &settings.profile).await {
        Ok(opened) => opened,
        Err(error) => {
            tracing::error!("{error}");
            return error.exit();
        }
    };
    let span = tracing::info_span!("job", id = %opened.job_id, source = opened.name);
    transcode(opened, settings.profile, clock).instrument(span).await
}

async fn transcode(opened: Opened, profile: Profile, clock: Clock) -> Exit {
    tracing::info!(output = opened.store.locate(""), "started");
    let progress_state = ProgressState::default();
    let writer = opened
        .progress
        .clone()
        .map(|slot| Writer::start(&progress_state, opened.job_id.clone(), clock.at, slot));
    let mut found = Found::default();
    let stop = CancellationToken::new();
    let attempt = Attempt {
        opened: &opened,
        profile: &profile,
        clock: &clock,
        progress_state: &progress_state,
        stop: &stop,
    };
    let too_late = async {
        terminated().await;
        stop.cancel();
        tokio::time::sleep(STOP_LIMIT).await;
    };
    let result = tokio::select! {
        result = work(&attempt, &mut found) => result,
        () = too_late => Err(TaskError::Terminated),
        never = progress::show(&progress_state) => match never {},
    };
    let exit = conclude(&opened, found, result, &clock).await;
    progress_state.end(exit);
    if let Some(writer) = writer {
        writer.end().await;
    }
    exit
}

/// Reports how the work came out.
async fn conclude(opened: &Opened, found: Found, result: Result<(), TaskError>, clock: &Clock) -> Exit {
    let exit = match &result {
        Ok(()) => Exit::Done,
        Err(error) => error.exit(),
    };
    let reason = result.err().map(|error| error.to_string());
    if let Some(reason) = &reason {
        tracing::error!(exit_code = exit.code(), "{reason}");
    }
    match exit {
        Exit::Terminated => return exit,
        Exit::Unusable | Exit::Obsolete | Exit::Internal => {
            if let Err(error) = retract(&opened.store, &opened.job_id).await {
                tracing::warn!("the stable address still has the stream that is not complete: {error}");
            }
        }
        _ => {}
    }
    let report = found.report(opened, exit.into(), reason, clock);
    match write_report(opened, &report).await {
        Ok(()) if exit == Exit::Done => {
            if let Some(folder) = &report.folder {
                remove_notes(&opened.store, folder).await;
            }
            tracing::info!(
                total_seconds = report.timings.total_seconds,
                renditions = report.renditions.len(),
                master = opened.store.locate(MASTER),
                "done"
            );
            exit
        }
        Ok(()) => exit,
        Err(error) if exit == Exit::Done => {
            tracing::error!("the stream is made but its report is not written: {error}");
            error.exit()
        }
        Err(error) => {
            tracing::warn!("the report is not written: {error}");
            exit
        }
    }
}

/// What all of the work needs.
struct Attempt<'a> {
    opened: &'a Opened,
    profile: &'a Profile,
    clock: &'a Clock,
    progress_state: &'a ProgressState,
    /// The task is asked to end.
    stop: &'a CancellationToken,
}

/// Nobody needs them any more.
async fn remove_notes(store: &Store, folder: &str) {
    match tokio::time::timeout(TIDY_LIMIT, checkpoint::remove(store, folder)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!("notes for a next attempt, which there is not, stay: {error}"),
        Err(_) => tracing::warn!("notes for a next attempt, which there is not, stay: S3 is slow"),
    }
}

/// When the task began, for people and for measuring.
struct Clock {
    at: Timestamp,
    instant: Instant,
}

/// What to read and where to write, wherever the work was asked for.
struct Opened {
    job_id: JobId,
    /// For log lines.
    name: String,
    source: Option<Source>,
    input: InputKind,
    store: Store,
    /// Where somebody looks how far it is; absent for work by hand.
    progress: Option<StatusObject>,
}

enum InputKind {
    File(std::path::PathBuf),
    Object(Box<PinnedObject>),
    /// Not there any more: reported like every other end.
    Lost(S3Error),
}

impl Opened {
    async fn new(work: Work, profile: &Profile) -> Result<Self, TaskError> {
        match work {
            Work::Job(job) => Ok(Self::job(*job).await),
            Work::ByHand { input, output } => {
                let store = match output {
                    settings::Output::Folder(folder) => Store::Folder(folder),
                    settings::Output::Prefix(S3Uri { bucket, path }) => Store::Bucket {
                        client: s3::client().await,
                        bucket,
                        prefix: path.trim_end_matches('/').into(),
                    },
                };
                Self::by_hand(input, store, profile).await
            }
        }
    }

    async fn job(job: Job) -> Self {
        let client = s3::client().await;
        let name = format!("s3://{}/{}", job.source.bucket, job.source.key);
        let prefix = job.layout().stem().to_owned();
        let input = match PinnedObject::open(client.clone(), job.source.clone()).await {
            Ok(object) => InputKind::Object(Box::new(object)),
            Err(error) => InputKind::Lost(error),
        };
        let progress = StatusObject {
            client: client.clone(),
            bucket: job.output.clone(),
            key: Layout::progress(&job.id),
        };
        let store = Store::Bucket { client, bucket: job.output, prefix };
        Self { job_id: job.id, name, source: Some(job.source), input, store, progress: Some(progress) }
    }

    async fn by_hand(input: settings::Input, store: Store, profile: &Profile) -> Result<Self, TaskError> {
        match input {
            settings::Input::Object(uri) => {
                let object = PinnedObject::open_latest(s3::client().await, &uri).await?;
                let source = object.source().clone();
                let job_id =
                    JobId::new(&source.bucket, &source.key, source.content(), &profile.fingerprint());
                let (name, source) = (object.uri(), Some(source));
                let input = InputKind::Object(Box::new(object));
                Ok(Self { job_id, name, source, input, store, progress: None })
            }
            settings::Input::File(path) => {
                let name = path.display().to_string();
                let failed = |error| TaskError::Input { path: name.clone(), error };
                let path = std::fs::canonicalize(&path).map_err(failed)?;
                let metadata = std::fs::metadata(&path).map_err(failed)?;
                if !metadata.is_file() {
                    return Err(failed(std::io::Error::other("it is not a file")));
                }
                let changed = metadata
                    .modified()
                    .ok()
                    .and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok())
                    .map_or(0, |since| since.as_nanos());
                let content = format!("{}:{}:{changed}", path.display(), metadata.len());
                let job_id = JobId::of_file(&content, &profile.fingerprint());
                let input = InputKind::File(path);
                Ok(Self { job_id, name, source: None, input, store, progress: None })
            }
        }
    }
}

/// What is known so far, for the report.
#[derive(Default)]
struct Found {
    folder: Option<String>,
    probe: Option<Probe>,
    renditions: Vec<Rendition>,
    warnings: Vec<String>,
    probe_seconds: Option<f64>,
    playable_seconds: Option<f64>,
    encode_seconds: Option<f64>,
}

impl Found {
    fn report(self, opened: &Opened, outcome: Outcome, reason: Option<String>, clock: &Clock) -> Report {
        Report {
            schema: Report::SCHEMA,
            job_id: opened.job_id.clone(),
            outcome,
            reason,
            source: opened.source.clone(),
            folder: self.folder,
            probe: self.probe,
            renditions: self.renditions,
            warnings: self.warnings,
            timings: Timings {
                started_at: clock.at,
                finished_at: Timestamp::now(),
                probe_seconds: self.probe_seconds,
                first_playable_seconds: self.playable_seconds,
                encode_seconds: self.encode_seconds,
                total_seconds: clock.instant.elapsed().as_secs_f64(),
            },
        }
    }
}

async fn work(attempt: &Attempt<'_>, found: &mut Found) -> Result<(), TaskError> {
    let (input, object) = match &attempt.opened.input {
        InputKind::File(path) => (Input::File(path.clone()), None),
        InputKind::Object(object) => {
            let served = ServedObject::start(PinnedObject::clone(object)).await;
            let served = served.map_err(|error| TaskError::Input { path: object.uri(), error })?;
            (Input::Served(served), Some(PinnedObject::clone(object)))
        }
        InputKind::Lost(error) => return Err(error.clone().into()),
    };
    tokio::select! {
        result = work_on(attempt, &input, object, found) => result,
        // What FFmpeg has open goes with the work.
        error = input.failed() => Err(error.into()),
    }
}

/// The work on a source that can be read.
async fn work_on(
    attempt: &Attempt<'_>,
    input: &Input,
    object: Option<PinnedObject>,
    found: &mut Found,
) -> Result<(), TaskError> {
    let Attempt { profile, progress_state, stop, .. } = *attempt;
    let probing = Instant::now();
    let look = async { tokio::join!(probe(input), Index::read(input), process::version()) };
    let (media, index, ffmpeg) = unless_stopped(stop, async { Ok(look.await) }).await?;
    let index = index?;
    if let Some(reason) = index.as_ref().and_then(Index::refusal) {
        return Err(TaskError::Unusable(reason));
    }
    let (media, ffmpeg) = (media?, ffmpeg?);
    found.probe_seconds = Some(probing.elapsed().as_secs_f64());
    found.probe = Some((&media).into());

    let mut copyable =
        index.map_or_else(Copyable::default, |index| Copyable::new(&index, &media, profile.segment_seconds));
    loop {
        let plan = unless_stopped(stop, plan(input, &media, &copyable, profile, progress_state)).await?;
        found.warnings = media.warnings.clone();
        match follow(attempt, &plan, &ffmpeg, input, object.as_ref(), found).await {
            // The index promised what is not there. All of it is made again, which needs no promises.
            Err(TaskError::Verify(reason)) if plan.copies() => {
                tracing::warn!("the source cannot be published as it is, and is encoded instead: {reason}");
                copyable = Copyable::default();
            }
            result => return result,
        }
    }
}

/// Makes what is planned, going on where an earlier attempt stopped. What cannot be gone on with is made under other
/// addresses, because what was published once may stay in caches for ever.
async fn follow(
    attempt: &Attempt<'_>,
    plan: &Plan,
    ffmpeg: &str,
    input: &Input,
    object: Option<&PinnedObject>,
    found: &mut Found,
) -> Result<(), TaskError> {
    let Attempt { opened, profile, clock, stop, .. } = *attempt;
    let known = found.warnings.clone();
    let mut generation = 0;
    loop {
        found.warnings.clone_from(&known);
        let id = plan.id(&[ffmpeg, &generation.to_string()]);
        let folder = format!("{}/{id}", opened.job_id);
        found.folder = Some(folder.clone());
        let mut publisher = Publisher::new(
            opened.store.clone(),
            opened.job_id.clone(),
            folder.clone(),
            profile,
            object.cloned(),
            plan,
            clock.instant,
        );
        let resumed = unless_stopped(stop, resume(&opened.store, &folder, plan, &mut publisher)).await?;
        let start = match resumed {
            Resumed::At(start) => Some(start),
            Resumed::Nowhere => None,
            Resumed::Lost => {
                tracing::info!(
                    folder,
                    "what an earlier attempt left cannot be gone on with, and is made anew"
                );
                generation += 1;
                continue;
            }
        };
        let run = Run { attempt, plan, start: start.as_ref(), input };
        match make(&run, &mut publisher, found).await {
            // A promise that the index broke is not for this plan to keep.
            Err(error @ TaskError::Verify(_)) if plan.copies() => return Err(error),
            // Perhaps it is not what a whole run ends in.
            Err(error) if start.is_some() && is_about_the_content(&error) => {
                tracing::warn!("everything is made from the beginning: {error}");
                generation += 1;
            }
            Err(error) => return Err(error),
            Ok(()) => {
                // A stream that did not grow is playable when it is finished.
                let playable = publisher.playable_seconds();
                found.playable_seconds =
                    Some(playable.unwrap_or_else(|| clock.instant.elapsed().as_secs_f64()));
                return Ok(());
            }
        }
    }
}

/// Whether going on may be to blame, and not trouble that may pass.
fn is_about_the_content(error: &TaskError) -> bool {
    match error {
        TaskError::Resume(_) | TaskError::Verify(_) | TaskError::Output { .. } | TaskError::Unusable(_) => {
            true
        }
        TaskError::Ffmpeg(FfmpegError::Source(_)) => true,
        // A signal is a crash, or somebody who wanted it to end.
        TaskError::Ffmpeg(FfmpegError::Failed { status, .. }) => status.code().is_some(),
        _ => false,
    }
}

/// Where to go on.
enum Resumed {
    /// Nothing is there.
    Nowhere,
    /// The publisher knows what is there before.
    At(ResumePoint),
    /// Somebody may have seen what is there, but it cannot be gone on with.
    Lost,
}

/// Finds out where to go on, and makes the publisher go on there.
async fn resume(
    store: &Store,
    folder: &str,
    plan: &Plan,
    publisher: &mut Publisher,
) -> Result<Resumed, TaskError> {
    let stills = Stills::every(stills::interval_seconds(plan.duration_seconds));
    let left =
        PriorOutput::find(store, folder, &publisher::folders(folder, plan), plan.rungs.len(), stills).await;
    let mut kept = match left {
        Ok(PriorOutput::Notes(kept)) => kept,
        Ok(PriorOutput::Playlists) => return Ok(Resumed::Lost),
        Ok(PriorOutput::Nothing) => return Ok(Resumed::Nowhere),
        // An older template's role may not list what is there.
        Err(StoreError::S3(error @ S3Error::Refused { .. })) => {
            tracing::warn!("what an earlier attempt has made, if there was one, is made again: {error}");
            return Ok(Resumed::Nowhere);
        }
        Err(error) => return Err(error.into()),
    };
    let Some(start) = ResumePoint::after(plan, &mut kept) else { return Ok(Resumed::Lost) };
    publisher.resume(kept);
    tracing::info!(
        interval = start.interval,
        from_seconds = plan.boundaries.start_seconds(start.interval),
        "going on where an earlier attempt stopped"
    );
    Ok(Resumed::At(start))
}

/// What the work comes to, unless the task is asked to end.
async fn unless_stopped<T>(
    stop: &CancellationToken,
    work: impl Future<Output = Result<T, TaskError>>,
) -> Result<T, TaskError> {
    stop.run_until_cancelled(work).await.unwrap_or(Err(TaskError::Terminated))
}

/// What is made, from where on, out of what.
struct Run<'a> {
    attempt: &'a Attempt<'a>,
    plan: &'a Plan,
    /// Absent for the beginning.
    start: Option<&'a ResumePoint>,
    input: &'a Input,
}

/// The plan, after measuring what it needs to know.
async fn plan(
    input: &Input,
    media: &Media,
    copyable: &Copyable,
    profile: &Profile,
    progress_state: &ProgressState,
) -> Result<Plan, TaskError> {
    let mut plan = Plan::new(media, copyable, profile);
    let names = |copied: bool| -> String {
        let rungs = plan.rungs.iter().filter(|rung| rung.encoding.is_none() == copied);
        rungs.map(|rung| rung.name.as_str()).collect::<Vec<_>>().join(" ")
    };
    tracing::info!(
        duration_seconds = media.duration_seconds,
        codec = media.video.as_ref().map_or("none", |video| video.codec.as_str()),
        copied = names(true),
        encoded = names(false),
        audio_tracks = plan.audio.len(),
        subtitle_tracks = plan.subtitles.len(),
        "planned"
    );
    let rungs = plan.rungs.iter().map(|rung| rung.name.as_str());
    progress_state.planned(plan.duration_seconds, rungs, profile.formats.contains(&Format::Mp4));
    if let Some(target) = profile.loudness {
        tracing::info!("measuring loudness");
        progress_state.begin(Stage::Measuring);
        let measured = loudness::measure(input, &plan.audio, progress_state).await;
        for (track, measured) in plan.audio.iter_mut().zip(measured?) {
            track.change = Change::new(measured, target);
            tracing::info!(
                track = track.name,
                loudness_lufs = measured.integrated_lufs,
                true_peak_dbtp = measured.true_peak_dbtp,
                "measured"
            );
        }
    }
    Ok(plan)
}

/// Makes and publishes everything of a plan.
async fn make(run: &Run<'_>, publisher: &mut Publisher, found: &mut Found) -> Result<(), TaskError> {
    let Run { attempt, plan, .. } = *run;
    let progress_state = attempt.progress_state;
    let encoding = Instant::now();
    progress_state.begin(Stage::Encoding);
    if let Some(start) = run.start {
        let from_seconds = plan.boundaries.start_seconds(start.interval);
        progress_state
            .resumed(from_seconds, publisher.tracks().iter().map(|track| track.timeline.segments.len()));
    }
    let result = encode(run, publisher).await;
    found.encode_seconds = Some(encoding.elapsed().as_secs_f64());
    let encoded = result?;
    progress_state.begin(Stage::Finishing);
    unless_stopped(attempt.stop, finish(attempt, plan, encoded, publisher, found)).await
}

/// Checks and publishes what can only be made when all segments are there.
async fn finish(
    attempt: &Attempt<'_>,
    plan: &Plan,
    encoded: Encoded,
    publisher: &mut Publisher,
    found: &mut Found,
) -> Result<(), TaskError> {
    if encoded.damaged > 0 {
        found.warnings.push(format!(
            "the file is damaged: {} places could not be decoded, or only in part, and show faults",
            encoded.damaged
        ));
    }
    found.warnings.extend(verify::segments(plan, publisher.tracks())?);
    publisher.drop_empty();
    if verify::is_picture_short(plan, publisher.tracks()) {
        publisher.drop_sound_behind_the_picture();
    }
    let read_back = verify::read_back(&attempt.opened.store, publisher.tracks());
    let images = async {
        match &encoded.stills {
            Some(stills) => put_images(plan, stills, publisher).await,
            None => Ok(()),
        }
    };
    let (verified, ()) = tokio::try_join!(read_back, images)?;
    publisher.verified(verified);
    for (rendition, track) in plan.subtitles.iter().zip(encoded.subtitles) {
        if track.truncated {
            let name = &rendition.name;
            found
                .warnings
                .push(format!("subtitle track {name} holds more text than a video needs and was cut"));
        }
        if !track.is_empty() {
            publisher.put_subtitles(rendition.clone(), &track).await?;
        }
    }
    for warning in &found.warnings {
        tracing::warn!("{warning}");
    }
    found.renditions = publisher.finish(attempt.progress_state).await?;
    Ok(())
}

async fn put_images(plan: &Plan, stills: &Stills, publisher: &Publisher) -> Result<(), TaskError> {
    if let Some(poster) = stills.poster() {
        publisher.put_own(POSTER, "image/jpeg", poster).await?;
    }
    let size = arguments::still_size(&plan.rungs);
    let end_seconds = publisher.tracks().first().map_or(0.0, |track| track.timeline.end_seconds());
    if let Some(storyboard) = stills.storyboard(size, end_seconds).await? {
        let sheet = format!("images/{}", stills::SHEET_NAME);
        publisher.put_own(&sheet, "image/jpeg", storyboard.sheet).await?;
        publisher.put_own(STORYBOARD, "text/vtt", storyboard.vtt.into()).await?;
    }
    Ok(())
}

/// What came out of FFmpeg beside segments.
struct Encoded {
    stills: Option<Stills>,
    /// In the plan's order.
    subtitles: Vec<webvtt::Track>,
    /// Places of the source that could not be decoded, or only in part.
    damaged: u64,
}

/// Runs FFmpeg and publishes the segments that come out of it.
async fn encode(run: &Run<'_>, publisher: &mut Publisher) -> Result<Encoded, TaskError> {
    let Run { attempt: Attempt { progress_state, stop, .. }, plan, start, input } = *run;
    let file = write_cube(plan).await?;
    let cube = file.as_ref().map_or_else(String::new, |file| file.path().display().to_string());
    let (mut ffmpegs, mut pipes) = (Vec::new(), Vec::new());
    for process in arguments::processes(plan, start) {
        let arguments =
            arguments::arguments(plan, &process, &input.arguments(), &cube, process::FIRST_PIPE_FD);
        tracing::debug!("ffmpeg {}", arguments.join(" "));
        let (ffmpeg, receivers) = Ffmpeg::spawn(&arguments, process.pipes.len())?;
        ffmpegs.push(ffmpeg);
        pipes.extend(process.pipes.into_iter().zip(receivers));
    }
    // In the plan's order.
    pipes.sort_by_key(|(pipe, _)| *pipe);
    let (mut encoded_prefix, mut renditions) = (None, Vec::new());
    let (mut texts, mut stills, mut reports) = (Vec::new(), None, None);
    for (pipe, receiver) in pipes {
        match pipe {
            Pipe::Progress => reports = Some(receiver),
            Pipe::EncodedPrefix => encoded_prefix = Some(receiver),
            Pipe::Video(_) | Pipe::Audio(_) => renditions.push((encoded_prefix.take(), receiver)),
            Pipe::Subtitles(_) => texts.push(receiver),
            Pipe::Stills => stills = Some(receiver),
        }
    }
    let follow = async {
        match reports {
            Some(pipe) => Ok(progress::follow(pipe, progress_state).await?),
            None => Ok(()),
        }
    };
    let earlier = publisher.stills();
    let (made, kept) = mpsc::channel(MOST_STILLS_AT_ONCE);
    let outputs = async {
        tokio::try_join!(
            publisher.stream(renditions, kept, progress_state, stop),
            read_stills(stills, earlier, made),
            read_texts(texts),
            follow
        )
    };
    // What is only copied goes faster than it plays.
    let patience = progress::STALL_LIMIT + Duration::from_secs_f64(plan.duration_seconds.max(0.0));
    // One that has failed leaves nothing for the others to be of use for.
    let ends = async { Ok(process::wait_for_all(&mut ffmpegs, patience).await?) };
    match tokio::try_join!(outputs, ends) {
        Ok((((), stills, subtitles, ()), damaged)) => Ok(Encoded { stills, subtitles, damaged }),
        Err(error) => {
            let ended = join_all(ffmpegs.into_iter().map(Ffmpeg::stop)).await;
            // Whoever was killed has failed first; others may have complained of what they were given.
            let causes = ended.into_iter().filter_map(Result::err);
            let cause = causes.min_by_key(|cause| !matches!(cause, FfmpegError::Killed));
            match (error, cause) {
                // Cut off in the middle of a box: FFmpeg's own error says why.
                (TaskError::Output { .. } | TaskError::Verify(_), Some(cause)) => Err(cause.into()),
                (error, _) => Err(error),
            }
        }
    }
}

/// The table of colours, for FFmpeg to read, if the picture needs one.
async fn write_cube(plan: &Plan) -> Result<Option<NamedTempFile>, TaskError> {
    let Some(colour) = plan.picture.as_ref().map(|picture| picture.colour) else { return Ok(None) };
    // Making it takes half a second.
    let write = tokio::task::spawn_blocking(move || {
        let Some(cube) = colour.cube() else { return Ok(None) };
        let mut file = tempfile::Builder::new().suffix(".cube").tempfile()?;
        file.write_all(cube.as_bytes())?;
        Ok(Some(file))
    });
    let failed = |error| StoreError::File { path: std::env::temp_dir().display().to_string(), error };
    Ok(write.await.unwrap_or_else(|panic| Err(panic.into())).map_err(failed)?)
}

async fn read_stills(
    pipe: Option<pipe::Receiver>,
    earlier: Stills,
    made: mpsc::Sender<Bytes>,
) -> Result<Option<Stills>, TaskError> {
    let Some(pipe) = pipe else { return Ok(None) };
    let mut made = Some(made);
    let stills = earlier.read(pipe, |jpeg| {
        // One that is left out would be taken for the next; and nobody listens when the stream has failed.
        if made.as_ref().is_some_and(|made| made.try_send(jpeg.clone()).is_err()) {
            made = None;
        }
    });
    let failed =
        |error: std::io::Error| TaskError::Output { rendition: POSTER.into(), reason: error.to_string() };
    Ok(Some(stills.await.map_err(failed)?))
}

async fn read_texts(pipes: Vec<pipe::Receiver>) -> Result<Vec<webvtt::Track>, TaskError> {
    let failed = |error: std::io::Error| TaskError::Output {
        rendition: "subtitles".into(),
        reason: error.to_string(),
    };
    try_join_all(pipes.into_iter().map(webvtt::Track::read)).await.map_err(failed)
}

/// Below the job's folder always; at the stable address only what its visitors should know: the stream that
/// is there, or why the latest upload is not.
async fn write_report(opened: &Opened, report: &Report) -> Result<(), TaskError> {
    let json: Bytes =
        serde_json::to_vec_pretty(report).map_err(|error| TaskError::Verify(error.to_string()))?.into();
    opened.store.put(&format!("{}/{REPORT}", opened.job_id), CachePolicy::Stable(JSON), json.clone()).await?;
    let of_the_latest = match report.outcome {
        Outcome::Complete => true,
        Outcome::Rejected => match &opened.input {
            InputKind::Object(object) => object.check_current().await.is_ok(),
            InputKind::File(_) | InputKind::Lost(_) => true,
        },
        Outcome::Obsolete | Outcome::Failed => false,
    };
    if of_the_latest {
        opened.store.put(REPORT, CachePolicy::Stable(JSON), json).await?;
    }
    Ok(())
}

async fn terminated() {
    let Ok(mut term) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    let Ok(mut interrupt) = signal(SignalKind::interrupt()) else { return std::future::pending().await };
    tokio::select! {
        _ = term.recv() => {}
        _ = interrupt.recv() => {}
    }
}
