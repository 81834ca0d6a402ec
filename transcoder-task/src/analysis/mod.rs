//! Analysis of the source.
//!
//! [`ffprobe`] runs ffprobe and parses its output ([`ffprobe_json`]); [`tracks`] builds the [`media`] model
//! from it, with the tracks that [`choice`] prefers and the [`orientation`] of the picture, and [`frames`]
//! corrects it. An upload that cannot be transcoded is a [`rejection`]; [`limits`] has the limits on uploads.
//! The true lengths of the tracks are their [`extents`], from [`table_extent`], [`fragments`] or [`matroska`]
//! (the last two read the [`tail`] of the file). [`language_code`] parses the languages of tracks;
//! [`matroska_languages`] come from the file's [`ebml`] elements. [`sample_index`] reads an MP4's movie
//! header. From [`sample_table`]s and [`sample_entry`]s it builds the [`copyable_tracks`], which must pass
//! the checks of [`h264`] and [`aac`]; [`h264_level`] finds the level that an [`h264_set`] needs. Each other
//! track gets the reason why it is [`not_copyable`]. [`speed_edits`] are lost, and become warnings, and so do
//! recordings that are [`joined`].
//!
//! Other rooms call [`ffprobe`], [`sample_index`] and [`matroska`], apply the [`extents`], and decide by the
//! [`media`] model, the [`copyable_tracks`] and the [`limits`], and report a [`rejection`].

mod aac;
mod choice;
pub(crate) mod copyable_tracks;
mod ebml;
pub(crate) mod extents;
pub(crate) mod ffprobe;
mod ffprobe_json;
mod fragments;
mod frames;
pub(crate) mod h264;
mod h264_level;
mod h264_set;
pub(crate) mod joined;
pub(crate) mod language_code;
pub(crate) mod limits;
pub(crate) mod matroska;
pub(crate) mod matroska_languages;
pub(crate) mod media;
pub(crate) mod not_copyable;
pub(crate) mod orientation;
pub(crate) mod rejection;
mod sample_entry;
pub(crate) mod sample_index;
mod sample_table;
mod speed_edits;
mod table_extent;
mod tail;
mod tracks;
