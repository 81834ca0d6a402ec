//! The uploaded objects, and the records and reports in the output bucket.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;
use tokio::time::Instant;
use vidstreamx_consumer::{
    aws::{
        error::CallError,
        record_store::{LoadError, Pause, SaveError, Stored},
    },
    inspect::{Inspection, MediaFacts, Presence},
};
use vidstreamx_job::{Job, JobId, Layout, Outcome, Record, Report, Source, Timings};

use super::{FakeAws, epoch};

#[derive(Default)]
pub(super) struct State {
    /// Each record with its ETag.
    records: HashMap<JobId, (Record, u64)>,
    deleted: HashSet<String>,
    /// The current ETag of each key that was uploaded again with other content.
    contents: HashMap<String, String>,
    /// The keys whose HeadObject always fails.
    unreadable: HashSet<String>,
    not_videos: HashSet<String>,
    /// The keys of videos in 4K, which get larger tasks.
    pub(super) large: HashSet<String>,
    /// The operator's pause.
    pause: Option<Pause>,
    /// Number of reads of uploads that are still to fail.
    failing_reads: usize,
}

impl State {
    pub(super) fn delete(&mut self, key: &str) {
        self.deleted.insert(key.to_owned());
    }
}

impl FakeAws {
    pub(crate) fn delete_object(&self, key: &str) {
        self.state().objects.delete(key);
    }

    pub(crate) fn upload_object(&self, key: &str) {
        self.state().objects.deleted.remove(key);
    }

    /// Uploads other content under a key.
    pub(crate) fn upload_content(&self, key: &str, etag: &str) {
        self.upload_object(key);
        self.state().objects.contents.insert(key.to_owned(), etag.to_owned());
    }

    /// Makes every HeadObject of this key fail.
    pub(crate) fn fail_reads_of(&self, key: &str) {
        self.state().objects.unreadable.insert(key.to_owned());
    }

    /// Answers about all keys again.
    pub(crate) fn answer_reads(&self) {
        self.state().objects.unreadable.clear();
    }

    /// Uploads an object whose first bytes show that it is not a video.
    pub(crate) fn upload_text(&self, key: &str) {
        self.state().objects.not_videos.insert(key.to_owned());
    }

    /// Makes the next `times` reads of uploads fail.
    pub(crate) fn fail_reads(&self, times: usize) {
        self.state().objects.failing_reads = times;
    }

    /// Pauses the stack, or resumes it.
    pub(crate) fn set_pause(&self, reason: Option<&str>) {
        let pause = reason.map(|reason| Pause { since: epoch(), reason: reason.to_owned() });
        self.state().objects.pause = pause;
    }

    pub(super) fn pause(&self) -> Option<Pause> {
        self.state().objects.pause.clone()
    }

    pub(crate) fn delete_record(&self, key: &str) {
        self.state().objects.records.retain(|_, (record, _)| record.source.key.as_str() != key);
    }

    pub(crate) fn put_record(&self, record: Record) {
        self.state().objects.records.insert(record.job_id.clone(), (record, 1));
    }

    pub(crate) fn all_records(&self) -> Vec<Record> {
        self.state().objects.records.values().map(|(record, _)| record.clone()).collect()
    }

    /// The only record of a source key.
    pub(crate) fn record(&self, key: &str) -> Record {
        let mut found = self.all_records();
        found.retain(|record| record.source.key.as_str() == key);
        assert_eq!(found.len(), 1, "records of {key}");
        found.remove(0)
    }

    pub(crate) fn records(&self) -> usize {
        self.state().objects.records.len()
    }

    pub(super) fn load(&self, job: &JobId) -> Result<Option<Stored>, LoadError> {
        let records = &self.state().objects.records;
        let Some((record, etag)) = records.get(job) else { return Ok(None) };
        let json = serde_json::to_vec(record).unwrap();
        let record = Record::parse(&json).map_err(|error| LoadError::Unreadable {
            bucket: "streams".parse().unwrap(),
            key: Layout::record(job),
            error,
        })?;
        Ok(Some(Stored { record, etag: etag.to_string() }))
    }

