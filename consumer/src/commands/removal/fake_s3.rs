//! Buckets with versioning, in memory, behind mocks of the SDK.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
};

use aws_sdk_s3::{
    Client,
    config::http::HttpResponse,
    operation::{
        delete_object::DeleteObjectOutput,
        delete_objects::{DeleteObjectsInput, DeleteObjectsOutput},
        get_object::{GetObjectInput, GetObjectOutput},
        list_object_versions::{ListObjectVersionsInput, ListObjectVersionsOutput},
        put_object::PutObjectOutput,
    },
    primitives::{ByteStream, DateTime, SdkBody},
    types::{CommonPrefix, DeleteMarkerEntry, EncodingType, Error, ObjectVersion},
};
use aws_smithy_mocks::{MockResponse, RuleMode, mock, mock_client};
use jiff::Timestamp;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use vidstreamx_job::{Layout, Record};

use super::kind::below_stem;

/// A version; without a content it is a delete marker.
#[derive(Debug, Clone)]
struct Entry {
    id: String,
    content: Option<Vec<u8>>,
    written: Timestamp,
}

type Key = (String, String);
/// Returns the error code of a version that must not be deleted.
type Refusal = Box<dyn Fn(&str) -> Option<&'static str> + Send>;

type Interference = Box<dyn FnOnce(&mut Writer<'_>) + Send>;

#[derive(Default)]
struct State {
    /// Versions by bucket and key, oldest first.
    objects: BTreeMap<Key, Vec<Entry>>,
    last_id: usize,
    deleted: Vec<String>,
    refuse: Option<Refusal>,
    /// Called after each deletion of a batch.
    interfere: Option<Interference>,
}

/// Writes objects.
pub(crate) struct Writer<'a>(&'a mut State);

impl Writer<'_> {
    pub(crate) fn put(&mut self, bucket: &str, key: &str, content: Option<&[u8]>, written: Timestamp) {
        self.0.last_id += 1;
        let entry =
            Entry { id: format!("v{}", self.0.last_id), content: content.map(<[u8]>::to_vec), written };
        self.0.objects.entry((bucket.to_owned(), key.to_owned())).or_default().push(entry);
    }
}

/// The buckets `uploads` and `streams`. Listings have pages of three entries.
#[derive(Clone, Default)]
pub(crate) struct FakeS3(Arc<Mutex<State>>);

const PAGE: usize = 3;

impl FakeS3 {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    pub(crate) fn put(&self, bucket: &str, key: &str, content: &str, written: Timestamp) {
        Writer(&mut self.state()).put(bucket, key, Some(content.as_bytes()), written);
    }

    /// Hides an object, as a plain deletion does.
    pub(crate) fn hide(&self, bucket: &str, key: &str, written: Timestamp) {
        Writer(&mut self.state()).put(bucket, key, None, written);
    }

    /// Removes all versions of an object.
    pub(crate) fn remove(&self, bucket: &str, key: &str) {
        self.state().objects.remove(&(bucket.to_owned(), key.to_owned()));
    }

    pub(crate) fn put_record(&self, record: &Record) {
        let json = serde_json::to_string(record).unwrap();
        self.put("streams", &Layout::record(&record.job_id), &json, record.updated_at);
    }

    /// Puts a stream of a job: a segment and the report.
    pub(crate) fn put_stream(&self, record: &Record, plan: &str) {
        let layout = Layout::new(&record.source.key, &record.job_id);
        for path in [format!("{plan}/video/720p/seg-00000.m4s"), "job.json".to_owned()] {
            self.put("streams", &layout.own(&path), "content", record.updated_at);
        }
    }

    /// Puts playlist and manifest at the stable address, which point to a plan of the job.
    pub(crate) fn show(&self, record: &Record, plan: &str) {
        let layout = Layout::new(&record.source.key, &record.job_id);
        for name in ["master.m3u8", "manifest.mpd"] {
            let text = format!("{}/{plan}/video/720p/index.m3u8", record.job_id);
            self.put("streams", &layout.stable(name), &text, record.updated_at);
        }
    }

    pub(crate) fn refuse(&self, refuse: impl Fn(&str) -> Option<&'static str> + Send + 'static) {
        self.state().refuse = Some(Box::new(refuse));
    }

