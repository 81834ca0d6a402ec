//! Translates a plan for FFmpeg.
//!
//! [`arguments`] builds the command lines, with filters from [`framing`], [`colour`], [`wide_gamut`],
//! [`hold`] and [`stills`], and lookup tables from [`tone_map`]. [`primaries`] has their matrices.
//! [`mod@plan_id`] identifies the output that they produce. [`loudness`] measures audio before the plan is
//! complete.
//!
//! `task` uses [`arguments`], [`colour::cube`], [`loudness`] and [`plan_id()`].

pub(crate) mod arguments;
mod audio_input;
pub(crate) mod colour;
mod framing;
mod hold;
pub(crate) mod loudness;
mod plan_id;
mod primaries;
pub(crate) mod stills;
mod tone_map;
mod wide_gamut;

pub(crate) use plan_id::plan_id;
