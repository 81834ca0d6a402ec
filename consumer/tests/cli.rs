//! The command line and its settings. A wrong setting ends the program with code 78 and a line that names it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{fs, path::PathBuf, process::Command};

const GOOD: [(&str, &str); 10] = [
    ("VIDSTREAMX_QUEUE_URL", "http://localhost:1/1/uploads"),
    ("VIDSTREAMX_BACK_FILL_QUEUE_URL", "http://localhost:1/1/back-fill"),
    ("VIDSTREAMX_DEAD_LETTER_QUEUE_URL", "http://localhost:1/1/dead"),
    ("VIDSTREAMX_CLUSTER", "videos"),
    ("VIDSTREAMX_TASK_DEFINITION", "videos-transcoder"),
    ("VIDSTREAMX_SUBNETS", "subnet-0a,subnet-0b"),
    ("VIDSTREAMX_SECURITY_GROUPS", "sg-0a"),
    ("VIDSTREAMX_ASSIGN_PUBLIC_IP", "true"),
    ("VIDSTREAMX_UPLOAD_BUCKET", "uploads"),
    ("VIDSTREAMX_OUTPUT_BUCKET", "streams"),
];

/// The error without a Region, which is reported only if all settings are valid.
const NO_REGION: &str = "AWS_REGION is not set, and no profile or instance says which Region to use";

/// Runs `check` in a separate folder with only these variables. Returns exit code and error line.
fn check(name: &str, dot_env: &str, variables: &[(&str, &str)], flags: &[&str]) -> (Option<i32>, String) {
    run(name, dot_env, variables, &[&["check"], flags].concat())
}

fn run(name: &str, dot_env: &str, variables: &[(&str, &str)], words: &[&str]) -> (Option<i32>, String) {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(".env"), dot_env).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_vidstreamx-consumer"))
        .args(words)
        .current_dir(&folder)
        .env_clear()
        .env("HOME", &folder)
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    let line = stderr.trim_end().strip_prefix("vidstreamx-consumer: ").unwrap_or(&stderr).to_owned();
    assert!(!line.contains('\n'), "more than one line: {stderr}");
    (output.status.code(), line)
}

fn with(variable: (&'static str, &'static str)) -> Vec<(&'static str, &'static str)> {
    GOOD.into_iter().filter(|(name, _)| *name != variable.0).chain([variable]).collect()
}

#[test]
fn settings_are_read_from_environment_dot_env_and_flags() {
    assert_eq!(check("environment", "", &GOOD, &[]), (Some(78), NO_REGION.into()));
    let dot_env: String = GOOD.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
    assert_eq!(check("dot-env", &dot_env, &[], &[]), (Some(78), NO_REGION.into()));
    let flags: Vec<_> = GOOD
        .iter()
        .map(|(name, value)| {
            let name = name.trim_start_matches("VIDSTREAMX_").to_lowercase().replace('_', "-");
            format!("--{name}={value}")
        })
        .collect();
    let flags: Vec<_> = flags.iter().map(String::as_str).collect();
    assert_eq!(check("flags", "", &[], &flags), (Some(78), NO_REGION.into()));
}

#[test]
fn the_environment_has_precedence_over_dot_env() {
    let dot_env = "VIDSTREAMX_CAPACITY=rubbish\n";
    let variables = with(("VIDSTREAMX_CAPACITY", "spot"));
    assert_eq!(check("precedence", dot_env, &variables, &[]), (Some(78), NO_REGION.into()));
    let (code, line) = check("dot-env-rubbish", dot_env, &GOOD, &[]);
    assert_eq!(code, Some(78));
    assert!(line.contains("--capacity (VIDSTREAMX_CAPACITY): \"rubbish\""), "{line}");
}

#[test]
fn every_missing_setting_is_named() {
    let (code, line) = check("nothing", "", &[], &[]);
    assert_eq!(code, Some(78));
    for (name, _) in GOOD {
        assert!(line.contains(&format!("({name})")), "{name} is not in: {line}");
    }
}

