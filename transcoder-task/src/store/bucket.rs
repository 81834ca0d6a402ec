//! Where the output goes: a bucket or a folder, with the same names in both.

use std::{
    collections::HashMap,
    io::{self, Read},
    path::{Path, PathBuf},
};

use aws_sdk_s3::{
    Client, config,
    config::retry::RetryConfig,
    primitives::ByteStream,
    types::{CompletedMultipartUpload, CompletedPart},
};
use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;
use vidstreamx_job::{BucketName, Exit, hex_prefix};

use crate::store::s3::{READ, S3Error};

/// Size of a part of a large object; what is not larger is written at once. S3 takes parts from 5 MiB on.
const PART_BYTES: u64 = 16 << 20;
/// S3 takes no more parts than this for one object: for more than 156 GiB they must be larger.
const MOST_PARTS: u64 = 10_000;
/// Parts on their way at a time: enough to hide a round trip, few enough to bound memory.
const PARTS_AT_A_TIME: usize = 3;

/// Tells an object's content from every other that was written to its path: the ETag, or a hash of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Tag(String);

impl Tag {
    /// Of content that is not in S3.
    pub fn of(content: &[u8]) -> Self {
        Self::of_hash(Sha256::new_with_prefix(content))
    }

    /// Reads a file, however large, for its tag.
    fn of_file(path: &Path) -> io::Result<Self> {
        let mut file = std::fs::File::open(path)?;
        let (mut hash, mut buffer) = (Sha256::new(), vec![0; 1 << 16]);
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(Self::of_hash(hash)),
                bytes => hash.update(&buffer[..bytes]),
            }
        }
    }

    fn of_hash(hash: Sha256) -> Self {
        Self(hex_prefix(hash.finalize(), 16))
    }
}

/// A place for objects, addressed by their paths below it.
#[derive(Debug, Clone)]
pub enum Store {
    /// On this machine.
    Folder(PathBuf),
    /// In S3, below a prefix without a trailing slash (may be empty).
    Bucket {
        /// Authorised to write there.
        client: Client,
        /// The output bucket.
        bucket: BucketName,
        /// The stream's stem.
        prefix: String,
    },
}

/// What an object is, for its headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CachePolicy {
    /// A master or media playlist that will change.
    GrowingPlaylist,
    /// A media playlist that is final.
    FinalPlaylist,
    /// Something at the stable address, which a new upload may replace.
    Stable(&'static str),
    /// Media or an image below the job's id, which never changes.
    Immutable(&'static str),
}

/// Media type of HLS playlists (RFC 8216, section 4).
pub const PLAYLIST: &str = "application/vnd.apple.mpegurl";
/// Media type of reports.
pub const JSON: &str = "application/json";

impl CachePolicy {
    const fn content_type(self) -> &'static str {
        match self {
            Self::GrowingPlaylist | Self::FinalPlaylist => PLAYLIST,
            Self::Stable(content_type) | Self::Immutable(content_type) => content_type,
        }
    }

    const fn cache_control(self) -> &'static str {
        match self {
            Self::GrowingPlaylist => "public, max-age=1",
            // A growing version may sit in a cache for a second; the final one may stay.
            Self::FinalPlaylist | Self::Immutable(_) => "public, max-age=31536000, immutable",
            Self::Stable(_) => "public, max-age=10",
        }
    }
}

/// Why something could not be stored.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// In S3.
    #[error(transparent)]
    S3(#[from] S3Error),
    /// On this machine.
    #[error("cannot write {path}: {error}")]
    File {
        /// The file.
        path: String,
        /// What the system said.
        error: io::Error,
    },
}

impl StoreError {
    /// The exit code that tells the consumer what to do.
    pub fn exit(&self) -> Exit {
        match self {
            // A vanished output bucket is no obsolete source.
            Self::S3(S3Error::Gone { .. } | S3Error::Replaced { .. } | S3Error::Archived { .. }) => {
                Exit::Misconfigured
            }
            Self::S3(error) => error.exit(),
            Self::File { error, .. } => match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Exit::Transient,
                _ => Exit::Misconfigured,
            },
        }
    }
}

