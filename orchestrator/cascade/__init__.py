"""Experts one after the other, until an answer is confident enough.

``confidence`` judges, ``ladder`` says what comes next (both pure), ``climb`` makes the calls. A ladder's next step follows from the
outcomes so far and nothing else, so that a batch can go on with one after a kill.
"""
