"""The whole study through Snakemake, on a checkout of tiny notebooks: ``brainmets study``."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import nbformat
import pytest
from fake_checkout import FakeCheckout, steps, wait_for
from raw_scans import NAMES, write_scan

from brainmets.cohorts.pseudonyms import cases_of
from brainmets.engine import devices, running, slurm, study
from brainmets.engine.progress import PROGRESS
from brainmets.engine.slurm import job_prefix
from brainmets.engine.steps import _made_with
from brainmets.params import Cohort, ParameterError
from brainmets.params.study import Study
from brainmets.paths import StudyPaths
from brainmets.processes import locked
from brainmets.statistics import declared
from brainmets.vocabulary import SEQUENCES

STEPS = 16  # 2 for the data, 3 trainings of 2 arms, 6 evaluations, statistics, case review


def test_a_study_runs_every_step_once_and_in_order(built_checkout: FakeCheckout) -> None:
    ran = built_checkout.ran()
    assert set(ran.values()) == {1}
    assert len(ran) == STEPS
    record = built_checkout.work / "audit/audit.json"
    assert json.loads(record.read_text())["provenance"]["parameters"]["study"] == "tiny"
    times = {path.stem: path.stat().st_mtime for path in (built_checkout.work / "runs").glob("*.ipynb")}
    assert len(times) == STEPS
    for arm in ("default", "segresnet"):
        chain = ["01_data_audit", "02_plan_alignment", f"03_pretraining_{arm}_fold_0", f"04_fine_tuning_{arm}_fold_0"]
        chain += [f"06_evaluation_{arm}_finetune", "07_statistics", "08_case_review"]
        assert [times[name] for name in chain] == sorted(times[name] for name in chain)


def test_a_finished_study_does_nothing_and_says_so(built_checkout: FakeCheckout) -> None:
    before = built_checkout.ran()
    index = built_checkout.root / "reports" / "tiny" / "index.html"
    index.parent.mkdir(parents=True, exist_ok=True)
    index.write_text("")
    ended = built_checkout.study()
    shutil.rmtree(index.parent)
    assert ended.returncode == 0
    assert "study tiny is finished already; nothing to do. Report: reports/tiny/index.html" in ended.stdout
    assert built_checkout.ran() == before


def test_a_dry_run_lists_the_steps_and_runs_none(checkout: FakeCheckout) -> None:
    ended = checkout.brainmets("study", "params/tiny.yaml", "-n")
    assert ended.returncode == 0
    assert ended.stderr == ""
    heading, count, *lines = ended.stdout.splitlines()
    assert heading.startswith("study tiny: params/tiny.yaml, ")
    assert count == f"{STEPS + 1} steps to run:"
    assert lines[:3] == ["  01_data_audit", "  02_plan_alignment", "  03_pretraining_default_fold_0"]
    assert lines[-3:] == ["  07_statistics", "  08_case_review", "  report"]
    assert len(lines) == STEPS + 1
    assert "snakemake" not in ended.stdout.lower()
    assert not checkout.work.exists(), "a dry run made the study's folder"
    assert {path.name for path in checkout.root.iterdir()} == {"notebooks", "params", "workflow"}


@pytest.mark.slow
def test_a_dry_run_of_a_finished_study_changes_nothing(built_checkout: FakeCheckout) -> None:
    def state() -> dict[Path, int]:
        found = (path for path in built_checkout.work.rglob("*") if "iocache" not in path.parts)
        return {path: path.stat().st_mtime_ns for path in found if path.is_file()}

    before = state()
    ended = built_checkout.brainmets("study", "params/tiny.yaml", "-n", "--", "statistics", "case_review")
    assert ended.returncode == 0
    assert ended.stdout.splitlines()[1:] == ["study tiny: nothing to do"]
    assert state() == before
    ended = built_checkout.brainmets("study", "params/tiny.yaml", "-n")
    assert ended.stdout.splitlines()[1:] == ["1 step to run:", "  report"]


def test_the_pretrained_models_wait_for_the_pretraining_alone(checkout: FakeCheckout) -> None:
    result = checkout.work / "evaluation/default/pretrained/evaluation.json"
    ended = checkout.brainmets("study", "params/tiny.yaml", "-n", "--", str(result))
    assert [line.strip() for line in ended.stdout.splitlines()[2:]] == [
        "01_data_audit", "02_plan_alignment", "03_pretraining_default_fold_0", "06_evaluation_default_pretrained",
    ]  # fmt: skip


def test_a_dry_run_that_snakemake_refuses_is_reported(checkout: FakeCheckout) -> None:
    ended = checkout.brainmets("study", "params/tiny.yaml", "-n", "--", "statistcs")
    assert ended.returncode == 1
    assert "Snakemake could not plan the study; it said:" in ended.stderr
    assert "statistcs" in ended.stderr


@pytest.mark.slow
def test_a_study_may_work_outside_the_checkout(checkout: FakeCheckout, tmp_path: Path) -> None:
    checkout.write({**checkout.content(), "work_dir": str(tmp_path / "elsewhere")})
    ended = checkout.brainmets("study", "params/tiny.yaml", "-n", "--", "audit")
    assert ended.stdout.splitlines()[1:] == ["1 step to run:", "  01_data_audit"]
    ended = checkout.brainmets("study", "params/tiny.yaml", "--", "audit")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert (tmp_path / "elsewhere/tiny/audit/audit.json").is_file()


@pytest.mark.slow
def test_after_a_failure_the_rest_goes_on_and_a_second_start_continues(tmp_path: Path) -> None:
    checkout = FakeCheckout(tmp_path / "checkout", arms=("default",))
    trap = checkout.trap("04_fine_tuning_default_0")
    ended = checkout.study()
    assert ended.returncode == 1
    done = checkout.ran()
    assert "06_evaluation_default_scratch" in done, "steps that do not need the failed one must go on"
    assert "06_evaluation_default_pretrained" in done
    assert "06_evaluation_default_finetune" not in done
    assert "07_statistics" not in done
    assert "08_case_review" not in done, "it explains the model that notebook 07 chooses"

    lines = ended.stdout.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("FAILED: 04_fine_tuning_default_fold_0"))
    report = "\n".join(lines[at : at + 7])
    assert "notebook   notebooks/04_fine_tuning.ipynb" in report
    assert re.search(r"cell       \[5\] under 'Train': trap =", report)
    assert "error      ValueError: the trap is set" in report
    assert "log        work/tiny/runs/04_fine_tuning_default_fold_0.log" in report
    assert re.search(r"run again  \S*brainmets notebook 04_fine_tuning params/tiny.yaml .*arm=default fold=0", report)
    assert "1 failed: 04_fine_tuning_default_fold_0" in lines[-2]
    assert "brainmets study params/tiny.yaml" in lines[-1]
    assert not (checkout.work / "training/finetune/default/fold_0/training.json").exists()

    trap.unlink()
    again = next(line for line in lines if "run again" in line).split("brainmets ", 1)[1].split()
    assert checkout.brainmets(*again).returncode == 0, "the command for the one step"
    ended = checkout.study()
    assert ended.returncode == 0, ended.stdout
    assert sorted(steps(ended.stdout)) == ["06_evaluation_default_finetune", "07_statistics", "08_case_review"]
    assert "[ 3 of 3]" in ended.stdout
    ran = checkout.ran()
    assert ran.pop("04_fine_tuning_default_0") == 2
    assert set(ran.values()) == {1}, "a finished step ran again"


def test_progress_of_a_training_is_shown(checkout: FakeCheckout) -> None:
    ended = checkout.brainmets("study", "params/tiny.yaml", "--", "audit")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "  01_data_audit: epoch 1 of 1: loss 0.5" in ended.stdout
    assert re.search(r"^\[ 1 of 1\] 01_data_audit finished in \d+\.\d s; 0:\d\d since the start$", ended.stdout, re.M)
    assert "snakemake" not in ended.stdout.lower()
    assert ended.stderr == ""


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("case 1 of 2: P01, 3 s, 3 s left", True),
        ("training case 2 of 8: P03, 4 s, 12 s left", True),
        ("3 of 8: P03, 0.2 s elapsed", False),  # scoring takes no time
        ("8 of 8 training cases, in 3 of 3 folds", False),
    ],
)
def test_lines_that_are_shown_while_a_step_runs(line: str, shown: bool) -> None:
    assert bool(PROGRESS.match(line)) is shown


# --- what makes a step run again


def dry_run(checkout: FakeCheckout) -> dict[str, int]:
    """How many jobs of each rule would run, the report left out."""
    ended = checkout.brainmets("study", "params/tiny.yaml", "-n", "--", "statistics", "case_review")
    assert ended.returncode == 0, ended.stderr
    found = re.findall(r"^  \d\d_([a-z_]+?)(?:_(?:default|segresnet)_\w+)?$", ended.stdout, re.MULTILINE)
    return {
        {"data_audit": "audit", "plan_alignment": "alignment"}.get(name, name): found.count(name) for name in found
    }


@pytest.fixture
def restored(built_checkout: FakeCheckout):
    """The built checkout; its parameters and notebooks are put back afterwards, with their times."""
    kept = {path: (path.read_bytes(), path.stat()) for path in built_checkout.root.glob("[np]*/*")}
    kept |= {path: (path.read_bytes(), path.stat()) for path in built_checkout.work.rglob("*.json")}
    yield built_checkout
    for path, (content, status) in kept.items():
        path.write_bytes(content)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_a_changed_parameter_runs_its_steps_and_what_needs_them(restored: FakeCheckout) -> None:
    content = restored.content()
    content["arms"]["segresnet"]["learning_rate"] = 0.5
    restored.write(content)
    trainings = {"pretraining": 1, "fine_tuning": 1, "from_scratch": 1}
    assert dry_run(restored) == {**trainings, "evaluation": 3, "statistics": 1, "case_review": 1}


def test_the_decision_rule_is_declared_before_the_first_step(built_checkout: FakeCheckout) -> None:
    (entry,) = declared.read(built_checkout.work / "declared.json")
    statistics = built_checkout.content()["statistics"]
    assert entry["rule"] == {**statistics["decision"], "operating": statistics["detection"]}
    assert (entry["trained"], entry["evaluated"]) == (False, False)


def test_a_changed_decision_rule_trains_nothing_and_is_recorded_as_late(
    restored: FakeCheckout, capsys: pytest.CaptureFixture[str]
) -> None:
    content = restored.content()
    content["statistics"]["decision"]["margin"] = 0.01
    restored.write(content)
    assert dry_run(restored) == {"statistics": 1, "case_review": 1}
    assert len(declared.read(restored.work / "declared.json")) == 1, "a dry run declares nothing"
    study._declare(Study.read(restored.params), StudyPaths(str(restored.work.parent), "tiny"))
    said = "statistics.decision: the rule was changed after results were there: exploratory"
    assert said in capsys.readouterr().out
    first, second = declared.read(restored.work / "declared.json")
    assert (second["evaluated"], second["previous"]) == (True, first["sha256"])


def test_a_declaration_that_was_edited_by_hand_stops_the_study(restored: FakeCheckout) -> None:
    path = restored.work / "declared.json"
    path.write_text(path.read_text().replace('"margin": 0.05', '"margin": 0.01'))
    ended = restored.study()
    assert ended.returncode == 2
    assert "declared.json is damaged or was changed by hand" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_more_workers_change_no_result(restored: FakeCheckout) -> None:
    content = restored.content()
    content["alignment"]["workers"] += 1
    content["evaluation"]["workers"] += 1
    restored.write(content)
    assert dry_run(restored) == {}


@pytest.mark.parametrize(
    ("notebook", "expected"),
    [("01_data_audit", {}), ("03_pretraining", {}), ("07_statistics", {"statistics": 1, "case_review": 1})],
)
def test_an_edit_of_a_training_notebook_trains_nothing_anew(
    restored: FakeCheckout, notebook: str, expected: dict[str, int]
) -> None:
    source = restored.source(notebook)
    text = nbformat.read(source, as_version=4)
    text.cells[0].source += "\nMore prose."
    nbformat.write(text, source)
    assert dry_run(restored) == expected


def test_a_result_made_by_hand_with_another_parameter_is_no_result_of_the_study(restored: FakeCheckout) -> None:
    path = restored.work / "statistics/statistics.json"
    record = json.loads(path.read_text())
    record["provenance"]["parameters"]["alpha"] = 0.01
    path.write_text(json.dumps(record))
    assert dry_run(restored) == {"statistics": 1, "case_review": 1}


def test_a_broken_result_is_no_result(restored: FakeCheckout) -> None:
    (restored.work / "review/review.json").write_text('{"half')
    assert dry_run(restored) == {"case_review": 1}


def own_case(checkout: FakeCheckout, name: str) -> Path:
    """A case of five empty files in the target's layout; gives its folder."""
    folder = checkout.root / "own" / name
    folder.mkdir(parents=True)
    for part in ("T1", "T1GD", "T2", "FLAIR", "LABEL"):
        (folder / f"{name}_{part}.nii.gz").touch()
    return folder


