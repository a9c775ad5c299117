"""The tables of levels and coverage: their rows can be drawn, and the documentation quotes the kept results."""

import importlib
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
KEPT = (REPOSITORY / "benchmarks" / "results" / "coverage.md").read_text(encoding="utf-8")
PARTS = ("tests", "intervals", "detection", "small_lesions", "calibration", "branches", "decision", "sample_size")


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    """The command line's module, as ``python -m benchmarks.coverage`` finds it from the repository's root."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(REPOSITORY))
        return importlib.import_module("benchmarks.coverage.__main__")


def as_run(benchmark: ModuleType, patch: pytest.MonkeyPatch, kept: Path, *arguments: str) -> None:
    patch.setattr(benchmark, "RESULTS", kept)
    patch.setattr(benchmark, "PAGE", kept.with_name("page.md"))
    patch.setattr(sys, "argv", ["coverage", *arguments])
    benchmark.main()


@pytest.mark.parametrize("part", [part for part in PARTS if part != "sample_size"])
def test_every_row_can_be_drawn_and_repeats_by_itself(benchmark: ModuleType, part: str) -> None:
    rows = [*benchmark.PARTS[part].rows()]
    lines = [benchmark.simulate(row, 3) for row in rows]
    assert len({(row.what, row.how) for row in rows}) == len(rows)
    assert lines[::-1] == [benchmark.simulate(row, 3) for row in rows[::-1]], "whatever ran before"


def test_no_row_stands_in_two_parts_and_each_part_has_a_title_of_its_own(benchmark: ModuleType) -> None:
    parts = benchmark.PARTS.values()
    names = [(row.what, row.how) for part in parts if part.rows for row in part.rows()]
    assert tuple(benchmark.PARTS) == PARTS
    assert len(set(names)) == len(names), "rows are seeded by name"
    assert len({part.title for part in parts}) == len(parts)


def test_only_the_parts_that_ran_are_replaced(
    benchmark: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, other = (benchmark.PARTS[name].title for name in ("tests", "detection"))
    kept, page = tmp_path / "coverage.md", tmp_path / "page.md"
    kept.write_text(f"# Of old\n\n## {run}\n\n4000 studies\n\n## {other}\n\n| old |\n\n## Of no part\n\nwords\n")
    page.write_text(f"# Statistics\n\n### {run}\n\n4000 studies\n\nwords of ours\n")
    as_run(benchmark, monkeypatch, kept, "--only", "tests", "--draws", "2")
    assert f"## {run}" in capsys.readouterr().out
    assert "4000 studies" in kept.read_text(), "without --write nothing is kept"
    as_run(benchmark, monkeypatch, kept, "--only", "tests", "--draws", "2", "--write")
    found = benchmark.sections(kept.read_text())
    assert list(found) == [run, other]
    assert found[other] == "| old |"
    assert found[run].startswith("10 patients where a row does not say otherwise, 2 studies a row")
    assert page.read_text() == f"# Statistics\n\n### {run}\n\n{found[run]}\n\nwords of ours\n"
    assert found[run].count("\n| ") == 1 + len([*benchmark.PARTS["tests"].rows()])


@pytest.mark.parametrize("arguments", [("--only", "detektion"), ("--draws", "0")])
def test_an_unknown_part_and_no_draws_are_refused(
    benchmark: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, str],
) -> None:
    with pytest.raises(SystemExit) as refusal:
        as_run(benchmark, monkeypatch, tmp_path / "coverage.md", *arguments)
    assert refusal.value.code == 2
    assert " ".join(arguments[1:]) in capsys.readouterr().err


def test_the_kept_file_has_every_part_and_every_row_of_it(benchmark: ModuleType) -> None:
    """Not one of a row that has been renamed since: each keeps what was simulated under its name."""
    found = benchmark.sections(KEPT)
    assert list(found) == [part.title for part in benchmark.PARTS.values()]
    for part in benchmark.PARTS.values():
        rows = re.findall(r"^\| (.+?) \| (.+?) \|", found[part.title], re.MULTILINE)
        assert rows[1:] == [(row.what, row.how) for row in part.rows()] if part.rows else not rows


def test_the_documentation_quotes_the_kept_tables(benchmark: ModuleType) -> None:
    page = (REPOSITORY / "docs" / "statistics.md").read_text(encoding="utf-8")
    for title, section in benchmark.sections(KEPT).items():
        assert f"### {title}\n\n{section}\n" in page
