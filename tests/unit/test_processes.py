"""Lock files that another user could reach: nothing is followed, nothing of another's is written to."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from brainmets import processes
from brainmets.engine import running
from brainmets.engine.devices import free_device
from brainmets.paths import StudyPaths
from brainmets.processes import BusyError, holders, is_held, locked, private_folder, signed


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(processes.tempfile, "gettempdir", lambda: str(tmp_path))
    return tmp_path / f"brainmets-devices-{os.geteuid()}"


def take_device() -> str | None:
    with free_device(["0"], print) as device:
        return device


def test_the_folder_of_the_devices_is_closed_to_others(temporary: Path) -> None:
    assert take_device() == "0"
    assert stat.S_IMODE(temporary.stat().st_mode) == 0o700
    temporary.chmod(0o755)  # as an earlier version left it
    assert take_device() == "0"
    assert stat.S_IMODE(temporary.stat().st_mode) == 0o700


@pytest.mark.parametrize("name", ["", "0.lock"])
def test_no_link_is_followed(temporary: Path, tmp_path: Path, name: str) -> None:
    """Another user's link to a file that only this user may write to, in place of the folder or of the lock file."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    if name:
        temporary.mkdir(mode=0o700)
    (temporary / name if name else temporary).symlink_to(victim)
    with pytest.raises(PermissionError, match="link"):
        take_device()
    assert victim.read_text() == "precious"


def test_a_linked_folder_is_not_entered(temporary: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    temporary.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PermissionError, match="remove it, or set TMPDIR to a folder of your own"):
        take_device()
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file to another user, which needs root")
def test_what_belongs_to_another_user_is_refused(temporary: Path, tmp_path: Path) -> None:
    temporary.mkdir()
    os.chown(temporary, 12345, 12345)
    with pytest.raises(PermissionError, match="belongs to another user: remove it, or set TMPDIR"):
        private_folder("brainmets-devices")
    (tmp_path / "lock").write_text("theirs")
    os.chown(tmp_path / "lock", 12345, 12345)
    with pytest.raises(PermissionError, match="belongs to another user, so it cannot be the lock file"):
        locked(tmp_path / "lock", "x").__enter__()
    assert (tmp_path / "lock").read_text() == "theirs"


def test_a_lock_file_is_a_plain_file_of_one_name(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "linked").hardlink_to(tmp_path / "victim")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name, why in (("linked", "has 2 names"), ("pipe", "is no plain file"), ("folder", "is no file")):
        with pytest.raises(PermissionError, match=f"{name} {why}.*remove it, then run again"):
            locked(tmp_path / name, "x").__enter__()
    assert (tmp_path / "victim").read_text() == "precious"


def test_a_pipe_in_place_of_a_lock_file_keeps_nobody_waiting(tmp_path: Path) -> None:
    """It would be opened for reading until someone writes to it: `brainmets stop` would never end."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(__file__)
    ask = "import sys, pathlib; from brainmets.processes import is_held, signed; "
    for name in ("pipe", "folder", "link"):
        code = f"{ask}path = pathlib.Path({str(tmp_path / name)!r}); print(is_held(path), repr(signed(path)))"
        asked = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
        assert asked.stdout.split() == ["False", "''"]


def test_a_link_among_a_studys_locks_leads_to_no_other_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`brainmets stop` would end what works there."""
    files, other = (StudyPaths(str(tmp_path), name) for name in ("mine", "other"))
    monkeypatch.setattr(running, "_is_ours", lambda process: True)
    with locked(other.step_lock("step"), "x"):
        assert [*running.at_work(other).steps] == ["step"]
        files.runs.mkdir(parents=True)
        files.step_lock("step").symlink_to(other.step_lock("step"))
        assert running.at_work(files).steps == {}


def test_the_kernel_is_asked_who_holds_a_lock(tmp_path: Path) -> None:
    """Also where the one that took it has ended and one that it started holds it on."""
    path, other = tmp_path / "lock", tmp_path / "other"
    assert holders([path]) == {path: []}
    program = (
        "import subprocess, sys\nfrom pathlib import Path\nfrom brainmets.processes import locked\n"
        "with locked(Path(sys.argv[1]), 'x') as handle:\n"
        "    print(subprocess.Popen(['sleep', '60'], pass_fds=[handle], stdout=-3, stderr=-3).pid)"
    )
    ended = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    heir = int(ended.stdout)
    try:
        other.touch()
        found = holders([path, other])
        assert [one.pid for one in found[path]] == [heir]
        assert found[other] == []
        assert is_held(path)
        assert not is_held(other)
        assert str(heir) not in signed(path), "the file names the one that has ended"
        with pytest.raises(BusyError, match=rf"x is in use by another process \(process {heir} on "):
            locked(path, "x").__enter__()
    finally:
        os.kill(heir, 9)


def test_a_full_disk_takes_nothing_from_a_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(processes.os, "pwrite", full)
    with locked(tmp_path / "lock", "x"):
        assert is_held(tmp_path / "lock")
