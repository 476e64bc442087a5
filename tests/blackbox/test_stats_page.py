"""The page of --stats-http in a real browser: its numbers live, its charts, a phone, and nothing from elsewhere."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from .browser import Browser
from .raw_client import Site, get
from .test_stats import HTTP_PORT, telling

PHONE = (390, 844)  # CSS pixels


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[Site, str]]:
    with telling(workers=2) as running:
        yield running


@pytest.fixture(scope="module")
def browser(server: tuple[Site, str]) -> Iterator[Browser]:
    with Browser() as found:
        found.open(f"http://{server[1]}:{HTTP_PORT}/")
        found.wait_for("document.querySelectorAll('#cards .card').length >= 8")
        yield found


@pytest.fixture
def page(server: tuple[Site, str], browser: Browser) -> Iterator[Browser]:
    """The page; the browser must have had nothing to complain of, and asked nobody else."""
    yield browser
    browser.value("document.title")  # what has happened is told before the answer
    assert browser.complaints() == []
    hosts = {urlsplit(url).netloc for url in browser.requested() if not url.startswith("data:")}
    assert hosts == {f"{server[1]}:{HTTP_PORT}"}


def card(name: str) -> str:
    return f"[...document.querySelectorAll('.card')].find((card) => card.innerText.startsWith('{name}'))"


def test_the_numbers_live(server: tuple[Site, str], page: Browser) -> None:
    site, _ = server
    before = int(page.value("document.getElementById('since').innerText.match(/(\\d+) requests/)[1]"))
    with site.connect() as client:
        for _ in range(20):
            client.ask(get("/"))
    page.wait_for(f"document.getElementById('since').innerText.includes(', {before + 20} requests')")
    responses = page.wait_for("[...document.querySelectorAll('#counts tr')].map((row) => row.innerText).join('|')")
    assert re.search(rf"2xx\s+{before + 20}\b", responses)
    assert re.search(r"TLSv1\.3\s+[1-9]", responses)


def test_the_charts_are_drawn(server: tuple[Site, str], page: Browser) -> None:
    """Requests make a hill in the line of theirs, and the others have a line each."""
    site, _ = server
    line = card("requests a second") + ".querySelector('polyline').getAttribute('points')"
    page.wait_for(f"{line}.split(' ').length >= 2")
    with site.connect() as client:
        for _ in range(50):
            client.ask(get("/"))
    page.wait_for(f"new Set({line}.split(' ').map((point) => point.split(',')[1])).size >= 2")
    box = page.value(card("requests a second") + ".querySelector('polyline').getBoundingClientRect().toJSON()")
    assert box["height"] > 20
    assert box["width"] > 0.5
    drawn = page.value("[...document.querySelectorAll('polyline')].map((each) => getComputedStyle(each).stroke)")
    assert len(drawn) == 8
    assert set(drawn) == {page.value("getComputedStyle(document.querySelector('polyline')).stroke")} != {"none"}


def test_it_shows_a_reload_that_failed(server: tuple[Site, str], page: Browser) -> None:
    site, _ = server
    app = Path(os.readlink(f"/proc/{site.daemon.pid}/cwd")) / "app.py"
    good = app.read_text()
    app.write_text("raise RuntimeError('broken release')\n")
    try:
        os.kill(site.daemon.pid, signal.SIGHUP)
        page.wait_for("document.getElementById('failure').innerText.includes('reload failed')")
    finally:
        app.write_text(good)
    page.wait_for(r"/failed reloads\s+1\b/.test(document.getElementById('counts').innerText)")
    os.kill(site.daemon.pid, signal.SIGHUP)
    page.wait_for("document.getElementById('failure').innerText === ''")
    assert "failed reloads" in page.value("document.getElementById('counts').innerText")


def test_it_shows_a_death(server: tuple[Site, str], page: Browser) -> None:
    site, _ = server
    victim = site.daemon.wait_for_workers(2)[0].pid
    assert str(victim) in page.value("document.getElementById('workers').innerText")
    os.kill(victim, signal.SIGKILL)
    page.wait_for("document.getElementById('since').innerText.includes(' 1 workers have died')")
    page.wait_for(f"!document.getElementById('workers').innerText.includes('{victim}')")
    page.wait_for("document.getElementById('since').innerText.includes('2 of 2 workers serve')")
    assert page.value("document.getElementById('trouble').innerText") == ""


def test_how_long_most_requests_took(server: tuple[Site, str], page: Browser) -> None:
    """JavaScript has keys such as "1" before those such as "0.5", so their order is not that of the document."""
    buckets = {"0.0005": 0, "0.001": 90, "0.5": 6, "1": 3, "inf": 1}
    assert page.value(f"within({json.dumps(buckets)})") == {
        "half of them": "1 ms",
        "95 in 100": "500 ms",
        "99 in 100": "1000 ms",
    }
    assert page.value('within({"10": 1, "inf": 5})') == dict.fromkeys(
        ("half of them", "95 in 100", "99 in 100"), "longer"
    )
    assert page.value('within({"10": 0, "inf": 0})') == {}
    server[0].ask(get("/"))
    page.wait_for(
        r"/requests took at most\s+half of them\s+[\d.]+ ms/.test(document.getElementById('counts').innerText)"
    )


@pytest.mark.parametrize(
    ("now", "shown"),
    [(10_000, "2 h"), (10_800, {"bad": "2 h"}), (17_960, {"bad": "40 s"}), (18_000, {"bad": "expired"})],
)
def test_what_remains_of_a_certificate(page: Browser, now: int, shown: object) -> None:
    certificate = {"not_after": 18_000, "expiry_warning": 10_800}
    assert page.value(f"remaining({json.dumps(certificate)}, {now})") == shown


@pytest.mark.parametrize("width", [360, 768, 960, 1600])
def test_nothing_lies_over_another(page: Browser, width: int) -> None:
    page.size(width, 900)
    boxes = page.value("""[...document.querySelectorAll('h1, h2, .card, .pairs > *, .wide')].map((each) => {
        const {left, top, right, bottom} = each.getBoundingClientRect();
        return [left, top, right, bottom, each.innerText];
    })""")
    assert len(boxes) > 12
    for one, other in itertools.combinations(boxes, 2):
        apart = one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
        assert apart, (one, other)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone(page: Browser, scheme: str) -> None:
    """No scrolling to the side but within the tables, letters of a size to read, enough contrast (WCAG 2.1, 1.4.3)."""
    page.size(*PHONE, phone=True)
    page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    assert page.value("document.documentElement.scrollWidth") == PHONE[0]
    outside = """[...document.querySelectorAll('h1, h2, p, .card, .wide, .pairs > *')]
        .filter((each) => each.getBoundingClientRect().right > innerWidth + 0.5).map((each) => each.outerHTML)"""
    assert page.value(outside) == []
    assert (
        page.value(
            "Math.min(...[...document.querySelectorAll('p, span, b, td, th')].map(sizeOf))".replace(
                "sizeOf", "(each) => parseFloat(getComputedStyle(each).fontSize)"
            )
        )
        >= 14
    )
    colours = page.value("""[...document.querySelectorAll('h1, p, .card span, .card b, td, th')].map((each) => {
        let behind = each;
        while (getComputedStyle(behind).backgroundColor === 'rgba(0, 0, 0, 0)') behind = behind.parentElement;
        return [getComputedStyle(each).color, getComputedStyle(behind).backgroundColor];
    })""")
    assert min(contrast(front, behind) for front, behind in colours) >= 4.5


def contrast(one: str, other: str) -> float:
    """Between two colours as CSS has them, "rgb(1, 2, 3)": from 1 to 21."""
    lights = sorted(map(luminance, (one, other)))
    return (lights[1] + 0.05) / (lights[0] + 0.05)


def luminance(colour: str) -> float:
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
