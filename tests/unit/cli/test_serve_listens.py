"""The socket that ``consilium serve`` listens on."""

from __future__ import annotations

import socket
from pathlib import Path

from api.app import create_app
from api.cli.serve import listen, server_config
from api.settings import Settings


def test_what_is_sent_in_two_pieces_is_not_held_back() -> None:
    """Answers go out as head and body: without ``TCP_NODELAY`` each waits 40 ms for the caller's acknowledgement."""
    with listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()) as caller:
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert caller.getpeername() == accepted.getsockname()


def test_an_idle_connection_outlives_its_clients(tmp_path: Path) -> None:
    """Who closes it while a request is on its way to it leaves a client that cannot know whether it was heard. OpenAI's client keeps idle
    connections for 5 s, as uvicorn would by itself; load balancers for 60."""
    settings = Settings(_env_file=None, data_dir=tmp_path)  # type: ignore[call-arg]
    config = server_config(create_app(settings), settings)

    assert config.timeout_keep_alive > 60
