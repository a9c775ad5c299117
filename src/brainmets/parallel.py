"""One call for each of many jobs, side by side in processes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")


def results(call: Callable[[Job], Result], jobs: Sequence[Job], workers: int) -> Iterator[tuple[Job, Result]]:
    """Each job with what ``call`` gives for it, as they end, ``workers`` at a time; in this process where it is one.

    Raises whatever ``call`` raises, and ``BrokenProcessPool`` where a process died; jobs that wait are then dropped.
    Without jobs nothing is given.
    """
    workers = min(workers, len(jobs))
    if workers <= 1:
        for job in jobs:
            yield job, call(job)
        return
    # spawned, because a forked child of a process with running threads (a notebook's kernel, torch) can hang
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        running = {pool.submit(call, job): job for job in jobs}
        try:
            for future in as_completed(running):
                yield running[future], future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
