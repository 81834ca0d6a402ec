//! The reason why a track must be encoded.

use std::borrow::Cow;

use vidstreamx_isobmff::boxes::BoxError;

/// The reason why a track cannot be copied. The text is for the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct NotCopyable(pub(crate) Cow<'static, str>);

pub(super) fn why<T>(reason: impl Into<Cow<'static, str>>) -> Result<T, NotCopyable> {
    Err(NotCopyable(reason.into()))
}

impl From<BoxError> for NotCopyable {
    fn from(error: BoxError) -> Self {
        Self(error.to_string().into())
    }
}
