//! The identity of a plan's output.

use sha2::{Digest, Sha256};
use vidstreamx_job::hex_prefix;

use crate::plan::model::Plan;

use super::arguments::{arguments, processes};

/// Eight hex digits, stable for identical plans, arguments and versions. Output published under the same id
/// stays valid, and a later attempt may continue it. `made_by` holds all other inputs that determine the
/// output's bytes.
#[must_use]
pub(crate) fn plan_id(plan: &Plan, made_by: &[&str]) -> String {
    let processes = processes(plan, None);
    let arguments: Vec<_> = processes.iter().map(|process| arguments(plan, process, &[], "", 0)).collect();
    let content = format!("{plan:?} {arguments:?} {made_by:?} {}", env!("CARGO_PKG_VERSION"));
    hex_prefix(Sha256::digest(content), 4)
}
