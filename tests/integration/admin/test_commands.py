"""The command line against a listening service."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from domain.errors import ExpertTimeout, ExpertUnreachable
from tests.fakes.admin import SCRIPT, AdminParts, ScriptedPool
from tests.fakes.workers import Fails, Says
from tests.integration.admin.conftest import Consilium
from workers.discovery import DiscoveredModel


def test_ask_prints_the_answer_alone(consilium: Consilium) -> None:
    ran = consilium("ask", "algebra 3?", "--model", "good")

    assert (ran.code, ran.out, ran.err) == (0, "3\n", "")


def test_ask_streams(consilium: Consilium, parts: AdminParts) -> None:
    """The pieces of a streamed answer make the same answer."""
    parts.pool.scripted = ScriptedPool({"good": Says("the answer is 3", pieces=("the ans", "wer is 3"))}).scripted

    ran = consilium("ask", "algebra 3?", "--model", "good", "--stream")

    assert (ran.code, ran.out) == (0, "the answer is 3\n")
    assert parts.pool.scripted.streamed == ["good"]


@pytest.mark.parametrize("streaming", ["--stream", "--no-stream"])
def test_ask_explains(consilium: Consilium, streaming: str) -> None:
    """Behind the answer: strategy and router, skills with similarity, experts with scores and reasons, calls, times."""
    ran = consilium("ask", "algebra 3?", "--explain", streaming)

    assert ran.code == 0
    for told in ("strategy auto", "router fixed", "algebra", "0.900", "bad", "in order", "candidate", "ok", "aggregator", "overhead"):
        assert told in ran.out, told
    assert "\x1b" not in ran.out


@pytest.mark.parametrize("streaming", ["--stream", "--no-stream"])
def test_an_empty_answer_is_told_apart_from_a_fault(consilium: Consilium, parts: AdminParts, streaming: str) -> None:
    """The expert stopped after its reasoning: the line stays empty, and stderr says so."""
    parts.pool.scripted = ScriptedPool({"good": Says("", reasoning="3 is three")}).scripted

    ran = consilium("ask", "algebra 3?", "--model", "good", streaming)

    assert (ran.code, ran.out) == (0, "\n")
    assert "answer is empty" in ran.err
    assert "3 is three" in ran.err


def test_ask_for_programs_is_the_whole_answer(consilium: Consilium) -> None:
    answer = json.loads(consilium("ask", "algebra 3?", "--explain", "--json").out)

    assert answer["choices"][0]["message"]["content"] == "no idea"
    assert answer["consilium"]["router"] == "fixed"


def test_a_strategy_can_be_tried_step_by_step(consilium: Consilium) -> None:
    """The answer, then who was called in which stage and what became of it, and the tokens that were waited for."""
    ran = consilium("strategies", "try", "panel", "algebra 3?", "--mode", "chain", "--mode-options", '{"steps": 2}')

    assert ran.code == 0
    for told in ("stage", "answered", "aggregator chain:", "waited for one after the other"):
        assert told in ran.out, told


def test_a_question_can_be_asked_and_tried_with_an_effort(consilium: Consilium) -> None:
    """The panel's three candidates become one, and an unknown level is told with those that there are."""
    asked = json.loads(consilium("ask", "algebra 3?", "--strategy", "panel", "--effort", "none", "--explain", "--json").out)
    tried = consilium("strategies", "try", "panel", "algebra 3?", "--effort", "none")
    refused = consilium("ask", "algebra 3?", "--effort", "hihg")

    assert [call["role"] for call in asked["consilium"]["calls"]] == ["candidate"]
    assert asked["consilium"]["detail"]["effort"]["level"] == "none"
    assert "aggregator single" in tried.out
    assert (refused.code, "did you mean 'high'" in refused.err) == (2, True)


def test_options_of_a_mode_that_are_no_json_are_refused(consilium: Consilium) -> None:
    ran = consilium("strategies", "try", "panel", "algebra 3?", "--mode-options", "steps=2")

    assert (ran.code, ran.out) == (2, "")
    assert "--mode-options is no JSON" in ran.err


