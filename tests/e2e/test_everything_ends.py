"""Whatever arrives comes to an end that can be seen, and none of it stops the consumer or other videos."""

import pytest
from vidstreamx_devtools.e2e.scenario import ODD_KEYS

ODD = [f"key: {what}" for what in ODD_KEYS]
GOOD = [
    "1080p clip", *ODD, "sent twice", "wrapped by SNS", "through EventBridge",
    "1st of two records", "2nd of two records", "its replacement",
]  # fmt: skip
BAD = ["text named .mp4", "empty file", "deleted meanwhile", "replaced meanwhile"]
DEAD = ["rubbish", "another bucket's event"]
NO_JOB = [*DEAD, "s3:TestEvent", "a removal's event"]


def test_the_consumer_outlives_everything_and_ends_when_it_is_told_to(story):
    assert story.consumer_survived
    assert story.consumer_exit == 0
    assert story.seconds_to_exit < 5


def test_the_consumer_has_no_trouble_with_its_permissions_or_the_services(story):
    trouble = [line for line in story.consumer_lines if line["level"] == "ERROR" or "error" in line]
    assert trouble == []


def test_the_queue_is_empty_in_the_end(story):
    assert story.queue_emptied


@pytest.mark.parametrize("what", GOOD)
def test_a_good_video_is_done_by_one_task(story, what):
    case = story[what]
    assert case.state == "done", case.reason
    assert case.report["outcome"] == "complete"
    assert case.report["source"]["key"] == case.upload.key
    [task] = case.tasks
    assert task["lastStatus"] == "STOPPED"
    assert task["stopCode"] == "EssentialContainerExited"
    assert task["containers"][0]["exitCode"] == 0
    [attempt] = case.record["attempts"]
    assert (attempt["task_arn"], attempt["exit_code"]) == (task["taskArn"], 0)


@pytest.mark.parametrize("what", ODD)
def test_an_odd_key_is_the_streams_address_too(story, what):
    case = story[what]
    if len(case.upload.key.encode()) < 800:
        assert case.stem == case.upload.key
    else:
        # Room for what is below it: a readable beginning, and a hash of the whole.
        readable, _, digest = case.stem.rpartition("~")
        assert len(case.stem.encode()) <= 864
        assert case.upload.key.startswith(readable) and len(digest) == 16


def test_a_key_at_s3s_limit_was_among_them():
    assert len(ODD_KEYS["1,024 bytes"].encode()) == 1024


def test_the_1080p_clip_gets_every_rung_below_it_and_none_above(story):
    renditions = story["1080p clip"].report["renditions"]
    heights = [one["height"] for one in renditions if one["kind"] == "video"]
    assert heights == [1080, 720, 480, 360, 240]


@pytest.mark.parametrize("what", BAD)
def test_a_bad_upload_is_recorded_with_its_reason_and_told_in_one_line(story, what):
    case = story[what]
    assert case.state in case.ends
    is_told_in_one_line(case)


def is_told_in_one_line(case):
    assert case.record["reason"]
    [line] = [line for line in case.lines if line["level"] in ("WARN", "ERROR")]
    assert (line["s3.bucket"], line["s3.key"]) == (case.upload.bucket, case.upload.key)
    assert line["reason"] == case.record["reason"]


@pytest.mark.parametrize("what", BAD)
def test_what_needs_no_task_gets_none(story, what):
    case = story[what]
    assert (case.tasks, case.record["attempts"], case.report) == ([], [], None)


def test_a_truncated_file_costs_one_task_that_says_what_it_found(story):
    case = story["truncated file"]
    assert case.state in case.ends
    [task] = case.tasks
    if case.state == "done":
        assert case.report["warnings"]
        return
    assert task["containers"][0]["exitCode"] == 65
    assert case.report["outcome"] == "rejected"
    assert case.report["reason"] == case.record["reason"]
    is_told_in_one_line(case)
    [error] = [line for line in story.task_logs[task["taskArn"]] if " ERROR " in f" {line} "]
    assert case.upload.bucket in error and case.upload.key in error and case.report["reason"] in error


