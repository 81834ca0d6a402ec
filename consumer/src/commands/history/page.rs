//! The page of one job, with its attempts.

use std::fmt::{self, Write as _};

use indicatif::DecimalBytes;
use jiff::Timestamp;
use vidstreamx_job::{Attempt, BucketName, Capacity, Layout, Record, Restart, State};

use super::{list, read::Video};
use crate::commands::format;

/// The page of a job. It ends with a line break.
#[must_use]
pub(crate) fn page(video: &Video, output: &BucketName, now: Timestamp) -> String {
    let mut page = String::new();
    // Writing to a `String` cannot fail.
    let _ = write(&mut page, video, output, now);
    page
}

fn write(page: &mut String, video: &Video, output: &BucketName, now: Timestamp) -> fmt::Result {
    let record = &video.record;
    let source = &record.source;
    writeln!(page, "{}", format::clean(source.key.as_str()))?;
    let mut line = |name: &str, text: &str| writeln!(page, "  {name:<9} {}", format::clean(text));
    line("job", record.job_id.as_str())?;
    line("source", &format!("s3://{}/{}", source.bucket, source.key))?;
    let content = [
        source.version_id.as_ref().map(|id| format!("version {id}")),
        source.etag.as_ref().map(|etag| format!("ETag {etag}")),
        source.size.map(|size| DecimalBytes(size).to_string()),
    ];
    line("content", &content.into_iter().flatten().collect::<Vec<_>>().join(", "))?;
    line("profile", &record.profile)?;
    line("state", &state(video))?;
    let (first, latest) = (format::second(record.created_at), format::second(record.updated_at));
    line("seen", &format!("{first} UTC, updated {latest} UTC"))?;
    line("took", &format::duration(list::took(record, now)))?;
    if let Some(cost) = list::cost(record) {
        line("cost", &format!("about {}", format::money(cost)))?;
    }
    let layout = Layout::new(&source.key, &record.job_id);
    if record.state == State::Done {
        line("stream", &format!("s3://{output}/{}", layout.stable("master.m3u8")))?;
        line("files", &format!("s3://{output}/{}", layout.own("")))?;
    }
    if let Some(next) = next_step(record) {
        line("next", &next)?;
    }
    let mut restarts = record.restarts.iter().peekable();
    for attempt in &record.attempts {
        while let Some(restart) = restarts.next_if(|restart| restart.after_attempt < attempt.number) {
            write_restart(page, restart)?;
        }
        write_attempt(page, attempt, now)?;
    }
    restarts.try_for_each(|restart| write_restart(page, restart))
}

fn state(video: &Video) -> String {
    let state = video.record.state.name();
    let share = video.progress.as_ref().map(|progress| list::share(progress.share));
    let why = Some(list::why(video)).filter(|why| !why.is_empty());
    match (share, why) {
        (Some(share), Some(why)) => format!("{state}, {share}: {why}"),
        (Some(text), None) => format!("{state}, {text}"),
        (None, Some(why)) => format!("{state}: {why}"),
        (None, None) => state.to_owned(),
    }
}

/// The operator's next step, if the job needs one.
fn next_step(record: &Record) -> Option<String> {
    match record.state {
        State::Failed => Some(format!(
            "after correcting the cause: vidstreamx-consumer redrive --job {} (or --key)",
            record.job_id
        )),
        State::Rejected => Some("upload another file; the same one would be rejected again".to_owned()),
        State::Cancelled => Some("to make it after all: vidstreamx-consumer submit --force KEY".to_owned()),
        State::Running | State::Done | State::Obsolete => None,
    }
}

fn write_restart(page: &mut String, restart: &Restart) -> fmt::Result {
    let request = format::clean(&restart.request);
    writeln!(page, "\n  restarted {} UTC ({request})", format::second(restart.at))
}

fn write_attempt(page: &mut String, attempt: &Attempt, now: Timestamp) -> fmt::Result {
    let started = format::second(attempt.started_at);
    let lasted = attempt.ended_at.unwrap_or(now).duration_since(attempt.started_at);
    let lasted = format::duration(lasted);
    match attempt.ended_at {
        Some(ended) => {
            let ended = format::second(ended);
            writeln!(page, "\n  attempt {}: {started} to {ended} UTC, {lasted}", attempt.number)?;
        }
        None => writeln!(page, "\n  attempt {}: since {started} UTC, {lasted}", attempt.number)?,
    }
    let mut line = |name: &str, text: &str| writeln!(page, "    {name:<7} {}", format::clean(text));
    if let Some(size) = attempt.size {
        let (cpu, memory) = (f64::from(size.cpu) / 1024.0, f64::from(size.memory_mib) / 1024.0);
        let why = attempt.size_reason.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        line("size", &format!("{cpu} vCPU, {memory} GiB, {} GiB of disk{why}", size.storage_gib))?;
    }
    match attempt.capacity {
        Some(Capacity::Spot) => line("on", "Fargate Spot")?,
        Some(Capacity::OnDemand) => line("on", "Fargate, on-demand")?,
        None => {}
    }
    line("task", attempt.task_arn.as_deref().unwrap_or("none yet"))?;
    if attempt.ended_at.is_none() {
        return Ok(());
    }
    let end = [
        attempt.exit_code.map(|code| format!("exit code {code}")),
        attempt.stop_code.clone(),
        attempt.reason.clone(),
    ];
    line("end", &end.into_iter().flatten().collect::<Vec<_>>().join(", "))?;
    line("counts", if attempt.counts { "yes" } else { "no" })?;
    let billed = attempt
        .billed_seconds
        .map(|seconds| format!("{seconds:.0} s billed"))
        .into_iter()
        .collect::<String>();
    if let Some(cost) = attempt.cost_usd {
        let cost = format!("about {}", format::money(cost));
        line("cost", &if billed.is_empty() { cost } else { format!("{cost}, {billed}") })?;
    } else if !billed.is_empty() {
        line("cost", &billed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{super::samples, *};

    #[test]
    fn a_page_shows_all_attempts_and_the_next_step() {
        let output = "streams".parse().unwrap();
        let now = samples::NOW.parse().unwrap();
        let pages: Vec<_> = samples::videos().iter().map(|video| page(video, &output, now)).collect();
        insta::assert_snapshot!(pages.join("\n"));
    }
}
