"""``consilium admit``: which candidates are worth adding, from a few labelled examples."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from api.cli.connection import EVERYTHING, Server
from api.cli.eval_answers import LOG_FILE, JudgeOption, NearOption
from api.cli.eval_output import stages
from api.cli.failures import bad_input
from api.cli.options import JsonFlag, connected, names
from api.cli.output import cell, note, percent, print_json, show, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evaluation.admission import Credit, Proposal
    from evaluation.comparison.report import Judged
    from evaluation.outcomes.rows import Outcomes


@connected
async def admit(
    server: Server,
    *,
    examples: Annotated[
        Path, typer.Argument(metavar="EXAMPLES", help="JSONL of labelled questions; with --outcomes, of measured scores per expert.")
    ],
    candidates: Annotated[str | None, typer.Option(help="Who may be admitted, separated by commas; all others when left out.")] = None,
    beside: Annotated[str | None, typer.Option(help="Experts that are there already, separated by commas.")] = None,
    slots: Annotated[int, typer.Option(min=1, help="Most experts to admit.")] = 3,
    diversity: Annotated[float, typer.Option(min=0, help="Weight of the similarity to those that are there.")] = 0.5,
    outcomes: Annotated[bool, typer.Option("--outcomes", help="EXAMPLES is a table of outcomes; nobody is asked.")] = False,
    judge: JudgeOption = None,
    near_duplicates: NearOption = 0.9,
    concurrency: Annotated[int, typer.Option(min=1, max=256, help="Questions at once.")] = 16,
    cached: Annotated[bool, typer.Option("--cache/--no-cache", help="Keep answers in the data dir.")] = True,
    as_json: JsonFlag = False,
) -> None:
    """Propose which candidate experts to add, from labelled examples: by score and diversity, with the evidence.

    A right answer counts by what carries it: its log-probability or the expert's reasoning, where the expert gives them; else by the
    answer alone, shrunk, since few examples say little. Changes nothing: 'consilium experts add' does."""
    from evaluation.admission import chance_of, credit_of, propose
    from evaluation.outcomes.duplicates import drop_duplicates

    wanted, there = names(candidates), names(beside) or []
    judged: Judged | None = None
    if outcomes and judge is not None:
        raise bad_input("--outcomes has scores already: leave --judge out")
    if both := set(wanted or ()) & set(there):
        raise bad_input(f"{', '.join(sorted(both))}: either a candidate or there already")
    if outcomes:
        from evaluation.outcomes.files import read_outcomes

        found_outcomes = read_outcomes(examples)
        distinct = drop_duplicates(found_outcomes.table.questions, near=near_duplicates or None)
        ids, there, answered = _from_table(found_outcomes.rows(distinct.kept), wanted, there)
        chance = 0.0
    else:
        from api.answer_evaluation import chosen_cards, judge_of, text_of, version_of
        from api.cli.eval_asking import asker_of
        from api.settings import load_settings
        from evaluation.answers.asking import Questioner, Way
        from evaluation.answers.replies import ReplyLog
        from evaluation.graders import Grader
        from evaluation.labelled import read_labelled

        asked_about = read_labelled(examples, also=("tricky",))
        distinct = drop_duplicates([text_of(question) for question in asked_about], near=near_duplicates or None)
        questions = [asked_about[number] for number in distinct.kept]
        if judge is None:
            for question in questions:
                Grader().check(question)
        chance = chance_of(questions)
        settings = load_settings(data_dir=server.data_dir)
        log = ReplyLog(settings.data_dir / "cache" / "eval" / LOG_FILE if cached else None)
        log.open()
        answered = {}
        async with server.connect(needs=EVERYTHING) as client:
            cards = await client.rows("/admin/api/experts")
            able = chosen_cards(cards, None if wanted is None else [*wanted, *there])
            asker = asker_of(client)
            judging = None if judge is None else judge_of(cards, judge, asker, log)
            ids = [card["id"] for card in able if card["id"] not in there]
            with stages(quiet=as_json) as told:
                questioner = Questioner(asker, log, Grader(judging), concurrency, told)
                for card in able:
                    params = {"logprobs": True} if "logprobs" in card["capabilities"] else {}
                    found = await questioner.ask_all(Way(card["id"], card["id"], version_of(card), params), questions)
                    if all(asked.reply.error is not None for asked in found):
                        raise bad_input(f"{card['id']} answered nothing: {found[0].reply.error}")
                    answered[card["id"]] = [credit_of(question, asked) for question, asked in zip(questions, found, strict=True)]
            judged = None if judging is None else judging.judged(answered)
    repeated = distinct.num_exact + distinct.num_near
    proposal = propose(
        ids,
        [answered[expert] for expert in ids],
        present=[(expert, answered[expert]) for expert in there],
        slots=slots,
        diversity=diversity,
        chance=chance,
    )
    if as_json:
        from evaluation.comparison.report import as_json as plain

        print_json({**plain(proposal), "num_duplicates": repeated, **({} if judged is None else {"judged": plain(judged)})})
    else:
        _show(proposal)
        for line in () if judged is None else judged.told():
            note(line)
        if repeated:
            note(f"{repeated} examples that repeat another one, or nearly, were dropped")


def _from_table(found: Outcomes, wanted: Sequence[str] | None, there: list[str]) -> tuple[list[str], list[str], dict[str, list[Credit]]]:
    """Scores as answered: whoever made the table graded the answers. Raises ``CommandFailed`` for an expert that it has no scores of."""
    from domain.nearest import did_you_mean
    from evaluation.admission import UNKNOWN, Credit

    known = found.table.expert_ids
    for name in (*(wanted or ()), *there):
        if name not in known:
            raise bad_input(f"the table has no scores of {name!r}; {did_you_mean(name, known)}")
    width, scores = len(known), found.table.scores
    answered = {}
    for column, expert in enumerate(known):
        cells = [scores[row * width + column] for row in range(len(found.table))]
        answered[expert] = [UNKNOWN if math.isnan(score) else Credit(score, correct=score >= 0.5) for score in cells]
    return [name for name in (wanted or known) if name not in there], there, answered


def _show(proposal: Proposal) -> None:
    shown = table(
        "admit", "expert", "score", "right", "lucky", "95 %", "like", "value", "adds", "judged by", "why",
        right=("score", "right", "lucky", "95 %", "value", "adds"),
    )  # fmt: skip
    for one in proposal.evidence:
        low, high = one.interval
        shown.add_row(
            str(one.rank) if one.rank is not None else "", cell(one.expert_id), f"{one.score:.2f}", f"{one.num_correct}/{one.num_examples}",
            str(one.num_lucky), f"{100 * low:.0f} to {100 * high:.0f} %",
            f"{one.similarity:.2f} {cell(one.most_similar)}" if one.most_similar else "", f"{one.value:.2f}", percent(one.coverage_gain),
            cell(list(one.judged_by)), cell(one.why),
        )  # fmt: skip
    show(shown)
    print(
        f"admit {', '.join(proposal.proposed) or 'nobody'}: "
        f"{percent(proposal.coverage_before)} of the examples were covered, {percent(proposal.coverage_after)} would be"
    )
