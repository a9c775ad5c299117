"""With what notebook 09 screens, and whom; where the engine puts it."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from fake_checkout import FakeCheckout
from real_checkout import REPOSITORY
from screened import make_screened

from brainmets.engine.notebook import find
from brainmets.files import read_json, write_json
from brainmets.params import ParameterError, Screening
from brainmets.paths import StudyPaths
from brainmets.screening import next_patient, result

SMOKE = str(REPOSITORY / "params" / "smoke.yaml")


def parameters(work: Path, **changed: object) -> Screening:
    values = {"study": "smoke", "work_dir": str(work), "params": SMOKE, "model": None, "scans": None, "out": None}
    return Screening(**{**values, "show_case": None, "viewer": "slices", **changed})


def test_the_file_of_another_study_bundles_no_model(tmp_path: Path) -> None:
    p = parameters(tmp_path, study="other")
    with pytest.raises(ParameterError, match=r"params: .*smoke\.yaml is of study 'smoke' in 'work', not of 'other'"):
        next_patient.model(p, StudyPaths(p.work_dir, p.study))


def chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, thresholds: list[float]) -> tuple[str, str]:
    files = StudyPaths(str(tmp_path), "smoke")
    names = [("segresnet", "finetune"), ("default", "finetune")]
    models = [{"arm": arm, "strategy": strategy, "mean_dice": 0.5} for arm, strategy in names]
    write_json(files.best_model, {"rule": "-", "sentence": "-", "models": models, "cases": []})
    points = {name: SimpleNamespace(threshold=value) for name, value in zip(names, thresholds, strict=True)}
    monkeypatch.setattr(next_patient.operating_point, "thaw", lambda *_: SimpleNamespace(points=points))
    return next_patient._best(files)


def test_the_best_model_that_accepts_anything_screens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert chosen(tmp_path, monkeypatch, [0.9, 0.2]) == ("segresnet", "finetune")
    assert capsys.readouterr().out == ""
    assert chosen(tmp_path, monkeypatch, [float("inf"), 0.2]) == ("default", "finetune")
    assert "SegResNet fine-tuned accepts nothing" in capsys.readouterr().out
    with pytest.raises(ParameterError, match="no model whose operating point accepts anything"):
        chosen(tmp_path, monkeypatch, [float("inf"), float("inf")])


def test_a_phantom_is_made_where_no_patient_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    monkeypatch.setattr(next_patient.scanner, "make_scanner_cohort", lambda *words, **_: made.append(words))
    p = parameters(tmp_path)
    files = StudyPaths(p.work_dir, p.study)
    for sides, expected in (((2.0, 2.0, 3.0), 3.0), ((9.0, 9.0, 9.0), 5.0), (None, 1.0)):
        bundle = SimpleNamespace(preparation=SimpleNamespace(spacing_mm=sides))
        patient = next_patient.scans(p, files, bundle)  # type: ignore[arg-type]
        assert patient.folders == [files.next_patient / "dicom"]
        assert patient.brain_masks == str(files.next_patient / "brain_masks" / "{patient}.nii.gz")
        assert made.pop()[:3] == (files.next_patient, 1, expected)
    own = next_patient.scans(parameters(tmp_path, scans=[str(tmp_path)]), files, bundle)  # type: ignore[arg-type]
    assert own == ([tmp_path], None) and not made


def test_the_most_suspicious_scan_is_read_and_a_refused_one_last(tmp_path: Path) -> None:
    folders = [
        make_screened(tmp_path / "scan-00001-000", refused=True).folder,
        make_screened(tmp_path / "scan-00002-000", 0, 1).folder,
        make_screened(tmp_path / "scan-00003-000", 1).folder,
    ]
    results = {one.files.case: one for one in sorted(map(result.read, folders), key=next_patient._suspicion)}
    assert list(results) == ["scan-00003-000", "scan-00002-000", "scan-00001-000"]
    assert next_patient.to_read(results, None).case == "scan-00003-000"
    assert next_patient.to_read(results, "scan-00001-000").case == "scan-00001-000"
    with pytest.raises(ParameterError, match="show_case: 'x' was not screened; screened are scan-00001-000, "):
        next_patient.to_read(results, "x")
    with pytest.raises(ParameterError, match="scans: holds no scan"):
        next_patient.to_read({}, None)


@pytest.mark.parametrize("name", ["09", "screening", "09_screening", "notebooks/09_screening.ipynb"])
def test_the_engine_finds_the_notebook_by_each_of_its_names(name: str) -> None:
    assert find(name) == "09_screening"


def test_the_engine_runs_it_once_and_gives_it_the_studys_own_file(checkout: FakeCheckout) -> None:
    ended = checkout.brainmets("notebook", "09", "params/tiny.yaml", 'scans=["scans"]')
    assert ended.returncode == 0, ended.stdout + ended.stderr
    written = read_json(checkout.work / "screening" / "screening.json")["provenance"]["parameters"]
    assert (written["params"], written["scans"]) == ("params/tiny.yaml", ["scans"])
    copy = checkout.work / "runs" / "09_screening.ipynb"
    assert copy.is_file() and copy.stat().st_mode & 0o077 == 0
    assert json.loads(copy.read_text())["cells"]
    wrong = checkout.brainmets("notebook", "09", "params/tiny.yaml", "fold=0")
    assert wrong.returncode == 2 and "09_screening takes no fold: it runs once per study" in wrong.stderr