impl Store {
    /// Writes an object, whole or not at all. The tag tells its content from every other, and is what
    /// [`Store::tags`] says for as long as that is there.
    pub async fn put(&self, path: &str, kind: CachePolicy, content: Bytes) -> Result<Tag, StoreError> {
        match self {
            Self::Folder(folder) => {
                let file = folder.join(path);
                let partial = file.with_added_extension("partial");
                let write = async {
                    if let Some(parent) = file.parent() {
                        tokio::fs::create_dir_all(parent).await?;
                    }
                    tokio::fs::write(&partial, &content).await?;
                    tokio::fs::rename(&partial, &file).await
                };
                match write.await {
                    Ok(()) => Ok(Tag::of(&content)),
                    Err(error) => Err(StoreError::File { path: file.display().to_string(), error }),
                }
            }
            Self::Bucket { client, bucket, prefix } => {
                let key = join(prefix, path);
                let written = client
                    .put_object()
                    .bucket(bucket.as_str())
                    .key(&key)
                    .content_type(kind.content_type())
                    .cache_control(kind.cache_control())
                    .body(ByteStream::from(content))
                    .send()
                    .await
                    .map_err(|error| S3Error::new("write", format!("s3://{bucket}/{key}"), &error))?;
                Ok(Tag(written.e_tag.unwrap_or_default()))
            }
        }
    }

    /// Writes an object of `size` bytes as they come, whole or not at all.
    pub async fn put_stream<E: From<StoreError>>(
        &self,
        path: &str,
        kind: CachePolicy,
        size: u64,
        content: impl Stream<Item = Result<Bytes, E>>,
    ) -> Result<(), E> {
        match self {
            Self::Folder(folder) => {
                let file = folder.join(path);
                let partial = file.with_added_extension("partial");
                let written = write_file(&file, &partial, content).await;
                if written.is_err() {
                    // What stays behind is found by nobody.
                    let _ = tokio::fs::remove_file(&partial).await;
                }
                written
            }
            Self::Bucket { client, bucket, prefix } => {
                let part_bytes = part_bytes(size);
                let parts = parts(content, usize::try_from(part_bytes).unwrap_or(usize::MAX));
                if size <= part_bytes {
                    let whole = parts.try_collect::<Vec<_>>().await?.concat();
                    self.put(path, kind, whole.into()).await?;
                    return Ok(());
                }
                put_parts(client, bucket, &join(prefix, path), kind, parts).await
            }
        }
    }

    /// Reads a small object; `None` if there is none.
    pub async fn get(&self, path: &str) -> Result<Option<Bytes>, StoreError> {
        match self {
            Self::Folder(folder) => {
                let file = folder.join(path);
                match tokio::fs::read(&file).await {
                    Ok(content) => Ok(Some(content.into())),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                    Err(error) => Err(StoreError::File { path: file.display().to_string(), error }),
                }
            }
            Self::Bucket { client, bucket, prefix } => {
                let key = join(prefix, path);
                let uri = format!("s3://{bucket}/{key}");
                let object = match client.get_object().bucket(bucket.as_str()).key(&key).send().await {
                    Ok(object) => object,
                    Err(error) => {
                        return match S3Error::new(READ, uri, &error) {
                            S3Error::Gone { .. } => Ok(None),
                            error => Err(error.into()),
                        };
                    }
                };
                let content = object.body.collect().await.map_err(|error| S3Error::Trouble {
                    action: READ,
                    object: uri,
                    detail: error.to_string(),
                })?;
                Ok(Some(content.into_bytes()))
            }
        }
    }

