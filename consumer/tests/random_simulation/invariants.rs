//! The invariants after a run with any faults.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use tokio::time::Instant;
use vidstreamx_consumer::intake::{
    dead_letter::{ATTEMPTS, JOB_ID, REASON},
    notification::{self, Notification},
};
use vidstreamx_job::{Attempt, JobId, Record, Restart, State};

use crate::{
    Outcome,
    fake_aws::Task,
    scenario::{Scenario, VideoKind},
};

/// A good upload has a task within this time in which tasks can run.
const START_WITHIN: Duration = Duration::from_mins(20);
/// A launch without a response may have started a task for this long.
const CERTAIN_AFTER: Duration = Duration::from_mins(10);
/// Time after a fault until all videos are in work again.
const RECOVERY: Duration = Duration::from_mins(15);
/// Consumers notice a pause within this time, even if some reads fail or take a minute.
const PAUSE_NOTICED: Duration = Duration::from_mins(4);
/// The precision of timers.
const TIMER: Duration = Duration::from_millis(5);

/// Returns a sentence per violated invariant.
pub(crate) fn violations(outcome: &Outcome) -> Vec<String> {
    let records = outcome.aws.all_records();
    let mut tasks: BTreeMap<JobId, Vec<Task>> = BTreeMap::new();
    for task in outcome.aws.tasks() {
        tasks.entry(task.job.id.clone()).or_default().push(task);
    }
    let mut found = Vec::new();
    every_upload_has_the_end_of_its_kind(outcome, &records, &mut found);
    failed_videos_have_dead_letters_with_reasons(outcome, &records, &mut found);
    no_job_had_more_tasks_than_needed(outcome, &records, &tasks, &mut found);
    limits_were_kept(outcome, &mut found);
    good_uploads_started_soon(outcome, &tasks, &mut found);
    nothing_was_launched_in_a_pause(outcome, &mut found);
    found
}

/// Each upload ended in the state for its kind.
fn every_upload_has_the_end_of_its_kind(outcome: &Outcome, records: &[Record], found: &mut Vec<String>) {
    let Outcome { scenario, aws, repaired, .. } = outcome;
    if records.len() != scenario.kinds.len() {
        found.push(format!("{} records of {} uploads", records.len(), scenario.kinds.len()));
    }
    if aws.queued() > 0 {
        found.push(format!("{} messages are left", aws.queued()));
    }
    // The receives that the template allows are for crashes. Waiting costs one receive in twelve hours.
    for body in aws.moved_by_sqs() {
        found.push(format!("SQS moved a message to the dead-letter queue: {body}"));
    }
    // SQS lets a delivery be held for twelve hours.
    let waits_long = |kind: &VideoKind| {
        matches!(
            kind,
            VideoKind::VeryLong | VideoKind::NoAccess | VideoKind::Limited { cpu: 0 } | VideoKind::Unanswered
        )
    };
    if scenario.without_faults && !scenario.kinds.iter().any(waits_long) && aws.most_receives_ever() > 1 {
        found.push(format!("a message was received {} times without faults", aws.most_receives_ever()));
    }
    for (video, kind) in scenario.kinds.iter().enumerate() {
        let key = Scenario::key(video);
        let Some(record) = records.iter().find(|record| record.source.key.as_str() == key) else {
            found.push(format!("{key} ({kind:?}) has no record"));
            continue;
        };
        let expected = match kind {
            VideoKind::Unusable | VideoKind::NoVideo | VideoKind::Empty => State::Rejected,
            VideoKind::Deleted | VideoKind::Replaced => State::Obsolete,
            VideoKind::Unanswered if *repaired => State::Obsolete,
            VideoKind::Unanswered => State::Failed,
            VideoKind::Crashing | VideoKind::NoAccess if !repaired => State::Failed,
            VideoKind::Limited { cpu: 0 } if !repaired => State::Failed,
            VideoKind::Stopped => State::Cancelled,
            _ => State::Done,
        };
        let is_expected = match kind {
            // The task can end before the operator stops it.
            VideoKind::Cancelled => matches!(record.state, State::Cancelled | State::Done),
            _ => record.state == expected,
        };
        if !is_expected {
            let why = record.reason.as_deref().unwrap_or("no reason");
            found.push(format!("{key} ({kind:?}) is {:?}: {why}", record.state));
        }
        if record.reason.is_none() != (record.state == State::Done) {
            found.push(format!("{key} is {:?} with reason {:?}", record.state, record.reason));
        }
    }
}

