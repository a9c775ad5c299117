"""The table of levels and coverage: its rows can be drawn, and the documentation quotes the kept results."""

import importlib.util
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def test_every_row_can_be_drawn_and_repeats() -> None:
    spec = importlib.util.spec_from_file_location("coverage_benchmark", REPOSITORY / "benchmarks" / "coverage.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    rows = [*module.tests(), *module.intervals(), *module.of_detection()]
    lines = [module.simulate(row, 5) for row in rows]
    assert len({(row.what, row.how) for row in rows}) == len(rows)
    assert lines == [module.simulate(row, 5) for row in rows]


def test_the_documentation_quotes_the_kept_table() -> None:
    kept = (REPOSITORY / "benchmarks" / "results" / "coverage.md").read_text().split("\n\n", 1)[1]
    assert kept.strip() in (REPOSITORY / "docs" / "statistics.md").read_text()
