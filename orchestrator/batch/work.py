"""A routed batch while it runs: its lines, their calls, and how a line that is over gets its result."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from domain.batch import BatchErrorCode, BatchOptions, KeptCall, LineResult, LineRoute
from domain.chat import ChatRequest
from domain.errors import ConsiliumError, RequestError
from domain.plan import Candidate, ExpertCall, ExpertFailure, Outcome
from orchestrator.batch.input_file import Body, InputFile
from orchestrator.batch.ledger import Ledger, patiently
from orchestrator.batch.limits import BatchLimits
from orchestrator.batch.line import Lines, with_strategy
from orchestrator.batch.ports import BatchJournal, ChatShape
from orchestrator.batch.progress import CallState, LineState, Progress
from orchestrator.batch.rights import LineRights
from orchestrator.batch.routes import RouteTable

WireError = Callable[[ConsiliumError], tuple[int, Mapping[str, object]]]
"""An error's HTTP status and its object in OpenAI's shape (``{"message", "type", "param", "code"}``)."""

NextCalls = Mapping[int, tuple[tuple[int, str], ...]]
"""By the line's number: its next calls, each as position and expert."""

_OVER = frozenset({LineState.ANSWERED, LineState.FAILED})


class BudgetSpent(Exception):
    """The batch may make no further call. Never leaves the engine."""


@dataclass(frozen=True, slots=True)
class LineRequest:
    """One line as it is asked."""

    number: int
    body: Body
    request: ChatRequest
    route: LineRoute


@dataclass(frozen=True, slots=True)
class Ready:
    """One call that can be made, and what it needs to know of its line."""

    call: int
    """Its number in the route table."""
    position: int
    """Among the line's calls."""
    line: LineRequest
    earlier: Mapping[int, Outcome]


def request_id(batch_id: str, number: int) -> str:
    """Of one line's request, in answers and traces."""
    return f"{batch_id}-{number}"


def not_run(batch_id: str, number: int, code: BatchErrorCode, message: str) -> LineResult:
    """A line that the batch came to no answer for."""
    return LineResult(number, request_id(batch_id, number), 0, error={"code": code.value, "message": message})


class Requests:
    """From the lines of an input file to requests, and from what came of them to results."""

    def __init__(
        self, batch_id: str, options: BatchOptions, shape: ChatShape, lines: Lines, wire_error: WireError, *, rights: LineRights
    ) -> None:
        self._batch_id, self._options, self._shape, self._lines, self._wire_error = batch_id, options, shape, lines, wire_error
        self._rights = rights

    @property
    def lines(self) -> Lines:
        return self._lines

    def request(self, number: int, body: Body) -> ChatRequest:
        """Raises ``RequestError``."""
        return self._rights.asked(with_strategy(self._shape.request(body, self.id_of(number)), self._options.strategy))

    @property
    def is_spent(self) -> bool:
        """Whether the key's budget leaves nothing for a further call."""
        return self._rights.is_spent

    def require_rights(self) -> None:
        """Raise ``RequestError`` when the key opens nothing any more."""
        self._rights.require()

    def id_of(self, number: int) -> str:
        return request_id(self._batch_id, number)

    def result(self, line: LineRequest, outcomes: Mapping[int, Outcome]) -> LineResult:
        """What the line came to, when every call of it that can be made has ended."""
        try:
            answer = self._lines.answer(line.request, line.route, outcomes)
        except ConsiliumError as error:
            return self.refusal(line.number, error)
        return LineResult(line.number, line.request.id, 200, body=self._shape.answer(line.request, line.body, answer))

    def refusal(self, number: int, error: ConsiliumError) -> LineResult:
        """A line that failed as a request alone would have."""
        status, told = self._wire_error(error)
        return LineResult(number, self.id_of(number), status, error=told)

    def not_run(self, number: int, code: BatchErrorCode, message: str) -> LineResult:
        """``not_run`` of this batch."""
        return not_run(self._batch_id, number, code, message)


