"""One module per change of the schema, oldest first. A published one is never edited."""
