"""Ways to answer, side by side on the same questions: what each scored and cost, against the baselines.

``arms`` has the shape that all comparisons share: one arm per way, with what it scored on each question. ``routing`` makes arms by
fitting routers on outcome tables, ``evaluation.answers`` by asking real experts; ``summary`` turns arms into a ``report.Report``.
"""
