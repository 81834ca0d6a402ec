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
    let log = tracing_subscriber::fmt().with_env_filter(EnvFilter::new(&filter.0)).with_target(false);
    match format {
        LogFormat::Text => {
            let is_terminal = io::IsTerminal::is_terminal(&io::stderr());
            log.with_ansi(is_terminal).with_writer(|| OneLine(io::stderr())).init();
        }
        LogFormat::Json => {
            log.with_writer(io::stderr).json().flatten_event(true).with_span_list(false).init();
        }
    }
}

/// Writes each event on one line. Errors quote keys, and keys can contain line breaks, with which an uploader
/// could forge log lines. The subscriber escapes other control characters, and writes an event at once.
struct OneLine<W>(W);

impl<W: io::Write> io::Write for OneLine<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let is_break = |byte: u8| matches!(byte, b'\n' | b'\r');
        let end = event.iter().rposition(|byte| !is_break(*byte)).map_or(0, |last| last + 1);
        let mut line = event.to_vec();
        line.iter_mut().take(end).filter(|byte| is_break(**byte)).for_each(|byte| *byte = b' ');
        self.0.write_all(&line)?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn an_event_is_one_line() {
        let mut out = Vec::new();
        OneLine(&mut out).write_all(b"WARN a key: x\r\nINFO forged\nline\n").unwrap();
        OneLine(&mut out).write_all(b"\n").unwrap();
        assert_eq!(out, b"WARN a key: x  INFO forged line\n\n");
    }
}
