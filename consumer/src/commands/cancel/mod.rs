//! The command `cancel`: ends jobs for an operator. [`command`] finds the jobs and follows them to their end,
//! [`stream`] removes what their tasks have published. How an operator and the consumers agree is in
//! [`crate::reconcile::cancellation`].

mod arguments;
mod command;
mod stream;

pub(crate) use arguments::Arguments;
pub(crate) use command::{CancelError, Services, cancel};