@pytest.mark.slow
def test_a_new_case_or_a_changed_file_calls_for_a_new_audit(tmp_path: Path) -> None:
    checkout = FakeCheckout(tmp_path / "checkout")
    content = checkout.content()
    content["target"].pop("phantoms")
    content["target"]["folder"] = "own"
    checkout.write(content)
    folders = [own_case(checkout, f"case_{number}") for number in range(5)]
    command = ("study", "params/tiny.yaml", "--", "audit")
    assert steps(checkout.brainmets(*command).stdout) == ["01_data_audit"]
    assert "nothing to do" in checkout.brainmets(*command).stdout
    own_case(checkout, "case_5")
    assert steps(checkout.brainmets(*command).stdout) == ["01_data_audit"]
    (folders[2] / "case_2_LABEL.nii.gz").write_bytes(b"corrected")
    assert steps(checkout.brainmets(*command).stdout) == ["01_data_audit"]
    (folders[2] / "notes.txt").write_text("no part of the case")
    assert "nothing to do" in checkout.brainmets(*command).stdout


# --- what is refused before any work


def refused(checkout: FakeCheckout, *words: str) -> str:
    ended = checkout.brainmets("study", "params/tiny.yaml", *words)
    assert ended.returncode == 2, ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr
    assert not checkout.work.exists(), "work was begun"
    return ended.stderr


