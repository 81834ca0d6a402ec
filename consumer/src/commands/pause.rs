//! The commands `pause` and `resume`.

use std::io::{self, Write};

use aws_sdk_s3::{Client, primitives::ByteStream};
use clap::Args;
use jiff::Timestamp;
use vidstreamx_job::{BucketName, Layout};

use crate::{
    aws::{
        error::CallError,
        record_store::{Pause, RecordStore as _, S3RecordStore},
    },
    commands::format,
    config::PauseSettings,
};

/// Arguments of the command `pause`.
#[derive(Debug, Clone, Args)]
pub(crate) struct PauseArguments {
    /// Why the stack is paused. The consumers' logs and status endpoints show it
    #[arg(long, value_name = "TEXT", default_value = "", value_parser = short)]
    pub reason: String,

    /// The bucket.
    #[command(flatten)]
    pub settings: PauseSettings,
}

/// Maximum characters of a reason.
const LONGEST_REASON: usize = 1000;

fn short(reason: &str) -> Result<String, String> {
    if reason.chars().count() > LONGEST_REASON {
        return Err(format!("it has more than {LONGEST_REASON} characters"));
    }
    Ok(reason.to_owned())
}

/// Arguments of the command `resume`.
#[derive(Debug, Clone, Args)]
pub(crate) struct ResumeArguments {
    /// The bucket.
    #[command(flatten)]
    pub settings: PauseSettings,
}

/// An incomplete pause or resumption.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PauseError {
    /// A call failed. It may have taken effect.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The output cannot be written.
    #[error(transparent)]
    Output(#[from] io::Error),
}

/// Pauses all consumers of the stack. An earlier pause is replaced.
///
/// # Errors
/// The call failed, or the output cannot be written.
pub(crate) async fn pause(
    client: &Client,
    arguments: &PauseArguments,
    now: Timestamp,
    out: &mut impl Write,
) -> Result<(), PauseError> {
    let call = "PutObject";
    let pause = Pause { since: now, reason: arguments.reason.clone() };
    let json =
        serde_json::to_vec(&pause).map_err(|error| CallError::Passing { call, reason: error.to_string() })?;
    client
        .put_object()
        .bucket(arguments.settings.output_bucket.as_str())
        .key(Layout::pause())
        .content_type("application/json")
        .body(ByteStream::from(json))
        .send()
        .await
        .map_err(|error| CallError::new(call, &error))?;
    writeln!(
        out,
        "paused: within 15 seconds no more task is launched; running tasks go on; uploads wait in the queue"
    )?;
    Ok(())
}

/// Ends the pause of the stack.
///
/// # Errors
/// A call failed, or the output cannot be written.
pub(crate) async fn resume(
    client: &Client,
    output: &BucketName,
    out: &mut impl Write,
) -> Result<(), PauseError> {
    let paused = S3RecordStore::new(client.clone(), output.clone()).pause().await?;
    let Some(Pause { since, reason }) = paused else {
        writeln!(out, "the stack was not paused")?;
        return Ok(());
    };
    let delete = client.delete_object().bucket(output.as_str()).key(Layout::pause());
    delete.send().await.map_err(|error| CallError::new("DeleteObject", &error))?;
    let reason = if reason.is_empty() { reason } else { format!(" ({reason})") };
    let since = format::minute(since);
    writeln!(out, "resumed: the stack was paused since {since} UTC{}", format::clean(&reason))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use aws_sdk_s3::operation::{
        delete_object::DeleteObjectOutput, get_object::GetObjectOutput, put_object::PutObjectOutput,
    };
    use aws_smithy_mocks::{RuleMode, mock, mock_client};

    use super::*;

    fn settings() -> PauseSettings {
        PauseSettings { output_bucket: "streams".parse().unwrap() }
    }

    #[tokio::test]
    async fn a_pause_is_an_object_that_consumers_read() {
        let put = mock!(Client::put_object)
            .match_requests(|put| {
                put.bucket() == Some("streams")
                    && put.key() == Some(".vidstreamx/paused.json")
                    && put
                        .body()
                        .bytes()
                        .is_some_and(|json| json == br#"{"since":"1970-01-01T00:00:00Z","reason":"costs"}"#)
            })
            .then_output(|| PutObjectOutput::builder().build());
        let client = mock_client!(aws_sdk_s3, RuleMode::MatchAny, [&put]);
        let arguments = PauseArguments { reason: "costs".into(), settings: settings() };
        let mut out = Vec::new();
        pause(&client, &arguments, Timestamp::UNIX_EPOCH, &mut out).await.unwrap();
        assert!(String::from_utf8(out).unwrap().starts_with("paused: "));
    }

    #[tokio::test]
    async fn a_resumption_says_what_it_ends() {
        let get = mock!(Client::get_object).then_output(|| {
            let json = br#"{"since":"2026-05-04T09:12:33Z","reason":"costs\u001b[2J"}"#;
            GetObjectOutput::builder().body(ByteStream::from_static(json)).build()
        });
        let delete = mock!(Client::delete_object)
            .match_requests(|delete| delete.key() == Some(".vidstreamx/paused.json"))
            .then_output(|| DeleteObjectOutput::builder().build());
        let client = mock_client!(aws_sdk_s3, RuleMode::MatchAny, [&get, &delete]);
        let mut out = Vec::new();
        resume(&client, &settings().output_bucket, &mut out).await.unwrap();
        let out = String::from_utf8(out).unwrap();
        assert!(out.starts_with("resumed: the stack was paused since 2026-05-04 09:12 UTC (costs"), "{out}");
        assert!(!out.contains('\u{1b}') && delete.num_calls() == 1, "{out}");

        let missing = mock!(Client::get_object)
            .sequence()
            .http_status(404, Some("<Error><Code>NoSuchKey</Code></Error>".into()))
            .repeatedly()
            .build();
        let client = mock_client!(aws_sdk_s3, RuleMode::MatchAny, [&missing]);
        let mut out = Vec::new();
        resume(&client, &settings().output_bucket, &mut out).await.unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "the stack was not paused\n");
    }
}
