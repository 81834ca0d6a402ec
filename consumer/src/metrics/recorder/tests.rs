//! Tests of the text for Prometheus, the lines for CloudWatch, and the health.

use serde_json::{Value, json};
use tokio::time::advance;

use super::*;
use crate::aws::sqs::QueueKind;

fn at() -> Timestamp {
    Timestamp::from_millisecond(1_780_000_000_123).unwrap()
}

fn line(metrics: &Metrics) -> Value {
    serde_json::from_str(&metrics.line(at())).unwrap()
}

/// The sorted names of an object's members.
fn members(object: &serde_json::Map<String, Value>) -> Vec<&str> {
    let mut names: Vec<_> = object.keys().map(String::as_str).collect();
    names.sort_unstable();
    names
}

/// Checks the rules of the specification and its JSON schema that apply to these lines.
fn assert_is_embedded_metric_format(text: &str) {
    const UNITS: [&str; 5] = ["Seconds", "Milliseconds", "Bytes", "Count", "None"];
    assert!(!text.contains('\n') && text.len() < 256 * 1024);
    let root: Value = serde_json::from_str(text).unwrap();
    let aws = root["_aws"].as_object().unwrap();
    assert_eq!(members(aws), ["CloudWatchMetrics", "Timestamp"]);
    // In milliseconds: CloudWatch drops values that are more than two weeks old or two hours ahead.
    assert_eq!(aws["Timestamp"].as_i64(), Some(1_780_000_000_123));
    let name = |value: &Value| {
        let name = value.as_str().unwrap().to_owned();
        assert!((1..=255).contains(&name.len()), "{name}");
        name
    };
    for directive in aws["CloudWatchMetrics"].as_array().unwrap() {
        let directive = directive.as_object().unwrap();
        assert_eq!(members(directive), ["Dimensions", "Metrics", "Namespace"]);
        assert_eq!(name(&directive["Namespace"]), "VidStreamX");
        let sets = directive["Dimensions"].as_array().unwrap();
        assert!(!sets.is_empty());
        for set in sets.iter().map(|set| set.as_array().unwrap()) {
            assert!(set.len() <= 9);
            for dimension in set {
                assert!(!root[name(dimension)].as_str().unwrap().is_empty(), "{dimension}");
            }
        }
        let metrics = directive["Metrics"].as_array().unwrap();
        assert!((1..=100).contains(&metrics.len()));
        for metric in metrics.iter().map(|metric| metric.as_object().unwrap()) {
            assert_eq!(members(metric), ["Name", "Unit"]);
            assert!(UNITS.contains(&metric["Unit"].as_str().unwrap()), "{metric:?}");
            match &root[name(&metric["Name"])] {
                Value::Number(_) => {}
                Value::Array(values) => {
                    assert!((1..=100).contains(&values.len()), "{}", values.len());
                    assert!(values.iter().all(Value::is_number), "{values:?}");
                }
                other => panic!("{metric:?} is {other}"),
            }
        }
        // Every member is declared as a metric.
        assert_eq!(root.as_object().unwrap().len(), metrics.len() + 2);
    }
}

fn a_busy_window() -> Metrics {
    let metrics = Metrics::new("arn:aws:ecs:eu-central-1:123456789012:cluster/videos");
    metrics.received(Duration::from_millis(1500));
    metrics.received(Duration::from_mins(30));
    metrics.launch_refused();
    metrics.launched(Duration::from_millis(250));
    metrics.ended(State::Done, 1, 0.0123);
    metrics.ended(State::Done, 2, 0.5);
    metrics.ended(State::Rejected, 0, 0.0);
    metrics.ended(State::Failed, 3, f64::NAN);
    metrics.ended(State::Obsolete, 1, -1.0);
    metrics.ended(State::Running, 1, 1.0);
    metrics.dead_lettered();
    metrics.in_flight(7);
    metrics.misconfigured(QueueKind::Uploads, "exit code 78");
    metrics.polled(QueueKind::Uploads);
    metrics
}

#[tokio::test(start_paused = true)]
async fn prometheus_reads_totals_with_units_and_descriptions() {
    let metrics = a_busy_window();
    // A line for CloudWatch does not change the totals.
    let before = metrics.text();
    metrics.line(at());
    assert_eq!(before, metrics.text());
    let (ends, others): (Vec<_>, Vec<_>) =
        before.lines().partition(|line| line.starts_with("vidstreamx_videos_total"));
    // Their order differs between runs.
    let ends: std::collections::BTreeSet<_> = ends.into_iter().collect();
    insta::assert_snapshot!(ends.into_iter().chain(others).collect::<Vec<_>>().join("\n"));
}

#[tokio::test(start_paused = true)]
async fn a_line_holds_the_window_since_the_line_before() {
    let metrics = a_busy_window();
    insta::assert_json_snapshot!(line(&metrics));
    metrics.ended(State::Done, 1, 0.25);
    let second = line(&metrics);
    assert_eq!(second["VideosDone"], 1);
    assert_eq!(second["CostUSD"], 0.25);
    assert_eq!(second["FailureShare"], json!([0]));
    assert_eq!(second.get("VideosFailed"), None);
}

