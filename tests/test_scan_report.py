"""bin/scan's verdict: what a scanner must say for it to fail, and that silence is no praise."""

import json
from pathlib import Path
from typing import Any

import pytest
import scan_report

COMPLIANT = "COMPLIANCE AGAINST TLS CONFIGURATION\n\n    localhost:1: OK - Compliant.\n"
NOT_COMPLIANT = """COMPLIANCE AGAINST TLS CONFIGURATION

    localhost:1: FAILED - Not compliant.
        * tls_curves: TLS curves {'X448'} are supported, but should be rejected.
        * ciphers: Cipher suites {'TLS_RSA_WITH_AES_128_CBC_SHA'} are supported, but should be rejected.
"""
GOOD = [{"id": name, "severity": "OK", "finding": "not vulnerable"} for name in scan_report.EXPECTED]


def sslyze(early_data: bool | None = False, renegotiation: bool = False) -> dict[str, Any]:
    early = None if early_data is None else {"result": {"supports_early_data": early_data}}
    again = {"result": {"is_vulnerable_to_client_renegotiation_dos": renegotiation}}
    return {
        "server_scan_results": [{"scan_result": {"tls_1_3_early_data": early, "session_renegotiation": again}}],
    }


def entry(name: str, severity: str) -> dict[str, str]:
    return {"id": name, "severity": severity, "finding": "words"}


@pytest.mark.parametrize(
    ("more", "log", "report", "culprits"),
    [
        ([], COMPLIANT, sslyze(), []),
        ([entry("BREACH", "LOW"), entry("cert_revocation", "HIGH")], COMPLIANT, sslyze(), ["cert_revocation"]),
        ([entry("BEAST", "MEDIUM")], COMPLIANT, sslyze(), ["BEAST"]),
        ([entry("SWEET32 <cert#2>", "HIGH")], COMPLIANT, sslyze(), ["SWEET32"]),
        ([entry("scanProblem", "FATAL")], COMPLIANT, sslyze(), ["scanProblem"]),
        ([entry("DROWN", "WARN")], COMPLIANT, sslyze(), ["DROWN"]),
        ([], NOT_COMPLIANT, sslyze(), ["tls_curves", "ciphers"]),
        ([], "", sslyze(), ["it did not finish"]),
        ([], COMPLIANT, sslyze(early_data=True), ["supports_early_data"]),
        ([], COMPLIANT, sslyze(early_data=None), ["supports_early_data"]),
        ([], COMPLIANT, sslyze(renegotiation=True), ["is_vulnerable_to_client_renegotiation_dos"]),
    ],
)
def test_verdict(
    more: list[dict[str, str]],
    log: str,
    report: dict[str, Any],
    culprits: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "testssl-policy.json").write_text(json.dumps(GOOD))
    (tmp_path / "testssl-faults.json").write_text(json.dumps(more))
    (tmp_path / "sslyze.log").write_text(log)
    (tmp_path / "sslyze.json").write_text(json.dumps(report))
    counts = [name for name in culprits if name not in scan_report.ALLOWED]
    assert scan_report.main(tmp_path) == (1 if counts else 0)
    output = capsys.readouterr().out
    assert all(name in output for name in culprits)
    assert output.endswith(f"; {len(counts)} findings that count\n")


def test_what_was_not_tested_counts(tmp_path: Path) -> None:
    assert [name for *_, name, _ in scan_report.of_testssl(GOOD[1:])] == [scan_report.EXPECTED[0]]


@pytest.mark.parametrize("text", [None, "", '[ {"id": "TLS1",'])
def test_a_scanner_that_did_not_finish(text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "testssl-policy.json").write_text(text)
    with pytest.raises(SystemExit, match=r"testssl-policy\.json: the scanner did not finish"):
        scan_report.main(tmp_path)
