"""Which GPUs and how many cores and threads a step may use."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from brainmets.processes import BusyError, locked, private_folder

DEVICES_VARIABLE = "BRAINMETS_DEVICES"
"""Environment variable: the GPUs that a study shares out, such as ``0,1``; empty for none."""
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
    "nnUNet_def_n_proc",
)
DEVICE_FILES = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")  # NVIDIA, WSL and AMD drivers


def cpu_cores() -> int:
    """CPU cores that this process may use: its affinity, cut by a container's quota (cgroup v2); at least 1."""
    cores = len(os.sched_getaffinity(0))
    quota_file = Path("/sys/fs/cgroup/cpu.max")
    if quota_file.is_file():
        quota, period = quota_file.read_text().split()[:2]
        if quota != "max":
            cores = min(cores, int(quota) // int(period))
    return max(1, cores)


def memory_mb() -> int:
    """Four fifths of the memory that this process may use, in MB: the machine's, cut by a container's limit."""
    bytes_there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit_file = Path("/sys/fs/cgroup/memory.max")
    limit = limit_file.read_text().strip() if limit_file.is_file() else "max"
    return int(0.8 * (bytes_there if limit == "max" else min(bytes_there, int(limit))) / 1e6)


def cuda_devices() -> list[str]:
    """The GPUs that torch can use, as ``CUDA_VISIBLE_DEVICES`` names them; empty without one.

    ``BRAINMETS_DEVICES`` answers without asking torch. Torch is asked in a process of its own, and only where a GPU
    driver is there, because importing it takes seconds.
    """
    if DEVICES_VARIABLE in os.environ:
        return _names(os.environ[DEVICES_VARIABLE])
    if not any(Path(name).exists() for name in DEVICE_FILES):
        return []
    question = "import torch; print(torch.cuda.device_count())"
    answer = subprocess.run([sys.executable, "-c", question], capture_output=True, text=True, check=True)
    count = int(answer.stdout.split()[-1])
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return _names(visible)[:count] if visible is not None else [str(number) for number in range(count)]


def in_words(devices: list[str]) -> str:
    """``"2 GPUs"``, ``"no GPU"``, or that a driver is there with nothing that torch can use: a study without the GPU
    that its reader expects would take weeks.
    """
    if devices:
        return f"{len(devices)} GPU{'s' * (len(devices) != 1)}"
    if any(Path(name).exists() for name in DEVICE_FILES) and not os.environ.get(DEVICES_VARIABLE):
        return "no GPU that torch can use, though a driver is there (too old for this torch, or no GPU made visible?)"
    return "no GPU"


@contextmanager
def free_device(devices: list[str], on_wait: Callable[[str], None]) -> Iterator[str | None]:
    """Hold one of ``devices`` that no other BrainMets process of this user holds, waiting until one is free.

    Gives its name, or ``None`` at once where ``devices`` is empty. ``on_wait`` is called once, with a message, if it
    must wait. A count of GPUs alone would put every job of a machine on GPU 0. Raises ``PermissionError`` where the
    locks' place in the temporary folder has been taken by another user.
    """
    if not devices:
        yield None
        return
    folder = private_folder("brainmets-devices")
    waiting = False
    while True:
        for device in devices:
            try:
                with locked(folder / f"{device.replace('/', '_')}.lock", f"GPU {device}"):
                    yield device
                    return
            except BusyError:
                continue
        if not waiting:
            on_wait(f"waiting for a free GPU of {', '.join(devices)}")
            waiting = True
        time.sleep(1)


def set_threads(count: int) -> None:
    """Limit the numeric libraries of this process's children to ``count`` threads."""
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(count)))


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip() not in ("", "-1")]
