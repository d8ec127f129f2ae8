"""HTTP and the command line. ``bootstrap.py`` is the one module that sees every concrete class."""
