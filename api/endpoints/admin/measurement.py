"""What is measured with what, and the measurements as background work."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from api.endpoints.admin.resources import require_known
from api.endpoints.admin.run_tasks import RunTask, RunTasks
from api.services import Services
from domain.errors import InvalidRequest
from domain.evaluation import AggregatorOutcome
from domain.experts import ExpertCard, ExpertRole
from domain.skills import LabelledQuestion
from evaluation.aggregator_benchmark import AggregatorBenchmark, SynthesisItem
from evaluation.graders import Grader
from evaluation.judge import Judge
from evaluation.profile_run import ProfileProgress, ProfileRun
from evaluation.sweep import SweepLimits
from orchestrator.aggregation.prompts import fuse_messages


async def chosen_experts(services: Services, ids: Sequence[str] | None, role: ExpertRole) -> list[ExpertCard]:
    """The experts named by *ids*, or all enabled ones with *role*. Raises ``InvalidRequest`` with the nearest id."""
    cards = {card.id: card for card in await services.expert_store.list()}
    if ids is None:
        chosen = [card for card in cards.values() if card.enabled and role in card.roles]
        if not chosen:
            raise InvalidRequest(f"no enabled expert has the role '{role.value}': there is nothing to measure", param="experts")
        return chosen
    require_known(ids, cards, kind="expert", param="experts")
    return [cards[expert_id] for expert_id in dict.fromkeys(ids)]


def require_skills(skills: Sequence[str] | None, questions: Sequence[LabelledQuestion]) -> None:
    """Raise ``InvalidRequest`` for a skill that no question has, with the nearest one that some have."""
    if skills is not None:
        require_known(skills, {label for question in questions for label in question.labels}, kind="skill", param="skills")


async def grader_with(services: Services, judge: str | None) -> Grader:
    """Graders, with the expert *judge* for questions that need one."""
    if judge is None:
        return Grader()
    (card,) = await chosen_experts(services, [judge], ExpertRole.CANDIDATE)
    return Grader(Judge(services.workers, card))


def start_profile_run(
    services: Services,
    tasks: RunTasks,
    run_id: str,
    *,
    experts: Sequence[ExpertCard],
    questions: Sequence[LabelledQuestion],
    grader: Grader,
    limits: SweepLimits,
) -> None:
    """Measure in the background. The run is finished when every question has an answer; else it stays open, to be resumed."""

    async def work(task: RunTask) -> None:
        run = ProfileRun(
            run_id,
            experts,
            questions,
            workers=services.workers,
            store=services.profile_store,
            grader=grader,
            limits=limits,
            on_progress=task.note,
        )
        report = await run.execute()
        await services.directory.refresh()  # before anybody can read that it is finished
        if report.complete:
            await services.profile_store.finish_run(run_id)

    tasks.start(run_id, work)


def start_aggregator_run(
    services: Services,
    tasks: RunTasks,
    run_id: str,
    *,
    experts: Sequence[ExpertCard],
    items: Sequence[SynthesisItem],
    grader: Grader,
    limits: SweepLimits,
) -> None:
    """Measure aggregators in the background; their profiles are replaced when all is done."""
    done: dict[str, list[AggregatorOutcome]] = {}

    async def work(task: RunTask) -> None:
        def note(outcome: AggregatorOutcome) -> None:
            own = done.setdefault(outcome.expert_id, [])
            own.append(outcome)
            task.note(_progress(outcome.expert_id, own, len(items)))

        report = await benchmark(note).execute()
        for expert_id, reason in report.stopped.items():
            task.note(_progress(expert_id, done.get(expert_id, []), len(items), stopped=reason))
        await services.profile_store.set_aggregator_outcomes([o for o in report.outcomes if o.expert_id not in report.stopped])
        await services.directory.refresh()

    def benchmark(note: Callable[[AggregatorOutcome], None] | None = None) -> AggregatorBenchmark:
        return AggregatorBenchmark(
            experts, items, build_messages=fuse_messages, workers=services.workers, grader=grader, limits=limits, on_progress=note
        )

    benchmark()  # raises now what could not be measured at all
    run = tasks.start(run_id, work)
    for expert in experts:
        if ExpertRole.AGGREGATOR in expert.roles:
            run.note(_progress(expert.id, [], len(items)))


def _progress(expert_id: str, own: Sequence[AggregatorOutcome], num_total: int, *, stopped: str | None = None) -> ProfileProgress:
    return ProfileProgress(
        expert_id=expert_id,
        num_done=len(own),
        num_total=num_total,
        num_correct=sum(outcome.correct for outcome in own),
        num_failed=sum(outcome.error is not None for outcome in own),
        stopped=stopped,
    )
