"""One loaded expert: weights, tokenizer, chat template, and what its folder says about generation."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

from domain.chat import Message, text_of
from domain.errors import ExpertRejected, ExpertUnreachable
from domain.quoting import MAX_QUOTED, shortened
from workers.embedded.decoder import Decoder
from workers.embedded.folder import ExpertFolder, read_json
from workers.embedded.shape import load_shape
from workers.embedded.template import template_flags
from workers.embedded.text import Vocabulary
from workers.embedded.weights import load_weights
from workers.limits import EmbeddedLimits


@dataclass(eq=False)
class LoadedModel:
    """Immutable after loading, but for the grammar compiler that comes with the first constrained request."""

    name: str
    decoder: Decoder
    tokenizer: Any
    vocabulary: Vocabulary
    defaults: Mapping[str, Any]
    """``generation_config.json``."""
    end_ids: frozenset[int]
    limits: EmbeddedLimits
    _grammar: Any = None
    _grammar_lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def max_length(self) -> int:
        return self.decoder.shape.max_length

    @property
    def vocab_size(self) -> int:
        return self.decoder.shape.vocab_size

    def prompt_of(self, messages: Sequence[Message], params: Mapping[str, Any]) -> list[int]:
        """The rendered chat as tokens, up to where the assistant begins. Raises ``ExpertRejected``."""
        if not getattr(self.tokenizer, "chat_template", None):
            msg = f"{self.name} has no chat template (tokenizer_config.json or chat_template.jinja)"
            raise ExpertRejected(msg)
        flags = template_flags(params.get("chat_template_kwargs"), self.tokenizer.special_tokens_map)
        try:
            text = self.tokenizer.apply_chat_template(
                [_plain_message(message) for message in messages],
                tools=params.get("tools") or None,
                add_generation_prompt=True,
                tokenize=False,
                **flags,
            )
        except (ValueError, TypeError, _template_error()) as error:
            raise ExpertRejected(f"the chat template of {self.name} does not take these messages: {error}", param="messages") from error
        ids: list[int] = self.tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids
        # A token without an embedding, or no token at all, would fail everybody's step.
        if not ids or max(ids) >= self.vocab_size:
            why = "nothing is left of them" if not ids else "unknown token"
            raise ExpertRejected(f"{self.name} cannot read these messages: {why}", param="messages")
        return ids

    def grammar(self) -> Any:
        """The compiler of constraints for this tokenizer. Slow the first time: call it in a thread."""
        with self._grammar_lock:
            if self._grammar is None:
                from workers.embedded.grammar import GrammarCompiler

                self._grammar = GrammarCompiler(self.tokenizer, self.vocab_size, self.end_ids, self.limits.grammar_cache_bytes)
            return self._grammar


def _template_error() -> type[Exception]:
    from jinja2 import TemplateError

    return TemplateError


def _plain_message(message: Message) -> dict[str, Any]:
    """*message* with its content as one string, which every template takes. Raises ``ExpertRejected`` for other media."""
    content = message.get("content")
    if isinstance(content, Sequence) and not isinstance(content, str):
        kinds = {part.get("type") for part in content if isinstance(part, Mapping)} - {"text"}
        if kinds:
            listed = shortened(", ".join(sorted(map(str, kinds))), MAX_QUOTED)
            raise ExpertRejected(f"this expert reads text only, not {listed}", param="messages")
    role = "system" if message.get("role") == "developer" else message.get("role")
    return {**message, "role": role, "content": text_of(message)}


def load_model(folder: ExpertFolder, limits: EmbeddedLimits) -> LoadedModel:
    """Read *folder*. Takes a tenth of a second for a zoo expert. Raises ``ExpertUnreachable``."""
    name = (folder.adapter or folder.base).name
    try:
        shape = load_shape(folder.base)
        weights = load_weights(folder)
        stored = weights["model.embed_tokens.weight"].dtype
        small = sum(tensor.numel() for tensor in weights.values()) <= limits.max_float32_parameters
        decoder = Decoder(shape, weights, torch.float32 if small else stored)
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder.tokenizer, local_files_only=True)
        defaults = read_json(folder.base / "generation_config.json")
        vocabulary = Vocabulary(tokenizer.backend_tokenizer)
    except Exception as error:  # of a folder's files anything may be wrong, and tokenizers raises Exception itself
        raise ExpertUnreachable(f"the expert in {name!r} cannot be loaded: {error}", retryable=False) from error
    ends = defaults.get("eos_token_id")
    end_ids = shape.end_ids | frozenset(ends if isinstance(ends, list) else [] if ends is None else [ends])
    return LoadedModel(name, decoder, tokenizer, vocabulary, defaults, end_ids, limits)
