"""The command line: which parts, how many draws, and the file that is kept."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import benchmarks.coverage
from benchmarks.coverage import (
    branches,
    calibration,
    decision,
    detection,
    intervals,
    sample_size,
    small_lesions,
    tests,
)
from benchmarks.coverage.rows import PATIENTS, SEED, Part, simulate

PARTS: dict[str, Part] = {
    module.__name__.rpartition(".")[2]: module.PART
    for module in (tests, intervals, detection, small_lesions, calibration, branches, decision, sample_size)
}
"""By the names that ``--only`` takes, in the order of the kept file."""
RESULTS = Path(__file__).parents[1] / "results" / "coverage.md"
PAGE = Path(__file__).parents[2] / "docs" / "statistics.md"
"""Quotes the sections, each below a heading of its own."""
HEADING = (
    "# Levels and coverage, simulated\n\n`OMP_NUM_THREADS=1 python -m benchmarks.coverage --write`; one part with so "
    "many draws: `--only detection --draws 1000`\n"
)


def lines(part: Part, draws: int) -> Iterator[str]:
    """The section, line by line as they are found; without its title."""
    if part.rows is not None:
        yield (
            f"{PATIENTS} patients where a row does not say otherwise, {draws} studies a row, ± one Monte Carlo "
            f"standard error; seed {SEED}."
        )
        yield from ("", "| test or interval | studies | nominal | simulated | verdict |", "|---|---|---|---|---|")
        yield from (simulate(row, draws) for row in part.rows())
    if part.rows is not None and part.words is not None:
        yield ""
    if part.words is not None:
        yield f"{part.words(min(draws, part.most))} Seed {SEED}."


def sections(text: str) -> dict[str, str]:
    """What a kept file says of each part, by the part's title."""
    _, *found = text.split("\n## ")
    return {title: body.strip() for title, _, body in (section.partition("\n") for section in found)}


def replaced(text: str, ran: Mapping[str, str]) -> str:
    """The kept file with what ran in place of the old sections of these titles; a title of no part falls away."""
    kept = {**sections(text), **ran}
    titles = [part.title for part in PARTS.values() if part.title in kept]
    return HEADING + "".join(f"\n## {title}\n\n{kept[title]}\n" for title in titles)


def keep(title: str, section: str) -> None:
    """Put the section into the kept file, and where the documentation quotes the former one, into its place."""
    text = RESULTS.read_text(encoding="utf-8")
    former = sections(text).get(title, "")
    RESULTS.write_text(replaced(text, {title: section}), encoding="utf-8")
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(page.replace(f"### {title}\n\n{former}\n", f"### {title}\n\n{section}\n"), encoding="utf-8")


def main() -> None:
    """Print the sections as they are found, and keep them with ``--write``."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.coverage", description=(benchmarks.coverage.__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--only", nargs="+", choices=PARTS, default=[*PARTS], metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--draws", type=int, default=4000, help="studies a row (default: 4000)")
    parser.add_argument("--write", action="store_true", help="replace the sections of these parts where they are kept")
    given = parser.parse_args()
    if given.draws < 1:
        parser.error(f"--draws {given.draws}: at least 1")
    for part in (part for name, part in PARTS.items() if name in given.only):
        start, found = time.perf_counter(), []
        print(f"## {part.title}\n", flush=True)
        for line in lines(part, given.draws):
            found.append(line)
            print(line, flush=True)
        print(f"\n{time.perf_counter() - start:.0f} s\n", flush=True)
        if given.write:
            keep(part.title, "\n".join(found))


if __name__ == "__main__":
    main()
