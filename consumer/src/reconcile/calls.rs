//! Retries of AWS calls that must succeed before a job can continue.
//!
//! The retry loop is written by hand, because a shutdown ends its pauses but not its calls, and because a
//! wrong setting lengthens the pauses.

use std::{sync::Arc, time::Duration};

use futures::future::BoxFuture;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};
use vidstreamx_job::{Backoff, jittered};

use crate::{aws::error::CallError, metrics::Metrics};

/// Pauses between retries of a call.
const BACKOFF: Backoff = Backoff { first: Duration::from_millis(500), longest: Duration::from_secs(30) };
/// Pause before a retry if an operator must act.
const CONFIGURATION_PAUSE: Duration = Duration::from_mins(1);

/// The consumer shuts down.
#[derive(Debug)]
pub(super) struct ShuttingDown;

/// Retries calls until they succeed or the consumer shuts down.
#[derive(Debug, Clone)]
pub(super) struct Calls {
    shutdown: CancellationToken,
    metrics: Arc<Metrics>,
}

impl Calls {
    pub(super) const fn new(shutdown: CancellationToken, metrics: Arc<Metrics>) -> Self {
        Self { shutdown, metrics }
    }

    /// Repeats the call until it succeeds. A shutdown ends the pauses between calls, but not the calls.
    ///
    /// # Errors
    /// The consumer shuts down.
    pub(super) async fn until_done<T, F>(&self, call: impl Fn() -> F) -> Result<T, ShuttingDown>
    where
        F: Future<Output = Result<T, CallError>>,
    {
        let mut failures = 0;
        let mut has_warned = false;
        loop {
            let error = match call().await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            failures += 1;
            let pause = if error.is_configuration() {
                self.metrics.misconfigured(&error.to_string());
                let retry_seconds = CONFIGURATION_PAUSE.as_secs();
                error!(%error, retry_seconds, "a permission or resource is missing");
                jittered(CONFIGURATION_PAUSE)
            } else {
                if !std::mem::replace(&mut has_warned, true) {
                    warn!(%error, "a call to AWS failed; retrying until it succeeds");
                }
                BACKOFF.pause(failures)
            };
            self.unless_shutdown(sleep(pause)).await?;
        }
    }

    /// Waits for the future or the shutdown. The future is boxed to keep the memory of the many waiting jobs
    /// small.
    pub(super) fn unless_shutdown<'a, T>(
        &'a self,
        future: impl Future<Output = T> + Send + 'a,
    ) -> BoxFuture<'a, Result<T, ShuttingDown>> {
        Box::pin(async move {
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => Err(ShuttingDown),
                output = future => Ok(output),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::fixtures::Log;

    #[tokio::test(start_paused = true)]
    async fn the_first_temporary_failure_is_logged_even_after_a_configuration_error() {
        let (log, _logging) = Log::start();
        let temporary = || CallError::Passing { call: "GetObject", reason: "503".into() };
        let configuration =
            CallError::Configuration { call: "GetObject", reason: "denied".into(), credentials: false };
        let results =
            Mutex::new([Err(configuration), Err(temporary()), Err(temporary()), Ok("body")].into_iter());
        let calls = Calls::new(CancellationToken::new(), Arc::new(Metrics::new("videos")));
        let call = || async { results.lock().unwrap().next().unwrap() };
        assert_eq!(calls.until_done(call).await.unwrap(), "body");
        assert_eq!(log.lines("a permission or resource is missing").len(), 1);
        assert_eq!(log.lines("a call to AWS failed; retrying until it succeeds").len(), 1);
    }
}
