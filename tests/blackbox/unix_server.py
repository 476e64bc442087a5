"""A server on a UNIX path with a thread for each connection: what backends made by hand, and relays, have in common."""

from __future__ import annotations

import contextlib
import socket
import threading
from pathlib import Path
from typing import Self


class UnixServer:
    """Listens within a `with` statement; the user that the server under test becomes may connect, too."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.connections = 0  # so far
        self.errors: list[BaseException] = []  # of the threads; leaving fails if there are any
        self._listener = socket.socket(socket.AF_UNIX)

    def __enter__(self) -> Self:
        self._listener.bind(str(self.path))
        self.path.chmod(0o777)
        self._listener.listen(1024)
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept()
        self._listener.close()
        self.path.unlink()
        if error[0] is None:
            assert not self.errors, self.errors

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                self.connections += 1
                threading.Thread(target=self._serve_to_the_end, args=(sock, self.connections), daemon=True).start()

    def _serve_to_the_end(self, sock: socket.socket, number: int) -> None:
        try:
            self.serve(sock, number)
        except ConnectionError:
            pass  # as the test wants it
        except BaseException as error:
            self.errors.append(error)
        finally:
            sock.close()

    def serve(self, sock: socket.socket, number: int) -> None:
        """What is done with a connection, the first of which is number 1, in its thread; it is closed afterwards."""
        raise NotImplementedError
