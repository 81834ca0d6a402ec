//! One attempt at a job: analyses the source, plans, resumes after an earlier attempt, and publishes the
//! stream.

use std::time::Instant;

use vidstreamx_job::Stage;

use crate::{
    analysis::{
        extents::check_stated,
        ffprobe::{look, probe},
        joined::{self, second_recording},
        matroska::matroska_extents,
        matroska_languages::TrackLanguages,
        media::Media,
        sample_index::Index,
    },
    config::profile::Format,
    error::TaskError,
    ffmpeg::{loudness, plan_id},
    package::stills::Stills,
    plan::{copyable::Copyable, gain::Gain, model::Plan, resume_point::ResumePoint, still_interval},
    process::{self, FfmpegError},
    publish::{PublishError, checkpoint::PriorOutput, publisher::Publisher, recovery, track},
    source::{
        loopback::{Input, ServedObject},
        object::PinnedObject,
    },
    store::{S3Error, Store, StoreError},
};

use super::{
    context::TaskInput,
    encode, finish,
    inputs::{Attempt, Pass},
    report::ReportDraft,
};

impl Attempt<'_> {
    pub(super) async fn run(&self, draft: &mut ReportDraft) -> Result<(), TaskError> {
        let (input, object) = match &self.context.input {
            TaskInput::File(path) => (Input::File(path.clone()), None),
            TaskInput::Object(object) => {
                let served = ServedObject::start(PinnedObject::clone(object)).await;
                let served = served.map_err(|error| TaskError::Input { path: object.uri(), error })?;
                (Input::Served(served), Some(PinnedObject::clone(object)))
            }
            TaskInput::Unavailable(error) => return Err(error.clone().into()),
        };
        tokio::select! {
            result = self.transcode(&input, object, draft) => result,
            // Dropping the other future also kills FFmpeg.
            error = input.failed() => Err(error.into()),
        }
    }

    async fn transcode(
        &self,
        input: &Input,
        object: Option<PinnedObject>,
        draft: &mut ReportDraft,
    ) -> Result<(), TaskError> {
        let started = Instant::now();
        let analysis = async {
            tokio::join!(
                probe(input),
                Index::read(input),
                matroska_extents(input),
                TrackLanguages::read(input),
                process::version()
            )
        };
        let (media, index, extents, languages, ffmpeg_version) =
            self.unless_stopped(async { Ok(analysis.await) }).await?;
        let (index, extents) = (index?, extents?);
        if let Some(reason) = index.as_ref().and_then(Index::rejection_reason) {
            return Err(TaskError::Unusable(reason));
        }
        let (mut media, ffmpeg_version) = (media?, ffmpeg_version?);
        match index.as_ref().map(|index| &index.extents).or(extents.as_ref()) {
            Some(extents) => extents.apply(&mut media)?,
            None => check_stated(&media)?,
        }
        languages?.describe(&mut media);
        if let Some(index) = &index {
            index.describe(&mut media);
        }
        let look = async { Ok(look(input, &mut media, index.as_ref()).await?) };
        self.unless_stopped(look).await?;
        draft.probe_seconds = Some(started.elapsed().as_secs_f64());
        draft.probe = Some((&media).into());

        let copyable = index.map_or_else(Copyable::default, |index| {
            Copyable::new(&index, &media, self.profile.segment_seconds)
        });
        // The search may read the whole file, so it runs beside the encoding.
        let search = async { Ok(second_recording(input).await) };
        let publishing = self.publish_plans(&media, copyable, &ffmpeg_version, input, object.as_ref(), draft);
        let ((), second) = tokio::try_join!(publishing, search)?;
        if let (Some(second), Some(size)) = (second, input.size().await) {
            draft.warnings.push(joined::warning(second, size));
        }
        Ok(())
    }

    /// Publishes the stream: copied if possible, else encoded.
    async fn publish_plans(
        &self,
        media: &Media,
        mut copyable: Copyable,
        ffmpeg_version: &str,
        input: &Input,
        object: Option<&PinnedObject>,
        draft: &mut ReportDraft,
    ) -> Result<(), TaskError> {
        loop {
            let plan = self.unless_stopped(self.plan(input, media, &copyable)).await?;
            draft.warnings.clone_from(&media.warnings);
            match self.publish(&plan, ffmpeg_version, input, object, draft).await {
                // The source does not match its sample index. Encode all rungs, because encoding does not use
                // the index.
                Err(TaskError::Publish(PublishError::Mismatch(reason))) if plan.copies() => {
                    tracing::warn!("the source cannot be copied and is encoded instead: {reason}");
                    copyable = Copyable::default();
                }
                result => return result,
            }
        }
    }

    /// Builds the plan, and measures the loudness if the profile has a target.
    async fn plan(&self, input: &Input, media: &Media, copyable: &Copyable) -> Result<Plan, TaskError> {
        let Self { profile, progress_state, .. } = *self;
        let mut plan = Plan::new(media, copyable, profile);
        let names = |copied: bool| -> String {
            let rungs = plan.rungs.iter().filter(|rung| rung.is_copied() == copied);
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
                track.gain = Gain::new(measured, target);
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

    /// Publishes the stream of a plan. Continues the output of an earlier attempt if there is any. If that
    /// output cannot be continued, the attempt publishes into a new folder, because caches may keep published
    /// segments forever.
    async fn publish(
        &self,
        plan: &Plan,
        ffmpeg_version: &str,
        input: &Input,
        object: Option<&PinnedObject>,
        draft: &mut ReportDraft,
    ) -> Result<(), TaskError> {
        let Self { context, profile, start_time, .. } = *self;
        let source_warnings = draft.warnings.clone();
        let mut generation = 0;
        loop {
            draft.warnings.clone_from(&source_warnings);
            let id = plan_id(plan, &[ffmpeg_version, &generation.to_string()]);
            let folder = format!("{}/{id}", context.job_id);
            draft.folder = Some(folder.clone());
            let mut publisher = Publisher::new(
                context.store.clone(),
                context.job_id.clone(),
                folder.clone(),
                profile,
                object.cloned(),
                plan,
                start_time.instant,
            );
            let resumed = self.unless_stopped(resume(&context.store, &folder, plan, &mut publisher)).await?;
            let resume_point = match resumed {
                Resumed::At(resume_point) => Some(resume_point),
                Resumed::Nothing => None,
                Resumed::Unusable => {
                    tracing::info!(folder, "the output of an earlier attempt cannot be continued");
                    generation += 1;
                    continue;
                }
            };
            let pass = Pass { attempt: *self, plan, resume_point: resume_point.as_ref(), input };
            match pass.run(&mut publisher, draft).await {
                // A new generation of this plan would copy the same source, and fail in the same way.
                Err(error @ TaskError::Publish(PublishError::Mismatch(_))) if plan.copies() => {
                    return Err(error);
                }
                // A run from the beginning may succeed.
                Err(error) if resume_point.is_some() && may_be_caused_by_resume(&error) => {
                    tracing::warn!("restarting from the beginning of the source: {error}");
                    generation += 1;
                }
                Err(error) => return Err(error),
                Ok(()) => {
                    // A stream that is published only when it is complete becomes playable now.
                    let playable = publisher.playable_seconds();
                    draft.playable_seconds =
                        Some(playable.unwrap_or_else(|| start_time.instant.elapsed().as_secs_f64()));
                    return Ok(());
                }
            }
        }
    }
}

impl Pass<'_> {
    /// Encodes and publishes the segments, then verifies them and publishes the rest.
    async fn run(&self, publisher: &mut Publisher, draft: &mut ReportDraft) -> Result<(), TaskError> {
        let Self { attempt, plan, .. } = *self;
        let progress_state = attempt.progress_state;
        let started = Instant::now();
        progress_state.begin(Stage::Encoding);
        if let Some(resume_point) = self.resume_point {
            let from_seconds = plan.boundaries.start_seconds(resume_point.interval);
            let segments = publisher.tracks().iter().map(|track| track.timeline.segments.len());
            progress_state.resumed(from_seconds, segments);
        }
        let result = encode::encode(self, publisher).await;
        draft.encode_seconds = Some(started.elapsed().as_secs_f64());
        let encoded = result?;
        progress_state.begin(Stage::Finishing);
        attempt.unless_stopped(finish::finish(&attempt, plan, encoded, publisher, draft)).await
    }
}

