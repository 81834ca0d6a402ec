//! Prune: removes objects that nothing uses any more.
//!
//! # Why this is safe
//!
//! **Viewers** begin at the stable address. Caches keep a playlist or manifest there for at most ten seconds,
//! but the files in a job's folder for a year, and a player fetches segments for as long as somebody watches.
//! So a folder is in use while the stable address names it, and for some time after that. Three objects name
//! folders: `master.m3u8`, `manifest.mpd`, and `job.json` if its outcome is complete, because pages find MP4
//! files and images by it. A folder that none of them names is removed only if nothing in it was written for
//! [`decide::SAFE_AGE`]. The folder of a job that was done is removed only after the time that the operator
//! gives, counted from the end of the job that replaced it.
//!
//! **Tasks** write to the folder of their job. The record of a job is *running* before its task starts and
//! until its task has ended, so objects of such a job stay, with all others of the same upload: a growing
//! stream can be taken back, and then the previous one returns to the stable address. The playlist for this
//! is `<job id>/replaced.m3u8`. The folder that it names counts as in use while a stream that is not done is
//! at the stable address. Other playlists of this kind are removed before the folder that they name, so that
//! no restart brings a stream back whose segments are gone.
//!
//! **Restarts** begin with a write of the record. The record is read again before each page of at most 1,000
//! deletions, and a restarted task needs longer to start than a page takes. A checkpoint is deleted before
//! its segments, so a task that starts later does not resume from missing segments. It publishes into another
//! folder, or begins again.
//!
//! **Other objects** stay. A folder counts as a job's only if its record says so, or if its name begins with
//! the digits that belong to the stem's key. A record that cannot be read counts as running.
//!
//! [`arguments`] has the options. [`walk`] finds the folders of jobs in bounded memory, [`references`] reads
//! which folders are named, and [`decide`] chooses what to remove. [`stem`] removes it for one upload, and
//! [`command`] runs all of it.

mod arguments;
mod command;
mod decide;
mod references;
mod stem;
mod walk;

pub(crate) use arguments::Arguments;
pub(crate) use command::{PruneError, prune};
