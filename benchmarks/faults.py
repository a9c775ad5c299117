"""What a study loses by a fault, what it says, and what the next command does: each is played.

    make faults        (or: OMP_NUM_THREADS=1 python benchmarks/faults.py --write)

Faults of processes are played on a checkout of tiny notebooks, which take no time; faults of data on a study that
really trains (one arm, one fold, phantoms at 5 mm). One needs root: a full disk is a small tmpfs. ``--write`` keeps
the table in docs/reliability.md; numbers of processes, times and the place of the checkout are taken out of what was
said. Linux only. The exit status is 1 where a fault lost more than one epoch or a finished step's work.
"""

from __future__ import annotations

import argparse
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "tests" / "helpers"))
import nbformat
from damaged_images import patch_header
from fake_checkout import FakeCheckout, steps, wait_for
from real_checkout import RealCheckout, profile

from brainmets.engine.running import at_work, below, stop
from brainmets.paths import StudyPaths
from brainmets.processes import Process, locked, private_folder

RESULTS = Path(__file__).parents[1] / "docs" / "reliability.md"
TINY = "params/tiny.yaml"
AUDIT = ("study", TINY, "--", "audit")
EPOCHS = 8


@dataclass
class Seen:
    """What was seen of one fault: what it is, what it cost, what was said, and what the next command did."""

    fault: str
    lost: str
    said: list[str]
    then: str
    within_bounds: bool = True


# --- processes ---------------------------------------------------------------------------------------------------


@contextmanager
def at_audit(folder: Path) -> Iterator[tuple[FakeCheckout, StudyPaths, subprocess.Popen[str]]]:
    """A study whose first step is at work until its trap goes; what is left of it is ended."""
    checkout = FakeCheckout(folder / "checkout", arms=("default",))
    files = StudyPaths(str(checkout.root / "work"), "tiny")
    checkout.trap("01_data_audit", "wait")
    front = checkout.start(*AUDIT)
    try:
        wait_for(checkout.work / "ran_01_data_audit")
        while not at_work(files).steps:
            time.sleep(0.05)
        yield checkout, files, front
    finally:
        stop(files, TINY)
        front.kill()
        front.communicate()


def go_on(checkout: FakeCheckout) -> None:
    (checkout.root / "trap_01_data_audit").unlink()


def repeated(checkout: FakeCheckout, allowed: int = 1) -> tuple[str, bool]:
    """What the fault cost the step that was at work, which has ended by now."""
    times = checkout.ran()["01_data_audit"]
    return (
        "nothing: the step's work was done once" if times == 1 else "the work of the step at work"
    ), times <= allowed


def dropped_connection(folder: Path) -> Seen:
    with at_audit(folder) as (checkout, _, front):
        front.send_signal(signal.SIGHUP)
        front.wait()
        second = checkout.start("study", TINY)
        assert second.stdout is not None
        said = [second.stdout.readline() for _ in range(4)]
        go_on(checkout)
        text, _ = second.communicate(timeout=120)
        lost, fine = repeated(checkout)
        then = f"`brainmets study` watches it to its end (exit status {second.returncode}): {last(text)}"
        return Seen("terminal or connection gone (SIGHUP)", lost, said, then, fine and second.returncode == 0)


def front_killed(folder: Path) -> Seen:
    with at_audit(folder) as (checkout, _, front):
        front.kill()
        front.wait()
        second = checkout.start("study", TINY)
        assert second.stdout is not None
        said = [second.stdout.readline() for _ in range(2)]
        second.send_signal(signal.SIGINT)
        text, _ = second.communicate(timeout=60)
        ended = checkout.brainmets("stop", TINY)
        return Seen(
            "`brainmets study` killed (SIGKILL), then watched, Ctrl-C in the watcher, then `brainmets stop`",
            "nothing before the stop; by the stop, the work of the step at work",
            [*said, last(text), *ended.stdout.splitlines()],
            f"`brainmets stop` ends engine, step and kernel (exit status {ended.returncode})",
            ended.returncode == 0,
        )


