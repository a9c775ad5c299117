"""One notebook through papermill: ``brainmets notebook``."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from fake_checkout import FakeCheckout, wait_for

from brainmets import processes
from brainmets.engine import devices
from brainmets.engine.devices import cpu_cores, cuda_devices, free_device
from brainmets.engine.notebook import check_declared, declared, find, job_of
from brainmets.engine.progress import Journal, Progress, Tail
from brainmets.engine.steps import decisive, set_aside_others, step_name
from brainmets.params import ParameterError
from brainmets.params.study import Study
from brainmets.paths import StudyPaths
from brainmets.processes import BusyError, locked

STEP = "03_pretraining_default_fold_0"


# --- names


@pytest.mark.parametrize("name", ["03_pretraining", "03", "pretraining", "notebooks/03_pretraining.ipynb"])
def test_a_notebook_has_several_names(name: str) -> None:
    assert find(name) == "03_pretraining"


def test_a_misspelt_notebook_is_refused_with_the_closest() -> None:
    with pytest.raises(ParameterError, match="'pretrainng' is no notebook of this study; did you mean 'pretraining'"):
        find("pretrainng")


def test_step_names() -> None:
    assert step_name("01_data_audit", {}) == "01_data_audit"
    assert step_name("03_pretraining", {"arm": "default", "fold": 2}) == "03_pretraining_default_fold_2"
    assert step_name("06_evaluation", {"arm": "default", "strategy": "scratch"}) == "06_evaluation_default_scratch"


def test_jobs_are_chosen_from_the_study(checkout: FakeCheckout) -> None:
    study = Study.read(checkout.params)
    assert job_of(study, "03_pretraining", {"arm": "default", "fold": 0, "epochs": 1}) == {"arm": "default", "fold": 0}
    with pytest.raises(ParameterError, match=r"choose arm=default\|segresnet fold=0 \(given: nothing\)"):
        job_of(study, "03_pretraining", {})
    with pytest.raises(ParameterError, match="given: arm=tversky_bce fold=0"):
        job_of(study, "03_pretraining", {"arm": "tversky_bce", "fold": 0})
    with pytest.raises(ParameterError, match="01_data_audit takes no fold: it runs once per study"):
        job_of(study, "01_data_audit", {"fold": 0})


def test_other_arms_and_worker_counts_decide_nothing() -> None:
    values = {"arm": "default", "arms": {"default": {"learning_rate": 1}, "segresnet": {}}, "workers": 3, "epochs": 2}
    assert decisive(values) == {"arm": "default", "arms": {"default": {"learning_rate": 1}}, "epochs": 2}


# --- the parameters cell


def write_parameters(path: Path, *sources: str) -> Path:
    cells = [nbformat.v4.new_code_cell(source, metadata={"tags": ["parameters"]}) for source in sources]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return path


def test_declared_parameters(tmp_path: Path) -> None:
    path = write_parameters(tmp_path / "a.ipynb", "x = 1  # unit\ny = {\n    'a': [1, None],\n}  # several lines")
    assert declared(path) == {"x": 1, "y": {"a": [1, None]}}
    check_declared(path, {"x", "y"})


def test_declared_names_must_be_those_of_the_model(tmp_path: Path) -> None:
    path = write_parameters(tmp_path / "a.ipynb", "epoch = 1\nseed = 2")
    with pytest.raises(ParameterError) as error:
        check_declared(path, {"epochs", "seed"})
    assert "a.ipynb, cell 'parameters': epochs is missing, epoch is unknown; did you mean 'epochs'?" in str(
        error.value
    )


@pytest.mark.parametrize("source", ["x = 1 + y", "x = y = 1", "print(1)", "x: int = 1", "x ="])
def test_parameters_must_be_literals(tmp_path: Path, source: str) -> None:
    with pytest.raises(ParameterError, match="must hold literals alone"):
        declared(write_parameters(tmp_path / "a.ipynb", source))


def test_there_must_be_one_parameters_cell(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="2 cells are tagged 'parameters'"):
        declared(write_parameters(tmp_path / "a.ipynb", "x = 1", "y = 1"))
    with pytest.raises(ParameterError, match="there is no such notebook"):
        declared(tmp_path / "none.ipynb")


# --- a run


def test_a_run_writes_result_executed_copy_and_log(checkout: FakeCheckout) -> None:
    ended = checkout.brainmets("notebook", "pretraining", "params/tiny.yaml", "arm=default", "fold=0", "epochs=7")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert f"executed copy: work/tiny/runs/{STEP}.ipynb" in ended.stdout
    result = json.loads((checkout.work / "training/pretraining/default/fold_0/training.json").read_text())
    assert result["provenance"]["parameters"]["epochs"] == 7
    assert result["provenance"]["parameters"]["arm"] == "default"
    assert result["threads"] == str(cpu_cores())
    assert "Passed unknown parameter" not in ended.stderr

    executed = nbformat.read(checkout.work / "runs" / f"{STEP}.ipynb", as_version=4)
    assert executed.metadata.papermill.exception is None
    assert str(checkout.root) not in json.dumps(executed.metadata.papermill)
    log = (checkout.work / "runs" / f"{STEP}.log").read_text()
    assert "epoch 1 of 1: loss 0.5" in log
    assert "== finished in" in log
    assert not list((checkout.work / "runs").glob("failed/*"))


def test_a_run_that_writes_elsewhere_leaves_the_studys_executed_copy_alone(checkout: FakeCheckout) -> None:
    ended = checkout.brainmets("notebook", "07", "params/tiny.yaml", "out_dir=elsewhere")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    runs = StudyPaths(str(checkout.work.parent), "tiny").runs
    assert [path.name for path in runs.glob("*.ipynb")] == ["07_statistics_elsewhere.ipynb"]


def test_threads_are_those_asked_for(checkout: FakeCheckout) -> None:
    ended = checkout.brainmets("notebook", "--threads", "1", "01", "params/tiny.yaml")
    assert ended.returncode == 0, ended.stderr
    assert json.loads((checkout.work / "audit/audit.json").read_text())["threads"] == "1"


def test_it_runs_from_a_folder_below_the_checkout(checkout: FakeCheckout) -> None:
    command = checkout.command("notebook", "01", "../params/tiny.yaml")
    environment = checkout.environment()
    ended = subprocess.run(
        command, cwd=checkout.root / "notebooks", env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert (checkout.work / "audit/audit.json").is_file()


@pytest.mark.slow
def test_the_kernel_is_this_environments_own(checkout: FakeCheckout, tmp_path: Path) -> None:
    shadow = tmp_path / "jupyter" / "kernels" / "python3"
    shadow.mkdir(parents=True)
    spec = {"argv": ["/bin/false", "{connection_file}"], "display_name": "another", "language": "python"}
    (shadow / "kernel.json").write_text(json.dumps(spec))
    source = checkout.source("01_data_audit")
    notebook = nbformat.read(source, as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell("import sys; print('the kernel is', sys.executable)"))
    nbformat.write(notebook, source)
    environment = {**checkout.environment(), "JUPYTER_PATH": str(shadow.parent.parent)}
    command = checkout.command("notebook", "01", "params/tiny.yaml")
    ended = subprocess.run(command, cwd=checkout.root, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert f"the kernel is {sys.executable}" in ended.stdout


def test_papermill_by_hand_works_too(checkout: FakeCheckout, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "papermill", "notebooks/03_pretraining.ipynb", str(tmp_path / "out.ipynb")]
    command += ["-k", "python3", "-p", "arm", "segresnet", "-p", "fold", "1", "-p", "epochs", "3"]
    environment = {**checkout.environment(), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, cwd=checkout.root, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    result = json.loads((checkout.work / "training/pretraining/segresnet/fold_1/training.json").read_text())
    assert result["provenance"]["parameters"]["epochs"] == 3


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("01", "params/tiny.yaml", "sed=4"), "sed: unknown parameter; did you mean 'seed'?"),
        (("01", "params/tiny.yaml", "n_folds=1"), "n_folds: 1 must be a whole number from 2 to 100 ("),
        (("01", "params/tiny.yaml", "seed"), "'seed' must be key=value"),
        (("01", "params/none.yaml"), "params/none.yaml: there is no such parameters file"),
        (("10", "params/tiny.yaml"), "'10' is no notebook of this study"),
        (("03", "params/tiny.yaml"), "03_pretraining runs once per arm and fold: choose arm="),
    ],
)
def test_a_wrong_request_stops_before_any_work(checkout: FakeCheckout, words: tuple[str, ...], expected: str) -> None:
    ended = checkout.brainmets("notebook", *words)
    assert ended.returncode == 2
    assert expected in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not checkout.work.exists()


def test_a_failure_names_cell_log_and_command(checkout: FakeCheckout) -> None:
    checkout.trap("03_pretraining_default_0")
    ended = checkout.brainmets("notebook", "03", "params/tiny.yaml", "arm=default", "fold=0")
    assert ended.returncode == 1
    log = (checkout.work / "runs" / f"{STEP}.log").read_text()
    for text in (ended.stdout, log):
        assert "notebook   notebooks/03_pretraining.ipynb" in text
        assert "cell       [5] under 'Train': trap = " in text
        assert "error      ValueError: the trap is set" in text
        assert f"log        work/tiny/runs/{STEP}.log" in text
        assert "notebook 03_pretraining params/tiny.yaml arm=default fold=0" in text
    (kept,) = (checkout.work / "runs" / "failed").glob(f"{STEP}.*.ipynb")
    assert "the trap is set" in kept.read_text()
    assert not (checkout.work / "runs" / f"{STEP}.ipynb").exists()
    assert not list(checkout.work.glob("training/**/training.json"))


def test_a_kernel_that_dies_is_a_failure(checkout: FakeCheckout) -> None:
    checkout.trap("01_data_audit", "die")
    ended = checkout.brainmets("notebook", "01", "params/tiny.yaml")
    assert ended.returncode == 1
    assert "out of memory?" in ended.stdout
    assert "cell       [5] under 'Work': trap = " in ended.stdout


PORT_IS_TAKEN = """\
import socket
import sys
from brainmets.cli import main
from brainmets.engine.notebook import EnvironmentKernel
launch, taken = EnvironmentKernel._async_launch_kernel, []
async def after_another(kernel, *arguments, **options):
    if len(taken) < int(sys.argv[1]):
        taken.append(socket.create_server((kernel.ip, kernel.shell_port)))
    await launch(kernel, *arguments, **options)
