"""Which solved problems are found: by shared words and by meaning, fused, and none that is unlike the question."""

from __future__ import annotations

import numpy as np
import pytest

from domain.memory import MAX_PROBLEM_CHARS, SolvedProblem
from routers.problem_index import ProblemIndex, fuse
from tests.fakes.encoder import HashingEncoder

QUESTIONS = (
    "What is 17 + 25?",
    "A train covers 180 km in 3 hours. How fast is it?",
    "A bicycle covers 45 km in 3 hours. How fast is it?",
    "Which is the capital of France?",
    "Write the word stone backwards.",
)


def problem(number: int, question: str, answer: str = "?") -> SolvedProblem:
    return SolvedProblem(f"mem-{number}", "t", question, answer, "import", 1.0, sequence=number)


def index_of(*questions: str) -> ProblemIndex:
    return ProblemIndex([problem(number, text) for number, text in enumerate(questions, 1)], HashingEncoder(256).encode_now(questions))


def found(index: ProblemIndex, question: str, *, limit: int = 5, min_similarity: float = 0.4) -> list[str]:
    (vector,) = HashingEncoder(256).encode_now([question])
    return [shown.problem_id for shown in index.search(question, vector, limit=limit, min_similarity=min_similarity)]


def test_what_is_most_like_the_question_comes_first_and_what_is_unlike_it_not_at_all() -> None:
    index = index_of(*QUESTIONS)

    assert found(index, "A train covers 240 km in 4 hours. How fast is it?") == ["mem-2", "mem-3"]
    assert found(index, "Which is the capital of France?")[0] == "mem-4"
    assert found(index, "Recommend me a novel about sailors") == []


def test_no_more_are_found_than_asked_for() -> None:
    index = index_of(*[f"A car covers {n} km in 2 hours. How fast is it?" for n in range(30)])

    assert len(found(index, "A car covers 99 km in 2 hours. How fast is it?", limit=3)) == 3
    assert found(index, "A car covers 99 km in 2 hours. How fast is it?", limit=0) == []


def test_words_decide_between_problems_that_mean_as_much() -> None:
    """Two problems with one vector: only BM25 can tell them apart, and a rare number says more than a common word."""
    vector = np.array([1.0, 0.0], np.float32)
    problems = [problem(1, "What is the sum of 3 and 4?"), problem(2, "What is the sum of 817 and 4?"), problem(3, "What is 9 and 4?")]
    index = ProblemIndex(problems, np.stack([vector] * 3))

    assert index.search("817 and 6", vector, limit=3, min_similarity=0.5)[0].problem_id == "mem-2"


def test_a_problem_that_shares_every_word_but_means_something_else_is_not_shown() -> None:
    index = ProblemIndex([problem(1, "dog bites man")], np.array([[0.0, 1.0]], np.float32))

    assert index.search("man bites dog", np.array([1.0, 0.0], np.float32), limit=5, min_similarity=0.5) == ()


def test_of_equals_the_one_that_was_kept_later_comes_first() -> None:
    vector = np.array([1.0, 0.0], np.float32)
    index = ProblemIndex([problem(1, "x y"), problem(2, "x z")], np.stack([vector] * 2))

    assert [shown.problem_id for shown in index.search("nothing shared", vector, limit=2, min_similarity=0.5)] == ["mem-2", "mem-1"]


@pytest.mark.parametrize("question", ["", "?!", "…"])
def test_questions_and_problems_without_words_are_compared_by_meaning_alone(question: str) -> None:
    vector = np.array([1.0, 0.0], np.float32)
    index = ProblemIndex([problem(1, "!?")], vector[None])

    assert [shown.problem_id for shown in index.search(question, vector, limit=1, min_similarity=0.5)] == ["mem-1"]
    assert ProblemIndex([], np.zeros((0, 0), np.float32)).search(question, vector, limit=1, min_similarity=0.0) == ()


def test_ranks_are_fused_as_published() -> None:
    """Cormack et al.: the sum of 1 / (60 + rank)."""
    assert fuse([{7: 1, 8: 2}, {8: 1}]) == {7: 1 / 61, 8: 1 / 62 + 1 / 61}


def test_of_a_question_longer_than_any_problem_only_its_end_is_compared() -> None:
    """Whoever sends megabytes does not hold up everybody else."""
    index = index_of("the capital of France", "trains and bicycles")
    asked = "trains bicycles " * 100 + "France " * (MAX_PROBLEM_CHARS // 7 + 1)

    assert index.shared_words(asked).tolist() == index.shared_words(asked[-MAX_PROBLEM_CHARS:]).tolist()
    assert index.shared_words(asked)[1] == 0.0