    /// What is in a folder and the folders in it, by path: each with the tag that [`Store::put`] returned when it was
    /// written.
    pub async fn tags(&self, folder: &str) -> Result<HashMap<String, Tag>, StoreError> {
        match self {
            Self::Folder(root) => {
                let (root, folder) = (root.clone(), folder.to_owned());
                let read = tokio::task::spawn_blocking(move || tags_of_files(&root, &folder));
                read.await.unwrap_or_else(|panic| {
                    Err(StoreError::File { path: String::new(), error: panic.into() })
                })
            }
            Self::Bucket { client, bucket, prefix } => {
                let whole = format!("{}/", join(prefix, folder));
                let mut pages =
                    client.list_objects_v2().bucket(bucket.as_str()).prefix(&whole).into_paginator().send();
                let mut tags = HashMap::new();
                while let Some(page) = pages.next().await {
                    let page =
                        page.map_err(|error| S3Error::new("list", format!("s3://{bucket}/{whole}"), &error))?;
                    for object in page.contents.unwrap_or_default() {
                        if let (Some(key), Some(tag)) = (object.key, object.e_tag)
                            && let Some(path) = key.strip_prefix(&whole)
                        {
                            tags.insert(format!("{folder}/{path}"), Tag(tag));
                        }
                    }
                }
                Ok(tags)
            }
        }
    }

    /// Removes an object; one that is not there is no error.
    pub async fn delete(&self, path: &str) -> Result<(), StoreError> {
        match self {
            Self::Folder(folder) => {
                let file = folder.join(path);
                match tokio::fs::remove_file(&file).await {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        Err(StoreError::File { path: file.display().to_string(), error })
                    }
                    _ => Ok(()),
                }
            }
            Self::Bucket { client, bucket, prefix } => {
                let key = join(prefix, path);
                client
                    .delete_object()
                    .bucket(bucket.as_str())
                    .key(&key)
                    .send()
                    .await
                    .map_err(|error| S3Error::new("delete", format!("s3://{bucket}/{key}"), &error))?;
                Ok(())
            }
        }
    }

    /// Where an object is, for people.
    pub fn locate(&self, path: &str) -> String {
        match self {
            Self::Folder(folder) => folder.join(path).display().to_string(),
            Self::Bucket { bucket, prefix, .. } => format!("s3://{bucket}/{}", join(prefix, path)),
        }
    }
}

/// An object in S3 that is written again and again and soon out of date.
#[derive(Debug, Clone)]
pub struct StatusObject {
    /// Authorised to write there.
    pub client: Client,
    /// The output bucket.
    pub bucket: BucketName,
    /// The whole key.
    pub key: String,
}

impl StatusObject {
    /// Writes it, in one attempt: the next write is the retry. The client's retries have a common budget, which is for
    /// the stream.
    pub async fn put(&self, json: Bytes) -> Result<(), S3Error> {
        let once = config::Builder::new().retry_config(RetryConfig::disabled());
        self.client
            .put_object()
            .bucket(self.bucket.as_str())
            .key(&self.key)
            .content_type(JSON)
            .cache_control("no-cache")
            .body(ByteStream::from(json))
            .customize()
            .config_override(once)
            .send()
            .await
            .map_err(|error| S3Error::new("write", format!("s3://{}/{}", self.bucket, self.key), &error))?;
        Ok(())
    }
}

/// Writes a large object, if all of its parts come.
async fn put_parts<E: From<StoreError>>(
    client: &Client,
    bucket: &BucketName,
    key: &str,
    kind: CachePolicy,
    parts: impl Stream<Item = Result<Bytes, E>>,
) -> Result<(), E> {
    let upload = Upload::begin(client, bucket, key, kind).await?;
    let written = async { Ok(upload.complete(upload.send(parts).await?).await?) }.await;
    if written.is_err() {
        upload.abort().await;
    }
    written
}

/// A large object on its way in parts, which nobody sees before it is complete. One that is neither completed nor
/// aborted, because the task was killed, is for the bucket's lifecycle rule to remove.
struct Upload<'a> {
    client: &'a Client,
    bucket: &'a BucketName,
    key: &'a str,
    id: String,
}

