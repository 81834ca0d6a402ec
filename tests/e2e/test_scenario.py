"""Every input gets a visible result, and none of them stops the consumer or another video."""

from __future__ import annotations

import pytest
from vidstreamx_devtools import corpus
from vidstreamx_devtools.e2e.scenario import UNUSUAL_KEYS, Case, Scenario

UNUSUAL = [f"key: {name}" for name in UNUSUAL_KEYS]
GOOD = [
    "1080p clip",
    *UNUSUAL,
    "sent twice",
    "wrapped by SNS",
    "through EventBridge",
    "1st of two records",
    "2nd of two records",
    "the replacement",
    *(["clip of the corpus"] if corpus.MANIFEST.is_file() else []),
]
BAD = ["text named .mp4", "empty file", "deleted before the start", "replaced before the start"]
DEAD_LETTERS = ["invalid JSON", "event of another bucket"]
NO_JOB = [*DEAD_LETTERS, "s3:TestEvent", "event of a removal"]


def test_consumer_survives_all_inputs_and_exits_within_seconds_of_sigterm(scenario: Scenario) -> None:
    assert scenario.consumer_survived
    assert scenario.consumer_exit == 0
    assert scenario.seconds_to_exit < 5


def test_consumer_logs_no_errors(scenario: Scenario) -> None:
    errors = [line for line in scenario.consumer_lines if line["level"] == "ERROR" or "error" in line]
    assert errors == []


def test_queue_is_empty_at_the_end(scenario: Scenario) -> None:
    assert scenario.queue_emptied


@pytest.mark.parametrize("name", GOOD)
def test_good_video_is_done_after_one_task(scenario: Scenario, name: str) -> None:
    case = scenario[name]
    assert case.state == "done", case.reason
    assert case.upload
    assert case.report["outcome"] == "complete"
    assert case.report["source"]["key"] == case.upload.key
    [task] = case.tasks
    assert task["lastStatus"] == "STOPPED"
    assert task["stopCode"] == "EssentialContainerExited"
    assert task["containers"][0]["exitCode"] == 0
    [attempt] = case.record["attempts"]
    assert (attempt["task_arn"], attempt["exit_code"]) == (task["taskArn"], 0)


@pytest.mark.parametrize("name", UNUSUAL)
def test_unusual_key_is_the_address_of_its_stream(scenario: Scenario, name: str) -> None:
    case = scenario[name]
    assert case.upload
    if len(case.upload.key.encode()) < 800:
        assert case.address == case.upload.key
    else:
        # The address is the key's beginning and its hash, which leaves room for the names in the folder.
        readable, _, digest = case.address.rpartition("~")
        assert len(case.address.encode()) <= 864
        assert case.upload.key.startswith(readable)
        assert len(digest) == 16


def test_unusual_keys_include_one_of_the_maximum_length() -> None:
    assert len(UNUSUAL_KEYS["1,024 bytes"].encode()) == 1024


def test_1080p_clip_gets_every_rung_up_to_its_size(scenario: Scenario) -> None:
    report = scenario["1080p clip"].report
    heights = [one["height"] for one in report["renditions"] if one["kind"] == "video"]
    assert heights == [1080, 720, 480, 360, 240]


@pytest.mark.parametrize("name", BAD)
def test_bad_upload_is_recorded_with_its_reason_and_logged_once(scenario: Scenario, name: str) -> None:
    case = scenario[name]
    assert case.state in case.states
    assert_reason_is_logged_once(case)


def assert_reason_is_logged_once(case: Case) -> None:
    assert case.upload
    assert case.record["reason"]
    [line] = [line for line in case.lines if line["level"] in ("WARN", "ERROR")]
    assert (line["s3.bucket"], line["s3.key"]) == (case.upload.bucket, case.upload.key)
    assert line["reason"] == case.record["reason"]


@pytest.mark.parametrize("name", BAD)
def test_bad_upload_starts_no_task(scenario: Scenario, name: str) -> None:
    case = scenario[name]
    assert (case.tasks, case.record["attempts"], case.report) == ([], [], None)


def test_truncated_file_is_rejected_by_its_only_task(scenario: Scenario) -> None:
    case = scenario["truncated file"]
    assert case.state == "rejected"
    assert case.upload
    [task] = case.tasks
    assert task["containers"][0]["exitCode"] == 65
    assert case.report["outcome"] == "rejected"
    assert case.report["reason"] == case.record["reason"]
    assert_reason_is_logged_once(case)
    [error] = [line for line in scenario.task_logs[task["taskArn"]] if " ERROR " in f" {line} "]
    assert case.upload.bucket in error
    assert case.upload.key in error
    assert case.report["reason"] in error


