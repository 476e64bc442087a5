"""The document of uWSGI's stats server (core/stats.c), so that what reads that, as uwsgitop does, reads ours.

All its keys are there; those of what we do not have are 0. The variables of running requests are left out: they hold
cookies and passwords. Under "tls" stands what uWSGI does not know.
"""

import json
import time
from collections.abc import Mapping
from typing import Any

from uwsgi_tls import __version__
from uwsgi_tls.scoreboard import Reading, Told
from uwsgi_tls.stats.facts import Facts
from uwsgi_tls.tally import SOCKETS


def document(reading: Reading, facts: Facts) -> dict[str, Any]:
    """The document as objects that JSON has."""
    queues = [longest(reading, number) for number in range(len(facts.sockets[:SOCKETS]))]
    return {
        "version": __version__,
        "listen_queue": sum(queues),
        "listen_queue_errors": 0,
        "signal_queue": 0,
        "load": sum(queues),
        "pid": facts.master,
        "uid": facts.uid,
        "gid": facts.gid,
        "cwd": facts.directory,
        "locks": [],
        "sockets": [
            {
                "name": sock.name,
                "proto": "https",
                "queue": queue,
                "max_queue": sock.queue_max,
                "shared": int(sock.shared),
                "can_offload": 0,
            }
            for sock, queue in zip(facts.sockets, queues, strict=False)
        ],
        "workers": [_worker(told, facts) for told in present(reading)],
        "tls": _tls(reading, facts),
    }


def as_json(reading: Reading, facts: Facts) -> bytes:
    form: dict[str, Any] = {"separators": (",", ":")} if facts.minified else {"indent": "\t"}
    return (json.dumps(document(reading, facts), **form) + "\n").encode()


def present(reading: Reading) -> list[Told]:
    """One worker for each number, as uWSGI has them: the youngest that is ready, while a reload makes more."""
    found: dict[int, Told] = {}
    for told in reading.workers:  # the oldest generation first
        if told.number not in found or told.state != "starting":
            found[told.number] = told
    return list(found.values())


def longest(reading: Reading, number: int) -> int:
    """How many wait at that socket; all workers tell of the same queue, each at its own moment."""
    return max((told.counts[f"queues.{number}"] for told in reading.workers), default=0)


def group(counts: Mapping[str, int], name: str) -> dict[str, int]:
    """The counts of one kind: those of tally.NAMES that begin with `name` and a point."""
    prefix = f"{name}."
    return {key.removeprefix(prefix): count for key, count in counts.items() if key.startswith(prefix)}


def _worker(told: Told, facts: Facts) -> dict[str, Any]:
    counts = told.counts
    running = counts["connections.application"]
    busy = running + counts["connections.backend"]
    return {
        "id": told.number,
        "pid": told.pid,
        "accepting": int(told.state == "serving"),
        "requests": counts["requests"],
        "delta_requests": counts["requests"],
        "exceptions": counts["exceptions"],
        "harakiri_count": told.harakiris,
        "signals": 0,
        "signal_queue": 0,
        "status": told.state if told.state != "serving" else "busy" if busy else "idle",
        "rss": counts["rss"],
        "vsz": counts["vsz"],
        "running_time": counts["micros"],
        "last_spawn": told.born,
        "respawn_count": told.spawns,
        "tx": counts["bytes_out"],
        "avg_rt": counts["average"],
        "apps": [],
        # Which thread answers a request is chance, so that only the first one has a number.
        "cores": [_core(number, counts["requests"] if number == 0 else 0, running) for number in range(facts.threads)],
        "generation": told.generation,
    }


def _core(number: int, requests: int, running: int) -> dict[str, Any]:
    return {
        "id": number,
        "requests": requests,
        "static_requests": 0,
        "routed_requests": 0,
        "offloaded_requests": 0,
        "write_errors": 0,
        "read_errors": 0,
        "in_request": int(number < running),
        "vars": [],
        "req_info": {},
    }


def _tls(reading: Reading, facts: Facts) -> dict[str, Any]:
    totals, now = reading.totals, reading.now
    return {
        "state": reading.state,
        "generation": reading.generation,
        "started": reading.started,
        "time": time.time(),
        "workers_wanted": reading.wanted,
        "workers": {state: sum(told.state == state for told in reading.workers) for state in _states(reading)},
        "worker_deaths": reading.deaths,
        "harakiris": reading.harakiris,
        "failed_reloads": reading.failed_reloads,
        "last_reload_failed": reading.last_reload_failed,
        "last_failure": reading.failure,
        "requests": totals["requests"],
        "responses": group(totals, "responses"),
        "running_time": totals["micros"],
        "request_seconds": group(totals, "durations"),
        "accepted": totals["accepted"],
        "rx": totals["bytes_in"],
        "tx": totals["bytes_out"],
        "handshakes": group(totals, "handshakes"),
        "handshake_time": totals["handshake_micros"],
        "handshake_seconds": group(totals, "handshake_durations"),
        "handshake_failures": group(totals, "failures"),
        "protocols": group(totals, "protocols"),
        "ciphers": {name: count for name, count in group(totals, "ciphers").items() if count},
        "client_certificates": group(totals, "certificates"),
        "connections": group(now, "connections"),
        "deadlines": group(totals, "deadlines"),
        "limits": group(totals, "limits"),
        "spooled": now["spooled"],
        "backend_errors": totals["backend_errors"],
        "exceptions": totals["exceptions"],
        "certificates": [
            {
                "file": info.file,
                "subject": info.subject,
                "names": list(info.names),
                "not_after": int(info.not_after.timestamp()),
                "expiry_warning": int(info.expiry_warning.timestamp()),
                "key": info.key_kind,
            }
            for info in facts.certificates
        ],
    }


def _states(reading: Reading) -> list[str]:
    return sorted({"serving", *(told.state for told in reading.workers)})
