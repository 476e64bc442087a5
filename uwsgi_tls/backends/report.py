"""The built-in page: what this connection negotiated, for a person who tries the server out.

A browser gets HTML, `curl` text, and whoever accepts JSON gets that. It shows nothing but what the client itself took
part in negotiating, and everything that a client chose is escaped.
"""

import html
import json
from dataclasses import asdict

from uwsgi_tls import __version__
from uwsgi_tls.backends.variables import of_request
from uwsgi_tls.exchange import Exchange

TITLE = "uwsgi-tls is working"
STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:44rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.3rem .6rem;border-bottom:1px solid #ddd;"
    "vertical-align:top;overflow-wrap:anywhere}th{width:12rem;font-weight:600}"
    "@media(prefers-color-scheme:dark){body{background:#111;color:#ddd}th,td{border-color:#333}}"
)


class ReportBackend:
    """Answers every request with the facts of its connection."""

    blocking = False

    def handle(self, exchange: Exchange) -> bool:
        head = exchange.head
        assert head is not None
        of_request(exchange)  # for the access log
        if exchange.body is not None:
            exchange.body.close()
        if head.method not in ("GET", "HEAD"):
            exchange.start("405 Method Not Allowed", [("Allow", "GET, HEAD"), ("Content-Length", "0")])
            return exchange.finish()
        facts = {
            "server": f"uwsgi-tls {__version__}",
            "method": head.method,
            "path": head.path,
            **asdict(exchange.connection.channel.facts(exchange.connection.sni or "")),
        }
        kind, page = render(facts, head.fields.get("HTTP_ACCEPT", ""))
        exchange.start(
            "200 OK",
            [
                ("Content-Type", f"{kind}; charset=utf-8"),
                ("Content-Length", str(len(page))),
                ("Cache-Control", "no-store"),
                ("Vary", "Accept"),
                ("X-Content-Type-Options", "nosniff"),
                ("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'"),
            ],
        )
        exchange.write(page)
        return exchange.finish()


def render(facts: dict[str, object], accept: str) -> tuple[str, bytes]:
    """The page for an Accept field, media type and bytes; RFC 9110, 12.5.1 as far as three kinds need it."""
    if "text/html" in accept:
        return "text/html", as_html(facts)
    if "application/json" in accept:
        return "application/json", (json.dumps(facts, indent=2) + "\n").encode()
    width = max(len(name) for name in facts)
    lines = [TITLE, "", *(f"{name.replace('_', ' '):{width}}  {one_line(value)}" for name, value in facts.items())]
    return "text/plain", ("\n".join(lines) + "\n").encode("utf-8", "replace")


def as_html(facts: dict[str, object]) -> bytes:
    rows = "".join(
        f"<tr><th>{html.escape(name.replace('_', ' '))}</th><td>{html.escape(one_line(value))}</td></tr>"
        for name, value in facts.items()
    )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width">'
        f"<title>{TITLE}</title><style>{STYLE}</style></head><body><h1>{TITLE}</h1>"
        f"<p>This is what your connection negotiated. Give <code>http-to</code> or <code>module</code> to serve "
        f"something of your own.</p><table>{rows}</table></body></html>\n"
    ).encode("utf-8", "replace")


def one_line(value: object) -> str:
    """Printable text of a fact: yes and no for truth, a dash for what is not there."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text) or "-"
