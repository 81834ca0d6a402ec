//! Analysis of the source.
//!
//! [`ffprobe`] runs ffprobe and parses its output ([`ffprobe_json`]); [`tracks`] builds the [`media`] model
//! from it, with the [`orientation`] of the picture, and [`frames`] corrects it. An upload that cannot be transcoded is a [`rejection`]; [`limits`] has the limits on uploads.
//! [`sample_index`] reads an MP4's movie header. From [`sample_table`]s and [`sample_entry`]s it builds the
//! [`copyable_tracks`], which must pass the checks of [`h264`] and [`aac`]. Each other track gets the reason
//! why it is [`not_copyable`].
//!
//! Other rooms call [`ffprobe`] and [`sample_index`], decide by the [`media`] model, the
//! [`copyable_tracks`] and the [`limits`], and report a [`rejection`].

mod aac;
pub(crate) mod copyable_tracks;
pub(crate) mod ffprobe;
mod ffprobe_json;
mod frames;
pub(crate) mod h264;
pub(crate) mod limits;
pub(crate) mod media;
pub(crate) mod not_copyable;
pub(crate) mod orientation;
pub(crate) mod rejection;
mod sample_entry;
pub(crate) mod sample_index;
mod sample_table;
mod tracks;
