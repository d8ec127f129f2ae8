"""How much each key may use: what a request will need is taken before it runs, what it used is settled afterwards."""
