//! The plan: the renditions of a source, decided before any encoding by pure functions.
//!
//! [`builder`] builds the plan's [`model`] from the [`ladder`], the [`audio`] tracks and the subtitles, and
//! decides whether the top rung is copied. [`copyable`] finds the tracks that allow it; [`keyframes`] chooses
//! where their segments begin. [`segmentation`] holds the boundaries of all segments. [`colour`], [`gain`],
//! [`hold`], [`language`] and [`still_interval`] decide single properties. [`resume_point`] is the point
//! where an attempt starts after an interruption.
//!
//! `task` builds a [`model::Plan`]. Other rooms read the plan, and call the modules of single properties and
//! of boundaries.

mod audio;
mod builder;
pub(crate) mod colour;
pub(crate) mod copyable;
pub(crate) mod gain;
pub(crate) mod hold;
mod keyframes;
mod ladder;
pub(crate) mod language;
pub(crate) mod model;
pub(crate) mod resume_point;
pub(crate) mod segmentation;
pub(crate) mod still_interval;

#[cfg(test)]
mod tests;
