//! The history of videos: a list, or one job with all its attempts.
//!
//! It reads the records in the output bucket, so it works anywhere, without a running consumer, and long
//! after ECS has forgotten the tasks.

pub(crate) mod list;
pub(crate) mod page;
pub(crate) mod read;
#[cfg(test)]
mod samples;
mod since;

use std::{
    cmp::Reverse,
    io::{self, Write},
};

use clap::{
    Args,
    builder::{NonEmptyStringValueParser, PossibleValuesParser, TypedValueParser},
};
use futures::StreamExt as _;
use jiff::Timestamp;
use tracing::warn;
use vidstreamx_job::{JobId, Record, S3Uri, Source, State};

pub(crate) use self::since::Since;
use self::{
    list::{Line, Summary},
    read::{Found, Store, Video},
};
use crate::{
    aws::error::CallError, commands::format, commands::progress::ProgressDisplay, config::HistorySettings,
};

/// The query.
#[derive(Debug, Clone, Args)]
pub(crate) struct Arguments {
    /// Show everything about this job (its id) or about all jobs of this upload (its key, or
    /// s3://BUCKET/KEY). A job id is one read; for a key, all records are read
    #[arg(value_name = "JOB ID | KEY", value_parser = NonEmptyStringValueParser::new())]
    pub job: Option<String>,

    /// Only records updated since: 90m, 24h, 7d, or a date in UTC such as 2026-05-04. Without it, a list
    /// covers 24h, and a job or upload is searched in all records
    #[arg(long, value_name = "WHEN")]
    pub since: Option<Since>,

    /// Only these states, separated by commas
    #[arg(long, value_delimiter = ',', conflicts_with = "job", value_parser = state())]
    pub state: Vec<State>,

    /// Only keys that contain this text
    #[arg(long, value_name = "TEXT", conflicts_with = "job", value_parser = NonEmptyStringValueParser::new())]
    pub key: Option<String>,

    /// Print one JSON object per line and video: the record, and the progress of running jobs
    #[arg(long)]
    pub json: bool,

    /// The output bucket.
    #[command(flatten)]
    pub settings: HistorySettings,
}

fn state() -> impl TypedValueParser<Value = State> {
    PossibleValuesParser::new(format::STATES.map(State::name))
        .map(|name| format::STATES.into_iter().find(|state| state.name() == name).unwrap_or(State::Running))
}

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
    /// The record is not readable for this version.
    #[error("{0}")]
    Unreadable(String),
    /// The output is closed.
    #[error(transparent)]
    Output(#[from] io::Error),
}

