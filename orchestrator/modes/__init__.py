"""How experts work together for one answer.

A mode is a pure policy (``base``): from the outcomes so far it names the next calls, until it has the answer. ``play`` runs one, or
runs it again over outcomes that were kept; ``driver`` makes the calls, for the whole answer and for the stream; a batch makes them in
waves (``orchestrator.batch``). ``catalogue`` has the modes by name.
"""
