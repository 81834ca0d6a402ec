//! The consumer: from a message in the queue to a finished video.
//!
//! The modules in the order a video meets them: [`settings`] say what is wanted; [`engine`] receives
//! messages from the [`queue`] and keeps them with the [`lease`]; [`event`] reads them; [`decide`] turns
//! them into jobs; [`life`] takes each job through its record ([`records`]), looks at the upload's
//! [`header`], by which [`sizing`] says what its task gets, takes it past the [`gate`] to a [`launch`] of
//! one of the [`tasks`], [`watch`]es it, and acts on the [`verdict`]; [`settle`] deletes the message, or
//! puts it aside as a [`dead_letter`]. [`metrics`] count what happens, and [`status`] shows them. [`check`]
//! looks at all of it beforehand; [`history`] shows what became of videos, [`submit`] puts into the queue
//! what is in the bucket already, [`redrive`] what was set aside; [`cli`] is the program.

pub mod again;
pub mod aws;
pub mod call;
pub mod check;
pub mod cli;
pub mod dead_letter;
pub mod decide;
pub mod engine;
pub mod event;
pub mod gate;
pub mod header;
pub mod history;
pub mod launch;
pub mod lease;
pub mod life;
pub mod metrics;
pub mod queue;
pub mod records;
pub mod redrive;
pub mod send;
pub mod settings;
pub mod settle;
pub mod sizing;
pub mod status;
pub mod submit;
pub mod tasks;
pub mod verdict;
pub mod waiting;
pub mod watch;
pub mod words;
