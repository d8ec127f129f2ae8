"""``consilium eval routing`` on a table of 200 questions, with the real encoder."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.integration.evaluation.conftest import Consilium

SUMS = ("What is {} plus {}?", "Add {} to {}.", "Ann has {} apples and buys {} more. How many has she?")
CAPITALS = ("What is the capital of {}?", "Which city governs {}?", "Name the seat of government of {}.")
COUNTRIES = "Peru Chile Kenya France Japan Norway Egypt Spain Ghana Nepal".split()


def sample(path: Path, num: int, *, seed: int, scored: bool = True) -> list[dict[str, Any]]:
    """*cheap* adds, *dear* knows capitals and half of the sums; *num* lines in *path*."""
    rng = random.Random(seed)
    rows: list[dict[str, Any]] = []
    while len(rows) < num:
        adds = len(rows) % 2 == 0
        text = rng.choice(SUMS).format(rng.randint(1, 999), rng.randint(1, 999)) if adds else rng.choice(CAPITALS).format(
            f"{rng.choice(COUNTRIES)}, year {rng.randint(1000, 2000)}"
        )  # fmt: skip
        scores = {"cheap": float(adds), "dear": 1.0 if not adds else float(rng.random() < 0.5)}
        rows.append({"question": text, "task": "sums" if adds else "capitals", **({"scores": scores} if scored else {})})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return rows


@pytest.fixture
def files(tmp_path: Path) -> Mapping[str, Path]:
    train, test, experts = tmp_path / "train.jsonl", tmp_path / "test.jsonl", tmp_path / "experts.json"
    sample(train, 160, seed=1)
    sample(test, 40, seed=2)
    declared = [
        {"id": "cheap", "usd_per_million_tokens": 0.1, "parameters_b": 1},
        {"id": "dear", "usd_per_million_tokens": 1.0, "parameters_b": 70},
    ]
    experts.write_text(json.dumps(declared))
    return {"train": train, "test": test, "experts": experts}


def test_train_and_test_with_every_output(consilium: Consilium, files: Mapping[str, Path], tmp_path: Path) -> None:
    """The table on stdout; JSON, CSV, the page, the charts and the choices as files; the second run takes all from the cache."""
    out = tmp_path / "out"
    command = (
        "eval", "routing", "--train", files["train"], "--test", files["test"], "--experts", files["experts"],
        "--lambda", "0.2", "--lambda", "5",
        "--json", out / "r.json", "--csv", out / "r.csv", "--html", out / "r.html", "--plots", out / "plots", "--choices", out / "c.jsonl",
    )  # fmt: skip

    ran = consilium(*command)
    first = {path.name: path.read_bytes() for path in (out / "r.json", out / "r.csv", out / "r.html", out / "c.jsonl")}
    again = consilium(*command)

    assert (ran.code, again.code) == (0, 0), ran.err
    report = json.loads(first["r.json"])
    rows = {row["name"]: row for row in report["rows"]}
    assert rows["nearest"]["accuracy"] > 0.9
    assert rows["nearest"]["gap_closed"] > 0.5
    assert rows["nearest λ=5"]["cost"] == pytest.approx(0.1)
    assert rows["best single"]["note"].endswith("dear")
    assert "nearest" in ran.out
    assert "Coverage" in ran.out
    choices = [json.loads(line) for line in first["c.jsonl"].decode().splitlines()]
    assert len(choices) == 3 * 40
    assert choices[0].keys() == {"router", "question", "expert", "score"}
    assert {line.get("lambda") for line in choices} == {None, 0.2, 5.0}
    assert {row["name"] for row in csv.DictReader(first["r.csv"].decode().splitlines())} == set(rows)
    assert first["r.html"].startswith(b"<!doctype html>")
    assert (out / "plots" / "cost_quality.png").read_bytes().startswith(b"\x89PNG")
    assert {path.name: path.read_bytes() for path in (out / "r.json", out / "c.jsonl")} == {n: first[n] for n in ("r.json", "c.jsonl")}


def test_hidden_scores_change_no_choice(consilium: Consilium, files: Mapping[str, Path], tmp_path: Path) -> None:
    bare = tmp_path / "bare.jsonl"
    sample(bare, 40, seed=2, scored=False)

    judged = consilium("eval", "routing", "--train", files["train"], "--test", files["test"], "--choices", tmp_path / "a.jsonl", "-q")
    routed = consilium("eval", "routing", "--train", files["train"], "--test", bare, "--choices", tmp_path / "b.jsonl", "--no-cache", "-q")

    assert (judged.code, routed.code) == (0, 0), routed.err
    assert (tmp_path / "a.jsonl").read_text() == (tmp_path / "b.jsonl").read_text()
    assert "nothing to judge" in routed.err


def test_folds_and_tasks_of_one_file(consilium: Consilium, files: Mapping[str, Path], tmp_path: Path) -> None:
    folds = consilium("eval", "routing", "--train", files["train"], "--folds", 4, "--learning-curve", "--json", tmp_path / "f.json", "-q")
    tasks = consilium("eval", "routing", "--train", files["train"], "--leave-one-task-out", "--json", tmp_path / "t.json", "-q")

    assert (folds.code, tasks.code) == (0, 0), folds.err
    by_fold, by_task = (json.loads((tmp_path / name).read_text()) for name in ("f.json", "t.json"))
    assert set(by_fold["rows"][0]["by_part"]) == {"fold 1", "fold 2", "fold 3", "fold 4"}
    sizes = [point["num_train"] for point in by_fold["learning"]]
    assert len(sizes) == 5
    assert sizes == sorted(sizes)
    assert sizes[-1] == by_fold["settings"]["train_questions"]
    assert set(by_task["rows"][0]["by_part"]) == {"sums", "capitals"}


def test_a_csv_is_a_table_too(consilium: Consilium, files: Mapping[str, Path], tmp_path: Path) -> None:
    rows = [json.loads(line) for line in files["train"].read_text().splitlines()]
    with (tmp_path / "t.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["question", "task", "cheap", "dear"])
        writer.writerows([row["question"], row["task"], row["scores"]["cheap"], row["scores"]["dear"]] for row in rows)
    arguments = ("--test", files["test"], "-q")

    one = consilium("eval", "routing", "--train", files["train"], *arguments)
    other = consilium("eval", "routing", "--train", tmp_path / "t.csv", *arguments)

    assert (one.code, other.code) == (0, 0), other.err
    assert one.out == other.out


def test_the_registry_s_own_outcomes(consilium: Consilium, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What experts were measured on, votes included, since the registry keeps answers. Failures and gone experts are left out."""
    monkeypatch.setenv("CONSILIUM_SEED_ZOO", "false")
    rows = sample(tmp_path / "unused.jsonl", 60, seed=3)
    questions, outcomes = tmp_path / "questions.jsonl", tmp_path / "outcomes.jsonl"
    labelled = [{"id": f"q{n}", "question": row["question"], "answer": "yes", "category": row["task"]} for n, row in enumerate(rows)]
    questions.write_text("".join(json.dumps(row) + "\n" for row in labelled))
    lines = [
        {
            "kind": "outcome", "expert_id": expert, "question_id": f"q{n}", "correct": score == 1.0,
            "answer": "yes" if score else f"no, {n}", "category": row["task"], "skills": [], "latency_ms": 5.0,
            "error": "timeout" if n == 0 else None,
        }
        for n, row in enumerate(rows)
        for expert, score in {**row["scores"], "spare": 0.0}.items()
    ]  # fmt: skip
    outcomes.write_text("".join(json.dumps(line) + "\n" for line in lines))
    for expert in ("cheap", "dear", "spare"):
        assert consilium("experts", "add", expert, "--backend", "embedded", "--model", "numerals").code == 0
    assert consilium("questions", "add", questions).code == 0
    assert consilium("profile", "import", outcomes).code == 0

    ran = consilium("eval", "routing", "--from-registry", "--folds", 2, "--near-duplicates", 0, "--json", tmp_path / "r.json", "-q")

    assert ran.code == 0, ran.err
    report = json.loads((tmp_path / "r.json").read_text())
    ways = {row["name"]: row for row in report["rows"]}
    assert report["num_questions"] == 59
    assert ways["nearest"]["latency_ms"] == 5.0
    assert ways["majority vote of 3"]["calls"] == 3.0
    assert report["expert_versions"] == {"cheap": 1, "dear": 1, "spare": 1}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "--train FILE or --from-registry"),
        (("--train", "missing.jsonl"), "missing.jsonl"),
        (("--train", "{train}", "--router", "nearst"), "did you mean 'nearest'"),
        (("--train", "{train}", "--test", "{test}", "--folds", "3"), "leave --test out"),
        (("--train", "{train}", "--lambda", "0.1"), "--experts"),
        (("--train", "{train}", "--experts", "{train}"), "not JSON"),
        (("--train", "{train}", "--json", "."), "is a folder"),
        (("--train", "{train}", "--lambda", "-1"), "--lambda"),
    ],
)
def test_bad_input_is_one_line_that_helps(consilium: Consilium, files: Mapping[str, Path], arguments: tuple[str, ...], told: str) -> None:
    ran = consilium("eval", "routing", *(argument.format(**files) for argument in arguments), "-q")

    assert ran.code == 2
    assert ran.out == ""
    assert ran.err.splitlines()[-1].startswith("error: ")
    assert told in ran.err
