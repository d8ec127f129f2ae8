"""Linear algebra on one core, for work that goes on beside others.

NumPy and SciPy spread each matrix product over all cores, whose threads wait for each other in busy loops. For the small products of a
fit that wins nothing, and where something else runs too, each waits for a thread that has no core: on two busy cores, fits that take two
to four seconds of processor time on one core took sixteen, and five to twenty times as long.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class _Limit:
    """What the process's threads share."""

    lock = threading.Lock()
    num_within = 0
    set: Any = None
    """What takes the limit back."""


_thread = threading.local()


@contextmanager
def one_core() -> Iterator[None]:
    """Within it, matrix products use one thread each. The limit is the process's: of several threads within it at once the first sets it,
    and the last to leave takes it back."""
    import scipy.linalg  # noqa: F401  # its library is limited only once it is loaded
    from threadpoolctl import threadpool_limits

    with _Limit.lock:
        if not _Limit.num_within:
            _Limit.set = threadpool_limits(1, user_api="blas")
        _Limit.num_within += 1
    try:
        yield
    finally:
        with _Limit.lock:
            _Limit.num_within -= 1
            if not _Limit.num_within:
                _Limit.set.restore_original_limits()


def search_on_one_core() -> None:
    """Let FAISS use no other thread than this one for what this one searches from now on: queries come one at a time, and more threads
    would only fight with those of the encoder. OpenMP's limit is a thread's own, so it is set by each that searches, once."""
    if not hasattr(_thread, "is_limited"):
        import faiss

        faiss.omp_set_num_threads(1)
        _thread.is_limited = True