/// Returns true if resuming may have caused the error. Temporary failures return false.
fn may_be_caused_by_resume(error: &TaskError) -> bool {
    match error {
        TaskError::Publish(
            PublishError::Resume(_)
            | PublishError::Mismatch(_)
            | PublishError::Output { .. }
            | PublishError::Unusable(_),
        ) => true,
        TaskError::Ffmpeg(FfmpegError::Source(_)) => true,
        // FFmpeg has no exit code if a signal ended it: it crashed, or was killed from outside.
        TaskError::Ffmpeg(FfmpegError::Failed { status, .. }) => status.code().is_some(),
        _ => false,
    }
}

/// The result of looking for an earlier attempt's output.
enum Resumed {
    /// There is none.
    Nothing,
    /// The publisher has taken over the segments before this point.
    At(ResumePoint),
    /// There is output that players may have seen, but it cannot be continued.
    Unusable,
}

/// Finds the output of an earlier attempt and hands it to the publisher.
async fn resume(
    store: &Store,
    folder: &str,
    plan: &Plan,
    publisher: &mut Publisher,
) -> Result<Resumed, TaskError> {
    let stills = Stills::every(still_interval::seconds(plan.duration_seconds));
    let prior =
        PriorOutput::find(store, folder, &track::folders(folder, plan), plan.rungs.len(), stills).await;
    let mut recovered = match prior {
        Ok(PriorOutput::Checkpoint(recovered)) => recovered,
        Ok(PriorOutput::Playlists) => return Ok(Resumed::Unusable),
        Ok(PriorOutput::Nothing) => return Ok(Resumed::Nothing),
        // The task role lacks s3:ListBucket.
        Err(StoreError::S3(error @ S3Error::Refused { .. })) => {
            tracing::warn!(
                "an earlier attempt's segments cannot be listed, so they are encoded again: {error}"
            );
            return Ok(Resumed::Nothing);
        }
        Err(error) => return Err(error.into()),
    };
    let Some(resume_point) = recovery::resume_point(plan, &mut recovered) else {
        return Ok(Resumed::Unusable);
    };
    publisher.resume(recovered);
    tracing::info!(
        interval = resume_point.interval,
        from_seconds = plan.boundaries.start_seconds(resume_point.interval),
        "resuming after an earlier attempt"
    );
    Ok(Resumed::At(resume_point))
}
