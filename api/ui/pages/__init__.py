"""One module a page: what it reads, what its forms do."""
