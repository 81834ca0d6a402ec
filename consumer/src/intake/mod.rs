//! From the queue to jobs, and back to the queue.
//!
//! [`receive_loop`] receives messages. [`visibility`] keeps them invisible. [`notification`] decodes a
//! message's body, and [`decide`] turns notifications into jobs. When all jobs of a message have ended,
//! [`settle`] deletes the message or returns it. [`dead_letter`] builds the messages about failed jobs.
//!
//! The public interface is [`run`] with [`Options`]. The commands read and write [`notification`]s and the
//! attributes of [`dead_letter`]s.

pub mod dead_letter;
mod decide;
pub mod notification;
mod receive_loop;
mod settle;
mod visibility;

use tracing::{Span, error_span};

pub use decide::DecisionSettings;
pub use receive_loop::{Options, run};

/// The context of a message's log lines. Its level is error, so that warnings have the context at every log
/// level. Create it for each step and not for a message's whole time, because ten thousand messages may wait.
fn message_span(id: &str) -> Span {
    error_span!("message", message.id = id)
}