EnvironmentKernel._async_launch_kernel = after_another
sys.exit(main(["notebook", "01", "params/tiny.yaml"]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("times", "status"), [(1, 0), (3, 1)])
def test_a_port_that_another_program_took_meanwhile_costs_a_new_start(
    checkout: FakeCheckout, times: int, status: int
) -> None:
    command = [sys.executable, "-c", PORT_IS_TAKEN, str(times)]
    ended = subprocess.run(command, cwd=checkout.root, env=checkout.environment(), capture_output=True, text=True)
    assert ended.returncode == status, ended.stdout + ended.stderr
    assert "the kernel ended before its first word; start 2 of 3" in ended.stdout
    assert ("start 3 of 3" in ended.stdout) == bool(status)
    assert (checkout.work / "runs" / "01_data_audit.ipynb").exists() == (not status)


SLOW_TO_SETTLE = """\
import inspect, time
kernel = get_ipython().kernel
reply = kernel.shell_handlers["kernel_info_request"]
async def slow(*message):
    answer = reply(*message)
    if inspect.isawaitable(answer): await answer
    time.sleep(1)
kernel.shell_handlers["kernel_info_request"] = slow
"""


@pytest.mark.slow
@pytest.mark.parametrize("fails", [False, True])
def test_a_kernel_that_ends_with_its_notebook_logs_no_interrupt(checkout: FakeCheckout, fails: bool) -> None:
    """Papermill's last question is answered while the kernel still works at it: then it is shut down."""
    source = checkout.source("01_data_audit")
    notebook = nbformat.read(source, as_version=4)
    notebook.cells.insert(3, nbformat.v4.new_code_cell(SLOW_TO_SETTLE))
    nbformat.write(notebook, source)
    if fails:
        checkout.trap("01_data_audit")
    ended = checkout.brainmets("notebook", "01", "params/tiny.yaml")
    assert ended.returncode == int(fails)
    assert "KeyboardInterrupt" not in ended.stdout + ended.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_terminated_run_keeps_its_copy_and_leaves_no_kernel(checkout: FakeCheckout, number: signal.Signals) -> None:
    checkout.trap("01_data_audit", "sleep")
    kernel_id = add_kernel_id(checkout)
    command = checkout.command("notebook", "01", "params/tiny.yaml")
    run = subprocess.Popen(command, cwd=checkout.root, env=checkout.environment(), stdout=subprocess.PIPE, text=True)
    wait_for(kernel_id)
    time.sleep(1)
    run.send_signal(number)
    text, _ = run.communicate(timeout=30)
    assert run.returncode == 128 + number
    assert f"ended by {number.name}" in text
    (kept,) = (checkout.work / "runs" / "failed").glob("*.ipynb")
    states = [cell.metadata.papermill.status for cell in nbformat.read(kept, as_version=4).cells]
    assert states[-1] != "completed", "papermill stamped a cell that never ran"
    assert ended(int(kernel_id.read_text()))


def test_a_killed_run_takes_its_kernel_with_it(checkout: FakeCheckout) -> None:
    checkout.trap("01_data_audit", "sleep")
    kernel_id = add_kernel_id(checkout)
    command = checkout.command("notebook", "01", "params/tiny.yaml")
    run = subprocess.Popen(command, cwd=checkout.root, env=checkout.environment(), stdout=subprocess.DEVNULL)
    wait_for(kernel_id)
    run.kill()
    run.wait(timeout=30)
    assert ended(int(kernel_id.read_text()))


def add_kernel_id(checkout: FakeCheckout) -> Path:
    """Have notebook 01 write its kernel's process number to a file, and give the file."""
    source = checkout.source("01_data_audit")
    notebook = nbformat.read(source, as_version=4)
    program = "import os\n_ = Path('kernel.tmp').write_text(str(os.getpid()))\nos.rename('kernel.tmp', 'kernel')"
    notebook.cells.insert(3, nbformat.v4.new_code_cell(program))
    nbformat.write(notebook, source)
    return checkout.root / "kernel"


def ended(process: int, seconds: float = 10) -> bool:
    """Whether the process ends within ``seconds``; one that waits to be reaped has ended."""
    status = Path(f"/proc/{process}/status")
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if "\nState:\tZ" in status.read_text():
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.1)
    return False


