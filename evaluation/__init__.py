"""How good experts are: graders, profile runs, the aggregator benchmark, reports."""
