"""``consilium profile``: measuring experts, and what was measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from api.cli.bodies import bodies_of, bodies_of_groups
from api.cli.connection import EVERYTHING, Server
from api.cli.failures import FAILED, bad_input
from api.cli.measuring import follow
from api.cli.options import JsonFlag, connected, names
from api.cli.output import cell, moment, note, print_json, show, table
from api.cli.profile_tables import show_aggregators, show_matrix, show_summary, tell_outdated
from api.cli.questions import read_rows, upload
from api.cli.text_file import read_text

app = typer.Typer(help="Measure experts on labelled questions.", no_args_is_help=True)

RUNS = "/admin/api/profile-runs"
_AGGREGATOR_RUNS = "/admin/api/aggregator-runs"
_KINDS = {"outcome": "outcomes", "aggregator_outcome": "aggregator_outcomes"}

RunId = Annotated[str, typer.Argument(metavar="RUN", help="The run's id, as 'profile runs' lists it.")]
InFlight = Annotated[int | None, typer.Option(min=1, help="Questions at once per expert; the expert's own limit also holds.")]
Judge = Annotated[str | None, typer.Option(help="The expert that grades questions whose grader is 'judge'.")]
Skills = Annotated[str | None, typer.Option(help="Only questions of these skills, separated by commas.")]


@app.command("run")
@connected
async def run_profile(
    server: Server,
    *,
    experts: Annotated[str | None, typer.Option(help="Which, separated by commas; all enabled candidates when left out.")] = None,
    questions: Annotated[Path | None, typer.Option(help="JSONL to add first and then ask; all stored questions when left out.")] = None,
    skills: Skills = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many questions, spread evenly over the skills.")] = None,
    remark: Annotated[str | None, typer.Option("--note", help="A note to find the run by.")] = None,
    resume: Annotated[str | None, typer.Option(metavar="RUN", help="Go on with this interrupted run instead.")] = None,
    max_in_flight: InFlight = None,
    judge: Judge = None,
    as_json: JsonFlag = False,
) -> None:
    """Ask experts labelled questions, grade the answers and add them to the profiles."""
    if resume is not None and any(given is not None for given in (experts, questions, skills, limit, remark)):
        raise bad_input("--resume goes on with a run as it was started: leave --experts, --questions, --skills, --limit and --note out")
    from api.cli.client import at

    rows = None if questions is None else read_rows(questions)
    options = {"max_in_flight": max_in_flight, "judge": judge}
    async with server.connect(needs=EVERYTHING) as client:
        if resume is not None:
            run = await client.call("POST", at(RUNS, resume) + "/resume", body=_given(options))
        else:
            if rows is not None and questions is not None:
                await upload(client, rows, source=questions.name)
            body = {"experts": names(experts), "skills": names(skills), "limit": limit, "note": remark, **options}
            if rows is not None:
                body["questions"] = [row["id"] for row in rows]
            run = await client.call("POST", RUNS, body=_given(body))
        run = await follow(client, f"{RUNS}/{run['id']}", quiet=as_json)
    if as_json:
        print_json(run)
    else:
        show_summary(run)
    if run["status"] != "finished":
        note(f"not complete: go on with 'consilium profile run --resume {run['id']}'" + (f" ({run['error']})" if run["error"] else ""))
        raise typer.Exit(FAILED)


@app.command("show")
@connected
async def show_profiles(
    server: Server,
    experts: Annotated[list[str] | None, typer.Argument(metavar="[EXPERT]...", help="Which ones; all when none is named.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show accuracy per expert and skill, with the number of questions."""
    from api.cli.client import at

    async with server.connect() as client:
        if experts:
            rows = [await client.get(at("/admin/api/profiles", expert)) for expert in experts]
        else:
            rows = await client.rows("/admin/api/profiles")
        aggregators = await client.rows("/admin/api/aggregator-profiles")
    if experts:
        aggregators = [row for row in aggregators if row["expert"] in experts]
    if as_json:
        print_json({"profiles": rows, "aggregator_profiles": aggregators})
        return
    show_matrix(rows)
    if aggregators:
        show_aggregators(aggregators)


@app.command("runs")
@connected
async def list_runs(server: Server, as_json: JsonFlag = False) -> None:
    """List the profile runs, newest first."""
    async with server.connect() as client:
        rows = list(reversed(await client.rows(RUNS)))
    if as_json:
        print_json(rows)
        return
    shown = table(
        "run",
        "status",
        "started",
        "experts",
        "questions",
        "answers",
        "correct",
        "note",
        right=("experts", "questions", "answers", "correct"),
    )
    for row in rows:
        shown.add_row(
            cell(row["id"]), cell(row["status"]), moment(row["created_at"]), str(len(row["experts"])), str(row["num_questions"]),
            f"{row['num_recorded']}/{row['num_planned']}", str(row["num_correct"]), cell(row["note"]),
        )  # fmt: skip
    show(shown)


