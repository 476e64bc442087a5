"""The same numbers in Prometheus' text format, version 0.0.4: counters end in _total, units are seconds and bytes.

https://prometheus.io/docs/instrumenting/exposition_formats/. Counters are sums over all workers since the start, those
that have ended included, so that a reload is no reset.
"""

from collections.abc import Iterator, Mapping
from itertools import accumulate

from uwsgi_tls import __version__
from uwsgi_tls.scoreboard import STATES, Reading
from uwsgi_tls.stats.document import group, longest
from uwsgi_tls.stats.facts import Facts
from uwsgi_tls.tally import BOUNDS, SOCKETS

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PREFIX = "uwsgi_tls_"

Samples = Mapping[tuple[tuple[str, str], ...], float]


def as_text(reading: Reading, facts: Facts) -> bytes:
    """What a scrape gets."""
    return "".join([*_counters(reading), *_gauges(reading, facts)]).encode()


def _counters(reading: Reading) -> Iterator[str]:
    totals = reading.totals
    yield _metric("requests_total", "counter", "Requests that were answered or given up.", _one(totals["requests"]))
    yield from _grouped(totals, "responses", "responses_total", "class", "Responses by the class of their status.")
    text = "Time from a request's head to the end of its response."
    yield _histogram("request_duration_seconds", text, group(totals, "durations"), totals["micros"])
    yield _metric("received_bytes_total", "counter", "Bytes of HTTP from clients.", _one(totals["bytes_in"]))
    yield _metric("sent_bytes_total", "counter", "Bytes of HTTP to clients.", _one(totals["bytes_out"]))
    yield _metric("accepted_total", "counter", "Connections accepted.", _one(totals["accepted"]))
    yield from _grouped(totals, "handshakes", "handshakes_total", "kind", "TLS handshakes that were completed.")
    text = "Time from a connection to the end of its TLS handshake."
    durations = group(totals, "handshake_durations")
    yield _histogram("handshake_duration_seconds", text, durations, totals["handshake_micros"])
    yield from _grouped(totals, "failures", "handshake_failures_total", "reason", "TLS handshakes that failed.")
    yield from _grouped(totals, "protocols", "protocol_total", "version", "Handshakes by TLS version.")
    yield from _grouped(totals, "ciphers", "cipher_total", "suite", "Handshakes by cipher suite.")
    yield from _grouped(
        totals, "certificates", "client_certificates_total", "result", "What clients showed in handshakes."
    )
    yield from _grouped(
        totals, "deadlines", "deadlines_total", "waited_for", "Waits that ended because their time was over."
    )
    yield from _grouped(totals, "limits", "limits_reached_total", "limit", "Who was turned away or cut off by a limit.")
    yield _metric(
        "backend_errors_total", "counter", "Requests that no backend answered.", _one(totals["backend_errors"])
    )
    yield _metric("exceptions_total", "counter", "Exceptions of the application.", _one(totals["exceptions"]))
    yield _metric("worker_deaths_total", "counter", "Workers that ended untold.", _one(reading.deaths))
    yield _metric("failed_reloads_total", "counter", "Reloads that changed nothing.", _one(reading.failed_reloads))
    yield _metric(
        "harakiris_total", "counter", "Workers killed for a request that did not end.", _one(reading.harakiris)
    )


def _gauges(reading: Reading, facts: Facts) -> Iterator[str]:
    yield _metric("build_info", "gauge", "The version that runs.", {(("version", __version__),): 1})
    yield _metric("start_time_seconds", "gauge", "When the master began.", _one(reading.started))
    yield _metric("generation", "gauge", "Reloads since then, and one.", _one(reading.generation))
    successful = int(not reading.last_reload_failed)
    yield _metric("last_reload_successful", "gauge", "Whether the last reload brought a change.", _one(successful))
    yield _metric("workers_wanted", "gauge", "Workers that there should be.", _one(reading.wanted))
    states = {state: sum(told.state == state for told in reading.workers) for state in STATES}
    yield _metric("workers", "gauge", "Workers that there are.", _labelled("state", states))
    yield from _grouped(reading.now, "connections", "connections", "waits_for", "Connections by what they wait for.")
    yield _metric("spooled_bytes", "gauge", "Bytes in temporary files.", _one(reading.now["spooled"]))
    resident: Samples = {
        (("worker", str(told.number)), ("generation", str(told.generation))): told.counts["rss"]
        for told in reading.workers
    }
    yield _metric("worker_resident_bytes", "gauge", "Memory of a worker.", resident)
    queues: Samples = {
        (("socket", sock.name), ("index", str(number))): longest(reading, number)
        for number, sock in enumerate(facts.sockets[:SOCKETS])
    }
    yield _metric("listen_queue", "gauge", "Connections that wait to be accepted.", queues)
    certificates = {(("file", info.file), ("subject", info.subject)): info for info in facts.certificates}
    ends: Samples = {labels: info.not_after.timestamp() for labels, info in certificates.items()}
    yield _metric("certificate_not_after_seconds", "gauge", "When a certificate expires, since the epoch.", ends)
    soon: Samples = {labels: info.expiry_warning.timestamp() for labels, info in certificates.items()}
    name = "certificate_expiry_warning_seconds"
    yield _metric(name, "gauge", "From when on a certificate should be renewed, since the epoch.", soon)


def _grouped(counts: Mapping[str, int], name: str, metric: str, label: str, help: str) -> Iterator[str]:
    kind = "counter" if metric.endswith("_total") else "gauge"
    yield _metric(metric, kind, help, _labelled(label, group(counts, name)))


def _histogram(name: str, help: str, buckets: Mapping[str, int], micros: int) -> str:
    """Each bucket of the format includes those before it, and the last one is the number of all."""
    lines = [f"# HELP {PREFIX}{name} {help}", f"# TYPE {PREFIX}{name} histogram"]
    sums = list(accumulate(buckets.values()))
    bounds = [f"{bound!r}" for bound in BOUNDS] + ["+Inf"]
    lines += [f'{PREFIX}{name}_bucket{{le="{bound}"}} {count}' for bound, count in zip(bounds, sums, strict=True)]
    lines += [f"{PREFIX}{name}_sum {micros / 1e6!r}", f"{PREFIX}{name}_count {sums[-1]}"]
    return "\n".join(lines) + "\n"


def _one(value: float) -> Samples:
    return {(): value}


def _labelled(label: str, values: Mapping[str, int]) -> Samples:
    return {((label, name),): value for name, value in values.items()}


def _metric(name: str, kind: str, help: str, samples: Samples) -> str:
    lines = [f"# HELP {PREFIX}{name} {help}", f"# TYPE {PREFIX}{name} {kind}"]
    for labels, value in samples.items():
        text = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels)
        lines.append(f"{PREFIX}{name}{f'{{{text}}}' if text else ''} {value!r}")
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
