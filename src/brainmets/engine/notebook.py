"""Run one notebook through papermill with a study's parameters: one step of a study.

The executed copy and its log lie in the study's ``runs/``. A copy moves there only when the whole notebook has run;
while it runs it lies in ``runs/running/``, and where it failed in ``runs/failed/`` under its time, the newest three of
each step.
"""

from __future__ import annotations

import ast
import difflib
import json
import os
import re
import signal
import sys
import time
from contextlib import chdir
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import nbformat
import papermill
import zmq
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError

from brainmets.engine.devices import DEVICES_VARIABLE, cpu_cores, cuda_devices, free_device, set_threads
from brainmets.engine.progress import Journal, StepError, disk_note, logged
from brainmets.engine.steps import SHOWS_HEADS, STAGES, command, shown, step_name
from brainmets.params import MAIN, MODELS, PER_JOB, ParameterError, closest
from brainmets.params.study import Study
from brainmets.paths import StudyPaths, project_root
from brainmets.processes import locked

KEPT_FAILURES = 3
"""How many executed copies of a step's failures are kept: the newest."""
STARTS = 3
"""How often a kernel is started that ends before its first word: between the choice of its ports and its start another
program may have taken one of them."""
ON_DEVICE = ("03_pretraining", "04_fine_tuning", "05_from_scratch", "06_evaluation", "09_screening")
"""Notebooks that compute on a GPU where there is one."""


class EnvironmentKernel(AsyncKernelManager):
    """The kernel of this very interpreter, whatever kernel named python3 the user has installed elsewhere."""

    running: EnvironmentKernel | None = None

    def __init__(self, **traits: Any) -> None:
        # other users of the machine must not read along; only an odd build of ZeroMQ cannot encrypt
        super().__init__(transport_encryption="auto" if zmq.has("curve") else "disabled", **traits)

    @property
    def kernel_spec(self) -> KernelSpec:
        """A kernel that ends with this process."""
        start = (
            "from brainmets.processes import end_with_parent; end_with_parent(); "
            "from ipykernel.kernelapp import launch_new_instance; launch_new_instance()"
        )
        EnvironmentKernel.running = self
        argv = [sys.executable, "-c", start, "-f", "{connection_file}"]
        metadata = {"supported_encryption": ["curve"]}
        return KernelSpec(argv=argv, display_name="Python 3", language="python", metadata=metadata)

    async def _async_interrupt_kernel(self) -> None:
        """At its end a kernel needs no interrupt: it would log one, as if the user had pressed Ctrl-C."""
        if not self.shutting_down:
            await super()._async_interrupt_kernel()


def find(name: str) -> str:
    """The notebook meant by ``03_pretraining``, ``03``, ``pretraining`` or ``notebooks/03_pretraining.ipynb``.

    Raises ``ParameterError`` with the closest name where there is none.
    """
    stem = Path(name).name.removesuffix(".ipynb")
    for notebook in MODELS:
        if stem in (notebook, notebook[:2], notebook[3:]):
            return notebook
    near = difflib.get_close_matches(stem, [*MODELS, *(notebook[3:] for notebook in MODELS)], n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(MODELS)}"
    raise ParameterError(f"{name!r} is no notebook of this study; {hint}")


