"""Routing policy: a request and its eligible experts in, a routing decision out.

Nothing heavy is imported here or at the top of any module of this package; the encoder imports what it needs when it starts.
"""
