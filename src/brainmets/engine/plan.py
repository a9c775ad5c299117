"""What a study would run: Snakemake's dry run, told in the study's own words."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from brainmets.engine.steps import result, step_name
from brainmets.params import MODELS
from brainmets.params.study import Study
from brainmets.paths import StudyPaths

NOTHING = "Nothing to be done"
OUTPUT = re.compile(r"^ +output: (.+)$", re.MULTILINE)
"""The line of a job that names its one output."""


@contextmanager
def folder_to_plan_in(files: StudyPaths) -> Iterator[Path]:
    """The folder for Snakemake's own records: the study's where it has any, else one that is gone afterwards."""
    if (files.work / ".snakemake").is_dir():
        yield files.work
        return
    with tempfile.TemporaryDirectory(prefix="brainmets_") as folder:
        yield Path(folder)


def tell(study: Study, files: StudyPaths, call: list[str], environment: Mapping[str, str]) -> int:
    """Print one line per step that ``call``, a dry run of Snakemake, would run; gives the exit status."""
    planned = subprocess.run(
        call, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment, text=True, check=False
    )
    steps = _steps(study, files, planned.stdout)
    if planned.returncode or not (steps or NOTHING in planned.stdout):
        print("Snakemake could not plan the study; it said:", file=sys.stderr)
        print("\n".join(planned.stdout.splitlines()[-40:]), file=sys.stderr)
        return 1
    if not steps:
        print(f"study {files.study}: nothing to do")
        return 0
    print(f"{len(steps)} step{'s' * (len(steps) != 1)} to run:")
    for step in steps:
        print(f"  {step}")
    return 0


def _steps(study: Study, files: StudyPaths, said: str) -> list[str]:
    """The steps whose results a dry run would make, in the order of the notebooks."""
    made = set(OUTPUT.findall(said))
    every = {
        str(result(files, notebook, job)): step_name(notebook, job)
        for notebook in MODELS
        for job in study.jobs(notebook)
    }
    every[str(files.index)] = "report"
    return [step for path, step in every.items() if path in made]