#[tokio::test(start_paused = true)]
async fn every_line_is_valid_embedded_metric_format() {
    assert_is_embedded_metric_format(&Metrics::new("videos").line(at()));
    assert_is_embedded_metric_format(&a_busy_window().line(at()));
    let metrics = Metrics::new("cluster/");
    for n in 0..10_000 {
        metrics.received(Duration::from_millis(n));
        metrics.launched(Duration::from_millis(n));
        metrics.ended(if n % 10 == 0 { State::Failed } else { State::Done }, 1, 0.001);
    }
    assert_is_embedded_metric_format(&metrics.line(at()));
}

#[tokio::test(start_paused = true)]
async fn a_line_of_an_empty_window_still_has_the_gauges() {
    let metrics = Metrics::new("videos");
    metrics.in_flight(3);
    let line = line(&metrics);
    let names = members(line.as_object().unwrap());
    assert_eq!(names, ["Cluster", "InFlight", "LaunchesRefusedFor", "Misconfigured", "_aws"]);
    assert_eq!((&line["InFlight"], &line["Cluster"]), (&json!(3), &json!("videos")));
}

#[tokio::test(start_paused = true)]
async fn refusals_are_timed_from_the_first_until_a_launch_succeeds_or_retries_stop() {
    let metrics = Metrics::new("videos");
    let refused_for = || line(&metrics)["LaunchesRefusedFor"].as_f64().unwrap();
    for _ in 0..10 {
        metrics.launch_refused();
        advance(Duration::from_mins(5)).await;
    }
    assert_eq!(refused_for(), 3000.0);
    metrics.launched(Duration::ZERO);
    assert_eq!(refused_for(), 0.0);

    metrics.launch_refused();
    advance(Duration::from_mins(9)).await;
    assert_eq!(refused_for(), 540.0);
    advance(Duration::from_mins(1)).await;
    assert_eq!(refused_for(), 0.0);
    metrics.launch_refused();
    advance(Duration::from_secs(1)).await;
    assert_eq!(refused_for(), 1.0);
}

#[tokio::test(start_paused = true)]
async fn the_consumer_is_healthy_while_the_queue_responds_or_receiving_pauses() {
    let metrics = Metrics::new("videos");
    let is_healthy = || metrics.health().is_ok();
    assert!(is_healthy());
    advance(Duration::from_secs(119)).await;
    assert!(is_healthy());
    advance(Duration::from_secs(1)).await;
    assert!(metrics.health().unwrap_err().starts_with("the uploads queue has not responded for 120 s"));
    metrics.polled(QueueKind::Uploads);
    assert!(metrics.health().unwrap_err().starts_with("the back-fill queue has not responded for 120 s"));
    metrics.paused(QueueKind::BackFill, "uploads come first");
    assert!(is_healthy());

    metrics.paused(QueueKind::Uploads, "all 10 slots are taken");
    advance(Duration::from_hours(5)).await;
    assert_eq!(metrics.health().unwrap(), "receiving pauses: all 10 slots are taken");
    metrics.resumed(QueueKind::Uploads);
    assert!(is_healthy());
    advance(NO_RESPONSE).await;
    assert!(!is_healthy());

    metrics.misconfigured(QueueKind::Uploads, "AccessDenied:\r\n no sqs:ReceiveMessage");
    let why = metrics.health().unwrap_err();
    assert!(why.ends_with(": AccessDenied: no sqs:ReceiveMessage"), "{why}");
    metrics.polled(QueueKind::Uploads);
    assert!(is_healthy());
}

#[tokio::test(start_paused = true)]
async fn a_wrong_setting_is_in_the_line_even_if_it_was_corrected_meanwhile() {
    let metrics = Metrics::new("videos");
    metrics.misconfigured(QueueKind::Uploads, "exit code 78");
    metrics.resumed(QueueKind::Uploads);
    assert_eq!(line(&metrics)["Misconfigured"], 1);
    assert_eq!(line(&metrics)["Misconfigured"], 0);
    metrics.misconfigured(QueueKind::Uploads, "exit code 78");
    assert_eq!([&line(&metrics)["Misconfigured"], &line(&metrics)["Misconfigured"]], [1, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_line_is_written_at_the_start_every_minute_and_at_the_end() {
    let metrics = Metrics::new("videos");
    let ended = CancellationToken::new();
    let mut out = Vec::new();
    let writing = metrics.write_lines(&mut out, at, ended.clone());
    let ending = async {
        tokio::time::sleep(Duration::from_secs(150)).await;
        metrics.ended(State::Done, 1, 0.0);
        ended.cancel();
    };
    let (written, ()) = tokio::join!(writing, ending);
    written.unwrap();
    let lines: Vec<_> = std::str::from_utf8(&out).unwrap().lines().collect();
    assert_eq!(lines.len(), 4);
    lines.iter().for_each(|line| assert_is_embedded_metric_format(line));
    assert!(lines[3].contains("VideosDone") && !lines[2].contains("VideosDone"));
}