    /// Writes objects after the first batch is deleted.
    pub(crate) fn interfere(&self, write: impl FnOnce(&mut Writer<'_>) + Send + 'static) {
        self.state().interfere = Some(Box::new(write));
    }

    /// `bucket/key` of all objects of which a version is left.
    pub(crate) fn keys(&self) -> BTreeSet<String> {
        self.state().objects.keys().map(|(bucket, key)| format!("{bucket}/{key}")).collect()
    }

    /// The current content of an object.
    pub(crate) fn text(&self, bucket: &str, key: &str) -> Option<String> {
        let state = self.state();
        let newest = state.objects.get(&(bucket.to_owned(), key.to_owned()))?.last()?;
        newest.content.clone().map(|content| String::from_utf8(content).unwrap())
    }

    /// The keys of deleted versions, in the order of deletion.
    pub(crate) fn deleted(&self) -> Vec<String> {
        self.state().deleted.clone()
    }

    /// Whether an object of the output bucket belongs to the stem.
    pub(crate) fn holds_objects_of(&self, stem: &str) -> bool {
        self.keys()
            .iter()
            .any(|key| key.strip_prefix("streams/").is_some_and(|key| below_stem(stem, key).is_some()))
    }

    pub(crate) fn client(&self) -> Client {
        let fake = || self.clone();
        let (lists, gets, batches, single) = (fake(), fake(), fake(), fake());
        let list = mock!(Client::list_object_versions).then_compute_output(move |input| lists.list(input));
        let get = mock!(Client::get_object).then_compute_response(move |input| match gets.get(input) {
            Some(output) => MockResponse::Output(output),
            None => MockResponse::Http(HttpResponse::new(404.try_into().unwrap(), SdkBody::empty())),
        });
        let batch = mock!(Client::delete_objects).then_compute_output(move |input| batches.delete(input));
        let one = mock!(Client::delete_object).then_compute_output(move |input| {
            let (bucket, key) = (input.bucket().unwrap_or_default(), input.key().unwrap_or_default());
            match input.version_id() {
                Some(id) => single.delete_version(bucket, key, id),
                None => single.hide(bucket, key, Timestamp::UNIX_EPOCH),
            }
            DeleteObjectOutput::builder().build()
        });
        let puts = fake();
        let put = mock!(Client::put_object).then_compute_output(move |input| {
            let text = std::str::from_utf8(input.body().bytes().unwrap()).unwrap();
            puts.put(input.bucket().unwrap(), input.key().unwrap(), text, Timestamp::UNIX_EPOCH);
            PutObjectOutput::builder().build()
        });
        mock_client!(aws_sdk_s3, RuleMode::MatchAny, [&list, &get, &batch, &one, &put])
    }

    fn list(&self, input: &ListObjectVersionsInput) -> ListObjectVersionsOutput {
        let state = self.state();
        let prefix = input.prefix().unwrap_or_default();
        let marker = input.key_marker().unwrap_or_default();
        assert_eq!(input.encoding_type(), Some(&EncodingType::Url));
        let encode = |key: &str| utf8_percent_encode(key, NON_ALPHANUMERIC).to_string();
        let mut output = ListObjectVersionsOutput::builder().encoding_type(EncodingType::Url);
        let (mut count, mut last, mut folders) = (0, None, BTreeSet::new());
        for ((bucket, key), versions) in &state.objects {
            let Some(rest) = key.strip_prefix(prefix).filter(|_| Some(bucket.as_str()) == input.bucket())
            else {
                continue;
            };
            if let Some((part, _)) = rest.split_once('/').filter(|_| input.delimiter().is_some()) {
                let folder = format!("{prefix}{part}/");
                if folder.as_str() > marker && folders.insert(folder.clone()) {
                    if count == PAGE {
                        return truncated(output, last, encode);
                    }
                    output = output.common_prefixes(CommonPrefix::builder().prefix(encode(&folder)).build());
                    (count, last) = (count + 1, Some((folder, None)));
                }
                continue;
            }
            let mut is_after = key.as_str() > marker;
            for (age, entry) in versions.iter().rev().enumerate() {
                if !is_after {
                    is_after = key == marker && input.version_id_marker() == Some(&entry.id);
                    continue;
                }
                if count == PAGE {
                    return truncated(output, last, encode);
                }
                let written = DateTime::from_nanos(entry.written.as_nanosecond()).unwrap();
                output = match &entry.content {
                    Some(content) => output.versions(
                        ObjectVersion::builder()
                            .key(encode(key))
                            .version_id(&entry.id)
                            .size(content.len().try_into().unwrap())
                            .last_modified(written)
                            .is_latest(age == 0)
                            .build(),
                    ),
                    None => output.delete_markers(
                        DeleteMarkerEntry::builder()
                            .key(encode(key))
                            .version_id(&entry.id)
                            .last_modified(written)
                            .is_latest(age == 0)
                            .build(),
                    ),
                };
                (count, last) = (count + 1, Some((key.clone(), Some(entry.id.clone()))));
            }
        }
        output.is_truncated(false).build()
    }

    fn get(&self, input: &GetObjectInput) -> Option<GetObjectOutput> {
        let state = self.state();
        let key = (input.bucket()?.to_owned(), input.key()?.to_owned());
        let versions = state.objects.get(&key)?;
        let entry = match input.version_id() {
            Some(id) => versions.iter().find(|entry| entry.id == id)?,
            None => versions.last()?,
        };
        let content = entry.content.clone()?;
        let etag = format!("\"{}\"", entry.id);
        Some(GetObjectOutput::builder().e_tag(etag).body(ByteStream::from(content)).build())
    }

    fn delete(&self, input: &DeleteObjectsInput) -> DeleteObjectsOutput {
        let mut output = DeleteObjectsOutput::builder();
        for object in input.delete().map(|delete| delete.objects()).unwrap_or_default() {
            let code = self.state().refuse.as_ref().and_then(|refuse| refuse(object.key()));
            if let Some(code) = code {
                output = output.errors(
                    Error::builder()
                        .key(object.key())
                        .set_version_id(object.version_id().map(str::to_owned))
                        .code(code)
                        .build(),
                );
                continue;
            }
            self.delete_version(
                input.bucket().unwrap_or_default(),
                object.key(),
                object.version_id().unwrap_or_default(),
            );
        }
        let interfere = self.state().interfere.take();
        if let Some(write) = interfere {
            write(&mut Writer(&mut self.state()));
        }
        output.build()
    }

    fn delete_version(&self, bucket: &str, key: &str, id: &str) {
        let mut state = self.state();
        state.deleted.push(key.to_owned());
        let place = (bucket.to_owned(), key.to_owned());
        if let Some(versions) = state.objects.get_mut(&place) {
            versions.retain(|entry| entry.id != id);
            if versions.is_empty() {
                state.objects.remove(&place);
            }
        }
    }
}

fn truncated(
    output: aws_sdk_s3::operation::list_object_versions::builders::ListObjectVersionsOutputBuilder,
    last: Option<(String, Option<String>)>,
    encode: impl Fn(&str) -> String,
) -> ListObjectVersionsOutput {
    let (key, version) = last.unwrap_or_default();
    output.is_truncated(true).next_key_marker(encode(&key)).set_next_version_id_marker(version).build()
}
