//! Lists the job records in S3: all of them, or those of one key. There is no index beside the records,
//! because an index costs calls for every video and can become wrong. Job ids take its place: they begin with
//! a hash of bucket and key, so the records of a key have a common prefix, and all records divide evenly by
//! their first digits.

use std::future::ready;

use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;
use tracing::warn;
use vidstreamx_job::{BucketName, JobId, Layout, ObjectKey};

use super::{
    error::CallError,
    record_store::{LoadError, RecordStore as _, S3RecordStore, Stored},
};

/// Number of parts of a listing that does not fit into a page: one per first two digits of the job ids. With
/// 100,000 records, each part fits into a page. 16 parts would take as many round trips as their pages.
const PARTS: u32 = 256;
/// Number of parts that are listed concurrently. The SDK needs about 7 µs to parse an entry, so at a latency
/// of 50 ms, more parts would only wait in memory, with half a megabyte each.
const CONCURRENT_PARTS: usize = 32;
/// Number of concurrent reads of the records of a key. Most keys have one or two.
const CONCURRENT_READS: usize = 8;

/// A record in the listing of the bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub job: JobId,
    /// Time of the last write by S3's clock, in full seconds.
    pub written: Timestamp,
    /// Size of the record in bytes.
    pub size: i64,
}

struct Page {
    entries: Vec<Entry>,
    /// Token of the next page; `None` on the last page.
    next: Option<String>,
}