def test_ask_takes_options_for_the_request(consilium: Consilium, parts: AdminParts) -> None:
    consilium("ask", "algebra 3?", "--strategy", "panel", "--k", "1", "--aggregator", "first", "--system", "Be brief.")

    (call,) = parts.pool.scripted.calls
    assert [message["role"] for message in call.messages] == ["system", "user"]


def test_what_routing_is_to_weigh_is_passed_on_and_a_strategys_adjustments_are_shown(consilium: Consilium) -> None:
    ran = consilium(
        "route", "algebra 3?", "--deny", "bad", "--boost", "good=0.25", "--price-weight", "0.5", "--router-options", "{}", "--json"
    )  # fmt: skip
    decision = json.loads(ran.out)

    assert decision["detail"]["adjustments"] == {"boost": {"good": 0.25}, "price_weight": 0.5}
    assert [expert["why"] for expert in decision["considered"] if expert["expert"] == "bad"] == ["in consilium.deny"]
    assert "adjustments" in consilium("strategies", "show", "panel").out


def test_route_asks_nobody(consilium: Consilium, parts: AdminParts) -> None:
    ran = consilium("route", "algebra 3?")

    assert ran.code == 0
    assert "✓" in ran.out
    assert parts.pool.scripted.calls == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("ask", "hi", "--model", "goood"), "good"),
        (("ask", "hi", "--strategy", "panle"), "panel"),
        (("ask", "hi", "--aggregator", "fuze"), "fuse"),
        (("ask", "   "), "empty"),
        (("ask", "hi", "--model", "good", "--strategy", "panel"), "contradict"),
        (("route", "hi", "--router", "fixd"), "fixd"),
        (("experts", "show", "goood"), "'good'"),
        (("experts", "add", "sql", "--backend", "opnai", "--model", "x"), "'openai'"),
        (("experts", "add", "sql", "--backend", "embedded", "--model", "x", "--skills", "algbra"), "'algebra'"),
        (("experts", "add", "sql", "--backend", "openai", "--model", "x", "--base-url", "http://h/v1", "--api-key", "sk-1"), "env:"),
        (("experts", "discover", "localhost"), "base_url"),
        (("strategies", "show", "panle"), "'panel'"),
        (("profile", "run", "--experts", "goood"), "'good'"),
        (("profile", "run", "--skills", "algbra"), "'algebra'"),
        (("profile", "run", "--questions", "missing.jsonl"), "missing.jsonl"),
        (("profile", "run", "--resume", "run-1", "--limit", "3"), "--resume"),
        (("profile", "show", "goood"), "'good'"),
        (("profile", "rollback", "run-1"), "run-1"),
        (("profile", "import", "missing.jsonl"), "missing.jsonl"),
        (("questions", "add", "missing.jsonl"), "missing.jsonl"),
        (("questions", "list", "--skill", "algbra"), "'algebra'"),
        (("skills", "remove", "algbra"), "'algebra'"),
        (("experts", "apply", "-f", "missing.yaml"), "missing.yaml"),
    ],
)
def test_bad_input_is_one_line_that_helps(consilium: Consilium, arguments: tuple[str, ...], told: str) -> None:
    """Exit code 2, nothing on stdout, one line on stderr that names what is wrong or what is nearest."""
    ran = consilium(*arguments)

    assert ran.code == 2
    assert ran.out == ""
    assert ran.err.startswith("error: ")
    assert ran.err.count("\n") == 1
    assert told in ran.err


@pytest.mark.parametrize("streaming", ["--stream", "--no-stream"])
def test_an_expert_that_fails_is_told(consilium: Consilium, parts: AdminParts, streaming: str) -> None:
    """Exit code 1 and who failed, also when it fails in the middle of a stream."""
    parts.pool.scripted = ScriptedPool({"good": Fails(ExpertTimeout("too slow"), pieces=("half",))}).scripted

    ran = consilium("ask", "hi", "--model", "good", streaming)

    assert ran.code == 1
    assert "too slow" in ran.err
    assert "Traceback" not in ran.err


