//! From the queue to jobs, and back to the queue.
//!
//! [`receive_loop`] receives messages and keeps them invisible by [`visibility`]; [`notification`] decodes a
//! message's body; [`decide`] turns notifications into jobs; [`restart`] is a request that comes with a
//! message; [`settle`] deletes a message or returns it when all its jobs have ended; [`dead_letter`] is the
//! message about a job that failed.

pub mod dead_letter;
pub mod decide;
pub mod notification;
pub mod receive_loop;
pub mod settle;
pub mod visibility;
