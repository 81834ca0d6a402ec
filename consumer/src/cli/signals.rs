//! SIGTERM and SIGINT.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::exit::FORCED;

/// The first signal shuts the program down gracefully; the second one ends it at once.
pub(super) fn watch_signals(shutdown: CancellationToken) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if shutdown.is_cancelled() {
                error!("second signal: ending at once");
                std::process::exit(FORCED.into());
            }
            shutdown.cancel();
        }
    });
    Ok(())
}
