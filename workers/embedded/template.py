"""Flags that a caller may hand to an expert's chat template."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from functools import cache
from typing import Any

from transformers import PreTrainedTokenizerBase

from domain.errors import ExpertRejected

_FIELD = "chat_template_kwargs"
_MAX_CHARS = 256
"""Of a flag's name or text: a template asks for a word, such as ``high``, or for today's date."""
_RENDERER_S_OWN = frozenset({"messages", "raise_exception", "strftime_now", "loop", "self"})
"""Names that the renderer gives to the template itself."""


@cache
def _reserved() -> frozenset[str]:
    """Arguments of the rendering function and names of special tokens: they say how to render, not what."""
    arguments = inspect.signature(PreTrainedTokenizerBase.apply_chat_template).parameters
    special = {*PreTrainedTokenizerBase.SPECIAL_TOKENS_ATTRIBUTES}
    return frozenset({*arguments, *special}) | _RENDERER_S_OWN


def template_flags(value: Any, own: Mapping[str, Any]) -> dict[str, Any]:
    """The flags in ``chat_template_kwargs``, such as ``{"enable_thinking": false}``; *own* are the tokenizer's names for its marks.

    The template is the expert's own, so flags are plain values and no argument of the renderer. Raises ``ExpertRejected``.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ExpertRejected(f"{_FIELD} must be an object from names to plain values, not {type(value).__name__}", param=_FIELD)
    for name, flag in value.items():
        shown = f"{_FIELD}.{str(name)[:40]}"
        if not isinstance(name, str) or not name.isidentifier() or len(name) > _MAX_CHARS:
            raise ExpertRejected(f"{shown} is no name of a flag", param=_FIELD)
        if name in _reserved() or name in own or name.startswith(("_", "return_")):
            raise ExpertRejected(
                f"{shown} cannot be set by a request: the chat template and how it is rendered belong to the expert", param=_FIELD
            )
        plain = flag is None or isinstance(flag, bool | int | str) or (isinstance(flag, float) and math.isfinite(flag))
        if not plain or (isinstance(flag, str) and len(flag) > _MAX_CHARS):
            raise ExpertRejected(f"{shown} must be true, false, a number or a text of at most {_MAX_CHARS} letters", param=_FIELD)
    return dict(value)
