"""What a study does after a fault: processes killed, files cut, folders moved. ``make faults`` plays more of them."""

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat
import pytest
from fake_checkout import FakeCheckout, steps, wait_for

from brainmets.engine import progress, running
from brainmets.engine.notebook import forget_older
from brainmets.engine.progress import Journal, Tail
from brainmets.engine.running import at_work
from brainmets.paths import StudyPaths
from brainmets.processes import Process, locked

AUDIT = ("study", "params/tiny.yaml", "--", "audit")


@pytest.fixture
def files(checkout: FakeCheckout, monkeypatch: pytest.MonkeyPatch) -> Iterator[StudyPaths]:
    """The files of the checkout's study; whatever still works on it is ended afterwards."""
    monkeypatch.setenv("BRAINMETS_ROOT", str(checkout.root))
    files = StudyPaths("work", "tiny")
    yield files
    running.stop(files, "params/tiny.yaml", patience=5)


def until(condition: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def begun(checkout: FakeCheckout, files: StudyPaths, *words: str) -> subprocess.Popen[str]:
    """A study that has come to the audit, which waits for its trap to go."""
    checkout.trap("01_data_audit", "wait")
    front = checkout.start(*(words or AUDIT))
    wait_for(checkout.work / "ran_01_data_audit")
    until(lambda: at_work(files).engines)
    return front


# --- who works on a study


def test_a_process_number_that_was_given_out_again_gets_no_signal() -> None:
    child = subprocess.Popen(["sleep", "60"])
    try:
        until(lambda: (found := Process.of(child.pid)) and found.command == ("sleep", "60"))
        process = Process.of(child.pid)
        assert process is not None
        assert abs(process.since.timestamp() - time.time()) < 5
        assert not Process(child.pid, process.start - 1, process.command).send(signal.SIGKILL)
        assert child.poll() is None
        assert process.send(signal.SIGKILL)
        child.wait()
        assert not process.send(signal.SIGKILL)
    finally:
        child.kill()


def test_a_holder_that_is_no_brainmets_process_is_never_ended(
    checkout: FakeCheckout, files: StudyPaths, capsys: pytest.CaptureFixture[str]
) -> None:
    with locked(files.step_lock("01_data_audit"), "it"):  # held by this test
        assert at_work(files).processes == []
        assert running.stop(files, "params/tiny.yaml", patience=0.1) == 0
    assert capsys.readouterr().out == "study tiny: nothing of it is running.\n"


def test_stopping_a_study_that_does_not_run_is_no_fault(checkout: FakeCheckout) -> None:
    ended = checkout.brainmets("stop", "params/tiny.yaml")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "study tiny: nothing of it is running.\n", "")
    assert not checkout.work.exists()


# --- the front, the engine or a step is killed