#[test]
fn every_empty_setting_is_named() {
    for name in GOOD.iter().map(|(name, _)| *name).chain([
        "VIDSTREAMX_CONTAINER",
        "VIDSTREAMX_PROFILE",
        "VIDSTREAMX_MAX_TASKS",
        "VIDSTREAMX_MAX_ATTEMPTS",
        "VIDSTREAMX_CAPACITY",
        "VIDSTREAMX_LAUNCHES_PER_SECOND",
        "VIDSTREAMX_STATUS_ADDR",
        "VIDSTREAMX_EMF",
        "VIDSTREAMX_LOG_FORMAT",
        "VIDSTREAMX_LOG",
    ]) {
        let (code, line) = check("empty", "", &with((name, "")), &[]);
        assert_eq!(code, Some(78), "{name}: {line}");
        assert!(line.contains(&format!("({name})")) && line.contains("is empty"), "{name}: {line}");
    }
}

#[test]
fn every_invalid_setting_is_named_with_its_valid_form() {
    for (name, value, expected) in [
        ("VIDSTREAMX_QUEUE_URL", "uploads", "the URL of a standard queue (not FIFO) like"),
        ("VIDSTREAMX_QUEUE_URL", "http://localhost:1/1/uploads.fifo", "(not FIFO)"),
        ("VIDSTREAMX_BACK_FILL_QUEUE_URL", "http://localhost:1/1/uploads", "is also the queue of uploads"),
        ("VIDSTREAMX_DEAD_LETTER_QUEUE_URL", "http://localhost:1/1/uploads", "is also the queue of uploads"),
        ("VIDSTREAMX_SUBNETS", "subnet-0a,vpc-1", "\"vpc-1\": it should be subnet ids"),
        ("VIDSTREAMX_SECURITY_GROUPS", "default", "security group ids like"),
        ("VIDSTREAMX_ASSIGN_PUBLIC_IP", "yes", "it should be one of: true, false"),
        ("VIDSTREAMX_UPLOAD_BUCKET", "Uploads", "is not a bucket name"),
        ("VIDSTREAMX_UPLOAD_BUCKET", "uploads,more-uploads", "is not a bucket name"),
        ("VIDSTREAMX_OUTPUT_BUCKET", "uploads", "is also the upload bucket"),
        ("VIDSTREAMX_MAX_TASKS", "0", "zero"),
        ("VIDSTREAMX_MAX_TASKS", "many", "invalid digit"),
        ("VIDSTREAMX_CAPACITY", "cheap", "it should be one of: on-demand, spot"),
        ("VIDSTREAMX_STATUS_ADDR", "9464", "\"9464\": it should be an address and a port like"),
        ("VIDSTREAMX_STATUS_ADDR", "localhost:http", "it should be an address and a port like"),
        ("VIDSTREAMX_EMF", "on", "it should be one of: true, false"),
        ("VIDSTREAMX_LOG", "a=b=c", "level"),
    ] {
        let (code, line) = check("wrong", "", &with((name, value)), &[]);
        assert_eq!(code, Some(78), "{name}: {line}");
        assert!(line.contains(&format!("({name})")) && line.contains(expected), "{name}: {line}");
    }
}

/// The other commands with valid arguments, and the settings that they need.
const OTHERS: [(&[&str], &[&str]); 10] = [
    (&["history", "--since=7d", "--state=failed,done", "--key=a"], &["OUTPUT_BUCKET"]),
    (&["history", "films/a.mp4", "--json"], &["OUTPUT_BUCKET"]),
    (&["submit", "s3://uploads/films/", "--force"], &["BACK_FILL_QUEUE_URL", "UPLOAD_BUCKET"]),
    (
        &["redrive", "--dry-run", "--reason=memory"],
        &["QUEUE_URL", "BACK_FILL_QUEUE_URL", "DEAD_LETTER_QUEUE_URL"],
    ),
    (
        &["redrive", "--job=0123456789abcdef0123456789abcdef"],
        &["QUEUE_URL", "BACK_FILL_QUEUE_URL", "DEAD_LETTER_QUEUE_URL"],
    ),
    (&["delete", "films/a.mp4", "--source", "--dry-run"], &["UPLOAD_BUCKET", "OUTPUT_BUCKET"]),
    (&["prune", "--superseded-for=30"], &["UPLOAD_BUCKET", "OUTPUT_BUCKET"]),
    (&["pause", "--reason=costs"], &["OUTPUT_BUCKET"]),
    (&["resume"], &["OUTPUT_BUCKET"]),
    (&["cancel", "films/a.mp4", "--keep-stream"], &["UPLOAD_BUCKET", "OUTPUT_BUCKET"]),
];

