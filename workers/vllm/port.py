"""A port on loopback that stays ours until a server listens on it."""

from __future__ import annotations

import socket


class HeldPort:
    """A port that is bound but not listened on.

    Between finding a free port and the server's own bind another process could get it. Linux lets a second socket bind a port whose
    first is bound with SO_REUSEADDR and does not listen, if the second asks for SO_REUSEADDR too, as servers do; and it never gives
    the port to anybody who asks for any free one. So whoever keeps this open keeps the port for the server: the shim does, for as
    long as it runs.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind(("127.0.0.1", 0))
        except OSError:
            self._socket.close()
            raise
        self.number: int = self._socket.getsockname()[1]

    @property
    def descriptor(self) -> int:
        """To pass on to the process that keeps it."""
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()
