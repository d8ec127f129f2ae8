"""Commands of two words beside a command of the first one: ``route map`` beside ``route "a question"``."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup


class PhraseGroup(TyperGroup):
    """A group that knows commands whose name is two words, when both stand first. A question that is one of them alone is still
    asked after ``--``: ``consilium route -- map``."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        phrase = " ".join(args[:2])
        return super().resolve_command(ctx, [phrase, *args[2:]] if phrase in self.commands else args)
