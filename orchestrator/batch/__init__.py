"""Many requests at once: routed first, grouped by expert, planned so that each server is loaded once.

A batch's life here: ``validation`` reads the input, ``routes`` holds who is asked by which line, ``host`` describes the
machine, ``planning`` makes the ``plan``, ``cursor`` says what may start next, ``progress`` keeps what is settled; with it
the rest is planned again after a restart or when an expert has failed for good. Everything here is pure.
"""
