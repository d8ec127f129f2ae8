"""The zoo as a user meets it: a real process, real models, the OpenAI client unchanged."""

from __future__ import annotations

import json
import re
from pathlib import Path

import httpx
import openai
import pytest
from openai import OpenAI

from tests.e2e.processes import ADMIN_KEY, command_line

pytestmark = pytest.mark.timeout(300)


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


@pytest.mark.parametrize(
    ("question", "answer", "expert"),
    [
        ("Write MCMXCIV in Arabic numerals.", "1994", "numerals"),
        ("What is 417 + 268?", "685", "arithmetic"),
        ("Spell 'garden' backwards.", "nedrag", "text"),
        ("What day is 20 days after Monday?", "Sunday", "calendar"),
        ("How many minutes are in 7 hours?", "420", "units"),
        ("I land in Kenya on Friday. What is its capital?", "Nairobi", "facts"),
        ("Evaluate: true and (false or true)", "true", "logic"),
        ("What comes next: 4, 9, 14, 19?", "24", "sequences"),
        ("Which is larger, 345 or 354?", "354", "comparison"),
    ],
)
def test_the_right_expert_answers(client: OpenAI, question: str, answer: str, expert: str) -> None:
    raw = client.chat.completions.with_raw_response.create(model="auto", messages=said(question))

    assert raw.parse().choices[0].message.content == answer
    assert raw.headers["x-consilium-experts"].split(",")[0] == expert


def test_a_stream_arrives_in_pieces_and_adds_up_to_the_plain_answer(client: OpenAI) -> None:
    question = said("Write 1994 in words.")
    plain = client.chat.completions.create(model="auto", messages=question)
    chunks = list(client.chat.completions.create(model="auto", messages=question, stream=True, stream_options={"include_usage": True}))

    pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    assert "".join(pieces) == plain.choices[0].message.content == "one thousand nine hundred ninety-four"
    assert len(pieces) > 5
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[-1].choices == []
    assert chunks[-1].usage == plain.usage


FUSED = {"consilium": {"explain": True, "aggregator_expert": "aggregator"}}
"""Asked for by name: of its own a panel of the zoo votes, since its specialists were measured to be better than its aggregator."""


def test_a_panel_calls_three_experts_and_the_aggregator_that_was_asked_for_and_says_so(client: OpenAI) -> None:
    made = client.chat.completions.create(model="consilium/panel", messages=said("What day is 20 days after Monday?"), extra_body=FUSED)

    told = made.model_extra["consilium"]  # type: ignore[index]
    assert [call["role"] for call in told["calls"]] == ["candidate"] * 3 + ["aggregator"]
    assert told["aggregator"] == "fuse:aggregator"
    assert made.choices[0].message.content == "Sunday"
    assert made.usage.total_tokens == sum(call["usage"]["total_tokens"] for call in told["calls"])  # type: ignore[union-attr]


def test_real_experts_tell_what_they_hold_each_letter_to_be_worth(client: OpenAI) -> None:
    """Byte-level models: a letter is a token of all of them."""
    by_probability = {"aggregator": "weighted_vote", "mode_options": {"weights": "probability"}, "k": 2, "explain": True}
    made = client.chat.completions.create(
        model="consilium/panel", messages=said("What is the first letter of 'garden'?"), extra_body={"consilium": by_probability}
    )

    assert made.choices[0].message.content == "g"
    assert made.choices[0].logprobs is None
    told = made.model_extra["consilium"]["aggregator_reason"]  # type: ignore[index]
    assert re.match(r"G [01]\.\d\d by the mean probability of 2 experts", told)


def test_a_panel_votes_where_a_candidate_was_measured_to_be_better_than_the_aggregator(client: OpenAI) -> None:
    made = client.chat.completions.create(
        model="consilium/panel", messages=said("What day is 20 days after Monday?"), extra_body={"consilium": {"explain": True}}
    )

    told = made.model_extra["consilium"]  # type: ignore[index]
    assert made.choices[0].message.content == "Sunday"
    assert told["aggregator"] == "weighted_vote"
    assert "calendar is right in" in told["aggregator_reason"]


def test_a_streamed_panel_streams_its_last_step(client: OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model="consilium/panel",
            messages=said("What day is 20 days after Monday?"),
            stream=True,
            extra_body=FUSED,
        )
    )

    pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    assert "".join(pieces) == "Sunday"
    assert len(pieces) > 1  # as the aggregator writes it; tokens that a busy reader has not fetched yet come together
    told = next(chunk.model_extra["consilium"] for chunk in chunks if "consilium" in (chunk.model_extra or {}))
    assert told["aggregator"] == "fuse:aggregator"


def test_a_follow_up_stays_with_the_expert_of_the_conversation(client: OpenAI) -> None:
    turns = [*said("What is 30 + 12?"), {"role": "assistant", "content": "42"}, *said("And doubled?")]

    raw = client.chat.completions.with_raw_response.create(model="auto", messages=turns)  # type: ignore[arg-type]

    assert raw.headers["x-consilium-experts"] == "arithmetic"
    assert raw.parse().choices[0].message.content == "84"


