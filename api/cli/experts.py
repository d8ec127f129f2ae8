"""``consilium experts``: what experts there are, and the ways to add, change, try and remove them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from api.cli.assignments import with_fields
from api.cli.connection import EVERYTHING, Server
from api.cli.failures import FAILED, bad_input
from api.cli.options import JsonFlag, connected, names
from api.cli.output import cell, note, percent, print_json, show, table
from api.cli.text_file import read_text

app = typer.Typer(help="Add, change, try and remove experts.", no_args_is_help=True)

PATH = "/admin/api/experts"
_MANIFEST = "/admin/api/manifest"

ExpertId = Annotated[str, typer.Argument(metavar="EXPERT", help="The expert's id.")]


@app.command("list")
@connected
async def list_experts(server: Server, as_json: JsonFlag = False) -> None:
    """List the experts with their health."""
    async with server.connect() as client:
        rows = await client.rows(PATH)
    if as_json:
        print_json(rows)
        return
    shown = table("expert", "backend", "model", "enabled", "health", "in flight", "skills", right=("in flight",))
    for row in rows:
        health = row["health"]
        style = None if row["enabled"] else "dim"
        skills = row.get("skills") or []
        shown.add_row(
            cell(row["id"]), cell(row["backend"]), cell(row["model"]), cell(row["enabled"]), cell(health["state"]),
            cell(health["in_flight"]), cell(skills), style=style,
        )  # fmt: skip
    show(shown)
    if not rows:
        note("no experts yet: add one with 'consilium experts add' or 'consilium experts discover URL --save'")


@app.command("show")
@connected
async def show_expert(server: Server, expert: ExpertId, as_json: JsonFlag = False) -> None:
    """Show one expert's card, health and measured skills."""
    from api.cli.client import at

    async with server.connect() as client:
        card = await client.get(at(PATH, expert))
        profile = await client.get(at("/admin/api/profiles", expert))
    if as_json:
        print_json({**card, "profile": profile})
        return
    shown = table("field", "value", show_header=False)
    for name, value in card.items():
        if value not in (None, [], {}, ""):
            shown.add_row(cell(name), cell(_flat(value)))
    show(shown)
    if profile["skills"]:
        measured = table("skill", "correct", "of", "accuracy", title="Measured skills", right=("correct", "of", "accuracy"))
        for count in profile["skills"]:
            measured.add_row(cell(count["skill"]), cell(count["num_correct"]), cell(count["num_answered"]), percent(count["accuracy"]))
        show(measured)
    else:
        note(f"never measured: 'consilium profile run --experts {expert}' does it")


