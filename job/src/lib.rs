//! The contract between VidStreamX's two programs.
//!
//! The consumer starts the transcoder task. The task returns an exit code and a report. This crate defines
//! only the data that both share: the [`Job`] and its encoding in a container's environment, the object keys
//! in the output bucket ([`Layout`]), the [`Exit`] codes, the consumer's [`Record`] of a job, the
//! [`Progress`] of a running task, its [`Report`] at the end, and the [`DEMUXERS`] that may open an upload.
//! [`Backoff`] and the text helpers are used by both programs.

mod backoff;
mod exit;
mod identity;
mod input;
mod job;
mod layout;
mod location;
mod progress;
mod record;
mod report;
mod schema;
mod text;

pub use backoff::{Backoff, jittered};
pub use exit::Exit;
pub use identity::{InvalidJobId, JobId};
pub use input::DEMUXERS;
pub use job::{EnvError, Job, Source, env};
pub use layout::{Layout, RECORDS_PREFIX};
pub use location::{BucketName, InvalidLocation, ObjectKey, S3Uri};
pub use progress::{Progress, RungProgress, Stage};
pub use record::{Attempt, Capacity, Record, Restart, Size, State};
pub use report::{
    AudioTrack, Chapter, Outcome, Probe, Rendition, RenditionKind, Report, SubtitleTrack, Timings, Verified,
    VideoTrack,
};
pub use schema::SchemaError;
pub use text::{hex_prefix, unquote_etag};
