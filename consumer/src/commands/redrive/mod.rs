//! Redrive: sends dead letters back to the queue after their cause is gone.
//!
//! A message is sent first and then deleted. A failure in between leaves it in both queues. This does no
//! harm, because each restart request restarts a job once.
//!
//! [`arguments`] selects the messages that [`command`] sends back. A [`letter`] is a message of the
//! dead-letter queue.

mod arguments;
mod command;
mod letter;

pub(crate) use arguments::Arguments;
pub(crate) use command::{RedriveError, redrive};
