//! Redrive: sends dead letters back to the queue after their cause is gone.
//!
//! A message is sent first and deleted then. A failure in between leaves it twice, which does no harm,
//! because each restart request restarts a job once.

pub(crate) mod letter;

use std::{
    collections::HashSet,
    io::{self, Write},
    time::Duration,
};

use aws_sdk_sqs::{Client, types::MessageSystemAttributeName};
use clap::{Args, builder::NonEmptyStringValueParser};
use futures::future::join_all;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};
use vidstreamx_job::JobId;

use self::letter::SetAside;
use crate::{
    aws::error::CallError,
    aws::sqs::{Queue, Receipt, Sqs},
    aws::sqs_send,
    aws::sqs_send::BATCH,
    commands::format,
    commands::progress::ProgressDisplay,
    config::RedriveSettings,
};

/// The messages to send back.
#[derive(Debug, Clone, Args)]
pub(crate) struct Arguments {
    /// Only messages about keys that contain this text
    #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
    pub key: Option<String>,

    /// Only messages whose reason contains this text, ignoring case
    #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
    pub reason: Option<String>,

    /// Only the message about this job
    #[arg(long, value_name = "JOB ID")]
    pub job: Option<JobId>,

    /// Only list the dead letters and their reasons
    #[arg(long)]
    pub dry_run: bool,

    /// The queues.
    #[command(flatten)]
    pub settings: RedriveSettings,
}

impl Arguments {
    fn matches(&self, message: &SetAside) -> bool {
        let contains = |text: &str, part: &str| text.to_lowercase().contains(&part.to_lowercase());
        let reason = message.reason.as_deref().unwrap_or_default();
        self.key.as_ref().is_none_or(|part| message.keys.iter().any(|key| key.contains(part)))
            && self.reason.as_ref().is_none_or(|part| contains(reason, part))
            && self.job.as_ref().is_none_or(|job| message.job.as_deref() == Some(job.as_str()))
    }
}

/// An incomplete redrive.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RedriveError {
    /// A call failed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// SQS refused some, which the output names.
    #[error("{} not sent back: run it again", format::count(*.0, "message"))]
    Refused(u64),
    /// The user interrupted it.
    #[error("interrupted: run it again for the rest")]
    Interrupted,
    /// The output is closed.
    #[error(transparent)]
    Output(#[from] io::Error),
}

/// Visibility timeout of received messages: enough for 100,000 messages, ten in about 60 ms. After a kill
/// they stay hidden for the rest of it.
const HIDDEN: Duration = Duration::from_secs(15 * 60);
/// Wait of a receive. From one second on, SQS queries all its servers.
const POLL: Duration = Duration::from_secs(1);
/// Consecutive receives without a new message that end the redrive.
const LAST_LOOKS: u32 = 2;

/// Sends the matching messages back, until all have been seen once or `stop` is cancelled. Messages that
/// arrive after `now` stay, because they may have been sent back a moment ago.
///
/// # Errors
/// A call failed, or SQS refused some. Other messages become visible again in any case.
pub(crate) async fn redrive(
    client: &Client,
    arguments: &Arguments,
    now: Timestamp,
    stop: &CancellationToken,
    out: &mut impl Write,
) -> Result<(), RedriveError> {
    let mut run = Run {
        client,
        arguments,
        began: now,
        dead_letters: Sqs::new(
            client.clone(),
            &arguments.settings.dead_letter_queue_url,
            &arguments.settings.dead_letter_queue_url,
        ),
        seen: HashSet::new(),
        held: Vec::new(),
        tally: Tally::default(),
    };
    let result = run.all(stop, out).await;
    run.release().await;
    writeln!(out, "{}", run.tally.line(arguments.dry_run))?;
    result?;
    if run.tally.refused > 0 {
        Err(RedriveError::Refused(run.tally.refused))
    } else if stop.is_cancelled() {
        Err(RedriveError::Interrupted)
    } else {
        Ok(())
    }
}

#[derive(Debug, Default)]
struct Tally {
    matching: u64,
    refused: u64,
    others: u64,
    newer: u64,
}

impl Tally {
    fn line(&self, dry_run: bool) -> String {
        if self.matching + self.refused + self.others + self.newer == 0 {
            return "there is nothing in the dead-letter queue, or somebody else holds it".to_owned();
        }
        let (verb, stay) = if dry_run { ("would be sent back", "would stay") } else { ("sent back", "stay") };
        let mut line = format!("{} {verb}", format::count(self.matching, "message"));
        if self.others > 0 {
            line = format!("{line}; {} {stay}", format::count(self.others, "other"));
        }
        if self.newer > 0 {
            line = format!("{line}; {} came in meanwhile", format::count(self.newer, "other"));
        }
        line
    }
}

