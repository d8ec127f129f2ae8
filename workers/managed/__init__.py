"""Experts on vLLM servers of the service's own: which server each lives on (pure), the fleet of servers, and the worker that calls them."""
