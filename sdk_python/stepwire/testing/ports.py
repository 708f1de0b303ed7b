"""A port that stays one's own while nobody listens on it."""

from __future__ import annotations

import socket
import sys
import weakref

HOST = "127.0.0.1"


class HeldPort:
    """A port that a server may listen on, stop, and listen on again: until this is gone nobody else is given it.

    Otherwise the system may give it to another process in between, as the port of a server or of a connection. `number`
    is 0 where that can't be had, outside of Linux: then the server takes any.
    """

    def __init__(self) -> None:
        self.number = 0
        if sys.platform == "linux":
            # Bound with SO_REUSEADDR, and not listening: nobody is given it, but whoever asks for it gets it.
            held = socket.socket()
            weakref.finalize(self, held.close)
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            held.bind((HOST, 0))
            self.number = int(held.getsockname()[1])
