"""The command line of bin/fuzz: TARGET DIRECTORY, then options of libFuzzer; the directory gets corpus and crashes."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["uwsgi_tls", "h11"]):
    from .targets import SEED_BYTES, TARGETS, Target

MAX_BYTES = 1024
HANG_SECONDS = 20  # for one input, on a busy machine


def write_seeds(target: Target, directory: Path) -> None:
    for number, seed in enumerate(target.seeds):
        if len(seed) <= SEED_BYTES:
            (directory / str(number)).write_bytes(seed)


def write_words(target: Target, file: Path) -> None:
    r"""A dictionary as libFuzzer wants it: a word a line, in quotes; "\x2d" is a byte."""
    words = ["".join(rf"\x{byte:02x}" for byte in word) for word in target.words]
    file.write_text("".join(f'"{word}"\n' for word in words))


def main() -> None:
    """Ends with libFuzzer's exit status: 0, or 77 after a find, which is then in the directory as crash-*."""
    name, finds, *options = sys.argv[1:]
    target = TARGETS[name]
    with tempfile.TemporaryDirectory() as scratch:
        seeds, words = Path(scratch, "seeds"), Path(scratch, "words")
        seeds.mkdir()
        write_seeds(target, seeds)
        write_words(target, words)
        given = [option for option in options if not option.startswith("-")]
        corpus = [] if given else [finds, str(seeds)]  # files are read once each, directories are learnt from
        limits = [f"-dict={words}", f"-max_len={MAX_BYTES}", f"-timeout={HANG_SECONDS}", f"-artifact_prefix={finds}/"]
        atheris.Setup([sys.argv[0], *corpus, *limits, *options], target.read)
        atheris.Fuzz()


main()
