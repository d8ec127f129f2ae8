"""``consilium eval routing``: routers side by side on measured outcomes. No expert is called."""

from __future__ import annotations

from collections.abc import Callable  # read at run time, by Typer
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli.connection import Server
from api.cli.eval_output import CsvOut, HtmlOut, JsonOut, Outputs, PlotsOut, Quiet, show_report, stages, write_lines
from api.cli.failures import bad_input
from api.cli.options import connected
from api.cli.output import note

if TYPE_CHECKING:
    from evaluation.outcomes.files import ExpertCost
    from evaluation.outcomes.rows import Outcomes

CACHE_FOLDER = "eval"
"""In the data dir's cache."""


@connected
async def routing(
    server: Server,
    *,
    train: Annotated[
        Path | None, typer.Option("--train", metavar="FILE", help="Outcomes to fit on, JSONL or CSV: question, task, scores, …")
    ] = None,
    test: Annotated[
        Path | None, typer.Option("--test", metavar="FILE", help="Outcomes to judge on; without it, parts of the training file.")
    ] = None,
    from_registry: Annotated[bool, typer.Option("--from-registry", help="Take the profile outcomes of the registry to fit on.")] = False,
    experts: Annotated[
        Path | None, typer.Option("--experts", metavar="FILE", help="JSON: a list of id, usd_per_million_tokens, parameters_b.")
    ] = None,
    router: Annotated[list[str] | None, typer.Option("--router", metavar="NAME", help="Only these routers; may be repeated.")] = None,
    lambdas: Annotated[
        list[float] | None,
        typer.Option("--lambda", min=0, help="Weight of the price in score - λ · price, beside 0; may be repeated."),
    ] = None,
    folds: Annotated[int | None, typer.Option(min=2, help="Parts of the training file when there is no test file. Default: 5.")] = None,
    leave_one_task_out: Annotated[
        bool, typer.Option("--leave-one-task-out", help="Judge each task by what was fitted on all others.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of splits, fits and intervals.")] = 0,
    near_duplicates: Annotated[
        float, typer.Option(min=0, max=1, help="Overlap of letters from which two questions are one; 0 compares exactly.")
    ] = 0.9,
    learning_curve: Annotated[
        bool, typer.Option("--learning-curve", help="Fit on 5, 10, 25 and 50 % of the training questions too.")
    ] = False,
    json_out: JsonOut = None,
    csv_out: CsvOut = None,
    html: HtmlOut = None,
    plots: PlotsOut = None,
    choices: Annotated[
        Path | None, typer.Option("--choices", metavar="OUT", help="Write who was chosen for each test question, as JSONL.")
    ] = None,
    cached: Annotated[bool, typer.Option("--cache/--no-cache", help="Keep encodings and predictions in the data dir.")] = True,
    quiet: Quiet = False,
) -> Callable[[], None]:
    """Compare routers on measured outcomes, without running an expert: accuracy, cost, share of the oracle gap closed.

    Fits every router that learns from outcomes on the training questions and lets it choose for the test questions; baselines stand
    beside it. Interrupted, the same command goes on with what is in the cache."""
    from api.bootstrap import learned_family
    from api.settings import load_settings
    from evaluation.array_cache import ArrayCache
    from evaluation.comparison.routing import RoutingComparison, RoutingOptions
    from evaluation.outcomes.files import read_experts, read_outcomes

    outputs = Outputs(json_out, csv_out, html, plots)
    outputs.check(choices)
    if (train is None) == (not from_registry):
        raise bad_input("say what to fit on: either --train FILE or --from-registry")
    settings = load_settings(data_dir=server.data_dir)
    costs = {} if experts is None else read_experts(experts)
    known = tuple(costs) or None
    versions: dict[str, Any] = {}
    outdated: dict[str, int] = {}
    if train is not None:
        fitted_on = read_outcomes(train, expert_ids=known)
    else:
        fitted_on, registered, versions, outdated = await _registry_outcomes(server)
        costs = costs or registered
    judged_on = None if test is None else read_outcomes(test, expert_ids=known)
    cache = ArrayCache(settings.data_dir / "cache" / CACHE_FOLDER) if cached else None
    options = RoutingOptions(
        routers=tuple(router) if router else None,
        lambdas=tuple(dict.fromkeys(lambdas or ())),
        folds=folds,
        leave_one_out=leave_one_task_out,
        seed=seed,
        near=near_duplicates or None,
        learning_curve=learning_curve,
    )

    def work() -> None:
        with stages(quiet=quiet) as told:
            result = RoutingComparison(
                family=learned_family(settings, cache),
                train=fitted_on,
                test=judged_on,
                experts=costs,
                options=options,
                cache=cache,
                progress=told,
            ).execute()
        if choices is not None:
            write_lines(choices, (choice.as_json() for choice in result.choices))
            note(f"wrote {choices}")
        if result.report is None:
            for line in result.notes:
                note(line)
            return
        show_report(result.report, brief=quiet)
        outputs.write(result.report, extra={"expert_versions": versions, "outdated_outcomes": outdated} if versions else None)
        for expert, num in outdated.items():
            note(f"{expert}: {num} questions that only an older card has answered are left out; 'consilium profile run' asks them anew")

    return work


async def _registry_outcomes(server: Server) -> tuple[Outcomes, dict[str, ExpertCost], dict[str, Any], dict[str, int]]:
    """What counts in the registry's profiles, what its experts cost, which versions of them there are now, and how many questions only
    older ones have answered."""
    from api.cli.eval_registry import costs_of, outcomes_from

    async with server.connect() as client:
        cards = await client.rows("/admin/api/experts")
        questions = await client.rows("/admin/api/questions")
        measured = await client.rows("/admin/api/outcomes")
        profiles = await client.rows("/admin/api/profiles")
    versions = {card["id"]: card["version"] for card in cards}
    outdated = {row["expert"]: row["num_outdated"] for row in profiles if row["num_outdated"] and row["expert"] in versions}
    return outcomes_from(measured, questions, versions), costs_of(cards), versions, outdated
