"""Running a cascade on labelled questions, so that its threshold can be chosen."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from api.services import Services
from domain.chat import ChatRequest, Usage
from domain.errors import ConsiliumError, InvalidRequest
from domain.experts import ExpertCard
from domain.plan import Candidate
from domain.skills import LabelledQuestion
from evaluation.cascade import StageOutcome
from evaluation.graders import Grader
from evaluation.labelled import messages_of
from orchestrator.cascade.climb import Climb
from orchestrator.cascade.ladder import Accepted, Ask, next_step


async def run_cascade(
    services: Services, strategy_id: str, questions: Sequence[LabelledQuestion], grader: Grader, *, max_in_flight: int
) -> tuple[list[list[StageOutcome]], int]:
    """What each expert of the strategy's cascade answers to each question, with its confidence; and for how many there was no cascade
    (one expert was enough by its score, or it could not be routed).

    Costs are US dollars where a card has a price, else tokens times billions of parameters. Raises ``InvalidRequest`` when no question
    leads to a cascade.
    """
    turns = asyncio.Semaphore(max_in_flight)
    reasons: list[str] = []

    async def one(question: LabelledQuestion) -> list[StageOutcome] | None:
        request = ChatRequest(f"calibrate-{question.id}", f"consilium/{strategy_id}", tuple(messages_of(question)))
        async with turns:
            try:
                return await _graded(await services.orchestrator.climbed(request), question, grader)
            except ConsiliumError as error:
                reasons.append(str(error))
                return None

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(question)) for question in questions]
    found = [stages for task in tasks if (stages := task.result()) is not None]
    if not found:
        why = reasons[0] if reasons else "there are no questions"
        raise InvalidRequest(f"none of the {len(questions)} questions leads to a cascade: {why}")
    return found, len(questions) - len(found)


async def _graded(climb: Climb, question: LabelledQuestion, grader: Grader) -> list[StageOutcome]:
    ladder, outcomes = climb.ladder, climb.outcomes
    step = next_step(ladder, outcomes)
    verdicts = {verdict.stage.number: verdict for verdict in (() if isinstance(step, Ask) else step.verdicts)}
    by_price = any(_has_price(stage.expert) for stage in ladder.stages)
    stages: list[StageOutcome] = []
    for stage in ladder.stages:
        ended = [(position, outcomes[position]) for position in stage.positions if position in outcomes]
        cost = sum(
            _cost(outcome.usage, ladder.judge if position == stage.judge and ladder.judge else stage.expert, by_price=by_price)
            for position, outcome in ended
            if isinstance(outcome, Candidate)
        )
        verdict = verdicts.get(stage.number)
        assessed = verdict.assessed if verdict is not None else None
        answer = assessed.answer if assessed is not None else None
        if stage is ladder.stages[-1] and isinstance(step, Accepted) and not step.stood_in:
            answer = step.answer
        score = float(await grader.grade(question, answer.text)) if answer is not None else 0.0
        stages.append(StageOutcome(score, assessed.confidence if assessed else None, cost, answered=answer is not None))
    return stages


def _has_price(card: ExpertCard) -> bool:
    return card.price.prompt > 0 or card.price.completion > 0


def _cost(usage: Usage, card: ExpertCard, *, by_price: bool) -> float:
    if by_price:
        return (usage.prompt_tokens * card.price.prompt + usage.completion_tokens * card.price.completion) / 1e6
    return usage.total_tokens * (card.parameters_b or 1.0)
