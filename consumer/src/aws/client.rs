//! Configures the AWS SDK, and checks its prerequisites before the first call.

use std::time::Duration;

use aws_config::SdkConfig;
use aws_credential_types::provider::{ProvideCredentials, error::CredentialsError};
use tracing::warn;
use vidstreamx_aws::Limits;

use crate::aws::error::chain;

/// A missing prerequisite of AWS calls.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SetupError {
    /// Environment, profile and instance have no Region.
    #[error("AWS_REGION is not set, and no profile or instance says which Region to use")]
    Region,
    /// The SDK found no credentials.
    #[error("there are no AWS credentials (environment, profile, container or instance role): {0}")]
    Credentials(CredentialsError),
}

/// The time limits are short, because requests and responses are small, except for records. `attempts` and
/// `stall` have the SDK's default values.
const LIMITS: Limits = Limits {
    response: Duration::from_secs(10),
    attempt: Duration::from_secs(20),
    stall: Duration::from_secs(20),
    attempts: 3,
};

/// Loads the SDK's configuration, and checks that it has a Region and credentials.
///
/// # Errors
/// One of them is missing.
pub(crate) async fn configuration() -> Result<SdkConfig, SetupError> {
    let config = vidstreamx_aws::configuration(LIMITS).await;
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
            // The source of the credentials does not respond yet, for example on a booting instance. The SDK
            // retries.
            Err(error) => warn!(error = chain(&error), "no AWS credentials yet"),
        }
    }
    Ok(config)
}
