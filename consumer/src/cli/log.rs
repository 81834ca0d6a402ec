//! The program's log.

use std::io;

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum LogFormat {
    Text,
    Json,
}

/// A validated filter. It is kept as text, because clap needs values that can be cloned, and `EnvFilter`
/// cannot.
#[derive(Debug, Clone)]
pub(super) struct LogFilter(String);

pub(super) fn log_filter(text: &str) -> Result<LogFilter, String> {
    if text.is_empty() {
        return Err("it is empty".to_owned());
    }
    EnvFilter::try_new(text).map(|_| LogFilter(text.to_owned())).map_err(|error| error.to_string())
}

pub(super) fn start_log(format: LogFormat, filter: &LogFilter) {
    let log = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(&filter.0))
        .with_target(false)
        .with_writer(io::stderr);
    match format {
        LogFormat::Text => log.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).init(),
        LogFormat::Json => log.json().flatten_event(true).with_span_list(false).init(),
    }
}
