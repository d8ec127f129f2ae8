"""``consilium eval answers``: strategies and baselines on labelled questions, for real."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from api.cli.connection import EVERYTHING, Server
from api.cli.eval_output import CsvOut, HtmlOut, JsonOut, Outputs, PlotsOut, Quiet, show_report, stages
from api.cli.failures import BAD_INPUT, CommandFailed, bad_input
from api.cli.options import connected, names

if TYPE_CHECKING:
    from api.cli.client import ApiClient
    from domain.skills import LabelledQuestion

JudgeOption = Annotated[
    str | None, typer.Option("--judge", metavar="EXPERT", help="The expert that grades questions whose grader is 'judge'.")
]
NearOption = Annotated[
    float,
    typer.Option("--near-duplicates", min=0, max=1, help="Overlap of letters from which two questions are one; 0 compares exactly."),
]
LOG_FILE = "answers.jsonl"


@connected
async def answers(
    server: Server,
    *,
    questions: Annotated[Path, typer.Argument(metavar="QUESTIONS", help="JSONL: question, answer, and category, skills, options, grader.")],
    strategies: Annotated[str | None, typer.Option(help="Which, separated by commas; all enabled ones when left out.")] = None,
    experts: Annotated[
        str | None, typer.Option(help="Which to ask alone, separated by commas; all enabled candidates when left out.")
    ] = None,
    router: Annotated[
        list[str] | None, typer.Option("--router", metavar="NAME", help="Also auto with this router and one expert; may be repeated.")
    ] = None,
    calls: Annotated[
        list[int] | None,
        typer.Option(
            "--calls", min=2, help="Calls that votes, samples and mixtures get; may be repeated. Default: what the strategies make."
        ),
    ] = None,
    judge: JudgeOption = None,
    temperature: Annotated[float, typer.Option(min=0, max=2, help="Of repeated samples of one expert.")] = 0.7,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many questions, spread evenly over the file.")] = None,
    concurrency: Annotated[int, typer.Option(min=1, max=256, help="Questions at once.")] = 16,
    seed: Annotated[int, typer.Option(min=0, help="Of samples and intervals.")] = 0,
    near_duplicates: NearOption = 0.9,
    json_out: JsonOut = None,
    csv_out: CsvOut = None,
    html: HtmlOut = None,
    plots: PlotsOut = None,
    cached: Annotated[
        bool, typer.Option("--cache/--no-cache", help="Keep answers in the data dir, and ask for known ones no more.")
    ] = True,
    quiet: Quiet = False,
) -> None:
    """Run strategies on labelled questions, with every expert alone and the baselines that a strategy has to beat.

    Questions that the service has as labelled ones are left out: it has been measured on them. Interrupted, the same command goes on."""
    from api.answer_evaluation import Known, chosen_cards, comparison_of, judge_of, spread, unseen, version_of
    from api.cli.eval_asking import asker_of
    from api.settings import load_settings
    from evaluation.answers.asking import Questioner
    from evaluation.answers.comparison import AnswersOptions
    from evaluation.answers.replies import ReplyLog
    from evaluation.graders import Grader
    from evaluation.labelled import read_labelled

    outputs = Outputs(json_out, csv_out, html, plots)
    outputs.check()
    asked = read_labelled(questions, also=("tricky",))
    settings = load_settings(data_dir=server.data_dir)
    log = ReplyLog(settings.data_dir / "cache" / "eval" / LOG_FILE if cached else None)
    log.open()
    async with server.connect(needs=EVERYTHING) as client:
        known = await Known.read(lambda name: client.rows(f"/admin/api/{name}"))
        candidates = chosen_cards(known.cards, names(experts))
        asker = asker_of(client)
        judging = None if judge is None else judge_of(known.cards, judge, asker, log)
        await _require_routers(client, router or (), asked[0])
        kept, duplicates = unseen(asked, known.asked, near_duplicates or None)
        with stages(quiet=quiet) as told:
            comparison = comparison_of(
                known,
                spread(kept, limit),
                questioner=Questioner(asker, log, Grader(judging), concurrency, told),
                candidates=candidates,
                strategies=names(strategies),
                routers=router or (),
                options=AnswersOptions(calls=tuple(calls or ()), temperature=temperature, seed=seed),
                settings={"questions": questions.name, "experts": {card["id"]: version_of(card) for card in candidates}},
                duplicates=duplicates,
                judge=judging,
            )
            report = await comparison.execute()
    show_report(report, brief=quiet)
    outputs.write(report)


async def _require_routers(client: ApiClient, routers: Sequence[str], question: LabelledQuestion) -> None:
    """Raise ``CommandFailed`` for a router that no request may name, or not without options: before the first of many questions."""
    from evaluation.labelled import messages_of

    messages = [dict(message) for message in messages_of(question)]
    for name in dict.fromkeys(routers):
        try:
            await client.call("POST", "/v1/route", body={"model": "auto", "messages": messages, "consilium": {"router": name}})
        except CommandFailed as failure:
            if failure.exit_code == BAD_INPUT:
                raise bad_input(f"--router {name}: {failure.message}") from failure
