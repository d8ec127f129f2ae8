"""Decisions in words. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from domain.routing import PickRule
from domain.skills import SkillMatch
from routers.annotators import Annotation
from routers.options import SkillsOptions
from routers.question_index import Neighbour
from routers.scoring import Counts

_MAX_SKILLS_PER_EXPERT = 2
_MAX_SKILLS_LISTED = 100
_MAX_QUESTION_CHARS = 160
HOW_TO_ADD = "add an expert with `consilium experts add`"


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of the considered experts, a row of *counts* each. Put into words one by one, when somebody reads them."""

    skills: Sequence[SkillMatch]
    counts: Counts
    """As measured."""
    feedback: Callable[[int], str] | None = None
    """What users said of the expert in a row, in words; "" where nobody did."""

    def why(self, row: int) -> str:
        """What is known of one expert on the query's weightiest skills, and overall."""
        counts = self.counts
        parts = [
            _on_skill(match.skill, counts.num_answered[row, i], counts.num_correct[row, i], bool(counts.declared[row, i]))
            for i, match in enumerate(self.skills[:_MAX_SKILLS_PER_EXPERT])
        ]
        if num_answered := counts.overall_answered[row]:
            parts.append(f"overall {counts.overall_correct[row] / num_answered:.2f} of {num_answered:.0f}")
        elif not parts:
            parts.append("never measured")
        if self.feedback is not None and (said := self.feedback(row)):
            parts.append(said)
        return "; ".join(parts)


def _on_skill(skill: str, num_answered: float, num_correct: float, declared: bool) -> str:
    if num_answered:
        return f"{skill} {num_correct / num_answered:.2f} of {num_answered:.0f} measured"
    return f"declares {skill}, not measured on it" if declared else f"{skill} not measured"


def reason_selected(annotation: Annotation, selected: Sequence[str], why_best: str, pick: PickRule) -> str:
    """Why these experts, in one or two sentences."""
    needs = " and ".join(f"{match.skill} (similarity {match.similarity:.2f})" for match in annotation.skills[:_MAX_SKILLS_PER_EXPERT])
    context = ", read with the turns before it," if annotation.with_context else ""
    notes = "".join(f" Note: {note}." for note in annotation.notes)
    return f"The query{context} needs {needs}; {how_selected(selected, why_best, pick)}.{notes}"


def how_selected(selected: Sequence[str], why_best: str, pick: PickRule) -> str:
    """How *pick* came to *selected*, as a clause."""
    if pick.kind == "sample":
        return f"drawn in proportion to the scores: {', '.join(selected)}"
    if len(selected) == 1:
        return f"{selected[0]} is best at that ({why_best})"
    if pick.kind == "dynamic":
        return f"no single expert stands out, so {', '.join(selected)} are asked; first is {selected[0]} ({why_best})"
    if pick.kind == "gate":
        others = ", ".join(selected[1:])
        return f"{selected[0]} is best at that ({why_best}), and {others} not far behind (each above {pick.threshold:g} of the score)"
    return f"the best {len(selected)} are {', '.join(selected)}; first is {selected[0]} ({why_best})"


def unknown_query(annotation: Annotation, options: SkillsOptions, known_skills: Iterable[str]) -> str:
    """What to say of a query that is like nothing known: how near the nearest skills are, which others there are."""
    skills = known_skills_text([match.skill for match in annotation.nearest], known_skills)
    if not skills:
        return "no skill is known yet: nothing was measured and no expert declares a skill"
    notes = "".join(f"; {note}" for note in annotation.notes)
    if annotation.source == "llm":
        return f"none of the keywords is a known skill{notes}; {skills}"
    if annotation.source == "menu":
        return f"no skill of the menu fits the query{notes}; {skills}"
    return f"the query is like no known skill (best similarity {annotation.similarity:.2f}, needed {options.floor:.2f}){notes}; {skills}"


def known_skills_text(nearest: Sequence[str], known_skills: Iterable[str]) -> str:
    """The skills there are, *nearest* first; "" when there are none."""
    listed = [*nearest, *sorted(set(known_skills).difference(nearest))]
    more = f" and {len(listed) - _MAX_SKILLS_LISTED} more" if len(listed) > _MAX_SKILLS_LISTED else ""
    return f"known skills, nearest first: {', '.join(listed[:_MAX_SKILLS_LISTED])}{more}" if listed else ""


def detail_of(annotation: Annotation, options: SkillsOptions, pick: PickRule) -> dict[str, Any]:
    """What the skill router shows beside the scores. JSON values only."""
    return {
        "annotator": annotation.source,
        "scoring": options.scoring,
        "floor": options.floor,
        "similarity": round(annotation.similarity, 4),
        "with_context": annotation.with_context,
        "nearest_questions": [_shown(neighbour) for neighbour in annotation.neighbours],
        "pick": pick_object(pick),
        "notes": list(annotation.notes),
    }


def pick_object(pick: PickRule) -> dict[str, Any]:
    return {"kind": pick.kind, "k": pick.k, "threshold": pick.threshold}


def _shown(neighbour: Neighbour) -> dict[str, Any]:
    question = neighbour.question
    text = question.question
    return {
        "id": question.id,
        "question": text if len(text) <= _MAX_QUESTION_CHARS else f"{text[: _MAX_QUESTION_CHARS - 1]}…",
        "similarity": round(neighbour.similarity, 4),
        "skills": list(question.labels),
        "category": question.category,
    }