@pytest.fixture
def heeds_its_terminal() -> Iterator[None]:
    """What is started here heeds a hang-up and Ctrl-C, also if the tests run with ``nohup`` or in the background."""
    ignored = {signal.SIGHUP: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}
    before = {number: signal.signal(number, handler) for number, handler in ignored.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.slow
@pytest.mark.usefixtures("heeds_its_terminal")
def test_after_a_dropped_connection_the_study_goes_on_and_is_watched_again(
    checkout: FakeCheckout, files: StudyPaths
) -> None:
    front = begun(checkout, files)
    front.send_signal(signal.SIGHUP)
    front.wait(timeout=30)
    (engine,) = at_work(files).engines
    second = checkout.start("study", "params/tiny.yaml")
    assert second.stdout is not None
    said = [second.stdout.readline() for _ in range(4)]
    assert re.match(rf"study tiny is at work already \(process {engine.pid}, since \d{{4}}-", said[0])
    assert "The process that started it has ended" in said[1]
    assert "Ctrl-C ends the watching alone; to end the study: " in said[2]
    assert "brainmets stop params/tiny.yaml" in said[2]
    assert re.match(r"0 of 1 steps done; now: 01_data_audit for 0:\d\d", said[3])
    second.send_signal(signal.SIGINT)
    text, _ = second.communicate(timeout=30)
    assert second.returncode == 130
    assert "no longer watching; the study goes on" in text
    assert engine.is_running(), "the watcher's Ctrl-C reached the study"

    third = checkout.start("study", "params/tiny.yaml")
    assert third.stdout is not None
    assert third.stdout.readline() == said[0]
    (checkout.root / "trap_01_data_audit").unlink()
    text, _ = third.communicate(timeout=60)
    assert third.returncode == 0, text
    assert "[ 1 of 1] 01_data_audit finished in" in text
    assert "study tiny is finished, in" in text
    assert checkout.ran() == {"01_data_audit": 1}


@pytest.mark.slow
def test_a_killed_engine_leaves_steps_that_are_named_waited_for_and_not_repeated(
    checkout: FakeCheckout, files: StudyPaths
) -> None:
    front = begun(checkout, files)
    (engine,) = at_work(files).engines
    (step,) = at_work(files).steps["01_data_audit"]
    assert engine.send(signal.SIGKILL)
    text, _ = front.communicate(timeout=30)
    assert front.returncode == 1
    named = f"01_data_audit (process {step.pid}, since "
    assert f"Snakemake has ended (killed by SIGKILL), but 1 of its steps work on: {named}" in text
    assert "To end them: " in text
    assert "brainmets stop params/tiny.yaml" in text
    assert "without an error message" not in text, "it works on"

    second = checkout.start(*AUDIT)
    assert second.stdout is not None
    assert second.stdout.readline().startswith("study tiny: params/tiny.yaml, ")
    assert second.stdout.readline().startswith(f"1 step of an earlier run still at work: {named}")
    (checkout.root / "trap_01_data_audit").unlink()
    text, _ = second.communicate(timeout=60)
    assert second.returncode == 0, text
    assert "ended: 01_data_audit" in text
    assert "nothing to do" in text
    assert checkout.ran() == {"01_data_audit": 1}, "what was finished without an engine was done again"


@pytest.mark.slow
def test_stop_ends_engine_steps_and_kernels_in_order(checkout: FakeCheckout, files: StudyPaths) -> None:
    front = begun(checkout, files)
    everything = [*at_work(files).processes, *running.below(at_work(files).engines)]
    assert len(everything) >= 4, "front, engine, step and kernel"
    ended = checkout.brainmets("stop", "params/tiny.yaml")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "ending the engine (process " in ended.stdout
    assert "ending 1 step: 01_data_audit (process " in ended.stdout
    assert "killed what did not end" not in ended.stdout
    assert "study tiny is stopped. To go on from there: " in ended.stdout
    text, _ = front.communicate(timeout=30)
    assert front.returncode == 1
    assert "ended by SIGINT" in text
    assert not [process for process in everything if process.is_running()]


@pytest.mark.slow
def test_stop_ends_steps_whose_engine_is_gone(checkout: FakeCheckout, files: StudyPaths) -> None:
    front = begun(checkout, files)
    everything = running.below(at_work(files).engines)
    for process in at_work(files).engines:
        process.send(signal.SIGKILL)
    front.communicate(timeout=30)
    ended = checkout.brainmets("stop", "params/tiny.yaml")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "ending the engine" not in ended.stdout
    assert "ending 1 step: 01_data_audit (process " in ended.stdout
    assert not [process for process in everything if process.is_running()]


def test_other_options_than_those_of_the_study_at_work_are_refused(checkout: FakeCheckout, files: StudyPaths) -> None:
    files.work.mkdir(parents=True)
    program = 'exec 9>>"$0" && flock 9 && exec -a brainmets sleep 60'
    front = subprocess.Popen(["bash", "-c", program, str(files.lock)])
    try:
        until(lambda: at_work(files).fronts)
        ended = checkout.brainmets(*AUDIT)
        assert ended.returncode == 2
        assert f"study tiny is in use by another process (process {front.pid} on " in ended.stderr
    finally:
        front.kill()
        front.wait()


# --- files that are not whole


@pytest.mark.slow
@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda path: path.unlink(), "is missing"),
        (lambda path: path.write_text("case,value\nP01,0.5\n"), "has 1 rows, 2 were written"),
        (lambda path: path.write_text("case,value\nP01,0.5\nP02,0.5\n"), "has 27 bytes, 28 were written"),
        (lambda path: path.write_text("case,value\nP01,0.5\nP02,0.24\n"), "is not what was written"),
    ],
)
def test_a_step_is_done_only_as_long_as_what_it_wrote_is_whole(
    built_checkout: FakeCheckout, harm: Callable[[Path], object], says: str
) -> None:
    table = built_checkout.work / "statistics" / "numbers.csv"
    before, status = table.read_bytes(), table.stat()
    try:
        harm(table)
        ended = built_checkout.brainmets("study", "params/tiny.yaml", "-n", "--", "statistics", "case_review")
    finally:
        table.write_bytes(before)
        os.utime(table, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[1:] == [
        f"  07_statistics is to be run again: its file statistics/numbers.csv {says}",
        "2 steps to run:", "  07_statistics", "  08_case_review",
    ]  # fmt: skip


@pytest.mark.slow
def test_a_deleted_file_is_made_again_by_the_step_that_wrote_it(tmp_path: Path, built_checkout: FakeCheckout) -> None:
    shutil.copytree(built_checkout.root, tmp_path / "copy", symlinks=True)
    checkout = built_checkout.at(tmp_path / "copy")
    table = checkout.work / "training/scratch/default/fold_0/numbers.csv"
    table.unlink()
    ended = checkout.study()
    assert ended.returncode == 0, ended.stdout + ended.stderr
    wrong = "its file training/scratch/default/fold_0/numbers.csv is missing"
    assert f"  05_from_scratch_default_fold_0 is to be run again: {wrong}" in ended.stdout
    assert steps(ended.stdout)[0] == "05_from_scratch_default_fold_0"
    assert table.is_file()
    assert "nothing to do" in checkout.study().stdout


# --- a checkout in another place


def with_own_cohort(root: Path, cases: tuple[str, ...]) -> FakeCheckout:
    """A checkout whose target is a folder of empty files under these names."""
    checkout = FakeCheckout(root)
    content = checkout.content()
    content["target"].pop("phantoms")
    content["target"]["folder"] = "own"
    checkout.write(content)
    for name in cases:
        folder = checkout.root / "own" / name
        folder.mkdir(parents=True)
        for part in ("T1", "T1GD", "T2", "FLAIR", "LABEL"):
            (folder / f"{name}_{part}.nii.gz").touch()
    return checkout


@pytest.mark.slow
@pytest.mark.parametrize("keeps_times", [True, False])
def test_a_copied_checkout_has_nothing_to_do(tmp_path: Path, built_checkout: FakeCheckout, keeps_times: bool) -> None:
    there = tmp_path / "another {place}"
    subprocess.run(["cp", "-r", *(["-p"] if keeps_times else []), built_checkout.root, there], check=True)
    if not keeps_times:  # in an order that no step would write
        for number, path in enumerate(sorted(there.rglob("*.json"), reverse=True)):
            os.utime(path, (time.time() + number, time.time() + number))
    ended = built_checkout.at(there).brainmets("study", "params/tiny.yaml", "-n", "--", "statistics", "case_review")
    assert ended.stdout.splitlines()[1:] == ["study tiny: nothing to do"], ended.stderr


@pytest.mark.slow
def test_a_cohort_copied_with_new_times_says_why_the_audit_is_repeated(tmp_path: Path) -> None:
    checkout = with_own_cohort(tmp_path / "checkout", ("P1", "P2", "P3", "P4"))
    checkout.brainmets(*AUDIT)
    os.utime(checkout.root / "own" / "P1" / "P1_T1.nii.gz", (1, 1))
    ended = checkout.brainmets("study", "params/tiny.yaml", "-n", "--", "audit")
    assert ended.stdout.splitlines()[1:] == [
        "  01_data_audit is to be run again: a parameter, its notebook or a file of a cohort is not as it was "
        "when the step ran",
        "1 step to run:", "  01_data_audit",
    ]  # fmt: skip


def test_braces_in_names_of_files_are_refused_or_run_under_pseudonyms(tmp_path: Path) -> None:
    checkout = with_own_cohort(tmp_path / "a {checkout}", ("{brace}", "{0}", "P}", "P{"))
    ended = checkout.brainmets(*AUDIT)
    assert ended.returncode == 2
    assert "4 case(s) with a name such as 'P{'" in ended.stderr
    assert "rename the files, or set pseudonyms: true for the cohort" in ended.stderr
    assert not checkout.work.exists(), "refused before any work"

    content = checkout.content()
    content["target"]["pseudonyms"] = True
    checkout.write(content)
    ended = checkout.brainmets(*AUDIT)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert steps(ended.stdout) == ["01_data_audit"]
    assert "nothing to do" in checkout.brainmets(*AUDIT).stdout


# --- a disk that is full, a folder that is another's


@pytest.mark.slow
def test_a_dry_run_needs_no_right_to_write(tmp_path: Path, built_checkout: FakeCheckout) -> None:
    root = tmp_path / "copy"
    subprocess.run(["cp", "-rp", built_checkout.root, root], check=True)
    index = root / "reports" / "tiny" / "index.html"
    index.parent.mkdir(parents=True)
    index.write_text("")
    disk = tmp_path / "disk"
    shutil.move(root / "work", disk)
    (root / "work").symlink_to(disk)  # a work folder on another disk
    subprocess.run(["chmod", "-R", "a-w", root, disk], check=True)
    as_others = ["setpriv", "--bounding-set", "-all", "--inh-caps", "-all"] if os.geteuid() == 0 else []
    checkout = built_checkout.at(root)
    try:
        ended = subprocess.run(
            [*as_others, *checkout.command("study", "params/tiny.yaml", "-n")],
            cwd=root, env=checkout.environment(), capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert (ended.returncode, ended.stderr) == (0, "")
        assert ended.stdout.splitlines()[1:] == ["study tiny: nothing to do"]
        ended = subprocess.run(
            [*as_others, *checkout.command("study", "params/tiny.yaml")],
            cwd=root, env=checkout.environment(), capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert ended.returncode == 2
        assert re.fullmatch(r"brainmets study: \S+: Permission denied\n", ended.stderr)
    finally:
        subprocess.run(["chmod", "-R", "u+w", root, disk], check=True)


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system, which needs root")
def test_a_full_disk_is_named_and_nothing_half_written_is_taken_for_done(checkout: FakeCheckout) -> None:
    work = checkout.root / "work"
    work.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", work], check=False).returncode:
        pytest.skip("this machine does not let root mount a tmpfs")
    try:
        (work / "ballast").write_bytes(b"x" * 300_000)
        source = checkout.source("01_data_audit")
        notebook = nbformat.read(source, as_version=4)
        program = "from brainmets.files import write_text\n_ = write_text(files.work / 'table', 'x' * 200_000)"
        notebook.cells.insert(4, nbformat.v4.new_code_cell(program))
        nbformat.write(notebook, source)
        ended = checkout.brainmets(*AUDIT)
        assert ended.returncode == 1
        assert re.search(
            r"error      OSError: \[Errno 28\] No space left on device: '\S+/work/tiny/table'", ended.stdout
        )
        assert re.search(r"disk       \d\.\d MB are free where work/tiny/runs/running lies: make room", ended.stdout)
        assert not (checkout.work / "audit" / "audit.json").exists()
        assert not [path for path in checkout.work.iterdir() if path.name.endswith("table")], "half of it was left"
        (work / "ballast").unlink()
        ended = checkout.brainmets(*AUDIT)
        assert ended.returncode == 0, ended.stdout + ended.stderr
    finally:
        subprocess.run(["umount", work], check=True)


# --- what must not grow, and what two must not do at once


def test_of_a_steps_failures_the_newest_three_copies_are_kept(tmp_path: Path) -> None:
    names = [f"06_a.2026010{day}T120000.ipynb" for day in range(1, 6)]
    others = ["06_a.b.20250101T120000.ipynb", "06_ab.20250101T120000.ipynb", "06_a.notes.ipynb"]
    for name in [*names, *others]:
        (tmp_path / name).touch()
    forget_older(tmp_path, "06_a")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*names[2:], *others])


def test_a_log_that_has_grown_large_begins_anew_and_its_reader_notices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LOG_BYTES", 20)
    (tmp_path / "a.log").write_text("a line of the step's earlier runs\n")
    tail = Tail(tmp_path, "*.log")
    with (tmp_path / "null").open("w") as echo:
        for line in ("first\n", "second\n"):
            journal = Journal(tmp_path / "a.log", echo)
            journal.write(line)
            journal.close()
    assert (tmp_path / "a.log.1").read_text() == "a line of the step's earlier runs\n"
    assert list(tail.lines()) == [("a", "first"), ("a", "second")]


def test_two_reports_at_once_are_refused(checkout: FakeCheckout) -> None:
    with locked(checkout.work / "runs" / ".report.lock", "it"):
        ended = checkout.brainmets("report", "params/tiny.yaml")
    assert ended.returncode == 2
    assert f"the report of study tiny is in use by another process (process {os.getpid()} on " in ended.stderr
