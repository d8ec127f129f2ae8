"""Reasoning is split from the answer, however its tags are cut."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.chat import Choice, ChoiceDelta, Chunk, Usage
from workers.reasoning import ReasoningSplitter, Split, split_choice, split_stream, split_text

CASES = {
    "answer": Split("", "answer"),
    "": Split("", ""),
    "  answer": Split("", "  answer"),
    "<think>why</think>answer": Split("why", "answer"),
    "\n<think>\nwhy\n</think>\n\nanswer\n": Split("\nwhy\n", "answer\n"),
    "<think></think>answer": Split("", "answer"),
    "<think>why": Split("why", ""),
    "<think>a </thin b</think>c": Split("a </thin b", "c"),
    "<think>a</think>b<think>c</think>d": Split("a", "b<think>c</think>d"),
    "<thin": Split("", "<thin"),
    "say <think> and </think> like this": Split("", "say <think> and </think> like this"),
    "a < b </ c": Split("", "a < b </ c"),
}


@pytest.mark.parametrize(("text", "expected"), CASES.items())
def test_whole_text_is_split(text: str, expected: Split) -> None:
    assert split_text(text) == expected


def test_a_missing_opening_tag_is_put_right_in_a_whole_text() -> None:
    assert split_text("why</think>\nanswer") == Split("why", "answer")


def test_in_a_stream_a_missing_opening_tag_only_loses_the_closing_one() -> None:
    splitter = ReasoningSplitter()

    assert splitter.feed("why</th") + splitter.feed("ink>\nanswer") + splitter.finish() == Split("", "whyanswer")


@given(text=st.sampled_from(sorted(CASES)), data=st.data())
def test_pieces_cut_anywhere_give_what_the_whole_gives(text: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    splitter, result = ReasoningSplitter(), Split()
    for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        result += splitter.feed(text[start:end])

    assert result + splitter.finish() == CASES[text]


@given(st.text(alphabet="<think>/ ax", max_size=40).filter(lambda text: "think>" not in text), st.integers(1, 5))
def test_text_without_tags_is_all_answer(text: str, size: int) -> None:
    splitter, result = ReasoningSplitter(), Split()
    for start in range(0, len(text), size):
        result += splitter.feed(text[start : start + size])

    assert result + splitter.finish() == Split("", text)


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_a_server_s_own_reasoning_is_kept(name: str) -> None:
    message = split_choice(Choice({"role": "assistant", "content": "<think>x", name: "why"})).message

    assert message["reasoning_content"] == "why"
    assert message[name] == "why"
    assert message["content"] == "<think>x"


def test_a_message_without_text_is_left_alone() -> None:
    choice = Choice({"role": "assistant", "content": None, "tool_calls": []})

    assert split_choice(choice) is choice


async def _chunks(*chunks: Chunk) -> AsyncGenerator[Chunk, None]:
    for chunk in chunks:
        yield chunk


def _says(text: str, index: int = 0, finish: str | None = None) -> Chunk:
    return Chunk((ChoiceDelta({"content": text} if text else {}, index, finish),))


async def test_a_stream_is_split_for_each_choice_by_itself() -> None:
    source = _chunks(
        Chunk((ChoiceDelta({"role": "assistant", "content": ""}),)),
        _says("<thi"), _says("plain", 1), _says("nk>a"), _says("</think> b"), _says("", 0, "stop"), _says(" </thi", 1, "stop"),
        Chunk(usage=Usage(1, 2)),
    )  # fmt: skip
    result = [chunk async for chunk in split_stream(source)]
    pieces = [piece for chunk in result for piece in chunk.choices]

    assert [piece.delta for piece in pieces] == [
        {"role": "assistant", "content": ""},
        {"content": "plain"},
        {"reasoning_content": "a"},
        {"content": "b"},
        {},
        {"content": " </thi"},
    ]
    assert result[-1].usage == Usage(1, 2)


async def test_what_was_held_back_comes_out_at_the_end_of_a_stream_without_finish_reason() -> None:
    result = [chunk async for chunk in split_stream(_chunks(_says("a</th")))]

    assert "".join(piece.delta.get("content", "") for chunk in result for piece in chunk.choices) == "a</th"
