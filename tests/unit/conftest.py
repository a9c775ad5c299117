"""A finished study with its report, for the tests of its pages."""

import pytest
import study_on_disk

from brainmets.params.study import Study
from brainmets.report import build as report


@pytest.fixture(scope="session")
def finished_study(tmp_path_factory):
    """Root, files and parameters of a checkout with a finished study whose notebook 08 was really executed."""
    root = tmp_path_factory.mktemp("checkout")
    (root / "notebooks").mkdir()
    (root / "params").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BRAINMETS_ROOT", str(root))
        files = study_on_disk.make(root / "work")
        study = Study(study_on_disk.parameters(root / "work"), "tiny.yaml")
        study_on_disk.finish(files, study)
        study_on_disk.review(files, study)
        report.build(files, study)
    return root, files, study


@pytest.fixture
def reviewed_checkout(finished_study, monkeypatch):
    """The finished study as the checkout in which a test runs."""
    monkeypatch.setenv("BRAINMETS_ROOT", str(finished_study[0]))
    return finished_study


@pytest.fixture
def index(reviewed_checkout):
    """The first page of the study's report, which is made anew where a test took it away."""
    _, files, study = reviewed_checkout
    return files.index if files.index.is_file() else report.build(files, study)