@pytest.mark.parametrize("name", ["1080p clip", "key: unicode", "through EventBridge"])
def test_task_has_the_recorded_size_and_its_cost_is_recorded(scenario: Scenario, name: str) -> None:
    case = scenario[name]
    [task], [attempt] = case.tasks, case.record["attempts"]
    size, overrides = attempt["size"], task["overrides"]
    assert (overrides["cpu"], overrides["memory"]) == (str(size["cpu"]), str(size["memory_mib"]))
    assert overrides["ephemeralStorage"]["sizeInGiB"] == size["storage_gib"]
    # The built-in rules choose this size, because all three clips are short and at most 1080p.
    assert (size["cpu"], size["memory_mib"]) == (2048, 4096)
    assert attempt["size_reason"].endswith('rule "short"')
    assert attempt["capacity"] == "on-demand"
    assert attempt["billed_seconds"] > 0
    assert 0 < attempt["cost_usd"] < 0.01


def test_last_progress_of_a_task_shows_its_result(scenario: Scenario) -> None:
    done, rejected = scenario["1080p clip"], scenario["truncated file"]
    assert (done.progress["stage"], done.progress["share"]) == ("complete", 1)
    assert done.progress["job_id"] == done.record["job_id"]
    assert [rung["name"] for rung in done.progress["rungs"]] == ["1080p", "720p", "480p", "360p", "240p"]
    assert rejected.progress["stage"] == "failed"


def test_duplicate_message_starts_no_second_task_during_or_after_the_job(scenario: Scenario) -> None:
    case, late = scenario["sent twice"], scenario["sent again after its end"]
    assert case.upload
    assert len(case.tasks) == 1
    assert late.record["job_id"] == case.record["job_id"]
    assert [record["source"]["key"] for record in scenario.records].count(case.upload.key) == 1
    # The consumer deletes the duplicate and logs the reason.
    messages = [line["message"] for line in late.lines]
    assert any("has already ended" in message for message in messages)
    assert "message deleted" in [
        line["message"] for line in late.lines if line.get("message.id") == late.message_id
    ]


def test_new_content_under_the_same_key_is_a_new_job(scenario: Scenario) -> None:
    old, new = scenario["replaced before the start"], scenario["the replacement"]
    assert old.record["job_id"] != new.record["job_id"]
    assert (old.state, new.state) == ("obsolete", "done")


@pytest.mark.parametrize("name", NO_JOB)
def test_message_without_an_upload_starts_no_job_and_is_logged_once(scenario: Scenario, name: str) -> None:
    case = scenario[name]
    assert case.record is None
    [line] = [line for line in case.lines if line["level"] in ("INFO", "WARN", "ERROR")]
    assert line["message.id"] == case.message_id
    assert line["reason"]
    if case.upload:
        assert (line["s3.bucket"], line["s3.key"]) == (case.upload.bucket, case.upload.key)


def test_dead_letter_queue_holds_exactly_the_invalid_messages(scenario: Scenario) -> None:
    assert len(scenario.dead_letters) == len(DEAD_LETTERS)
    for name in DEAD_LETTERS:
        case = scenario[name]
        [letter] = scenario.dead_letters_of(case)
        assert letter.attributes == {"reason": case.reason}


def test_every_deleted_message_has_a_result(scenario: Scenario) -> None:
    unfinished = [record for record in scenario.records if record["state"] == "running"]
    assert unfinished == []
    lost = [case.name for case in scenario.cases.values() if not has_result(case)]
    assert lost == []
    deleted = [line for line in scenario.consumer_lines if line["message"] == "message deleted"]
    assert len({line["message.id"] for line in deleted}) == scenario.message_count


def has_result(case: Case) -> bool:
    was_ignored = any(line["message"] == "event ignored" for line in case.lines)
    return bool(case.record or case.is_dead_letter or was_ignored)


def test_each_upload_has_exactly_one_record(scenario: Scenario) -> None:
    uploads = {
        (case.upload.key, case.upload.etag) for case in scenario.cases.values() if case.states and case.upload
    }
    recorded = sorted((record["source"]["key"], record["source"]["etag"]) for record in scenario.records)
    assert recorded == sorted(uploads)