class BatchWork:
    """Mutable. Lines are known by their place in *table*, by their number in the file only outside."""

    def __init__(
        self,
        table: RouteTable,
        numbers: array[int],
        *,
        requests: Requests,
        file: InputFile,
        journal: BatchJournal,
        ledger: Ledger,
        limits: BatchLimits,
        max_tokens: int | None,
        positions: Mapping[int, Sequence[int]] | None = None,
    ) -> None:
        """*numbers* (lines): of each line in the file. *positions*: of a cascade's line, by its number, where the calls that the table has
        of it stand among all of the line's; of other lines the table has them all."""
        self.table, self.progress = table, Progress(table)
        self._numbers, self._requests, self._file, self._journal, self._ledger = numbers, requests, file, journal, ledger
        self._place = {number: line for line, number in enumerate(numbers)}
        self._limits, self._max_tokens = limits, max_tokens
        self._positions = positions or {}
        self._climbing: dict[int, tuple[tuple[int, str], ...]] = {}
        self._num_tokens = 0
        self._over: list[int] = []
        """Lines that are over and have no result yet."""

    def spent(self, num_tokens: int) -> None:
        """Tokens that were used, also before this run."""
        self._num_tokens += num_tokens

    @property
    def is_spent(self) -> bool:
        """Whether no further call may begin."""
        return (self._max_tokens is not None and self._num_tokens >= self._max_tokens) or self._requests.is_spent

    @property
    def num_tokens(self) -> int:
        return self._num_tokens

    @property
    def climbing(self) -> NextCalls:
        """Of the cascades whose calls here have ended, and that are not over by that, those that come next: whom they ask may have taken
        a routing to find out."""
        return self._climbing

    @property
    def num_over(self) -> int:
        """Lines that ``finish`` would give a result."""
        return len(self._over)

    async def resume(self) -> None:
        """Take over what was kept before this run."""
        async for number, position, answered in self._journal.settled():
            if number in self._positions or number not in self._place:  # a cascade's: the table has what is not settled
                continue
            call = self.table.offsets[self._place[number]] + position
            self.progress.settle(call, CallState.ANSWERED if answered else CallState.FAILED)
        self._over = [line for line in range(self.table.num_lines) if self.progress.line(line) in _OVER]

    async def ready(self, calls: Sequence[int]) -> list[Ready]:
        """What *calls* need to be made. For an aggregator's everything that its line's candidates said, which is durable by then."""
        lines = [self.table.line_of(call) for call in calls]
        readers = [line for line, call in zip(lines, calls, strict=True) if self._reads_others(line, call)]
        earlier = await self._calls([self._numbers[line] for line in readers]) if readers else {}
        known = await self._line_requests(lines)
        for line, call in zip(lines, calls, strict=True):
            if line not in known:  # over already: another process has written its result, or it cannot be asked any more
                self.progress.settle(call, CallState.FAILED)
        return [
            Ready(call, self._position(line, call), known[line], earlier.get(self._numbers[line], {}))
            for line, call in zip(lines, calls, strict=True)
            if line in known
        ]

    def _position(self, line: int, call: int) -> int:
        """Where *call* stands among its line's."""
        place = call - self.table.offsets[line]
        of_cascade = self._positions.get(self._numbers[line])
        return place if of_cascade is None else of_cascade[place]

    def _reads_others(self, line: int, call: int) -> bool:
        """Whether the call needs what others of its line have answered."""
        of_cascade = self._positions.get(self._numbers[line])
        return call == self.table.aggregator(line) if of_cascade is None else of_cascade[0] > 0

    def expert_call(self, ready: Ready) -> ExpertCall:
        """Raises as ``Lines.call`` does."""
        expert_id = self.table.expert_of(ready.call)
        return self._requests.lines.call(ready.line.request, ready.line.route, ready.position, ready.earlier, expert_id)

    def require_rights(self) -> None:
        """Raise ``RequestError`` when no further call may be made with the rights of the batch's key. To be asked right before each: many
        are ready before their turn comes."""
        self._requests.require_rights()

    async def refuse(self, ready: Ready, error: RequestError) -> None:
        """The call is not made, and its line is over with *error*, whatever its other calls have come to."""
        self.progress.settle(ready.call, CallState.FAILED)
        await self._ledger.line_ended(self._requests.refusal(ready.line.number, error))

    async def settle(self, ready: Ready, outcome: Outcome | None) -> None:
        """The call has ended for good; without an *outcome* there was nothing to call. A line of one call gets its result now, others
        with ``finish``."""
        answered = isinstance(outcome, Candidate)
        state = self.progress.settle(ready.call, CallState.ANSWERED if answered else CallState.FAILED)
        if isinstance(outcome, Candidate):
            self.spent(outcome.usage.total_tokens)
        line = self.table.line_of(ready.call)
        if len(ready.line.route.selected) == 1 and ready.line.route.waves is None and outcome is not None:
            await self._ledger.line_ended(self._requests.result(ready.line, {0: outcome}))
            return
        if outcome is not None:
            await self._ledger.call_ended(KeptCall(ready.line.number, ready.position, outcome))
        if state in _OVER:
            self._over.append(line)

    async def fail(self, calls: Sequence[int], failure: ExpertFailure) -> None:
        """These calls cannot be made, for one reason. There may be as many as the batch has: their lines are read chunk by chunk."""
        size = self._limits.chunk_lines
        for start in range(0, len(calls), size):
            for ready in await self.ready(calls[start : start + size]):
                await self.settle(ready, failure)

    def pending_of(self, expert_id: str) -> list[int]:
        """The calls of an expert that are not settled."""
        table = self.table
        if expert_id not in table.expert_ids:
            return []
        number = table.expert_ids.index(expert_id)
        return [call for call, expert in enumerate(table.experts) if expert == number and self.progress[call] is CallState.PENDING]

    def counted(self, num_calls: int) -> None:
        """Calls that were made."""
        self._ledger.count_calls(num_calls)

    async def finish(self) -> None:
        """Give every line that is over its result. Afterwards everything that had ended before is durable."""
        while self._over:
            lines, self._over = self._over[: self._limits.chunk_lines], self._over[self._limits.chunk_lines :]
            await self._ledger.flush()  # now, and not before: their calls are read back, and other buckets end lines meanwhile
            known = await self._line_requests(lines)
            outcomes = await self._calls([line.number for line in known.values()])
            for line in known.values():
                if line.route.waves is not None and (calls := await self._next_calls(line, outcomes.get(line.number, {}))):
                    self._climbing[line.number] = calls
                    continue
                await self._ledger.line_ended(self._requests.result(line, outcomes.get(line.number, {})))
        await self._ledger.flush()

    async def _next_calls(self, line: LineRequest, outcomes: Mapping[int, Outcome]) -> tuple[tuple[int, str], ...]:
        try:
            return await self._requests.lines.asked_next(line.request, line.route, outcomes)
        except RequestError:  # its result says why
            return ()

    async def _calls(self, numbers: Sequence[int]) -> Mapping[int, Mapping[int, Outcome]]:
        return await patiently(lambda: self._journal.calls(numbers), self._limits)

    async def _line_requests(self, lines: Sequence[int]) -> dict[int, LineRequest]:
        """By their place in the table. A line that is over already, by another process's doing, is left out."""
        wanted = [self._numbers[line] for line in dict.fromkeys(lines)]
        stored = await patiently(lambda: self._journal.lines(wanted), self._limits)
        there = [(self._place[number], routed) for number, routed in stored.items()]
        bodies = await self._file.bodies([routed.input for _, routed in there])
        found: dict[int, LineRequest] = {}
        for (line, routed), body in zip(there, bodies, strict=True):
            number = routed.input.line.number
            if routed.route is None:
                continue
            try:
                found[line] = LineRequest(number, body, self._requests.request(number, body), routed.route)
            except RequestError as error:  # it was taken when the batch was made: the service has changed since
                await self._ledger.line_ended(self._requests.refusal(number, error))
        return found