def test_the_same_step_does_not_run_twice_at_a_time(checkout: FakeCheckout) -> None:
    with locked(checkout.work / "runs" / ".01_data_audit.lock", "it"):
        ended = checkout.brainmets("notebook", "01", "params/tiny.yaml")
    assert ended.returncode == 2
    assert f"step 01_data_audit of study tiny is in use by another process (process {os.getpid()}" in ended.stderr


# --- locks, devices, logs


def test_a_lock_ends_with_its_block(tmp_path: Path) -> None:
    for _ in range(2):
        with locked(tmp_path / "lock", "x"), pytest.raises(BusyError, match="x is in use by another process"):
            locked(tmp_path / "lock", "x").__enter__()


def test_two_jobs_take_two_devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes.tempfile, "gettempdir", lambda: str(tmp_path))
    said: list[str] = []
    with free_device(["0", "1"], said.append) as first, free_device(["0", "1"], said.append) as second:
        assert (first, second) == ("0", "1")
    assert said == []
    with free_device([], said.append) as none:
        assert none is None


def test_a_job_waits_for_a_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes.tempfile, "gettempdir", lambda: str(tmp_path))
    said: list[str] = []
    holder = free_device(["0"], said.append)
    holder.__enter__()
    monkeypatch.setattr(devices.time, "sleep", lambda _: holder.__exit__(None, None, None))
    with free_device(["0"], said.append) as device:
        assert device == "0"
    assert said == ["waiting for a free GPU of 0"]


