"""What must happen in a process of its own, such as losing root: forked, with its answer brought back."""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Callable
from typing import Any


def in_child(action: Callable[[], Any]) -> Any:
    """What `action` returns in a forked child, as JSON keeps it; a traceback from there fails the test."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        try:
            answer = {"returned": action()}
        except BaseException:  # anything at all: the child must never run the rest of the tests
            answer = {"raised": traceback.format_exc()}
        os.write(writer, json.dumps(answer).encode())
        os._exit(0)
    os.close(writer)
    with open(reader, encoding="utf-8") as pipe:
        answer = json.loads(pipe.read())
    os.waitpid(pid, 0)
    assert "raised" not in answer, answer["raised"]
    return answer["returned"]
