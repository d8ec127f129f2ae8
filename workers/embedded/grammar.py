"""Answers held to a grammar, token by token, with xgrammar (Dong et al., arXiv 2411.15100)."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import xgrammar

from domain.errors import ExpertRejected
from domain.quoting import shortened
from workers.embedded.constraint import Constraint, JsonAnswer

_SHOWN = 300
"""Letters of the library's own text that are passed on: it repeats parts of the schema."""


class GrammarCompiler:
    """Compiles constraints for one tokenizer. ``compile`` takes milliseconds or more: call it in a thread."""

    def __init__(self, tokenizer: Any, vocab_size: int, end_ids: frozenset[int], cache_bytes: int) -> None:
        info = xgrammar.TokenizerInfo.from_huggingface(tokenizer, vocab_size=vocab_size, stop_token_ids=sorted(end_ids))
        self._compiler = xgrammar.GrammarCompiler(info, max_threads=1, cache_limit_bytes=cache_bytes)
        self.vocab_size = vocab_size
        self.end_ids = end_ids
        added = {token for token in tokenizer.added_tokens_decoder if token not in end_ids}
        self.forbidden = np.array(sorted(added), dtype=np.int64)
        """Marks such as ``<think>`` would pass as text inside a JSON string."""
        self.closers: list[int] = [tokenizer.convert_tokens_to_ids(text) for text in ("}", "]", "0", '"')]
        """What brings an open value to its end, the shortest first."""

    def compile(self, constraint: Constraint) -> xgrammar.CompiledGrammar:
        """Raises ``ExpertRejected`` for a schema that cannot be expressed."""
        try:
            if isinstance(constraint, JsonAnswer):
                # Without free white space a weak model cannot fill its budget with blanks.
                return self._compiler.compile_json_schema(constraint.schema, any_whitespace=False)
            calls = [
                xgrammar.Grammar.concat(
                    xgrammar.Grammar.from_ebnf(f'root ::= "{name} "'),
                    xgrammar.Grammar.from_json_schema(schema, any_whitespace=False),
                )
                for name, schema in constraint.schemas
            ]
            return self._compiler.compile_grammar(calls[0] if len(calls) == 1 else xgrammar.Grammar.union(*calls))
        except (RuntimeError, ValueError) as error:
            field = "response_format" if isinstance(constraint, JsonAnswer) else "tools"
            said = re.sub(r"^\[[^]]*\]\s*\S+:\d+:\s*", "", str(error)).strip()  # time and source line of the library
            raise ExpertRejected(f"the schema in {field} cannot be enforced: {shortened(said, _SHOWN)}", param=field) from error