def test_an_unknown_parameter_is_refused(checkout: FakeCheckout) -> None:
    content = checkout.content()
    content["pretraining"]["epoch"] = content["pretraining"].pop("epochs")
    checkout.write(content)
    message = refused(checkout)
    assert "params/tiny.yaml, section pretraining" in message
    assert "epoch: unknown parameter; did you mean 'epochs'?" in message


def test_a_wrong_value_of_the_last_step_is_refused_before_the_first(checkout: FakeCheckout) -> None:
    content = checkout.content()
    content["case_review"]["n_cases"] = 0
    checkout.write(content)
    assert "n_cases: 0 must be a whole number from 1 to 1,000 (" in refused(checkout)


def test_a_notebook_that_does_not_fit_its_parameters_is_refused(checkout: FakeCheckout) -> None:
    source = checkout.source("07_statistics")
    source.write_text(source.read_text().replace("alpha = ", "alhpa = "))
    message = refused(checkout)
    assert "notebooks/07_statistics.ipynb, cell 'parameters': alpha is missing, alhpa is unknown" in message


def test_a_cohort_folder_that_is_missing_or_empty_is_refused(checkout: FakeCheckout) -> None:
    content = checkout.content()
    content["target"].pop("phantoms")
    content["target"]["folder"] = "own"
    checkout.write(content)
    assert "params/tiny.yaml: target.folder: 'own' is no folder" in refused(checkout)
    (checkout.root / "own").mkdir()
    assert "params/tiny.yaml: target.folder: 'own' is empty" in refused(checkout)


