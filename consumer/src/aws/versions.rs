//! All versions of objects: listing and deleting.
//!
//! In a bucket with versioning, a plain deletion only hides an object. To remove its content, every version
//! must be deleted by its id. In a bucket without versioning, every object has one version, `null`, so the
//! same calls work there.

use std::time::Duration;

use aws_sdk_s3::{
    Client,
    primitives::DateTime,
    types::{Delete, EncodingType, ObjectIdentifier},
};
use backon::{BackoffBuilder as _, ExponentialBuilder};
use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;
use vidstreamx_job::BucketName;

use super::{
    error::CallError,
    keys::{decoded, fits_xml},
};

/// Maximum number of versions in one call. A page of a listing has as many.
const BATCH: usize = 1_000;
/// Number of concurrent calls that delete one version each.
const CONCURRENT_DELETES: usize = 32;
/// Maximum number of tries for a version that S3 refused for a temporary reason.
const TRIES: usize = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// Codes of temporary failures of single versions.
const TEMPORARY: [&str; 4] = ["InternalError", "OperationAborted", "ServiceUnavailable", "SlowDown"];
/// Codes for versions that do not exist: an earlier call deleted them, and its response was lost.
const GONE: [&str; 2] = ["NoSuchKey", "NoSuchVersion"];
const DENIED: &str = "AccessDenied";

/// A version of an object, or a delete marker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Version {
    pub key: String,
    pub id: Option<String>,
    /// Size of its content; `None` for a delete marker.
    pub bytes: Option<u64>,
    /// Time when it was written, by S3's clock.
    pub written: Timestamp,
    /// Whether it is what a read without a version id returns.
    pub is_latest: bool,
}

/// A page of a listing.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Page {
    pub versions: Vec<Version>,
    /// Prefixes that end in `/`, in a listing of direct children.
    pub folders: Vec<String>,
    /// Start of the next page; `None` on the last page.
    pub next: Option<Marker>,
}

/// The start of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Marker {
    key: String,
    version: Option<String>,
}

#[cfg(test)]
impl Marker {
    pub(crate) fn after(key: &str) -> Self {
        Self { key: key.to_owned(), version: None }
    }

    pub(crate) fn key(&self) -> &str {
        &self.key
    }
}

/// The keys to list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// All keys with the prefix.
    All,
    /// Keys without another `/` after the prefix. The others become folders.
    Children,
}

/// A version that S3 did not delete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    pub key: String,
    /// S3's code and message.
    pub reason: String,
    /// Whether a permission is missing, or the version is locked.
    pub is_denied: bool,
}

/// A bucket, with or without versioning.
#[derive(Debug, Clone)]
pub(crate) struct VersionedBucket {
    client: Client,
    name: BucketName,
}

impl VersionedBucket {
    #[must_use]
    pub(crate) const fn new(client: Client, name: BucketName) -> Self {
        Self { client, name }
    }

    #[must_use]
    pub(crate) const fn name(&self) -> &BucketName {
        &self.name
    }

    /// A page of a listing, in the order of keys; versions of one key newest first.
    ///
    /// # Errors
    /// The call failed.
    pub(crate) async fn page(
        &self,
        prefix: &str,
        scope: Scope,
        from: Option<Marker>,
    ) -> Result<Page, CallError> {
        let call = "ListObjectVersions";
        let (key, version) = from.map_or((None, None), |marker| (Some(marker.key), marker.version));
        let answer = self
            .client
            .list_object_versions()
            .bucket(self.name.as_str())
            .prefix(prefix)
            .set_delimiter((scope == Scope::Children).then(|| "/".to_owned()))
            .encoding_type(EncodingType::Url)
            .set_key_marker(key)
            .set_version_id_marker(version)
            .send()
            .await
            .map_err(|error| CallError::new(call, &error))?;
        let encoding = answer.encoding_type.clone();
        let key = |key: Option<&str>| {
            let key = key.unwrap_or_default();
            decoded(key, encoding.as_ref())
                .ok_or_else(|| CallError::Passing { call, reason: format!("\"{key}\" is not UTF-8") })
        };
        let mut versions = Vec::new();
        for version in answer.versions() {
            versions.push(Version {
                key: key(version.key())?,
                id: version.version_id().map(str::to_owned),
                bytes: Some(version.size().and_then(|size| size.try_into().ok()).unwrap_or_default()),
                written: timestamp(version.last_modified()),
                is_latest: version.is_latest().unwrap_or_default(),
            });
        }
        for marker in answer.delete_markers() {
            versions.push(Version {
                key: key(marker.key())?,
                id: marker.version_id().map(str::to_owned),
                bytes: None,
                written: timestamp(marker.last_modified()),
                is_latest: marker.is_latest().unwrap_or_default(),
            });
        }
        let folders = answer.common_prefixes().iter().map(|folder| key(folder.prefix()));
        let folders = folders.collect::<Result<_, _>>()?;
        let next = if answer.is_truncated() == Some(true) {
            let version = answer.next_version_id_marker().map(str::to_owned);
            Some(Marker { key: key(answer.next_key_marker())?, version })
        } else {
            None
        };
        Ok(Page { versions, folders, next })
    }

