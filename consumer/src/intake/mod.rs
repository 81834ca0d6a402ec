//! From the queue to jobs, and back to the queue.
//!
//! `receive_loop` receives messages, keeps them invisible by `visibility` and counts their videos as
//! `in_flight`. `notification` decodes a message's body, and `decide` turns notifications into jobs.
//! When all jobs of a message have ended, `settle` deletes the message or returns it; a `dead_letter`
//! tells about a job that failed.
//!
//! From outside, call [`run`] with [`Options`]. The commands read and write `notification`s and the
//! attributes of `dead_letter`s.

pub mod dead_letter;
mod decide;
mod in_flight;
pub mod notification;
mod receive_loop;
mod settle;
mod visibility;

pub use decide::Rules;
pub use receive_loop::{Options, run};