def test_experts_are_listed_shown_added_and_removed(consilium: Consilium) -> None:
    added = consilium(
        "experts", "add", "sql", "--backend", "openai", "--model", "org/sql", "--base-url", "http://127.0.0.1:1/v1", "--skills", "algebra"
    )  # fmt: skip
    listed = consilium("experts", "list")
    shown = consilium("experts", "show", "sql")
    rows = json.loads(consilium("experts", "list", "--json").out)
    removed = consilium("experts", "remove", "sql")

    assert added.code == removed.code == 0
    assert "org/sql" in listed.out
    assert "closed" in listed.out
    assert "base_url" in shown.out
    assert "never measured" in shown.err
    assert [row["id"] for row in rows] == ["bad", "good", "sql", "worse"]
    assert "sql" not in consilium("experts", "list").out


def test_an_expert_is_added_with_every_kind_of_field(consilium: Consilium) -> None:
    """By options and by ``--set``; the service says what a field takes, and nothing is added where it does not."""
    where = ("--backend", "openai", "--model", "m", "--base-url", "http://127.0.0.1:1/v1")
    options = (
        "--labels", "internal,eu", "--exemplar", "What is 1, or 2?", "--exemplar", "And 3?", "--price-prompt", "0.5", "--timeout-s", "30",
        "--first-token-timeout-s", "4", "--max-queued", "0", "--hedge-after-s", "2.5", "--disabled", "--set", "sampling.temperature=0",
        "--set", "price.completion=1.5", "--set", "roles=[\"helper\"]", "--set", "extra_body.top_k=4",
    )  # fmt: skip
    added = consilium("experts", "add", "full", *where, *options, "--json")
    unknown = consilium("experts", "add", "wrong", *where, "--set", "timeuot_s=5")
    of_another_type = consilium("experts", "add", "wrong", *where, "--set", "timeout_s=soon")

    assert added.code == 0, added.err
    card = json.loads(consilium("experts", "show", "full", "--json").out)
    assert (card["labels"], card["exemplars"], card["enabled"]) == (["eu", "internal"], ["What is 1, or 2?", "And 3?"], False)
    assert (card["price"], card["sampling"], card["extra_body"]) == ({"prompt": 0.5, "completion": 1.5}, {"temperature": 0}, {"top_k": 4})
    assert (card["timeout_s"], card["first_token_timeout_s"], card["max_queued"], card["hedge_after_s"]) == (30, 4, 0, 2.5)
    assert card["roles"] == ["helper"]
    assert (unknown.code, of_another_type.code) == (2, 2)
    assert "'timeout_s'" in unknown.err
    assert "timeout_s" in of_another_type.err
    assert "wrong" not in consilium("experts", "list").out


def test_an_expert_may_declare_skills_that_nobody_knew(consilium: Consilium) -> None:
    """They become known, and the command says so; a misspelling is refused with the way to mean it."""
    new = ("--backend", "litellm", "--model", "anthropic/claude", "--api-key", "env:ANTHROPIC_API_KEY")

    added = consilium("experts", "add", "claude", *new, "--skills", "law, algebra, essays")
    refused = consilium("experts", "add", "other", *new, "--skills", "Essay")
    meant = consilium("skills", "add", "Essay")
    again = consilium("experts", "add", "other", *new, "--skills", "Essay", "--json")

    assert added.code == 0
    assert added.out.splitlines()[1:] == ["new skill: law", "new skill: essays"]
    assert "law" in consilium("skills", "list").out
    assert refused.code == 2
    assert "did you mean 'essays'? If it is another skill, add it first: consilium skills add Essay" in refused.err
    assert meant.code == again.code == 0
    assert json.loads(again.out)["new_skills"] == []


@pytest.mark.parametrize("given", ["", "a/b", "good/check", "..", "good?limit=1", "a#b"])
def test_an_id_reaches_no_other_address(consilium: Consilium, given: str) -> None:
    for arguments in (("experts", "show", given), ("experts", "remove", given), ("experts", "check", given), ("profile", "show", given)):
        ran = consilium(*arguments)

        assert (ran.code, ran.out) == (2, ""), arguments
        assert repr(given) in ran.err