    /// All pages of a listing.
    pub(crate) fn pages<'a>(
        &'a self,
        prefix: &'a str,
        scope: Scope,
    ) -> impl Stream<Item = Result<Page, CallError>> + 'a {
        stream::try_unfold(Some(None), move |from: Option<Option<Marker>>| async move {
            let Some(from) = from else { return Ok(None) };
            let mut page = self.page(prefix, scope, from).await?;
            let next = page.next.take().map(Some);
            Ok(Some((page, next)))
        })
    }

    /// All versions of one object. Keys that only begin with `key` are left out, and their pages are not
    /// read.
    ///
    /// # Errors
    /// A call failed.
    pub(crate) async fn object(&self, key: &str) -> Result<Vec<Version>, CallError> {
        let mut versions = Vec::new();
        let mut from = None;
        loop {
            let page = self.page(key, Scope::All, from).await?;
            versions.extend(page.versions.into_iter().filter(|version| version.key == key));
            from = page.next.filter(|next| next.key == key);
            if from.is_none() {
                return Ok(versions);
            }
        }
    }

    /// Deletes versions for good. Retries versions that S3 refused for a temporary reason. Returns those that
    /// it did not delete.
    ///
    /// # Errors
    /// A whole call failed. Some versions may have been deleted.
    pub(crate) async fn delete(&self, versions: &[Version]) -> Result<Vec<Refused>, CallError> {
        let (batched, single): (Vec<_>, Vec<_>) = versions.iter().partition(|version| fits_xml(&version.key));
        let mut refused = Vec::new();
        for batch in batched.chunks(BATCH) {
            refused.extend(self.delete_batch(batch.to_vec()).await?);
        }
        let deleting = stream::iter(single).map(|version| self.delete_one(version));
        deleting.buffer_unordered(CONCURRENT_DELETES).try_collect::<Vec<()>>().await?;
        Ok(refused)
    }

    async fn delete_batch(&self, mut pending: Vec<&Version>) -> Result<Vec<Refused>, CallError> {
        let call = "DeleteObjects";
        let incomplete = |error: aws_smithy_types::error::operation::BuildError| CallError::Passing {
            call,
            reason: error.to_string(),
        };
        let mut refused = Vec::new();
        let mut pauses =
            ExponentialBuilder::new().with_min_delay(FIRST_PAUSE).with_max_times(TRIES - 1).build();
        loop {
            let pause = pauses.next();
            let objects = pending.iter().map(|version| {
                ObjectIdentifier::builder().key(&version.key).set_version_id(version.id.clone()).build()
            });
            let objects = objects.collect::<Result<Vec<_>, _>>().map_err(incomplete)?;
            // A quiet response lists only what was not deleted.
            let delete =
                Delete::builder().set_objects(Some(objects)).quiet(true).build().map_err(incomplete)?;
            let answer = self
                .client
                .delete_objects()
                .bucket(self.name.as_str())
                .delete(delete)
                .send()
                .await
                .map_err(|error| CallError::new(call, &error))?;
            let mut retry = Vec::new();
            for error in answer.errors() {
                let code = error.code().unwrap_or_default();
                if GONE.contains(&code) {
                    continue;
                }
                let is_same = |version: &&&Version| {
                    error.key() == Some(version.key.as_str())
                        && error.version_id().is_none_or(|id| version.id.as_deref() == Some(id))
                };
                match pending.iter().find(is_same) {
                    Some(version) if TEMPORARY.contains(&code) && pause.is_some() => retry.push(*version),
                    _ => refused.push(Refused {
                        key: error.key().unwrap_or_default().to_owned(),
                        reason: format!("{code}: {}", error.message().unwrap_or_default()),
                        is_denied: code == DENIED,
                    }),
                }
            }
            let Some(pause) = pause.filter(|_| !retry.is_empty()) else { return Ok(refused) };
            pending = retry;
            tokio::time::sleep(pause).await;
        }
    }

    async fn delete_one(&self, version: &Version) -> Result<(), CallError> {
        self.client
            .delete_object()
            .bucket(self.name.as_str())
            .key(&version.key)
            .set_version_id(version.id.clone())
            .send()
            .await
            .map_err(|error| CallError::new("DeleteObject", &error))?;
        Ok(())
    }
}

/// A missing time counts as the latest one: what may be new is not deleted for its age.
fn timestamp(at: Option<&DateTime>) -> Timestamp {
    at.and_then(|at| Timestamp::from_nanosecond(at.as_nanos()).ok()).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests;
