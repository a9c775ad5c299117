"""What is refused before a study does any work: notebooks and cohorts that do not fit the parameters.

Of the cohorts only names are read: that takes milliseconds, where notebook 01 opens every image.
"""

from __future__ import annotations

from brainmets.params import Audit, Cohort, ParameterError
from brainmets.params.study import Study
from brainmets.paths import COHORTS, NOTEBOOKS, project_root, resolve


def check(study: Study) -> None:
    """Raise ``ParameterError`` for a notebook that does not fit its parameters and a cohort that cannot be split.

    A cohort that notebook 01 makes itself is not looked for.
    """
    from brainmets.engine.notebook import check_declared  # papermill takes half a second

    for name in NOTEBOOKS:
        check_declared(project_root() / "notebooks" / f"{name}.ipynb", set(study.values(name, **study.jobs(name)[0])))
    audit = study.notebook("01_data_audit")
    assert isinstance(audit, Audit)
    for cohort in COHORTS:
        declaration = getattr(audit, cohort)
        if not declaration.phantoms:
            _check_folder(study.origin, cohort, declaration)
            _check_cases(study.origin, cohort, declaration, audit)


def _check_folder(origin: str, cohort: str, declaration: Cohort) -> None:
    folder = resolve(declaration.folder)
    where = f"{origin}: {cohort}.folder: {declaration.folder!r}"
    if not folder.is_dir():
        raise ParameterError(f"{where} is no folder; put the path of the {cohort} cohort there")
    if not any(folder.iterdir()):
        raise ParameterError(f"{where} is empty; it must hold the {cohort} cohort's cases")


def _check_cases(origin: str, cohort: str, declaration: Cohort, audit: Audit) -> None:
    from brainmets.cohorts.cohort import CohortError, find_cases  # scikit-learn takes a second
    from brainmets.cohorts.splits import SplitError, split_cohort

    try:
        patients = {case.case: case.patient for case in find_cases(declaration)}
        split_cohort(patients, declaration.held_out, audit.n_folds, audit.seed, cohort)
    except CohortError as error:
        raise ParameterError(f"{origin}: {cohort}: {error}") from None
    except SplitError as error:
        raise ParameterError(f"{origin}: {error}") from None
