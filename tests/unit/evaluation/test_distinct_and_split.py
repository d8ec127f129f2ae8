"""Duplicates, splits, and the cache of arrays."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from domain.errors import InvalidRequest
from evaluation.array_cache import ArrayCache, content_key
from evaluation.outcomes.duplicates import drop_duplicates
from evaluation.outcomes.splits import k_folds, leave_one_out

STORY = (
    "Natalia sold clips to {} of her friends in April, and then she sold half as many clips in May. "
    "How many clips did Natalia sell altogether in April and May, counting every single one that she sold to anybody?"
)


def test_the_same_question_in_other_clothes_is_an_exact_duplicate() -> None:
    found = drop_duplicates(["What is the capital of Peru?", "what is  the capital of PERU", "What is the capital of Chile?"])

    assert (found.kept, found.num_exact, found.num_near) == ((0, 2), 1, 0)


def test_a_story_with_another_number_is_nearly_the_same() -> None:
    found = drop_duplicates([STORY.format(48), STORY.format(52), "Who wrote the story?"])

    assert (found.kept, found.num_exact, found.num_near) == ((0, 2), 0, 1)


@pytest.mark.parametrize(("one", "other"), [("What is 62 minus 37?", "What is 62 minus 38?"), ("2+3", "2-3"), ("3 * 4?", "3 / 4?")])
def test_bare_sums_differ(one: str, other: str) -> None:
    assert drop_duplicates([one, other]).kept == (0, 1)


def test_without_near_only_the_same_goes() -> None:
    assert drop_duplicates([STORY.format(48), STORY.format(52), STORY.format(48)], near=None).kept == (0, 1)


def test_questions_of_others_are_dropped_too() -> None:
    found = drop_duplicates([STORY.format(1), "Who?", "Why?"], against=["who", STORY.format(2)])

    assert (found.kept, found.num_exact, found.num_near) == ((2,), 1, 1)


def test_what_is_kept_has_no_near_pair_among_thousands() -> None:
    """Found by banding, which compares only a few: none may slip through."""
    rng = np.random.default_rng(0)
    words = [f"word{n}" for n in range(500)]
    base = [" ".join(rng.choice(words, 40)) for _ in range(300)]
    changed = [" ".join([*text.split()[:-1], "end"]) for text in base]

    found = drop_duplicates([*base, *changed])

    assert found.kept == tuple(range(300))
    assert found.num_near == 300


@pytest.mark.parametrize("text", ["", "?", "a", "🙂", "\ud800"])
def test_short_and_strange_texts_are_compared(text: str) -> None:
    assert drop_duplicates([text, text, "something else"]).kept == (0, 2)


def test_folds_test_each_question_once_and_leak_none() -> None:
    splits = k_folds(103, 5, seed=1)

    assert sorted(number for split in splits for number in split.test) == list(range(103))
    assert all(not set(split.train) & set(split.test) and len(split.train) + len(split.test) == 103 for split in splits)
    assert {len(split.test) for split in splits} == {20, 21}
    assert splits == k_folds(103, 5, seed=1)
    assert splits != k_folds(103, 5, seed=2)


def test_a_task_is_left_out_as_a_whole() -> None:
    splits = leave_one_out(["b", "a", None, "b"])

    assert [(split.name, split.train, split.test) for split in splits] == [("a", (0, 2, 3), (1,)), ("b", (1, 2), (0, 3))]


def test_splits_that_cannot_be_made() -> None:
    with pytest.raises(InvalidRequest, match="at least 2"):
        k_folds(3, 5, seed=0)
    with pytest.raises(InvalidRequest, match="two tasks"):
        leave_one_out(["a", "a", None])


def test_arrays_are_found_again(tmp_path: Path) -> None:
    cache = ArrayCache(tmp_path / "cache")
    cache.put("key", np.arange(6.0).reshape(2, 3))

    found = ArrayCache(tmp_path / "cache").get("key")

    assert found is not None
    assert found.tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    assert cache.get("other") is None


def test_a_damaged_file_counts_as_missing(tmp_path: Path) -> None:
    cache = ArrayCache(tmp_path)
    cache.put("key", np.zeros(1000))
    file = tmp_path / "key.npy"
    file.write_bytes(file.read_bytes()[:500])

    assert cache.get("key") is None


def test_the_cache_keeps_its_bound_and_what_was_used_last(tmp_path: Path) -> None:
    cache = ArrayCache(tmp_path, max_bytes=3 * 8_200)
    for number, key in enumerate("abc"):
        cache.put(key, np.zeros(1000))
        os.utime(tmp_path / f"{key}.npy", (number, number))
    cache.get("a")

    cache.put("d", np.zeros(1000))

    assert sorted(path.stem for path in tmp_path.iterdir()) == ["a", "c", "d"]


def test_a_cache_that_cannot_be_written_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cache = ArrayCache(tmp_path / "file")

    cache.put("key", np.zeros(1))

    assert cache.get("key") is None


def test_keys_depend_on_every_part_and_on_where_it_is_cut() -> None:
    keys = [
        content_key("a", ["b", "c"]),
        content_key("a", ["bc"]),
        content_key("ab", ["c"]),
        content_key("a", "b", "c"),
        content_key("a", ["b", "d"]),
    ]

    assert len(set(keys)) == 5
    assert content_key("a", ["b", "c"]) == keys[0]
