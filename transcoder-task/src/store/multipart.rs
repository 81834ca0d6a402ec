//! Uploads of large objects in parts.

use aws_sdk_s3::{
    primitives::ByteStream,
    types::{CompletedMultipartUpload, CompletedPart},
};
use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt, TryStreamExt, stream};

use super::{
    bucket::Bucket,
    cache_policy::CachePolicy,
    error::StoreError,
    s3::{S3Error, WRITE},
};

/// Least part size. Smaller objects are written by one request. S3 requires at least 5 MiB per part.
pub(super) const PART_BYTES: u64 = 16 << 20;
/// S3's limit of parts per object. Objects over 156 GiB need larger parts.
const MAX_PARTS: u64 = 10_000;
/// Parts in flight: enough to hide a round trip, few enough to bound memory.
const CONCURRENT_PARTS: usize = 3;

/// The part size for an object of `size` bytes.
#[must_use]
pub(super) fn part_bytes(size: u64) -> u64 {
    size.div_ceil(MAX_PARTS).max(PART_BYTES)
}

/// Splits content into parts of `part_bytes`; only the last one may be smaller.
pub(super) fn parts<E>(
    content: impl Stream<Item = Result<Bytes, E>>,
    part_bytes: usize,
) -> impl Stream<Item = Result<Bytes, E>> {
    let state = (Box::pin(content.fuse()), BytesMut::new());
    stream::try_unfold(state, move |(mut content, mut buffer)| async move {
        while buffer.len() < part_bytes {
            match content.try_next().await? {
                Some(bytes) => buffer.extend_from_slice(&bytes),
                None => break,
            }
        }
        if buffer.is_empty() {
            return Ok(None);
        }
        let part = buffer.split_to(buffer.len().min(part_bytes)).freeze();
        Ok(Some((part, (content, buffer))))
    })
}

/// Writes an object of `size` bytes while its content arrives: by one request if it fits into a part, else in
/// parts.
///
/// # Errors
/// The content or S3 fails.
pub(super) async fn put_stream<E: From<StoreError>>(
    bucket: &Bucket,
    path: &str,
    policy: CachePolicy,
    size: u64,
    content: impl Stream<Item = Result<Bytes, E>>,
) -> Result<(), E> {
    let part_bytes = part_bytes(size);
    let parts = parts(content, usize::try_from(part_bytes).unwrap_or(usize::MAX));
    if size <= part_bytes {
        let whole = parts.try_collect::<Vec<_>>().await?.concat();
        bucket.put(path, policy, whole.into()).await?;
        return Ok(());
    }
    put_parts(bucket, path, policy, parts).await
}

/// Writes a large object. If the content ends with an error, the upload is aborted.
///
/// # Errors
/// The content or S3 fails.
pub(super) async fn put_parts<E: From<StoreError>>(
    bucket: &Bucket,
    path: &str,
    policy: CachePolicy,
    parts: impl Stream<Item = Result<Bytes, E>>,
) -> Result<(), E> {
    let upload = Upload::create(bucket, path, policy).await?;
    let written = async { Ok(upload.complete(upload.send(parts).await?).await?) }.await;
    if written.is_err() {
        upload.abort().await;
    }
    written
}

/// A multipart upload, invisible to readers until it is complete. If the task is killed, the bucket's
/// lifecycle rule removes the parts.
struct Upload<'a> {
    bucket: &'a Bucket,
    key: String,
    id: String,
}

impl<'a> Upload<'a> {
    async fn create(bucket: &'a Bucket, path: &str, policy: CachePolicy) -> Result<Self, StoreError> {
        let key = bucket.key(path);
        let created = bucket
            .client
            .create_multipart_upload()
            .bucket(bucket.name.as_str())
            .key(&key)
            .content_type(policy.content_type())
            .cache_control(policy.cache_control())
            .send()
            .await
            .map_err(|error| S3Error::new(WRITE, bucket.uri(&key), &error))?;
        Ok(Self { bucket, key, id: created.upload_id.unwrap_or_default() })
    }

    fn uri(&self) -> String {
        self.bucket.uri(&self.key)
    }

    async fn send<E: From<StoreError>>(
        &self,
        parts: impl Stream<Item = Result<Bytes, E>>,
    ) -> Result<Vec<CompletedPart>, E> {
        parts
            .zip(stream::iter(1..))
            .map(|(part, number)| Ok(self.send_part(number, part?)))
            .try_buffered(CONCURRENT_PARTS)
            .try_collect()
            .await
    }

    async fn send_part<E: From<StoreError>>(&self, number: i32, content: Bytes) -> Result<CompletedPart, E> {
        let sent = self
            .bucket
            .client
            .upload_part()
            .bucket(self.bucket.name.as_str())
            .key(&self.key)
            .upload_id(&self.id)
            .part_number(number)
            .body(ByteStream::from(content))
            .send()
            .await
            .map_err(|error| StoreError::from(S3Error::new(WRITE, self.uri(), &error)))?;
        // The SDK adds a checksum to each part, and S3 requires it again to complete the upload.
        Ok(CompletedPart::builder()
            .part_number(number)
            .set_e_tag(sent.e_tag)
            .set_checksum_crc32(sent.checksum_crc32)
            .build())
    }

    async fn complete(&self, parts: Vec<CompletedPart>) -> Result<(), StoreError> {
        self.bucket
            .client
            .complete_multipart_upload()
            .bucket(self.bucket.name.as_str())
            .key(&self.key)
            .upload_id(&self.id)
            .multipart_upload(CompletedMultipartUpload::builder().set_parts(Some(parts)).build())
            .send()
            .await
            .map_err(|error| S3Error::new(WRITE, self.uri(), &error))?;
        Ok(())
    }

    /// Aborts the upload, and only logs a failure: the caller reports the error that ended the upload.
    async fn abort(&self) {
        let aborted = self
            .bucket
            .client
            .abort_multipart_upload()
            .bucket(self.bucket.name.as_str())
            .key(&self.key)
            .upload_id(&self.id)
            .send()
            .await;
        if let Err(error) = aborted {
            let error = S3Error::new("abort the upload of", self.uri(), &error);
            tracing::warn!("{error}; the bucket's lifecycle rule will remove the parts");
        }
    }
}
