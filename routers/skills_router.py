"""The skill router: which skills does the query need, and who was measured to be good at them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from domain.feedback import FeedbackView
from domain.registry import RegistrySnapshot
from domain.routing import RoutingDecision, RoutingQuery
from domain.skills import SkillMatch
from routers import pick
from routers.annotators import Annotation, Annotator
from routers.explanation import Evidence, detail_of, known_skills_text, reason_selected, unknown_query
from routers.feedback import retried, told, with_feedback
from routers.index_holder import IndexHolder, RoutingIndex
from routers.options import SkillsOptions, parse_options
from routers.ranking import rank
from routers.score_table import ScoreTable
from routers.scoring import Counts, Floats, overall_accuracy, shrunk_scores, skill_accuracy, symbolic_scores
from routers.stickiness import SessionMemory
from routers.unroutable import fallback_expert, require_text

_MIN_SUPPORT = 0.5
"""Share of the query's skills on which some eligible expert was measured, or which one declares. With less, what is left
would be a part of the query that happens to be known."""


class SkillsRouter:
    """Annotate, score, pick (docs/adr/0004-routing.md). Calls no candidate, and keeps nothing."""

    def __init__(
        self,
        index_holder: IndexHolder,
        annotators: Mapping[str, Annotator],
        *,
        name: str = "skills",
        defaults: SkillsOptions | None = None,
        sessions: SessionMemory | None = None,
        feedback: Callable[[], FeedbackView] = FeedbackView,
    ) -> None:
        """*annotators* by the names that the option ``annotator`` knows; *sessions* learns elsewhere who answered, *feedback* what users
        have said of experts. Under the *name* ``menu`` it is the router that always asks the annotator of *defaults*."""
        self.name = name
        self._holder = index_holder
        self._annotators = annotators
        self._defaults = defaults or SkillsOptions()
        self._sessions = SessionMemory() if sessions is None else sessions  # an empty one is false
        self._table: tuple[int, RoutingIndex, ScoreTable] | None = None
        self._building = asyncio.Lock()
        self._feedback = feedback

    def check_options(self, options: Mapping[str, Any]) -> None:
        """Raise ``InvalidRequest`` for options of a strategy that every request would refuse."""
        parse_options(options, self._defaults, router=self.name)

    async def route(self, query: RoutingQuery, snapshot: RegistrySnapshot) -> RoutingDecision:
        """1. find the skills, 2. unknown: session, fallback or refusal, 3. score, 4. pick, 5. say why.

        Raises ``NotReady`` while there is no index, ``InvalidRequest`` for wrong options or a query without text,
        ``NoEligibleExpert`` when the query is like nothing known and nobody is there to fall back on.
        """
        options = parse_options(query.options, self._defaults, router=self.name)
        pick.check(query.pick)
        require_text(query)
        index = self._holder.index()
        annotation = await self._annotators[options.annotator].annotate(query, snapshot, index, options)
        table = await self._table_for(snapshot, index)
        expert_ids = [card.id for card in query.experts]
        session_expert = self._session_expert(query, annotation, options, expert_ids)
        annotation, measured, unsupported = _supported(annotation, table, expert_ids)
        view, names = self._feedback(), [match.skill for match in annotation.skills]
        counts = with_feedback(measured, expert_ids, names, view, weight=options.feedback_weight)
        evidence = Evidence(annotation.skills, measured, _told(expert_ids, names, view) if counts is not measured else None)
        ranking = rank(query, _scores(annotation.skills, counts, table, options), evidence.why)
        if session_expert is not None:
            selected: tuple[str, ...] = (session_expert,)
            reason = f"The query is unclear on its own; session {query.request.session_id!r} stays with {session_expert}."
        elif annotation.skills:
            selected = ranking.selected(query.pick, seed=query.seed)
            reason = reason_selected(annotation, selected, ranking.why_of(selected[0]), query.pick)
            if counts is not measured and view.drifted:
                by_measurement = _scores(annotation.skills, measured, table, options).tolist()
                again = retried(by_measurement, expert_ids, view, share=options.explore, seed=query.seed)
                if again is not None and again not in selected:
                    selected = (again, *selected[: query.pick.k - 1])
                    reason += f" Note: {again} answers worse than it used to, and is tried again on {options.explore:.0%} of such queries."
        else:
            problem = _problem(annotation, options, index, unsupported)
            selected = (fallback_expert(query, expert_ids, problem),)
            reason = f"{selected[0]} is the strategy's fallback: {problem}."
        fallback = session_expert is None and not annotation.skills
        return RoutingDecision(
            router=self.name,
            selected=selected,
            considered=ranking.considered(selected),
            reason=reason,
            skills=annotation.skills,
            category=annotation.category,
            fallback=fallback,
            # Without skills the scores are what everybody is worth on average: nobody is forced on a query like nothing known.
            others_fit=bool(annotation.skills),
            calls=annotation.calls,
            vector=annotation.vector,
        ).detailed_by(partial(detail_of, annotation, options, query.pick))

    # --- steps ------------------------------------------------------------------------------------------------------

    def _session_expert(self, query: RoutingQuery, annotation: Annotation, options: SkillsOptions, expert_ids: list[str]) -> str | None:
        """The eligible expert that an unclear query stays with, when the strategy wants that and the session has one.

        Unclear is what is like nothing known, and a fragment where the request does not carry the turns that explain it.
        """
        session = query.request.session
        unclear = not annotation.skills or (annotation.fragment and not annotation.with_context)
        if not options.sticky or session is None or not unclear:
            return None
        remembered = self._sessions.recall(session)
        return remembered if remembered in expert_ids else None

    async def _table_for(self, snapshot: RegistrySnapshot, index: RoutingIndex) -> ScoreTable:
        """The counts as matrices, made at the first query after a change; off the event loop, for a large registry takes 0.1 s."""
        if (table := self._known_table(snapshot, index)) is not None:
            return table
        async with self._building:
            if (table := self._known_table(snapshot, index)) is None:
                table = await asyncio.to_thread(ScoreTable.build, snapshot, index)
                self._table = (snapshot.version, index, table)
            return table

    def _known_table(self, snapshot: RegistrySnapshot, index: RoutingIndex) -> ScoreTable | None:
        known = self._table
        return known[2] if known is not None and known[0] == snapshot.version and known[1] is index else None


def _told(expert_ids: Sequence[str], skills: Sequence[str], view: FeedbackView) -> Callable[[int], str]:
    return lambda row: told(expert_ids[row], skills, view)


def _scores(skills: tuple[SkillMatch, ...], counts: Counts, table: ScoreTable, options: SkillsOptions) -> Floats:
    if options.scoring == "symbolic":
        return symbolic_scores(counts)
    overall = overall_accuracy(counts, pool_accuracy=table.pool_accuracy)
    weights = np.array([match.weight for match in skills])
    strengths = {"prior_strength": options.prior_strength, "declared_strength": options.declared_strength}
    accuracy = skill_accuracy(counts, overall, weights, **strengths)
    return shrunk_scores(accuracy, overall, weights, global_weight=options.global_weight)


def _supported(annotation: Annotation, table: ScoreTable, expert_ids: list[str]) -> tuple[Annotation, Counts, tuple[str, ...]]:
    """*annotation* without the skills of which nothing is known about any of *expert_ids*, its counts, and their names.

    When they are more than half of the query, none are left: to answer the known rest would be to answer another query.
    """
    counts = table.counts(expert_ids, [match.skill for match in annotation.skills])
    known: list[bool] = np.any((counts.num_answered > 0) | (counts.declared > 0), axis=0).tolist()
    kept = [match for match, is_known in zip(annotation.skills, known, strict=True) if is_known]
    dropped = tuple(match.skill for match, is_known in zip(annotation.skills, known, strict=True) if not is_known)
    if not dropped:
        return annotation, counts, ()
    total = sum(match.weight for match in kept)
    if total < _MIN_SUPPORT:
        return replace(annotation, skills=(), category=None), table.counts(expert_ids, []), dropped
    skills = tuple(replace(match, weight=match.weight / total) for match in kept)
    note = f"nobody eligible was measured on {', '.join(dropped)} or declares it"
    supported = replace(annotation, skills=skills, notes=(*annotation.notes, note))
    return supported, table.counts(expert_ids, [match.skill for match in skills]), dropped


def _problem(annotation: Annotation, options: SkillsOptions, index: RoutingIndex, unsupported: Sequence[str]) -> str:
    """Why the query cannot be routed by skills."""
    if unsupported:
        skills = known_skills_text([match.skill for match in annotation.nearest], index.skills)
        return f"the query needs {', '.join(unsupported)}, and no eligible expert was measured on that or declares it; {skills}"
    return unknown_query(annotation, options, index.skills)
