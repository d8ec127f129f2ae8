"""Which servers are loaded on one host: the policy (pure), the queue of requests (pure), their effects, and a simulator."""
