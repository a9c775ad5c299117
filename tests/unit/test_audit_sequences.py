"""The audit of cohorts that have not all four sequences: cases that lack one, and whole cohorts."""

import math
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from cohort_files import OWN_LAYOUT, write_case, write_image
from PIL import Image

from brainmets import nifti
from brainmets.cohorts import audit, figures
from brainmets.cohorts.audit import audit_cohorts
from brainmets.cohorts.audit_page import WIDTH, thumbnail
from brainmets.cohorts.cohort import find_cases
from brainmets.cohorts.plausibility import NUMBERS, examine, passed_over
from brainmets.cohorts.sides import sequence_sets
from brainmets.cohorts.splits import Split
from brainmets.params import Cohort
from brainmets.phantoms.sites import make_patient
from brainmets.vocabulary import SEQUENCES

LABEL_MAP = {1: "snfh", 2: "netc", 3: "et", 4: "rc"}


def labels() -> np.ndarray:
    drawn = np.zeros((6, 5, 4), np.int16)
    drawn[1, 1:3, 1], drawn[2, 1:3, 1] = 1, 3
    return drawn


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    """Cases "a", "b", "c"; "b" has no T2, and the cohort declares that a case may lack it."""
    for case in "abc":
        write_case(tmp_path, OWN_LAYOUT, case, labels())
    (tmp_path / "b" / "T2.nii.gz").unlink()
    return Cohort(
        folder=str(tmp_path), layout=OWN_LAYOUT, label_map=LABEL_MAP, held_out=1, may_lack=["t2w"], pseudonyms=False
    )


def audited(cohort: Cohort, sequences: tuple[str, ...] = SEQUENCES) -> audit.Audit:
    return audit_cohorts({"target": find_cases(cohort, sequences)}, {"target": cohort})["target"]


def test_a_case_that_lacks_a_sequence_is_named_with_the_rules_that_say_less(cohort: Cohort) -> None:
    found = audited(cohort)
    lacking = found.findings[found.findings.rule == "lacks a sequence"]
    assert lacking[["severity", "case", "file"]].values.tolist() == [["info", "b", ""]]
    assert lacking.finding.item().startswith("has no t2w, as may_lack allows; ")
    assert lacking.finding.item().endswith(
        "or nothing: sequences swapped (but for the two T1); add the file if there is one"
    )
    assert found.cases.set_index("case").sequences.to_dict() == {
        "a": "t1n t1c t2w t2f", "b": "t1n t1c t2f", "c": "t1n t1c t2w t2f",
    }  # fmt: skip
    assert "rules passed over" not in set(found.findings.rule)
    found.require_no_errors()


def test_with_all_sequences_nothing_is_said_of_them(cohort: Cohort) -> None:
    write_image(Path(cohort.folder) / "b" / "T2.nii.gz", np.arange(120.0).reshape(6, 5, 4) ** 2)
    found = audited(cohort)
    assert not set(found.findings.rule) & {"lacks a sequence", "rules passed over", "sets of sequences"}
    assert sequence_sets(found.cases, Split(held_out=["a"], folds=[])).empty


@pytest.mark.parametrize("sequences", [("t1c",), ("t1c", "t2f"), ("t2f",), ("t1n", "t2w"), ("t1n", "t1c", "t2f")])
def test_any_subset_is_audited(cohort: Cohort, sequences: tuple[str, ...]) -> None:
    """Of a cohort that reads no t2w no case lacks it; which rules say less is told once, of the cohort."""
    found = audited(cohort, sequences)
    told = found.findings[found.findings.rule == "rules passed over"]
    assert told[["severity", "case"]].values.tolist() == [["info", "all"]]
    assert told.finding.item().startswith(f"of this cohort {', '.join(sequences)} alone is read: for want of ")
    assert ("coverage" in told.finding.item()) == (len(sequences) == 1)
    assert ("lacks a sequence" in set(found.findings.rule)) == ("t2w" in sequences)
    found.require_no_errors()


def test_without_t1c_the_first_sequence_is_what_the_others_are_compared_with(cohort: Cohort) -> None:
    write_image(Path(cohort.folder) / "a" / "FLAIR.nii.gz", np.ones((6, 5, 3)) * np.arange(3))
    found = audited(cohort, ("t1n", "t2f")).findings
    shape = found[found.rule == "other shape"]
    assert shape.finding.item().startswith("its shape (6, 5, 3) differs from the t1n's (6, 5, 4)")
    assert shape.file.item() == "a/FLAIR.nii.gz"


def test_the_label_map_is_brought_onto_the_grid_of_the_reference(cohort: Cohort) -> None:
    write_image(Path(cohort.folder) / "a" / "GT.nii.gz", labels()[..., :3])
    found = audited(cohort, ("t2f",)).findings
    assert "bring it onto the t2f's grid" in found[found.rule == "other shape"].finding.item()


def test_the_rules_that_need_absent_sequences_are_known() -> None:
    assert passed_over(SEQUENCES) == []
    assert passed_over(["t1n", "t1c", "t2f"]) == ["sequences swapped (but for the two T1)"]
    assert passed_over(["t1c", "t2f"]) == ["sequences swapped", "no contrast", "label elsewhere"]
    assert passed_over(["t1c"])[-3:] == ["coverage", "not registered", "no common anatomy"]


