//! Messages for the dead-letter queue, about failed videos and unreadable messages.
//!
//! The body of a failed video's letter is an event like those of S3, and the reason is an attribute. If a
//! letter is moved back to the queue, by any tool, its attribute [`RESTART_ATTRIBUTE`] restarts the job.

use vidstreamx_job::{JobId, Record};

use super::notification;
use crate::{
    aws::{
        sqs::{QueueKind, RESTART_ATTRIBUTE},
        sqs_send::OutgoingMessage,
    },
    reconcile::RestartRequest,
};

/// Attribute: the reason, as a sentence.
pub const REASON: &str = "vidstreamx-reason";
/// Attribute: the id of the failed job.
pub const JOB_ID: &str = "vidstreamx-job-id";
/// Attribute: the number of the job's attempts.
pub const ATTEMPTS: &str = "vidstreamx-attempts";
/// Attribute: the queue that the message came from, if it is [`BACK_FILL`]. A redrive sends it back there.
pub(crate) const QUEUE: &str = "vidstreamx-queue";
/// Value of [`QUEUE`].
pub(crate) const BACK_FILL: &str = QueueKind::BackFill.name();
/// Attribute: the ARNs of the latest tasks, separated by commas.
const TASK_ARNS: &str = "vidstreamx-task-arns";

/// A message for the dead-letter queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The upload event, or the unreadable text.
    pub body: String,
    /// The reason, as a sentence.
    pub reason: String,
    /// The failed job; absent for an unreadable message.
    pub job: Option<FailedJob>,
}

/// The job of a dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedJob {
    id: JobId,
    /// Number of all attempts, including those before a restart.
    attempts: usize,
    /// The ARNs of the latest tasks.
    task_arns: Vec<String>,
}

/// Maximum number of task ARNs in a dead letter. A job can have a hundred interrupted tasks.
const MOST_TASKS: usize = 20;
/// Maximum characters of a reason, because reasons can quote logs.
const LONGEST_REASON: usize = 1000;

impl DeadLetter {
    /// The dead letter of a failed job.
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

    /// The message for SQS, which refuses empty bodies and attributes. `from` is the queue of the message
    /// that it is about.
    #[must_use]
    pub fn message(&self, from: QueueKind) -> OutgoingMessage {
        let body = valid_text(self.body.chars(), "(an empty message)");
        let reason = valid_text(self.reason.chars().take(LONGEST_REASON), "no reason is known");
        let mut message = OutgoingMessage { body, ..OutgoingMessage::default() };
        message.set_attribute(REASON, "String", reason);
        if from == QueueKind::BackFill {
            message.set_attribute(QUEUE, "String", BACK_FILL);
        }
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

/// Replaces the characters that SQS refuses: those that XML 1.0 does not allow.
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
    fn a_failed_jobs_letter_has_reason_attempts_and_tasks_and_decodes_to_its_upload() {
        let job = job("a b+c.mp4");
        let mut record = Record::new(&job, Timestamp::UNIX_EPOCH);
        record.state = State::Failed;
        record.reason = Some("S3 said \u{1}".into());
        for number in 1..=30 {
            let mut attempt = Attempt::new(number, Timestamp::UNIX_EPOCH);
            attempt.task_arn = (number > 1).then(|| format!("arn/{number}"));
            record.attempts.push(attempt);
        }
        let message = DeadLetter::about(&record).message(QueueKind::BackFill);
        assert_eq!(notification::decode(&message.body), [Notification::Created(job.source)]);
        let tasks = (11..=30).map(|number| format!("arn/{number}")).collect::<Vec<_>>().join(",");
        assert_eq!(
            attributes(&message),
            [
                (ATTEMPTS, "Number", "30"),
                (JOB_ID, "String", job.id.as_str()),
                (QUEUE, "String", "back-fill"),
                (REASON, "String", "S3 said \u{FFFD}"),
                (RESTART_ATTRIBUTE, "String", "failed-after-30"),
                (TASK_ARNS, "String", &tasks),
            ]
        );
    }

    #[test]
    fn an_unreadable_messages_letter_has_only_a_reason() {
        let letter = DeadLetter { body: "rubbish\u{1}".into(), reason: String::new(), job: None };
        let message = letter.message(QueueKind::Uploads);
        assert_eq!(message.body, "rubbish\u{FFFD}");
        assert!(!DeadLetter { body: String::new(), ..letter }.message(QueueKind::Uploads).body.is_empty());
        assert_eq!(attributes(&message), [(REASON, "String", "no reason is known")]);
    }
}
