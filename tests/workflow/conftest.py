"""A one-node SLURM, and the shipped profile cut down to it."""

import fcntl
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from fake_checkout import REPOSITORY
from one_node_slurm import Cluster


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One at a time on the machine: a second process of the tests waits here until the first one's has ended."""
    with Path(tempfile.gettempdir(), "brainmets-tests-slurm.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield from _cluster(tmp_path_factory)


def _cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("slurm")
    for parent in (folder, *folder.parents):
        if parent.stat().st_mode & 0o777 == 0o700:
            parent.chmod(0o711)  # munge refuses a socket that others cannot reach
    cluster = Cluster(folder)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    """The shipped profile, cut down to the test's node; tiny notebooks need little."""
    content = yaml.safe_load((REPOSITORY / "workflow/profiles/slurm/config.yaml").read_text())
    content["default-resources"] = ["mem_mb=300", "runtime=5"]
    content["set-threads"] = [text.split("=")[0] + "=1" for text in content["set-threads"]]
    content["set-resources"] = [text for text in content["set-resources"] if text.endswith(":gpu=1")]
    content |= {"slurm-init-seconds-before-status-checks": 3, "latency-wait": 10, "retries": 1}
    folder = tmp_path / "profile"
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(content))
    return folder
