"""log_text.py: what no terminal shows is escaped, and what is too long is cut and stays what it was."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from uwsgi_tls import log_text
from uwsgi_tls.log_text import cut, printable, stamped, unstamped


def test_what_is_printable() -> None:
    assert printable("a b \\ \u20ac \x1b[2J\x07\n\u2028\udcff") == "a b \\ \u20ac \\x1b[2J\\x07\\n\\u2028\\udcff"


def test_a_line_with_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only an object has room for them; a log that notes the time itself is not told it."""
    fields = {"alert": "sent: unknown_ca", "more": 3}
    assert stamped("two\nlines", fields).endswith("] two\\nlines")
    assert unstamped("two\nlines", fields) == "two\\nlines"
    monkeypatch.setattr(log_text, "is_json", True)
    values = json.loads(stamped("two\nlines", fields))
    assert values.keys() == {"time", "pid", "message", "alert", "more"}
    assert json.loads(unstamped("two\nlines", fields)) == {"message": "two\nlines", **fields}


@pytest.mark.parametrize(
    ("text", "limit", "expected"),
    [
        ("short", 5, b"short"),
        ("longer", 5, b"lo\xe2\x80\xa6"),
        ("ééé", 6, "ééé".encode()),
        ("ééé", 5, "é…".encode()),
        ("\udcff", 6, b"\\udcff"),
    ],
)
def test_a_long_text(text: str, limit: int, expected: bytes) -> None:
    assert cut(text, limit) == expected


def test_a_long_object_stays_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_text, "is_json", True)
    values = {"status": 200, "uri": "/" + "x" * 30_000, "agent": "é" * 5000, "referer": "begin" + "y" * 5000 + "end"}
    line = cut(json.dumps(values), 4096)
    assert len(line) <= 4096
    kept = json.loads(line)
    assert kept["status"] == 200
    assert kept["uri"].startswith("/x")
    assert (kept["referer"][:5], kept["referer"][-3:]) == ("begin", "end")


VALUES = st.one_of(st.text(), st.integers(), st.floats(allow_nan=False), st.booleans(), st.none(), st.lists(st.text()))


@given(st.dictionaries(st.text(), VALUES), st.integers(2, 300))
@example({f"var.HTTP_X_SOMETHING_LONGER_{number}": "" for number in range(130)}, 4095)
@example({"name": "abc", "n" * 100: "abc", "last": 7}, 40)
@example({"a": "\ud800" * 100, "b": "\U0001f600" * 100}, 60)
def test_every_long_object_stays_one(values: dict[str, object], limit: int) -> None:
    """However little there is to cut: where texts are short, whole members go."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log_text, "is_json", True)
        line = cut(log_text.encode(values), limit)
    assert len(line) <= limit
    kept = json.loads(line)
    assert kept.keys() <= values.keys()
    if len(log_text.encode(values)) <= limit:
        assert kept == values


def test_members_that_find_room_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_text, "is_json", True)
    values = {"time": "now", "n" * 100: 1, "message": "m", "more": "abcdefgh"}
    assert json.loads(cut(log_text.encode(values), 40)) == {"time": "now", "message": "m"}
    assert cut(log_text.encode({"time": "now"}), 14) == b'{"time":"now"}'
    assert cut(log_text.encode({"time": "now!"}), 14) == b"{}"
