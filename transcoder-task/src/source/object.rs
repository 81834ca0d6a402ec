//! The source object, pinned to one content: a read of any other content fails.

use aws_sdk_s3::{Client, config, config::retry::RetryConfig, primitives::ByteStream};
use vidstreamx_job::{S3Uri, Source, unquote_etag};

use crate::store::{
    S3Error,
    s3::{self, READ},
};

/// One content of one object. Every read names its version, else its ETag.
#[derive(Debug, Clone)]
pub(crate) struct PinnedObject {
    client: Client,
    source: Source,
    /// In bytes.
    pub(crate) size: u64,
}

impl PinnedObject {
    /// Looks the object up and pins the job's version or ETag.
    ///
    /// # Errors
    /// [`S3Error::Gone`] or [`S3Error::Replaced`] if the pinned content is not there any more, or another
    /// error of S3.
    pub(crate) async fn open(client: Client, mut source: Source) -> Result<Self, S3Error> {
        let head = client
            .head_object()
            .bucket(source.bucket.as_str())
            .key(source.key.as_str())
            .set_version_id(source.version_id.clone())
            .send()
            .await
            .map_err(|error| S3Error::new(READ, uri(&source), &error))?;
        let etag = head.e_tag().map(unquote_etag);
        if source.version_id.is_none() && source.etag.is_some() && source.etag.as_deref() != etag {
            return Err(S3Error::Replaced { object: uri(&source) });
        }
        source.etag = etag.map(str::to_owned);
        let size = head.content_length().and_then(|size| u64::try_from(size).ok()).unwrap_or(0);
        source.size = Some(size);
        Ok(Self { client, source, size })
    }

    /// Looks the object up and pins its current content, for a run from the command line.
    ///
    /// # Errors
    /// As for [`PinnedObject::open`].
    pub(crate) async fn open_latest(client: Client, object: &S3Uri) -> Result<Self, S3Error> {
        let key = object.path.parse().map_err(|_| S3Error::Gone { object: object.to_string() })?;
        let source = Source { bucket: object.bucket.clone(), key, version_id: None, etag: None, size: None };
        Self::open(client, source).await
    }

    /// `s3://uploads/a.mp4` with a size in bytes and mocked reads.
    #[cfg(test)]
    pub(crate) async fn of_tests(size: u64, reads: &[&aws_smithy_mocks::Rule]) -> Self {
        use aws_sdk_s3::operation::head_object::HeadObjectOutput;
        use aws_smithy_mocks::{RuleMode, mock, mock_client};

        let head = mock!(Client::head_object).then_output(move || {
            HeadObjectOutput::builder().e_tag("\"abc\"").content_length(size as i64).build()
        });
        let client = mock_client!(aws_sdk_s3, RuleMode::MatchAny, [&[&head], reads].concat());
        let object = S3Uri { bucket: "uploads".parse().unwrap(), path: "a.mp4".into() };
        Self::open_latest(client, &object).await.unwrap()
    }

    pub(crate) fn source(&self) -> &Source {
        &self.source
    }

    /// Requests the bytes `start..end` once. The caller retries from the last received byte, because the
    /// client's retry budget is for writes.
    ///
    /// # Errors
    /// S3 fails. A response with another range is [`S3Error::Transient`].
    pub(crate) async fn read(&self, start: u64, end: u64) -> Result<ByteStream, S3Error> {
        let source = &self.source;
        let last = end.saturating_sub(1);
        let request = self
            .client
            .get_object()
            .bucket(source.bucket.as_str())
            .key(source.key.as_str())
            .range(format!("bytes={start}-{last}"));
        let request = match &source.version_id {
            Some(version) => request.version_id(version),
            None => request.set_if_match(source.etag.as_deref().map(|etag| format!("\"{etag}\""))),
        };
        let once = config::Builder::new().retry_config(RetryConfig::disabled());
        let response = request.customize().config_override(once).send().await;
        let response = response.map_err(|error| S3Error::new(READ, self.uri(), &error))?;
        let range = response.content_range().unwrap_or("the whole object");
        if range != format!("bytes {start}-{last}/{}", self.size) {
            let detail = format!("requested bytes {start}-{last} of {}, got {range}", self.size);
            return Err(S3Error::Transient { action: READ, object: self.uri(), detail });
        }
        Ok(response.body)
    }

