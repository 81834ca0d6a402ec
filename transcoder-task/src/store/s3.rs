//! The S3 client and the classification of its errors.

use std::{error::Error, time::Duration};

use aws_sdk_s3::{
    Client,
    config::http::HttpResponse,
    error::{DisplayErrorContext, ProvideErrorMetadata, SdkError},
};
use vidstreamx_aws::Limits;
use vidstreamx_job::{BucketName, Exit};

const LIMITS: Limits = Limits {
    // The largest request, a part of 16 MiB, needs 4.5 Mbit/s to stay below this limit. In the same Region,
    // the request takes a second.
    response: Duration::from_secs(30),
    // When a multipart upload is completed, S3 sends the beginning of the response, and then may need a
    // minute to join the parts.
    attempt: Duration::from_secs(120),
    // Long enough for many uploads that share a slow connection.
    stall: Duration::from_secs(20),
    attempts: 5,
};

/// The action that an [`S3Error`] names if a read fails.
pub(crate) const READ: &str = "read";
/// The action that an [`S3Error`] names if a write fails.
pub(crate) const WRITE: &str = "write";

/// `s3://bucket/key`.
pub(crate) fn uri(bucket: &BucketName, key: &str) -> String {
    format!("s3://{bucket}/{key}")
}

/// A client with the task's limits.
pub(crate) async fn client() -> Client {
    vidstreamx_aws::s3(&vidstreamx_aws::configuration(LIMITS).await)
}

/// A call to S3 that failed for good. `object` is `s3://bucket/key`, `action` is a verb (`read`, `write`),
/// `detail` is the message of S3 or the SDK.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum S3Error {
    /// The object or version does not exist.
    #[error("{object} is gone")]
    Gone { object: String },
    /// The object's ETag is not the one that the job names.
    #[error("{object} was replaced by another upload")]
    Replaced { object: String },
    /// The storage class requires a restore before a read.
    #[error("{object} is archived: restore it and upload it again")]
    Archived { object: String },
    /// A wrong setting or a missing permission.
    #[error("may not {action} {object}: {detail}")]
    Refused { action: &'static str, object: String, detail: String },
    /// A temporary failure.
    #[error("cannot {action} {object}: {detail}")]
    Transient { action: &'static str, object: String, detail: String },
}

impl S3Error {
    /// Classifies an SDK error.
    pub(crate) fn new<E>(action: &'static str, object: String, error: &SdkError<E, HttpResponse>) -> Self
    where
        E: Error + ProvideErrorMetadata + 'static,
    {
        let status = error.raw_response().map(|response| response.status().as_u16());
        let detail = match (error.code(), error.message()) {
            (Some(code), Some(message)) => format!("{code}: {message}"),
            _ => DisplayErrorContext(error).to_string(),
        };
        match (status, error.code()) {
            (_, Some("InvalidObjectState")) => Self::Archived { object },
            // The object's KMS key is not accessible. Other videos are not affected, so this is not treated
            // as a wrong setting.
            (Some(403), _) if action == READ && detail.contains("kms:") => {
                Self::Transient { action, object, detail }
            }
            (
                _,
                Some("NoSuchBucket" | "AccessDenied" | "PermanentRedirect" | "AuthorizationHeaderMalformed"),
            )
            | (Some(401 | 403), _) => Self::Refused { action, object, detail },
            (_, Some("NoSuchKey" | "NotFound")) | (Some(404), _) => Self::Gone { object },
            (_, Some("PreconditionFailed")) | (Some(412), _) => Self::Replaced { object },
            (None, _) if detail.contains("no providers in chain provided credentials") => {
                Self::Refused { action, object, detail: "no AWS credentials were found".into() }
            }
            _ => Self::Transient { action, object, detail },
        }
    }

    #[must_use]
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Gone { .. } | Self::Replaced { .. } => Exit::Obsolete,
            Self::Archived { .. } => Exit::Unusable,
            Self::Refused { .. } => Exit::Misconfigured,
            Self::Transient { .. } => Exit::Transient,
        }
    }
}
