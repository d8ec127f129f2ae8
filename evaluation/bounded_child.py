"""The process behind ``evaluation.bounded``: one JSON request a line in, one JSON reply a line out.

Run as a file of its own, so it imports nothing of the project. Requests: ``{"op": "math", "gold": …, "answer": …}`` and
``{"op": "regex", "pattern": …, "text": …}``, both with ``limit_s``, in seconds of processor time; replies: ``{"same": true | false}``.
"""

from __future__ import annotations

import json
import re
import signal
import sys

_MARKED = re.compile(r"\$|\\\(|\\\[|\\boxed")
_PROSE = re.compile(r"[A-Za-z]{2,}\s+[A-Za-z]{2,}")


def math_equal(gold: str, answer: str) -> bool:
    """Whether *answer* is mathematically the same as *gold*; both may be LaTeX, or text with a formula in it."""
    from math_verify import parse, verify

    # The parent ends this process when time is up, so math-verify's own signal timers are not needed.
    expected, found = (parse(as_formula(text), parsing_timeout=None) for text in (gold, answer))
    return bool(expected and found and verify(expected, found, timeout_seconds=None))


def as_formula(text: str) -> str:
    """*text* marked as LaTeX where it is a bare formula, which the parser would otherwise search for numbers only."""
    return text if _MARKED.search(text) or _PROSE.search(text) else f"${text}$"


def main() -> None:
    import logging

    logging.disable(logging.CRITICAL)  # math-verify warns about every formula that it cannot read
    for line in sys.stdin:
        request = json.loads(line)
        _end_after(request["limit_s"])
        if request["op"] == "math":
            same = math_equal(request["gold"], request["answer"])
        else:
            same = re.search(request["pattern"], request["text"], re.MULTILINE) is not None
        sys.stdout.write(json.dumps({"same": same}) + "\n")
        sys.stdout.flush()
        _end_after(0)


def _end_after(limit_s: float) -> None:
    """Let the system end this process after *limit_s* of processor time, 0 for never.

    Processor time, because a busy machine must not make an answer wrong; the system, because it also works inside C code
    and when the parent was killed.
    """
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, limit_s)


if __name__ == "__main__":
    main()
