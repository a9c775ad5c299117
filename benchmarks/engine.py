"""What does the engine cost a study? 450 sleeping trainings against the ideal schedule, and the cost of one step.

    OMP_NUM_THREADS=1 python benchmarks/engine.py --write

Three arms of 50 folds, each a pretraining, its fine-tuning and a training from scratch, go through `brainmets study`
with the Snakefile and the local profile as they are; only the command of a step is replaced, by a shell script that
sleeps and writes the step's result. The makespan, from the first training's start to the last one's end, stands beside
two others: the bound that no schedule can beat (total / slots, or the longest chain), and the ideal one, a schedule by
the Snakefile's priorities in which starting a step takes no time. Real trainings take minutes to days; here they are
scaled to seconds, so that the engine's cost weighs far more than it does in a study. ``--write`` keeps the tables in
benchmarks/results/engine.md.
"""

from __future__ import annotations

import argparse
import heapq
import os
import platform
import re
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).parents[1] / "tests" / "helpers"))
from fake_checkout import REPOSITORY, FakeCheckout

from brainmets.engine.steps import jobs, read_study, result
from brainmets.paths import StudyPaths
from brainmets.vocabulary import ARMS

RESULTS = Path(__file__).parent / "results" / "engine.md"
PRIORITIES = {"03_pretraining": 3, "04_fine_tuning": 2, "05_from_scratch": 1}
"""The Snakefile's; the higher goes first."""
HOURS = {"03_pretraining": 3.0, "04_fine_tuning": 1.5, "05_from_scratch": 1.5}
"""How long trainings take beside each other; only the proportions matter."""
SHORTEST_MEAN = 1.0
"""Seconds of a training, on average, at least: below it the study would measure the starting of shells."""
COMMAND = re.compile(r"^BRAINMETS = .*$", re.MULTILINE)
"""The Snakefile's line that is replaced: how a step calls brainmets."""
STEP = """\
#!/bin/sh
# notebook --threads COUNT NOTEBOOK PARAMS [KEY=VALUE ...]
name=$4
shift 5
for pair; do name="${{name}}_${{pair#*=}}"; done
read -r seconds result < "{plan}/$name"
read -r began rest < /proc/uptime
[ "$seconds" = 0 ] || sleep "$seconds"
echo '{{}}' > "$result"
read -r ended rest < /proc/uptime
echo "$began $ended" > "{times}/$name"
"""

Training = tuple[str, str, int]
"""Notebook, arm and fold."""


@dataclass
class Run:
    """One study: slots, what its trainings slept, and the makespan, all in seconds."""

    slots: int
    trainings: int
    total: float
    bound: float
    ideal: float
    makespan: float
    load: float  # of the machine, in the minute before

    @property
    def ratio(self) -> float:
        """Makespan over the ideal one."""
        return self.makespan / self.ideal


def durations(arms: tuple[str, ...], folds: int, mean: float, seed: int) -> dict[Training, float]:
    """Seconds of every training, drawn by seed (gamma, coefficient of variation 0.5), with ``mean`` over all."""
    random = np.random.default_rng(seed)
    drawn = {
        (notebook, arm, fold): hours * random.gamma(4.0, 0.25)
        for arm in arms
        for fold in range(folds)
        for notebook, hours in HOURS.items()
    }
    scale = mean / float(np.mean(list(drawn.values()))) if mean else 0.0
    return {training: round(scale * length, 2) for training, length in drawn.items()}


def lower_bound(lengths: dict[Training, float], slots: int) -> float:
    """No schedule is shorter: all slots busy all the time, or the longest pretraining with its fine-tuning."""
    chains = [
        length + lengths["04_fine_tuning", arm, fold]
        for (notebook, arm, fold), length in lengths.items()
        if notebook == "03_pretraining"
    ]
    return max(sum(lengths.values()) / slots, *chains, *lengths.values())


def ideal(lengths: dict[Training, float], slots: int) -> float:
    """Makespan of the schedule that always starts what has the highest priority and can start, in no time.

    Ties go to the training that was listed first.
    """
    order = {training: number for number, training in enumerate(lengths)}
    ready = [
        (-PRIORITIES[training[0]], order[training], training)
        for training in lengths
        if training[0] != "04_fine_tuning"
    ]
    heapq.heapify(ready)
    running: list[tuple[float, int, Training]] = []
    now = 0.0
    while ready or running:
        while ready and len(running) < slots:
            _, number, training = heapq.heappop(ready)
            heapq.heappush(running, (now + lengths[training], number, training))
        now, _, (notebook, arm, fold) = heapq.heappop(running)
        if notebook == "03_pretraining":
            after = ("04_fine_tuning", arm, fold)
            heapq.heappush(ready, (-PRIORITIES[after[0]], order[after], after))
    return now


def sleeping_study(folder: Path, arms: tuple[str, ...], folds: int, lengths: dict[Training, float]) -> FakeCheckout:
    """A checkout whose steps sleep: trainings as long as ``lengths`` says, other steps not at all."""
    checkout = FakeCheckout(folder / "checkout", arms=arms)
    content = checkout.content()
    content["folds"] = list(range(folds))
    content["audit"]["n_folds"] = folds
    for cohort in ("source", "target"):
        content[cohort]["phantoms"]["patients"] = 2 * folds
    checkout.write(content)
    plan, times = folder / "plan", folder / "times"
    plan.mkdir()
    times.mkdir()
    study = read_study(checkout.params)
    files = StudyPaths(str(checkout.root / "work"), "tiny")
    for notebook, job in jobs(study):
        name = "_".join([notebook, *map(str, job.values())])
        seconds = lengths.get((notebook, job.get("arm", ""), job.get("fold", -1)), 0)
        (plan / name).write_text(f"{seconds:g} {result(files, notebook, job)}\n")
    step = folder / "step"
    step.write_text(STEP.format(plan=plan, times=times))
    step.chmod(0o755)
    workflow = checkout.root / "workflow"
    workflow.unlink()  # a link to the repository's
    workflow.mkdir()
    (workflow / "profiles").symlink_to(REPOSITORY / "workflow" / "profiles")
    text = (REPOSITORY / "workflow" / "Snakefile").read_text(encoding="utf-8")
    text, found = COMMAND.subn(lambda _: f"BRAINMETS = {shlex.quote(str(step))!r}", text)
    assert found == 1, "the Snakefile calls brainmets otherwise now"
    (workflow / "Snakefile").write_text(text, encoding="utf-8")
    return checkout