@pytest.mark.parametrize("sequences", [("t1c",), ("t2w",), ("t1c", "t2f"), ("t1n", "t1c", "t2f"), ("t1n", "t2w")])
def test_no_rule_fires_for_want_of_a_sequence(sequences: tuple[str, ...]) -> None:
    """A sound phantom is sound whatever of it is read; a number that needs another sequence is not there."""
    phantom = make_patient("source", 2, 4.0, 41)
    grid = nifti.Grid(Path("case.nii.gz"), phantom.labels.shape, phantom.affine, (4.0, 4.0, 4.0))
    numbers, remarks = examine({name: phantom.images[name] for name in sequences}, phantom.labels, grid)
    assert remarks == []
    assert set(numbers) == set(NUMBERS)
    for name in SEQUENCES:
        assert math.isnan(numbers[f"{name}_cover_pct"]) == (name not in sequences)
    assert math.isnan(numbers["label_here_sd"]) == (not {"t1n", "t1c", "t2f"} <= set(sequences))


def test_passed_over_agrees_with_what_is_measured() -> None:
    """Exactly the sets that "label elsewhere" passes over have no number of the label's place; likewise contrast."""
    phantom = make_patient("source", 2, 4.0, 41)
    grid = nifti.Grid(Path("case.nii.gz"), phantom.labels.shape, phantom.affine, (4.0, 4.0, 4.0))
    for number in range(1, 16):
        sequences = [name for place, name in enumerate(SEQUENCES) if number >> place & 1]
        numbers, _ = examine({name: phantom.images[name] for name in sequences}, phantom.labels, grid)
        over = passed_over(sequences)
        assert math.isnan(numbers["label_here_sd"]) == ("label elsewhere" in over)
        assert math.isnan(numbers["et_t1n_sd"] - numbers["et_t1c_sd"]) == ("no contrast" in over)
        ranks = [value for name, value in numbers.items() if name.endswith("_rank")]
        assert bool(np.isnan(ranks).any()) == any(rule.startswith("sequences swapped") for rule in over)


def test_sets_are_counted_in_training_and_test_and_a_set_of_the_test_alone_is_a_warning(cohort: Cohort) -> None:
    table = audited(cohort).cases
    taught = sequence_sets(table, Split(held_out=["a"], folds=[]))
    assert taught.severity.tolist() == ["info"]
    assert taught.finding.item().startswith(
        "cases by the sequences that they have: "
        "training: 1 with t1n+t1c+t2f, 1 with t1n+t1c+t2w+t2f; held out: 1 with t1n+t1c+t2w+t2f; "
    )
    untaught = sequence_sets(table, Split(held_out=["b"], folds=[]))
    assert untaught.severity.tolist() == ["info", "warning"]
    assert untaught.finding[1].startswith("1 held-out case(s) (b) have t1n, t1c, t2f alone, as no training case has; ")


def test_the_page_has_the_cohorts_sequences_and_a_labelled_field_where_one_is_not_there(
    cohort: Cohort, tmp_path: Path
) -> None:
    found = audited(cohort, ("t1c", "t2w"))
    found.add(sequence_sets(found.cases, Split(held_out=["b"], folds=[])))
    html = audit.write_page(tmp_path / "cases.html", "target", found).read_text()
    assert html.count(f'width="{2 * WIDTH}"') == 3
    assert "T1 after contrast, T2 on one axial slice" in html
    assert "FLAIR on one axial slice" not in html
    assert "has no t2w, as may_lack allows" in html
    assert "target, all cases:</strong> 1 held-out case(s) (b) have t1c alone" in html
    image = np.zeros((60, 70, 40), np.int16)
    image[10:50, 10:60, 2:38] = 100
    grid = nifti.Grid(Path("case.nii.gz"), image.shape, np.eye(4), (1.0, 1.0, 1.0))
    with Image.open(BytesIO(thumbnail({"t1c": image}, None, grid, ("t1c", "t2w")))) as picture:
        pixels = np.asarray(picture.convert("L")).astype(int)
    empty = pixels[:, WIDTH:]
    assert pixels.shape[1] == 2 * WIDTH
    assert empty.max() > 120, "it says what is not there"
    assert np.mean(empty > 60) < 0.05, "and shows nothing else"


def test_the_montage_has_an_empty_field_for_what_a_case_lacks(cohort: Cohort) -> None:
    drawn = figures.montage(find_cases(cohort, SEQUENCES), cohort, "all")
    assert len(drawn.axes) == 12
    assert [len(axis.images) for axis in drawn.axes[4:8]] == [1, 1, 0, 1]
    assert [text.get_text() for text in drawn.axes[6].texts] == ["no t2w"]
    assert len(figures.montage(find_cases(cohort, ["t1c"]), cohort, "one").axes) == 3


def test_quarantine_says_anew_what_is_read_of_the_cases_that_stay(cohort: Cohort) -> None:
    (Path(cohort.folder) / "c" / "T1.nii.gz").write_bytes(b"")
    cases = {"target": find_cases(cohort, ("t1n", "t2w"))}
    audits = audit_cohorts(cases, {"target": cohort})
    kept = audit.quarantine(audits, cases, {"target": cohort})
    assert [case.case for case in kept["target"]] == ["a", "b"]
    assert (audits["target"].findings.rule == "rules passed over").sum() == 1
    assert isinstance(audits["target"].findings, pd.DataFrame)