def test_changes_tell_programs_what_was_done(consilium: Consilium, tmp_path: Path) -> None:
    file = tmp_path / "outcomes.jsonl"
    rows = [
        {"kind": "outcome", "expert_id": "good", "question_id": "algebra-1", "correct": True},
        {"kind": "aggregator_outcome", "expert_id": "bad", "question_id": "algebra-1", "correct": False},
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def told(*arguments: str) -> Any:
        return json.loads(consilium(*arguments, "--json").out)

    imported = told("profile", "import", str(file))
    (run,) = imported["runs"]
    assert (run["num_recorded"], imported["num_aggregator_outcomes"]) == (1, 1)
    assert told("profile", "rollback", run["id"]) == {"rolled_back": run["id"]}
    assert told("skills", "add", "chess", "--description", "The game")["name"] == "chess"
    assert told("skills", "remove", "chess") == {"removed": ["chess"]}
    assert told("experts", "remove", "worse") == {"removed": ["worse"]}


def test_an_expert_in_use_is_not_removed(consilium: Consilium) -> None:
    ran = consilium("experts", "remove", "bad")

    assert ran.code == 1
    assert "panel" in ran.err


def test_a_manifest_goes_out_and_in(consilium: Consilium, tmp_path: Path) -> None:
    """What export writes, apply takes; a change is told, a dry run makes none, and prune removes."""
    file = tmp_path / "experts.yaml"
    consilium("experts", "export", "-o", str(file))
    same = consilium("experts", "apply", "-f", str(file), "--prune")
    file.write_text(file.read_text().replace("worse", "tall"))
    dry = consilium("experts", "apply", "-f", str(file), "--prune", "--dry-run")
    real = json.loads(consilium("experts", "apply", "-f", str(file), "--prune", "--json").out)

    assert "unchanged" in same.out
    assert "would be created: expert tall" in dry.out
    assert "would be removed: expert worse" in dry.out
    assert (real["created"], real["removed"]) == (["expert tall"], ["expert worse"])


def test_a_wrong_manifest_names_the_field(consilium: Consilium, tmp_path: Path) -> None:
    file = tmp_path / "experts.yaml"
    file.write_text("experts:\n- {id: sql, backend: embeded, model: sql}\n")

    ran = consilium("experts", "apply", "-f", str(file))

    assert ran.code == 2
    assert "experts[0].backend" in ran.err
    assert "'embedded'" in ran.err


def test_check_fails_when_one_expert_is_dead(consilium: Consilium, parts: AdminParts) -> None:
    """All are asked; the dead one is told with its reason, and the exit code is 1."""
    parts.pool.scripted = ScriptedPool({**SCRIPT, "bad": Fails(ExpertUnreachable("connection refused"))}).scripted

    ran = consilium("experts", "check")
    one = consilium("experts", "check", "good")

    assert ran.code == 1
    assert "connection refused" in ran.out
    assert one.code == 0


def test_discover_lists_and_saves(consilium: Consilium, parts: AdminParts) -> None:
    parts.pool.served = [DiscoveredModel("org/sql", max_model_len=512)]

    looked = consilium("experts", "discover", "http://127.0.0.1:8000/v1")
    saved = consilium("experts", "discover", "http://127.0.0.1:8000/v1", "--save")

    assert "new" in looked.out
    assert "--save" in looked.err
    assert "added" in saved.out


def test_discover_says_what_cannot_be_an_expert(consilium: Consilium, parts: AdminParts) -> None:
    parts.pool.served = [DiscoveredModel("endless", max_model_len=2**40)]

    ran = consilium("experts", "discover", "http://127.0.0.1:8000/v1", "--save")

    assert "invalid" in ran.out
    assert "endless cannot be an expert: context_length" in ran.err


def test_discover_on_a_dead_address_fails(consilium: Consilium, parts: AdminParts) -> None:
    parts.pool.served = ExpertUnreachable("http://127.0.0.1:1/v1/models: connection refused")

    ran = consilium("experts", "discover", "http://127.0.0.1:1/v1")

    assert ran.code == 1
    assert "connection refused" in ran.err


def test_strategies_and_skills_are_listed(consilium: Consilium) -> None:
    assert "consilium/panel" in consilium("strategies", "list").out
    assert "top_k, k 2" in consilium("strategies", "show", "consilium/panel").out
    assert consilium("skills", "add", "word games", "--description", "Anagrams").code == 0
    assert "Anagrams" in consilium("skills", "list").out
    assert consilium("skills", "remove", "word games").code == 0


def test_fields_of_a_strategy_are_changed_and_the_others_stay(consilium: Consilium) -> None:
    before = json.loads(consilium("strategies", "show", "panel", "--json").out)
    told = consilium("strategies", "set", "consilium/panel", "fallback_expert=good", "pick.k=1", "description=one = two")
    after = json.loads(consilium("strategies", "show", "panel", "--json").out)
    back = json.loads(consilium("strategies", "set", "panel", "fallback_expert=null", "--json").out)
    unknown = consilium("strategies", "set", "panel", "fallback_expert=goood")

    assert (told.code, told.out) == (0, "changed panel: fallback_expert, pick, description\n")
    assert after == before | {
        "fallback_expert": "good", "pick": before["pick"] | {"k": 1}, "description": "one = two", "version": after["version"],
    }  # fmt: skip
    assert back["fallback_expert"] is None
    assert unknown.code == 2
    assert "did you mean 'good'?" in unknown.err


def test_a_profile_run_is_followed_to_its_end(consilium: Consilium) -> None:
    """It prints what it came to; the profile then shows accuracy and the number of questions, and can be rolled back."""
    ran = consilium("profile", "run", "--experts", "good,bad", "--note", "trial")
    shown = consilium("profile", "show")
    run_id = json.loads(consilium("profile", "runs", "--json").out)[0]["id"]
    consilium("profile", "rollback", run_id)

    assert ran.code == 0
    assert "16 of 16 answers, 4 right" in ran.out
    assert "100 % (4)" in shown.out
    assert "50 % (8)" in shown.out
    assert "rolled_back" in consilium("profile", "runs").out
    assert "nothing is measured" in consilium("profile", "show").err


def test_what_was_measured_of_an_older_card_is_told_and_counts_for_nothing(consilium: Consilium, tmp_path: Path) -> None:
    """Until the card comes back, or the expert is measured again."""
    consilium("profile", "run", "--experts", "good,bad")
    file = tmp_path / "experts.yaml"
    consilium("experts", "export", "-o", str(file))
    manifest = file.read_text()
    file.write_text(manifest.replace("model: good", "model: better"))
    tried = consilium("experts", "apply", "-f", str(file), "--dry-run")
    applied = consilium("experts", "apply", "-f", str(file))
    shown, listed = consilium("profile", "show"), json.loads(consilium("profile", "show", "good", "--json").out)
    file.write_text(manifest)
    back = consilium("experts", "apply", "-f", str(file))

    assert "expert good: 8 questions were answered by another card of it and would count no more" in tried.err
    assert "expert good: 8 questions were answered by another card of it and count no more" in applied.err
    assert "100 % (4)" not in shown.out
    assert "good: 8 questions were answered by an older card of it" in shown.err
    assert (listed["profiles"][0]["num_outdated"], listed["profiles"][0]["overall"]["num_answered"]) == (8, 0)
    assert "count no more" not in back.err
    assert "100 % (4)" in consilium("profile", "show").out


def test_a_profile_run_over_a_file_asks_that_file(consilium: Consilium, tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text('{"question": "algebra 7?", "answer": "7", "skills": ["sums"]}\n')

    run = json.loads(consilium("profile", "run", "--questions", str(file), "--experts", "good", "--json").out)

    assert (run["num_planned"], run["num_correct"]) == (1, 1)


def test_a_wrong_line_of_a_file_is_named(consilium: Consilium, tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text('{"question": "q", "answer": "a"}\n{"question": "q"}\n')

    ran = consilium("questions", "add", str(file))

    assert ran.code == 2
    assert "line 2" in ran.err
    assert "answer" in ran.err


def test_questions_are_added_and_listed(consilium: Consilium, tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text(
        "".join(json.dumps({"question": f"Capital of {n}?", "answer": "x" * 900, "skills": ["capitals"]}) + "\n" for n in range(3000))
    )

    added = consilium("questions", "add", str(file))
    listed = consilium("questions", "list", "--skill", "capitals", "--limit", "2")

    assert added.out == "stored 3000 questions\n"
    assert listed.out.count("Capital of") == 2
    assert "the first 2" in listed.err


def test_a_file_s_new_skills_are_held_against_those_before_it_and_not_against_each_other(consilium: Consilium, tmp_path: Path) -> None:
    """Also where it is sent in several pieces; nothing of it is stored when one is misspelt."""
    file = tmp_path / "mine.jsonl"
    names = ["high school mathematics", "high school statistics"]
    rows = [{"question": f"{name} {n}?", "answer": "x" * 900, "skills": [name]} for name in names for n in range(1600)]
    file.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"question": "2 + 3?", "answer": "5", "skills": ["algebr"]}]))

    misspelt = consilium("questions", "add", str(file))
    none = consilium("questions", "list", "--json")
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    added = consilium("questions", "add", str(file))

    assert misspelt.code == 2
    assert "(2 + 3?): skills[0] names the unknown skill 'algebr'; did you mean 'algebra'?" in misspelt.err
    assert "high school" not in none.out
    assert added.out == "stored 3200 questions\n"