struct Run<'a> {
    client: &'a Client,
    arguments: &'a Arguments,
    began: Timestamp,
    dead_letters: Sqs,
    /// Ids of handled messages.
    seen: HashSet<String>,
    /// Messages to make visible again.
    held: Vec<Receipt>,
    tally: Tally,
}

impl Run<'_> {
    async fn all(&mut self, stop: &CancellationToken, out: &mut impl Write) -> Result<(), RedriveError> {
        let waiting = ProgressDisplay::new("messages", None);
        let mut nothing_new = 0;
        while nothing_new < LAST_LOOKS && !stop.is_cancelled() {
            let mut fresh = Vec::new();
            for message in self.receive().await? {
                let first = self.seen.insert(message.id.clone());
                let newer = message.sent.is_some_and(|sent| sent > self.began);
                if first && !newer {
                    fresh.push(message);
                } else {
                    self.tally.newer += u64::from(first);
                    self.held.push(message.receipt);
                }
            }
            nothing_new = if fresh.is_empty() { nothing_new + 1 } else { 0 };
            waiting.step(fresh.len() as u64);
            let (matching, others): (Vec<_>, Vec<_>) =
                fresh.into_iter().partition(|message| self.arguments.matches(message));
            self.tally.others += others.len() as u64;
            self.held.extend(others.into_iter().map(|message| message.receipt));
            if self.arguments.dry_run {
                self.tally.matching += matching.len() as u64;
                self.held.extend(matching.iter().map(|message| message.receipt.clone()));
                waiting
                    .aside(|| matching.iter().try_for_each(|message| writeln!(out, "{}", message.line())))?;
            } else if !matching.is_empty() {
                self.send_back(matching, &waiting, out).await?;
            }
        }
        Ok(())
    }

    async fn receive(&self) -> Result<Vec<SetAside>, CallError> {
        let answer = self
            .client
            .receive_message()
            .queue_url(self.arguments.settings.dead_letter_queue_url.as_str())
            .max_number_of_messages(i32::try_from(BATCH).unwrap_or(1))
            .wait_time_seconds(i32::try_from(POLL.as_secs()).unwrap_or(1))
            .visibility_timeout(i32::try_from(HIDDEN.as_secs()).unwrap_or(i32::MAX))
            .message_system_attribute_names(MessageSystemAttributeName::SentTimestamp)
            .message_attribute_names("All")
            .send()
            .await
            .map_err(|error| CallError::new("ReceiveMessage", &error))?;
        Ok(answer.messages.unwrap_or_default().into_iter().filter_map(SetAside::new).collect())
    }

    async fn send_back(
        &mut self,
        messages: Vec<SetAside>,
        waiting: &ProgressDisplay,
        out: &mut impl Write,
    ) -> Result<(), RedriveError> {
        let letters: Vec<_> = messages.iter().map(|message| message.letter.clone()).collect();
        let queue = &self.arguments.settings.queue_url;
        let refused = match sqs_send::send(self.client, queue, &letters).await {
            Ok(refused) => refused,
            Err(error) => {
                self.held.extend(messages.into_iter().map(|message| message.receipt));
                return Err(error.into());
            }
        };
        let mut sent = Vec::new();
        for (index, message) in messages.into_iter().enumerate() {
            if let Some(refused) = refused.iter().find(|refused| refused.index == index) {
                self.tally.refused += 1;
                waiting.aside(|| error!(reason = refused.reason, "not sent back: {}", message.line()));
                self.held.push(message.receipt);
            } else {
                sent.push(message);
            }
        }
        let deleted = join_all(sent.iter().map(|message| self.dead_letters.delete(&message.receipt))).await;
        let mut shown = Ok(());
        for (message, deleted) in sent.iter().zip(deleted) {
            self.tally.matching += 1;
            shown = shown.and_then(|()| waiting.aside(|| writeln!(out, "{}", message.line())));
            if let Err(error) = deleted {
                let what = message.line();
                waiting.aside(|| warn!(%error, "sent back, but still in the dead-letter queue: {what}"));
                self.held.push(message.receipt.clone());
            }
        }
        Ok(shown?)
    }

    /// Makes messages visible again that were not sent. If that fails, they become visible by themselves
    /// later.
    async fn release(&mut self) {
        let waiting = ProgressDisplay::new("messages made visible again", Some(self.held.len() as u64));
        for receipts in self.held.chunks(BATCH) {
            waiting.step(receipts.len() as u64);
            let refused = self.dead_letters.set_visibility(receipts, Duration::ZERO).await;
            let reason = match refused {
                Ok(refused) => refused.into_iter().next().map(|refused| refused.reason),
                Err(error) => Some(error.to_string()),
            };
            if let Some(reason) = reason {
                let minutes = HIDDEN.as_secs() / 60;
                waiting.aside(|| warn!(reason, "some messages stay hidden for up to {minutes} minutes"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use aws_sdk_sqs::{
        operation::{
            change_message_visibility_batch::ChangeMessageVisibilityBatchOutput,
            delete_message::DeleteMessageOutput, receive_message::ReceiveMessageOutput,
        },
        types::{ChangeMessageVisibilityBatchResultEntry, Message, MessageAttributeValue},
    };
    use aws_smithy_mocks::{RuleMode, mock, mock_client};
    use clap::Parser;

    use super::*;
    use crate::{
        fixtures::{queue_that_refuses, source},
        intake::notification,
    };

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn arguments(words: &[&str]) -> Arguments {
        let settings = [
            "redrive",
            "--queue-url=http://localhost/1/uploads",
            "--dead-letter-queue-url=http://localhost/1/dead",
        ];
        Line::try_parse_from(settings.iter().chain(words)).unwrap().arguments
    }

    /// Everything began in the 100th second.
    const BEGAN: i64 = 100;

    fn message(id: &str, body: &str, attributes: &[(&str, &str)], sent: i64) -> Message {
        let mut message = Message::builder()
            .message_id(id)
            .receipt_handle(format!("receipt of {id}"))
            .body(body)
            .attributes(MessageSystemAttributeName::SentTimestamp, (sent * 1000).to_string());
        for (name, value) in attributes {
            let value = MessageAttributeValue::builder().data_type("String").string_value(*value);
            message = message.message_attributes(*name, value.build().unwrap());
        }
        message.build()
    }

    fn about(key: &str) -> String {
        notification::about(&source(key))
    }

    const JOB: &str = "0123456789abcdef0123456789abcdef";

    fn letters() -> Vec<Message> {
        let failed = [
            ("vidstreamx-reason", "All 3 attempts failed: out of memory"),
            ("vidstreamx-job-id", JOB),
            ("vidstreamx-attempts", "3"),
            ("vidstreamx-restart", "failed-after-3"),
        ];
        vec![
            message("failed", &about("films/a.mp4"), &failed, 10),
            message("moved by SQS", &about("films/b.mp4"), &[], 20),
            message("rubbish", "rubbish\u{7}", &[("vidstreamx-reason", "the message is not JSON")], 30),
            message("rubbish moved", "{}", &[], 40),
        ]
    }

    #[derive(Debug, Default)]
    struct Happened {
        sent: Vec<(String, Vec<String>)>,
        deleted: Vec<String>,
        released: Vec<String>,
        receives: usize,
    }

    /// Redrives from a queue that gives these, one receive after the other, and nothing then. Sending is
    /// refused for what contains `refused`.
    async fn redriven(
        words: &[&str],
        receives: Vec<Vec<Message>>,
        refused: &'static str,
        stop: CancellationToken,
    ) -> (String, Result<(), RedriveError>, Happened) {
        let happened = Arc::new(Mutex::new(Happened::default()));
        let shared = || Arc::clone(&happened);
        let (counting, deleting, releasing, sending) = (shared(), shared(), shared(), shared());
        let receive = mock!(Client::receive_message)
            .match_requests(|receive| {
                receive.queue_url() == Some("http://localhost/1/dead")
                    && receive.visibility_timeout() == Some(900)
                    && receive.message_attribute_names() == ["All"]
            })
            .then_output(move || {
                let mut happened = counting.lock().unwrap();
                happened.receives += 1;
                let messages = receives.get(happened.receives - 1).cloned();
                ReceiveMessageOutput::builder().set_messages(messages).build()
            });
        let send = queue_that_refuses(refused, move |entry| {
            let attributes = entry.message_attributes().cloned().unwrap_or_default();
            let mut names: Vec<_> = attributes.into_keys().collect();
            names.sort();
            sending.lock().unwrap().sent.push((entry.message_body().to_owned(), names));
        });
        let receipt = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&receipt);
        let delete = mock!(Client::delete_message)
            .match_requests(move |delete| {
                seen.lock().unwrap().push(delete.receipt_handle().unwrap_or_default().to_owned());
                delete.queue_url() == Some("http://localhost/1/dead")
            })
            .then_output(move || {
                deleting.lock().unwrap().deleted.extend(receipt.lock().unwrap().pop());
                DeleteMessageOutput::builder().build()
            });
        let entries = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&entries);
        let release = mock!(Client::change_message_visibility_batch)
            .match_requests(move |change| {
                *seen.lock().unwrap() =
                    change.entries().iter().map(|entry| entry.receipt_handle().to_owned()).collect();
                change.queue_url() == Some("http://localhost/1/dead")
                    && change.entries().iter().all(|entry| entry.visibility_timeout() == Some(0))
            })
            .then_output(move || {
                releasing.lock().unwrap().released.append(&mut entries.lock().unwrap());
                let none: Vec<ChangeMessageVisibilityBatchResultEntry> = Vec::new();
                ChangeMessageVisibilityBatchOutput::builder()
                    .set_successful(Some(none))
                    .set_failed(Some(Vec::new()))
                    .build()
                    .unwrap()
            });
        let client = mock_client!(aws_sdk_sqs, RuleMode::MatchAny, [&receive, &send, &delete, &release]);
        let mut out = Vec::new();
        let now = Timestamp::from_second(BEGAN).unwrap();
        let result = redrive(&client, &arguments(words), now, &stop, &mut out).await;
        let happened = std::mem::take(&mut *happened.lock().unwrap());
        (String::from_utf8(out).unwrap(), result, happened)
    }

    const NOTHING: &str = "nothing is refused";

    fn receipts(ids: &[&str]) -> Vec<String> {
        ids.iter().map(|id| format!("receipt of {id}")).collect()
    }

    #[tokio::test]
    async fn a_dry_run_shows_everything_and_leaves_it_visible() {
        let (text, result, happened) =
            redriven(&["--dry-run"], vec![letters()], NOTHING, CancellationToken::new()).await;
        assert!(result.is_ok());
        insta::assert_snapshot!(text);
        assert_eq!(happened.released, receipts(&["failed", "moved by SQS", "rubbish", "rubbish moved"]));
        assert!(happened.sent.is_empty() && happened.deleted.is_empty());
    }

    #[tokio::test]
    async fn what_matches_goes_back_with_its_attributes_and_the_rest_is_visible_again() {
        for filter in ["--key=a.mp4", "--reason=OUT of", &format!("--job={JOB}")] {
            let (text, result, happened) =
                redriven(&[filter], vec![letters()], NOTHING, CancellationToken::new()).await;
            assert!(result.is_ok());
            assert!(text.ends_with("1 message sent back; 3 others stay\n"), "{filter}: {text}");
            let names = ["attempts", "job-id", "reason", "restart"].map(|name| format!("vidstreamx-{name}"));
            assert_eq!(happened.sent, [(about("films/a.mp4"), names.to_vec())], "{filter}");
            assert_eq!(happened.deleted, receipts(&["failed"]));
            assert_eq!(happened.released, receipts(&["moved by SQS", "rubbish", "rubbish moved"]));
        }
    }

    #[tokio::test]
    async fn what_comes_back_while_it_runs_stays_and_does_not_keep_it_going() {
        let bounced = |id: &str| vec![message(id, "rubbish", &[], BEGAN + 1)];
        // SQS gives the same again, and the consumer sends back what it can't read, time after time.
        let receives = vec![
            letters(),
            vec![],
            letters().split_off(3),
            bounced("bounced 1"),
            bounced("bounced 2"),
            bounced("bounced 3"),
        ];
        let (text, result, happened) = redriven(&[], receives, NOTHING, CancellationToken::new()).await;
        assert!(result.is_ok());
        assert_eq!((happened.sent.len(), happened.receives), (4, 3));
        assert!(text.ends_with("4 messages sent back\n"), "{text}");

        let receives = vec![letters(), bounced("bounced 1"), bounced("bounced 2"), bounced("bounced 3")];
        let (text, _, happened) = redriven(&[], receives, NOTHING, CancellationToken::new()).await;
        assert_eq!((happened.sent.len(), happened.receives), (4, 3));
        assert!(text.ends_with("4 messages sent back; 2 others came in meanwhile\n"), "{text}");
        assert_eq!(happened.released, receipts(&["bounced 1", "bounced 2"]));
    }

    #[tokio::test]
    async fn what_sqs_does_not_take_is_not_deleted() {
        let (text, result, happened) =
            redriven(&[], vec![letters()], "b.mp4", CancellationToken::new()).await;
        assert!(matches!(result, Err(RedriveError::Refused(1))));
        assert!(text.ends_with("3 messages sent back\n"), "{text}");
        assert_eq!(happened.deleted.len(), 3);
        assert_eq!(happened.released, receipts(&["moved by SQS"]));
    }

    #[tokio::test]
    async fn an_interrupted_run_receives_no_more() {
        let stop = CancellationToken::new();
        stop.cancel();
        let (_, result, happened) = redriven(&[], vec![letters()], NOTHING, stop).await;
        assert!(matches!(result, Err(RedriveError::Interrupted)));
        assert_eq!(happened.receives, 0);
    }
}