def engine_killed(folder: Path) -> Seen:
    with at_audit(folder) as (checkout, files, front):
        for engine in at_work(files).engines:
            engine.send(signal.SIGKILL)
        text, _ = front.communicate(timeout=60)
        second = checkout.start(*AUDIT)
        assert second.stdout is not None
        said = [line for line in text.splitlines() if "Snakemake" in line or "To " in line]
        said += [second.stdout.readline() for _ in range(3)][1:]
        go_on(checkout)
        text, _ = second.communicate(timeout=120)
        lost, fine = repeated(checkout)
        then = f"`brainmets study` waits for the step, takes its result and goes on: {last(text)}"
        return Seen("Snakemake killed (SIGKILL) while a step works", lost, said, then, fine)


def step_killed(folder: Path) -> Seen:
    with at_audit(folder) as (checkout, files, front):
        for process in at_work(files).steps["01_data_audit"]:
            process.send(signal.SIGKILL)
        text, _ = front.communicate(timeout=60)
        go_on(checkout)
        ended = checkout.brainmets(*AUDIT)
        lost, fine = repeated(checkout, allowed=2)
        said = [line for line in text.splitlines() if "FAILED" in line or "log  " in line]
        return Seen("a step killed (SIGKILL)", lost, said, f"runs {', '.join(steps(ended.stdout))} again", fine)


def out_of_memory(folder: Path) -> Seen:
    checkout = FakeCheckout(folder / "checkout", arms=("default",))
    trap = checkout.trap("01_data_audit", "die")
    text = checkout.brainmets(*AUDIT).stdout
    trap.unlink()
    ended = checkout.brainmets(*AUDIT)
    lost, fine = repeated(checkout, allowed=2)
    said = [line for line in text.splitlines() if re.match(r"FAILED|    (cell|error) ", line)]
    return Seen(
        "a notebook's kernel gone (out of memory)", lost, said, f"runs {', '.join(steps(ended.stdout))} again", fine
    )


def two_at_once(folder: Path) -> Seen:
    with at_audit(folder) as (checkout, _, front):
        second = checkout.start("study", TINY)
        assert second.stdout is not None
        said = [second.stdout.readline() for _ in range(3)]
        refused = checkout.brainmets(*AUDIT)
        go_on(checkout)
        text, _ = second.communicate(timeout=120)
        front.communicate(timeout=60)
        lost, fine = repeated(checkout)
        then = f"the second watches the first to its end: {last(text)}; with options of its own it is refused"
        return Seen("the same study started twice", lost, said, then, fine and refused.returncode == 2)


def two_reports(folder: Path) -> Seen:
    checkout = FakeCheckout(folder / "checkout", arms=("default",))
    with locked(checkout.work / "runs" / ".report.lock", "it"):
        ended = checkout.brainmets("report", TINY)
    return Seen("two `brainmets report` at once", "nothing", [ended.stderr], "the second is refused (exit status 2)")


def foreign_link(folder: Path) -> Seen:
    victim = folder / "victim"
    victim.write_text("precious")
    before = tempfile.tempdir
    tempfile.tempdir = str(folder)
    (folder / f"brainmets-devices-{os.geteuid()}").symlink_to(victim)
    try:
        private_folder("brainmets-devices")
        said, fine = "", False
    except PermissionError as error:
        said, fine = str(error), victim.read_text() == "precious"
    finally:
        tempfile.tempdir = before
    return Seen(
        "another user's link where the locks of the GPUs lie", "nothing: the file it leads to is untouched",
        [said], "the step fails with this message", fine,
    )  # fmt: skip


# --- disks, places and clocks ------------------------------------------------------------------------------------


