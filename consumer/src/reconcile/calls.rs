//! Retries of AWS calls that must succeed before a job can continue.
//!
//! The retry loop is written by hand, because a shutdown ends its pauses but not its calls. A call that fails
//! for longer is given up, so that its job can wait apart, without a place in flight.

use std::{sync::Arc, time::Duration};

use futures::future::BoxFuture;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};
use vidstreamx_job::Backoff;

use super::shared_causes::{Kind, SharedCauses};
use crate::{
    aws::{error::CallError, sqs::QueueKind},
    metrics::Metrics,
};

/// Pauses between retries of a call.
const BACKOFF: Backoff = Backoff { first: Duration::from_millis(500), longest: Duration::from_secs(8) };
/// Number of tries of a call, which take about half a minute.
const TRIES: u32 = 6;

/// The consumer shuts down.
#[derive(Debug)]
pub(super) struct ShuttingDown;

/// The reason why a call is given up.
#[derive(Debug)]
pub(super) enum CallEnd {
    ShuttingDown,
    /// All tries failed. The call may have taken effect.
    Failed(Kind, CallError),
}

impl From<ShuttingDown> for CallEnd {
    fn from(_: ShuttingDown) -> Self {
        Self::ShuttingDown
    }
}

/// Retries calls until they succeed or the consumer shuts down.
#[derive(Debug, Clone)]
pub(super) struct Calls {
    shutdown: CancellationToken,
    causes: Arc<SharedCauses>,
    metrics: Arc<Metrics>,
}

impl Calls {
    pub(super) const fn new(
        shutdown: CancellationToken,
        causes: Arc<SharedCauses>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { shutdown, causes, metrics }
    }

    /// Repeats the call some times until it succeeds. A shutdown ends the pauses between calls, but not the
    /// calls. If an operator must act, the call is not repeated here.
    ///
    /// # Errors
    /// All tries failed, or the consumer shuts down.
    pub(super) async fn with_retries<T, F>(&self, kind: Kind, call: impl Fn() -> F) -> Result<T, CallEnd>
    where
        F: Future<Output = Result<T, CallError>>,
    {
        let mut failures = 0;
        loop {
            let error = match call().await {
                Ok(answer) => {
                    self.causes.succeeded(kind);
                    return Ok(answer);
                }
                Err(error) => error,
            };
            failures += 1;
            if error.is_configuration() {
                self.metrics.misconfigured(QueueKind::Uploads, &error.to_string());
                error!(%error, "a permission or resource is missing");
                return Err(CallEnd::Failed(kind, error));
            }
            if failures == TRIES {
                return Err(CallEnd::Failed(kind, error));
            }
            if failures == 1 {
                warn!(%error, "a call to AWS failed; it is repeated");
            }
            self.unless_shutdown(sleep(BACKOFF.pause(failures))).await?;
        }
    }

    /// Records that a call of this kind succeeded that was made in another way.
    pub(super) fn succeeded(&self, kind: Kind) {
        self.causes.succeeded(kind);
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

    fn calls() -> Calls {
        let metrics = Arc::new(Metrics::new("videos"));
        Calls::new(CancellationToken::new(), Arc::new(SharedCauses::new(metrics.clone())), metrics)
    }

    #[tokio::test(start_paused = true)]
    async fn a_temporary_failure_is_logged_once_and_repeated() {
        let (log, _logging) = Log::start();
        let temporary = || CallError::Passing { call: "GetObject", reason: "503".into() };
        let results = Mutex::new([Err(temporary()), Err(temporary()), Ok("body")].into_iter());
        let call = || async { results.lock().unwrap().next().unwrap() };
        assert_eq!(calls().with_retries(Kind::ReadRecord, call).await.unwrap(), "body");
        assert_eq!(log.lines("a call to AWS failed; it is repeated").len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_is_given_up_after_half_a_minute_or_at_once_if_an_operator_must_act() {
        let start = tokio::time::Instant::now();
        let temporary = || CallError::Passing { call: "GetObject", reason: "503".into() };
        let end = calls().with_retries(Kind::ReadRecord, || async { Err::<(), _>(temporary()) }).await;
        assert!(matches!(end, Err(CallEnd::Failed(_, CallError::Passing { .. }))));
        assert!((5..30).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());

        let start = tokio::time::Instant::now();
        let configuration =
            || CallError::Configuration { call: "GetObject", reason: "denied".into(), credentials: false };
        let end = calls().with_retries(Kind::ReadRecord, || async { Err::<(), _>(configuration()) }).await;
        assert!(matches!(end, Err(CallEnd::Failed(_, CallError::Configuration { .. }))));
        assert_eq!(start.elapsed(), Duration::ZERO);
    }
}