/// Prints the result, cut to a terminal's `width` if there is one.
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
        each(store, Some(since), &wanted, &mut summary, |video, waiting| {
            if arguments.json {
                waiting.aside(|| json_line(&video, out))
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

/// Reads and counts the matching records written since a time.
async fn each(
    store: &Store,
    since: Option<Timestamp>,
    wanted: &impl Fn(&Record) -> bool,
    summary: &mut Summary,
    mut take: impl FnMut(Video, &ProgressDisplay) -> io::Result<()>,
) -> Result<(), HistoryError> {
    let entries = store.entries(since).await?;
    let waiting = ProgressDisplay::new("records read", Some(entries.len() as u64));
    let mut videos = std::pin::pin!(store.videos(&entries, wanted));
    while let Some(found) = videos.next().await {
        waiting.step(1);
        match found? {
            Found::Video(video) => {
                summary.add(&video.record);
                take(*video, &waiting)?;
            }
            Found::Unreadable(why) => {
                summary.add_unreadable();
                waiting.aside(|| warn!("not shown: {why}"));
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
mod tests {
    use std::sync::{Arc, Mutex};

    use aws_sdk_s3::{
        Client,
        operation::{get_object::GetObjectOutput, list_objects_v2::ListObjectsV2Output},
        primitives::{ByteStream, DateTime},
        types::Object,
    };
    use aws_smithy_mocks::{Rule, RuleMode, mock, mock_client};
    use clap::Parser;
    use vidstreamx_job::Layout;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn arguments(words: &[&str]) -> Arguments {
        let line = ["history", "--output-bucket=streams"].iter().chain(words);
        Line::try_parse_from(line).unwrap().arguments
    }

    fn now() -> Timestamp {
        samples::NOW.parse().unwrap()
    }

    /// A listing of the sample videos, two a page, and of a record of the future.
    fn pages() -> Vec<ListObjectsV2Output> {
        let object = |key: String, written: Timestamp| {
            Object::builder()
                .key(key)
                .last_modified(DateTime::from_secs(written.as_second()))
                .size(900)
                .build()
        };
        let mut objects: Vec<_> = samples::videos()
            .iter()
            .map(|video| object(Layout::record(&video.record.job_id), video.record.updated_at))
            .collect();
        objects.push(object(format!(".vidstreamx/jobs/{}.json", "f".repeat(32)), now()));
        objects.push(object(".vidstreamx/jobs/stray.txt".to_owned(), now()));
        let last = objects.len() / 2 - 1;
        let page = |(index, objects): (usize, &[Object])| {
            ListObjectsV2Output::builder()
                .set_contents(Some(objects.to_vec()))
                .set_next_continuation_token((index < last).then(|| index.to_string()))
                .build()
        };
        objects.chunks(2).enumerate().map(page).collect()
    }

    /// Lists the sample videos page by page.
    fn listing() -> Vec<Rule> {
        let rule = |(index, page): (usize, ListObjectsV2Output)| {
            let token = index.checked_sub(1).map(|index| index.to_string());
            mock!(Client::list_objects_v2)
                .match_requests(move |list| {
                    list.prefix() == Some(".vidstreamx/jobs/")
                        && list.continuation_token() == token.as_deref()
                })
                .then_output(move || page.clone())
        };
        pages().into_iter().enumerate().map(rule).collect()
    }

    /// Answers with the sample videos' records, and notes what was asked for.
    fn objects(asked: &Arc<Mutex<Vec<String>>>) -> Vec<Rule> {
        let get = |key: String, json: Vec<u8>| {
            let (expected, asked) = (key.clone(), Arc::clone(asked));
            mock!(Client::get_object).match_requests(move |get| get.key() == Some(&*expected)).then_output(
                move || {
                    asked.lock().unwrap().push(key.clone());
                    GetObjectOutput::builder().body(ByteStream::from(json.clone())).build()
                },
            )
        };
        let mut rules = Vec::new();
        for video in samples::videos() {
            let id = &video.record.job_id;
            rules.push(get(Layout::record(id), serde_json::to_vec(&video.record).unwrap()));
            if let Some(progress) = video.progress {
                rules.push(get(Layout::progress(id), serde_json::to_vec(&progress).unwrap()));
            }
        }
        rules.push(get(format!(".vidstreamx/jobs/{}.json", "f".repeat(32)), b"{\"schema\":2}".to_vec()));
        rules.push(
            mock!(Client::get_object)
                .sequence()
                .http_status(404, Some("<Error><Code>NoSuchKey</Code></Error>".into()))
                .repeatedly()
                .build(),
        );
        rules
    }

    /// What is shown, how it ended, and which objects were read.
    async fn shown(words: &[&str]) -> (String, Result<(), String>, Vec<String>) {
        let asked = Arc::default();
        let rules: Vec<_> = listing().into_iter().chain(objects(&asked)).collect();
        let rules: Vec<_> = rules.iter().collect();
        let client = mock_client!(aws_sdk_s3, RuleMode::MatchAny, rules);
        let store = Store::new(client, "streams".parse().unwrap());
        let mut out = Vec::new();
        let result = show(&store, &arguments(words), now(), None, &mut out).await;
        let asked = asked.lock().unwrap().clone();
        (String::from_utf8(out).unwrap(), result.map_err(|error| error.to_string()), asked)
    }

    fn keys(json: &str) -> Vec<String> {
        let key = |line: &str| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            line["source"]["key"].as_str().unwrap().to_owned()
        };
        json.lines().map(key).collect()
    }

    #[tokio::test]
    async fn a_list_is_read_from_all_pages_and_says_what_could_not_be_read() {
        let (text, result, _) = shown(&[]).await;
        assert_eq!(result, Ok(()));
        insta::assert_snapshot!(text);
    }

    #[tokio::test]
    async fn records_that_were_written_before_are_not_even_read() {
        let (json, result, asked) = shown(&["--since=45m", "--json"]).await;
        assert_eq!(result, Ok(()));
        assert_eq!(keys(&json), ["d.mp4", "c.mp4", "b.mp4", "rubbish\u{1b}[2J.mp4"]);
        assert_eq!(asked.iter().filter(|key| key.contains("/jobs/")).count(), 5);
    }

    #[tokio::test]
    async fn a_list_can_be_narrowed_and_a_running_video_has_its_progress() {
        let (json, _, _) = shown(&["--state=running,failed", "--key=film", "--json"]).await;
        assert_eq!(keys(&json), ["a/very/long/key/with/many/parts/in/it/film.mp4"]);
        let (json, _, _) = shown(&["--state=running", "--key=b.mp4", "--json"]).await;
        let line: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(line["progress"]["share"], 0.434);
        assert_eq!(line["attempts"][0]["number"], 1);
    }

    #[tokio::test]
    async fn a_job_id_is_one_read_and_a_key_is_looked_for() {
        let video = &samples::videos()[0];
        let id = video.record.job_id.as_str();
        let (text, result, asked) = shown(&[id]).await;
        assert_eq!((result, asked), (Ok(()), vec![Layout::record(&video.record.job_id)]));
        let page = page::page(video, &"streams".parse().unwrap(), now());
        assert_eq!(text, page);
        assert_eq!(shown(&["films/summer holidays 2026.mp4"]).await.0, page);
        assert_eq!(shown(&["s3://uploads/films/summer holidays 2026.mp4"]).await.0, page);
    }

    #[tokio::test]
    async fn what_is_not_there_is_said_in_one_sentence() {
        let (text, result, _) = shown(&["no.mp4"]).await;
        let why = "there is no record of \"no.mp4\" in s3://streams; 1 record could not be read";
        assert_eq!((&*text, result), ("", Err(why.into())));
        let (_, result, _) = shown(&[&"f".repeat(32)]).await;
        assert!(result.unwrap_err().contains("schema version 2"));
    }

    #[tokio::test]
    async fn progress_of_an_earlier_attempt_is_not_this_ones() {
        let mut video = samples::videos().pop().unwrap();
        video.record.attempts[0].started_at = "2026-05-04T12:00:01Z".parse().unwrap();
        let (record, progress) =
            (serde_json::to_vec(&video.record).unwrap(), serde_json::to_vec(&video.progress).unwrap());
        let get = mock!(Client::get_object)
            .sequence()
            .output(move || GetObjectOutput::builder().body(ByteStream::from(record.clone())).build())
            .output(move || GetObjectOutput::builder().body(ByteStream::from(progress.clone())).build())
            .build();
        let client = mock_client!(aws_sdk_s3, RuleMode::Sequential, [&get]);
        let store = Store::new(client, "streams".parse().unwrap());
        let found = store.video(&video.record.job_id, &|_: &Record| true).await.unwrap();
        assert!(matches!(found, Found::Video(video) if video.progress.is_none()));
        assert_eq!(get.num_calls(), 2);
    }
}