def full_disk(folder: Path) -> Seen:
    name = "disk full while a step writes"
    checkout = FakeCheckout(folder / "checkout", arms=("default",))
    disk = checkout.root / "work"
    disk.mkdir()
    mounted = (
        os.geteuid() == 0
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", disk], check=False, capture_output=True
        ).returncode
    )
    if not mounted:
        return Seen(name, "", [], "not played: only root may mount a small file system")
    try:
        (disk / "ballast").write_bytes(b"x" * 300_000)
        source = checkout.source("01_data_audit")
        notebook = nbformat.read(source, as_version=4)
        program = "from brainmets.files import write_text\n_ = write_text(files.work / 'table', 'x' * 200_000)"
        notebook.cells.insert(4, nbformat.v4.new_code_cell(program))
        nbformat.write(notebook, source)
        text = checkout.brainmets(*AUDIT).stdout
        half = [path.name for path in checkout.work.iterdir() if path.name.endswith("table")]
        (disk / "ballast").unlink()
        ended = checkout.brainmets(*AUDIT)
    finally:
        subprocess.run(["umount", disk], check=True)
    said = [line for line in text.splitlines() if re.match(r"FAILED|    (error|disk) ", line)]
    then = f"with room made, runs {', '.join(steps(ended.stdout))} again"
    return Seen(name, "the work of the step at work; no half-written file stays", said, then, not half)


def finished(folder: Path) -> FakeCheckout:
    checkout = FakeCheckout(folder / "checkout", arms=("default",))
    ended = checkout.brainmets("study", TINY, "--", "audit", "alignment")
    assert ended.returncode == 0, ended.stdout
    return checkout


def planned(checkout: FakeCheckout) -> list[str]:
    return checkout.brainmets("study", TINY, "-n", "--", "audit", "alignment").stdout.splitlines()[1:]


def moved(folder: Path) -> Seen:
    checkout = finished(folder)
    subprocess.run(["cp", "-r", checkout.root, folder / "elsewhere"], check=True)
    shutil.rmtree(checkout.root)
    said = planned(checkout.at(folder / "elsewhere"))
    return Seen(
        "checkout moved, or copied without its times (`cp -r`)",
        "nothing",
        said,
        "does nothing",
        "nothing to do" in said[0],
    )


def clock_set_back(folder: Path) -> Seen:
    checkout = finished(folder)
    tomorrow = time.time() + 86_400
    os.utime(checkout.work / "audit" / "audit.json", (tomorrow, tomorrow))
    said = planned(checkout)
    name = "clock set back by a day between two steps: a file is newer than what was made of it"
    return Seen(name, "nothing", said, "does nothing", "nothing to do" in said[0])


def read_only(folder: Path) -> Seen:
    checkout = finished(folder)
    others = ["setpriv", "--bounding-set", "-all", "--inh-caps", "-all"] if os.geteuid() == 0 else []
    subprocess.run(["chmod", "-R", "a-w", checkout.root], check=True)
    try:
        texts = [
            subprocess.run(
                [*others, *checkout.command("study", TINY, *words)],
                cwd=checkout.root, env=checkout.environment(), capture_output=True, text=True, check=False,
            )
            for words in (("-n", "--", "audit", "alignment"), ())
        ]  # fmt: skip
    finally:
        subprocess.run(["chmod", "-R", "u+w", checkout.root], check=True)
    said = [last(texts[0].stdout), last(texts[1].stderr)]
    then = "`-n` plans and writes nothing; without `-n` it is refused"
    return Seen("the study's folder may only be read", "nothing", said, then, [t.returncode for t in texts] == [0, 2])


# --- a study that trains -----------------------------------------------------------------------------------------


class Miniature:
    """The smoke study with one arm and one fold, finished up to the evaluations."""

    def __init__(self, folder: Path) -> None:
        content = profile("smoke")
        content |= {"study": "mini", "folds": [0], "arms": {"default": content["arms"]["default"]}}
        del content["target"]["raw"]
        for name in ("source", "target"):
            content[name]["folder"] = f"work/mini/cohorts/{name}"
        for section in ("pretraining", "fine_tuning", "from_scratch"):
            content[section]["epochs"] = EPOCHS
        self.checkout = RealCheckout.make(folder / "checkout")
        self.content = content
        self.checkout.write_params(content)
        self.files = StudyPaths(str(self.checkout.root / "work"), "mini")
        self.scratch = self.files.training("scratch", "default", 0)

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.checkout.run("study", "params/mini.yaml", *words)

    def another(self, name: str, **target: object) -> StudyPaths:
        """Write params/<name>.yaml: this study under another name, its target declared otherwise; gives its files."""
        self.checkout.write_params({**self.content, "study": name, "target": {**self.content["target"], **target}})
        return StudyPaths(str(self.checkout.root / "work"), name)

    def log(self) -> str:
        path = self.files.runs / "05_from_scratch_default_fold_0.log"
        return path.read_text() if path.is_file() else ""

    def epochs(self) -> int:
        """Epochs of the training from scratch that were computed so far, by its log."""
        return len(re.findall(rf"^epoch \d+ of {EPOCHS}\b", self.log(), re.MULTILINE))