    /// Checks that the object still has the pinned content. The stream of an older upload must not replace a
    /// newer upload's stream at the stable address.
    ///
    /// # Errors
    /// [`S3Error::Replaced`] if it has another content, or another error of S3.
    pub(crate) async fn check_current(&self) -> Result<(), S3Error> {
        let latest = Self::open_latest(
            self.client.clone(),
            &S3Uri { bucket: self.source.bucket.clone(), path: self.source.key.to_string() },
        )
        .await?;
        if latest.source.etag == self.source.etag {
            Ok(())
        } else {
            Err(S3Error::Replaced { object: self.uri() })
        }
    }

    /// `s3://bucket/key`.
    pub(crate) fn uri(&self) -> String {
        uri(&self.source)
    }
}

fn uri(source: &Source) -> String {
    s3::uri(&source.bucket, source.key.as_str())
}

#[cfg(test)]
mod tests {
    use aws_sdk_s3::{
        operation::{
            get_object::{GetObjectError, GetObjectOutput},
            head_object::{HeadObjectError, HeadObjectOutput},
        },
        types::error::NotFound,
    };
    use aws_smithy_mocks::{RuleMode, mock, mock_client};
    use aws_smithy_types::error::ErrorMetadata;
    use vidstreamx_job::Exit;

    use super::*;

    fn source(etag: &str) -> Source {
        Source {
            bucket: "uploads".parse().unwrap(),
            key: "a b.mp4".parse().unwrap(),
            version_id: None,
            etag: Some(etag.into()),
            size: None,
        }
    }

    fn head(etag: &'static str) -> aws_smithy_mocks::Rule {
        mock!(Client::head_object)
            .then_output(move || HeadObjectOutput::builder().e_tag(etag).content_length(10).build())
    }

    #[tokio::test]
    async fn a_read_names_the_pinned_etag_and_its_range() {
        let get = mock!(Client::get_object)
            .match_requests(|request| {
                request.if_match() == Some("\"abc\"")
                    && request.range() == Some("bytes=3-6")
                    && request.key() == Some("a b.mp4")
            })
            .then_output(|| {
                let answer = GetObjectOutput::builder().content_range("bytes 3-6/10");
                answer.body(ByteStream::from_static(b"data")).build()
            });
        let client = mock_client!(aws_sdk_s3, RuleMode::MatchAny, [&head("\"abc\""), &get]);
        let object = PinnedObject::open(client, source("abc")).await.unwrap();
        assert_eq!((object.size, object.uri().as_str()), (10, "s3://uploads/a b.mp4"));
        assert_eq!(object.read(3, 7).await.unwrap().collect().await.unwrap().into_bytes(), "data");
    }

    #[tokio::test]
    async fn a_replaced_or_missing_object_is_obsolete() {
        let client = mock_client!(aws_sdk_s3, RuleMode::MatchAny, [&head("\"new\"")]);
        let error = PinnedObject::open(client, source("old")).await.unwrap_err();
        assert_eq!(error.to_string(), "s3://uploads/a b.mp4 was replaced by another upload");
        assert_eq!(error.exit(), Exit::Obsolete);

        let missing = mock!(Client::head_object).then_error(|| {
            HeadObjectError::NotFound(
                NotFound::builder().meta(ErrorMetadata::builder().code("NotFound").build()).build(),
            )
        });
        let client = mock_client!(aws_sdk_s3, RuleMode::MatchAny, [&missing]);
        let error = PinnedObject::open(client, source("old")).await.unwrap_err();
        assert!(matches!(error, S3Error::Gone { .. }), "{error}");
    }

    #[tokio::test]
    async fn a_missing_permission_is_a_configuration_error_with_its_reason() {
        let denied = mock!(Client::get_object).then_error(|| {
            GetObjectError::generic(
                ErrorMetadata::builder().code("AccessDenied").message("not yours").build(),
            )
        });
        let client = mock_client!(aws_sdk_s3, RuleMode::MatchAny, [&head("\"abc\""), &denied]);
        let object = PinnedObject::open(client, source("abc")).await.unwrap();
        let error = object.read(0, 1).await.unwrap_err();
        assert_eq!(error.to_string(), "may not read s3://uploads/a b.mp4: AccessDenied: not yours");
        assert_eq!(error.exit(), Exit::Misconfigured);
    }

    #[tokio::test]
    async fn a_replaced_object_is_not_current() {
        let first = mock!(Client::head_object)
            .sequence()
            .output(|| HeadObjectOutput::builder().e_tag("\"abc\"").content_length(1).build())
            .output(|| HeadObjectOutput::builder().e_tag("\"def\"").content_length(1).build())
            .build();
        let client = mock_client!(aws_sdk_s3, RuleMode::Sequential, [&first]);
        let object = PinnedObject::open(client, source("abc")).await.unwrap();
        assert!(matches!(object.check_current().await, Err(S3Error::Replaced { .. })));
    }
}
