//! Errors of AWS calls, classified by what the caller must do.

use std::{error::Error, fmt::Write as _};

use aws_sdk_sqs::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_types::error::metadata::ErrorMetadata;
use futures::future::BoxFuture;

/// A call to AWS that is in progress.
pub type CallFuture<'a, T, E = CallError> = BoxFuture<'a, Result<T, E>>;

/// A failed call to AWS.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// An operator must act: a resource or a permission is missing.
    #[error("{call}: {reason}")]
    Configuration {
        /// The operation, with its object if that is not obvious.
        call: &'static str,
        /// AWS's code and message.
        reason: String,
        /// Whether the credentials are wrong.
        credentials: bool,
    },
    /// A retry may succeed.
    #[error("{call}: {reason}")]
    Passing {
        /// The operation.
        call: &'static str,
        /// AWS's code and message, or the failure of the connection.
        reason: String,
    },
}

/// Error codes of all services that mean that an operator must act. Expired credentials are not among them,
/// because the role or instance provides new ones.
const CONFIGURATION: [&str; 12] = [
    "AccessDenied",
    "AccessDeniedException",
    "AllAccessDisabled",
    "AWS.SimpleQueueService.NonExistentQueue",
    "ClusterNotFoundException",
    "InvalidAddress",
    "KmsAccessDenied",
    "KmsDisabled",
    "KmsNotFound",
    "NoSuchBucket",
    "OptInRequired",
    "QueueDoesNotExist",
];

/// Codes for rejected credentials.
const CREDENTIALS: [&str; 6] = [
    "AuthFailure",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
];

impl CallError {
    /// Classifies an SDK error.
    pub fn new<E, R>(call: &'static str, error: &SdkError<E, R>) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
        R: std::fmt::Debug + 'static,
    {
        let reason = describe(error);
        let code = error.as_service_error().and_then(|error| error.meta().code());
        let credentials = code.is_some_and(|code| CREDENTIALS.contains(&code));
        if credentials || code.is_some_and(|code| CONFIGURATION.contains(&code)) {
            Self::Configuration { call, reason, credentials }
        } else {
            Self::Passing { call, reason }
        }
    }

    /// Whether an operator must act.
    #[must_use]
    pub const fn is_configuration(&self) -> bool {
        matches!(self, Self::Configuration { .. })
    }

    /// Whether AWS rejected the credentials.
    #[must_use]
    pub const fn is_about_credentials(&self) -> bool {
        matches!(self, Self::Configuration { credentials: true, .. })
    }
}

/// The response's HTTP status, if there was one.
pub fn status<E>(error: &SdkError<E>) -> Option<u16> {
    error.raw_response().map(|response| response.status().as_u16())
}

/// A line with the service's code and message, or with the chain of causes if there is no code.
pub fn describe<E, R>(error: &SdkError<E, R>) -> String
where
    E: ProvideErrorMetadata + Error + 'static,
    R: std::fmt::Debug + 'static,
{
    let meta = error.as_service_error().map(ProvideErrorMetadata::meta);
    if let Some((code, message)) = meta.and_then(code_and_message) {
        return if message.is_empty() { code.to_owned() } else { format!("{code}: {message}") };
    }
    chain(error)
}

/// An error with all its causes, as one line.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}

fn code_and_message(meta: &ErrorMetadata) -> Option<(&str, &str)> {
    meta.code().map(|code| (code, meta.message().unwrap_or_default()))
}
