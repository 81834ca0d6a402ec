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

pub mod aws;
pub mod cli;
pub mod commands;
pub mod config;
pub mod http;
pub mod inspect;
pub mod intake;
pub mod metrics;
pub mod reconcile;
pub mod sizing;