/// Exactly the failed videos and the foreign messages have dead letters, all with a reason.
fn failed_videos_have_dead_letters_with_reasons(
    outcome: &Outcome,
    records: &[Record],
    found: &mut Vec<String>,
) {
    let Outcome { scenario, aws, .. } = outcome;
    let letters = aws.letters();
    let mut foreign_messages = HashSet::new();
    for letter in &letters {
        if letter.attribute(REASON).is_none_or(str::is_empty) {
            found.push(format!("a dead letter without a reason: {}", letter.body));
        }
        let Some(job) = letter.attribute(JOB_ID) else {
            foreign_messages.insert(&letter.body);
            continue;
        };
        let attempts: usize = letter.attribute(ATTEMPTS).unwrap().parse().unwrap();
        let record = records.iter().find(|record| record.job_id.as_str() == job);
        let about = notification::decode(&letter.body);
        let is_about_failure = match (record, &about[..]) {
            (Some(record), [Notification::Created(source)]) if *source == record.source => {
                let failed_now = record.state == State::Failed && attempts == record.attempts.len();
                // The letter can also be about a failure before the redrive: a late duplicate of the upload
                // event causes a second dead letter about it.
                let is_before = |restart: &Restart| restart.after_attempt as usize == attempts;
                failed_now || record.restarts.iter().any(is_before)
            }
            _ => false,
        };
        if !is_about_failure {
            found.push(format!("a dead letter about no failed job: {letter:?}"));
        }
    }
    let expected = scenario.foreign_messages().len();
    if foreign_messages.len() != expected {
        found.push(format!("{} of {expected} foreign messages are dead letters", foreign_messages.len()));
    }
    for record in records.iter().filter(|record| record.state == State::Failed) {
        if !letters.iter().any(|letter| letter.attribute(JOB_ID) == Some(record.job_id.as_str())) {
            found.push(format!("{} failed without a dead letter", record.source.key));
        }
    }
}

/// No job had concurrent tasks, a second success, more tasks than its kind needs, or a task that is missing
/// from its record.
fn no_job_had_more_tasks_than_needed(
    outcome: &Outcome,
    records: &[Record],
    tasks: &BTreeMap<JobId, Vec<Task>>,
    found: &mut Vec<String>,
) {
    for record in records {
        let key = record.source.key.as_str();
        let kind = outcome.scenario.kind_of(key).unwrap();
        let tasks = tasks.get(&record.job_id).map(Vec::as_slice).unwrap_or_default();
        let is_repairable = matches!(
            kind,
            VideoKind::Crashing | VideoKind::NoAccess | VideoKind::Limited { cpu: 0 } | VideoKind::Unanswered
        );
        let redriven = usize::from(is_repairable && outcome.repaired);
        // If ECS no longer lists a task that left no report, the consumer cannot see why it ended.
        let is_forgotten = |attempt: &&Attempt| attempt.task_arn.is_some() && attempt.stop_code.is_none();
        let unseen = record.attempts.iter().filter(is_forgotten).count();
        let expected = kind.tasks(outcome.scenario.without_faults);
        if !(*expected.start()..=expected.end() + unseen).contains(&(tasks.len() - redriven)) {
            found.push(format!("{key} ({kind:?}) had {} tasks: {:?}", tasks.len(), record.attempts));
        }
        if tasks.windows(2).any(|pair| pair[1].started_at < pair[0].ends_at()) {
            found.push(format!("{key} had two tasks at once"));
        }
        let most_successes = if kind == VideoKind::Forced { 2 } else { 1 };
        if tasks.iter().filter(|task| task.script.succeeds()).count() > most_successes {
            found.push(format!("{key} was done twice"));
        }
        let known: Vec<_> = record.attempts.iter().filter_map(|attempt| attempt.task_arn.as_ref()).collect();
        // If RunTask's response is lost and no consumer works for an hour, the record never knows the ARN.
        // The task's report ends the attempt. Without a report, the attempt gets another task.
        let without_arn = record.attempts.iter().filter(|attempt| attempt.task_arn.is_none()).count();
        let without_report = tasks.iter().filter(|task| task.script.report.is_none()).count();
        if !(known.len()..=known.len() + without_arn + without_report).contains(&tasks.len()) {
            found.push(format!("{key} had {} tasks, its record knows {}", tasks.len(), known.len()));
        }
        if record.attempts.iter().zip(1..).any(|(attempt, number)| attempt.number != number) {
            found.push(format!("{key}'s attempts are not numbered in order"));
        }
    }
}

