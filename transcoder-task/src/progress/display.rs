//! Progress for people, on stderr.

use std::{convert::Infallible, io::IsTerminal, time::Duration};

use indicatif::{FormattedDuration, ProgressBar, ProgressStyle};
use jiff::{Timestamp, Unit};
use tokio::time::Instant;

use super::state::{ProgressState, State};

/// Time between log lines.
const LOG_INTERVAL: Duration = Duration::from_secs(5);

/// Displays the progress until the future is dropped: a bar on a terminal, log lines otherwise.
pub(crate) async fn show(progress_state: &ProgressState) -> Infallible {
    let mut states = progress_state.subscribe();
    let mut display = Display::default();
    while states.changed().await.is_ok() {
        display.show(&states.borrow_and_update());
    }
    // Not reached: the sender is borrowed, so it outlives this function.
    std::future::pending().await
}

#[derive(Default)]
struct Display {
    bar: Option<ProgressBar>,
    logged: Option<Instant>,
}

impl Display {
    /// Length of the bar.
    const STEPS: u64 = 1000;

    fn show(&mut self, state: &State) {
        let now = Instant::now();
        let Some(stage) = state.stage.filter(|_| !state.is_end() && state.share.has_moved()) else { return };
        let left = state.left(now);
        let speed = state.speed.map(|speed| format!("{speed:.1}x"));
        if std::io::stderr().is_terminal() {
            let bar = self.bar.get_or_insert_with(Self::new_bar);
            bar.set_position((state.share.done * Self::STEPS as f64) as u64);
            let left = left.map(|left| format!("  ETA {}", FormattedDuration(left)));
            bar.set_message(format!("{}{}", speed.unwrap_or_default(), left.unwrap_or_default()));
        } else if self.logged.is_none_or(|logged| now.duration_since(logged) >= LOG_INTERVAL) {
            self.logged = Some(now);
            let end = left.and_then(|left| Timestamp::now().checked_add(left).ok()?.round(Unit::Second).ok());
            let names: Vec<_> = state.rungs.iter().map(|rung| rung.name.as_str()).collect();
            tracing::info!(
                stage = ?stage,
                percent = (state.share.done * 100.0) as u64,
                speed,
                expected_end = end.map(|end| end.to_string()),
                rungs = names.join(" "),
                "progress"
            );
        }
    }

    fn new_bar() -> ProgressBar {
        let bar = ProgressBar::new(Self::STEPS);
        if let Ok(style) = ProgressStyle::with_template("{bar:40} {percent:>3}%  {msg}") {
            bar.set_style(style);
        }
        bar
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
