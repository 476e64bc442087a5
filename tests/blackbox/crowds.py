"""Many clients in a process of their own, where one epoll loop drives them all.

What a client does is a generator. Its socket is connected and does not block, and it yields what it waits for: READ,
WRITE or a pause. With HERE it says that it is where it wants to be; what it does after that it goes on with until all
have to leave. Whoever meets an OSError is lost: the server did not put up with it.
"""

from __future__ import annotations

import heapq
import multiprocessing
import resource
import select
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import NamedTuple, Self

SECONDS = 40.0  # what takes longer hangs
ARRIVING_AT_ONCE = 100


class Wait(NamedTuple):
    """For events of the socket (epoll), or else for a time."""

    events: int = 0
    seconds: float = 0.0


READ, WRITE, HERE = Wait(select.EPOLLIN), Wait(select.EPOLLOUT), Wait()
FOREVER = Wait(seconds=1e9)
Life = Generator[Wait, None, None]


@dataclass(slots=True)
class Client:
    sock: socket.socket
    here: bool = False


Behaviour = Callable[[Client], Life]


def reset_at_end(sock: socket.socket) -> None:
    """Closing it will send a TCP reset: socket(7), SO_LINGER."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class _Visit:
    """All clients from their coming to their leaving."""

    def __init__(self, address: tuple[str, int], behaviours: Sequence[Behaviour]) -> None:
        self._address = address
        self._coming = deque(behaviours)
        self._arriving = 0
        self._lives: dict[int, tuple[Client, Life]] = {}
        self._epoll = select.epoll()
        self._pauses: list[tuple[float, int]] = []
        self.lost: list[str] = []

    @property
    def all_here(self) -> bool:
        return not self._coming and not self._arriving

    @property
    def all_done(self) -> bool:
        """Nobody has anything left to do."""
        return self.all_here and not self._lives

    def turn(self) -> None:
        """Lets some more come, and those go on who wait for it no longer."""
        while self._coming and self._arriving < ARRIVING_AT_ONCE:
            self._arriving += 1
            self._connect(self._coming.popleft())
        for fd, _ in self._epoll.poll(0.01):
            self._go_on(fd)
        while self._pauses and self._pauses[0][0] <= time.monotonic():
            self._go_on(heapq.heappop(self._pauses)[1])

    def _connect(self, behaviour: Behaviour) -> None:
        sock = socket.socket()
        sock.setblocking(False)
        sock.connect_ex(self._address)
        client = Client(sock)
        self._lives[sock.fileno()] = client, _live(client, behaviour)
        self._epoll.register(sock.fileno(), WRITE.events | select.EPOLLONESHOT)

    def _go_on(self, fd: int) -> None:
        client, life = self._lives[fd]
        try:
            wait = next(life)
            if wait is HERE:
                self._arrived(client)
                wait = next(life)
        except (StopIteration, OSError) as end:
            if isinstance(end, OSError):
                self.lost.append(str(end))
            self._arrived(client)
            del self._lives[fd]
            client.sock.close()
        else:
            if wait.events:
                self._epoll.modify(fd, wait.events | select.EPOLLONESHOT)
            else:
                heapq.heappush(self._pauses, (time.monotonic() + wait.seconds, fd))

    def _arrived(self, client: Client) -> None:
        if not client.here:
            client.here = True
            self._arriving -= 1

    def end(self) -> None:
        """They leave, half of them with a reset."""
        for number, (client, _) in enumerate(self._lives.values()):
            if number % 2:
                reset_at_end(client.sock)
            client.sock.close()
        self._epoll.close()


def _live(client: Client, behaviour: Behaviour) -> Life:
    error = client.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if error:
        raise OSError(error, "unable to connect")
    yield from behaviour(client)


def _serve(address: tuple[str, int], behaviours: Sequence[Behaviour], boss: Connection) -> None:
    """The process: each visit begins and ends with a word of the boss."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    while True:
        boss.recv()
        visit = _Visit(address, behaviours)
        while not visit.all_here:
            visit.turn()
        boss.send("here")
        while not boss.poll() and not visit.all_done:
            visit.turn()
        if visit.all_done:
            boss.send("done")
        boss.recv()
        visit.end()
        boss.send(visit.lost)


class Crowd:
    """The test's end of such a process. All of it raises AssertionError where the crowd takes too long."""

    def __init__(self, address: tuple[str, int], parts: Sequence[tuple[Behaviour, int]]) -> None:
        """`parts`: behaviours, each with the number of clients that behave so."""
        spawn = multiprocessing.get_context("spawn")
        self._crowd, theirs = spawn.Pipe()
        behaviours = [behaviour for behaviour, count in parts for _ in range(count)]
        self.size = len(behaviours)
        self._process = spawn.Process(target=_serve, args=(address, behaviours, theirs), daemon=True)

    def __enter__(self) -> Self:
        self._process.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.join()
        self._crowd.close()

    def _news(self, seconds: float = SECONDS) -> object:
        assert self._crowd.poll(seconds), f"nothing comes from the crowd for {seconds} s"
        return self._crowd.recv()

    def come(self) -> None:
        """Waits until all are where they want to be."""
        self._crowd.send("come")
        assert self._news() == "here"

    def wait_until_done(self) -> None:
        """Only for a crowd that comes to an end."""
        assert self._news() == "done"

    def leave(self) -> list[str]:
        """What the server has done to those who are lost."""
        self._crowd.send("leave")
        lost = self._news()
        assert isinstance(lost, list), "it has come to an end"
        return lost
