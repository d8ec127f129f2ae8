"""``consilium batch``: many requests from a file, routed first and run expert by expert."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli.failures import FAILED
from api.cli.options import JsonFlag
from api.cli.output import cell, note, print_json, show, table

if TYPE_CHECKING:
    from domain.batch import Batch, BatchOptions
    from orchestrator.batch.plan import BatchPlan
    from orchestrator.batch.preview import Preview

app = typer.Typer(help="Many requests from a file, routed first, then run expert by expert.", no_args_is_help=True)

Input = Annotated[Path, typer.Argument(metavar="INPUT", help="JSONL: a request a line, as for OpenAI's Batch API.")]
Endpoint = Annotated[str, typer.Option(help="What every line asks.")]
StrategyName = Annotated[str | None, typer.Option(help="The strategy of lines whose model is auto.")]
MaxCalls = Annotated[int | None, typer.Option(min=1, help="Calls of experts that the whole batch may make.")]
MaxTokens = Annotated[int | None, typer.Option(min=1, help="Tokens after which no further call begins.")]
DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", help="Where the database is, and what the batch keeps; default CONSILIUM_DATA_DIR, then ./data."),
]
_CHAT = "/v1/chat/completions"


@app.command()
def run(
    input_file: Input,
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the answers go; lines that failed go to OUTPUT.errors.jsonl.")],
    endpoint: Endpoint = _CHAT,
    strategy: StrategyName = None,
    max_calls: MaxCalls = None,
    max_tokens: MaxTokens = None,
    data_dir: DataDir = None,
    as_json: JsonFlag = False,
) -> None:
    """Answer every request of a file, without a server. Interrupted, the same command goes on where it was."""
    from api.cli.batch_job import Job, Target
    from api.cli.batch_run import run_job
    from api.event_loop import run_async

    job = Job(input_file, endpoint, _options(strategy, max_calls, max_tokens))
    outcome = run_async(run_job(job, Target(output), data_dir))
    if as_json:
        print_json(outcome.as_json())
    else:
        _show_summary(outcome.batch, outcome.as_json())
    if outcome.batch.counts.failed:
        note(f"{_lines(outcome.batch.counts.failed)} failed: {outcome.errors_path}")
        raise typer.Exit(FAILED)


@app.command()
def plan(
    input_file: Input,
    *,
    endpoint: Endpoint = _CHAT,
    strategy: StrategyName = None,
    max_calls: MaxCalls = None,
    data_dir: DataDir = None,
    as_json: JsonFlag = False,
) -> None:
    """Show the buckets, loads and the predicted time of a batch, without running it."""
    from api.cli.batch_job import Job, refused
    from api.cli.batch_run import preview_job
    from api.event_loop import run_async

    found = run_async(preview_job(Job(input_file, endpoint, _options(strategy, max_calls, None)), data_dir))
    if found.plan is None:
        raise refused(found.errors)
    if as_json:
        print_json(_plan_document(found, found.plan))
    else:
        _show_plan(found, found.plan)


def _options(strategy: str | None, max_calls: int | None, max_tokens: int | None) -> BatchOptions:
    from domain.batch import BatchOptions

    return BatchOptions(strategy or None, max_calls, max_tokens)


def _lines(number: int) -> str:
    return f"{number} line{'' if number == 1 else 's'}"


def _show_summary(batch: Batch, told: dict[str, Any]) -> None:
    shown = table("", "", show_header=False, right=())
    rows = {
        "batch": f"{batch.id} {batch.state}",
        "lines": f"{batch.counts.completed} answered, {batch.counts.failed} failed, of {batch.counts.total}",
        "loads": f"{told['num_loads']} in this run",
        "calls": f"{batch.num_calls}",
        "tokens": f"{batch.usage.prompt_tokens} read, {batch.usage.completion_tokens} written",
        "seconds": f"{told['seconds']:.1f} in this run",
        "answers": str(told["output"] or "none"),
    }
    for name, value in rows.items():
        shown.add_row(cell(name), cell(value))
    show(shown)


def _plan_document(found: Preview, plan: BatchPlan) -> dict[str, Any]:
    return {
        "num_lines": plan.table.num_lines,
        "num_calls": plan.num_calls,
        "num_loads": plan.num_loads,
        "why_loads": plan.why_loads,
        "predicted_s": plan.prediction.total_s,
        "critical_load_s": plan.prediction.critical_load_s,
        "turns": [
            {
                "number": turn.number,
                "server": turn.server,
                "device": turn.device,
                "role": turn.role.value,
                "loads": turn.load is not None,
                "evicts": list(turn.load.evict) if turn.load else [],
                "begins_s": plan.prediction.turns[turn.number].start_s,
                "ends_s": plan.prediction.turns[turn.number].end_s,
                "buckets": [
                    {"expert": bucket.expert_id, "num_calls": bucket.num_calls, "seconds": bucket.seconds} for bucket in turn.buckets
                ],
            }
            for turn in plan.turns
        ],
        "impossible": dict(plan.impossible),
        "refused": [{"line": number, "message": message} for number, message in found.refused],
    }


def _show_plan(found: Preview, plan: BatchPlan) -> None:
    numbers = ["calls", "from s", "to s"]
    title = f"{plan.table.num_lines} lines, {plan.num_calls} calls, {plan.num_loads} loads, about {plan.prediction.total_s:.0f} s"
    shown = table("", "server", "load", "role", "experts", *numbers, title=title, right=numbers)
    for turn in plan.turns:
        span = plan.prediction.turns[turn.number]
        load = "" if turn.load is None else f"load{', evict ' + ', '.join(turn.load.evict) if turn.load.evict else ''}"
        experts = ", ".join(bucket.expert_id for bucket in turn.buckets)
        shown.add_row(
            str(turn.number + 1), cell(turn.server or "elsewhere"), cell(load), turn.role.value, cell(experts),
            str(turn.num_calls), f"{span.start_s:.0f}", f"{span.end_s:.0f}",
        )  # fmt: skip
    show(shown)
    note(plan.why_loads)
    for expert_id, why in plan.impossible.items():
        note(f"{expert_id} cannot run: {why}")
    if found.refused:
        number, message = found.refused[0]
        note(f"{_lines(len(found.refused))} would fail before any expert is asked; the first is line {number}: {message}")