@pytest.mark.parametrize(
    ("value", "expected"), [("0,1", ["0", "1"]), ("", []), ("-1", []), ("GPU-ab, 3", ["GPU-ab", "3"])]
)
def test_devices_that_a_study_shares_out(monkeypatch: pytest.MonkeyPatch, value: str, expected: list[str]) -> None:
    monkeypatch.setenv("BRAINMETS_DEVICES", value)
    assert cuda_devices() == expected


def test_a_reader_follows_a_log_line_by_line(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text("epoch 1 of 9: before the reader came\n")
    tail = Tail(tmp_path, "*.log")
    with (tmp_path / "null").open("w") as echo:
        journal = Journal(tmp_path / "a.log", echo)
        journal.mark("started: brainmets notebook a")
        journal.write("some text\nepoch 2 of 9: lo")
        journal.flush()
        assert list(tail.lines()) == [("a", "== started: brainmets notebook a"), ("a", "some text")]
        journal.write("ss 0.5\nunfinished")
        journal.failed(2.0, {"cell": "[3]: a\n\n  b\n", "run again": "brainmets"})
        journal.close()
    assert [line for _, line in tail.lines()] == [
        "epoch 2 of 9: loss 0.5",
        "unfinished",
        "== failed after 2.0 s",
        "==   cell       [3]: a",
        "==                b",
        "==   run again  brainmets",
    ]
    assert list(tail.lines()) == []


@pytest.fixture
def followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., list[str]]:
    """Shows the progress of a study of two audits in which an event or a log's lines are added; gives what it said."""
    monkeypatch.setenv("BRAINMETS_ROOT", str(tmp_path))
    runs = StudyPaths("work", "tiny").runs
    runs.mkdir(parents=True)
    progress = Progress(StudyPaths("work", "tiny"), "params/tiny.yaml")

    def add(log: str = "", status: int | None = None, **event: Any) -> list[str]:
        with (runs / "01_data_audit.log").open("a") as file:
            file.write(log)
        with (runs / "snakemake.jsonl").open("a") as file:
            file.write(json.dumps(event) + "\n" if event else "")
        progress.update()
        if status is not None:
            assert progress.close(status, {}) == status
        return capsys.readouterr().out.splitlines()

    add(event="run_info", stats={"audit": 1, "alignment": 1, "all": 1, "total": 3})
    add(event="job_info", jobid=4, rule_name="audit", wildcards={})
    return add