def test_a_new_topic_leaves_the_expert_of_the_conversation(client: OpenAI) -> None:
    turns = [*said("What is 30 + 12?"), {"role": "assistant", "content": "42"}, *said("What is the capital of Spain?")]

    assert client.chat.completions.create(model="auto", messages=turns).choices[0].message.content == "Madrid"  # type: ignore[arg-type]


def test_after_a_change_of_topic_a_follow_up_goes_to_the_new_topic(client: OpenAI) -> None:
    turns = [
        *said("What is the capital of France?"),
        {"role": "assistant", "content": "Paris"},
        *said("What is 3 + 4?"),
        {"role": "assistant", "content": "7"},
    ]

    doubled = client.chat.completions.with_raw_response.create(model="auto", messages=[*turns, *said("and doubled?")])  # type: ignore[list-item]
    more = client.chat.completions.with_raw_response.create(model="auto", messages=[*turns, *said("once more please")])  # type: ignore[list-item]

    assert [raw.headers["x-consilium-experts"] for raw in (doubled, more)] == ["arithmetic"] * 2
    assert doubled.parse().choices[0].message.content == "14"


def test_a_question_like_nothing_known_is_refused_with_the_skills_there_are_where_there_is_no_fallback(client: OpenAI) -> None:
    with pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(model="consilium/single", messages=said("Write a poem about autumn leaves."))

    assert caught.value.status_code == 503
    assert caught.value.body["code"] == "no_eligible_expert"  # type: ignore[index]
    assert "roman numerals" in str(caught.value)
    assert "experts add" in str(caught.value)


def test_models_are_listed(client: OpenAI) -> None:
    names = [model.id for model in client.models.list()]

    assert "auto" in names
    assert "consilium/panel" in names
    assert "numerals" in names
    assert client.models.retrieve("numerals").id == "numerals"


def test_errors_are_the_clients_own_types(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="numerals"):
        client.chat.completions.create(model="numeral", messages=said("hello"))
    with pytest.raises(openai.BadRequestError, match=r"did you mean|nearest"):
        client.chat.completions.create(model="auto", messages=said("hello"), extra_body={"consilium": {"explian": True}})
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="auto", messages=[])


def test_a_prompt_that_overflows_the_context_is_a_400(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="numerals", messages=said("X" * 2000))

    assert caught.value.code == "context_length_exceeded"


def test_json_schema_and_forced_tools_hold(client: OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"answer": {"type": "string", "maxLength": 12}},
        "required": ["answer"],
        "additionalProperties": False,
    }
    as_json = client.chat.completions.create(
        model="numerals",
        messages=said("Write MMXX in digits."),
        response_format={"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}},
    )
    tool = {"type": "function", "function": {"name": "report", "parameters": schema}}
    as_tool = client.chat.completions.create(
        model="numerals",
        messages=said("Write MMXX in digits."),
        tools=[tool],
        tool_choice="required",  # type: ignore[list-item]
    )

    assert set(json.loads(as_json.choices[0].message.content or "")) == {"answer"}
    call = as_tool.choices[0].message.tool_calls[0]  # type: ignore[index]
    assert call.function.name == "report"  # type: ignore[union-attr]
    assert set(json.loads(call.function.arguments)) == {"answer"}  # type: ignore[union-attr]


def test_embeddings_come_from_the_encoder(client: OpenAI) -> None:
    made = client.embeddings.create(model="all-MiniLM-L6-v2", input=["seven plus five", "five plus seven", "the capital of France"])

    near, other = (sum(a * b for a, b in zip(made.data[0].embedding, made.data[i].embedding, strict=True)) for i in (1, 2))
    assert len(made.data[0].embedding) == 384
    assert near > other + 0.2


def test_the_command_line_explains_an_answer(zoo: str, zoo_folder: Path) -> None:
    printed = command_line("ask", "Write MCMXCIV in Arabic numerals.", "--explain", url=zoo, folder=zoo_folder)

    assert printed.startswith("1994")
    assert "roman numerals" in printed
    assert "measured" in printed


def test_a_change_of_the_registry_is_live_at_once(zoo: str, client: OpenAI) -> None:
    admin = {"authorization": f"Bearer {ADMIN_KEY}"}
    with httpx.Client(base_url=zoo, headers=admin, trust_env=False, timeout=30) as http:
        http.patch("/admin/api/experts/logic", json={"enabled": False}).raise_for_status()
        try:
            with pytest.raises(openai.NotFoundError, match="disabled"):
                client.chat.completions.create(model="logic", messages=said("true or false"))
        finally:
            http.patch("/admin/api/experts/logic", json={"enabled": True}).raise_for_status()

    assert client.chat.completions.create(model="logic", messages=said("Evaluate: true and false")).choices[0].message.content == "false"
