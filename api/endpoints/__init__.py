"""HTTP routers, one module per resource. Thin: parse, call, shape the answer."""
