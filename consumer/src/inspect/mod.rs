//! The inspection of an upload before a task is paid for: a few small reads of its [`header`].

pub mod header;
