"""A Flask application that answers the same as `django_site`."""

import hashlib
from collections.abc import Iterator

from flask import Flask, Response, redirect, request, send_file, session
from flask.typing import ResponseReturnValue

app = Flask(__name__)
app.config.update(
    SECRET_KEY="not a secret",
    SESSION_COOKIE_SECURE=True,
    PREFERRED_URL_SCHEME="http",  # only for URLs that are made outside of a request
    TRUSTED_HOSTS=["server.lab"],
)


def seen() -> dict[str, object]:
    return {
        "method": request.method,
        "secure": request.is_secure,
        "url": request.url,
        "path": request.path,
        "query": request.args.to_dict(),
        "client": request.remote_addr,
        "agent": request.headers["User-Agent"],
        "cookies": request.cookies.to_dict(),
    }


def token() -> str:
    return "none"


def upload() -> dict[str, object]:
    file, digest, size = request.files["file"], hashlib.sha256(), 0
    while block := file.stream.read(65536):
        digest.update(block)
        size += len(block)
    return {"name": file.filename, "size": size, "sha256": digest.hexdigest(), "comment": request.form["comment"]}


def stream() -> Response:
    return Response((f"part {number}\n" for number in range(1000)), mimetype="text/plain")


def breaks() -> Response:
    def parts() -> Iterator[str]:
        yield "a beginning\n"
        raise RuntimeError("in the middle")

    headers = {"Content-Length": request.args["length"]} if "length" in request.args else {}
    return Response(parts(), headers=headers, mimetype="text/plain")


def fails() -> Response:
    raise RuntimeError("at once")


def count() -> str:
    session["count"] = session.get("count", 0) + 1
    return str(session["count"])


def redirected() -> ResponseReturnValue:
    return redirect("/seen/?from=redirect")


def file() -> Response:
    return send_file(request.args["path"], as_attachment=True, download_name="it.bin")


for view in (seen, token, stream, breaks, fails, count, file):
    app.add_url_rule(f"/{view.__name__}/", view_func=view)
app.add_url_rule("/redirect/", view_func=redirected)
app.add_url_rule("/upload/", view_func=upload, methods=["POST"])
