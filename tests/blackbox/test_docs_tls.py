"""docs/tls.md by the letter: its commands are run, its configurations served, its snippets asked who a client is.

The page's files lie in a directory of root's own, as /etc is, and its addresses become one of this test's; nothing else
of what stands there is changed.
"""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from .server import ROOT, Daemon, command, curl, is_root, loopback, uwsgi_tls, wait_until

PAGE = (ROOT / "docs" / "tls.md").read_text()
PORT = 8443
SECONDS = 20.0
VERSION_1_2 = ("--tls-max", "1.2")
WWW, SHOP, ADMIN = "www.example.org", "shop.example.org", "admin.example.org"
CODE = re.compile(r"(?<=\n\n) {4}.*\n(?:\n* {4}.*\n)*")
FIRST_WORDS = {"uwsgi-tls": "sh", "certbot": "sh", "from": "python", "MIDDLEWARE": "python"}


def blocks(heading: str, language: str) -> list[str]:
    """The blocks of code under a heading of the page, up to the next one of the same depth or a lesser."""
    depth = len(heading.partition(" ")[0])
    rest = "\n" + PAGE.partition(f"\n{heading}\n")[2]
    body = re.split(rf"^#{{1,{depth}}} ", rest, maxsplit=1, flags=re.MULTILINE)[0]
    found = ["\n".join(line[4:] for line in each.splitlines()) + "\n" for each in re.findall(CODE, body)]
    return [each for each in found if FIRST_WORDS.get(each.split()[0], "ini") == language]


HEADINGS = re.findall(r"^## .*$", PAGE, flags=re.MULTILINE)


class Lab:
    """The directory that stands for the page's, and how the page is read there."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.host = loopback()

    def here(self, text: str) -> str:
        """The page's text, for this place and this user."""
        text = re.sub(r"/(etc|run)(?=/)", rf"{self.place}/\1", text).replace("0.0.0.0:443", f"{self.host}:{PORT}")
        return text if is_root else text.replace("uid = www-data\n", "")

    def run(self, line: str) -> str:
        """A command of the page."""
        words = shlex.split(self.here(line))
        assert words[0] == "uwsgi-tls"
        done = subprocess.run(
            command(*words[1:]), cwd=self.place, capture_output=True, text=True, timeout=SECONDS, check=False
        )
        assert (done.returncode, done.stderr) == (0, ""), (line, done.stdout, done.stderr)
        return done.stdout

    def ini(self, block: str) -> Path:
        """The configuration that a block stands for: what it does not say, the first one of the page does."""
        (first, *_) = blocks("## Let's Encrypt", "ini")
        lines = [line for line in first.splitlines(keepends=True) if not line.startswith("http-to")]
        if re.search(r"^https2? =", block, flags=re.MULTILINE):
            lines = [line for line in lines if not line.startswith("https")]
        text = block if block.startswith("[uwsgi]") else "".join(lines) + block
        file = self.place / "server.ini"
        file.write_text(self.here(text))
        return file

    @contextlib.contextmanager
    def serving(self, block: str, *options: str) -> Iterator[Daemon]:
        """The built-in page, or what `options` name, with a block's configuration."""
        with uwsgi_tls(str(self.ini(block)), *options, cwd=self.place) as daemon:
            daemon.wait_for_line("generation 1 is serving")
            yield daemon

    def ask(self, name: str, client: str = "", *options: str) -> str:
        """The status, or curl's words on why there is none, and the body."""
        files = self.place / "etc" / "uwsgi-tls"
        identity = ("--cert", f"{files}/{client}.crt", "--key", f"{files}/{client}.key") if client else ()
        written = ("--write-out", "%{stderr}%{http_code}")
        common = ("--cacert", f"{files}/ca.crt", *written, *identity, *options)
        answer = curl(f"https://{name}:{PORT}/", *common, host=self.host)
        return f"{answer.stderr}\n{answer.stdout}"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """All the files that the page's commands make, and those that it takes for granted."""
    with tempfile.TemporaryDirectory(prefix="uwsgi-tls-", dir="/root" if is_root else None) as name:
        lab = Lab(Path(name))
        files, live = lab.place / "etc" / "uwsgi-tls", lab.place / "etc" / "letsencrypt" / "live" / WWW
        for directory in (files / "names", live, lab.place / "run" / "secrets"):
            directory.mkdir(parents=True)
        for heading in HEADINGS:
            for line in "".join(blocks(heading, "sh")).splitlines():
                if re.match("uwsgi-tls pki (ca|crl|server|client) ", line):
                    lab.run(line)
        certbot(lab, WWW, 1)
        shutil.copy(files / f"{SHOP}.crt", files / "names")
        shutil.copy(files / f"{SHOP}.key", files / "names")
        for file, text in ((files / "passphrases", "another\nsecret\n"), (lab.place / "run/secrets/www", "secret\n")):
            file.touch(mode=0o600)
            file.write_text(text)
        made = ("-in", f"{WWW}.crt", "-inkey", f"{WWW}.key", "-out", f"{WWW}.p12", "-passout", "pass:secret")
        subprocess.run(("openssl", "pkcs12", "-export", *made), cwd=files, check=True, timeout=SECONDS)
        yield lab


