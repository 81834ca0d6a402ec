//! What must hold when everything has come to its end, whatever went wrong on the way.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use tokio::time::Instant;
use vidstreamx_consumer::intake::{
    dead_letter::{ATTEMPTS, JOB_ID, REASON},
    notification::{self, Notification},
};
use vidstreamx_job::{JobId, Record, State};

use crate::{
    Outcome,
    cloud::Task,
    scenario::{Kind, Plan},
};

/// Timers have milliseconds.
const TIMER: Duration = Duration::from_millis(5);

/// Every sentence is one thing that does not hold.
pub fn violations(outcome: &Outcome) -> Vec<String> {
    let records = outcome.cloud.all_records();
    let mut tasks: BTreeMap<JobId, Vec<Task>> = BTreeMap::new();
    for task in outcome.cloud.tasks() {
        tasks.entry(task.job.id.clone()).or_default().push(task);
    }
    let mut found = Vec::new();
    every_upload_ended_as_it_should(outcome, &records, &mut found);
    dead_letters_say_why(outcome, &records, &mut found);
    no_job_was_paid_for_twice(outcome, &records, &tasks, &mut found);
    limits_were_kept(outcome, &mut found);
    found
}

/// Each upload ended exactly one of done, rejected, obsolete or dead-lettered, as its kind demands; no good
/// video is among the dead letters.
fn every_upload_ended_as_it_should(outcome: &Outcome, records: &[Record], found: &mut Vec<String>) {
    let Outcome { plan, cloud, repaired, .. } = outcome;
    if records.len() != plan.kinds.len() {
        found.push(format!("{} records of {} uploads", records.len(), plan.kinds.len()));
    }
    if cloud.queued() > 0 {
        found.push(format!("{} messages are left", cloud.queued()));
    }
    // The template's ten receives are for crashes; waiting spends none.
    for body in cloud.given_up() {
        found.push(format!("SQS gave up on a message: {body}"));
    }
    if plan.fair_weather && !plan.kinds.contains(&Kind::Endless) && cloud.most_receives_ever() > 1 {
        found.push(format!("a message was received {} times in fair weather", cloud.most_receives_ever()));
    }
    for (video, kind) in plan.kinds.iter().enumerate() {
        let key = Plan::key(video);
        let Some(record) = records.iter().find(|record| record.source.key.as_str() == key) else {
            found.push(format!("{key} ({kind:?}) has no record"));
            continue;
        };
        let expected = match kind {
            Kind::Unusable | Kind::NoVideo | Kind::Empty => State::Rejected,
            Kind::Deleted | Kind::Replaced => State::Obsolete,
            Kind::Hopeless if !repaired => State::Failed,
            _ => State::Done,
        };
        if record.state != expected {
            let why = record.reason.as_deref().unwrap_or("no reason");
            found.push(format!("{key} ({kind:?}) is {:?}: {why}", record.state));
        }
        if record.reason.is_none() != (record.state == State::Done) {
            found.push(format!("{key} is {:?} with reason {:?}", record.state, record.reason));
        }
    }
}

/// Every failed video and every stranger has a letter with a reason, and nothing else has one.
fn dead_letters_say_why(outcome: &Outcome, records: &[Record], found: &mut Vec<String>) {
    let Outcome { plan, cloud, .. } = outcome;
    let letters = cloud.letters();
    let mut strangers = HashSet::new();
    for letter in &letters {
        if letter.attribute(REASON).is_none_or(str::is_empty) {
            found.push(format!("a dead letter without a reason: {}", letter.body));
        }
        let Some(job) = letter.attribute(JOB_ID) else {
            strangers.insert(&letter.body);
            continue;
        };
        let attempts: usize = letter.attribute(ATTEMPTS).unwrap().parse().unwrap();
        let record = records.iter().find(|record| record.job_id.as_str() == job);
        let about = notification::decode(&letter.body);
        match (record, &about[..]) {
            (Some(record), [Notification::Created(source)])
                if *source == record.source
                    && (record.state == State::Failed && attempts == record.attempts.len()
                        // A late duplicate of the upload told of the failure once more.
                        || record.restarts.iter().any(|restart| restart.after_attempt as usize == attempts)) =>
                {}
            _ => found.push(format!("a dead letter about no failed job: {letter:?}")),
        }
    }
    let expected = plan.strangers().len();
    if strangers.len() != expected {
        found.push(format!("{} of {expected} strangers are dead letters", strangers.len()));
    }
    for record in records.iter().filter(|record| record.state == State::Failed) {
        if !letters.iter().any(|letter| letter.attribute(JOB_ID) == Some(record.job_id.as_str())) {
            found.push(format!("{} failed without a dead letter", record.source.key));
        }
    }
}

/// No two tasks of a job at once, no second success, not one task more than its kind takes, and none that
/// the record does not know.
fn no_job_was_paid_for_twice(
    outcome: &Outcome,
    records: &[Record],
    tasks: &BTreeMap<JobId, Vec<Task>>,
    found: &mut Vec<String>,
) {
    for record in records {
        let key = record.source.key.as_str();
        let kind = outcome.plan.kinds[key.trim_end_matches(".mp4").parse::<usize>().unwrap()];
        let tasks = tasks.get(&record.job_id).map(Vec::as_slice).unwrap_or_default();
        let redriven = usize::from(kind == Kind::Hopeless && outcome.repaired);
        // That a task was too small is not to be seen once ECS has forgotten it: it is tried as before.
        let forgotten = record.attempts.iter().filter(|attempt| attempt.stop_code.is_none()).count();
        let blind = if matches!(kind, Kind::NeedsMemory { .. }) { forgotten } else { 0 };
        let expected = kind.tasks(outcome.plan.fair_weather);
        if !(*expected.start()..=expected.end() + blind).contains(&(tasks.len() - redriven)) {
            found.push(format!("{key} ({kind:?}) had {} tasks: {:?}", tasks.len(), record.attempts));
        }
        if tasks.windows(2).any(|pair| pair[1].started_at < pair[0].ends_at()) {
            found.push(format!("{key} had two tasks at once"));
        }
        if tasks.iter().filter(|task| task.play.succeeds()).count() > 1 {
            found.push(format!("{key} was done twice"));
        }
        let known: Vec<_> = record.attempts.iter().filter_map(|attempt| attempt.task_arn.as_ref()).collect();
        if known.len() != tasks.len() {
            found.push(format!("{key} had {} tasks, its record knows {}", tasks.len(), known.len()));
        }
        if record.attempts.iter().zip(1..).any(|(attempt, number)| attempt.number != number) {
            found.push(format!("{key}'s attempts are not numbered one by one"));
        }
    }
}

/// No consumer had more tasks in flight, or called ECS more often, than it was told to.
fn limits_were_kept(outcome: &Outcome, found: &mut Vec<String>) {
    let Plan { max_tasks, launches_per_second, .. } = *outcome.plan;
    for seat in &outcome.seats {
        if seat.most_running() > max_tasks {
            found.push(format!("{} tasks at once, {max_tasks} allowed", seat.most_running()));
        }
        for (call, times) in [("RunTask", seat.launch_calls()), ("DescribeTasks", seat.describe_calls())] {
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