#[test]
fn every_command_needs_only_its_own_settings() {
    for (words, needed) in OTHERS {
        let needed: Vec<_> = needed.iter().map(|name| format!("VIDSTREAMX_{name}")).collect();
        let (needed, others): (Vec<_>, Vec<_>) =
            GOOD.into_iter().partition(|(name, _)| needed.contains(&(*name).to_owned()));
        assert_eq!(run("own", "", &needed, words), (Some(78), NO_REGION.into()), "{words:?}");
        let (code, line) = run("own-nothing", "", &[], words);
        assert_eq!(code, Some(78));
        for (name, _) in needed {
            assert!(line.contains(&format!("({name})")), "{words:?}: {name} is not in: {line}");
        }
        for (name, _) in others {
            assert!(!line.contains(&format!("({name})")), "{words:?}: {name} is in: {line}");
        }
    }
}

#[test]
fn invalid_arguments_of_every_command_are_named() {
    for (words, expected) in [
        (&["history", "--since=yesterday"][..], "--since: \"yesterday\": it should be a span like"),
        (&["history", "--state=lost"], "--state: \"lost\": it should be one of: done, running"),
        (&["history", "a.mp4", "--state=done"], "cannot be used with"),
        (&["history", ""], "is empty"),
        (&["submit"], "not set: <s3://BUCKET/KEY"),
        (&["submit", "films/"], "is not of the form s3://BUCKET/KEY"),
        (&["redrive", "--job=a.mp4"], "is not a job id"),
        (&["redrive", "--queue-url=http://localhost:1/1/dead"], "is also the queue of uploads"),
        (&["delete"], "not set: <KEY>"),
        (&["delete", ""], "is empty"),
        (&["delete", "a.mp4", "--output-bucket=uploads"], "is also the upload bucket"),
        (&["prune", "--superseded-for=0"], "--superseded-for: \"0\": 0 is not in 1..=65535"),
        (&["prune", "--output-bucket=uploads"], "is also the upload bucket"),
    ] {
        let (code, line) = run("words", "", &GOOD, words);
        assert_eq!(code, Some(78), "{words:?}: {line}");
        assert!(line.contains(expected), "{words:?}: {line}");
    }
}

#[test]
fn another_bucket_is_refused_before_any_message_is_sent() {
    let region = [("AWS_REGION", "eu-central-1"), ("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b")];
    let variables = [&GOOD[..], &region].concat();
    let (code, line) = run("foreign", "", &variables, &["submit", "s3://streams/"]);
    assert_eq!(code, Some(78));
    assert!(line.starts_with("s3://streams: the upload bucket is uploads"), "{line}");
}

#[test]
fn a_second_upload_bucket_is_refused() {
    let (code, line) = check("buckets", "", &GOOD, &["--upload-bucket=uploads", "--upload-bucket=more"]);
    assert_eq!(code, Some(78));
    assert!(line.contains("--upload-bucket") && line.contains("multiple times"), "{line}");
}

#[test]
fn an_invalid_line_of_dot_env_is_named_without_its_value() {
    let (code, line) = check("bad-line", "MY SECRET=hush\n", &GOOD, &[]);
    assert_eq!(code, Some(78));
    assert!(line.starts_with(".env: ") && line.contains("MY SECRET") && !line.contains("hush"), "{line}");
}

#[test]
fn an_unknown_flag_is_named() {
    let (code, line) = check("flag", "", &GOOD, &["--max-task=1"]);
    assert_eq!(code, Some(78));
    assert!(line.contains("--max-task"), "{line}");
}

#[test]
fn a_status_address_in_use_is_an_error_before_any_call_to_aws() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let variables = with(("VIDSTREAMX_STATUS_ADDR", "127.0.0.1:1"));
    let (code, line) = run("taken", "", &variables, &["run", &format!("--status-addr={address}"), "--emf"]);
    assert_eq!(code, Some(78), "{line}");
    assert!(line.contains("--status-addr (VIDSTREAMX_STATUS_ADDR)") && line.contains(&address), "{line}");
}
