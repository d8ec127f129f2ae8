"""Measured outcomes as tables: reading files, dropping duplicates, splitting by question."""
