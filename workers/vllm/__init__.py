"""vLLM servers that the service starts, watches and stops itself: command lines (pure), one process, and what keeps it running."""
