//! Reads the header of an upload in S3 until its facts are known.

use aws_sdk_s3::{
    Client,
    error::{ProvideErrorMetadata, SdkError},
    operation::get_object::GetObjectOutput,
};
use vidstreamx_job::{Source, unquote_etag};

use super::{
    header_walk::{READ, Step, Walk},
    media_facts::MediaFacts,
};
use crate::aws::error::{self, CallError};

/// The result of an inspection.
#[derive(Debug, Clone, PartialEq)]
pub enum Inspection {
    /// The upload is or may be a video.
    Video(MediaFacts),
    /// The upload is not a video. Holds a sentence for the uploader.
    NotVideo(String),
    /// The object was deleted.
    Gone,
    /// The key has other content now.
    Replaced,
}

/// Inspects an upload, and checks that it is the current content of its key.
///
/// # Errors
/// A call failed or was denied.
pub(super) async fn inspect(client: &Client, source: &Source) -> Result<Inspection, CallError> {
    let mut wanted = Walk::FIRST;
    // The walk, and the ETag of the first read. Later reads must have the same ETag.
    let mut begun: Option<(Walk, String)> = None;
    loop {
        let response = client
            .get_object()
            .bucket(source.bucket.as_str())
            .key(source.key.as_str())
            .range(format!("bytes={}-{}", wanted.start, wanted.end - 1))
            .set_if_match(begun.as_ref().map(|(_, etag)| etag.clone()))
            .send()
            .await;
        let mut response = match response {
            Ok(response) => response,
            Err(error) => return from_error(source, begun.is_none(), &error),
        };
        let (walk, _) = match &mut begun {
            Some(walk) => walk,
            None if !is_current(source, &response) => return Ok(Inspection::Replaced),
            None => {
                let etag = response.e_tag.clone().unwrap_or_default();
                begun.insert((Walk::new(object_bytes(source, &response)), etag))
            }
        };
        let start = range_start(&response);
        let bytes = body(&mut response).await?;
        match walk.feed(start, bytes) {
            Step::Read(next) => wanted = next,
            Step::Video(facts) => return Ok(Inspection::Video(facts)),
            Step::NotVideo(reason) => return Ok(Inspection::NotVideo(reason)),
        }
    }
}

/// Converts a failed read to a result of the inspection, if the failure means that the object is gone,
/// replaced or empty. Otherwise returns the error.
fn from_error<E>(source: &Source, is_first: bool, error: &SdkError<E>) -> Result<Inspection, CallError>
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let status = error::status(error);
    let code = error.as_service_error().and_then(|error| error.meta().code());
    match status {
        Some(404) if code != Some("NoSuchBucket") => Ok(Inspection::Gone),
        Some(412) => Ok(Inspection::Replaced),
        // The first range is outside the object, so the object is empty.
        Some(416) if is_first && source.size.is_some_and(|size| size > 0) => Ok(Inspection::Replaced),
        Some(416) if is_first => Ok(Inspection::NotVideo("the file is empty".into())),
        _ => Err(CallError::new("GetObject", error)),
    }
}

/// Whether the response has the source's content.
fn is_current(source: &Source, response: &GetObjectOutput) -> bool {
    match (&source.version_id, &response.version_id) {
        (Some(wanted), Some(current)) => wanted == current,
        // The bucket has no versions, or the store does not return them.
        _ => {
            let etag = response.e_tag.as_deref().map(unquote_etag);
            source.etag.is_none() || source.etag.as_deref() == etag
        }
    }
}

/// The object's size, from a content range such as `bytes 0-16383/1000000`, or from the length of a response
/// without a range. If it is unknown, it counts as very large, so the walk does not mistake the end of
/// the response for the end of the file.
fn object_bytes(source: &Source, response: &GetObjectOutput) -> u64 {
    let stated = match &response.content_range {
        Some(range) => range.rsplit_once('/').and_then(|(_, total)| total.parse().ok()),
        None => response.content_length.and_then(|length| u64::try_from(length).ok()),
    };
    stated.or(source.size).unwrap_or(u64::MAX)
}

/// The offset of the response in the object. It is 0 if the store ignores ranges.
fn range_start(response: &GetObjectOutput) -> u64 {
    let start = |range: &str| range.strip_prefix("bytes ")?.split_once('-')?.0.parse().ok();
    response.content_range.as_deref().and_then(start).unwrap_or_default()
}

/// The first [`READ`] bytes of the body.
async fn body(response: &mut GetObjectOutput) -> Result<Vec<u8>, CallError> {
    let most = READ as usize;
    let mut bytes = Vec::new();
    while bytes.len() < most {
        let chunk = response.body.try_next().await;
        let chunk =
            chunk.map_err(|error| CallError::Passing { call: "GetObject", reason: error.to_string() })?;
        let Some(chunk) = chunk else { break };
        bytes.extend_from_slice(&chunk[..chunk.len().min(most - bytes.len())]);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
