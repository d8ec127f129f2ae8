"""``consilium eval``: which way of choosing experts would have scored and cost what."""

from __future__ import annotations

import typer

from api.cli.eval_answers import answers
from api.cli.eval_routing import routing

app = typer.Typer(help="Compare ways of choosing experts, with the baselines beside them.", no_args_is_help=True)
app.command("routing")(routing)
app.command("answers")(answers)
