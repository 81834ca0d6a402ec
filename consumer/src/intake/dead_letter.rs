//! A message for the dead-letter queue: about a video that failed, or about something that cannot be read.
//!
//! The body is an event like S3's own, and the reason is an attribute. A message that is moved back, by any
//! means, restarts the job: its attribute [`RESTART_ATTRIBUTE`] requests that.

use vidstreamx_job::{JobId, Record};

use super::notification;
use crate::{
    aws::{sqs::RESTART_ATTRIBUTE, sqs_send::OutgoingMessage},
    reconcile::RestartRequest,
};

/// Attribute: why the message is there, in one sentence.
pub const REASON: &str = "vidstreamx-reason";
/// Attribute: the id of the failed job.
pub const JOB_ID: &str = "vidstreamx-job-id";
/// Attribute: how many attempts the job had.
pub const ATTEMPTS: &str = "vidstreamx-attempts";
/// Attribute: the ARNs of the latest tasks, separated by commas.
const TASK_ARNS: &str = "vidstreamx-task-arns";

/// A message for the dead-letter queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The event, or the text that cannot be read.
    pub body: String,
    /// One sentence for people.
    pub reason: String,
    /// The failed job, if it is about one.
    pub job: Option<FailedJob>,
}

/// The job of a dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedJob {
    id: JobId,
    /// All attempts, including those before a restart.
    attempts: usize,
    /// The ARNs of the latest tasks.
    task_arns: Vec<String>,
}

/// Task ARNs in a dead letter. The first tasks of a job that was interrupted a hundred times say nothing.
const MOST_TASKS: usize = 20;
/// Characters of a reason, which can quote a log.
const LONGEST_REASON: usize = 1000;

impl DeadLetter {
    /// The dead letter about a job that has failed.
    #[must_use]
    pub fn about(record: &Record) -> Self {
        let arns: Vec<_> = record.attempts.iter().filter_map(|attempt| attempt.task_arn.clone()).collect();
        let latest = arns.len().saturating_sub(MOST_TASKS);
        let job = FailedJob {
            id: record.job_id.clone(),
            attempts: record.attempts.len(),
            task_arns: arns.into_iter().skip(latest).collect(),
        };
        Self {
            body: notification::about(&record.source),
            reason: record.reason.clone().unwrap_or_default(),
            job: Some(job),
        }
    }

    /// The message as SQS accepts it: neither body nor reason is empty.
    #[must_use]
    pub fn message(&self) -> OutgoingMessage {
        let body = valid_text(self.body.chars(), "(an empty message)");
        let reason = valid_text(self.reason.chars().take(LONGEST_REASON), "no reason is known");
        let mut message = OutgoingMessage { body, ..OutgoingMessage::default() };
        message.set_attribute(REASON, "String", reason);
        if let Some(FailedJob { id, attempts, task_arns }) = &self.job {
            let restart = RestartRequest::AfterFailure { attempts: *attempts };
            message.set_attribute(JOB_ID, "String", id.as_str());
            message.set_attribute(ATTEMPTS, "Number", attempts.to_string());
            message.set_attribute(RESTART_ATTRIBUTE, "String", restart.to_string());
            if !task_arns.is_empty() {
                message.set_attribute(TASK_ARNS, "String", task_arns.join(","));
            }
        }
        message
    }
}

/// A text with the characters that SQS accepts, which are those of XML 1.0.
fn valid_text(text: impl Iterator<Item = char>, if_empty: &str) -> String {
    let is_valid = |c: char| matches!(c, '\t' | '\n' | '\r' | ' '..='\u{FFFD}' | '\u{10000}'..);
    let text: String = text.map(|c| if is_valid(c) { c } else { '\u{FFFD}' }).collect();
    if text.is_empty() { if_empty.to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use vidstreamx_job::{Attempt, State};

    use super::*;
    use crate::{fixtures::job, intake::notification::Notification};

    fn attributes(message: &OutgoingMessage) -> Vec<(&str, &str, &str)> {
        let mut attributes: Vec<_> = message
            .attributes
            .iter()
            .map(|(name, value)| (name.as_str(), value.data_type(), value.string_value().unwrap()))
            .collect();
        attributes.sort_unstable();
        attributes
    }

    #[test]
    fn a_failed_job_is_told_with_reason_attempts_and_tasks_and_reads_as_its_upload() {
        let job = job("a b+c.mp4");
        let mut record = Record::new(&job, Timestamp::UNIX_EPOCH);
        record.state = State::Failed;
        record.reason = Some("S3 said \u{1}".into());
        for number in 1..=30 {
            let mut attempt = Attempt::new(number, Timestamp::UNIX_EPOCH);
            attempt.task_arn = (number > 1).then(|| format!("arn/{number}"));
            record.attempts.push(attempt);
        }
        let message = DeadLetter::about(&record).message();
        assert_eq!(notification::decode(&message.body), [Notification::Created(job.source)]);
        let tasks = (11..=30).map(|number| format!("arn/{number}")).collect::<Vec<_>>().join(",");
        assert_eq!(
            attributes(&message),
            [
                (ATTEMPTS, "Number", "30"),
                (JOB_ID, "String", job.id.as_str()),
                (REASON, "String", "S3 said \u{FFFD}"),
                (RESTART_ATTRIBUTE, "String", "failed-after-30"),
                (TASK_ARNS, "String", &tasks),
            ]
        );
    }

    #[test]
    fn a_message_about_no_job_has_a_reason_and_nothing_else() {
        let letter = DeadLetter { body: "rubbish\u{1}".into(), reason: String::new(), job: None };
        let message = letter.message();
        assert_eq!(message.body, "rubbish\u{FFFD}");
        assert!(!DeadLetter { body: String::new(), ..letter }.message().body.is_empty());
        assert_eq!(attributes(&message), [(REASON, "String", "no reason is known")]);
    }
}
