"""A finished study with its report, for the tests of its pages."""

import pytest
import study_on_disk

from brainmets.params.study import Study
from brainmets.report import build as report


@pytest.fixture(scope="module")
def reviewed_checkout(tmp_path_factory):
    """A checkout with a finished study whose notebook 08 was really executed."""
    root = tmp_path_factory.mktemp("checkout")
    (root / "notebooks").mkdir()
    (root / "params").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BRAINMETS_ROOT", str(root))
        files = study_on_disk.make(root / "work")
        study = Study(study_on_disk.parameters(root / "work"), "tiny.yaml")
        study_on_disk.finish(files, study)
        study_on_disk.review(files, study)
        yield root, files, study


@pytest.fixture(scope="module")
def index(reviewed_checkout):
    _, files, study = reviewed_checkout
    return report.build(files, study)
