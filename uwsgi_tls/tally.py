"""What one worker counts of what it does, and the names of all that it tells in its slot of the scoreboard.

Several threads count into one tally without a lock. CPython hands the GIL over at calls and at jumps backwards only,
so no `n += 1` with neither in it is lost; where an interpreter did otherwise, a statistic would be one short. What
happens at every request is an attribute, for speed; the rest is looked up by name.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence

# What a guest of the worker may wait for, or with `application` work on.
WAITS = (
    "arrival",  # the first words of a client
    "handshake",
    "head",
    "body",
    "idle",  # the next request
    "room",  # a thread of the application
    "application",
    "backend",
    "writing",  # the client, which has not read all of its response
    "tunnel",
    "farewell",  # the client's end
)
FAILURES = ("certificate", "alert", "version", "algorithms", "name", "not_tls", "proxy", "closed", "timeout", "other")
PROTOCOLS = ("TLSv1.2", "TLSv1.3", "other")
CIPHERS = (
    "TLS_AES_256_GCM_SHA384",
    "TLS_AES_128_GCM_SHA256",
    "TLS_CHACHA20_POLY1305_SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-RSA-CHACHA20-POLY1305",
    "DHE-RSA-AES256-GCM-SHA384",
    "DHE-RSA-AES128-GCM-SHA256",
    "other",
)
LIMITS = ("worker-connections", "https-max-handshakes", "connections-per-client", "spool-limit")
RESPONSES = ("unanswered", "1xx", "2xx", "3xx", "4xx", "5xx")  # by the first digit of the status
SOCKETS = 16  # listening ones whose queues are told
# Upper bounds in seconds of how long a request or a handshake takes; what takes longer than all of them is in "inf".
BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
BUCKETS = (*(f"{bound:g}" for bound in BOUNDS), "inf")

_PLAIN = ("requests", "accepted", "bytes_in", "bytes_out", "micros", "handshake_micros")
_RARE = (
    "exceptions",
    "backend_errors",
    *(f"handshakes.{kind}" for kind in ("full", "resumed")),
    *(f"failures.{reason}" for reason in FAILURES),
    *(f"protocols.{name}" for name in PROTOCOLS),
    *(f"ciphers.{name}" for name in CIPHERS),
    *(f"certificates.{result}" for result in ("none", "verified", "refused")),
    *(f"deadlines.{what}" for what in WAITS),
)

# Counters only grow, and outlive their worker in a sum; gauges are of this moment. Both are whole numbers.
COUNTERS = (
    *_PLAIN,
    *(f"responses.{kind}" for kind in RESPONSES),
    *(f"durations.{bucket}" for bucket in BUCKETS),
    *(f"handshake_durations.{bucket}" for bucket in BUCKETS),
    *_RARE,
    *(f"limits.{name}" for name in LIMITS),  # which those count who keep them
)
GAUGES = (
    *(f"connections.{what}" for what in WAITS),
    "average",  # microseconds of a request, of late
    "spooled",  # bytes
    "rss",  # bytes
    "vsz",  # bytes
    *(f"queues.{number}" for number in range(SOCKETS)),  # who waits to be accepted
)
NAMES = COUNTERS + GAUGES

_BY_PROTOCOL = {name: f"protocols.{name}" for name in PROTOCOLS}
_BY_CIPHER = {name: f"ciphers.{name}" for name in CIPHERS}
_REASONS = (
    ("client certificate refused", "certificate"),
    ("the client sent no certificate", "certificate"),
    ("its session is older", "certificate"),
    ("the client refused", "alert"),
    ("the client offers no TLS version", "version"),
    ("the client offers no", "algorithms"),
    ("the client accepts no", "algorithms"),
    ("the client has asked for another name", "name"),
    ("plain HTTP", "not_tls"),
    ("a proxy's CONNECT", "not_tls"),
    ("what the client sends is not TLS", "not_tls"),
    ("the client closed", "closed"),
    ("the client ended", "closed"),
    ("connection reset", "closed"),
    ("broken pipe", "closed"),
)


class Tally:
    """The counters of one worker; all of them begin at 0 with it."""

    __slots__ = (
        "_handshake_durations",
        "_handshake_seconds",
        "_rare",
        "accepted",
        "bytes_in",
        "bytes_out",
        "durations",
        "responses",
        "seconds",
    )

    def __init__(self) -> None:
        self.accepted = 0  # connections
        self.bytes_in = self.bytes_out = 0  # of HTTP, so without TLS
        self.seconds = 0.0  # that requests have taken, each from its head to its end
        self.responses = [0] * 10  # by the first digit of the status; 0: the client left before it had one
        self.durations = [0] * len(BUCKETS)  # of requests, at bisect_left(BOUNDS, seconds)
        self._handshake_seconds = 0.0
        self._handshake_durations = [0] * len(BUCKETS)
        self._rare = dict.fromkeys(_RARE, 0)

    def count(self, name: str) -> None:
        """One more of what is rare: "exceptions", "deadlines.idle" and the like."""
        self._rare[name] += 1

    def shaken_hands(self, protocol: str, cipher: str, seconds: float, *, resumed: bool, verified: bool) -> None:
        """A handshake is complete after `seconds`; `verified`: the client has shown a certificate."""
        self._handshake_seconds += seconds
        self._handshake_durations[bisect_left(BOUNDS, seconds)] += 1
        self.count("handshakes.resumed" if resumed else "handshakes.full")
        self.count(_BY_PROTOCOL.get(protocol, "protocols.other"))
        self.count(_BY_CIPHER.get(cipher, "ciphers.other"))
        self.count("certificates.verified" if verified else "certificates.none")

    def not_shaken_hands(self, why: str) -> str:
        """A handshake has failed, for the reason that the log has. Returns the word of FAILURES it is counted as."""
        reason = next((reason for beginning, reason in _REASONS if why.startswith(beginning)), "other")
        self.count(f"failures.{reason}")
        if reason == "certificate":
            self.count("certificates.refused")
        return reason

    def counters(self) -> Mapping[str, int]:
        """What is counted here, by its name in COUNTERS."""
        return {
            "accepted": self.accepted,
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
            "micros": int(self.seconds * 1e6),
            "handshake_micros": int(self._handshake_seconds * 1e6),
            **_named("responses", RESPONSES, self.responses),
            **_named("durations", BUCKETS, self.durations),
            **_named("handshake_durations", BUCKETS, self._handshake_durations),
            **self._rare,
        }


def _named(group: str, names: Sequence[str], counts: Sequence[int]) -> Mapping[str, int]:
    return {f"{group}.{name}": count for name, count in zip(names, counts, strict=False)}
