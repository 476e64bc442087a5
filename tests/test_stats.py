"""stats/: the documents, as those who read them take them."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from uwsgi_tls.certificates import CertificateInfo
from uwsgi_tls.scoreboard import Reading, Scoreboard
from uwsgi_tls.stats import document, page, prometheus
from uwsgi_tls.stats.facts import Facts, ListeningSocket
from uwsgi_tls.tally import BOUNDS, BUCKETS, CIPHERS, FAILURES, NAMES, WAITS, Tally

NASTY = 'C:\\new "x"\nfile'
FACTS = Facts(
    master=7,
    threads=2,
    directory="/srv",
    sockets=(ListeningSocket("127.0.0.1:443", 100, True), ListeningSocket("/s", 5, False)),
    certificates=(
        CertificateInfo(
            file=NASTY,
            subject="CN=</script>",
            names=("a.example", "b.example"),
            not_after=datetime(2030, 1, 1, tzinfo=UTC),
            expiry_warning=datetime(2029, 12, 31, tzinfo=UTC),
            key_kind="Ed25519",
            chain_length=1,
        ),
    ),
)


def a_reading() -> Reading:
    """Three workers, one of them of the generation before, and one that has ended."""
    board = Scoreboard(8)
    board.enter("reloading", 3, 2, f"reload failed: {NASTY}")
    board.reload_failed()
    gone = board.take(1, 1)
    gone.tell({**dict.fromkeys(NAMES, 0), "requests": 100, "responses.5xx": 1, "durations.inf": 100})
    board.give_back(gone)
    for number, generation, state, requests in ((1, 2, "draining", 10), (1, 3, "serving", 5), (2, 3, "starting", 0)):
        slot = board.take(number, generation)
        slot.enter(state, 1000 * generation + number)
        tally = Tally()
        tally.seconds = requests / 100
        tally.bytes_out = requests * 7
        tally.durations[1] = requests
        slot.tell(
            {
                **dict.fromkeys(NAMES, 0),
                **tally.counters(),
                "requests": requests,
                "connections.application": int(state == "serving"),
                "rss": 1 << 20,
                "average": 9,
                "queues.0": requests,
                "queues.1": 1,
            }
        )
    return board.read()


def test_the_document_of_uwsgi() -> None:
    found = json.loads(document.as_json(a_reading(), FACTS))
    assert (found["pid"], found["cwd"], found["listen_queue"], found["load"]) == (7, "/srv", 11, 11)
    assert [(sock["name"], sock["queue"], sock["max_queue"], sock["shared"]) for sock in found["sockets"]] == [
        ("127.0.0.1:443", 10, 100, 1),
        ("/s", 1, 5, 0),
    ]
    one, two = found["workers"]
    assert (one["id"], one["pid"], one["generation"], one["status"], one["requests"]) == (1, 3001, 3, "busy", 5)
    assert (one["tx"], one["running_time"], one["avg_rt"], one["respawn_count"]) == (35, 50_000, 9, 3)
    assert [core["in_request"] for core in one["cores"]] == [1, 0]
    assert sum(core["requests"] for core in one["cores"]) == 5
    assert (two["id"], two["status"], two["accepting"]) == (2, "starting", 0)


def test_without_white_space() -> None:
    wide, narrow = (document.as_json(a_reading(), replace(FACTS, minified=each)) for each in (False, True))
    assert wide.startswith(b'{\n\t"version": ')
    assert narrow.startswith(b'{"version":"')
    assert (narrow.count(b"\n"), narrow[-1:]) == (1, b"\n")
    assert json.loads(narrow).keys() == json.loads(wide).keys()


def test_our_part_of_it() -> None:
    ours = document.document(a_reading(), FACTS)["tls"]
    assert (ours["state"], ours["generation"], ours["workers_wanted"]) == ("reloading", 3, 2)
    assert ours["workers"] == {"draining": 1, "serving": 1, "starting": 1}
    assert ours["requests"] == 115
    assert ours["responses"]["5xx"] == 1
    assert (ours["failed_reloads"], ours["last_reload_failed"]) == (1, True)
    assert ours["last_failure"] == f"reload failed: {NASTY}"
    assert {name: count for name, count in ours["request_seconds"].items() if count} == {"0.001": 15, "inf": 100}
    assert set(ours["handshake_seconds"]) == set(BUCKETS)
    assert set(ours["connections"]) == set(ours["deadlines"]) == set(WAITS)
    assert set(ours["handshake_failures"]) == set(FAILURES)
    assert ours["ciphers"] == {}, "those that nobody uses are left out"
    (certificate,) = ours["certificates"]
    assert (certificate["not_after"], certificate["expiry_warning"]) == (1893456000, 1893456000 - 86400)
    assert certificate["names"] == ["a.example", "b.example"]


def test_a_worker_that_is_new_takes_the_place_of_the_old_one_when_it_is_ready() -> None:
    board = Scoreboard(2)
    board.take(1, 1).enter("serving", 11)
    fresh = board.take(1, 2)
    fresh.enter("starting", 12)
    assert [told.pid for told in document.present(board.read())] == [11]
    fresh.enter("serving", 12)
    assert [told.pid for told in document.present(board.read())] == [12]


def test_prometheus_takes_it() -> None:
    text = prometheus.as_text(a_reading(), FACTS).decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert len(families) == len(re.findall(r"^# TYPE ", text, re.MULTILINE)), "each once"
    values = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families.values()
        for sample in family.samples
    }
    assert values["uwsgi_tls_requests_total", ()] == 115
    assert values["uwsgi_tls_responses_total", (("class", "5xx"),)] == 1
    assert values["uwsgi_tls_request_duration_seconds_sum", ()] == 0.15
    assert values["uwsgi_tls_request_duration_seconds_count", ()] == 115
    buckets = {
        labels[0][1]: value
        for (name, labels), value in values.items()
        if name.endswith("request_duration_seconds_bucket")
    }
    assert list(buckets.values()) == [0] + [15] * (len(BOUNDS) - 1) + [115], "each has those before it"
    assert list(map(float, buckets)) == [*BOUNDS, math.inf]
    assert values["uwsgi_tls_failed_reloads_total", ()] == 1
    assert values["uwsgi_tls_last_reload_successful", ()] == 0
    assert values["uwsgi_tls_workers", (("state", "draining"),)] == 1
    assert values["uwsgi_tls_worker_resident_bytes", (("generation", "3"), ("worker", "1"))] == 1 << 20
    assert values["uwsgi_tls_listen_queue", (("index", "0"), ("socket", "127.0.0.1:443"))] == 10
    labels = (("file", NASTY), ("subject", "CN=</script>"))
    assert values["uwsgi_tls_certificate_not_after_seconds", labels] == 1893456000
    assert values["uwsgi_tls_certificate_expiry_warning_seconds", labels] == 1893456000 - 86400
    assert sum(name == "uwsgi_tls_cipher_total" for name, _ in values) == len(CIPHERS)
    assert all(family.documentation.endswith(".") for family in families.values())
    for family in families.values():
        assert family.name.endswith(("_bytes", "_seconds")) or family.type != "histogram"
        assert family.type in ("counter", "gauge", "histogram")


def test_every_number_is_in_the_documentation() -> None:
    page = (Path(__file__).parent.parent / "docs" / "operations.md").read_text(encoding="utf-8")
    (section,) = re.findall(r"^## Statistics\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    words = set(re.findall(r"`([a-z_]+)`", section))
    text = prometheus.as_text(a_reading(), FACTS).decode()
    metrics = set(re.findall(r"^# TYPE uwsgi_tls_(\w+)", text, re.MULTILINE))
    assert words >= metrics, metrics - words
    ours = set(document.document(a_reading(), FACTS)["tls"])
    assert words >= ours, ours - words
    assert words >= {*WAITS, *FAILURES}, {*WAITS, *FAILURES} - words


class Page(HTMLParser):
    """What a page loads, and its scripts and styles."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = ""
        self.texts: dict[str, str] = {}
        self.loads: list[str] = []
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.inside = tag
        self.attributes |= {name for name, _ in attrs}
        self.loads += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        if self.inside in ("script", "style"):
            self.texts[self.inside] = self.texts.get(self.inside, "") + data

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""


