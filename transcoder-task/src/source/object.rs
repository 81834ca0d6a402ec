//! The source object, pinned: every read is of the same content, or fails.

use aws_sdk_s3::{Client, config, config::retry::RetryConfig, primitives::ByteStream};
use vidstreamx_job::{S3Uri, Source, unquote_etag};

use crate::store::{S3Error, s3::READ};

/// One content of one object. All reads name its version, or else its ETag.
#[derive(Debug, Clone)]
pub struct PinnedObject {
    client: Client,
    source: Source,
    /// In bytes.
    pub size: u64,
}

impl PinnedObject {
    /// Looks the object up and pins what the job asked for.
    ///
    /// # Errors
    /// Gone or replaced, if there is something else now than the job's version or ETag.
    pub async fn open(client: Client, mut source: Source) -> Result<Self, S3Error> {
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

    /// Looks up what is there now, for work that was asked for by hand.
    pub async fn open_latest(client: Client, object: &S3Uri) -> Result<Self, S3Error> {
        let key = object.path.parse().map_err(|_| S3Error::Gone { object: object.to_string() })?;
        let source = Source { bucket: object.bucket.clone(), key, version_id: None, etag: None, size: None };
        Self::open(client, source).await
    }

    /// `s3://uploads/a.mp4`, as the client answers for it.
    #[cfg(test)]
    pub async fn of_tests(client: Client) -> Self {
        let object = S3Uri { bucket: "uploads".parse().unwrap(), path: "a.mp4".into() };
        Self::open_latest(client, &object).await.unwrap()
    }

    /// What was pinned.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// The bytes from `start` up to and without `end`, by one request: whoever reads tries again, from where a body
    /// broke. (The client's retries have a common budget, which is for what is written.)
    ///
    /// # Errors
    /// Replaced, gone and so on; trouble also if the answer is another range than the one asked for.
    pub async fn read(&self, start: u64, end: u64) -> Result<ByteStream, S3Error> {
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
        let answer = request.customize().config_override(once).send().await;
        let answer = answer.map_err(|error| S3Error::new(READ, self.uri(), &error))?;
        let range = answer.content_range().unwrap_or("the whole object");
        if range != format!("bytes {start}-{last}/{}", self.size) {
            let detail = format!("asked for bytes {start}-{last} of {}, got {range}", self.size);
            return Err(S3Error::Transient { action: READ, object: self.uri(), detail });
        }
        Ok(answer.body)
    }

    /// Fails if another content has taken the object's place in the meantime: its stream must not take
    /// the stable address from a newer one's.
    pub async fn check_current(&self) -> Result<(), S3Error> {
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
    pub fn uri(&self) -> String {
        uri(&self.source)
    }
}

fn uri(source: &Source) -> String {
    format!("s3://{}/{}", source.bucket, source.key)
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
    async fn every_read_names_the_pinned_etag_and_its_range() {
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
    async fn a_missing_permission_is_configuration_and_says_what_it_is() {
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
    async fn a_stream_of_replaced_content_must_not_be_switched_to() {
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
