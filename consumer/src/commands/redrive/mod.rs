//! Redrive: sends dead letters back to the queue after the cause of the failures is corrected.
//!
//! A message is sent first and then deleted. A failure in between leaves it in both queues. This does no
//! harm, because each restart request restarts a job once.
//!
//! [`arguments`] selects the messages that [`command`] sends back. [`letter`] parses the messages of the
//! dead-letter queue.

mod arguments;
mod command;
mod letter;

pub(crate) use arguments::Arguments;
pub(crate) use command::{RedriveError, redrive};
