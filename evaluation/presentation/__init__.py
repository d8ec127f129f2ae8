"""A comparison's report as tables, charts and one HTML page."""
