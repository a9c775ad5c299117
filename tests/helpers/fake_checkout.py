"""A checkout of tiny notebooks, to test the engine in seconds; each writes its result as the real ones do."""

import copy
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import nbformat
import yaml

from brainmets.engine.steps import STAGES
from brainmets.params import MODELS, PER_JOB
from brainmets.params.study import Study
from brainmets.paths import AFTER, NOTEBOOKS

REPOSITORY = Path(__file__).resolve().parents[2]

MODEL = """\
from pathlib import Path
from brainmets.params import {model}
from brainmets.paths import StudyPaths, resolve
from brainmets.provenance import Provenance
from brainmets.engine.steps import result
from brainmets.params.study import without_main
from brainmets.files import read_json
p = {model}.from_cell(globals())
files = StudyPaths(p.work_dir, p.study)
job = p.model_dump(include={{"cohort", "case", "arm", "strategy", "fold", "repeat", "training_cases"}})
job = without_main("{notebook}", job)
target = result(files, "{notebook}", job)
"""
WORK = """\
import os, time
print("epoch 1 of 1: loss 0.5")
count = files.work / ("ran_" + "_".join(["{notebook}", *map(str, job.values())]))
count.parent.mkdir(parents=True, exist_ok=True)
count.write_text(count.read_text() + "x" if count.exists() else "x")
"""
FAIL = """\
trap = Path("trap_" + "_".join(["{notebook}", *map(str, job.values())]))
trap_says = trap.read_text() if trap.exists() else ""
if trap_says == "raise": raise ValueError("the trap is set")
if trap_says == "sleep": time.sleep(60)
while trap_says == "wait" and trap.exists(): time.sleep(0.05)
if trap_says == "die": os._exit(9)
"""
RESULT = """\
root, folder = files.work, target.parent
if "case" in job:  # what notebook 00 writes lies in the cohort's folder
    root = resolve(p.declaration.folder)
    folder = root / job["case"]
record = Provenance("{notebook}", p.model_dump(mode="json"), root=root)
plan = files.preparation(job["cohort"]).plan if "case" in job else None
more = {{"files": read_json(plan)["cases"][job["case"]]["digest"]}} if plan and plan.is_file() else {{}}
table = folder / "numbers.csv"
table.parent.mkdir(parents=True, exist_ok=True)
_ = table.write_text("case,value\\nP01,0.5\\nP02,0.25\\n")
more |= {{"threads": os.environ["OMP_NUM_THREADS"], "slurm": os.environ.get("SLURM_JOB_ID")}}
_ = record.write(target, outputs=[table], **more)
"""


class FakeCheckout:
    """The checkout's folder, its study's files, and how to run ``brainmets`` in it; ``top``: of its parameters."""

    def __init__(self, root: Path, arms: tuple[str, ...] = ("default", "segresnet"), **top: Any) -> None:
        self.root = root
        self.params = root / "params" / "tiny.yaml"
        self.work = root / "work" / "tiny"
        (root / "notebooks").mkdir(parents=True)
        (root / "params").mkdir()
        (root / "workflow").symlink_to(REPOSITORY / "workflow")
        content = yaml.safe_load((REPOSITORY / "params" / "smoke.yaml").read_text())
        content["arms"] = {arm: content["arms"][arm] for arm in arms}
        content |= {"study": "tiny", "folds": [0], **top}
        del content["target"]["raw"]
        content["target"]["held_out"] = 2
        self.write(content)
        study = Study.read(self.params)
        for name in (*NOTEBOOKS, *AFTER):
            job = (study.jobs(name) or [dict.fromkeys(PER_JOB)])[0]
            values = study.values(name, **{key: job[key] for key in job if key in MODELS[name].model_fields})
            nbformat.write(_notebook(name, values), self.source(name))

    def at(self, root: Path) -> "FakeCheckout":
        """This checkout in another place, where it has been copied or moved to."""
        there = copy.copy(self)
        there.root, there.params = root, root / "params" / "tiny.yaml"
        there.work = root / "work" / "tiny"
        return there

    def source(self, name: str) -> Path:
        return self.root / "notebooks" / f"{name}.ipynb"

    def write(self, content: dict) -> None:
        self.params.write_text(yaml.safe_dump(content))

    def content(self) -> dict:
        return yaml.safe_load(self.params.read_text())

    def trap(self, step: str, what: str = "raise") -> Path:
        """Have the step fail ("raise"), take a minute ("sleep"), lose its kernel ("die") or "wait"; unlink to mend."""
        path = self.root / f"trap_{step}"
        path.write_text(what)
        return path

    def ran(self) -> dict[str, int]:
        """How often each step's work was done."""
        return {path.name.removeprefix("ran_"): len(path.read_text()) for path in self.work.glob("ran_*")}

    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not re.match("SLURM_|BRAINMETS_", name)}
        return {**kept, "PYTHONUNBUFFERED": "1"}

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "brainmets.cli", *words]

    def brainmets(self, *words: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*words),
            cwd=self.root,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    def start(self, *words: str) -> subprocess.Popen[str]:
        """``brainmets`` in the background, what it says in one pipe."""
        return subprocess.Popen(
            self.command(*words),
            cwd=self.root,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def study(self, *further: str) -> subprocess.CompletedProcess[str]:
        """Run the study up to notebook 08; the report has nothing to show of such a study."""
        return self.brainmets("study", "params/tiny.yaml", "--", *further, "statistics", "case_review")

    def remove(self) -> None:
        shutil.rmtree(self.work)


def _notebook(name: str, values: dict) -> nbformat.NotebookNode:
    words = {"notebook": name, "model": MODELS[name].__name__}
    parameters = nbformat.v4.new_code_cell("\n".join(f"{key} = {value!r}  # tiny" for key, value in values.items()))
    parameters.metadata["tags"] = ["parameters"]
    heading = "## Train" if name in STAGES else "## Work"
    cells = [nbformat.v4.new_markdown_cell(f"# What does {name} do?\n\n{heading}"), parameters]
    cells += [nbformat.v4.new_code_cell(source.format(**words)) for source in (MODEL, WORK, FAIL, RESULT)]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})


def steps(text: str) -> list[str]:
    """The steps that the study said it finished, in order."""
    return re.findall(r"^\[ *\d+ of \d+\] (\S+) finished", text, re.MULTILINE)


def wait_for(path: Path, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.05)
