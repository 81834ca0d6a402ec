//! The command `redrive`.

use std::{
    collections::HashSet,
    io::{self, Write},
    time::Duration,
};

use aws_sdk_sqs::{Client, types::MessageSystemAttributeName};
use futures::future::join_all;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::{arguments::Arguments, letter::ReceivedDeadLetter};
use crate::{
    aws::error::CallError,
    aws::names::QueueUrl,
    aws::sqs::{Queue, QueueKind, Receipt, Sqs},
    aws::sqs_send,
    aws::sqs_send::BATCH,
    commands::format,
    commands::progress::ProgressDisplay,
};

/// An incomplete redrive.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RedriveError {
    /// A call failed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// SQS refused some messages. The output names them.
    #[error("{} not sent back: run redrive again", format::count(*.0, "message"))]
    Refused(u64),
    /// The user interrupted the redrive.
    #[error("interrupted: run redrive again for the other messages")]
    Interrupted,
    /// The output cannot be written.
    #[error(transparent)]
    Output(#[from] io::Error),
}

/// Visibility timeout of received messages: enough for 100,000 messages, at about 60 ms for ten. If the
/// program is killed, the messages stay hidden until this timeout expires.
const HIDDEN: Duration = Duration::from_secs(15 * 60);
/// Wait time of a receive. If it is at least one second, SQS queries all its servers.
const POLL: Duration = Duration::from_secs(1);
/// The redrive ends after this number of consecutive receives without a new message.
const LAST_LOOKS: u32 = 2;

/// Sends the matching messages back, until all messages have been received once or `stop` is cancelled.
/// Messages that arrive after `now` stay in the dead-letter queue: the consumer may have returned them after
/// this redrive sent them back.
///
/// # Errors
/// A call failed, or SQS refused some messages. Even then, messages that were not sent back become visible
/// again.
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
            return "the dead-letter queue is empty, or another reader holds its messages".to_owned();
        }
        let (verb, stay) = if dry_run { ("would be sent back", "would stay") } else { ("sent back", "stay") };
        let mut line = format!("{} {verb}", format::count(self.matching, "message"));
        if self.others > 0 {
            line = format!("{line}; {} {stay}", format::count(self.others, "other"));
        }
        if self.newer > 0 {
            line = format!("{line}; {} arrived during the redrive", format::count(self.newer, "other"));
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
        let progress = ProgressDisplay::new("messages", None);
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
            progress.step(fresh.len() as u64);
            let (matching, others): (Vec<_>, Vec<_>) =
                fresh.into_iter().partition(|message| self.arguments.matches(message));
            self.tally.others += others.len() as u64;
            self.held.extend(others.into_iter().map(|message| message.receipt));
            if self.arguments.dry_run {
                self.tally.matching += matching.len() as u64;
                self.held.extend(matching.iter().map(|message| message.receipt.clone()));
                progress
                    .aside(|| matching.iter().try_for_each(|message| writeln!(out, "{}", message.line())))?;
            } else {
                let (back_fills, uploads): (Vec<_>, Vec<_>) =
                    matching.into_iter().partition(|message| message.from == QueueKind::BackFill);
                let settings = &self.arguments.settings;
                self.send_back(uploads, &settings.queue_url, &progress, out).await?;
                self.send_back(back_fills, &settings.back_fill_queue_url, &progress, out).await?;
            }
        }
        Ok(())
    }

    async fn receive(&self) -> Result<Vec<ReceivedDeadLetter>, CallError> {
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
        Ok(answer.messages.unwrap_or_default().into_iter().filter_map(ReceivedDeadLetter::new).collect())
    }

    async fn send_back(
        &mut self,
        messages: Vec<ReceivedDeadLetter>,
        queue: &QueueUrl,
        progress: &ProgressDisplay,
        out: &mut impl Write,
    ) -> Result<(), RedriveError> {
        if messages.is_empty() {
            return Ok(());
        }
        let outgoing: Vec<_> = messages.iter().map(|message| message.outgoing.clone()).collect();
        let refused = match sqs_send::send(self.client, queue, &outgoing).await {
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
                progress.aside(|| error!(reason = refused.reason, "not sent back: {}", message.line()));
                self.held.push(message.receipt);
            } else {
                sent.push(message);
            }
        }
        let deleted = join_all(sent.iter().map(|message| self.dead_letters.delete(&message.receipt))).await;
        let mut shown = Ok(());
        for (message, deleted) in sent.iter().zip(deleted) {
            self.tally.matching += 1;
            shown = shown.and_then(|()| progress.aside(|| writeln!(out, "{}", message.line())));
            if let Err(error) = deleted {
                let what = message.line();
                progress.aside(|| warn!(%error, "sent back, but still in the dead-letter queue: {what}"));
                self.held.push(message.receipt.clone());
            }
        }
        Ok(shown?)
    }

    /// Makes the messages that were not sent back visible again. If that fails, they become visible when
    /// their timeout expires.
    async fn release(&mut self) {
        let progress = ProgressDisplay::new("messages made visible again", Some(self.held.len() as u64));
        for receipts in self.held.chunks(BATCH) {
            progress.step(receipts.len() as u64);
            let refused = self.dead_letters.set_visibility(receipts, Duration::ZERO).await;
            let reason = match refused {
                Ok(refused) => refused.into_iter().next().map(|refused| refused.reason),
                Err(error) => Some(error.to_string()),
            };
            if let Some(reason) = reason {
                let minutes = HIDDEN.as_secs() / 60;
                progress.aside(|| warn!(reason, "some messages stay hidden for up to {minutes} minutes"));
            }
        }
    }
}

#[cfg(test)]
mod tests;
