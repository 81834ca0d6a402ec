//! Formats clap's usage errors as one line.

use clap::{
    CommandFactory as _,
    error::{ContextKind, ContextValue, ErrorKind},
};

use super::arguments::Cli;

/// Clap's error as one line that names the setting by flag and variable.
pub(super) fn usage(error: &clap::Error) -> String {
    let named = |kind| match error.get(kind) {
        Some(ContextValue::String(name)) => vec![name.as_str()],
        Some(ContextValue::Strings(names)) => names.iter().map(String::as_str).collect(),
        _ => Vec::new(),
    };
    let settings =
        named(ContextKind::InvalidArg).into_iter().map(with_variable).collect::<Vec<_>>().join(", ");
    let value = named(ContextKind::InvalidValue).first().copied().unwrap_or_default();
    match error.kind() {
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            "no command given: run, check, history, submit, redrive, pause, resume, cancel, delete or prune \
             (see --help)"
                .to_owned()
        }
        ErrorKind::MissingRequiredArgument => format!("not set: {settings}"),
        _ if value.is_empty() && !settings.is_empty() => {
            let cause = error.to_string();
            if matches!(error.kind(), ErrorKind::UnknownArgument | ErrorKind::ArgumentConflict) {
                first_line(&cause).to_owned()
            } else {
                format!("{settings} is empty")
            }
        }
        ErrorKind::ValueValidation | ErrorKind::InvalidValue => {
            let cause = std::error::Error::source(error).map(ToString::to_string);
            let valid = named(ContextKind::ValidValue).join(", ");
            let cause = cause.unwrap_or_else(|| format!("it should be one of: {valid}"));
            format!("{settings}: \"{value}\": {cause}")
        }
        _ => first_line(&error.to_string()).to_owned(),
    }
}

/// Formats a flag with its variable: `--queue-url <QUEUE_URL>` becomes `--queue-url (VIDSTREAMX_QUEUE_URL)`.
fn with_variable(argument: &str) -> String {
    if !argument.starts_with('-') {
        return argument.to_owned();
    }
    let flag = argument.split([' ', '=', '[']).next().unwrap_or(argument);
    let cli = Cli::command();
    let of_commands = cli.get_subcommands().flat_map(clap::Command::get_arguments);
    let variable = cli
        .get_arguments()
        .chain(of_commands)
        .find(|found| found.get_long().is_some_and(|long| flag.strip_prefix("--") == Some(long)))
        .and_then(clap::Arg::get_env);
    variable.map_or_else(|| flag.to_owned(), |variable| format!("{flag} ({})", variable.to_string_lossy()))
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default().trim_start_matches("error: ")
}
