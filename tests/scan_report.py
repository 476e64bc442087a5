"""Reads what bin/scan's scanners wrote into a directory, says what they found, and exits with 1 if that is too much.

What testssl.sh gives a severity that is not OK, INFO or LOW counts, also its "could not test"; so does what it did not
test at all. sslyze knows no severities: it must say that the server complies with Mozilla's intermediate.
"""

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

_HARMLESS = ("OK", "INFO", "LOW", "DEBUG")
_OF_ONE_CERTIFICATE = " <cert#"  # what follows the name of a finding when the server has several

# Findings that are no fault of the server, and why.
ALLOWED = {
    "cert_revocation": "a private CA has neither CRL nor OCSP that a stranger could fetch",
    "engine_problem": "testssl.sh misses GOST ciphers in its own openssl",
    "sessionresumption_ticket": "testssl.sh 3.0 may end its client before the ticket comes; our tests resume",
}
# One test of each kind: a scanner that gave up must not pass for one that found nothing.
EXPECTED = (
    "TLS1",
    "TLS1_3",
    "cipherlist_NULL",
    "cipher_order",
    "cert_chain_of_trust",
    "HSTS_time",
    "heartbleed",
    "DROWN",
)

Finding = tuple[str, str, str, str]  # scanner, severity, what, in words


def of_testssl(entries: Iterable[dict[str, str]]) -> Iterator[Finding]:
    """What counts among the entries of testssl.sh's flat JSON, and what is not among them but should be."""
    seen = set()
    for entry in entries:
        name = entry["id"].partition(_OF_ONE_CERTIFICATE)[0]
        seen.add(name)
        if entry["severity"] not in _HARMLESS:
            yield "testssl.sh", entry["severity"], name, entry["finding"]
    for name in EXPECTED:
        if name not in seen:
            yield "testssl.sh", "MISSING", name, "was not tested"


def of_sslyze(log: str, report: dict[str, Any]) -> Iterator[Finding]:
    """What sslyze's words on compliance name, and the two things that they pass over."""
    if ": OK - Compliant." not in log:
        _, _, verdict = log.partition("COMPLIANCE AGAINST TLS CONFIGURATION")
        issues = [line.strip()[2:] for line in verdict.splitlines() if line.strip().startswith("* ")]
        for issue in issues or ["it did not finish"]:
            name, _, words = issue.partition(": ")
            yield "sslyze", "NOT COMPLIANT", name, words
    for server in report["server_scan_results"]:
        found = server["scan_result"] or {}
        for command, key in (
            ("tls_1_3_early_data", "supports_early_data"),
            ("session_renegotiation", "is_vulnerable_to_client_renegotiation_dos"),
        ):
            if (found.get(command) or {}).get("result", {}).get(key) is not False:
                yield "sslyze", "FOUND", key, "must be false"


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError) as error:
        log = file.with_suffix(".log")
        words = log.read_text()[-2000:] if log.exists() else ""
        raise SystemExit(f"{file}: the scanner did not finish: {error}\n{words}") from None


def main(directory: Path) -> int:
    """Print a table of the findings; the exit status. Raises SystemExit if a scanner did not finish."""
    entries = [*_json(directory / "testssl-policy.json"), *_json(directory / "testssl-faults.json")]
    report = _json(directory / "sslyze.json")
    log = (directory / "sslyze.log").read_text()
    found = [*of_testssl(entries), *of_sslyze(log, report)]
    bad = 0
    for scanner, severity, name, words in dict.fromkeys(found):
        reason = ALLOWED.get(name, "")
        bad += not reason
        print(f"{scanner:10}  {severity:13}  {name:26}  {words}" + (f"\n{'':27}allowed: {reason}" if reason else ""))
    verdict = "compliant" if ": OK - Compliant." in log else "not compliant"
    print(
        f"testssl.sh: {len(entries)} results; sslyze: {verdict} with Mozilla's intermediate; {bad} findings that count"
    )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
