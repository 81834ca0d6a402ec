//! Lists the objects of the upload bucket, with the fields that S3's events have.

use aws_sdk_s3::{Client, types::EncodingType};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use tracing::warn;
use vidstreamx_job::{BucketName, ObjectKey, Source, unquote_etag};

use crate::aws::{
    error::{CallError, status},
    keys::decoded,
};

/// Suffixes for which the template's upload bucket sends events. S3 distinguishes upper and lower case.
const VIDEO_SUFFIXES: [&str; 5] = [".mp4", ".MP4", ".mov", ".MOV", ".m4v"];

/// Number of concurrent HEAD requests.
const CONCURRENT_READS: usize = 32;

/// A page of a listing.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Page {
    pub videos: Vec<Source>,
    /// Number of objects with another suffix.
    pub others: u64,
    /// Number of objects that were deleted after they were listed.
    pub gone: u64,
    /// Token of the next page; `None` on the last page.
    pub next: Option<String>,
}

/// Reads the upload bucket.
#[derive(Debug)]
pub(crate) struct UploadListing {
    client: Client,
    bucket: BucketName,
}

impl UploadListing {
    /// The objects in this bucket.
    #[must_use]
    pub(crate) const fn new(client: Client, bucket: BucketName) -> Self {
        Self { client, bucket }
    }

    /// The current version of an object; `Ok(None)` if it does not exist.
    ///
    /// # Errors
    /// The call failed.
    pub(crate) async fn object(&self, key: ObjectKey) -> Result<Option<Source>, CallError> {
        let call = "HeadObject";
        match self.client.head_object().bucket(self.bucket.as_str()).key(key.as_str()).send().await {
            Ok(found) => Ok(Some(Source {
                bucket: self.bucket.clone(),
                key,
                // "null" is the version id of objects that were written without versioning.
                version_id: found.version_id.filter(|id| id != "null"),
                etag: found.e_tag.as_deref().map(|etag| unquote_etag(etag).to_owned()),
                size: found.content_length.and_then(|size| size.try_into().ok()),
            })),
            Err(error) if status(&error) == Some(404) => Ok(None),
            // A response to HEAD has no body, and so no error code.
            Err(error) if status(&error) == Some(403) => Err(CallError::Configuration {
                call,
                reason: format!("access to s3://{}/{key} is denied", self.bucket),
                credentials: false,
            }),
            Err(error) => Err(CallError::new(call, &error)),
        }
    }

    /// Whether objects may have version ids, which S3's events would contain. True if unknown.
    ///
    /// # Errors
    /// The call failed. A missing permission is not an error.
    pub(crate) async fn may_be_versioned(&self) -> Result<bool, CallError> {
        match self.client.get_bucket_versioning().bucket(self.bucket.as_str()).send().await {
            // A bucket has no status until versioning is enabled. If it is suspended later, old version ids
            // remain.
            Ok(answer) => Ok(answer.status.is_some()),
            Err(error) if status(&error) == Some(403) => {
                warn!(
                    "s3:GetBucketVersioning is denied, so the version of each object is read with a HEAD request"
                );
                Ok(true)
            }
            Err(error) => Err(CallError::new("GetBucketVersioning", &error)),
        }
    }

    /// A page of the videos under a prefix. Listings lack version ids, so if `versioned`, a HEAD request per
    /// video reads them.
    ///
    /// # Errors
    /// A call failed.
    pub(crate) async fn page(
        &self,
        prefix: &str,
        versioned: bool,
        from: Option<String>,
    ) -> Result<Page, CallError> {
        let answer = self
            .client
            .list_objects_v2()
            .bucket(self.bucket.as_str())
            .prefix(prefix)
            // Keys can have characters that XML does not allow.
            .encoding_type(EncodingType::Url)
            .set_continuation_token(from)
            .send()
            .await
            .map_err(|error| CallError::new("ListObjectsV2", &error))?;
        let encoding = answer.encoding_type;
        let mut page = Page { next: answer.next_continuation_token, ..Page::default() };
        for object in answer.contents.unwrap_or_default() {
            let key = object.key.unwrap_or_default();
            match decoded(&key, encoding.as_ref())
                .filter(|key| is_video(key))
                .and_then(|key| key.parse().ok())
            {
                Some(key) => page.videos.push(Source {
                    bucket: self.bucket.clone(),
                    key,
                    version_id: None,
                    etag: object.e_tag.as_deref().map(|etag| unquote_etag(etag).to_owned()),
                    size: object.size.and_then(|size| size.try_into().ok()),
                }),
                None => page.others += 1,
            }
        }
        if versioned {
            let listed = page.videos.len() as u64;
            let requests = page.videos.into_iter().map(|video| self.object(video.key));
            let found: Vec<_> = stream::iter(requests).buffered(CONCURRENT_READS).try_collect().await?;
            page.videos = found.into_iter().flatten().collect();
            page.gone = listed - page.videos.len() as u64;
        }
        Ok(page)
    }
}

fn is_video(key: &str) -> bool {
    VIDEO_SUFFIXES.iter().any(|suffix| key.ends_with(suffix))
}

/// The suffixes as text.
#[must_use]
pub(crate) fn suffixes() -> String {
    VIDEO_SUFFIXES.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_suffixes_are_those_of_the_templates_notifications() {
        let template = concat!(env!("CARGO_MANIFEST_DIR"), "/../infra/vidstreamx.yaml");
        let template = std::fs::read_to_string(template).unwrap();
        let suffixes: Vec<_> = template
            .lines()
            .filter_map(|line| line.split_once("{Name: suffix, Value: ")?.1.split('}').next())
            .collect();
        assert_eq!(suffixes, VIDEO_SUFFIXES);
    }
}