def test_snakemakes_events_count_the_steps_and_the_log_gives_the_seconds(followed: Callable[..., list[str]]) -> None:
    assert followed("== started now: brainmets\nepoch 1 of 2: loss 1\n") == ["  01_data_audit: epoch 1 of 2: loss 1"]
    assert followed("== finished in 1.5 s\n") == [], "Snakemake has not taken the result yet"
    assert followed(event="job_finished", job_id=4) == [
        "[ 1 of 2] 01_data_audit finished in 1.5 s; 0:00 since the start"
    ]
    assert followed(status=0) == ["study tiny is finished, in 0:00."]


def test_lines_that_are_no_events_are_passed_over(followed: Callable[..., list[str]]) -> None:
    """A full disk or a power cut leaves half a line; who follows the study must not fall over it."""
    events = StudyPaths("work", "tiny").runs / "snakemake.jsonl"
    with events.open("ab") as file:
        file.write(b'{"event": "job_fin\n[1]\nnull\n3\n\xff\xfe\n{"event": []}\n{"event": "job_error"}\n')
        file.write(b'{"event": "run_info", "stats": 3}\n' + b"[" * 100_000 + b"\n")
    assert followed(event="job_finished", job_id=4) == ["[ 1 of 2] 01_data_audit finished; 0:00 since the start"]
    assert Progress.joined(StudyPaths("work", "tiny"), "params/tiny.yaml", "local").done == 1


