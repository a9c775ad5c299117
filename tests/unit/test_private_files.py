"""What comes of patients is for the user and the group alone, whatever umask they work with."""

import ast
import json
import re
import stat
import subprocess
import sys
from pathlib import Path

import nbformat
import nibabel as nib
import numpy as np
import pytest

from brainmets.params.study import Study
from brainmets.paths import AFTER, NOTEBOOKS

REPOSITORY = Path(__file__).resolve().parents[2]


def public(folder: Path) -> list[str]:
    """What others may read, write or look into, the folder itself included."""
    every = [folder, *folder.rglob("*")]
    return [str(path) for path in every if not path.is_symlink() and stat.S_IMODE(path.stat().st_mode) & 0o007]


def run(code: str, *words: str, umask: int = 0o022) -> None:
    """Python in a process of its own, with the umask that most machines have."""
    subprocess.run([sys.executable, "-c", code, *words], check=True, umask=umask, cwd=REPOSITORY)


IN_A_NOTEBOOK = """
import json, sys
import nibabel, numpy, pandas
from brainmets import figures, files, nifti, tables
from brainmets.cohorts import cohort
from brainmets.params import Audit
from brainmets.paths import StudyPaths
from brainmets.phantoms import sites
from brainmets.provenance import Provenance
values = json.loads(sys.argv[1])
p = Audit.from_cell(values)
study = StudyPaths(p.work_dir, p.study)
sites.make_cohort(study.work / "cohorts" / "target", "target", 1, 5.0, 1)
tables.write(study.cases("target"), pandas.DataFrame({"case": ["P1"]}))
nifti.write(study.references / "P1.nii.gz", numpy.zeros((2, 2, 2), numpy.uint8), numpy.eye(4))
files.write_json(study.splits, {})
study.training_folder("scratch", "default", 0).mkdir(parents=True)
Provenance("01_data_audit", {}, study.work).write(study.audit, outputs=[study.audit.parent])
study.report.mkdir(parents=True)
"""


def test_a_notebook_in_jupyterlab_writes_for_user_and_group_alone(tmp_path: Path) -> None:
    study = Study.read(REPOSITORY / "params" / "smoke.yaml")
    values = study.values("01_data_audit") | {"work_dir": str(tmp_path / "work")}
    code = f"import os; os.environ['BRAINMETS_ROOT'] = {str(tmp_path)!r}" + IN_A_NOTEBOOK
    run(code, json.dumps(values))
    assert len(list((tmp_path / "work").rglob("*"))) > 10
    assert stat.S_IMODE((tmp_path / "work" / "smoke").stat().st_mode) == 0o750
    assert stat.S_IMODE((tmp_path / "reports" / "smoke").stat().st_mode) == 0o750
    assert public(tmp_path / "work") == public(tmp_path / "reports") == []


def test_a_folder_that_is_there_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "work" / "smoke").mkdir(parents=True)
    (tmp_path / "work" / "smoke").chmod(0o777)
    study = Study.read(REPOSITORY / "params" / "smoke.yaml")
    values = study.values("01_data_audit") | {"work_dir": str(tmp_path / "work")}
    run(f"import os; os.environ['BRAINMETS_ROOT'] = {str(tmp_path)!r}" + IN_A_NOTEBOOK, json.dumps(values))
    assert stat.S_IMODE((tmp_path / "work" / "smoke").stat().st_mode) == 0o777
    assert public(tmp_path / "work" / "smoke" / "audit") == []


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_a_command_writes_for_user_and_group_alone(tmp_path: Path, umask: int) -> None:
    for name in ("predictions", "references"):
        (tmp_path / name).mkdir()
        labels = nib.Nifti1Image(np.pad(np.full((2, 2, 2), 3, np.uint8), 3), np.eye(4))
        nib.save(labels, tmp_path / name / "P1.nii.gz")
    words = [str(tmp_path / "predictions"), str(tmp_path / "references")]
    out = [str(tmp_path / "out" / name) for name in ("scores.csv", "lesions.csv")]
    code = "import sys; from brainmets import cli; sys.exit(cli.main(sys.argv[1:]))"
    run(code, "score", *words, "--out", out[0], "--lesions", out[1], umask=umask)
    assert len(list((tmp_path / "out").iterdir())) == 2
    assert public(tmp_path / "out") == []
    if umask == 0o077:  # of a user who is stricter
        assert {stat.S_IMODE(Path(file).stat().st_mode) for file in out} == {0o600}


@pytest.mark.parametrize("name", [*NOTEBOOKS, *AFTER])
def test_every_notebook_takes_its_parameters_before_it_writes(name: str) -> None:
    notebook = nbformat.read(REPOSITORY / "notebooks" / f"{name}.ipynb", as_version=4)
    cells = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    first = next(number for number, cell in enumerate(cells) if ".from_cell(globals())" in cell)
    before = [statement for cell in cells[:first] for statement in ast.parse(cell).body]
    assert all(isinstance(one, ast.Import | ast.ImportFrom | ast.Assign) for one in before)
    assert not [cell for cell in cells[:first] if re.search(r"write\w*\(|save\(|mkdir\(", cell)]
