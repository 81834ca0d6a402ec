//! The command `history`.

use std::{
    cmp::Reverse,
    io::{self, Write},
};

use futures::StreamExt as _;
use jiff::Timestamp;
use tracing::warn;
use vidstreamx_job::{JobId, Record, S3Uri, Source};

use super::{
    arguments::Arguments,
    list::{self, Line, Summary},
    page,
    read::{Found, Store, Video},
    since::Since,
};
use crate::{aws::error::CallError, commands::format, commands::progress::ProgressDisplay};

/// A failed query.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HistoryError {
    /// A call failed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// No record matches.
    #[error("there is no record of \"{asked}\" in s3://{bucket}{unreadable}")]
    NotFound {
        /// The query.
        asked: String,
        /// The output bucket.
        bucket: String,
        /// A hint about unreadable records.
        unreadable: String,
    },
    /// This version cannot read the record.
    #[error("{0}")]
    Unreadable(String),
    /// The output cannot be written.
    #[error(transparent)]
    Output(#[from] io::Error),
}

/// Prints the result. Cuts the lines of a list to `width`, the width of the terminal, if there is a terminal.
///
/// # Errors
/// A call failed, or the job does not exist.
pub(crate) async fn show(
    store: &Store,
    arguments: &Arguments,
    now: Timestamp,
    width: Option<u16>,
    out: &mut impl Write,
) -> Result<(), HistoryError> {
    let query = Query { store, arguments, now };
    match &arguments.job {
        Some(asked) => query.jobs(asked, out).await,
        None => query.list(width, out).await,
    }
}

/// Default period of a list.
const LIST_HOURS: i64 = 24;

struct Query<'a> {
    store: &'a Store,
    arguments: &'a Arguments,
    now: Timestamp,
}

impl Query<'_> {
    async fn list(&self, width: Option<u16>, out: &mut impl Write) -> Result<(), HistoryError> {
        let Self { store, arguments, now } = *self;
        let since = arguments.since.unwrap_or(Since::Ago(jiff::Span::new().hours(LIST_HOURS))).moment(now);
        let wanted = |record: &Record| {
            (arguments.state.is_empty() || arguments.state.contains(&record.state))
                && arguments.key.as_ref().is_none_or(|text| record.source.key.as_str().contains(text))
        };
        let mut lines = Vec::new();
        let mut summary = Summary::default();
        each(store, Some(since), &wanted, &mut summary, |video, progress| {
            if arguments.json {
                progress.aside(|| json_line(&video, out))
            } else {
                lines.push(Line::new(&video, now));
                Ok(())
            }
        })
        .await?;
        if arguments.json {
            return Ok(());
        }
        if !lines.is_empty() {
            writeln!(out, "{}\n", list::table(lines, width))?;
        }
        writeln!(out, "{}", summary.line(since))?;
        Ok(())
    }

    async fn jobs(&self, asked: &str, out: &mut impl Write) -> Result<(), HistoryError> {
        let Self { store, arguments, now } = *self;
        let mut videos = Vec::new();
        let mut summary = Summary::default();
        if let Ok(job) = asked.parse::<JobId>() {
            match store.video(&job, &|_: &Record| true).await? {
                Found::Video(video) => videos.push(*video),
                Found::Unreadable(why) => return Err(HistoryError::Unreadable(why)),
                Found::Unwanted | Found::Nothing => {}
            }
        }
        if videos.is_empty() {
            let uri = asked.parse::<S3Uri>().ok();
            let wanted = |record: &Record| is_about(&record.source, asked, uri.as_ref());
            let since = arguments.since.map(|since| since.moment(now));
            each(store, since, &wanted, &mut summary, |video, _| {
                videos.push(video);
                Ok(())
            })
            .await?;
        }
        if videos.is_empty() {
            let unreadable = match summary.unreadable() {
                0 => String::new(),
                count => format!("; {} could not be read", format::count(count, "record")),
            };
            let (asked, bucket) = (format::clean(asked), store.output().to_string());
            return Err(HistoryError::NotFound { asked, bucket, unreadable });
        }
        videos.sort_by_key(|video| Reverse(video.record.created_at));
        for (index, video) in videos.iter().enumerate() {
            if arguments.json {
                json_line(video, out)?;
            } else {
                let between = if index == 0 { "" } else { "\n" };
                write!(out, "{between}{}", page::page(video, store.output(), now))?;
            }
        }
        Ok(())
    }
}

fn is_about(source: &Source, key: &str, uri: Option<&S3Uri>) -> bool {
    source.key.as_str() == key
        || uri.is_some_and(|uri| uri.bucket == source.bucket && uri.path == source.key.as_str())
}

/// Reads the matching records that were written since a time. Counts each in `summary` and passes it to
/// `take`.
async fn each(
    store: &Store,
    since: Option<Timestamp>,
    wanted: &impl Fn(&Record) -> bool,
    summary: &mut Summary,
    mut take: impl FnMut(Video, &ProgressDisplay) -> io::Result<()>,
) -> Result<(), HistoryError> {
    let entries = store.entries(since).await?;
    let progress = ProgressDisplay::new("records read", Some(entries.len() as u64));
    let mut videos = std::pin::pin!(store.videos(&entries, wanted));
    while let Some(found) = videos.next().await {
        progress.step(1);
        match found? {
            Found::Video(video) => {
                summary.add(&video.record);
                take(*video, &progress)?;
            }
            Found::Unreadable(why) => {
                summary.add_unreadable();
                progress.aside(|| warn!("a record is not shown: {why}"));
            }
            Found::Unwanted | Found::Nothing => {}
        }
    }
    Ok(())
}

fn json_line(video: &Video, out: &mut impl Write) -> io::Result<()> {
    serde_json::to_writer(&mut *out, video)?;
    writeln!(out)
}

#[cfg(test)]
mod tests;
