//! The consumer's metrics, as text for Prometheus and as lines for CloudWatch.
//!
//! Prometheus reads totals since the start. CloudWatch sums the values that it receives, so each line of
//! [`emf`] has the [`window`] since the previous line. [`Metrics`] records both, so they agree. There are no
//! global variables, and no lock is held across an await point.

mod emf;
mod recorder;
mod window;

pub use recorder::Metrics;