impl<'a> Upload<'a> {
    async fn begin(
        client: &'a Client,
        bucket: &'a BucketName,
        key: &'a str,
        kind: CachePolicy,
    ) -> Result<Self, StoreError> {
        let mut upload = Self { client, bucket, key, id: String::new() };
        let created = client
            .create_multipart_upload()
            .bucket(bucket.as_str())
            .key(key)
            .content_type(kind.content_type())
            .cache_control(kind.cache_control())
            .send()
            .await
            .map_err(|error| S3Error::new("write", upload.uri(), &error))?;
        upload.id = created.upload_id.unwrap_or_default();
        Ok(upload)
    }

    fn uri(&self) -> String {
        format!("s3://{}/{}", self.bucket, self.key)
    }

    async fn send<E: From<StoreError>>(
        &self,
        parts: impl Stream<Item = Result<Bytes, E>>,
    ) -> Result<Vec<CompletedPart>, E> {
        parts
            .zip(stream::iter(1..))
            .map(|(part, number)| Ok(self.send_part(number, part?)))
            .try_buffered(PARTS_AT_A_TIME)
            .try_collect()
            .await
    }

    async fn send_part<E: From<StoreError>>(&self, number: i32, content: Bytes) -> Result<CompletedPart, E> {
        let sent = self
            .client
            .upload_part()
            .bucket(self.bucket.as_str())
            .key(self.key)
            .upload_id(&self.id)
            .part_number(number)
            .body(ByteStream::from(content))
            .send()
            .await
            .map_err(|error| StoreError::from(S3Error::new("write", self.uri(), &error)))?;
        // The SDK gives every part a checksum, and S3 wants it again in the end.
        Ok(CompletedPart::builder()
            .part_number(number)
            .set_e_tag(sent.e_tag)
            .set_checksum_crc32(sent.checksum_crc32)
            .build())
    }

    async fn complete(&self, parts: Vec<CompletedPart>) -> Result<(), StoreError> {
        self.client
            .complete_multipart_upload()
            .bucket(self.bucket.as_str())
            .key(self.key)
            .upload_id(&self.id)
            .multipart_upload(CompletedMultipartUpload::builder().set_parts(Some(parts)).build())
            .send()
            .await
            .map_err(|error| S3Error::new("write", self.uri(), &error))?;
        Ok(())
    }

    /// The error to report is the one that led here.
    async fn abort(&self) {
        let aborted = self
            .client
            .abort_multipart_upload()
            .bucket(self.bucket.as_str())
            .key(self.key)
            .upload_id(&self.id)
            .send()
            .await;
        if let Err(error) = aborted {
            let error = S3Error::new("abort the upload of", self.uri(), &error);
            tracing::warn!("{error}; its parts stay until the bucket's lifecycle rule removes them");
        }
    }
}

/// Size of the parts of an object.
fn part_bytes(size: u64) -> u64 {
    size.div_ceil(MOST_PARTS).max(PART_BYTES)
}

/// The content in parts of one size; only the last one may be smaller.
fn parts<E>(
    content: impl Stream<Item = Result<Bytes, E>>,
    part_bytes: usize,
) -> impl Stream<Item = Result<Bytes, E>> {
    let state = (Box::pin(content.fuse()), BytesMut::new());
    stream::try_unfold(state, move |(mut content, mut filling)| async move {
        while filling.len() < part_bytes {
            match content.try_next().await? {
                Some(bytes) => filling.extend_from_slice(&bytes),
                None => break,
            }
        }
        if filling.is_empty() {
            return Ok(None);
        }
        let part = filling.split_to(filling.len().min(part_bytes)).freeze();
        Ok(Some((part, (content, filling))))
    })
}

fn tags_of_files(root: &Path, folder: &str) -> Result<HashMap<String, Tag>, StoreError> {
    let mut tags = HashMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let path = root.join(&folder);
        let failed = |error| StoreError::File { path: path.display().to_string(), error };
        let entries = match std::fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(failed(error)),
        };
        for entry in entries {
            let entry = entry.map_err(failed)?;
            // Names of ours are text.
            let Ok(name) = entry.file_name().into_string() else { continue };
            let inner = format!("{folder}/{name}");
            let kind = entry.file_type().map_err(failed)?;
            if kind.is_dir() {
                folders.push(inner);
            } else if kind.is_file() {
                tags.insert(inner, Tag::of_file(&entry.path()).map_err(failed)?);
            }
        }
    }
    Ok(tags)
}