def run(arms: tuple[str, ...], folds: int, slots: int, mean: float, seed: int = 11) -> Run:
    """Run a study of sleeping trainings of ``mean`` seconds on ``slots`` slots."""
    lengths = durations(arms, folds, mean, seed)
    with tempfile.TemporaryDirectory(prefix="brainmets_") as folder:
        checkout = sleeping_study(Path(folder), arms, folds, lengths)
        environment = checkout.environment() | {"BRAINMETS_DEVICES": ",".join(map(str, range(slots)))}
        load = os.getloadavg()[0]
        ended = subprocess.run(
            checkout.command("study", "params/tiny.yaml", "--", "statistics"),
            cwd=checkout.root, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if ended.returncode:
            raise RuntimeError(ended.stdout[-2000:] + ended.stderr[-2000:])
        times = [
            tuple(map(float, (Path(folder) / "times" / "_".join(map(str, training))).read_text().split()))
            for training in lengths
        ]
    makespan = max(end for _, end in times) - min(begin for begin, _ in times)
    best = (sum(lengths.values()), lower_bound(lengths, slots), ideal(lengths, slots))
    return Run(slots, len(lengths), *best, makespan, load)


def start_of_a_step(repeats: int) -> tuple[float, float]:
    """Wall seconds (median) and CPU seconds (mean) of `brainmets notebook` on a notebook that does nothing."""
    with tempfile.TemporaryDirectory(prefix="brainmets_") as folder:
        checkout = FakeCheckout(Path(folder) / "checkout", arms=("default",))

        def seconds(command: list[str]) -> float:
            began = time.monotonic()
            subprocess.run(command, cwd=checkout.root, env=checkout.environment(), capture_output=True, check=True)
            return time.monotonic() - began

        before = os.times()
        step = checkout.command("notebook", "--threads", "1", "01_data_audit", "params/tiny.yaml")
        median = statistics.median(seconds(step) for _ in range(repeats))
        after = os.times()
        cpu = after.children_user + after.children_system - before.children_user - before.children_system
        return median, cpu / repeats


def report(empty: Run, runs: list[Run], step: float, cpu: float) -> str:
    """The two tables with what they mean, in Markdown."""
    runs = sorted(runs, key=lambda one: one.slots)
    loads = sorted(one.load for one in runs)
    schedule = empty.makespan / empty.trainings
    lines = [
        f"Machine: {os.cpu_count()} cores, Python {platform.python_version()}, Snakemake {version('snakemake')}; load "
        f"average before each study {loads[0]:.1f} to {loads[-1]:.1f} (other programs were running).",
        "",
        f"## {runs[0].trainings} sleeping trainings",
        "",
        "Bound: total / slots, or the longest chain. Ideal: the schedule by the Snakefile's priorities, in which",
        "starting a step takes no time. Seconds; `mean` is a training's.",
        "",
        "| slots | mean (s) | bound (s) | ideal (s) | measured (s) | measured / ideal | measured / bound |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {one.slots} | {one.total / one.trainings:.2f} | {one.bound:.1f} | {one.ideal:.1f} | {one.makespan:.1f} "
        f"| {one.ratio:.3f} | {one.makespan / one.bound:.3f} |"
        for one in runs
    ]
    lines += [
        "",
        "## The engine's own cost a step",
        "",
        "| what | seconds |",
        "|---|---|",
        f"| scheduling and starting a step that does nothing (one slot, {empty.trainings} steps) | {schedule:.3f} |",
        f"| `brainmets notebook` on one that does nothing: interpreter, papermill, kernel, record | {step:.2f} |",
        f"| of it, CPU: what an idle machine takes | {cpu:.2f} |",
        "",
        f"Together {schedule + step:.1f} s a step: {100 * (schedule + step) / 3600:.2f}% of a training of one hour.",
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure, print two tables, and keep them with ``--write``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folds", type=int, default=50, help="of each arm (default: %(default)s)")
    parser.add_argument("--slots", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--seconds", type=float, default=180, help="of each study, at least (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="of a step's start (default: %(default)s)")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    trainings = 3 * len(ARMS) * arguments.folds
    step, cpu = start_of_a_step(arguments.repeats)
    empty = run(ARMS, arguments.folds, 1, 0)
    means = {slots: max(SHORTEST_MEAN, arguments.seconds * slots / trainings) for slots in arguments.slots}
    runs = []
    for slots, mean in means.items():
        runs.append(run(ARMS, arguments.folds, slots, mean))
        print(runs[-1], flush=True)
    text = report(empty, runs, step, cpu)
    print(text)
    if arguments.write:
        command = "Repeat with:\n\n```\nOMP_NUM_THREADS=1 python benchmarks/engine.py --write\n```"
        RESULTS.write_text(f"# The engine\n\n{command}\n\n{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
