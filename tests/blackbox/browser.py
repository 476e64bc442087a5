"""A real browser without a window: Debian's chromium-headless-shell, told what to do over two pipes.

The Chrome DevTools Protocol (https://chromedevtools.github.io/devtools-protocol/): JSON messages that end with a NUL,
to descriptor 3 and from 4. Nothing is listened to on the network, and the browser ends with the pipes.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import select
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Self

PROGRAM = "chromium-headless-shell"
SECONDS = 30.0  # for one answer; the first one includes the start
READ_BYTES = 1 << 16


class Browser:
    """One page. Use it in a `with` statement; `events` has all that the browser told, in its order."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self._numbers = itertools.count(1)
        self._read = b""
        self._session: str | None = None

    def __enter__(self) -> Self:
        self._directory = tempfile.TemporaryDirectory(prefix="uwsgi-tls-browser-", ignore_cleanup_errors=True)
        theirs, self._to = os.pipe()
        self._from, theirs_too = os.pipe()
        # Its own sandbox does not work as root, nor in most containers; it sees nothing but our page.
        words = [PROGRAM, "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        words += [f"--user-data-dir={self._directory.name}", "--no-first-run", "about:blank"]
        shell = ["sh", "-c", f'exec "$@" 3</dev/fd/{theirs} 4>/dev/fd/{theirs_too}', "sh"]
        self._process = subprocess.Popen(
            shell + words,
            pass_fds=(theirs, theirs_too),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "HOME": self._directory.name},
        )
        os.close(theirs)
        os.close(theirs_too)
        try:
            target = self.call("Target.createTarget", url="about:blank")["targetId"]
            self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Page", "Runtime", "Log", "Network"):
                self.call(f"{domain}.enable")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self._to)
        os.close(self._from)
        try:
            self._process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._directory.cleanup()

    def call(self, method: str, **parameters: object) -> dict[str, Any]:
        """The result of one method of the protocol; raises AssertionError with what the browser thinks of it."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            found = self._message()
            if found.get("id") == number:
                assert "result" in found, f"{method}: {found}"
                result: dict[str, Any] = found["result"]
                return result
            self.events.append(found)

    def size(self, width: int, height: int, *, phone: bool = False) -> None:
        """The window, in CSS pixels; a phone's has no scroll bars and a finer screen."""
        scale = 2 if phone else 1
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=phone
        )

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)

    def value(self, expression: str) -> Any:
        """What a JavaScript expression is in the page; raises AssertionError with its exception."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait_for(self, expression: str, seconds: float = 15.0) -> Any:
        """The value of the expression, once it is neither false nor empty."""
        deadline = time.monotonic() + seconds
        while not (found := self.value(expression)):
            assert time.monotonic() < deadline, f"not {expression} in {self.value('document.body.innerText')!r}"
            time.sleep(0.05)
        return found

    def picture(self, path: Path) -> None:
        """The whole page as a PNG file."""
        answer = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, optimizeForSpeed=False)
        path.write_bytes(base64.b64decode(answer["data"]))

    def complaints(self) -> list[str]:
        """Errors and warnings of scripts, of the network and of the content security policy so far."""
        found = []
        for event in self.events:
            match event.get("method"), event.get("params"):
                case "Runtime.exceptionThrown", told:
                    found.append(str(told))
                case "Runtime.consoleAPICalled", {"type": "error" | "warning" | "assert"} as told:
                    found.append(str(told))
                case "Log.entryAdded", {"entry": {"level": "error" | "warning"} as entry}:
                    found.append(str(entry))
        return found

    def requested(self) -> list[str]:
        """The addresses of all that the page has asked for."""
        return [event["params"]["request"]["url"] for event in self.events if _is_request(event)]

    def _message(self) -> dict[str, Any]:
        deadline = time.monotonic() + SECONDS
        while b"\0" not in self._read:
            assert select.select([self._from], [], [], deadline - time.monotonic())[0], "the browser says nothing"
            data = os.read(self._from, READ_BYTES)
            assert data, f"{PROGRAM} ended with {self._process.wait()}: is it installed? (bin/setup --test)"
            self._read += data
        message, _, self._read = self._read.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found


def _is_request(event: dict[str, Any]) -> bool:
    return event.get("method") == "Network.requestWillBeSent"
