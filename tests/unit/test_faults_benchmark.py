"""The page of faults: what it says without what differs from run to run, and that it holds each fault."""

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def faults() -> ModuleType:
    spec = importlib.util.spec_from_file_location("faults_benchmark", REPOSITORY / "benchmarks" / "faults.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_what_was_said_is_kept_without_numbers_times_and_places(faults: ModuleType) -> None:
    said = f"process 71 on {os.uname().nodename}, since 2026-01-31 09:30:00: run /opt/x/bin/brainmets stop a | b\n"
    assert faults.plain(said) == "process N on HOST, since DATE: run brainmets stop a \\| b"
    assert faults.quoted("of `brainmets pack`") == "`` of `brainmets pack` ``"
    assert faults.plain("see /tmp/ab/checkout/work/x.log, finished in 1.5 s") == "see work/x.log, finished in T s"


def test_the_page_holds_a_row_for_each_fault_and_none_that_failed(faults: ModuleType) -> None:
    text = (REPOSITORY / "docs" / "reliability.md").read_text(encoding="utf-8")
    assert text.startswith(faults.HEADING)
    rows = [line for line in text.removeprefix(faults.HEADING).splitlines() if line.startswith("|")]
    assert len(rows) > len(faults.OF_PROCESSES), "and those of data"
    assert len({row.split(" | ")[0] for row in rows}) == len(rows)
    assert not [row for row in rows if "not played" in row or "Traceback" in row]
