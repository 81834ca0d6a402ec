//! Arguments of the command `history`.

use clap::{
    Args,
    builder::{NonEmptyStringValueParser, PossibleValuesParser, TypedValueParser},
};
use vidstreamx_job::State;

use super::since::Since;
use crate::{commands::format, config::HistorySettings};

/// The query.
#[derive(Debug, Clone, Args)]
pub(crate) struct Arguments {
    /// Show everything about this job (its id) or about all jobs of this upload (its key, or
    /// s3://BUCKET/KEY). Reads only the records of this job or key
    #[arg(value_name = "JOB ID | KEY", value_parser = NonEmptyStringValueParser::new())]
    pub job: Option<String>,

    /// Only records that were updated since then: a span such as 90m, 24h or 7d, or a date in UTC such as
    /// 2026-05-04. By default, a list covers 24h, and the records of a job or upload may have any age
    #[arg(long, value_name = "WHEN")]
    pub since: Option<Since>,

    /// Only these states, separated by commas
    #[arg(long, value_delimiter = ',', conflicts_with = "job", value_parser = state())]
    pub state: Vec<State>,

    /// Only keys that contain this text
    #[arg(long, value_name = "TEXT", conflicts_with = "job", value_parser = NonEmptyStringValueParser::new())]
    pub key: Option<String>,

    /// Print one JSON object per video, on one line: the record, with the progress if the job runs
    #[arg(long)]
    pub json: bool,

    /// The buckets.
    #[command(flatten)]
    pub settings: HistorySettings,
}

fn state() -> impl TypedValueParser<Value = State> {
    PossibleValuesParser::new(format::STATES.map(State::name))
        .map(|name| format::STATES.into_iter().find(|state| state.name() == name).unwrap_or(State::Running))
}
