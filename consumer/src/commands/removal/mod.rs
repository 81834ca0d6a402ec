//! The parts that `delete` and `prune` share. [`kind`] knows which objects belong to an upload, and
//! [`remover`] deletes them.

#[cfg(test)]
pub(crate) mod fake_s3;
pub(crate) mod kind;
pub(crate) mod remover;

pub(crate) use remover::RemovalError;