@pytest.mark.parametrize("what", ["1080p clip", "key: unicode", "through EventBridge"])
def test_a_task_gets_the_size_that_the_record_tells_and_its_price_is_noted(story, what):
    case = story[what]
    [task], [attempt] = case.tasks, case.record["attempts"]
    size, asked = attempt["size"], task["overrides"]
    assert (asked["cpu"], asked["memory"]) == (str(size["cpu"]), str(size["memory_mib"]))
    assert asked["ephemeralStorage"]["sizeInGiB"] == size["storage_gib"]
    # Of the built-in rules: both clips are short, and no larger than 1080p.
    assert (size["cpu"], size["memory_mib"]) == (2048, 4096)
    assert attempt["size_reason"].endswith('rule "short"')
    assert attempt["capacity"] == "on-demand"
    assert attempt["billed_seconds"] > 0 and 0 < attempt["cost_usd"] < 0.01


def test_the_last_a_task_tells_of_its_progress_is_its_end(story):
    done, rejected = story["1080p clip"], story["truncated file"]
    assert (done.progress["stage"], done.progress["share"]) == ("complete", 1)
    assert done.progress["job_id"] == done.record["job_id"]
    assert [rung["name"] for rung in done.progress["rungs"]] == ["1080p", "720p", "480p", "360p", "240p"]
    assert rejected.progress["stage"] == ("complete" if rejected.state == "done" else "failed")


def test_a_duplicate_starts_no_second_task_at_once_or_afterwards(story):
    case, late = story["sent twice"], story["and once more, afterwards"]
    assert len(case.tasks) == 1
    assert late.record["job_id"] == case.record["job_id"]
    assert [record["source"]["key"] for record in story.records].count(case.upload.key) == 1
    # The message went all the same, and not without a word.
    told = [line["message"] for line in late.lines]
    assert any("has ended before" in text for text in told)
    assert "message deleted" in [line["message"] for line in late.lines if line.get("message.id") == late.message_id]


def test_the_same_key_with_other_content_is_another_job(story):
    old, new = story["replaced meanwhile"], story["its replacement"]
    assert old.record["job_id"] != new.record["job_id"]
    assert (old.state, new.state) == ("obsolete", "done")


@pytest.mark.parametrize("what", NO_JOB)
def test_what_is_no_upload_starts_no_job_and_is_told_in_one_line(story, what):
    case = story[what]
    assert case.record is None
    [line] = [line for line in case.lines if line["level"] in ("INFO", "WARN", "ERROR")]
    assert line["message.id"] == case.message_id
    assert line["reason"]
    if case.upload:
        assert (line["s3.bucket"], line["s3.key"]) == (case.upload.bucket, case.upload.key)


def test_the_dead_letter_queue_holds_what_nobody_could_deal_with_and_nothing_else(story):
    assert len(story.dead_letters) == len(DEAD)
    for what in DEAD:
        case = story[what]
        [letter] = story.letters_about(case)
        assert letter.told == {"reason": case.reason}


def test_nothing_was_deleted_that_was_not_dealt_with(story):
    unfinished = [record for record in story.records if record["state"] == "running"]
    assert unfinished == []
    lost = [
        case.what for case in story.cases.values()
        if not (case.record or case.dead or any(line["message"] == "event ignored" for line in case.lines))
    ]  # fmt: skip
    assert lost == []
    deleted = [line for line in story.consumer_lines if line["message"] == "message deleted"]
    assert len({line["message.id"] for line in deleted}) == story.messages


def test_there_is_a_record_for_every_upload_and_no_other(story):
    uploads = {(case.upload.key, case.upload.etag) for case in story.cases.values() if case.ends}
    assert sorted((one["source"]["key"], one["source"]["etag"]) for one in story.records) == sorted(uploads)
