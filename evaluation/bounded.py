"""Comparisons that may take for ever, in a process of their own that is ended when time is up.

Computer algebra and regular expressions can run without bound on hostile input, and neither can be interrupted inside a
thread; signals, the usual way out, only work on the main thread. So one child process does them, one at a time.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import queue
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

from domain.errors import ServiceError

_COUNTS_PROCESSOR_TIME = hasattr(signal, "setitimer")
_CHILD = Path(__file__).with_name("bounded_child.py")
_OUT_OF_TIME = (-signal.SIGPROF,) if _COUNTS_PROCESSOR_TIME else ()
"""Exit statuses of a child that used up its processor time."""
_LOADS_MATH = {"op": "math", "gold": r"\frac{1}{2}", "answer": "0.5"}
"""True, harmless, and done only when all of the library is there."""


class ComparisonTimeout(ServiceError):
    """A comparison took longer than it may."""

    code = "comparison_timeout"


class BoundedComparer:
    """Compares in a child process, which starts at the first comparison and again after one that was cut off.

    Safe to use from several threads, which take turns. *timeout_s* bounds the processor time of one comparison,
    *start_timeout_s* that of loading the library for mathematical ones, which each process does by one comparison of our own:
    nothing that others wrote ever has that long. It is also the longest wait for any: a busy machine must not make an
    answer wrong.
    """

    def __init__(self, *, timeout_s: float = 5.0, start_timeout_s: float = 60.0) -> None:
        self._timeout_s = timeout_s
        self._start_timeout_s = start_timeout_s
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._math_loaded = False
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    def math_equal(self, gold: str, answer: str) -> bool:
        """Whether both are mathematically the same. Raises ``ComparisonTimeout``; False for what cannot be parsed."""
        return self._ask({"op": "math", "gold": gold, "answer": answer})

    def matches(self, pattern: str, text: str) -> bool:
        """Whether *pattern* is found in *text* (``^`` and ``$`` also at lines). Raises ``ComparisonTimeout``."""
        return self._ask({"op": "regex", "pattern": pattern, "text": text})

    def close(self) -> None:
        """End the child process; the next comparison would start another."""
        with self._lock:
            self._end()

    def _ask(self, request: dict[str, str]) -> bool:
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._end()
                self._start()
            if request["op"] == "math" and not self._math_loaded:
                self._math_loaded = self._reply(_LOADS_MATH, self._start_timeout_s)
                if not self._math_loaded:
                    return False  # the child died of loading
            return self._reply(request, self._timeout_s)

    def _reply(self, request: dict[str, str], timeout_s: float) -> bool:
        wait_s = self._start_timeout_s if _COUNTS_PROCESSOR_TIME else timeout_s
        try:
            self._pipe().write(json.dumps({**request, "limit_s": timeout_s}) + "\n")
            self._pipe().flush()
            line = self._lines.get(timeout=wait_s)
        except queue.Empty:
            self._end()
            raise ComparisonTimeout(f"comparing took longer than {wait_s:g} s") from None
        except OSError:
            line = ""
        if not line:
            if self._end(grace_s=1.0) in _OUT_OF_TIME:
                raise ComparisonTimeout(f"comparing took longer than {timeout_s:g} s of processor time")
            return False  # the child died of this input: out of memory, or recursion too deep
        return bool(json.loads(line)["same"])

    def _pipe(self) -> IO[str]:
        if self._process is None or self._process.stdin is None:
            raise OSError("the comparing process is gone")
        return self._process.stdin

    def _start(self) -> None:
        # -P: the folder of the child's file must not be a place that its imports are looked up in.
        command = [sys.executable, "-P", str(_CHILD)]
        self._process = subprocess.Popen(  # noqa: S603 - our own file, no shell
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, encoding="utf-8"
        )
        self._lines = queue.SimpleQueue()
        threading.Thread(target=_pump, args=(self._process.stdout, self._lines), name="bounded-comparer", daemon=True).start()

    def _end(self, *, grace_s: float = 0.0) -> int | None:
        """End the child; its exit status. One that is ending by itself has *grace_s* to say its own."""
        process, self._process, self._math_loaded = self._process, None, False
        if process is None:
            return None
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(grace_s)
        process.kill()
        status = process.wait()
        if process.stdin is not None:
            with contextlib.suppress(OSError):  # what was still buffered has no reader any more
                process.stdin.close()
        return status


def _pump(stdout: IO[str] | None, lines: queue.SimpleQueue[str]) -> None:
    """Move the child's lines into *lines*, and an empty one at its end: a pipe has no read with a time limit."""
    if stdout is not None:
        with stdout:
            for line in stdout:
                lines.put(line)
    lines.put("")


turns = ThreadPoolExecutor(max_workers=1, thread_name_prefix="comparing")
"""Where an event loop compares: who waits for a turn must not hold a thread of the pool that the whole process shares, and
is out of the queue when it is cancelled."""
comparer = BoundedComparer()
"""Shared by all graders of this process; its child ends with it."""
atexit.register(comparer.close)
