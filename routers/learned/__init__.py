"""Routers fitted on measured outcomes: which expert scored what on which question.

``base`` has the two shapes that all share: an ``Estimator`` is fitted on a table of outcomes and becomes a ``ScoreModel``, which
says what each expert is expected to score on a query. Both are pure: no files, no clock, no registry. ``catalogue`` lists
them by name; the service holds them behind one adapter, the evaluation calls them directly, so what is judged is what is served.
"""
