"""The master's answer to who asks how the server is: puts the condition together, and writes it down or logs it."""

import time
from collections.abc import Callable, Sequence

from uwsgi_tls import condition
from uwsgi_tls.certificates import CertificateInfo
from uwsgi_tls.condition import Certificate, Condition, Member
from uwsgi_tls.logs import line
from uwsgi_tls.scoreboard import Reading, Told
from uwsgi_tls.stats.facts import Facts
from uwsgi_tls.status_file import StatusFile


class Teller:
    """Knows whom to ask for what the supervisor does not know."""

    def __init__(self, describe: Callable[[], Facts], kept: Callable[[], Sequence[str]], file: StatusFile) -> None:
        """`describe` says which listeners and certificates there are now; `kept` which certificates stayed as they
        were since nobody could read them, by file; in `file` the answers to SIGUSR2 go."""
        self._describe = describe
        self._kept = kept
        self._file = file

    def write(self, reading: Reading, failure: str, wrong: Sequence[str]) -> None:
        """For `uwsgi-tls status`. `failure` is what failed last, and `wrong` what the supervisor knows to be wrong."""
        self._file.write(self.condition(reading, failure, wrong).to_json())

    def log(self, reading: Reading, failure: str, wrong: Sequence[str]) -> None:
        """The same in the log."""
        for each in self.condition(reading, failure, wrong).lines():
            line(each)

    def condition(self, reading: Reading, failure: str, wrong: Sequence[str]) -> Condition:
        """All that is known, as it is now."""
        facts, now = self._describe(), time.monotonic()
        workers = tuple(_member(told, now) for told in reading.workers)
        certificates = tuple(map(_certificate, facts.certificates))
        kept = [
            f"certificate {file} and its key could not be read again: they are as they were" for file in self._kept()
        ]
        wanted = 0 if reading.state == "stopping" else reading.wanted
        return Condition(
            moment=now,
            state=reading.state,
            generation=reading.generation,
            wanted=reading.wanted,
            started=reading.started,
            workers=workers,
            listeners=tuple(sock.name for sock in facts.sockets),
            certificates=certificates,
            failure=failure,
            wrong=(*wrong, *condition.faults(workers, wanted, certificates, time.time()), *kept),
        )


def _certificate(info: CertificateInfo) -> Certificate:
    return Certificate(info.file, info.names, int(info.not_after.timestamp()), int(info.expiry_warning.timestamp()))


def _member(told: Told, now: float) -> Member:
    return Member(
        number=told.number,
        generation=told.generation,
        pid=told.pid,
        state=told.state,
        requests=told.counts["requests"],
        silent=max(0.0, now - told.last_beat) if told.last_beat else 0.0,
    )