def test_the_page_is_all_there_is_and_its_policy_lets_it_run() -> None:
    found = Page()
    found.feed(page.HTML.decode())
    assert found.loads == ["data:,"]
    assert not any(name == "style" or name.startswith("on") for name in found.attributes), "the policy forbids them"
    for kind in ("script", "style"):
        digest = base64.b64encode(hashlib.sha256(found.texts[kind].encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in page.POLICY
    assert "default-src 'none'" in page.POLICY
    assert "innerHTML" not in found.texts["script"], "a certificate's name is no HTML"
    ids = set(re.findall(r'id="(\w+)"', page.HTML.decode()))
    assert set(re.findall(r'(?:by|table|pairs)\("(\w+)"', found.texts["script"])) <= ids


def test_the_page_reads_what_the_document_has() -> None:
    """A name that the script asks for and the document lacks would be "undefined" there."""
    whole = document.document(a_reading(), FACTS)
    script = page.SCRIPT
    assert set(re.findall(r"\btls\.(\w+)", script)) <= whole["tls"].keys()
    assert set(re.findall(r"\bnow\.(\w+)", script)) <= whole.keys()
    assert set(re.findall(r"\bw\.(\w+)", script)) <= whole["workers"][0].keys()
    assert set(re.findall(r"\bc\.(\w+)", script)) <= whole["tls"]["certificates"][0].keys()
