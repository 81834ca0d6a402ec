//! The command `history`.

use std::{
    cmp::Reverse,
    io::{self, Write},
    pin::pin,
};

use futures::{StreamExt as _, TryStreamExt as _, channel::mpsc, stream, try_join};
use jiff::Timestamp;
use tracing::warn;
use vidstreamx_job::{BucketName, JobId, Record, S3Uri};

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
    #[error("there is no record of \"{asked}\" in s3://{bucket}")]
    NotFound {
        /// The query.
        asked: String,
        /// The output bucket.
        bucket: BucketName,
    },
    /// The jobs of a key cannot be found without its bucket.
    #[error(
        "the bucket of \"{0}\" is not known: set VIDSTREAMX_UPLOAD_BUCKET (--upload-bucket), or write \
         s3://BUCKET/{0}"
    )]
    NoUploadBucket(String),
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
        // A table is sorted when it is complete. JSON is not kept, so that its length has no limit.
        let order = if arguments.json { Order::NewestFirst } else { Order::Any };
        each(store, since, order, &wanted, &mut summary, |video, progress| {
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
        let mut unreadable = Vec::new();
        for found in self.found(asked).await? {
            match found {
                Found::Video(video) => videos.push(*video),
                Found::Unreadable(why) => unreadable.push(why),
                Found::Unwanted | Found::Nothing => {}
            }
        }
        if let Some(since) = arguments.since.map(|since| since.moment(now)) {
            videos.retain(|video| video.record.updated_at >= since);
        }
        if videos.is_empty() {
            let (asked, bucket) = (format::clean(asked), store.output().clone());
            return Err(unreadable
                .pop()
                .map_or(HistoryError::NotFound { asked, bucket }, HistoryError::Unreadable));
        }
        for why in unreadable {
            warn!("a record is not shown: {why}");
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

    /// The job of this id, or all jobs of this key. An upload's name can look like a job id.
    async fn found(&self, asked: &str) -> Result<Vec<Found>, HistoryError> {
        let Self { store, arguments, .. } = *self;
        let job = asked.parse::<JobId>().ok();
        if let Some(job) = &job {
            let found = store.video(job, &|_: &Record| true).await?;
            if !matches!(found, Found::Nothing) {
                return Ok(vec![found]);
            }
        }
        let (bucket, key) = match asked.parse() {
            Ok(S3Uri { bucket, path }) => (Some(bucket), path),
            Err(_) => (arguments.settings.upload_bucket.clone(), asked.to_owned()),
        };
        match (bucket, key.parse()) {
            (Some(bucket), Ok(key)) => Ok(store.videos_of(&bucket, &key).await?),
            (None, Ok(_)) if job.is_none() => Err(HistoryError::NoUploadBucket(format::clean(asked))),
            _ => Ok(Vec::new()),
        }
    }
}

/// Order in which [`each`] passes records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// Reads records while others are still being listed.
    Any,
    /// Lists all records before it reads one.
    NewestFirst,
}

/// Reads the matching records that were written since a time. Counts each in `summary` and passes it to
/// `take`.
async fn each(
    store: &Store,
    since: Timestamp,
    order: Order,
    wanted: &impl Fn(&Record) -> bool,
    summary: &mut Summary,
    mut take: impl FnMut(Video, &ProgressDisplay) -> io::Result<()>,
) -> Result<(), HistoryError> {
    let progress = ProgressDisplay::new("records read", Some(0));
    // Without a limit, because a listing that waits for reads would exceed the time limit of its calls.
    let (listed, entries) = mpsc::unbounded();
    let list = async {
        let listed = listed;
        let mut pages = pin!(store.entries(since));
        while let Some(page) = pages.try_next().await? {
            progress.expect(page.len() as u64);
            for entry in page {
                // Fails only if reading has failed, which ends this future, too.
                let _ = listed.unbounded_send(entry);
            }
        }
        Ok(())
    };
    let read = async {
        let entries = match order {
            Order::Any => entries.left_stream(),
            Order::NewestFirst => {
                let mut entries: Vec<_> = entries.collect().await;
                entries.sort_unstable_by_key(|entry| Reverse(entry.written));
                stream::iter(entries).right_stream()
            }
        };
        let mut videos = pin!(store.videos(entries, wanted));
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
    };
    try_join!(list, read).map(drop)
}

fn json_line(video: &Video, out: &mut impl Write) -> io::Result<()> {
    serde_json::to_writer(&mut *out, video)?;
    writeln!(out)
}

#[cfg(test)]
mod tests;
