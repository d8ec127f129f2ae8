"""Alembic's environment: ``env.py`` runs what lies in ``versions/``. Travels with the package."""
