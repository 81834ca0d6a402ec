//! The S3 client, and what its errors mean for the task.

use std::{error::Error, time::Duration};

use aws_config::{retry::RetryConfig, timeout::TimeoutConfig};
use aws_sdk_s3::{
    Client,
    config::{StalledStreamProtectionConfig, http::HttpResponse},
    error::{DisplayErrorContext, ProvideErrorMetadata, SdkError},
};
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use vidstreamx_job::Exit;

/// From a request's first byte to its answer's first: a write that S3 takes and never answers is done again after this.
/// The largest, a part of 16 MiB, then needs 4.5 Mb/s; S3 takes a second.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// A body of which nothing moves for so long has stalled. The SDK's 5 s are soon over on a slow line that many uploads
/// share.
const STALL_LIMIT: Duration = Duration::from_secs(20);
/// One attempt of a call, from the search for credentials to the end of an answer that is no object: where S3 puts the
/// parts of a large object together, it sends the answer's beginning and then lets one wait.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(120);

/// A client from the SDK's own configuration chain (environment, profile, container role).
pub async fn client() -> Client {
    let https =
        aws_smithy_http_client::Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https();
    let config = aws_config::from_env()
        .http_client(https)
        .retry_config(RetryConfig::standard().with_max_attempts(5))
        .timeout_config(
            TimeoutConfig::builder()
                .connect_timeout(Duration::from_secs(5))
                .read_timeout(ANSWER_LIMIT)
                .operation_attempt_timeout(ATTEMPT_LIMIT)
                .build(),
        )
        .stalled_stream_protection(StalledStreamProtectionConfig::enabled().grace_period(STALL_LIMIT).build())
        .load()
        .await;
    // Path style reaches every bucket of every S3, also those with dots in their names (which
    // virtual-hosted TLS certificates do not cover) and those behind AWS_ENDPOINT_URL.
    Client::from_conf(aws_sdk_s3::config::Builder::from(&config).force_path_style(true).build())
}

/// What is done with a source.
pub const READ: &str = "read";

/// Why a call to S3 failed for good.
#[derive(Debug, Clone, thiserror::Error)]
pub enum S3Error {
    /// No such object or version.
    #[error("{object} is gone")]
    Gone {
        /// `s3://bucket/key`.
        object: String,
    },
    /// The object has another ETag than the job asked for.
    #[error("{object} was replaced by another upload")]
    Replaced {
        /// `s3://bucket/key`.
        object: String,
    },
    /// In a storage class that cannot be read before it is restored.
    #[error("{object} is archived: restore it and upload it again")]
    Archived {
        /// `s3://bucket/key`.
        object: String,
    },
    /// A wrong setting or a missing permission.
    #[error("may not {action} {object}: {detail}")]
    Refused {
        /// `read`, `write`…
        action: &'static str,
        /// `s3://bucket/key`.
        object: String,
        /// What S3 or the SDK said.
        detail: String,
    },
    /// Everything that may pass.
    #[error("cannot {action} {object}: {detail}")]
    Trouble {
        /// `read`, `write`…
        action: &'static str,
        /// `s3://bucket/key`.
        object: String,
        /// What S3 or the SDK said.
        detail: String,
    },
}

impl S3Error {
    /// What an SDK error means.
    pub fn new<E>(action: &'static str, object: String, error: &SdkError<E, HttpResponse>) -> Self
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
            // One object with a key of its own: no other video is concerned.
            (Some(403), _) if action == READ && detail.contains("kms:") => {
                Self::Trouble { action, object, detail }
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
            _ => Self::Trouble { action, object, detail },
        }
    }

    /// The exit code that tells the consumer what to do.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Gone { .. } | Self::Replaced { .. } => Exit::Obsolete,
            Self::Archived { .. } => Exit::Unusable,
            Self::Refused { .. } => Exit::Misconfigured,
            Self::Trouble { .. } => Exit::Transient,
        }
    }
}
