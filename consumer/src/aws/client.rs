//! The AWS SDK, set up: one HTTPS client for all services, time limits, credentials and Region from the
//! SDK's own chain.

use std::time::Duration;

use aws_config::{SdkConfig, timeout::TimeoutConfig};
use aws_credential_types::provider::{ProvideCredentials, error::CredentialsError};
use aws_sdk_sqs::config::SharedHttpClient;
use aws_smithy_http_client::{
    Builder,
    tls::{Provider, rustls_provider::CryptoMode},
};
use tracing::warn;

use crate::aws::error::chain;

/// What AWS can't be reached without.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// Neither environment, profile nor instance says which Region.
    #[error("AWS_REGION is not set, and no profile or instance says which Region to use")]
    Region,
    /// The credentials chain ends without any.
    #[error("there are no AWS credentials (environment, profile, container or instance role): {0}")]
    Credentials(CredentialsError),
}

/// To connect, and between bytes of an answer.
const CONNECT: Duration = Duration::from_secs(5);
const READ: Duration = Duration::from_secs(10);
/// For one attempt at a call, so that an endpoint that accepts and never answers is noticed.
const ATTEMPT: Duration = Duration::from_secs(20);

/// Loads the SDK's configuration and makes sure that there is a Region and credentials.
///
/// # Errors
/// One of them is missing.
pub async fn configuration() -> Result<SdkConfig, SetupError> {
    let https = https();
    let limits = TimeoutConfig::builder()
        .connect_timeout(CONNECT)
        .read_timeout(READ)
        .operation_attempt_timeout(ATTEMPT)
        .build();
    let config = aws_config::from_env().http_client(https).timeout_config(limits).load().await;
    if config.region().is_none() {
        return Err(SetupError::Region);
    }
    if let Some(provider) = config.credentials_provider() {
        match provider.provide_credentials().await {
            Ok(_) => {}
            Err(
                missing @ (CredentialsError::CredentialsNotLoaded(_)
                | CredentialsError::InvalidConfiguration(_)),
            ) => return Err(SetupError::Credentials(missing)),
            // A source that does not answer yet, as on an instance that boots: the SDK asks again.
            Err(error) => warn!(error = chain(&error), "no AWS credentials yet"),
        }
    }
    Ok(config)
}

fn https() -> SharedHttpClient {
    Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https()
}

/// A configuration with connections of its own: a connection's buffer stays as large as its largest answer.
#[must_use]
pub fn apart(config: &SdkConfig) -> SdkConfig {
    config.to_builder().http_client(https()).build()
}

/// An S3 client. With an endpoint of one's own, buckets are named in the path: only AWS has a host name
/// for each.
#[must_use]
pub fn s3(config: &SdkConfig) -> aws_sdk_s3::Client {
    let own_endpoint = config.endpoint_url().is_some() || std::env::var_os("AWS_ENDPOINT_URL_S3").is_some();
    let config = aws_sdk_s3::config::Builder::from(config).force_path_style(own_endpoint).build();
    aws_sdk_s3::Client::from_conf(config)
}
