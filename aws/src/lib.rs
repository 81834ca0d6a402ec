//! Sets up the AWS SDK for both programs: one HTTPS client for all services, time limits, the SDK's own chain
//! for credentials and Region, and S3 clients.

use std::time::Duration;

use aws_config::{
    SdkConfig, retry::RetryConfig, stalled_stream_protection::StalledStreamProtectionConfig,
    timeout::TimeoutConfig,
};
use aws_sdk_s3::config::SharedHttpClient;
use aws_smithy_http_client::{
    Builder,
    tls::{Provider, rustls_provider::CryptoMode},
};

/// Time limit for opening a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The limits of a call to a service.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Time from the first byte of a request to the first byte of its response.
    pub response: Duration,
    /// Time of one attempt of a call, without the body of an object. This limit detects an endpoint that
    /// accepts a request and never responds.
    pub attempt: Duration,
    /// Time without a received byte after which a body has stalled.
    pub stall: Duration,
    /// Attempts per call, including the first.
    pub attempts: u32,
}

/// Loads the SDK's configuration from its default chain: environment, profile, container or instance role.
pub async fn configuration(limits: Limits) -> SdkConfig {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(limits.response)
        .operation_attempt_timeout(limits.attempt)
        .build();
    aws_config::from_env()
        .http_client(https_client())
        .retry_config(RetryConfig::standard().with_max_attempts(limits.attempts))
        .timeout_config(timeouts)
        .stalled_stream_protection(
            StalledStreamProtectionConfig::enabled().grace_period(limits.stall).build(),
        )
        .load()
        .await
}

/// A copy of the configuration with its own connections. A connection's buffer stays as large as its largest
/// response, so services with large responses get their own connections.
#[must_use]
pub fn with_own_connections(config: &SdkConfig) -> SdkConfig {
    config.to_builder().http_client(https_client()).build()
}

/// An S3 client.
///
/// With a custom endpoint, requests name the bucket in the path, because only AWS has a host name per bucket.
/// On AWS the SDK chooses; it uses the path for names that a TLS certificate does not cover.
#[must_use]
pub fn s3(config: &SdkConfig) -> aws_sdk_s3::Client {
    let custom_endpoint =
        config.endpoint_url().is_some() || std::env::var_os("AWS_ENDPOINT_URL_S3").is_some();
    let config = aws_sdk_s3::config::Builder::from(config).force_path_style(custom_endpoint).build();
    aws_sdk_s3::Client::from_conf(config)
}

fn https_client() -> SharedHttpClient {
    Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https()
}
