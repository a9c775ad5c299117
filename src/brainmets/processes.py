"""Locks between processes, and a process that ends with the one that started it."""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PR_SET_PDEATHSIG = 1  # linux/prctl.h


class BusyError(RuntimeError):
    """Another process holds the lock; the message says which and what to do."""


@contextmanager
def locked(path: Path, subject: str) -> Iterator[int]:
    """Hold the lock file ``path`` for the length of the block; gives its file descriptor.

    The lock belongs to the process and ends with it, however it ends; the file stays. Raises ``BusyError`` naming
    ``subject`` and the holder's process where another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.seek(0)
            holder = handle.read().strip() or "unknown"
            raise BusyError(
                f"{subject} is in use by another process ({holder}; lock file {path}): "
                "wait until it ends or stop it, then run again"
            ) from None
        handle.seek(0)
        handle.truncate()
        handle.write(f"process {os.getpid()} on {os.uname().nodename}")
        handle.flush()
        yield handle.fileno()


def end_with_parent() -> None:
    """Have the kernel end this process when its parent ends, even when the parent is killed (Linux).

    Otherwise a training whose runner was killed would go on holding its GPU.
    """
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the call
        os._exit(1)
