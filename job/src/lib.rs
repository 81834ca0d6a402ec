//! The contract between VidStreamX's two programs.
//!
//! The consumer starts the transcoder task, the task answers with an exit code and a report. What
//! both must agree on is here, and nothing else: the [`Job`] and its way through a container's
//! environment, where things are in S3 ([`Layout`]), the [`Exit`] codes, the consumer's
//! [`Record`] of a job, the task's [`Progress`] while it runs and its [`Report`] at the end.

mod exit;
mod identity;
mod job;
mod layout;
mod location;
mod progress;
mod record;
mod report;
mod schema;

pub use exit::Exit;
pub use identity::{InvalidJobId, JobId};
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