def declared(path: Path) -> dict[str, Any]:
    """Names and values of a notebook's ``parameters`` cell, in order.

    Raises ``ParameterError`` naming the notebook where there is not exactly one such cell or it holds anything but
    assignments of literals.
    """
    if not path.is_file():
        raise ParameterError(f"{shown(path)}: there is no such notebook")
    cells = nbformat.read(path, as_version=4).cells
    tagged = [cell for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    if len(tagged) != 1:
        raise ParameterError(f"{shown(path)}: {len(tagged)} cells are tagged 'parameters'; there must be one")
    found = {}
    try:
        for statement in ast.parse(tagged[0].source).body:
            if not isinstance(statement, ast.Assign) or len(statement.targets) != 1:
                raise ValueError(f"{ast.unparse(statement)!r} is no plain assignment")
            target = statement.targets[0]
            found[ast.unparse(target)] = ast.literal_eval(statement.value)
    except (SyntaxError, ValueError) as error:
        raise ParameterError(f"{shown(path)}: its parameters cell must hold literals alone ({error})") from None
    return found


def check_declared(path: Path, names: set[str]) -> None:
    """Refuse a notebook whose ``parameters`` cell declares other names than ``names``.

    Papermill itself only warns of such a name, and the notebook would run on its default.
    """
    own = set(declared(path))
    problems = [f"{name} is missing" for name in sorted(names - own)]
    problems += [f"{name} is unknown{closest(name, sorted(names))}" for name in sorted(own - names)]
    if problems:
        raise ParameterError(f"{shown(path)}, cell 'parameters': {', '.join(problems)}")


def job_of(study: Study, notebook: str, given: dict[str, Any]) -> dict[str, Any]:
    """Arm, fold, strategy and branch out of ``given`` as one of the study's jobs of ``notebook``.

    What is given as the main branch has it anyhow (``repeat=1``) names that branch, as leaving it out does. Raises
    ``ParameterError`` that lists what can be chosen where one is missing, is not the study's or is not needed.
    """
    jobs = study.jobs(notebook)
    if not jobs and notebook in STAGES:
        raise ParameterError(
            f"{notebook} trains nothing of this study, whose strategies are {', '.join(study.strategies)}"
        )
    needed, main = list(jobs[0]), MAIN.get(notebook, {})
    times = f"once per {' and '.join(needed) or 'study'}"
    named = {name: given[name] for name in PER_JOB if name in given}
    if stray := [name for name in named if name not in needed and name not in main]:
        raise ParameterError(f"{notebook} takes no {' or '.join(stray)}: it runs {times}")
    job = {name: value for name, value in named.items() if name not in main or value != main[name]}
    if job not in jobs:
        choices = " ".join(f"{name}={_choices(jobs, name)}" for name in needed)
        others = " ".join(f"[{name}={_choices(jobs, name)}]" for name in main if any(name in one for one in jobs))
        wrong = " ".join(f"{name}={value}" for name, value in named.items()) or "nothing"
        raise ParameterError(f"{notebook} runs {times}: choose {' '.join((choices, others)).strip()} (given: {wrong})")
    return job


def _choices(jobs: list[dict[str, Any]], name: str) -> str:
    return "|".join(dict.fromkeys(str(one[name]) for one in jobs if name in one))


def run(study: Study, notebook: str, given: dict[str, Any], threads: int | None = None) -> Path:
    """Execute one job of ``notebook`` and return the executed copy.

    ``given`` holds arm, fold and strategy as the notebook needs them, and any parameter that is to differ from the
    study's. ``threads`` limits the numeric libraries; all cores by default. Raises ``ParameterError`` before any
    work, ``BusyError`` where the same step is running, ``StepError`` where the notebook fails.
    """
    job = job_of(study, notebook, given)
    values = study.values(notebook, **{**given, **job})
    model = study.notebook(notebook, **{**given, **job})
    source = project_root() / "notebooks" / f"{notebook}.ipynb"
    check_declared(source, set(values))

    files = StudyPaths(model.work_dir, model.study)
    step = step_name(notebook, job)
    if given.get("out_dir"):
        step += "_elsewhere"  # its results are not the study's: neither is the executed copy that the report shows
    pairs = (f"{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in given.items())
    again = command("notebook", notebook, study.origin, *pairs)
    with (
        locked(files.step_lock(step), f"step {step} of study {model.study}"),
        logged(files.runs / f"{step}.log", again) as journal,
    ):
        execution = _Execution(journal, source, files.runs / "running" / f"{step}.ipynb", again)
        set_threads(threads or cpu_cores())
        with free_device(_devices(notebook), lambda text: journal.mark(f"note: {text}")) as device:
            if device is not None:
                os.environ["CUDA_VISIBLE_DEVICES"] = device
            execution.run(values)
        return execution.copy.replace(files.runs / f"{step}.ipynb")


class _Execution:
    """One notebook that is being executed: where its copy lies, and what is reported and kept if it fails."""

    def __init__(self, journal: Journal, source: Path, copy: Path, again: str) -> None:
        self.journal = journal
        self.source = source
        self.copy = copy
        self.again = again
        self.began = time.monotonic()

    def run(self, values: dict[str, Any]) -> None:
        """Execute the notebook with ``values``; ``StepError`` where it fails.

        On SIGTERM or Ctrl-C (a time limit, a cancelled job) keep the copy, end the kernel and leave at once: leaving
        by an exception would let papermill stamp the unfinished cells as completed.
        """
        self.copy.parent.mkdir(exist_ok=True)
        if self.copy.stem.startswith(SHOWS_HEADS):
            self.copy.unlink(missing_ok=True)
            self.copy.touch(mode=0o600)  # papermill writes into the file that is there
        before = {number: signal.signal(number, self._leave) for number in (signal.SIGTERM, signal.SIGINT)}
        self.began = time.monotonic()
        try:
            for attempt in range(1, STARTS + 1):
                try:
                    self._execute(values)
                except RuntimeError as error:
                    if "before replying to kernel_info" not in str(error) or attempt == STARTS:
                        raise
                    self.journal.mark(f"note: the kernel ended before its first word; start {attempt + 1} of {STARTS}")
                else:
                    break
        except (PapermillExecutionError, DeadKernelError) as error:
            if isinstance(error, PapermillExecutionError):
                self._failed(f"{error.ename}: {error.evalue}", error.cell_index + 2)  # papermill has put two before it
            else:
                self._failed(f"{error} (killed, or out of memory?)")
            raise StepError(f"{self.copy.stem} failed; see {shown(self.journal.path)}") from error
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _execute(self, values: dict[str, Any]) -> None:
        with chdir(project_root()):  # the kernel's folder; and the copy names its files from there, not absolutely
            papermill.execute_notebook(
                shown(self.source),
                shown(self.copy),
                parameters=values,
                kernel_name="python3",
                language="python",
                progress_bar=False,
                stdout_file=self.journal,
                stderr_file=self.journal,
                autosave_cell_every=30,
                kernel_manager_class=EnvironmentKernel,
            )

    def _leave(self, number: int, frame: FrameType | None) -> NoReturn:
        self._failed(f"ended by {signal.Signals(number).name} (a time limit, a cancelled job or Ctrl-C)")
        kernel = EnvironmentKernel.running
        process = getattr(kernel.provisioner, "process", None) if kernel else None
        if process is not None and process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)  # the kernel leads a group of its own, its workers included
        os._exit(128 + number)

    def _failed(self, error: str, index: int | None = None) -> None:
        """Report the failure in the cell at ``index``, or in the last one that was started, and keep the copy."""
        details = {"notebook": shown(self.source), "cell": _cell(self.copy, index), "error": error}
        details |= disk_note(self.copy.parent, error)
        details |= {"executed": self._keep(), "log": shown(self.journal.path), "run again": self.again}
        self.journal.failed(time.monotonic() - self.began, details)

    def _keep(self) -> str:
        """Move the copy of a failed notebook where no retry overwrites it; its new place."""
        if not self.copy.is_file():
            return "no copy was written"
        kept = self.copy.parents[1] / "failed" / f"{self.copy.stem}.{datetime.now():%Y%m%dT%H%M%S}.ipynb"
        kept.parent.mkdir(exist_ok=True)
        self.copy.replace(kept)
        forget_older(kept.parent, self.copy.stem)
        return shown(kept)


def forget_older(folder: Path, step: str) -> None:
    """Delete all but the newest copies of this step's failures, by the time in their names."""
    name = re.compile(re.escape(step) + r"\.\d{8}T\d{6}\.ipynb")
    copies = sorted(path for path in folder.iterdir() if name.fullmatch(path.name))
    for path in copies[:-KEPT_FAILURES]:
        path.unlink(missing_ok=True)


def _cell(executed: Path, index: int | None) -> str:
    """The cell at ``index``, or the last one that was started, under its heading and with its first line."""
    cells = nbformat.read(executed, as_version=4).cells if executed.is_file() else []
    if index is None:
        begun = [i for i, cell in enumerate(cells) if cell.metadata.get("papermill", {}).get("start_time")]
        if not begun:
            return "none was started"
        index = begun[-1]
    text = "\n".join(cell.source for cell in cells[:index] if cell.cell_type == "markdown")
    headings = [line.lstrip("# ") for line in text.splitlines() if line.startswith("#")]
    number = cells[index].get("execution_count") or sum(cell.cell_type == "code" for cell in cells[: index + 1])
    first = next((line for line in cells[index].source.splitlines() if line.strip()), "")
    return f"[{number}]" + (f" under {headings[-1]!r}" if headings else "") + f": {first}"


def _devices(notebook: str) -> list[str]:
    """The GPUs to choose from: none for a notebook that needs none, or where a scheduler has chosen already."""
    chosen = DEVICES_VARIABLE not in os.environ and "SLURM_JOB_ID" in os.environ
    return cuda_devices() if notebook in ON_DEVICE and not chosen else []
