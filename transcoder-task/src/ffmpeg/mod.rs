//! The form in which FFmpeg gets a plan.
//!
//! [`arguments`] builds the command lines from the plan, with filters for [`colour`]s and [`tone_map`]s.
//! [`plan_id`] identifies the output they produce. [`loudness`] measures audio before the plan is complete.

pub(crate) mod arguments;
pub(crate) mod colour;
pub(crate) mod loudness;
mod plan_id;
mod tone_map;

pub(crate) use plan_id::plan_id;