def power_cut(mini: Miniature) -> Seen:
    command = [sys.executable, "-m", "brainmets.cli", "study", "params/mini.yaml", "--", str(mini.scratch)]
    environment = {**os.environ, "BRAINMETS_ROOT": str(mini.checkout.root)}
    front = subprocess.Popen(command, cwd=mini.checkout.root, env=environment, stdout=subprocess.DEVNULL)
    while mini.epochs() < 3:
        assert front.poll() is None, mini.log()
        time.sleep(0.01)
    me = Process.of(front.pid)
    assert me is not None
    for process in [me, *at_work(mini.files).engines, *below([me])]:
        process.send(signal.SIGKILL)
    front.wait()
    size = len(mini.log())
    ended = mini.run("--", str(mini.scratch))
    again = mini.epochs() - EPOCHS
    said = [line for line in mini.log()[size:].splitlines() if re.search(r"continu|resum|epoch", line)][:2]
    lost = f"{again} of {EPOCHS} epochs, and the one that was being computed"
    return Seen(
        "power cut: every process killed in the middle of a training", lost, said,
        f"the training goes on: {last(ended.stdout)}", ended.returncode == 0 and again <= 1,
    )  # fmt: skip


def harmed(mini: Miniature, fault: str, path: Path, harm: Callable[[Path], object], target: Path | None) -> Seen:
    """Harm a file of the finished study, plan, and repair: by a run up to ``target``, or by putting the file back."""
    content, status = path.read_bytes(), path.stat()
    harm(path)
    planned = mini.run("-n", "--", "statistics").stdout.splitlines()[1:]
    said = [line for line in planned if "its file" in line]
    would = [line.strip() for line in planned if re.match(r"  \d\d_\w+$", line)]
    then, fine, lost = f"runs {len(would)} steps: {', '.join(would)}", bool(said and would), "nothing"
    if target is None:
        path.write_bytes(content)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        return Seen(fault, "what these steps take", said, then, fine)
    before, size = mini.epochs(), len(mini.log())
    ended = mini.run("--", str(target))
    again = mini.epochs() - before
    if target == mini.scratch:
        said += [line for line in mini.log()[size:].splitlines() if re.search(r"damaged|whole|continu|anew", line)][:3]
        then = f"runs {', '.join(steps(ended.stdout))} again, then what needs it"
    else:
        then += "; trainings find themselves finished"
    lost = f"{again} of {EPOCHS} epochs" if again else "no epoch"
    fine = fine and ended.returncode == 0 and again <= 1
    return Seen(fault, lost, said, then + f" (exit status {ended.returncode})", fine)


def cut_in_half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def cut_at_a_line(path: Path) -> None:
    path.write_text("".join(path.read_text().splitlines(True)[:-3]))


