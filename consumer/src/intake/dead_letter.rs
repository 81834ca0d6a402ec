//! What goes to the dead-letter queue: one message for each video that failed and for each thing that
//! can't be read, with the reason as attributes.
//!
//! The text is an event like S3's own, so that a message that is moved back, by whatever means, is tried
//! anew: the attribute [`RESTART_ATTRIBUTE`] says that this is meant.

use vidstreamx_job::{JobId, Record};

use crate::{
    aws::sqs::RESTART_ATTRIBUTE, aws::sqs_send::OutgoingMessage, intake::notification,
    reconcile::restart::RestartRequest,
};

/// Why it is there, in one sentence.
pub const REASON: &str = "vidstreamx-reason";
/// Of a failed video.
pub const JOB_ID: &str = "vidstreamx-job-id";
/// How many tasks were started for it.
pub const ATTEMPTS: &str = "vidstreamx-attempts";
/// The latest of them, separated by commas.
pub const TASK_ARNS: &str = "vidstreamx-task-arns";

/// A message for the dead-letter queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its text.
    pub body: String,
    /// One sentence for people.
    pub reason: String,
    /// The failed job; absent for what is no job.
    pub job: Option<FailedJob>,
}

/// What a dead letter says about a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedJob {
    /// The job's id.
    pub id: JobId,
    /// All that were made, over all of its lives.
    pub attempts: usize,
    /// The latest tasks' ARNs.
    pub tasks: Vec<String>,
}

/// Task ARNs that are told: of a job that was interrupted a hundred times the first ones say nothing.
const MOST_TASKS: usize = 20;
/// Characters of a reason, which can quote a log.
const LONGEST_REASON: usize = 1000;

impl DeadLetter {
    /// The letter about a job that has failed.
    #[must_use]
    pub fn about(record: &Record) -> Self {
        let tasks: Vec<_> = record.attempts.iter().filter_map(|attempt| attempt.task_arn.clone()).collect();
        let latest = tasks.len().saturating_sub(MOST_TASKS);
        let job = FailedJob {
            id: record.job_id.clone(),
            attempts: record.attempts.len(),
            tasks: tasks.into_iter().skip(latest).collect(),
        };
        Self {
            body: notification::about(&record.source),
            reason: record.reason.clone().unwrap_or_default(),
            job: Some(job),
        }
    }

    /// The message for SQS.
    #[must_use]
    pub fn message(&self) -> OutgoingMessage {
        let mut message = OutgoingMessage { body: self.sendable_body(), ..OutgoingMessage::default() };
        for (name, data_type, value) in self.attributes() {
            message.set_attribute(name, data_type, value);
        }
        message
    }

    /// The text as SQS takes it.
    fn sendable_body(&self) -> String {
        let body = with_taken_characters(self.body.chars());
        if body.is_empty() { "(an empty message)".to_owned() } else { body }
    }

    /// Name, SQS's data type and value.
    fn attributes(&self) -> Vec<(&'static str, &'static str, String)> {
        let mut attributes = vec![(REASON, "String", allowed(&self.reason))];
        if let Some(FailedJob { id, attempts, tasks }) = &self.job {
            let restart = RestartRequest::AfterFailure { attempts: *attempts };
            attributes.push((JOB_ID, "String", id.to_string()));
            attributes.push((ATTEMPTS, "Number", attempts.to_string()));
            attributes.push((RESTART_ATTRIBUTE, "String", restart.to_string()));
            if !tasks.is_empty() {
                attributes.push((TASK_ARNS, "String", tasks.join(",")));
            }
        }
        attributes
    }
}

/// A reason as SQS takes it: not empty.
fn allowed(text: &str) -> String {
    let text = with_taken_characters(text.chars().take(LONGEST_REASON));
    if text.is_empty() { "no reason is known".to_owned() } else { text }
}

/// SQS takes the characters that XML 1.0 has.
fn with_taken_characters(text: impl Iterator<Item = char>) -> String {
    let is_taken = |c: char| matches!(c, '\t' | '\n' | '\r' | ' '..='\u{FFFD}' | '\u{10000}'..);
    text.map(|c| if is_taken(c) { c } else { '\u{FFFD}' }).collect()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use vidstreamx_job::{Attempt, Job, Source, State};

    use super::*;
    use crate::intake::notification::Notification;

    #[test]
    fn a_failed_job_is_told_with_reason_attempts_and_tasks_and_reads_as_its_upload() {
        let source = Source {
            bucket: "uploads".parse().unwrap(),
            key: "a b+c.mp4".parse().unwrap(),
            version_id: None,
            etag: Some("e".into()),
            size: Some(9),
        };
        let job = Job::new(source.clone(), "streams".parse().unwrap(), "default".into());
        let mut record = Record::new(&job, Timestamp::UNIX_EPOCH);
        record.state = State::Failed;
        record.reason = Some("S3 said \u{1}".into());
        for number in 1..=30 {
            let mut attempt = Attempt::new(number, Timestamp::UNIX_EPOCH);
            attempt.task_arn = (number > 1).then(|| format!("arn/{number}"));
            record.attempts.push(attempt);
        }
        let letter = DeadLetter::about(&record);
        assert_eq!(notification::decode(&letter.body), [Notification::Created(source)]);
        let tasks = (11..=30).map(|number| format!("arn/{number}")).collect::<Vec<_>>().join(",");
        assert_eq!(
            letter.attributes(),
            [
                (REASON, "String", "S3 said \u{FFFD}".to_owned()),
                (JOB_ID, "String", job.id.to_string()),
                (ATTEMPTS, "Number", "30".to_owned()),
                (RESTART_ATTRIBUTE, "String", "failed-after-30".to_owned()),
                (TASK_ARNS, "String", tasks),
            ]
        );
    }

    #[test]
    fn what_is_no_job_has_a_reason_and_nothing_else() {
        let letter = DeadLetter { body: "rubbish\u{1}".into(), reason: String::new(), job: None };
        assert_eq!(letter.sendable_body(), "rubbish\u{FFFD}");
        assert!(!DeadLetter { body: String::new(), ..letter.clone() }.sendable_body().is_empty());
        assert_eq!(letter.attributes(), [(REASON, "String", "no reason is known".to_owned())]);
    }
}
