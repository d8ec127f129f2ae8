"""An orchestrator over scripted experts, for modes: a to e with falling scores, a reader, and a weak one that is never selected."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from domain.chat import Message, RequestOptions, text_of
from domain.experts import Capability, ExpertCard, ExpertRole
from domain.plan import ExpertCall
from domain.routing import PickRule, RoutingQuery
from domain.strategy import Strategy
from domain.trace import Trace
from orchestrator.answer import Progress
from orchestrator.pipeline import Orchestrator
from orchestrator.ports import Memory
from tests.fakes.directory import FakeDirectory, FakeRouter, KeptTraces, card
from tests.fakes.workers import ScriptedWorkers
from tests.unit.orchestrator.test_pipeline import ask

ABLE = frozenset({Capability.JSON_SCHEMA, Capability.TOOLS, Capability.MULTIPLE_CHOICES})
READER = card("reader", roles=frozenset({ExpertRole.AGGREGATOR}), capabilities=ABLE)
CARDS = (*(card(name, capabilities=ABLE) for name in ("a", "b", "c", "d", "e", "weak")), READER)


class Rig:
    """*choose* may select by the query; otherwise *selected* are, in that order."""

    def __init__(
        self,
        mode: str,
        script: Mapping[str, Any],
        *selected: str,
        choose: Callable[[RoutingQuery], Sequence[str]] | None = None,
        memory: Memory | None = None,
        cards: Sequence[ExpertCard] = (),
        **changes: Any,
    ) -> None:
        strategy = Strategy("s", mode=mode, pick=PickRule("top_k", 5), max_calls=16)
        self.workers, self.sink = ScriptedWorkers(script), KeptTraces()
        self.directory = FakeDirectory((*CARDS, *cards), strategies=[replace(strategy, **changes)])
        self.router = FakeRouter(*(selected or tuple(name for name in script if len(name) == 1)), choose=choose)
        self.orchestrator = Orchestrator(
            directory=self.directory, routers={"skills": self.router}, workers=self.workers, sinks=[self.sink], memory=memory
        )

    async def ask(
        self,
        *,
        stream: bool = False,
        params: Mapping[str, Any] | None = None,
        messages: Sequence[Message] | None = None,
        **options: Any,
    ) -> str:
        """The answer's text; the trace is in ``trace``, what was streamed in ``pieces``."""
        request = ask("consilium/s", stream=stream, params=params or {}, options=RequestOptions(**options))
        request = request if messages is None else replace(request, messages=tuple(messages))
        self.pieces, self.progress = list[str](), list[str]()
        if not stream:
            return (await self.orchestrator.run(request)).choices[0].text
        opened = await self.orchestrator.open_stream(request)
        async for event in opened:
            if isinstance(event, Progress):
                self.progress.append(event.text)
            else:
                self.pieces += [text for choice in event.choices if (text := str(choice.delta.get("content") or ""))]
        return "".join(self.pieces)

    @property
    def trace(self) -> Trace:
        return self.sink.traces[-1]

    def shown_to(self, expert_id: str, number: int = -1) -> str:
        """Everything that stands in one of its calls."""
        return shown_in(self.workers.calls_to(expert_id)[number])


def shown_in(call: ExpertCall) -> str:
    return "\n".join(text_of(message) for message in call.messages)