@app.command("add")
@connected
async def add_expert(
    server: Server,
    *,
    expert: ExpertId,
    backend: Annotated[
        str,
        typer.Option(help="embedded, openai (any OpenAI-compatible server), litellm (other providers) or vllm (started by the service)."),
    ],
    model: Annotated[
        str,
        typer.Option(
            help="What the backend calls it: a folder (embedded), with a Llama, Mistral, Qwen2 or Qwen3 model or an adapter on one; "
            "a folder or hub id of any model (vllm); a served name (openai); provider/model (litellm)."
        ),
    ],
    base_url: Annotated[str | None, typer.Option(help="Of an OpenAI-compatible server, with its /v1.")] = None,
    api_key: Annotated[str | None, typer.Option(help="A reference to an environment variable, such as env:OPENAI_API_KEY.")] = None,
    adapter_of: Annotated[str | None, typer.Option(help="For a LoRA adapter (embedded, vllm): the folder of its base model.")] = None,
    description: Annotated[str | None, typer.Option(help="One sentence about it.")] = None,
    skills: Annotated[str | None, typer.Option(help="What it declares to be good at, separated by commas.")] = None,
    capabilities: Annotated[str | None, typer.Option(help="tools, vision, json_schema, logprobs, multiple_choices.")] = None,
    roles: Annotated[str | None, typer.Option(help="candidate, aggregator, helper, or several.")] = None,
    context_length: Annotated[int | None, typer.Option(min=1, help="Tokens, prompt and completion together.")] = None,
    exemplar: Annotated[list[str] | None, typer.Option(help="A question that it is meant for; may be given several times.")] = None,
    labels: Annotated[str | None, typer.Option(help="Access labels: only keys that hold all of them may use it.")] = None,
    chars_per_token: Annotated[float | None, typer.Option(help="Letters that one token holds; 1 for a byte-level model.")] = None,
    parameters_b: Annotated[float | None, typer.Option(help="Billions of parameters.")] = None,
    memory_mb: Annotated[float | None, typer.Option(help="MB that it needs when loaded; with vllm its whole server.")] = None,
    price_prompt: Annotated[float | None, typer.Option(help="US dollars for a million tokens of prompts.")] = None,
    price_completion: Annotated[float | None, typer.Option(help="US dollars for a million tokens of answers.")] = None,
    aggregation_prompt: Annotated[str | None, typer.Option(help="The prompt template that it reads best as an aggregator.")] = None,
    max_in_flight: Annotated[int | None, typer.Option(min=1, help="Calls at once; more wait.")] = None,
    max_queued: Annotated[int | None, typer.Option(min=0, help="Calls that may wait for a place; one more is refused.")] = None,
    queue_timeout_s: Annotated[float | None, typer.Option(help="Longest wait for a place, in seconds.")] = None,
    timeout_s: Annotated[float | None, typer.Option(help="Longest time for one call, in seconds.")] = None,
    first_token_timeout_s: Annotated[float | None, typer.Option(help="Longest wait for a stream's first token, in seconds.")] = None,
    idle_timeout_s: Annotated[float | None, typer.Option(help="Longest silence between two pieces of a stream, in seconds.")] = None,
    hedge_after_s: Annotated[float | None, typer.Option(help="Seconds of silence after which a call is sent a second time.")] = None,
    disabled: Annotated[bool, typer.Option("--disabled", help="Known, and not asked until it is enabled.")] = False,
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FIELD=VALUE",
            help="Any field of the card, those of serving, sampling and extra_body behind a dot: --set serving.pinned=true "
            "--set sampling.temperature=0. The value is JSON, or a text. May be given several times.",
        ),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Add one expert; it can be asked at once. Skills that nobody knew become known with it; what looks like a misspelling of a
    known skill is refused: 'consilium skills add' makes it a skill of its own."""
    given: dict[str, Any] = {
        "id": expert, "backend": backend, "model": model, "base_url": base_url, "api_key": api_key, "adapter_of": adapter_of,
        "description": description, "skills": names(skills), "capabilities": names(capabilities), "roles": names(roles),
        "context_length": context_length, "exemplars": exemplar or None, "labels": names(labels), "chars_per_token": chars_per_token,
        "parameters_b": parameters_b, "memory_mb": memory_mb, "aggregation_prompt": aggregation_prompt, "max_in_flight": max_in_flight,
        "max_queued": max_queued, "queue_timeout_s": queue_timeout_s, "timeout_s": timeout_s,
        "first_token_timeout_s": first_token_timeout_s, "idle_timeout_s": idle_timeout_s, "hedge_after_s": hedge_after_s,
        "enabled": False if disabled else None,
    }  # fmt: skip
    price = {"prompt": price_prompt, "completion": price_completion}
    given["price"] = {name: value for name, value in price.items() if value is not None} or None
    card = with_fields({name: value for name, value in given.items() if value is not None}, assignments or ())
    async with server.connect() as client:
        made = await client.call("POST", PATH, body=card)
    if as_json:
        print_json(made)
    else:
        print(f"added {made['id']}; try it with 'consilium experts check {made['id']}'")
        for skill in made["new_skills"]:
            print(f"new skill: {skill}")
        _tell_outdated([f"expert {made['id']}: {made['num_outdated']} questions"] if made["num_outdated"] else [])


@app.command("apply")
@connected
async def apply_manifest(
    server: Server,
    file: Annotated[Path, typer.Option("-f", "--file", help="The manifest (YAML); - reads it from standard input.")],
    prune: Annotated[bool, typer.Option("--prune", help="Remove experts and strategies that the manifest does not name.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would change.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Make the registry what a manifest says."""
    text = read_text(file)
    params = {"prune": str(prune).lower(), "dry_run": str(dry_run).lower()}
    async with server.connect() as client:
        changes = await client.call("POST", _MANIFEST, body={"yaml": text}, params=params)
    if as_json:
        print_json(changes)
        return
    for kind in ("created", "updated", "removed"):
        for name in changes[kind]:
            print(f"{'would be ' if dry_run else ''}{kind}: {name}")
    print(f"{len(changes['unchanged'])} unchanged")
    _tell_outdated(changes["outdated"], dry_run=dry_run)