def write_own_cohort(checkout: FakeCheckout, cases: tuple[str, ...], **changed: Any) -> None:
    """Have the study's target be empty files in ``own/``; ``changed`` replaces parts of its declaration."""
    content = checkout.content()
    content["target"].pop("phantoms", None)
    content["target"] |= {"folder": "own", **changed}
    checkout.write(content)
    for case in cases:
        own_case(checkout, case)


FOUR = ("P01", "P02", "P03", "P04")
LAYOUT = {
    "t1n": "{case}/{case}_T1.nii.gz", "t1c": "{case}/{case}_T1GD.nii.gz", "t2w": "{case}/{case}_T2.nii.gz",
    "t2f": "{case}/{case}_FLAIR.nii.gz", "label": "{case}/{case}_LABEL.nii.gz", "patient": "(.+)",
}  # fmt: skip


@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize(
    ("cohort", "expected"),
    [
        ({"held_out": 0}, "target.held_out: 0 leaves no case to test; hold out one or more"),
        ({"held_out": True}, "target.held_out: must be a number of cases or a list of case names (given: true)"),
        ({"held_out": 9}, "target.held_out: 9 of 4 cases: nothing is left to train on; lower it, or add cases"),
        (
            {"held_out": ["P1"]},
            "target.held_out names cases that the target cohort does not have: P1 (did you mean 'P01'?)",
        ),
        (
            {"held_out": 3},
            "target: 4 patients, 3 held out, leaves 1; audit.n_folds is 2: lower target.held_out or audit.n_folds, "
            "or add patients",
        ),
        (
            {"layout": {**LAYOUT, "t2w": "{case}/T9.nii.gz"}},
            "target: own: no file matches layout.t2w: '{case}/T9.nii.gz', where other patterns find 4 case(s)",
        ),
        (
            {"layout": {**LAYOUT, "t2w": "{patient}/{case}_T2.nii.gz"}},
            "target.layout.t2w: '{patient}/{case}_T2.nii.gz' holds {patient}; only {case} is allowed in braces",
        ),
        ({"layout": "brats"}, "target: own holds no case: no file matches '{case}/{case}-t1c.nii.gz'; correct"),
    ],
)
def test_a_cohort_that_cannot_be_used_is_refused_by_its_names_alone(
    checkout: FakeCheckout, monkeypatch: pytest.MonkeyPatch, cohort: dict, expected: str, dry_run: bool
) -> None:
    write_own_cohort(checkout, FOUR, **cohort)
    monkeypatch.setenv("BRAINMETS_ROOT", str(checkout.root))
    with pytest.raises(ParameterError) as error:
        study.run(checkout.params, "local", dry_run=dry_run, further=[])
    assert (
        str(error.value)
        .removeprefix(f"{checkout.params}")
        .removeprefix("params/tiny.yaml")
        .startswith(f": {expected}")
    )
    assert not checkout.work.exists()


