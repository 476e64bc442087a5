"""What the project answers; `flask_site` answers the same."""

import hashlib
from collections.abc import Iterator

from django.http import (
    FileResponse,
    HttpRequest,
    HttpResponse,
    HttpResponseRedirect,
    JsonResponse,
    StreamingHttpResponse,
)
from django.middleware.csrf import get_token
from django.urls import path


def seen(request: HttpRequest) -> HttpResponse:
    return JsonResponse(
        {
            "method": request.method,
            "secure": request.is_secure(),
            "url": request.build_absolute_uri(),
            "path": request.path,
            "query": request.GET.dict(),
            "client": request.META["REMOTE_ADDR"],
            "agent": request.headers["User-Agent"],
            "cookies": request.COOKIES,
        }
    )


def token(request: HttpRequest) -> HttpResponse:
    return HttpResponse(get_token(request))


def upload(request: HttpRequest) -> HttpResponse:
    file, digest = request.FILES["file"], hashlib.sha256()
    for chunk in file.chunks():
        digest.update(chunk)
    return JsonResponse(
        {"name": file.name, "size": file.size, "sha256": digest.hexdigest(), "comment": request.POST["comment"]}
    )


def stream(request: HttpRequest) -> HttpResponse:
    return StreamingHttpResponse((f"part {number}\n" for number in range(1000)), content_type="text/plain")


def breaks(request: HttpRequest) -> HttpResponse:
    def parts() -> Iterator[str]:
        yield "a beginning\n"
        raise RuntimeError("in the middle")

    headers = {"Content-Length": request.GET["length"]} if "length" in request.GET else {}
    return StreamingHttpResponse(parts(), headers=headers, content_type="text/plain")


def fails(request: HttpRequest) -> HttpResponse:
    raise RuntimeError("at once")


def count(request: HttpRequest) -> HttpResponse:
    request.session["count"] = request.session.get("count", 0) + 1
    return HttpResponse(str(request.session["count"]))


def redirect(request: HttpRequest) -> HttpResponse:
    return HttpResponseRedirect("/seen/?from=redirect")


def file(request: HttpRequest) -> HttpResponse:
    return FileResponse(open(request.GET["path"], "rb"), as_attachment=True, filename="it.bin")


urlpatterns = [
    path(f"{view.__name__}/", view) for view in (seen, token, upload, stream, breaks, fails, count, redirect, file)
]
