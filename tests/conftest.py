"""Fixtures that several test files share."""

import os
from collections.abc import Iterator
from pathlib import Path

import other_sequences
import pytest
import small_study as small_study_module
from fake_checkout import FakeCheckout

from brainmets.paths import StudyPaths
from brainmets.vocabulary import SEQUENCES


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first, one of each folder in turn: those that wait lie beside those that compute."""
    turns: dict[Path, int] = {}
    for path in dict.fromkeys(item.path for item in items if item.get_closest_marker("slow")):
        turns[path] = sum(other.parent == path.parent for other in turns)
    items.sort(key=lambda item: turns.get(item.path, len(turns)))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data that is no part of the repository; CONTRIBUTING.md says what it holds."""
    named = os.environ.get("BRAINMETS_TEST_DATA")
    if not named:
        pytest.skip("BRAINMETS_TEST_DATA names no folder of real data (see CONTRIBUTING.md)")
    folder = Path(named)
    assert folder.is_dir(), f"BRAINMETS_TEST_DATA: {named} is not a folder"
    return folder


@pytest.fixture(autouse=True)
def usual_umask() -> Iterator[None]:
    """Every test starts with the umask of most machines: commands and notebooks that run in it set their own."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture
def checkout(tmp_path: Path) -> FakeCheckout:
    """A checkout of tiny notebooks."""
    return FakeCheckout(tmp_path / "checkout")


@pytest.fixture(scope="session")
def built_checkout(tmp_path_factory: pytest.TempPathFactory) -> FakeCheckout:
    """A checkout of tiny notebooks whose study has been run once; tests that use it leave it finished."""
    checkout = FakeCheckout(tmp_path_factory.mktemp("built") / "checkout")
    ended = checkout.study()
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return checkout


@pytest.fixture(scope="session")
def small_study(tmp_path_factory: pytest.TempPathFactory) -> StudyPaths:
    """A planned study of coarse phantoms; tests train in stages or folds of their own."""
    folder = tmp_path_factory.mktemp("small")
    files = StudyPaths(str(folder / "work"), "small")
    source = small_study_module.source_cohort(folder / "source")
    target = small_study_module.target_cohort(folder / "target")
    small_study_module.ingest(files, source, target, gpu_memory_gb=0.005)
    return files


@pytest.fixture(scope="session")
def mixed_study(tmp_path_factory: pytest.TempPathFactory) -> StudyPaths:
    """A planned study: source of four sequences, a case without t2w; target of t1c and t2f, a case without t2f."""
    return other_sequences.ingest(
        tmp_path_factory.mktemp("mixed"), ["t1c", "t2f"], SEQUENCES, lacking={"source": "t2w", "target": "t2f"}
    )