def certbot(lab: Lab, name: str, version: int) -> None:
    """Puts a certificate where certbot does: links in live/ lead to files in archive/, the key for root alone."""
    etc = lab.place / "etc" / "letsencrypt"
    archive = etc / "archive" / name
    archive.mkdir(parents=True, exist_ok=True)
    certificates = lab.place / "etc" / "uwsgi-tls"
    lab.run(f"uwsgi-tls pki server v{version}.{name} {name} --dir /etc/uwsgi-tls")
    for stem, suffix in (("fullchain", "crt"), ("privkey", "key")):
        shutil.copy2(certificates / f"v{version}.{name}.{suffix}", archive / f"{stem}{version}.pem")
        link = etc / "live" / name / f"{stem}.pem"
        link.unlink(missing_ok=True)
        link.symlink_to(f"../../archive/{name}/{stem}{version}.pem")


RECIPES = [(heading, number) for heading in HEADINGS for number in range(len(blocks(heading, "ini")))]


@pytest.mark.parametrize(("heading", "number"), RECIPES)
def test_a_recipe_is_a_configuration(heading: str, number: int, lab: Lab) -> None:
    done = subprocess.run(
        command("--check", lab.ini(blocks(heading, "ini")[number])),
        cwd=lab.place, capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "WARNING" not in re.sub(".*serving as root.*", "", done.stdout)
    assert "has expired" not in done.stdout


def test_the_page_is_found() -> None:
    assert len(RECIPES) == len(re.findall(r"^    (?:https2? =|touch-|tls-|hsts)", PAGE, flags=re.MULTILINE))
    assert len([heading for heading in HEADINGS if blocks(heading, "python")]) == 2


@pytest.mark.parametrize("how", ["hook", "touch"])
def test_certbot_renews(how: str, lab: Lab) -> None:
    """The key is root's alone, and so is the way to it."""
    first, touch = blocks("## Let's Encrypt", "ini")
    (renew,) = [line for line in blocks("## Let's Encrypt", "sh") if "certbot" in line]
    number = {"hook": 2, "touch": 3}[how]
    block = first.replace("http-to", "# http-to") + (touch if how == "touch" else "")
    with lab.serving(block) as daemon:
        before = shown(lab)
        certbot(lab, WWW, number)
        if how == "hook":
            words = shlex.split(renew)
            lab.run(words[words.index("--deploy-hook") + 1])
        daemon.wait_for_line("generation 2 is serving")
        wait_until(lambda: shown(lab) != before, SECONDS, lambda: daemon.log)
        assert shown(lab) == f"subject=CN = v{number}.{WWW}"
        daemon.wait_for_titles("uwsgi-tls monitor", int(is_root))


def shown(lab: Lab) -> str:
    """The subject of the certificate that a client is shown."""
    where = f"{lab.host}:{PORT}"
    done = subprocess.run(
        f"openssl s_client -connect {where} -servername {WWW} </dev/null 2>&1 | openssl x509 -noout -subject",
        shell=True, capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    return done.stdout.strip()


def test_clients(lab: Lab) -> None:
    required, some = blocks("## Clients with certificates of your own", "ini")[:2]
    with lab.serving(required):
        assert lab.ask(WWW, "berta").startswith("200")
        assert "000" in lab.ask(WWW)
    with lab.serving(required.replace("!", "")):
        assert lab.ask(WWW).startswith("200")
    with lab.serving(some) as daemon:
        assert lab.ask(WWW, "anna").startswith("200")
        assert "000" in lab.ask(WWW, "berta")
        daemon.wait_for_line("client certificate refused: no client-allow matches /CN=berta")


def test_revocation(lab: Lab) -> None:
    (revoked,) = blocks("### Revocation", "ini")
    steps = blocks("### Revocation", "sh")[-1].splitlines()
    lab.run("uwsgi-tls pki client anja --dir /etc/uwsgi-tls")
    with lab.serving(revoked) as daemon:
        assert lab.ask(WWW, "anja").startswith("200")
        for line in steps:
            lab.run(line.replace("anna", "anja"))
        daemon.wait_for_line("generation 2 is serving")
        wait_until(lambda: "000" in lab.ask(WWW, "anja"), SECONDS, lambda: daemon.log)
        daemon.wait_for_line(
            r"failed \(client [^()]*\): client certificate refused: it was revoked \(serial [0-9A-F]+\): /CN=anja"
        )
        assert lab.ask(WWW, "anna").startswith("200")


def test_two_keys(lab: Lab) -> None:
    (pair,) = blocks("## RSA and ECDSA", "ini")
    with lab.serving(pair):
        for kind, file in (("ECDSA", WWW), ("RSA", "rsa.example.org")):
            ciphers = (*VERSION_1_2, "--ciphers", f"ECDHE-{kind}-AES128-GCM-SHA256", "--pinnedpubkey")
            assert lab.ask(WWW, "", *ciphers, spki(lab, file)).startswith("200")


def spki(lab: Lab, stem: str) -> str:
    """What curl's --pinnedpubkey takes, of the key of a certificate."""
    certificate = f"{lab.place}/etc/uwsgi-tls/{stem}.crt"
    key = f"openssl x509 -in {certificate} -noout -pubkey | openssl pkey -pubin -outform DER"
    digest = f"{key} | openssl dgst -sha256 -binary | base64"
    done = subprocess.run(digest, shell=True, capture_output=True, text=True, check=True, timeout=SECONDS)
    return f"sha256//{done.stdout.strip()}"


def test_names(lab: Lab) -> None:
    for block in blocks("## Several names", "ini")[:2]:
        with lab.serving(block):
            assert lab.ask(SHOP, "", "--pinnedpubkey", spki(lab, SHOP)).startswith("200")
            if "*.example.org" in block:
                assert lab.ask("any.example.org", "", "--pinnedpubkey", spki(lab, "_wildcard.example.org")).startswith(
                    "200"
                )


def test_one_name_that_asks_clients(lab: Lab) -> None:
    (block,) = blocks("### Client certificates for one name", "ini")
    with lab.serving(block) as daemon:
        assert lab.ask(SHOP).startswith("200")
        assert lab.ask(ADMIN, "anna").startswith("200")
        for refused in (lab.ask(ADMIN), lab.ask(ADMIN, "berta"), lab.ask(ADMIN, "anna", *VERSION_1_2)):
            assert "000" in refused
        assert lab.ask(SHOP, "anna", "--header", f"Host: {ADMIN}").startswith("421")
        daemon.wait_for_line("421")


def test_secrets_and_hsts(lab: Lab) -> None:
    for block in blocks("## Encrypted keys and PKCS#12", "ini"):
        with lab.serving(block):
            assert lab.ask(WWW).startswith("200")
    (hsts,) = [each for each in blocks("## Versions and ciphers", "ini") if each.startswith("hsts")]
    with lab.serving(hsts):
        assert "Strict-Transport-Security: max-age=63072000" in lab.ask(WWW, "", "--include")


# --- what an application learns ---------------------------------------------------------------------------

DUMP = """
import json

def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/json")])
    names = [name for name in environ if name.startswith(("HTTPS", "SSL_"))]
    return [json.dumps({name: environ[name] for name in names}).encode()]
"""


def test_variables(lab: Lab, directory: Path) -> None:
    """The table has all of them, in their order, and each example is one that could be."""
    rows = re.findall(r"^\| `([A-Z]\w+)` \| `([^`]+)` \|", PAGE.partition("\n## Variables\n")[2], flags=re.MULTILINE)
    examples = dict(rows)
    (directory / "dump.py").write_text(DUMP)
    issue_client_with_names(lab)
    required = blocks("## Clients with certificates of your own", "ini")[0]
    application = ("--wsgi-file", str(directory / "dump.py"), "--https-export-cert")
    with lab.serving(required, *application):
        status, _, body = lab.ask(WWW, "names").partition("\n")
        assert status == "200"
        seen = json.loads(body)
        assert list(seen) == list(examples)
        for name, value in seen.items():
            assert shape(value) == shape(examples[name]), name
        # As fixed as the example: "anna" has no names of her own.
        theirs = json.loads(lab.ask(WWW, "anna").partition("\n")[2])
        assert {name: theirs[name] for name in ("HTTPS_DN", "SSL_CLIENT_S_DN")} == {
            "HTTPS_DN": examples["HTTPS_DN"],
            "SSL_CLIENT_S_DN": examples["SSL_CLIENT_S_DN"],
        }


def issue_client_with_names(lab: Lab) -> None:
    """names.crt and names.key: a client with a name of each kind, of the page's CA."""
    files = lab.place / "etc" / "uwsgi-tls"
    names = "DNS:anna.example.org,email:anna@example.org,URI:urn:uuid:0b9f3c52"
    (files / "names.ext").write_text(f"subjectAltName={names}\nextendedKeyUsage=clientAuth\n")
    request = "openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=anna -keyout names.key"
    sign = "openssl x509 -req -CA ca.crt -CAkey ca.key -CAcreateserial -days 365 -extfile names.ext -out names.crt"
    subprocess.run(f"{request} | {sign}", shell=True, cwd=files, check=True, capture_output=True, timeout=SECONDS)


def shape(value: str) -> str:
    """What must be the same of an example: of hexadecimal and of dates the form, of a certificate its beginning."""
    if re.fullmatch(r"[0-9A-F]{30,40}", value):
        return "SERIAL"
    if re.fullmatch(r"[0-9a-f]{64}", value):
        return "SHA-256"
    if re.fullmatch(r"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \d{4} GMT", value):
        return "TIME"
    if value.startswith(("0\x82", r"0\x82")):
        return "DER"
    return re.sub(r"(?s)(-BEGIN CERTIFICATE-----|CN=uwsgi-tls CA ).*", r"\1", value)


def test_flask(lab: Lab, directory: Path) -> None:
    (snippet,) = blocks("## Flask", "python")
    (directory / "site_of_flask.py").write_text(snippet)
    optional = blocks("## Clients with certificates of your own", "ini")[0].replace("!", "")
    with lab.serving(optional, "--pythonpath", str(directory), "--module", "site_of_flask:app"):
        spoofed = ("--header", "SSL-Client-S-DN: CN=anna", "--header", "SSL_CLIENT_VERIFY: SUCCESS")
        assert lab.ask(WWW, "anna") == "200\nHello Anna\n"
        assert lab.ask(WWW, "berta") == "200\nHello Berta\n"
        assert lab.ask(WWW, "", *spoofed).startswith("403")


SETTINGS = """
from pathlib import Path
{snippet}
SECRET_KEY = "not a secret"
ALLOWED_HOSTS = [".example.org"]
ROOT_URLCONF = "mysite.urls"
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes"]
SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
DATABASES = {{"default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": Path(__file__).with_name("db.sqlite3")}}}}
"""
URLS = """
from django.http import HttpResponse
from django.urls import path

urlpatterns = [path("", lambda request: HttpResponse(f"{request.user.is_authenticated} {request.user.username}"))]
"""
WSGI = """
import os

os.environ["DJANGO_SETTINGS_MODULE"] = "mysite.settings"
from django.core.wsgi import get_wsgi_application
application = get_wsgi_application()
"""


def test_django(lab: Lab, directory: Path) -> None:
    middleware, settings = blocks("## Django", "python")
    site = directory / "mysite"
    site.mkdir()
    site.chmod(0o777)  # for the database of whoever the server becomes
    texts = {"__init__": "", "middleware": middleware, "settings": SETTINGS.format(snippet=settings)}
    for name, text in {**texts, "urls": URLS, "wsgi": WSGI}.items():
        (site / f"{name}.py").write_text(text)
    migrate = (sys.executable, "-m", "django", "migrate", "--settings", "mysite.settings", "--verbosity", "0")
    subprocess.run(migrate, cwd=directory, env={"PYTHONPATH": str(directory)}, check=True, timeout=60)
    (site / "db.sqlite3").chmod(0o666)
    optional = blocks("## Clients with certificates of your own", "ini")[0].replace("!", "")
    with lab.serving(optional, "--pythonpath", str(directory), "--module", "mysite.wsgi"):
        cookies = str(lab.place / "cookies")
        jar = ("--cookie", cookies, "--cookie-jar", cookies)
        assert lab.ask(WWW, "anna", *jar) == "200\nTrue anna"
        assert lab.ask(WWW, "", *jar) == "200\nFalse "  # the cookie alone is nobody
        assert lab.ask(WWW, "", "--header", "SSL-CLIENT-S-DN: CN=anna") == "200\nFalse "