/// A good upload got a task soon, whatever other videos did, while more than a third of the slots had no task
/// and no fault of all AWS services or of a consumer explains the wait. A launch without a response keeps its
/// slot until it is certain that it has started no task.
fn good_uploads_started_soon(outcome: &Outcome, tasks: &BTreeMap<JobId, Vec<Task>>, found: &mut Vec<String>) {
    let Outcome { scenario, clients, start, .. } = outcome;
    let after = |periods: &[(Duration, Duration)], more: Duration| {
        let interval =
            |(at, duration): &(Duration, Duration)| (*start + *at, *start + *at + *duration + more);
        periods.iter().map(interval).collect::<Vec<_>>()
    };
    let mut excused = after(&scenario.shortages, RECOVERY);
    excused.extend(after(&scenario.outages, RECOVERY));
    excused.extend(after(&scenario.hidden, RECOVERY));
    excused.extend(after(&scenario.cut_offs, RECOVERY));
    excused.extend(after(&scenario.pauses, RECOVERY));
    excused.extend(scenario.replacements.iter().map(|at| (*start + *at, *start + *at + RECOVERY)));
    excused.extend(clients.iter().filter_map(|client| client.crashed_at()).map(|at| (at, at + RECOVERY)));
    // The changes of the number of running tasks, and of the excuses, in order.
    let mut changes: Vec<(Instant, isize, isize)> = Vec::new();
    for task in tasks.values().flatten() {
        changes.extend([(task.started_at, 1, 0), (task.ends_at(), -1, 0)]);
    }
    for lost in clients.iter().flat_map(|client| client.lost_launches()) {
        changes.extend([(lost, 1, 0), (lost + CERTAIN_AFTER, -1, 0)]);
    }
    changes.extend(excused.iter().flat_map(|(from, until)| [(*from, 0, 1), (*until, 0, -1)]));
    changes.sort_unstable();
    for tasks in tasks.values() {
        let key = tasks[0].job.source.key.as_str();
        if !matches!(scenario.kind_of(key), Some(VideoKind::Good | VideoKind::VeryLong)) {
            continue;
        }
        let video = key.trim_end_matches(".mp4").parse().unwrap();
        let Some(uploaded_at) = scenario.uploaded_at(video).map(|at| *start + at) else { continue };
        let (mut running, mut excuses, mut idle_since, mut longest) = (0, 0, *start, Duration::ZERO);
        for (at, more_tasks, more_excuses) in &changes {
            let free = scenario.max_tasks as isize - running;
            let is_idle = free * 3 > scenario.max_tasks as isize && excuses == 0;
            if is_idle {
                let until = (*at).min(tasks[0].started_at);
                longest = longest.max(until.saturating_duration_since(idle_since.max(uploaded_at)));
            } else {
                idle_since = *at;
            }
            (running, excuses) = (running + more_tasks, excuses + more_excuses);
        }
        if longest > START_WITHIN {
            found.push(format!("{key} waited for {longest:?} although tasks could run"));
        }
    }
}

/// No task was launched in an operator's pause. Reads of the pause can be slow and can fail.
fn nothing_was_launched_in_a_pause(outcome: &Outcome, found: &mut Vec<String>) {
    let Outcome { scenario, clients, start, .. } = outcome;
    let without_answers = scenario.outages.iter().chain(&scenario.cut_offs);
    let without_answers: Vec<_> = without_answers.map(|(at, duration)| *at..*at + *duration).collect();
    for (at, duration) in &scenario.pauses {
        let noticed = *at + PAUSE_NOTICED;
        if without_answers.iter().any(|period| period.start < noticed && *at < period.end) {
            continue;
        }
        let paused = *start + noticed..*start + *at + *duration;
        let calls = clients.iter().flat_map(|client| client.launch_calls());
        let launched = calls.filter(|call| paused.contains(call)).count();
        if launched > 0 {
            found.push(format!("{launched} launches in the pause at {at:?}"));
        }
    }
}

/// No consumer exceeded its limits of tasks and of calls to ECS.
fn limits_were_kept(outcome: &Outcome, found: &mut Vec<String>) {
    let Scenario { max_tasks, launches_per_second, .. } = *outcome.scenario;
    for client in &outcome.clients {
        if client.most_running() > max_tasks {
            found.push(format!("{} tasks at once, {max_tasks} allowed", client.most_running()));
        }
        for (call, times) in [("RunTask", client.launch_calls()), ("DescribeTasks", client.describe_calls())]
        {
            if exceeds(&times, launches_per_second as usize) {
                found.push(format!("{call} was called more than {launches_per_second} times in a second"));
            }
        }
    }
}

fn exceeds(times: &[Instant], per_second: usize) -> bool {
    let pairs = times.iter().zip(times.iter().skip(per_second));
    pairs.into_iter().any(|(first, over)| *over - *first + TIMER < Duration::from_secs(1))
}