def _tell_outdated(outdated: list[str], *, dry_run: bool = False) -> None:
    for told in outdated:
        then = "would count no more" if dry_run else "count no more: measure it with 'consilium profile run'"
        note(f"{told} were answered by another card of it and {then}")


@app.command("export")
@connected
async def export_manifest(
    server: Server,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write here instead of to standard output.")] = None,
) -> None:
    """Print experts, strategies and skills as a manifest that `apply` takes."""
    async with server.connect() as client:
        text = (await client.request("GET", _MANIFEST)).text
    if output is None:
        print(text, end="")
    else:
        output.write_text(text, encoding="utf-8")
        note(f"wrote {output}")


@app.command("check")
@connected
async def check_experts(
    server: Server,
    experts: Annotated[
        list[str] | None, typer.Argument(metavar="[EXPERT]...", help="Which ones; all enabled ones when none is named.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Ask each expert one tiny question for real; exit code 1 when one does not answer."""
    from api.cli.client import at

    async with server.connect(needs=EVERYTHING) as client:
        wanted = experts or [row["id"] for row in await client.rows(PATH) if row["enabled"]]
        if not wanted:
            raise bad_input("there are no experts to check")
        results = [await client.call("POST", at(PATH, expert) + "/check") for expert in wanted]
    if as_json:
        print_json(results)
    else:
        shown = table("expert", "", "latency", "answer", right=("latency",))
        for result in results:
            said = result["answer"] if result["ok"] else result["error"]["message"]
            style = None if result["ok"] else "red"
            shown.add_row(
                cell(result["expert"]), "ok" if result["ok"] else "failed", f"{result['latency_ms']:.0f} ms", cell(said), style=style
            )
        show(shown)
    if not all(result["ok"] for result in results):
        raise typer.Exit(FAILED)


@app.command("remove")
@connected
async def remove_experts(
    server: Server,
    experts: Annotated[list[str], typer.Argument(metavar="EXPERT...", help="Which ones.")],
    as_json: JsonFlag = False,
) -> None:
    """Remove experts. What was measured about them is kept for the day they come back."""
    from api.cli.client import at

    async with server.connect() as client:
        for expert in experts:
            await client.call("DELETE", at(PATH, expert))
            if not as_json:
                print(f"removed {expert}")
    if as_json:
        print_json({"removed": experts})


@app.command("discover")
@connected
async def discover_experts(
    server: Server,
    base_url: Annotated[str, typer.Argument(metavar="URL", help="An OpenAI-compatible server, such as http://127.0.0.1:8000/v1.")],
    api_key: Annotated[str | None, typer.Option(help="A reference to an environment variable, such as env:VLLM_KEY.")] = None,
    save: Annotated[bool, typer.Option("--save", help="Add the models that are not experts yet.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """List the models of a server as ready-made experts."""
    async with server.connect() as client:
        found = await client.call("POST", f"{PATH}/discover", body={"base_url": base_url, "api_key": api_key, "save": save})
    if as_json:
        print_json(found)
        return
    shown = table("expert", "model", "context", "state", right=("context",))
    for row in found["data"]:
        card = row["card"]
        shown.add_row(cell(card["id"]), cell(card["model"]), cell(card.get("context_length")), cell(row["state"]))
    show(shown)
    for row in found["data"]:
        if row["state"] == "invalid":
            note(f"{row['card']['model']} cannot be an expert: {row['problem']}")
    if not save and any(row["state"] == "new" for row in found["data"]):
        note("add the new ones with --save")


@app.command("schema")
def print_schema() -> None:
    """Print the JSON schema of the manifest."""
    from experts_registry.manifest import json_schema

    print_json(json_schema())


def _flat(value: Any) -> Any:
    if isinstance(value, dict):
        return ", ".join(f"{name} {inner}" for name, inner in value.items() if inner is not None)
    return value