def test_a_case_without_a_file_is_refused(checkout: FakeCheckout) -> None:
    write_own_cohort(checkout, FOUR)
    (checkout.root / "own/P02/P02_T2.nii.gz").unlink()
    expected = "params/tiny.yaml: target: own: 1 file(s) missing: P02/P02_T2.nii.gz; every case needs"
    assert expected in refused(checkout, "-n")


def test_a_cohort_of_empty_files_passes_as_long_as_its_names_are_right(
    checkout: FakeCheckout, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_own_cohort(checkout, FOUR, held_out=["P03"])
    monkeypatch.setenv("BRAINMETS_ROOT", str(checkout.root))
    study.check(Study.read(checkout.params))


def test_names_of_cases_neither_stop_the_engine_nor_stay_in_its_files(checkout: FakeCheckout) -> None:
    """Snakemake takes braces for its own, and keeps and prints what a step's parameters were."""
    names = ("Kowalczyk {1975}", "Kowalczyk {{case}}", "{wildcards.x} Kowalczyk", "Kowalczyk_1975")
    write_own_cohort(checkout, names, pseudonyms=True)
    for number in range(2):
        ended = checkout.brainmets("study", "params/tiny.yaml", "--", "audit")
        assert ended.returncode == 0, ended.stdout + ended.stderr
        own_case(checkout, f"Kowalczyk more {number}")  # which calls for a new audit
    assert checkout.ran() == {"01_data_audit": 2}
    own = checkout.root / "own"
    written = [path for path in checkout.root.rglob("*") if path.is_file() and not path.is_relative_to(own)]
    assert len(written) > 10
    assert [path for path in written if "kowalczyk" in f"{path}{path.read_bytes()!r}".lower()] == []


@pytest.mark.parametrize("dry_run", [False, True])
def test_held_out_cases_are_listed_by_their_pseudonyms(
    checkout: FakeCheckout, monkeypatch: pytest.MonkeyPatch, dry_run: bool
) -> None:
    monkeypatch.setenv("BRAINMETS_ROOT", str(checkout.root))
    write_own_cohort(checkout, FOUR, pseudonyms=True)
    read = Study.read(checkout.params)
    files = StudyPaths(read.content["work_dir"], read.content["study"])
    cases_of("target", Cohort(**read.content["target"]), SEQUENCES, files)
    for name, told in (("target-00004-000", ""), ("target-00005-000", "did you mean 'target-0000")):
        write_own_cohort(checkout, (), held_out=[name])
        if not told:
            study.check(Study.read(checkout.params))
            continue
        with pytest.raises(ParameterError, match=told):
            study.run(checkout.params, "local", dry_run=dry_run, further=[])
    write_own_cohort(checkout, (), held_out=["P03"])
    with pytest.raises(ParameterError, match=r"target\.held_out: lists other names than pseudonyms"):
        study.run(checkout.params, "local", dry_run=dry_run, further=[])


def test_an_unknown_profile_is_refused(checkout: FakeCheckout) -> None:
    assert "--profile cloud: there is no such profile; there are local, slurm" in refused(
        checkout, "--profile", "cloud"
    )


def test_a_study_does_not_run_twice_at_a_time(checkout: FakeCheckout) -> None:
    with locked(checkout.work / ".study.lock", "it"):
        ended = checkout.study()
    assert ended.returncode == 2
    assert "study tiny is in use by another process" in ended.stderr
    assert checkout.ran() == {}


def test_a_broken_snakefile_is_reported(checkout: FakeCheckout) -> None:
    workflow = checkout.root / "workflow"
    target = workflow.resolve()
    workflow.unlink()
    shutil.copytree(target, workflow)
    (workflow / "Snakefile").write_text("rule audit: this is not Snakemake")
    ended = checkout.study()
    assert ended.returncode == 1
    assert "Snakemake could not do its work; the end of work/tiny/runs/snakemake.log" in ended.stderr


# --- killed in the middle


@pytest.mark.slow
def test_a_stopped_study_leaves_nothing_half_written_and_continues(checkout: FakeCheckout) -> None:
    trap = checkout.trap("02_plan_alignment", "sleep")
    command = checkout.command("study", "params/tiny.yaml", "--", "alignment")
    # Ctrl-C ignored at the start, as under nohup: the study must still end its steps
    run = subprocess.Popen(
        ["env", "--ignore-signal=INT", *command],
        cwd=checkout.root,
        env=checkout.environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    wait_for(checkout.work / "ran_02_plan_alignment")
    time.sleep(0.5)
    run.send_signal(signal.SIGINT)
    text, _ = run.communicate(timeout=60)
    assert run.returncode == 1
    assert "FAILED: 02_plan_alignment" in text
    assert "ended by SIGINT" in text
    assert not (checkout.work / "alignment/alignment.json").exists()
    trap.unlink()
    ended = checkout.brainmets("study", "params/tiny.yaml", "--", "alignment")
    assert ended.returncode == 0, ended.stdout
    assert steps(ended.stdout) == ["02_plan_alignment"]


@pytest.mark.slow
def test_a_step_that_is_killed_outright_is_reported(checkout: FakeCheckout) -> None:
    checkout.trap("01_data_audit", "sleep")
    command = checkout.command("study", "params/tiny.yaml", "--", "audit")
    run = subprocess.Popen(command, cwd=checkout.root, env=checkout.environment(), stdout=subprocess.PIPE, text=True)
    wait_for(checkout.work / "ran_01_data_audit")
    holder = (checkout.work / "runs" / ".01_data_audit.lock").read_text().split()[1]
    time.sleep(0.5)
    os.kill(int(holder), signal.SIGKILL)
    text, _ = run.communicate(timeout=60)
    assert run.returncode == 1
    assert (
        "FAILED: 01_data_audit stopped without an error message: killed, out of memory, or past a time limit?" in text
    )
    assert not (checkout.work / "audit/audit.json").exists()


# --- raw scans


def with_raw_scans(
    checkout: FakeCheckout, patients: tuple[str, ...], names: tuple[str, ...] = NAMES
) -> dict[str, Any]:
    """The tiny study with raw scans of these patients for its target; gives its parameters."""
    raw = checkout.root / "raw"
    (raw / "labels").mkdir(parents=True)
    for number, patient in enumerate(patients):
        write_scan(raw / patient, names, seed=number)
        (raw / "labels" / f"{patient}.nii.gz").write_bytes(b"")
    content = checkout.content()
    content["target"] |= {"folder": "cohort", "layout": "brats", "held_out": 1}
    content["target"] |= {"raw": {"folder": "raw", "labels": "labels/{patient}.nii.gz", "prefix": "site"}}
    del content["target"]["phantoms"]
    checkout.write(content)
    return content


def test_a_dry_run_names_a_step_for_each_raw_scan_and_writes_nothing(checkout: FakeCheckout) -> None:
    with_raw_scans(checkout, ("Miller", "Adams", "Baker"))
    ended = checkout.brainmets("study", "params/tiny.yaml", "-n")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    listed = [line.strip() for line in ended.stdout.splitlines() if line.strip().startswith("00")]
    assert listed == [f"00_preparation_target_site-0000{number}-000" for number in (1, 2, 3)]
    assert not checkout.work.exists()
    assert not (checkout.root / "cohort").exists()
    assert not [name for name in ("Miller", "Adams", "Baker") if name in ended.stdout + ended.stderr]


def test_each_raw_scan_is_a_step_before_the_audit_and_only_a_changed_one_is_repeated(checkout: FakeCheckout) -> None:
    with_raw_scans(checkout, ("Miller", "Adams", "Baker"))
    ended = checkout.brainmets("study", "params/tiny.yaml", "--", "audit")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert steps(ended.stdout)[-1] == "01_data_audit"
    first = {f"00_preparation_target_site-0000{number}-000": 1 for number in (1, 2, 3)}
    assert checkout.ran() == {**first, "01_data_audit": 1}
    for number in (1, 2, 3):
        folder = checkout.root / "cohort" / f"site-0000{number}-000"
        for name in ("t1n", "t1c", "t2w", "t2f", "seg"):  # the notebooks of this checkout write no images
            (folder / f"{folder.name}-{name}.nii.gz").write_bytes(b"")
    write_scan(checkout.root / "raw" / "Clark", seed=9)
    (checkout.root / "raw" / "labels" / "Clark.nii.gz").write_bytes(b"")
    (checkout.root / "raw" / "labels" / "Adams.nii.gz").write_bytes(b"corrected")
    checkout.brainmets("study", "params/tiny.yaml", "--", "audit")
    ran = checkout.ran()
    assert ran["00_preparation_target_site-00004-000"] == 1
    assert sorted(ran[name] for name in first) == [1, 1, 2]
    assert ran["01_data_audit"] == 2
    (checkout.root / "cohort" / "site-00002-000" / "site-00002-000-t2w.nii.gz").unlink()
    ended = checkout.brainmets("study", "params/tiny.yaml", "-n", "--", "audit")
    listed = [line.strip() for line in ended.stdout.splitlines() if line.strip().startswith("00")]
    missing = ["00_preparation_target_site-00002-000", "00_preparation_target_site-00004-000"]
    assert listed == missing, "a prepared case that lacks a file is made again; site 4 never had one"
    (checkout.root / "cohort" / "site-00001-000" / "numbers.csv").write_text("")
    ended = checkout.brainmets("study", "params/tiny.yaml", "-n", "--", "audit")
    assert (
        "00_preparation_target_site-00001-000 is to be run again: its file site-00001-000/numbers.csv has"
        in ended.stdout
    ), "what notebook 00 wrote lies in the cohort's folder, not in the study's"


def test_scans_that_a_person_must_decide_on_stop_the_study_before_any_step(checkout: FakeCheckout) -> None:
    with_raw_scans(checkout, ("Miller", "Adams", "Baker"), ("T1_a", "T1_b", "T2", "FLAIR"))
    for words in (("-n",), ()):
        ended = checkout.brainmets("study", "params/tiny.yaml", *words)
        assert ended.returncode == 2
        assert "t1n and t1c are undecided" in ended.stderr
        assert "column role of series.csv" in ended.stderr
        assert checkout.ran() == {}


def test_raw_scans_that_cannot_be_split_are_refused_before_any_is_prepared(checkout: FakeCheckout) -> None:
    with_raw_scans(checkout, ("Miller", "Adams"))
    ended = checkout.brainmets("study", "params/tiny.yaml")
    assert ended.returncode == 2
    assert "target" in ended.stderr
    assert "fold" in ended.stderr
    assert checkout.ran() == {}


def test_a_raw_folder_that_is_not_there_is_named(checkout: FakeCheckout) -> None:
    content = with_raw_scans(checkout, ("Miller", "Adams", "Baker"))
    content["target"]["raw"]["folder"] = "nowhere"
    checkout.write(content)
    ended = checkout.brainmets("study", "params/tiny.yaml", "-n")
    assert ended.returncode == 2
    assert "params/tiny.yaml: target: raw.folder: 'nowhere' is no folder" in ended.stderr


# --- what a machine is asked for


def test_gpus_are_shared_out_and_cores_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "cpu_cores", lambda: 16)
    monkeypatch.setenv(devices.DEVICES_VARIABLE, "0,1,2,3")
    monkeypatch.setattr(study, "memory_mb", lambda: 24_000)
    options, machine = study.local_options()
    assert options == ["cores=16", "threads=4", "--cores", "16", "--resources", "device=4", "mem_mb=24000"]
    assert machine == "16 CPU cores, 4 GPUs, 4 at a time"


def test_without_a_gpu_every_core_trains_one_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "cpu_cores", lambda: 8)
    monkeypatch.setenv(devices.DEVICES_VARIABLE, "")
    monkeypatch.setattr(study, "memory_mb", lambda: 24_000)
    options, machine = study.local_options()
    assert options == ["cores=8", "threads=1", "--cores", "8", "--resources", "device=8", "mem_mb=24000"]
    assert machine == "8 CPU cores, no GPU, 8 at a time"


