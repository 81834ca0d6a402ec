//! Uploads in S3: inspects them, and checks that they still exist.

use aws_sdk_s3::Client;
use vidstreamx_job::{Source, unquote_etag};

use super::inspection::{Inspection, inspect};
use crate::aws::error::{CallError, CallFuture, status};

/// The presence of a job's upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// The key has the job's content.
    Present,
    /// The object was deleted.
    Gone,
    /// The key has other content.
    Replaced,
}

/// Reads uploads.
pub trait Uploads: Send + Sync {
    /// Inspects the header of a job's upload.
    ///
    /// # Errors
    /// The call failed or was denied.
    fn inspect<'a>(&'a self, source: &'a Source) -> CallFuture<'a, Inspection>;

    /// Checks whether a job's upload still exists.
    ///
    /// # Errors
    /// The call failed or was denied.
    fn presence<'a>(&'a self, source: &'a Source) -> CallFuture<'a, Presence>;
}

/// Uploads in S3.
#[derive(Debug, Clone)]
pub struct S3Uploads(pub Client);

impl Uploads for S3Uploads {
    fn inspect<'a>(&'a self, source: &'a Source) -> CallFuture<'a, Inspection> {
        Box::pin(inspect(&self.0, source))
    }

    fn presence<'a>(&'a self, source: &'a Source) -> CallFuture<'a, Presence> {
        Box::pin(async move {
            let head = self.0.head_object().bucket(source.bucket.as_str()).key(source.key.as_str());
            match head.send().await {
                Ok(found) => {
                    let etag = found.e_tag.as_deref().map(unquote_etag);
                    // An older version may still exist, but its stream would be outdated.
                    let same = match &source.version_id {
                        Some(version) => found.version_id.as_ref() == Some(version),
                        None => etag == source.etag.as_deref(),
                    };
                    Ok(if same { Presence::Present } else { Presence::Replaced })
                }
                Err(error) if status(&error) == Some(404) => Ok(Presence::Gone),
                Err(error) => Err(CallError::new("HeadObject", &error)),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_s3::operation::head_object::HeadObjectOutput;
    use aws_smithy_mocks::{Rule, RuleMode, mock, mock_client};

    use super::*;
    use crate::fixtures::source;

    fn uploads(rule: &Rule) -> S3Uploads {
        S3Uploads(mock_client!(aws_sdk_s3, RuleMode::MatchAny, [rule]))
    }

    #[tokio::test]
    async fn a_source_is_present_replaced_or_gone() {
        let source = source("a.mp4");
        for (etag, presence) in [("\"e\"", Presence::Present), ("\"f\"", Presence::Replaced)] {
            let rule = mock!(Client::head_object)
                .then_output(move || HeadObjectOutput::builder().e_tag(etag).build());
            assert_eq!(uploads(&rule).presence(&source).await, Ok(presence));
        }
        let rule = mock!(Client::head_object).sequence().http_status(404, None).repeatedly().build();
        assert_eq!(uploads(&rule).presence(&source).await, Ok(Presence::Gone));
    }
}
