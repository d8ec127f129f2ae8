"""Experts in this process: small decoders with continuous batching, streaming and grammar-constrained answers."""
