"""Locks between processes, who holds them, and a process that ends with the one that started it."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import signal
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

PR_SET_PDEATHSIG = 1  # linux/prctl.h
PROC = Path("/proc")
TICKS = os.sysconf("SC_CLK_TCK")


class BusyError(RuntimeError):
    """Another process holds the lock; the message says which and what to do."""


# --- processes ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Process:
    """A process of this machine: its number, its start in clock ticks after boot, and its command line.

    Numbers are given out again; together with its start a number means one process alone.
    """

    pid: int
    start: int
    command: tuple[str, ...]

    @classmethod
    def of(cls, pid: int) -> Process | None:
        """The process that has this number now; ``None`` where there is none or it has ended (a zombie)."""
        try:
            fields = _stat(pid)
            command = (PROC / str(pid) / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
        except (OSError, ValueError):
            return None
        if fields[0] in ("Z", "X"):
            return None
        return cls(pid, int(fields[19]), tuple(os.fsdecode(word) for word in command))

    @property
    def since(self) -> datetime:
        """When it started, in local time, as the clock stands now."""
        boot = next(line for line in (PROC / "stat").read_text().splitlines() if line.startswith("btime"))
        return datetime.fromtimestamp(int(boot.split()[1]) + self.start / TICKS)

    def is_running(self) -> bool:
        """Whether this very process still runs."""
        now = Process.of(self.pid)
        return now is not None and now.start == self.start

    def send(self, number: signal.Signals) -> bool:
        """Send a signal to this very process, never to a later one of its number; whether it was there."""
        try:
            handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return False
        try:
            if not self.is_running():  # asked after the handle was had: from here on it means this process
                return False
            signal.pidfd_send_signal(handle, number)
        except ProcessLookupError:
            return False
        finally:
            os.close(handle)
        return True

    def __str__(self) -> str:
        return f"process {self.pid}, since {self.since:%Y-%m-%d %H:%M:%S}"


def below(processes: Iterable[Process]) -> list[Process]:
    """Every process that these have started, and those have; without themselves."""
    parents: dict[int, list[int]] = {}
    for pid in _pids():
        with suppress(OSError, ValueError):
            parents.setdefault(int(_stat(pid)[1]), []).append(pid)
    found: dict[int, None] = {}
    left = [process.pid for process in processes]
    while left:
        children = [pid for pid in parents.get(left.pop(), []) if pid not in found]
        found |= dict.fromkeys(children)
        left += children
    return [process for pid in found if (process := Process.of(pid))]


def _pids() -> list[int]:
    return [int(entry.name) for entry in PROC.iterdir() if entry.name.isdecimal()]


def _stat(pid: int) -> list[str]:
    """The fields of ``/proc/<pid>/stat`` after the command's name, which may hold anything: state, parent, ..."""
    return (PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()


def end_with_parent() -> None:
    """Have the kernel end this process when its parent ends, even when the parent is killed (Linux).

    Otherwise a training whose runner was killed would go on holding its GPU.
    """
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the call
        os._exit(1)


# --- locks -------------------------------------------------------------------------------------------------------


@contextmanager
def locked(path: Path, subject: str) -> Iterator[int]:
    """Hold the lock file ``path`` for the length of the block; gives its file descriptor.

    The lock belongs to the process, and to those that it hands the descriptor on to, and ends with them, however they
    end; the file stays. Raises ``BusyError`` naming ``subject`` and the holder where another process holds it, and
    ``PermissionError`` where ``path`` is not a plain file of this user's, or of the one who owns its folder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = _open(path)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(
                f"{subject} is in use by another process ({holder(path)}; lock file {path}): "
                "wait until it ends or stop it, then run again"
            ) from None
        sign(handle, os.getpid())
        yield handle
    finally:
        os.close(handle)


def sign(handle: int, pid: int) -> None:
    """Write into the lock file whose it is: for readers on another machine, and where ``/proc`` does not tell.

    A full disk takes nothing from the lock.
    """
    with suppress(OSError):
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"process {pid} on {os.uname().nodename}".encode(), 0)


def signed(path: Path) -> str:
    """What the last holder wrote into the lock file, its first 200 bytes; empty where there is nothing to read."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.read(handle, 200).decode(errors="replace").strip()
    except OSError:  # a folder, or a pipe that someone holds open
        return ""
    finally:
        os.close(handle)


def holder(path: Path) -> str:
    """Who holds the lock file, in words."""
    node = os.uname().nodename
    return "; ".join(f"process {one.pid} on {node}" for one in holders([path])[path]) or signed(path) or "unknown"


def is_held(path: Path) -> bool:
    """Whether any process holds the lock file, on another machine too where they share it."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(handle)


def holders(paths: Iterable[Path]) -> dict[Path, list[Process]]:
    """The processes of this machine that hold each of these lock files, by what the kernel says.

    A process that inherited the lock counts too. Another user's processes are not seen, unless one is root; nor are
    those of another machine that shares the file.
    """
    wanted = {os.path.realpath(path): path for path in paths}
    found: dict[Path, list[Process]] = {path: [] for path in wanted.values()}
    for pid in _pids() if wanted else []:
        with suppress(OSError):  # ended meanwhile, or another user's
            for link in (PROC / str(pid) / "fd").iterdir():
                path = wanted.get(str(link.readlink()))
                if path is None or "FLOCK" not in (PROC / str(pid) / "fdinfo" / link.name).read_text():
                    continue
                process = Process.of(pid)
                if process is not None and process not in found[path]:
                    found[path].append(process)
    return found


def private_folder(name: str) -> Path:
    """A folder that no other user can look into, for what this user's processes on this machine share.

    It lies below the temporary folder, where others may write: what stands there under its name must be a folder of
    this user's, or it is refused with ``PermissionError``. (The folder of the login session, ``XDG_RUNTIME_DIR``, is
    no place for it: it goes at logout, when a study goes on.)
    """
    folder = Path(tempfile.gettempdir()) / f"{name}-{os.geteuid()}"
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    way_out = "remove it, or set TMPDIR to a folder of your own"
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except NotADirectoryError:  # Linux says so of a link as well
        raise PermissionError(
            f"{folder} is not a folder but a link or a file, which may be another user's: {way_out}"
        ) from None
    except PermissionError:
        raise PermissionError(f"{folder} is closed to this user, so it may be another user's: {way_out}") from None
    try:
        if os.fstat(handle).st_uid != os.geteuid():
            raise PermissionError(f"{folder} belongs to another user: {way_out}")
        os.fchmod(handle, 0o700)
    finally:
        os.close(handle)
    return folder


def _open(path: Path) -> int:
    """A lock file opened, and made where there is none: never through a link, and never another user's file."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o660)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise PermissionError(f"{path} is a link, where a lock file must be: remove it, then run again") from None
        if error.errno in (errno.EISDIR, errno.ENXIO):
            raise PermissionError(f"{path} is no file, where a lock file must be: remove it, then run again") from None
        raise
    state = os.fstat(handle)
    wrong = ""
    if not stat.S_ISREG(state.st_mode):
        wrong = "is no plain file"
    elif state.st_nlink != 1:
        wrong = f"has {state.st_nlink} names (hard links)"
    elif state.st_uid not in (os.geteuid(), path.parent.stat().st_uid):
        wrong = "belongs to another user"
    if wrong:
        os.close(handle)
        raise PermissionError(f"{path} {wrong}, so it cannot be the lock file: remove it, then run again")
    return handle