class Touch:
    """As a pickle: makes an empty file in the process that opens it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
        return open, (str(self.path), "w")


def planted_pickle(mini: Miniature) -> Seen:
    opened = mini.checkout.root / "opened"
    cases = [path for path in mini.files.nnunet_preprocessed.rglob("*.b2nd") if not path.stem.endswith("_seg")]
    for case in cases:
        case.with_suffix(".pkl").write_bytes(pickle.dumps(Touch(opened)))
    mini.files.checkpoint("scratch", "default", 0).unlink()  # so that the next start trains
    before = mini.epochs()
    ended = mini.run("--", str(mini.scratch))
    again, closed = mini.epochs() - before, bool(cases) and not opened.exists()
    for case in cases:
        case.with_suffix(".pkl").unlink()
    return Seen(
        "a file of code (`.pkl`, which stock nnU-Net opens) beside every preprocessed case", "nothing", [],
        f"trains on, and never opens one (exit status {ended.returncode})" if closed else "opens one",
        closed and again == 1 and ended.returncode == 0,
    )  # fmt: skip


def cut_archive(mini: Miniature) -> Seen:
    archive, half = (mini.checkout.root / name for name in ("plan.zip", "half.zip"))
    packed = mini.checkout.run("pack", "plan", "params/mini.yaml", "--out", str(archive))
    shutil.copy(archive, half)
    cut_in_half(half)
    there = mini.another("there")
    refused = mini.checkout.run("unpack", str(half), "params/there.yaml")
    left = there.work.exists()
    whole = mini.checkout.run("unpack", str(archive), "params/there.yaml")
    return Seen(
        "an archive of `brainmets pack` cut on its way", "nothing: no file is put into the study",
        [last(refused.stderr).replace(f"{mini.checkout.root}/", "")],
        f"`brainmets unpack` refuses it (exit status {refused.returncode}) and takes the whole one "
        f"(exit status {whole.returncode})",
        [packed.returncode, refused.returncode, whole.returncode] == [0, 2, 0] and not left,
    )  # fmt: skip


def not_finite(mini: Miniature) -> Iterator[Seen]:
    """An image that float32 cannot hold: before the audit, and changed after it, with notebook 02 run by hand."""
    folder = mini.checkout.root / mini.content["target"]["folder"]
    patch_header(sorted(folder.glob("*/*_T2.nii.gz"))[0], scl_slope=3e38, scl_inter=0.0)
    name = "an image with values that float32 cannot hold (`scl_slope` 3e38 in its header)"
    own = mini.another("own", phantoms=None, lesion_free=f"{mini.content['target']['folder']}/lesion_free.csv")
    ended = mini.checkout.run("study", "params/own.yaml", "--", "audit")
    said = [line for line in ended.stdout.splitlines() if re.match(r"FAILED|    (error|  ) ", line)]
    then = f"stops at the audit until the image is corrected or left out (exit status {ended.returncode})"
    yield Seen(
        name, "nothing: no step after the audit runs", said, then, ended.returncode == 1 and not own.splits.exists()
    )
    ended = mini.checkout.run("notebook", "02_plan_alignment", "params/mini.yaml")
    said = [line for line in (ended.stdout + ended.stderr).splitlines() if "finite" in line][:1]
    then = f"notebook 02 refuses it before any training (exit status {ended.returncode})"
    yield Seen(
        f"{name}, changed after the audit", "the work of notebook 02", said, then, bool(said) and ended.returncode == 1
    )


def of_data(folder: Path) -> Iterator[Seen]:
    mini = Miniature(folder)
    yield power_cut(mini)
    ended = mini.run("--", "statistics")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    checkpoint = mini.files.checkpoint("scratch", "default", 0)
    yield harmed(mini, "`checkpoint_final.pth` cut", checkpoint, cut_in_half, mini.scratch)
    yield harmed(mini, "`checkpoint_final.pth` deleted", checkpoint, Path.unlink, mini.scratch)
    scores = mini.files.scores("default", "finetune")
    yield harmed(mini, "`scores.csv` cut at the end of a line", scores, cut_at_a_line, None)
    yield harmed(mini, "`scores.csv` cut in the middle of a line", scores, cut_in_half, None)
    prepared = mini.files.nnunet_preprocessed
    yield harmed(mini, "`nnUNetPlans.json` cut", next(prepared.glob("*Target/nnUNetPlans.json")), cut_in_half, None)
    case = next(
        path for path in sorted(prepared.glob("*Target/nnUNetPlans_3d_fullres/*.b2nd")) if "_seg" not in path.name
    )
    yield harmed(mini, "a preprocessed case (`.b2nd`) cut", case, cut_in_half, mini.scratch.parent / "training.json")
    yield harmed(
        mini,
        "a step's own result (`evaluation.json`) cut",
        mini.files.evaluation("default", "scratch"),
        cut_in_half,
        None,
    )
    yield planted_pickle(mini)
    yield cut_archive(mini)
    yield from not_finite(mini)


# --- the table ---------------------------------------------------------------------------------------------------

OF_PROCESSES = (
    dropped_connection, front_killed, engine_killed, step_killed, out_of_memory, two_at_once, two_reports,
    foreign_link, full_disk, read_only, moved, clock_set_back,
)  # fmt: skip
HEADING = """\
# What a fault costs