    pub(super) fn save(&self, record: &Record, replaced: Option<&str>) -> Result<String, SaveError> {
        let records = &mut self.state().objects.records;
        let stored = records.get(&record.job_id).map(|(_, etag)| *etag);
        if stored.map(|etag| etag.to_string()).as_deref() != replaced {
            return Err(SaveError::Conflict);
        }
        let etag = stored.unwrap_or_default() + 1;
        records.insert(record.job_id.clone(), (record.clone(), etag));
        Ok(etag.to_string())
    }

    /// The content of the key's latest complete stream, which the key's stable address shows.
    pub(crate) fn shown_content(&self, key: &str) -> Option<String> {
        let tasks = &self.state().tasks.tasks;
        let now = Instant::now();
        let of_key = tasks.values().filter(|task| task.job.source.key.as_str() == key);
        let done = of_key.filter(|task| task.script.succeeds() && task.ends_at() <= now);
        done.max_by_key(|task| task.ends_at())?.job.source.etag.clone()
    }

    /// The report of the job's latest task that has ended and left a report.
    pub(super) fn report(&self, job: &Job) -> Option<Report> {
        let tasks = &self.state().tasks.tasks;
        let now = Instant::now();
        let ended = tasks.values().filter(|task| task.job.id == job.id && task.ends_at() <= now);
        let reported =
            ended.filter_map(|task| Some((task.ends_at(), task.script.report?, &task.launch.token)));
        let (ended_at, outcome, token) = reported.max_by_key(|(ended_at, ..)| *ended_at)?;
        Some(Report {
            schema: Report::SCHEMA,
            job_id: job.id.clone(),
            launch: Some(token.clone()),
            outcome,
            reason: (outcome != Outcome::Complete).then(|| format!("the task says {outcome:?}")),
            source: None,
            folder: None,
            probe: None,
            renditions: Vec::new(),
            warnings: Vec::new(),
            timings: Timings {
                started_at: Timestamp::UNIX_EPOCH,
                finished_at: epoch() + (ended_at - self.start),
                probe_seconds: None,
                first_playable_seconds: None,
                encode_seconds: None,
                total_seconds: 1.0,
            },
        })
    }

    pub(super) fn presence(&self, source: &Source) -> Result<Presence, CallError> {
        let objects = &mut self.state().objects;
        if objects.failing_reads > 0 {
            objects.failing_reads -= 1;
            return Err(CallError::Passing { call: "HeadObject", reason: "SlowDown".into() });
        }
        let key = source.key.as_str();
        if objects.unreadable.contains(key) {
            return Err(CallError::Passing { call: "HeadObject", reason: "Internal Error".into() });
        }
        let is_other = |etag: &String| source.etag.as_ref() != Some(etag);
        Ok(if objects.deleted.contains(key) {
            Presence::Gone
        } else if objects.contents.get(key).is_some_and(is_other) {
            Presence::Replaced
        } else {
            Presence::Present
        })
    }

    pub(super) fn inspect(&self, source: &Source) -> Result<Inspection, CallError> {
        match self.presence(source)? {
            Presence::Gone => Ok(Inspection::Gone),
            Presence::Replaced => Ok(Inspection::Replaced),
            Presence::Present if self.state().objects.not_videos.contains(source.key.as_str()) => {
                Ok(Inspection::NotVideo("the file is text, not a video".to_owned()))
            }
            Presence::Present if self.state().objects.large.contains(source.key.as_str()) => {
                Ok(Inspection::Video(MediaFacts {
                    width: Some(3840),
                    height: Some(2160),
                    ..MediaFacts::default()
                }))
            }
            Presence::Present => Ok(Inspection::Video(MediaFacts::default())),
        }
    }
}
