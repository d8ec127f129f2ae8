"""Many requests at once: routed first, grouped by expert, planned so that each server is loaded once.

Pure: ``validation`` reads the input, ``routes`` holds who is asked by which line, ``host`` describes the machine, ``planning`` makes
the ``plan``, ``cursor`` says what may start next, ``progress`` keeps what is settled, ``retries`` who rests; with them the rest is
planned again after a restart.

With effects, through ``ports``: ``service`` takes batches up, ``engine`` carries one out, ``turns`` and ``bucket_run`` make its calls,
``ledger`` keeps what has ended, ``ending`` writes its files. ``line`` is one line, by the parts of a single request.
"""
