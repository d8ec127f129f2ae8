"""A file of requests: planned, run, and its answers taken away."""

from __future__ import annotations

import json
from pathlib import Path

from tests.browser.conftest import Person
from tests.fakes.admin import AdminParts
from tests.fakes.workers import Says, Stalls

LINES = [
    {
        "custom_id": str(number),
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {"model": "good", "messages": [{"role": "user", "content": f"algebra {number}?"}]},
    }
    for number in range(6)
]


def test_a_file_is_uploaded_planned_run_and_its_answers_downloaded(steward: Person, tmp_path: Path) -> None:
    file = tmp_path / "questions.jsonl"
    file.write_text("\n".join(json.dumps(line) for line in LINES))
    steward.open("/admin/batches")
    steward.look("batches-empty")
    steward.page.locator("#f-file").set_input_files(file)
    steward.click("Upload")
    steward.page.get_by_role("heading", name="A batch of questions.jsonl").wait_for()
    steward.click("Show the plan")
    steward.page.get_by_role("heading", name="The plan").wait_for()
    steward.sees("6 calls")
    steward.look("batch-plan")
    steward.click("Start")
    steward.page.get_by_text("completed", exact=True).first.wait_for()
    steward.sees("6 of 6 lines, 0 failed")
    steward.page.get_by_role("row").filter(has_text="good").wait_for()
    steward.look("batch")
    with steward.page.expect_download() as saved:
        steward.click("Answers", "link")
    answers = [json.loads(line) for line in saved.value.path().read_text().splitlines()]
    assert [a["response"]["body"]["choices"][0]["message"]["content"] for a in answers] == [str(n) for n in range(6)]
    steward.open("/admin/batches")
    steward.look("batches")


def test_what_is_wrong_with_a_file_is_told_by_line_before_anything_runs(steward: Person, tmp_path: Path) -> None:
    steward.expected = ["400"]
    file = tmp_path / "broken.jsonl"
    file.write_text(json.dumps(LINES[0]) + "\nnot json\n")
    steward.open("/admin/batches")
    steward.page.locator("#f-file").set_input_files(file)
    steward.click("Upload")
    steward.page.get_by_role("heading", name="A batch of broken.jsonl").wait_for()
    steward.field("Calls at most").fill("none")
    steward.click("Show the plan")
    steward.sees("must be a whole number above 0")
    steward.field("Calls at most").fill("")
    steward.click("Show the plan")
    steward.sees("line 2")
    steward.look("batch-refused")


def test_a_batch_is_watched_while_it_runs_and_cancelled(steward: Person, parts: AdminParts, tmp_path: Path) -> None:
    """What was answered by then is taken away, and so is what was not."""
    parts.pool.scripted._repeated["good"] = lambda call: Says("3") if "algebra 3" in str(call.messages) else Stalls()
    file = tmp_path / "questions.jsonl"
    file.write_text("\n".join(json.dumps(line) for line in [LINES[3], *LINES[:3]]))
    steward.open("/admin/batches")
    steward.page.locator("#f-file").set_input_files(file)
    steward.click("Upload")
    steward.click("Show the plan")
    steward.click("Start")
    steward.sees("1 of 4 lines, 0 failed")
    steward.page.get_by_role("row").filter(has_text="good").get_by_text("25 %").wait_for()
    steward.look("batch-running")
    steward.click("Cancel")
    steward.page.get_by_text("cancelled", exact=True).first.wait_for()
    steward.sees("4 of 4 lines, 3 failed")
    for link, custom_ids in (("Answers", ["3"]), ("Errors", ["0", "1", "2"])):
        with steward.page.expect_download() as saved:
            steward.click(link, "link")
        assert sorted(json.loads(line)["custom_id"] for line in saved.value.path().read_text().splitlines()) == custom_ids
