"""Makes the picture of the statistics page that the documentation has: python -m blackbox.stats_picture FILE.

A server with a little of everything for three quarters of a minute, as a browser shows it.
"""

from __future__ import annotations

import contextlib
import random
import socket
import ssl
import sys
import threading
import time
from pathlib import Path

from pki import pki

from .browser import Browser
from .raw_client import Site, get, post
from .test_stats import HTTP_PORT, SECONDS, telling

DURATION_SECONDS = 47.0  # so that a line of a chart goes all the way
CLIENTS = 3
WIDTH, HEIGHT = 960, 1180  # CSS pixels; with less height there were a scroll bar


def main() -> int:
    with telling("--disable-logging", workers=2, client_ca=pki().ca.crt) as (site, host), Browser() as browser:
        browser.size(WIDTH, HEIGHT)
        browser.open(f"http://{host}:{HTTP_PORT}/")
        end = time.monotonic() + DURATION_SECONDS
        clients = [threading.Thread(target=_be_busy, args=(site, end, seed)) for seed in range(CLIENTS)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        browser.wait_for("document.querySelectorAll('#cards .card').length >= 8")
        # Directories of this machine are nobody's business.
        browser.value(
            "document.querySelectorAll('#certificates td:last-child').forEach((cell) => "
            "{ cell.textContent = '/etc/uwsgi-tls/' + cell.textContent.split('/').pop() })"
        )
        browser.picture(Path(sys.argv[1]))
    return 0


def _be_busy(site: Site, end: float, seed: int) -> None:
    """Requests now more, now fewer, and now and then what goes wrong."""
    chance = random.Random(seed)
    while time.monotonic() < end:
        certificate = pki().client if chance.random() < 0.3 else None
        with site.connect(certificate=certificate) as client:
            for _ in range(chance.randrange(10, 150)):
                path = chance.choices(("/", "/big?20000", "/none"), (90, 9, 1))[0]
                client.ask(post(path, b"x" * 100) if chance.random() < 0.1 else get(path))
                time.sleep(0.002 if end - time.monotonic() > DURATION_SECONDS / 3 else 0.006)
        if chance.random() < 0.3:
            with contextlib.suppress(OSError), socket.create_connection(site.address, SECONDS) as raw:
                ssl.create_default_context().wrap_socket(raw, server_hostname="server.lab")


if __name__ == "__main__":
    sys.exit(main())
