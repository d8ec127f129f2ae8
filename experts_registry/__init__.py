"""What we know: cards, strategies, skills, profiles, labelled questions and traces, in SQLite or PostgreSQL."""