def fake_slurm(folder: Path, monkeypatch: pytest.MonkeyPatch, queue: str, sacct: str = "exit 1") -> None:
    for name, body in (("sbatch", ""), ("squeue", f"printf '{queue}'"), ("sacct", sacct)):
        (folder / name).write_text(f"#!/bin/sh\n{body}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_a_studys_jobs_on_a_cluster_are_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRAINMETS_ROOT", str(tmp_path))
    files = StudyPaths("work", "own.study")
    fake_slurm(tmp_path, monkeypatch, queue="")
    options, _ = slurm.slurm_options(files)
    prefix = options[options.index("--slurm-jobname-prefix") + 1]
    assert re.fullmatch(r"bm_own-study_[0-9a-f]{8}", prefix)
    assert options[-2:] == ["--slurm-status-command", "squeue"], "sacct does not answer"
    assert slurm.slurm_options(StudyPaths("work", "other"))[0][1] != prefix

    fake_slurm(tmp_path, monkeypatch, queue=rf"7 RUNNING {prefix}_abc\n8 PENDING bm_other_1\n", sacct="exit 0")
    assert [job.number for job in slurm.queued(files)] == ["7"]
    assert "--slurm-status-command" not in slurm.slurm_options(StudyPaths("work", "third"))[0]


def test_a_cluster_that_does_not_answer_is_refused_with_its_own_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BRAINMETS_ROOT", str(tmp_path))
    fake_slurm(tmp_path, monkeypatch, queue="")
    (tmp_path / "squeue").write_text("#!/bin/sh\necho 'slurm_load_jobs error: Unable to contact' >&2\nexit 1\n")
    expected = r"SLURM does not answer \(squeue: slurm_load_jobs error: Unable to contact\)"
    with pytest.raises(ParameterError, match=expected):
        slurm.queued(StudyPaths("work", "own"))
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "squeue").unlink()
    with pytest.raises(ParameterError, match="there is no squeue here; run on the cluster's login node"):
        slurm.queued(StudyPaths("work", "own"))


