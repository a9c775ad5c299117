"""The data audit: what each case holds, and what is wrong with it or unusual.

Every rule is one of ``cohorts.rules``; what is measured on one case is in ``examination``. Under ``audit.on_error:
quarantine`` the cases with an error are left out before the split is drawn:

- A file that cannot be used leaves out its case alone. Another scan of the patient is sound data, and since splits
  keep a patient's scans together, nothing can leak from the case that is gone.
- The same scan under two patients leaves out all cases of both: the two may be one person, and then any two of their
  scans would be on both sides of a split.
- A scan in both cohorts leaves out all cases of its patient in the source: the target's are the ones that are tested.

A finding about a whole cohort stops the study in any case: no case could be left out for it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from brainmets import tables
from brainmets.cohorts import audit_page, plausibility
from brainmets.cohorts.cohort import Case, CohortError, sequences_of
from brainmets.cohorts.examination import Examination, Scan, examine
from brainmets.cohorts.fingerprint import pairs_of_one_scan
from brainmets.cohorts.plausibility import passed_over
from brainmets.cohorts.rules import FINDING_COLUMNS, OF_A_COHORT, QUARANTINED, finding, noted
from brainmets.parallel import results
from brainmets.params import Cohort
from brainmets.paths import COHORTS, StudyPaths
from brainmets.vocabulary import LABELS, REGION_ORDER, REGIONS, SEQUENCE_TITLES, SEQUENCES

CASE_COLUMNS = (
    "case", "patient", "sequences", "shape", "spacing_mm", "orientation",
    *(f"{region}_mL" for region in REGION_ORDER), "lesions", "smallest_lesion_mm3",
)  # fmt: skip
QUARANTINE_COLUMNS = ("case", "rule", "finding")
LONGEST_LIST = 20
"""Findings that a message repeats; the table has them all."""
SMALLEST_COHORT = 4
EVERY_CASE_A_PATIENT = "(.+)"
SCAN = re.compile(r"[-_. ]+(\d{4}([-_.])\d\d?\2\d\d?|\d\d?([-_.])\d\d?\3\d{4}|[A-Za-z]{0,5}\d+)$")
"""The end of a name that distinguishes the scans of a patient: a date, or a number, perhaps after a short word."""


class Suspect(NamedTuple):
    """A patient of a cohort whose cases are left out under ``quarantine``, and why."""

    patient: str
    rule: str
    finding: str


@dataclass
class Audit:
    """What the audit of one cohort gives.

    ``cases`` has ``CASE_COLUMNS`` (``sequences`` that the case has, with spaces between them; shape and spacing in the
    file's axis order, spacing in mm; ``lesions`` counts 26-connected components of WT); ``findings`` has
    ``FINDING_COLUMNS`` and may be empty: ``file`` is named from the cohort's folder, and is empty where the finding is
    about the whole cohort (case "all"). ``numbers``: ``case`` and ``plausibility.NUMBERS``. ``scans`` are the images
    that could be read; ``on_level`` are those with another value than 0 around the head, and that value. ``pictures``:
    by case, ``audit_page.thumbnail``. ``suspects``: patients whom an error makes unusable as a whole. ``quarantined``
    (``QUARANTINE_COLUMNS``): what was left out, of which ``cases`` holds nothing more.
    """

    cases: pd.DataFrame
    findings: pd.DataFrame
    numbers: pd.DataFrame
    scans: list[Scan]
    on_level: dict[Path, float]
    pictures: dict[str, bytes | None] = field(default_factory=dict)
    suspects: list[Suspect] = field(default_factory=list)
    quarantined: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=list(QUARANTINE_COLUMNS)))

    @property
    def loads(self) -> dict[str, float]:
        """Each case's whole-tumour volume in mL, for a draw by load."""
        return dict(zip(self.cases.case, self.cases.WT_mL, strict=True))

    def add(self, findings: pd.DataFrame) -> None:
        """Append findings (``FINDING_COLUMNS``)."""
        if not findings.empty:
            self.findings = pd.concat([self.findings, findings], ignore_index=True)

    def require_no_errors(self, written: Path | None = None) -> None:
        """Raise ``CohortError`` with a line for every finding of severity "error"; ``written`` is their table."""
        errors = self.findings[self.findings.severity == "error"]
        if errors.empty:
            return
        places = errors.case + ": " + errors.file.where(errors.file == "", errors.file + ": ")
        lines = ("  " + places + errors.finding).tolist()
        if len(lines) > LONGEST_LIST:
            lines = [*lines[:LONGEST_LIST], f"  ... and {len(lines) - LONGEST_LIST} more"]
        where = written or "findings.csv beside the cohort's cases.csv, in the study's audit/"
        raise CohortError(
            f"{len(errors)} finding(s) stop the study; correct the files, then rerun:\n"
            + "\n".join([*lines, f"all findings: {where}"])
        )


def audit_cohorts(
    cases: Mapping[str, Sequence[Case]],
    cohorts: Mapping[str, Cohort],
    workers: int = 1,
    progress: Callable[[str], None] | None = None,
) -> dict[str, Audit]:
    """Examine every case of every cohort by all rules but those of a split, ``workers`` cases at a time.

    The first two arguments and the result are by cohort. A worker reads each file once and holds one case: five
    volumes of at most ``nifti.LARGEST_BYTES`` as stored. ``progress`` is called with one line per finished case.
    Nothing that a file holds raises: it is a finding.
    """
    seen = _examine_all(cases, cohorts, workers, progress)
    audits = {name: _collected(name, seen, cases[name], declaration) for name, declaration in cohorts.items()}
    _note_repeats(audits)
    for remark in plausibility.compare({name: audit.numbers for name, audit in audits.items()}):
        audits[remark.cohort].add(_rows([noted(remark.rule, remark.case, "", remark.text)]))
    return audits


def _examine_all(
    cases: Mapping[str, Sequence[Case]],
    cohorts: Mapping[str, Cohort],
    workers: int,
    progress: Callable[[str], None] | None,
) -> dict[tuple[str, str], Examination]:
    """By cohort and case."""
    jobs = [_Job(name, case, cohorts[name], sequences_of(cases[name])) for name in cohorts for case in cases[name]]
    workers = min(workers, len(jobs))
    found: dict[tuple[str, str], Examination] = {}
    began = time.monotonic()
    try:
        for job, one in results(_examine, jobs, workers):
            found[job.cohort, job.case.case] = one
            if progress is not None:
                spent = time.monotonic() - began
                left = spent / len(found) * (len(jobs) - len(found))
                progress(f"case {len(found)} of {len(jobs)}: {job.case.case}, {spent:.0f} s, {left:.0f} s left")
    except BrokenProcessPool as error:
        raise CohortError(
            f"a process of the audit died, most likely for want of memory: lower audit.workers (now {workers})"
        ) from error
    return found


class _Job(NamedTuple):
    """A case to be examined, its cohort's name, declaration and sequences."""

    cohort: str
    case: Case
    declaration: Cohort
    sequences: tuple[str, ...]


def _examine(job: _Job) -> Examination:
    return examine(job.case, job.declaration, job.sequences)


def _collected(
    name: str, seen: Mapping[tuple[str, str], Examination], cases: Sequence[Case], declaration: Cohort
) -> Audit:
    ones = [seen[name, case.case] for case in cases]
    table = pd.DataFrame([one.row for one in ones], columns=list(CASE_COLUMNS))
    numbers = [{"case": one.row["case"], **one.numbers} for one in ones]
    found = [row for one in ones for row in one.findings]
    return Audit(
        table,
        _rows([*found, *_of_the_cohort(table, cases, declaration)]),
        pd.DataFrame(numbers, columns=["case", *plausibility.NUMBERS]),
        [scan for one in ones for scan in one.scans],
        {path: level for one in ones for path, level in one.on_level.items()},
        {one.row["case"]: one.picture for one in ones},
    )


def _rows(findings: Sequence[Mapping[str, str]]) -> pd.DataFrame:
    return pd.DataFrame(findings, columns=list(FINDING_COLUMNS))


def write_page(path: Path, cohort: str, audit: Audit) -> Path:
    """The page with a picture of every case of a cohort (``audit_page.write_page``); for its owner's eyes alone."""
    shown = audit.findings.assign(severity=audit.findings.severity.replace(QUARANTINED, "error"))
    found: dict[str, list[audit_page.Finding]] = {}
    for severity, case, file, text in shown[["severity", "case", "file", "finding"]].itertuples(index=False):
        found.setdefault(str(case), []).append(audit_page.Finding(str(severity), str(file), str(text)))
    table = audit.numbers.merge(audit.cases, on="case", how="left")
    read = {name for names in table.sequences.dropna() for name in str(names).split()}
    titles = [SEQUENCE_TITLES[name] for name in SEQUENCES if name in (read or SEQUENCES)]
    rows = []
    for numbers in table.to_dict("records"):
        case = str(numbers["case"])
        words = audit_page.in_words({str(name): value for name, value in numbers.items()})
        rows.append(audit_page.Row(cohort, case, audit.pictures.get(case), words, found.get(case, []), titles))
    return audit_page.write_page(path, rows, [(cohort, finding) for finding in found.get("all", [])])


# --- cases that are left out ---------------------------------------------------------------------------------------


def quarantine(
    audits: Mapping[str, Audit], cases: Mapping[str, Sequence[Case]], cohorts: Mapping[str, Cohort]
) -> dict[str, list[Case]]:
    """Leave every case with an error out of the audits; gives those that stay, by cohort.

    Which cases that are is said at the head of this module. Their findings stay, of severity "quarantined";
    ``quarantined`` lists the cases; what is said of the cohort is said anew of those that stay. Raises ``CohortError``
    where a held-out case that the parameters name would be left out.
    """
    kept = {}
    for name, audit in audits.items():
        patients = {case.case: case.patient for case in cases[name]}
        errors = audit.findings[(audit.findings.severity == "error") & audit.findings.case.isin(patients)]
        of_patients = {suspect.rule for suspect in audit.suspects} | {"scan in both cohorts"}
        rows = [
            (error.case, error.rule, error.finding) for error in errors.itertuples() if error.rule not in of_patients
        ]
        rows += [
            (case, suspect.rule, suspect.finding)
            for suspect in audit.suspects
            for case, patient in patients.items()
            if patient == suspect.patient
        ]
        left = pd.DataFrame(rows, columns=list(QUARANTINE_COLUMNS)).drop_duplicates(ignore_index=True)
        _refuse_named(name, cohorts[name], left)
        gone = set(left.case)
        kept[name] = [case for case in cases[name] if case.case not in gone]
        audit.findings.loc[errors.index, "severity"] = QUARANTINED
        audit.findings = audit.findings[~audit.findings.rule.isin(OF_A_COHORT)].reset_index(drop=True)
        audit.cases = audit.cases[~audit.cases.case.isin(gone)].reset_index(drop=True)
        audit.scans = [scan for scan in audit.scans if scan.case not in gone]
        audit.add(_rows(_of_the_cohort(audit.cases, kept[name], cohorts[name])))
        audit.quarantined = left
    return kept


def _refuse_named(cohort: str, declaration: Cohort, left: pd.DataFrame) -> None:
    named = declaration.held_out if isinstance(declaration.held_out, list) else []
    wrong = left[left.case.isin(named)]
    if len(wrong):
        lines = [f"  {row.case}: {row.rule}: {row.finding}" for row in wrong.itertuples()]
        raise CohortError(
            f"{cohort}.held_out names case(s) that on_error: quarantine would leave out of the test; correct the "
            "files, or take the cases from the list:\n" + "\n".join(lines)
        )


def quarantined(files: StudyPaths) -> pd.DataFrame:
    """What notebook 01 left out of a study: ``cohort`` and ``QUARANTINE_COLUMNS``; no row where nothing was."""
    parts = [
        tables.read(files.quarantined(name), dtype=str, keep_default_na=False).assign(cohort=name)
        for name in COHORTS
        if files.quarantined(name).is_file()
    ]
    columns = ["cohort", *QUARANTINE_COLUMNS]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def left_out(files: StudyPaths) -> list[str]:
    """``quarantined`` in sentences, one per cohort and rule, for the later notebooks and the report."""
    told = []
    for (cohort, rule), part in quarantined(files).groupby(["cohort", "rule"], sort=False):
        names = sorted(set(part.case))
        told.append(
            f"The audit left {len(names)} case(s) of the {cohort} cohort out of the study (rule: {rule}): "
            f"{', '.join(names)}."
        )
    return told


# --- what several cases show together ------------------------------------------------------------------------------


def _note_repeats(audits: Mapping[str, Audit]) -> None:
    """Add a finding for every scan that occurs twice, in one cohort or in both, and whom it makes suspect."""
    scans = [(cohort, scan) for cohort, audit in audits.items() for scan in audit.scans]
    reported = set()
    for one, other in pairs_of_one_scan([scan.content for _, scan in scans]):
        (elsewhere, earlier), (cohort, later) = scans[one], scans[other]
        pair = (elsewhere, earlier.case, cohort, later.case)
        if pair in reported and earlier.case != later.case:
            continue  # one sequence of the two cases says it
        reported.add(pair)
        suspects: list[tuple[str, str]] = []
        values: dict[str, Any] = {"twin": earlier.file}
        if elsewhere != cohort:
            rule, suspects, values["cohort"] = "scan in both cohorts", [(elsewhere, earlier.patient)], elsewhere
        elif earlier.case == later.case:
            rule = "scan of two sequences"
        elif earlier.patient != later.patient:
            rule, suspects = "scan of two patients", [(cohort, earlier.patient), (cohort, later.patient)]
            values["patient"] = earlier.patient
        else:
            rule = "scan twice"
        row = finding(rule, later.case, later.file, **values)
        audits[cohort].add(_rows([row]))
        for name, patient in suspects:
            audits[name].suspects.append(Suspect(patient, rule, f"{later.file} {row['finding']}"))


def _of_the_cohort(table: pd.DataFrame, cases: Sequence[Case], declaration: Cohort) -> list[dict[str, str]]:
    """Findings about a cohort's cases together; ``table`` has ``CASE_COLUMNS``."""
    return [
        *_empty_regions(table, declaration),
        *_repeated_patients(cases, declaration),
        *_old_labels(table, declaration),
        *_no_tumour(table),
        *_passed_over(cases),
    ]


def _passed_over(cases: Sequence[Case]) -> Iterator[dict[str, str]]:
    """What the rules cannot see where fewer than the four sequences are read of the cohort."""
    read = sequences_of(cases)
    if absent := [name for name in SEQUENCES if name not in read and cases]:
        rules = ", ".join(passed_over(read)) or "none"
        yield finding("rules passed over", "all", "", sequences=", ".join(read), absent=", ".join(absent), rules=rules)


def _empty_regions(table: pd.DataFrame, declaration: Cohort) -> Iterator[dict[str, str]]:
    """Regions that are empty in every case that could be read."""
    named = set(declaration.label_map.values())
    names = {value: name for name, value in LABELS.items()}
    for region, values in REGIONS.items():
        volumes = table[f"{region}_mL"].dropna()
        if len(volumes) and not volumes.any() and table.WT_mL.any():
            parts = [names[value] for value in values]
            absent = [part for part in parts if part not in named]
            why = f"no label map holds a value that label_map calls {' or '.join(parts)}"
            if absent == parts:
                why = f"label_map names no label {' or '.join(absent)}"
            yield finding("empty region", "all", "", region=region, parts=" + ".join(parts), why=why)


def _no_tumour(table: pd.DataFrame) -> Iterator[dict[str, str]]:
    """A cohort whose label maps could be read and hold no tumour at all."""
    volumes = table.WT_mL.dropna()
    if len(volumes) and not volumes.any():
        yield finding("no tumour", "all", "")


def _old_labels(table: pd.DataFrame, declaration: Cohort) -> Iterator[dict[str, str]]:
    """Resection cavities without any enhancing tumour: before 2023, BraTS wrote enhancing tumour as 4."""
    if table.RC_mL.any() and not table.ET_mL.any():
        value = next(value for value, name in declaration.label_map.items() if name == "rc")
        yield finding("old labels", "all", "", value=value, count=(table.RC_mL > 0).sum())


def _repeated_patients(cases: Sequence[Case], declaration: Cohort) -> Iterator[dict[str, str]]:
    """Case names that look like several scans of a patient, in a cohort that counts each case as a patient."""
    if len(cases) < SMALLEST_COHORT or declaration.files.patient != EVERY_CASE_A_PATIENT:
        return
    scans: dict[str, list[str]] = {}
    for case in cases:
        scans.setdefault(SCAN.sub("", case.own_name), []).append(case.case)
    repeated = [names for names in scans.values() if len(names) > 1]
    if repeated and len(scans) > 1:  # one stem for all is a cohort that is numbered through
        yield finding("repeated patient", "all", "", count=len(cases), names=", ".join(repeated[0][:3]))
