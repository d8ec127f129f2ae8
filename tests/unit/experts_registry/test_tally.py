"""From outcomes to counts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from domain.evaluation import QuestionOutcome
from domain.skills import SkillCount
from experts_registry.tally import OVERALL, tally, to_profiles
from tests.fakes.registry import make_outcome

outcomes = st.lists(
    st.builds(
        QuestionOutcome,
        expert_id=st.sampled_from("ab"),
        question_id=st.uuids().map(str),
        skills=st.lists(st.sampled_from("xyz"), unique=True).map(tuple),
        category=st.sampled_from([None, "c"]),
        correct=st.booleans(),
        error=st.sampled_from([None, None, "down"]),
    ),
    max_size=12,
)


def _sum(*tallies: dict[tuple[str, str], SkillCount]) -> dict[tuple[str, str], SkillCount]:
    keys = {key for counts in tallies for key in counts}
    sums = {key: sum((counts.get(key, SkillCount()) for counts in tallies), SkillCount()) for key in keys}
    return {key: count for key, count in sums.items() if count != SkillCount()}


@given(outcomes, outcomes)
def test_counts_add_up_and_can_be_taken_back(first: list[QuestionOutcome], second: list[QuestionOutcome]) -> None:
    assert tally(first + second) == _sum(tally(first), tally(second))
    assert tally(first) == _sum(tally(first + second), tally([], minus=second))


@given(outcomes)
def test_every_answer_is_in_the_overall_count_once(some: list[QuestionOutcome]) -> None:
    profiles = to_profiles(tally(some))
    answered = [outcome for outcome in some if outcome.error is None]

    assert sum(profile.overall.num_answered for profile in profiles.values()) == len(answered)
    assert sum(profile.overall.num_correct for profile in profiles.values()) == sum(outcome.correct for outcome in answered)
    assert all(OVERALL not in profile.by_skill for profile in profiles.values())


def test_a_skill_named_twice_counts_once() -> None:
    assert tally([make_outcome(skills=("a", "a"))])["numerals", "a"] == SkillCount(1, 1)