/// Writes the content into the partial file, which then becomes the file.
async fn write_file<E: From<StoreError>>(
    file: &Path,
    partial: &Path,
    content: impl Stream<Item = Result<Bytes, E>>,
) -> Result<(), E> {
    let failed = |error| StoreError::File { path: file.display().to_string(), error };
    if let Some(parent) = file.parent() {
        tokio::fs::create_dir_all(parent).await.map_err(failed)?;
    }
    let mut writer = tokio::fs::File::create(partial).await.map_err(failed)?;
    let mut content = std::pin::pin!(content);
    while let Some(bytes) = content.try_next().await? {
        writer.write_all(&bytes).await.map_err(failed)?;
    }
    writer.flush().await.map_err(failed)?;
    Ok(tokio::fs::rename(partial, file).await.map_err(failed)?)
}

fn join(prefix: &str, path: &str) -> String {
    if prefix.is_empty() { path.to_owned() } else { format!("{prefix}/{path}") }
}

#[cfg(test)]
mod tests {
    use std::io;

    use aws_sdk_s3::operation::{
        abort_multipart_upload::AbortMultipartUploadOutput,
        complete_multipart_upload::{CompleteMultipartUploadError, CompleteMultipartUploadOutput},
        create_multipart_upload::CreateMultipartUploadOutput,
        list_objects_v2::ListObjectsV2Output,
        put_object::PutObjectOutput,
        upload_part::{UploadPartError, UploadPartOutput},
    };
    use aws_sdk_s3::types::Object;
    use aws_smithy_mocks::{Rule, RuleMode, mock, mock_client};
    use aws_smithy_types::error::ErrorMetadata;
    use proptest::prelude::*;

    use super::*;

    const MP4: CachePolicy = CachePolicy::Immutable("video/mp4");
    const PATH: &str = "mp4/1080p.mp4";

    fn bucket(rules: &[&Rule]) -> Store {
        Store::Bucket {
            client: mock_client!(aws_sdk_s3, RuleMode::MatchAny, rules),
            bucket: "streams".parse().unwrap(),
            prefix: "a.mp4".into(),
        }
    }

    /// `ab`, `cd`, `e`, and then perhaps an error.
    fn content(breaks: bool) -> impl Stream<Item = Result<Bytes, StoreError>> {
        let error =
            breaks.then(|| Err(StoreError::File { path: "x".into(), error: io::Error::other("torn") }));
        stream::iter(["ab", "cd", "e"].map(|part| Ok(part.into())).into_iter().chain(error))
    }

    async fn put_in_parts(rules: &[&Rule], breaks: bool) -> Result<(), StoreError> {
        let Store::Bucket { client, bucket, .. } = bucket(rules) else { unreachable!() };
        put_parts(&client, &bucket, "a.mp4/mp4/1080p.mp4", MP4, content(breaks)).await
    }

    fn begun() -> Rule {
        mock!(Client::create_multipart_upload)
            .match_requests(|request| {
                request.key() == Some("a.mp4/mp4/1080p.mp4")
                    && request.content_type() == Some("video/mp4")
                    && request.cache_control().is_some_and(|control| control.ends_with("immutable"))
            })
            .then_output(|| CreateMultipartUploadOutput::builder().upload_id("id").build())
    }

    fn part(number: i32, content: &'static str) -> Rule {
        mock!(Client::upload_part)
            .match_requests(move |request| {
                request.part_number() == Some(number)
                    && request.upload_id() == Some("id")
                    && request.body().bytes() == Some(content.as_bytes())
            })
            .then_output(move || UploadPartOutput::builder().e_tag(format!("etag {number}")).build())
    }

    fn completed() -> Rule {
        mock!(Client::complete_multipart_upload)
            .match_requests(|request| {
                let parts = request.multipart_upload().map(|upload| upload.parts()).unwrap_or_default();
                let parts = parts.iter().map(|part| (part.part_number(), part.e_tag()));
                parts.eq([(Some(1), Some("etag 1")), (Some(2), Some("etag 2")), (Some(3), Some("etag 3"))])
            })
            .then_output(|| CompleteMultipartUploadOutput::builder().build())
    }

