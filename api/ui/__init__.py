"""The admin UI at ``/admin``: pages rendered here, which read the service's own parts and change things through the admin REST.

``pages/`` has one module a page, ``templates/`` what it looks like, ``static/`` what the browser is sent besides. ``session.py`` says who
is logged in, ``rest.py`` is the way to every change, so that a page can do no more, and is written down no less, than a program with
the same key.
"""