@pytest.mark.parametrize("text", ["executor: [", "", "- 1"])
def test_a_profile_that_is_none_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("BRAINMETS_ROOT", str(tmp_path))
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ParameterError, match=r"config\.yaml is no Snakemake profile"):
        study.read_profile(str(tmp_path))


def test_without_slurm_the_profile_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ParameterError, match="there is no sbatch here"):
        slurm.slurm_options(StudyPaths("work", "own"))


def test_cohorts_made_by_the_study_need_no_folder(checkout: FakeCheckout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRAINMETS_ROOT", str(checkout.root))
    study.check(Study.read(checkout.params))


def test_stop_cancels_the_jobs_of_this_study_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BRAINMETS_ROOT", str(tmp_path))
    files = StudyPaths("work", "own")
    prefix = job_prefix(files)
    fake_slurm(tmp_path, monkeypatch, queue="")
    (tmp_path / "queue").write_text(
        f"7 RUNNING {prefix}_a\n8 PENDING {job_prefix(StudyPaths('work', 'o'))}_b\n9 RUNNING shell\n"
    )
    (tmp_path / "squeue").write_text(f"#!/bin/sh\ncat {tmp_path}/queue\n")
    (tmp_path / "scancel").write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/cancelled\n: > {tmp_path}/queue\n')
    (tmp_path / "scancel").chmod(0o755)
    assert running.stop(files, "params/own.yaml") == 0
    assert (tmp_path / "cancelled").read_text() == "7\n"
    assert "cancelling 1 job of the cluster: 7 ..." in capsys.readouterr().out


@pytest.mark.parametrize(
    "content", ["[]", "{", "[" * 100_000, '{"provenance": 3}', '{"provenance": {"parameters": [1]}}']
)
def test_a_result_whose_record_cannot_be_read_counts_as_made_otherwise(tmp_path: Path, content: str) -> None:
    (tmp_path / "audit.json").write_text(content)
    assert not _made_with(tmp_path / "audit.json", {"seed": 1})