Each of these faults was played against the laboratory; what is quoted was said. `make faults` plays them again and
writes this page. The rule behind it: a step writes its result whole and last, a training keeps a checkpoint after each
epoch, and a step counts as done only as long as all that it wrote is there as it was written (size and hash).

- `brainmets study PARAMS`, started again, is the answer to most of them. Where the study is still at work it watches
  it; where only steps are, it waits for them; else it runs what is missing, out of date or damaged. Where a person
  must act first (make room on a disk, correct an image, copy an archive anew), the message says so.
- The study does not end with the terminal that started it. `brainmets stop PARAMS` ends it: engine, steps and jobs.
- A step whose Snakemake was killed goes on and is waited for: it loses nothing, even if it is a day of training.
- Of a step's failures the newest three executed copies are kept in `runs/failed/`; a log beyond 2 MB begins anew at
  the next start of its step, the old one is kept as `.log.1`.

What a cluster adds (a cancelled job, a time limit, a lost node) is in [cluster.md](cluster.md).

The faults of data, from the power cut on, were played one after another on one study: the steps that a row lists
include those that the rows before it had left to do.

| fault | what is lost | what is read | what the next `brainmets study` does |
|---|---|---|---|
"""


def last(text: str) -> str:
    return text.strip().splitlines()[-1].strip() if text.strip() else ""


def plain(text: str) -> str:
    """What was said, without what differs from run to run and from machine to machine."""
    text = re.sub(r"\S*/bin/brainmets", "brainmets", text)
    text = re.sub(r"process \d+", "process N", text)
    text = re.sub(rf" on {re.escape(os.uname().nodename)}\b", " on HOST", text)
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "DATE", text)
    text = re.sub(r"\b(for|in|since the start|after) \d+[:.]\d+", r"\1 T", text)
    text = re.sub(r"/\S*?/checkout/", "", text)
    text = re.sub(r"/\S*/(brainmets-devices)-\d+", r"(temporary)/\1-USER", text)
    text = re.sub(r"\.\d{8}T\d{6}\.", ".TIME.", text)
    text = re.sub(r"(is damaged and kept as \S+): .*", r"\1: ...", text)
    return re.sub(r"\s+", " ", text).strip().replace("|", "\\|")


def quoted(text: str) -> str:
    """The text as Markdown's code, also where it holds backticks itself."""
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def row(seen: Seen) -> str:
    said = "<br>".join(quoted(plain(line)) for line in seen.said if line.strip()) or "nothing"
    return f"| {seen.fault} | {seen.lost} | {said} | {plain(seen.then)} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="keep the table in docs/reliability.md")
    parser.add_argument(
        "--only", metavar="WORD", default="", help="only the faults of processes with WORD in their name"
    )
    args = parser.parse_args()
    rows, bad, start = [], [], time.monotonic()
    with tempfile.TemporaryDirectory(prefix="brainmets_faults_") as name:
        root = Path(name)
        played: list[Callable[[], Iterator[Seen]]] = [
            lambda play=play: iter([play(_folder(root, play.__name__))])
            for play in OF_PROCESSES
            if args.only in play.__name__
        ]
        if not args.only:
            played.append(lambda: of_data(_folder(root, "data")))
        for play in played:
            for seen in play():
                rows.append(row(seen))
                bad += [] if seen.within_bounds else [seen.fault]
                print(rows[-1], flush=True)
    if args.write and not args.only:
        minutes = (time.monotonic() - start) / 60
        cores = len(os.sched_getaffinity(0))
        took = f"All of it was played in {minutes:.0f} minutes on {cores} CPU cores, without a GPU."
        RESULTS.write_text(HEADING + "\n".join([*rows, "", took]) + "\n", encoding="utf-8")
    print("\n".join(f"NOT AS IT SHOULD BE: {fault}" for fault in bad) or "every fault within its bounds")
    return 1 if bad else 0


def _folder(root: Path, name: str) -> Path:
    folder = root / name
    folder.mkdir()
    return folder


if __name__ == "__main__":
    sys.exit(main())
