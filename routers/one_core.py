"""Linear algebra on one core, for work that goes on beside others.

NumPy and SciPy spread each matrix product over all cores, whose threads wait for each other in busy loops. For the small products of a
fit that wins nothing, and where something else runs too, each waits for a thread that has no core: on two busy cores, fits that take two
to four seconds of processor time on one core took sixteen, and five to twenty times as long.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def one_core() -> Iterator[None]:
    """Within it, matrix products use one thread each. The limit is the process's: of two threads within it at once the first sets it, and
    takes it back when it leaves."""
    import scipy.linalg  # noqa: F401  # its library is limited only once it is loaded
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, user_api="blas"):
        yield
