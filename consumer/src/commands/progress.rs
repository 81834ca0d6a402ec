//! A sign of life on stderr for what takes longer than people wait without asking.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Less needs no sign.
const QUIET: Duration = Duration::from_secs(2);

/// Counts what was done. Nothing is shown for the first two seconds, and ever where stderr is no terminal.
#[derive(Debug)]
pub(crate) struct ProgressDisplay {
    bar: ProgressBar,
    since: Instant,
}

impl ProgressDisplay {
    /// Starts to count, up to `total` if that is known.
    #[must_use]
    pub(crate) fn new(what: &'static str, total: Option<u64>) -> Self {
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::hidden()).with_message(what);
        let template = if total.is_some() {
            "{bar:30} {human_pos} of {human_len} {msg}, {eta} left"
        } else {
            "{spinner} {human_pos} {msg}"
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self { bar, since: Instant::now() }
    }

    /// So many more were done.
    pub(crate) fn step(&self, more: u64) {
        if self.bar.is_hidden() && self.since.elapsed() >= QUIET {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        self.bar.inc(more);
    }

    /// Runs what writes lines, with the bar out of their way.
    pub(crate) fn aside<T>(&self, write: impl FnOnce() -> T) -> T {
        self.bar.suspend(write)
    }
}

impl Drop for ProgressDisplay {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
