"""A study of a few coarse phantoms whose cohorts have other sequences than four, and cases that lack one."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import small_study

from brainmets.paths import StudyPaths


def ingest(
    folder: Path, target: Sequence[str], source: Sequence[str], lacking: Mapping[str, str] | None = None
) -> StudyPaths:
    """A planned and preprocessed study "mixed" in ``folder``, whose cohorts have the sequences given.

    ``lacking``: by cohort, the sequence whose image the first case of the cohort's second fold is without.
    """
    files = StudyPaths(str(folder / "work"), "mixed")
    declared = {
        "source": small_study.source_cohort(folder / "source"),
        "target": small_study.target_cohort(folder / "target"),
    }
    without: dict[str, list[str]] = {"source": [], "target": []}
    for cohort, sequence in (lacking or {}).items():
        case = sorted(path for path in (folder / cohort).iterdir() if path.is_dir())[0]
        pattern = getattr(declared[cohort].files, sequence)
        (folder / cohort / pattern.format(case=case.name)).unlink()
        without[cohort] = [sequence]
    changes = {"source": {"sequences": list(source)}, "target": {}}
    source_cohort, target_cohort = (
        one.model_copy(update={**changes[name], "may_lack": without[name]}) for name, one in declared.items()
    )
    small_study.ingest(files, source_cohort, target_cohort, gpu_memory_gb=0.005, sequences=target)
    return files
