"""The command line of bin/bench."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path

from . import measure, peers, report

ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main() -> int:
    """Runs the benchmark and prints the table; returns 0, 1 where a peer failed, 130 after Ctrl-C."""
    cases = {case.name: case for case in measure.CASES}
    parser = argparse.ArgumentParser(
        prog="bench",
        description="CPU time of the server's whole process tree for each operation, ours beside nginx, uWSGI and "
        "gunicorn doing the same work in the same run, the server on one CPU and the client on another.",
    )
    parser.add_argument("--rounds", type=_positive_int, default=5, help="the table has their medians (default: 5)")
    parser.add_argument("--seconds", type=_positive, default=1.0, help="load for each round of a peer (default: 1)")
    parser.add_argument(
        "--only",
        type=_names(peers.PEERS),
        default=list(peers.PEERS),
        metavar="PEER,...",
        help=f"the peers to measure, of {', '.join(peers.PEERS)}",
    )
    parser.add_argument(
        "--case",
        type=_names(cases),
        default=list(cases),
        metavar="CASE,...",
        help=f"the cases to run, of {', '.join(cases)}",
    )
    parser.add_argument("--json", action="store_true", help="JSON on standard output; the table goes to standard error")
    options = parser.parse_args()
    chosen = [cases[name] for name in options.case]
    for number in ENDING_SIGNALS:
        signal.signal(number, _interrupted)
    try:
        with tempfile.TemporaryDirectory(prefix="uwsgi-tls-bench-") as directory:
            results = measure.run(chosen, options.only, options.rounds, options.seconds, Path(directory))
    except peers.PeerError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench: interrupted", file=sys.stderr)
        return 130
    print(report.table(chosen, options.only, results), file=sys.stderr if options.json else sys.stdout)
    if options.json:
        json.dump(report.as_json(chosen, results, options.rounds, options.seconds), sys.stdout, indent=2)
        print()
    return 1 if any(cell.failed for cells in results.values() for cell in cells.values()) else 0


def _interrupted(number: int, frame: object) -> None:
    """Unwinds once, so that the servers are stopped; a second Ctrl-C must not cut that short."""
    for ending in ENDING_SIGNALS:
        signal.signal(ending, signal.SIG_IGN)
    raise KeyboardInterrupt


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value <= 600:
        raise argparse.ArgumentTypeError("more than 0 and at most 600")
    return value


def _positive_int(text: str) -> int:
    value = int(text)
    if not 0 < value <= 1000:
        raise argparse.ArgumentTypeError("from 1 to 1000")
    return value


def _names(known: Collection[str]) -> Callable[[str], list[str]]:
    """A converter of a comma-separated list of known names."""

    def convert(text: str) -> list[str]:
        names = [name.strip() for name in text.split(",")]
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is not one of {', '.join(known)}")
        return names

    return convert


if __name__ == "__main__":
    sys.exit(main())