impl S3RecordStore {
    /// Lists all records, one page per item. The order is not defined.
    ///
    /// If there is more than one page, the records are listed in parts, because S3 names the next page of a
    /// listing only in the page before it.
    pub(crate) fn entries(&self) -> impl Stream<Item = Result<Vec<Entry>, CallError>> + '_ {
        stream::once(self.page(String::new(), None))
            .map_ok(|first| {
                if first.next.is_none() {
                    return stream::once(ready(Ok(first.entries))).boxed();
                }
                let parts = (0..PARTS).map(|part| self.pages(format!("{part:02x}")).boxed());
                stream::iter(parts).flatten_unordered(CONCURRENT_PARTS).boxed()
            })
            .try_flatten()
    }

    /// Reads the records of all jobs of a key, in the order of their ids. An unreadable record is an item and
    /// does not end the stream.
    pub(crate) fn records_of<'a>(
        &'a self,
        bucket: &'a BucketName,
        key: &'a ObjectKey,
    ) -> impl Stream<Item = Result<Stored, LoadError>> + 'a {
        let read = move |entry: Entry| async move { self.load(&entry.job).await };
        self.pages(JobId::prefix(bucket, key))
            .map_err(LoadError::Call)
            .map_ok(move |page| stream::iter(page).map(read).buffered(CONCURRENT_READS))
            .try_flatten()
            // Another key can have the same prefix, and a record can be deleted after it was listed.
            .try_filter_map(move |stored| {
                let is_of_key = |Stored { record, .. }: &Stored| {
                    record.source.bucket == *bucket && record.source.key == *key
                };
                ready(Ok(stored.filter(is_of_key)))
            })
    }

    /// Lists the records of the jobs whose ids begin with these digits, page by page.
    fn pages(&self, digits: String) -> impl Stream<Item = Result<Vec<Entry>, CallError>> + '_ {
        stream::try_unfold(Some(None), move |token| {
            let digits = digits.clone();
            async move {
                let Some(token) = token else { return Ok(None) };
                let page = self.page(digits, token).await?;
                Ok(Some((page.entries, page.next.map(Some))))
            }
        })
    }

    async fn page(&self, digits: String, token: Option<String>) -> Result<Page, CallError> {
        let answer = self
            .client
            .list_objects_v2()
            .bucket(self.output.as_str())
            .prefix(Layout::records(&digits))
            .set_continuation_token(token)
            .send()
            .await
            .map_err(|error| CallError::new("ListObjectsV2", &error))?;
        let folder = Layout::records("");
        let entry = |object: &aws_sdk_s3::types::Object| {
            let key = object.key().unwrap_or_default();
            let name = key.strip_prefix(&folder).and_then(|name| name.strip_suffix(".json"));
            let Some(job) = name.and_then(|name| name.parse().ok()) else {
                warn!(key, "the object's name is not that of a record");
                return None;
            };
            let written = object
                .last_modified()
                .and_then(|at| Timestamp::from_nanosecond(at.as_nanos()).ok())
                .unwrap_or(Timestamp::MAX);
            Some(Entry { job, written, size: object.size().unwrap_or_default() })
        };
        Ok(Page {
            entries: answer.contents().iter().filter_map(entry).collect(),
            next: answer.next_continuation_token,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use aws_sdk_s3::{Client, operation::get_object::GetObjectOutput, primitives::ByteStream, types::Object};
    use aws_smithy_mocks::{Rule, RuleMode, mock, mock_client};
    use vidstreamx_job::{Record, Source};

    use super::*;
    use crate::fixtures::{job_of, listing, source};

    fn store(rules: &[&Rule]) -> S3RecordStore {
        S3RecordStore::new(mock_client!(aws_sdk_s3, RuleMode::MatchAny, rules), "streams".parse().unwrap())
    }

    fn object(job: &JobId) -> Object {
        Object::builder().key(Layout::record(job)).size(900).build()
    }

    fn job(key: &str, version: &str) -> JobId {
        job_of(Source { version_id: Some(version.into()), ..source(key) }).id
    }

    #[tokio::test]
    async fn a_listing_has_every_record_once_and_a_short_one_needs_one_call() {
        // 600 records fill more than one page of some of the 256 parts.
        for (count, fewest_calls) in [(0, 1), (2, 1), (3, 257), (600, 258)] {
            let mut jobs: Vec<_> = (0..count).map(|number| job(&number.to_string(), "1")).collect();
            jobs.sort_unstable();
            let rule = listing(jobs.iter().map(object).collect(), 2);
            let pages: Vec<_> = store(&[&rule]).entries().try_collect().await.unwrap();
            let mut listed: Vec<_> = pages.concat().into_iter().map(|entry| entry.job).collect();
            listed.sort_unstable();
            assert_eq!(listed, jobs, "{count} records");
            let calls = rule.num_calls();
            assert!(
                calls == fewest_calls || count == 600 && calls > fewest_calls,
                "{count} records: {calls}"
            );
        }
    }

    #[tokio::test]
    async fn other_objects_are_left_out() {
        let stray = Object::builder().key(".vidstreamx/jobs/stray.txt").build();
        let rule = listing(vec![stray, object(&job("a.mp4", "1"))], 2);
        let pages: Vec<_> = store(&[&rule]).entries().try_collect().await.unwrap();
        assert_eq!(pages.concat().len(), 1);
    }

    #[tokio::test]
    async fn a_failed_page_of_a_part_fails_the_listing() {
        let jobs: Vec<_> = (0..5).map(|number| object(&job(&number.to_string(), "1"))).collect();
        let list = listing(jobs, 2);
        let denied = mock!(Client::list_objects_v2)
            .match_requests(|list| list.prefix() == Some(".vidstreamx/jobs/ff"))
            .sequence()
            .http_status(403, Some("<Error><Code>AccessDenied</Code></Error>".into()))
            .repeatedly()
            .build();
        let pages: Result<Vec<_>, _> = store(&[&denied, &list]).entries().try_collect().await;
        assert!(pages.unwrap_err().is_configuration());
    }

    #[tokio::test]
    async fn the_records_of_a_key_are_those_with_its_prefix_and_its_name() {
        let get = |id: &JobId, json: Vec<u8>| {
            let key = Layout::record(id);
            mock!(Client::get_object)
                .match_requests(move |get| get.key() == Some(&*key))
                .then_output(move || GetObjectOutput::builder().body(ByteStream::from(json.clone())).build())
        };
        let record = |key: &str, version: &str| {
            let source = Source { version_id: Some(version.into()), ..source(key) };
            Record::new(&job_of(source), Timestamp::UNIX_EPOCH)
        };
        let json = |record: &Record| serde_json::to_vec(record).unwrap();
        let versions = ["1", "2", "3", "other", "unreadable", "deleted"];
        let [one, two, three, other, unreadable, deleted] = versions.map(|version| job("a.mp4", version));
        let missing = mock!(Client::get_object)
            .sequence()
            .http_status(404, Some("<Error><Code>NoSuchKey</Code></Error>".into()))
            .repeatedly()
            .build();
        let elsewhere = job("b.mp4", "1");
        let objects = [&one, &two, &three, &other, &unreadable, &deleted, &elsewhere].map(object);
        let rules = [
            listing(objects.into(), 2),
            get(&one, json(&record("a.mp4", "1"))),
            get(&two, json(&record("a.mp4", "2"))),
            get(&three, json(&record("a.mp4", "3"))),
            get(&other, json(&record("with the same prefix.mp4", "1"))),
            get(&unreadable, b"{\"schema\":2}".to_vec()),
            missing,
        ];
        let rules: Vec<_> = rules.iter().collect();
        let store = store(&rules);
        let (bucket, key) = ("uploads".parse().unwrap(), "a.mp4".parse().unwrap());
        let found: Vec<_> = store.records_of(&bucket, &key).collect().await;
        let (read, failed): (Vec<_>, Vec<_>) = found.into_iter().partition(Result::is_ok);
        let read: BTreeSet<_> = read.into_iter().map(|stored| stored.unwrap().record.job_id).collect();
        assert_eq!(read, BTreeSet::from([one, two, three]));
        assert!(matches!(&failed[..], [Err(LoadError::Unreadable { .. })]), "{failed:?}");
    }
}