@app.command("rollback")
@connected
async def roll_back(server: Server, run: RunId, as_json: JsonFlag = False) -> None:
    """Take a run back: its counts leave the profiles."""
    from api.cli.client import at

    async with server.connect() as client:
        await client.call("DELETE", at(RUNS, run))
    if as_json:
        print_json({"rolled_back": run})
    else:
        print(f"rolled back {run}")


@app.command("aggregators")
@connected
async def run_aggregators(
    server: Server,
    *,
    experts: Annotated[str | None, typer.Option(help="Which, separated by commas; all enabled aggregators when left out.")] = None,
    skills: Skills = None,
    max_per_category: Annotated[int | None, typer.Option(min=1, help="At most so many questions per category.")] = None,
    min_wrong: Annotated[
        int | None, typer.Option(min=0, max=2, help="Real wrong answers that a question needs; blanks fill up to two.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Chooses and shuffles the candidates.")] = None,
    max_in_flight: InFlight = None,
    judge: Judge = None,
    as_json: JsonFlag = False,
) -> None:
    """Measure who finds the right answer among one right and two wrong ones; needs answers of earlier profile runs."""
    body = {
        "experts": names(experts), "skills": names(skills), "max_per_category": max_per_category, "min_wrong": min_wrong, "seed": seed,
        "max_in_flight": max_in_flight, "judge": judge,
    }  # fmt: skip
    async with server.connect(needs=EVERYTHING) as client:
        run = await client.call("POST", _AGGREGATOR_RUNS, body=_given(body))
        run = await follow(client, f"{_AGGREGATOR_RUNS}/{run['id']}", quiet=as_json)
        profiles = await client.rows("/admin/api/aggregator-profiles")
    if as_json:
        print_json({"run": run, "aggregator_profiles": profiles})
    else:
        show_aggregators(profiles)
    stopped = [f"{told['expert_id']} was given up: {told['stopped']}" for told in run["progress"] if told["stopped"]]
    for line in stopped:
        note(line)
    if run["status"] != "finished" or stopped:
        note(run["error"] or f"the run is {run['status']}")
        raise typer.Exit(FAILED)


@app.command("export")
@connected
async def export_outcomes(
    server: Server,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write here instead of to standard output.")] = None,
) -> None:
    """Print every graded answer that counts, one JSON object a line."""
    async with server.connect() as client:
        rows = [{"kind": "outcome", **row} for row in await client.rows("/admin/api/outcomes")]
        rows += [{"kind": "aggregator_outcome", **row} for row in await client.rows("/admin/api/aggregator-outcomes")]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if output is None:
        print(text, end="")
    else:
        output.write_text(text, encoding="utf-8")
        note(f"wrote {len(rows)} answers to {output}")


@app.command("import")
@connected
async def import_outcomes(
    server: Server,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What 'profile export' wrote.")],
    remark: Annotated[str | None, typer.Option("--note", help="A note to find the run by.")] = None,
    as_current: Annotated[
        bool, typer.Option("--as-current", help="Take them as answers of the cards that are here, whichever cards they were measured of.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Add graded answers that were measured elsewhere. Their experts and questions must be here.

    They become runs that can be rolled back; answers of aggregators replace what these experts had, and belong to no run. Answers of
    another card than the expert has here (another model, sampling, …) are kept and count for nothing, without --as-current."""
    rows = _read_outcomes(file)
    if as_current:
        rows = {name: [{**row, "expert_fingerprint": None} for row in some] for name, some in rows.items()}
    runs: list[dict[str, Any]] = []
    async with server.connect() as client:
        outcomes, aggregators = rows["outcomes"], rows["aggregator_outcomes"]
        for some in bodies_of(outcomes):
            body = {"outcomes": some, "note": remark or f"imported from {file.name}"}
            run = await client.call("POST", f"{RUNS}/import", body=body)
            runs.append(run)
            if not as_json:
                print(f"imported {run['num_recorded']} answers as {run['id']}")
        for some in bodies_of_groups(aggregators, "expert_id"):  # each replaces all that its experts had
            await client.call("POST", f"{RUNS}/import", body={"aggregator_outcomes": some})
        if aggregators and not as_json:
            print(f"imported {len(aggregators)} answers of aggregators")
        measured = {row.get("expert_id") for row in outcomes}
        tell_outdated([row for row in await client.rows("/admin/api/profiles") if row["expert"] in measured])
    if as_json:
        print_json({"runs": runs, "num_aggregator_outcomes": len(aggregators)})


def _read_outcomes(file: Path) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in _KINDS.values()}
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            found[_KINDS[row.pop("kind")]].append(row)
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            kinds = " or ".join(repr(kind) for kind in _KINDS)
            raise bad_input(f"{file}, line {number}: expected a JSON object whose kind is {kinds}") from error
    if not any(found.values()):
        raise bad_input(f"{file} holds no answers")
    return found


def _given(body: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if value is not None}
