//! A progress bar on stderr for commands that take longer than two seconds.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Time before the bar appears.
const DELAY: Duration = Duration::from_secs(2);

/// Shows the number of finished items: after two seconds, and only if stderr is a terminal.
#[derive(Debug)]
pub(crate) struct ProgressDisplay {
    bar: ProgressBar,
    since: Instant,
}

impl ProgressDisplay {
    /// Starts at 0. `total` is the number of all items, if known, or of those known so far.
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

    /// Adds items to the total.
    pub(crate) fn expect(&self, more: u64) {
        self.show_if_slow();
        self.bar.inc_length(more);
    }

    /// Adds finished items.
    pub(crate) fn step(&self, more: u64) {
        self.show_if_slow();
        self.bar.inc(more);
    }

    fn show_if_slow(&self) {
        if self.bar.is_hidden() && self.since.elapsed() >= DELAY {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
    }

    /// Runs a function that writes lines, with the bar hidden.
    pub(crate) fn aside<T>(&self, write: impl FnOnce() -> T) -> T {
        self.bar.suspend(write)
    }
}

impl Drop for ProgressDisplay {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
