//! Sets up the AWS SDK: one HTTPS client for all services, time limits, and the SDK's own chain for
//! credentials and Region.

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

/// A missing prerequisite of AWS calls.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// Neither environment, profile nor instance has a Region.
    #[error("AWS_REGION is not set, and no profile or instance says which Region to use")]
    Region,
    /// The chain has no credentials.
    #[error("there are no AWS credentials (environment, profile, container or instance role): {0}")]
    Credentials(CredentialsError),
}

/// Time to connect.
const CONNECT: Duration = Duration::from_secs(5);
const READ: Duration = Duration::from_secs(10);
/// Time of one attempt of a call, to detect an endpoint that accepts and never responds.
const ATTEMPT: Duration = Duration::from_secs(20);

/// Loads the SDK's configuration, and checks that it has a Region and credentials.
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
            // The source does not respond yet, for example on a booting instance. The SDK retries.
            Err(error) => warn!(error = chain(&error), "no AWS credentials yet"),
        }
    }
    Ok(config)
}

fn https() -> SharedHttpClient {
    Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https()
}

/// A configuration with its own connections, because a connection's buffer stays as large as its largest
/// response.
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
