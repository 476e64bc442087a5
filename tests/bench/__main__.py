"""The command line of bin/bench."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path

from . import document, measure, peers, probes, report, targets

ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main() -> int:
    """Runs the benchmark and prints the table; returns 0, 1 where a peer failed or, with --check, a promise is broken,
    130 after Ctrl-C.
    """
    cases = {case.name: case for case in measure.CASES}
    all_probes = {probe.name: probe for probe in probes.PROBES}
    parser = argparse.ArgumentParser(
        prog="bench",
        description="CPU time of the server's whole process tree for each operation, ours beside nginx, uWSGI, "
        "gunicorn and granian doing the same work in the same run, the server on one CPU and the client on another.",
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
        type=_names([*cases, *all_probes]),
        default=[*cases, *all_probes],
        metavar="CASE,...",
        help=f"what to run, of {', '.join(cases)} and {', '.join(all_probes)}",
    )
    parser.add_argument("--check", action="store_true", help="exit status 1 where a promise of speed is not kept")
    parser.add_argument("--write-docs", action="store_true", help="write the run into docs/performance.md")
    parser.add_argument("--json", action="store_true", help="JSON on standard output; the table goes to standard error")
    options = parser.parse_args()
    chosen = [cases[name] for name in options.case if name in cases]
    names = [name for name in options.only if any(name in case.names for case in chosen)]
    figures: probes.Figures = {}
    for number in ENDING_SIGNALS:
        signal.signal(number, _interrupted)
    try:
        with tempfile.TemporaryDirectory(prefix="uwsgi-tls-bench-") as directory:
            where = measure.place(Path(directory))
            results = measure.run(chosen, names, options.rounds, options.seconds, where)
            for name in options.case:
                if name in all_probes:
                    print(f"bench: {all_probes[name].title}", file=sys.stderr)
                    figures |= all_probes[name].run(where)
    except peers.PeerError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench: interrupted", file=sys.stderr)
        return 130
    verdicts = targets.verdicts(results, figures)
    out = sys.stderr if options.json else sys.stdout
    if chosen:
        print(report.table(chosen, names, results), file=out)
    for name, value in figures.items():
        print(f"{name}: {value:.2f}", file=out)
    print(*(f"{'kept' if verdict.is_met else 'MISSED'}  {verdict}" for verdict in verdicts), sep="\n", file=out)
    if options.json:
        texts = list(map(str, verdicts))
        json.dump(
            report.as_json(chosen, results, figures, texts, options.rounds, options.seconds), sys.stdout, indent=2
        )
        print()
    if options.write_docs:
        command = " ".join(["bin/bench", *sys.argv[1:]])
        document.write(command, chosen, names, results, figures, verdicts)
    if any(cell.failed for cells in results.values() for cell in cells.values()):
        return 1
    return 1 if options.check and not all(verdict.is_met for verdict in verdicts) else 0


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