def test_a_job_that_is_killed_is_reported_at_once_with_the_schedulers_reason(
    followed: Callable[..., list[str]],
) -> None:
    followed("== started now: brainmets\n")
    assert followed(event="job_error", jobid=4, rule_msg="SLURM-job '7' failed, SLURM status is: 'TIMEOUT'.") == [
        "FAILED: 01_data_audit stopped without an error message: killed, out of memory, or past a time limit?",
        "    error      SLURM-job '7' failed, SLURM status is: 'TIMEOUT'.",
        "    log        work/tiny/runs/01_data_audit.log",
    ]
    first, second = followed(status=1)
    assert first == "study tiny: 0 of 2 steps done, 1 failed: 01_data_audit."
    assert second.startswith("Fix the cause, then run this to continue: ")


def test_a_failure_is_reported_once_and_a_retry_that_succeeds_is_none(followed: Callable[..., list[str]]) -> None:
    failed = "== failed after 2.0 s\n==   cell  [3]: a\n"
    assert followed("== started now: brainmets\n" + failed) == [
        "FAILED: 01_data_audit after 2.0 s",
        "    cell  [3]: a",
    ]
    assert followed(event="job_error", jobid=4, rule_msg=None) == []
    followed("== started now: brainmets\n== finished in 1.0 s\n", event="job_finished", job_id=4)
    followed(event="job_info", jobid=5, rule_name="alignment", wildcards={})
    followed(event="job_error", jobid=5, rule_msg=None)
    assert followed(status=1)[0] == "study tiny: 1 of 2 steps done, 1 failed: 02_plan_alignment."


def test_a_driver_without_a_usable_gpu_is_mentioned(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(devices.DEVICES_VARIABLE, raising=False)
    monkeypatch.setattr(devices, "DEVICE_FILES", (str(tmp_path / "nvidiactl"),))
    assert [devices.in_words(found) for found in ([], ["0"], ["0", "1"])] == ["no GPU", "1 GPU", "2 GPUs"]
    (tmp_path / "nvidiactl").touch()
    assert "no GPU that torch can use, though a driver is there" in devices.in_words([])
    monkeypatch.setenv(devices.DEVICES_VARIABLE, "")
    assert "though a driver is there" in devices.in_words([])


def test_an_arm_that_is_dropped_is_read_by_no_later_step(
    checkout: FakeCheckout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BRAINMETS_ROOT", str(checkout.root))
    study = Study.read(checkout.params)
    files = StudyPaths("work", "tiny")
    for arm in ("default", "segresnet", "tversky_bce"):
        for folder in (files.evaluation_folder(arm, "finetune"), files.cross_validation_folder(arm, "pretrained")):
            folder.mkdir(parents=True)
            (folder / "scores.csv").write_text(arm)
    assert set_aside_others(study, files) == ["tversky_bce is no arm of this study any more"]
    for place, strategy in ((files.evaluations, "finetune"), (files.cross_validations, "pretrained")):
        assert sorted(path.name for path in place.iterdir()) == ["default", "segresnet"]
        aside = files.work / "left_out" / place.name / "tversky_bce-1"
        assert (aside / strategy / "scores.csv").read_text() == "tversky_bce"
        assert files.left_out(place / "tversky_bce").name == "tversky_bce-2", "what was set aside is not written over"
    assert set_aside_others(study, files) == []
