//! Formats a window of metrics as a line of CloudWatch's embedded metric format: a JSON object with the
//! values, and with their definitions for CloudWatch.
//!
//! See "Specification: Embedded metric format" in the Amazon CloudWatch User Guide.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::window::{EndedVideos, MOST_VALUES, Window};

const NAMESPACE: &str = "VidStreamX";
/// The only dimension of all metrics: the name of the ECS cluster, which identifies the stack.
const DIMENSION: &str = "Cluster";

/// The gauges at the time of a line.
#[derive(Debug, Clone, Copy)]
pub(super) struct Gauges {
    pub(super) in_flight: i64,
    pub(super) refused_for: Duration,
    pub(super) misconfigured: bool,
}

/// Formats a line. Metrics without a value are left out, because AWS bills each metric by the hours in which
/// it has values. The gauges are in every line and show that the consumer runs.
pub(super) fn line(window: Window, gauges: Gauges, cluster: &str, at: Timestamp) -> String {
    let misconfigured = window.misconfigured || gauges.misconfigured;
    let EndedVideos { done, rejected, obsolete, failed, cancelled } = window.ended;
    let failure_share = failure_share(window.ended);
    let mut metrics = BTreeMap::from([
        ("InFlight", (json!(gauges.in_flight), "Count")),
        ("LaunchesRefusedFor", (rounded(gauges.refused_for.as_secs_f64()), "Seconds")),
        ("Misconfigured", (json!(u8::from(misconfigured)), "None")),
    ]);
    for (name, count) in [
        ("VideosDone", done),
        ("VideosRejected", rejected),
        ("VideosObsolete", obsolete),
        ("VideosFailed", failed),
        ("VideosCancelled", cancelled),
        ("LaunchesRefused", window.launches_refused),
        ("DeadLettered", window.dead_lettered),
    ] {
        if count > 0 {
            metrics.insert(name, (json!(count), "Count"));
        }
    }
    if window.cost_usd > 0.0 {
        metrics.insert("CostUSD", (rounded(window.cost_usd), "None"));
    }
    for (name, values, unit) in [
        ("Attempts", window.attempts.into_values().map(rounded).collect(), "Count"),
        ("LaunchLatency", window.launch_latency.into_values().map(rounded).collect(), "Seconds"),
        ("ReceiveAge", window.receive_age.into_values().map(rounded).collect(), "Seconds"),
        ("FailureShare", failure_share, "None"),
    ] {
        if !values.is_empty() {
            metrics.insert(name, (Value::Array(values), unit));
        }
    }
    let definitions: Vec<_> =
        metrics.iter().map(|(name, (_, unit))| json!({"Name": name, "Unit": unit})).collect();
    let directive = json!({"Namespace": NAMESPACE, "Dimensions": [[DIMENSION]], "Metrics": definitions});
    let mut root: Map<_, _> =
        metrics.into_iter().map(|(name, (value, _))| (name.to_owned(), value)).collect();
    root.insert(DIMENSION.to_owned(), cluster.into());
    let directives = json!({"Timestamp": at.as_millisecond(), "CloudWatchMetrics": [directive]});
    root.insert("_aws".to_owned(), directives);
    Value::Object(root).to_string()
}

/// Rounds a value to millionths.
fn rounded(value: f64) -> Value {
    json!((value * 1e6).round() / 1e6)
}

/// A 1 for each failed video and a 0 for each other video, so the average over any period is the share of
/// failed videos. Obsolete videos do not count.
fn failure_share(EndedVideos { done, rejected, failed, .. }: EndedVideos) -> Vec<Value> {
    let ended = done + rejected + failed;
    let most = MOST_VALUES as u64;
    let (ended, failed) =
        if ended > most { (most, (failed * most).div_ceil(ended)) } else { (ended, failed) };
    (0..ended).map(|video| json!(u8::from(video < failed))).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_average_of_the_failure_share_is_the_share_that_failed(
            done in 0_u64..2000, rejected in 0_u64..50, obsolete in 0_u64..50, failed in 0_u64..2000
        ) {
            let values = failure_share(EndedVideos { done, rejected, obsolete, failed, cancelled: 0 });
            prop_assert!(values.len() <= MOST_VALUES);
            let ended = done + rejected + failed;
            prop_assert_eq!(values.is_empty(), ended == 0);
            if ended > 0 {
                let sum: u64 = values.iter().map(|value| value.as_u64().unwrap()).sum();
                let share = sum as f64 / values.len() as f64;
                prop_assert!((share - failed as f64 / ended as f64).abs() <= 0.01);
                // A single failure among many videos is kept.
                prop_assert_eq!(sum == 0, failed == 0);
            }
        }
    }
}