    fn aborted() -> Rule {
        mock!(Client::abort_multipart_upload)
            .match_requests(|request| request.upload_id() == Some("id"))
            .then_output(|| AbortMultipartUploadOutput::builder().build())
    }

    #[tokio::test]
    async fn a_large_object_is_completed_from_its_parts_in_their_order() {
        let rules = [begun(), part(1, "ab"), part(2, "cd"), part(3, "e"), completed(), aborted()];
        put_in_parts(&rules.each_ref(), false).await.unwrap();
        assert_eq!(rules.map(|rule| rule.num_calls()), [1, 1, 1, 1, 1, 0]);
    }

    #[tokio::test]
    async fn a_large_object_whose_parts_content_or_completion_fails_is_aborted() {
        let denied = || ErrorMetadata::builder().code("AccessDenied").message("not yours").build();
        let no_part = mock!(Client::upload_part).then_error(move || UploadPartError::generic(denied()));
        let rules = [begun(), no_part, completed(), aborted()];
        let error = put_in_parts(&rules.each_ref(), false).await.unwrap_err();
        let expected = "may not write s3://streams/a.mp4/mp4/1080p.mp4: AccessDenied: not yours";
        assert_eq!((error.to_string().as_str(), error.exit()), (expected, Exit::Misconfigured));
        let [.., completions, aborts] = rules.map(|rule| rule.num_calls());
        assert_eq!((completions, aborts), (0, 1));

        let rules = [begun(), part(1, "ab"), part(2, "cd"), part(3, "e"), completed(), aborted()];
        let error = put_in_parts(&rules.each_ref(), true).await.unwrap_err();
        assert!(error.to_string().contains("torn"), "{error}");
        let [.., completions, aborts] = rules.map(|rule| rule.num_calls());
        assert_eq!((completions, aborts), (0, 1));

        let no_end = mock!(Client::complete_multipart_upload)
            .then_error(move || CompleteMultipartUploadError::generic(denied()));
        let rules = [begun(), part(1, "ab"), part(2, "cd"), part(3, "e"), no_end, aborted()];
        let error = put_in_parts(&rules.each_ref(), false).await.unwrap_err();
        assert_eq!(error.to_string(), expected);
        assert_eq!(rules[5].num_calls(), 1);
    }

    #[tokio::test]
    async fn the_size_decides_whether_an_object_goes_at_once() {
        let whole = mock!(Client::put_object)
            .match_requests(|request| {
                request.key() == Some("a.mp4/mp4/1080p.mp4")
                    && request.content_type() == Some("video/mp4")
                    && request.body().bytes() == Some(b"abcde")
            })
            .then_output(|| PutObjectOutput::builder().build());
        let rules = [whole, begun(), aborted()];
        let store = bucket(&rules.each_ref());
        store.put_stream(PATH, MP4, PART_BYTES, content(false)).await.unwrap();
        assert_eq!(rules.each_ref().map(|rule| rule.num_calls()), [1, 0, 0]);
        assert!(store.put_stream(PATH, MP4, PART_BYTES + 1, content(true)).await.is_err());
        assert_eq!(rules.map(|rule| rule.num_calls()), [1, 1, 1]);
    }

    #[tokio::test]
    async fn what_is_soon_out_of_date_is_not_tried_again() {
        let busy = || {
            let after_two = mock!(Client::put_object).sequence().http_status(503, None).times(2);
            after_two.output(|| PutObjectOutput::builder().build()).build()
        };
        let others = busy();
        let store = bucket(&[&others]);
        store.put("job.json", CachePolicy::Stable(JSON), Bytes::new()).await.unwrap();
        assert_eq!(others.num_calls(), 3);

        let rule = busy();
        let Store::Bucket { client, bucket, .. } = bucket(&[&rule]) else { unreachable!() };
        let slot = StatusObject { client, bucket, key: ".vidstreamx/progress/1.json".into() };
        let error = slot.put(Bytes::new()).await.unwrap_err();
        let expected = "cannot write s3://streams/.vidstreamx/progress/1.json: ";
        assert!(error.to_string().starts_with(expected), "{error}");
        assert_eq!(rule.num_calls(), 1);
    }