def test_a_dead_expert_leaves_a_run_to_resume(consilium: Consilium, parts: AdminParts) -> None:
    parts.pool.scripted = ScriptedPool({"good": Fails(ExpertUnreachable("connection refused"))}).scripted
    ran = consilium("profile", "run", "--experts", "good")
    run_id = json.loads(consilium("profile", "runs", "--json").out)[0]["id"]
    parts.pool.scripted = ScriptedPool(SCRIPT).scripted

    resumed = consilium("profile", "run", "--resume", run_id)

    assert ran.code == 1
    assert "connection refused" in ran.err
    assert f"--resume {run_id}" in ran.err
    assert resumed.code == 0
    assert "8 of 8 answers, 4 right" in resumed.out


def test_profiles_travel(consilium: Consilium, tmp_path: Path, parts: AdminParts) -> None:
    """Exported answers, of experts and aggregators, come back by import."""
    file = tmp_path / "outcomes.jsonl"
    consilium("profile", "run")
    parts.pool.scripted = ScriptedPool({"bad": "2"}).scripted
    measured = consilium("profile", "aggregators")
    consilium("profile", "export", "-o", str(file))
    before: dict[str, Any] = json.loads(consilium("profile", "show", "--json").out)
    consilium("profile", "rollback", json.loads(consilium("profile", "runs", "--json").out)[0]["id"])

    imported = consilium("profile", "import", str(file))

    assert "25 % (4)" in measured.out
    assert "imported 24 answers" in imported.out
    assert "4 answers of aggregators" in imported.out
    assert json.loads(consilium("profile", "show", "--json").out) == before


