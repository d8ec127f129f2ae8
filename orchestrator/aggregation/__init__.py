"""From several candidates to one answer.

An aggregator decides purely: it either chooses a candidate or names the call that makes the answer. The pipeline does
the rest (streaming, falling back when that call fails), once for all of them.
"""