    #[tokio::test]
    async fn what_is_in_a_folder_is_told_with_the_tags_it_was_written_with() {
        let object = |key: &str, tag: &str| Object::builder().key(key).e_tag(tag).build();
        let wrote =
            mock!(Client::put_object).then_output(|| PutObjectOutput::builder().e_tag("\"1\"").build());
        let first = mock!(Client::list_objects_v2)
            .match_requests(|request| {
                request.prefix() == Some("a.mp4/job/plan/") && request.continuation_token().is_none()
            })
            .then_output(move || {
                let page = ListObjectsV2Output::builder().is_truncated(true).next_continuation_token("more");
                page.contents(object("a.mp4/job/plan/video/1", "\"1\"")).build()
            });
        let second = mock!(Client::list_objects_v2)
            .match_requests(|request| request.continuation_token() == Some("more"))
            .then_output(move || {
                ListObjectsV2Output::builder().contents(object("a.mp4/job/plan/video/2", "\"2\"")).build()
            });
        let store = bucket(&[&wrote, &first, &second]);
        let tag = store.put("job/plan/video/1", MP4, Bytes::new()).await.unwrap();
        let tags = store.tags("job/plan").await.unwrap();
        assert_eq!((tags.len(), &tags["job/plan/video/1"]), (2, &tag));
        assert_ne!(tags["job/plan/video/2"], tag);
    }

    #[tokio::test]
    async fn files_have_tags_by_their_content_and_only_files() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::Folder(folder.path().to_owned());
        assert!(store.tags("job").await.unwrap().is_empty());
        let tag = store.put("job/video/1", MP4, "content".into()).await.unwrap();
        store.put("other/video/1", MP4, "content".into()).await.unwrap();
        // What never ends when it is read.
        std::os::unix::fs::symlink("/dev/zero", folder.path().join("job/link")).unwrap();
        assert_eq!(
            store.tags("job").await.unwrap(),
            HashMap::from([("job/video/1".to_owned(), tag.clone())])
        );
        std::fs::write(folder.path().join("job/video/1"), "changed").unwrap();
        assert_ne!(store.tags("job").await.unwrap()["job/video/1"], tag);
    }

    #[tokio::test]
    async fn a_file_is_there_when_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::Folder(folder.path().to_owned());
        assert!(store.put_stream(PATH, MP4, 5, content(true)).await.is_err());
        assert_eq!(std::fs::read_dir(folder.path().join("mp4")).unwrap().count(), 0);
        store.put_stream(PATH, MP4, 5, content(false)).await.unwrap();
        assert_eq!(store.get(PATH).await.unwrap().unwrap(), "abcde");
    }

    #[test]
    fn every_object_that_s3_takes_has_parts_that_s3_takes() {
        for size in [1, 17 << 20, 156 << 30, 157 << 30, 5 << 40] {
            let part = part_bytes(size);
            assert!((5 << 20..=5 << 30).contains(&part) && size.div_ceil(part) <= 10_000, "{size}");
        }
    }

    proptest! {
        #[test]
        fn parts_are_the_content_in_pieces_of_one_size(
            outputs in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..20),
            part_bytes in 1_usize..30,
        ) {
            let content = stream::iter(outputs.clone().into_iter().map(|piece| Ok::<_, ()>(piece.into())));
            let parts: Vec<Bytes> =
                futures::executor::block_on(parts(content, part_bytes).try_collect()).unwrap();
            prop_assert_eq!(parts.concat(), outputs.concat());
            if let Some((last, others)) = parts.split_last() {
                prop_assert!(others.iter().all(|part| part.len() == part_bytes));
                prop_assert!(!last.is_empty() && last.len() <= part_bytes);
            }
        }
    }
}