def test_measurements_are_carried_over_a_change_that_makes_no_difference(consilium: Consilium, tmp_path: Path) -> None:
    """The same model in another folder: exported before, imported as answers of the card that is here."""
    consilium("profile", "run", "--experts", "good")
    outcomes, file = tmp_path / "outcomes.jsonl", tmp_path / "experts.yaml"
    consilium("profile", "export", "-o", str(outcomes))
    consilium("experts", "export", "-o", str(file))
    file.write_text(file.read_text().replace("model: good", "model: moved"))
    consilium("experts", "apply", "-f", str(file))

    plain = consilium("profile", "import", str(outcomes), "--json")
    without = json.loads(consilium("profile", "show", "good", "--json").out)["profiles"][0]
    consilium("profile", "import", str(outcomes), "--as-current")
    carried = json.loads(consilium("profile", "show", "good", "--json").out)["profiles"][0]

    assert plain.code == 0, plain.err
    assert "good: 8 questions were answered by an older card of it" in plain.err
    assert (without["overall"]["num_answered"], without["num_outdated"]) == (0, 8)
    assert (carried["overall"]["num_answered"], carried["num_outdated"]) == (8, 0)


def test_a_wrong_key_says_where_the_key_comes_from(consilium: Consilium) -> None:
    ran = consilium("experts", "list", "--key", "wrong")

    assert ran.code == 1
    assert "CONSILIUM_KEY" in ran.err
