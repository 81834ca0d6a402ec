//! The consumer: from a message in the queue to a finished video.
//!
//! The modules in the order a video meets them: [`settings`] say what is wanted; [`engine`] receives
//! messages from the [`queue`] and keeps them with the [`lease`]; [`event`] reads them; [`decide`] turns
//! them into jobs; [`life`] takes each job through its record ([`records`]), looks at the upload's
//! [`header`], by which [`sizing`] says what its task gets, takes it past the [`gate`] to a [`launch`] of
//! one of the [`tasks`], [`watch`]es it, and acts on the [`verdict`]; [`settle`] deletes the message or
//! leaves it. [`check`] looks at all of it beforehand; [`cli`] is the program.

pub mod again;
pub mod aws;
pub mod call;
pub mod check;
pub mod cli;
pub mod decide;
pub mod engine;
pub mod event;
pub mod gate;
pub mod header;
pub mod launch;
pub mod lease;
pub mod life;
pub mod queue;
pub mod records;
pub mod settings;
pub mod settle;
pub mod sizing;
pub mod tasks;
pub mod verdict;
pub mod watch;
