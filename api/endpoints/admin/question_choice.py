"""Which labelled questions a measurement asks. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from domain.skills import LabelledQuestion


def choose(
    questions: Sequence[LabelledQuestion],
    *,
    ids: Collection[str] | None = None,
    skills: Collection[str] | None = None,
    limit: int | None = None,
) -> list[LabelledQuestion]:
    """Those of *questions* that are named and have one of *skills*; at most *limit*, spread evenly over the skills.

    The order stays. The same questions and limit give the same choice, and a larger limit one that contains it.
    """
    wanted = [
        question
        for question in questions
        if (ids is None or question.id in ids) and (skills is None or not set(skills).isdisjoint(question.labels))
    ]
    if limit is None or limit >= len(wanted):
        return wanted
    by_label: dict[str, list[LabelledQuestion]] = {}
    for question in wanted:
        by_label.setdefault(question.labels[0] if question.labels else "", []).append(question)
    taken: set[str] = set()
    rounds = (group[turn] for turn in range(len(wanted)) for group in by_label.values() if turn < len(group))
    for question in rounds:
        taken.add(question.id)
        if len(taken) == limit:
            break
    return [question for question in wanted if question.id in taken]
