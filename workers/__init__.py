"""Running completions: one adapter per backend, and the pool that bounds, times and retries their calls."""
