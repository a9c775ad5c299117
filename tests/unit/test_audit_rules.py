"""Every rule of the audit: a file made wrong by hand, and the finding; the table of rules in docs/audit.md."""

from collections.abc import Callable, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from cohort_files import OWN_LAYOUT, write_case, write_image
from damaged_images import checksum_off, longer, patch_header, sheared, without_end

from brainmets.cohorts import plausibility, rules
from brainmets.cohorts.audit import audit_cohorts
from brainmets.cohorts.cohort import find_cases
from brainmets.cohorts.rules import FINDING_COLUMNS, RULES, Rule
from brainmets.cohorts.sides import absent_regions, sequence_sets
from brainmets.cohorts.splits import FoldCases, Split
from brainmets.params import Cohort
from brainmets.phantoms import sites
from brainmets.preparation import cohort_quality
from brainmets.preparation.flags import FLAG_COLUMNS
from brainmets.vocabulary import SEQUENCES

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "audit.md"
LABEL_MAP = {1: "snfh", 2: "netc", 3: "et", 4: "rc"}


def labels(*values: int) -> np.ndarray:
    """A lesion of two voxels of each of the values, inside the volume."""
    drawn = np.zeros((6, 5, 4), np.int16)
    for place, value in enumerate(values):
        drawn[1 + place, 1:3, 1] = value
    return drawn


def declared(folder: Path, label_map: dict[int, str] | None = None, **layout: str) -> Cohort:
    return Cohort(folder=str(folder), layout={**OWN_LAYOUT, **layout}, label_map=label_map or LABEL_MAP, held_out=1)


def findings_of(folder: Path, **cohorts: Cohort) -> pd.DataFrame:
    """Of a cohort "target" of sound cases "a" and "b" in ``folder``, or of those that are given."""
    cohorts = cohorts or {"target": declared(folder)}
    audits = audit_cohorts({name: find_cases(one, SEQUENCES) for name, one in cohorts.items()}, cohorts)
    return pd.concat([audit.findings for audit in audits.values()], ignore_index=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for case in ("a", "b"):
        write_case(tmp_path, OWN_LAYOUT, case, labels(1, 3))
    return tmp_path


def image(folder: Path) -> Path:
    return folder / "a" / "T2.nii.gz"


def values() -> np.ndarray:
    return np.random.default_rng(4).integers(1, 100, (6, 5, 4)).astype(np.float64)


# --- files ---------------------------------------------------------------------------------------------------------


def to_image(change: Callable[[Path], object]) -> Callable[[Path], pd.DataFrame]:
    """An example that changes the t2w of case "a"."""

    def example(folder: Path) -> pd.DataFrame:
        change(image(folder))
        return findings_of(folder)

    return example


def of_values(voxels: Callable[[], np.ndarray], affine: np.ndarray | None = None) -> Callable[[Path], pd.DataFrame]:
    return to_image(lambda path: write_image(path, voxels(), affine))


def of_label(voxels: np.ndarray, affine: np.ndarray | None = None) -> Callable[[Path], pd.DataFrame]:
    def example(folder: Path) -> pd.DataFrame:
        write_image(folder / "a" / "GT.nii.gz", voxels, affine)
        return findings_of(folder)

    return example


def of_all_labels(*drawn: int, label_map: dict[int, str] | None = None) -> Callable[[Path], pd.DataFrame]:
    def example(folder: Path) -> pd.DataFrame:
        for case in ("a", "b"):
            write_image(folder / case / "GT.nii.gz", labels(*drawn))
        return findings_of(folder, target=declared(folder, label_map))

    return example


def other_qform(path: Path) -> None:
    patch_header(path, qform_code=1, qoffset_x=5.0, pixdim=(0, -1.0), quatern_c=1.0)


def without_orientation(folder: Path) -> pd.DataFrame:
    for path in sorted((folder / "a").iterdir()):
        patch_header(path, sform_code=0, qform_code=0)
    return findings_of(folder)


def background_level() -> np.ndarray:
    voxels = np.full((6, 5, 4), -3.25, np.float32)
    voxels[2:4, 2:4, 1:3] = np.arange(8).reshape(2, 2, 2)
    return voxels


def phantom_with(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], pd.DataFrame]:
    """A whole head, of which the t2w is changed."""

    def example(folder: Path) -> pd.DataFrame:
        images = sites.make_patient("source", 1, 3.0, seed=11).images
        for sequence, name in (("t1n", "T1"), ("t1c", "T1POST"), ("t2w", "T2"), ("t2f", "FLAIR")):
            shown = change(images[sequence]) if sequence == "t2w" else images[sequence]
            write_image(folder / "a" / f"{name}.nii.gz", shown, np.diag([3.0, 3.0, 3.0, 1.0]))
        write_image(folder / "a" / "GT.nii.gz", np.zeros(images["t1c"].shape, np.int16), np.diag([3.0, 3.0, 3.0, 1.0]))
        return findings_of(folder)

    return example


def upside_down(voxels: np.ndarray) -> np.ndarray:
    return voxels[:, ::-1, ::-1].copy()


# --- several files ---------------------------------------------------------------------------------------------------


def two_sequences(folder: Path) -> pd.DataFrame:
    """The t1n holds the t1c's voxels under another type, scaling and description."""
    voxels = np.asanyarray(nib.load(folder / "a" / "T1POST.nii.gz").dataobj)
    twin = nib.Nifti1Image(voxels, np.diag([1.0, 1.0, 2.0, 1.0]))
    twin.header["descrip"] = b"native T1"
    twin.set_qform(twin.affine, 1)
    nib.save(twin, folder / "a" / "T1.nii.gz")
    return findings_of(folder)


def two_patients(folder: Path) -> pd.DataFrame:
    (folder / "b" / "T1POST.nii.gz").write_bytes((folder / "a" / "T1POST.nii.gz").read_bytes())
    return findings_of(folder)


def one_patient(folder: Path) -> pd.DataFrame:
    for name in ("P_1", "P_2"):
        write_case(folder / "own", OWN_LAYOUT, name, labels(1, 3))
    (folder / "own" / "P_2" / "T2.nii.gz").write_bytes((folder / "own" / "P_1" / "T2.nii.gz").read_bytes())
    return findings_of(folder, target=declared(folder / "own", patient="(P)"))


def both_cohorts(folder: Path) -> pd.DataFrame:
    write_case(folder / "source", OWN_LAYOUT, "s", labels(1, 3))
    (folder / "source" / "s" / "T1.nii.gz").write_bytes((folder / "a" / "T1.nii.gz").read_bytes())
    (folder / "target").mkdir()
    (folder / "a").rename(folder / "target" / "a")
    return findings_of(folder, source=declared(folder / "source"), target=declared(folder / "target"))


def repeated_patient(folder: Path) -> pd.DataFrame:
    for name in ("P1_1", "P1_2", "P2_1", "P3_1"):
        write_case(folder / "own", OWN_LAYOUT, name, labels(1, 3))
    return findings_of(folder, target=declared(folder / "own"))


def at_the_border(folder: Path) -> pd.DataFrame:
    drawn = labels(1, 3)
    drawn[0, 0, 0] = 1
    write_image(folder / "a" / "GT.nii.gz", drawn)
    return findings_of(folder)


def of_split(enhancing: str, tumour: str = "abc", held_out: str = "c") -> Callable[[Path], pd.DataFrame]:
    """Three cases of which one is held out, in two folds."""

    def example(folder: Path) -> pd.DataFrame:
        table = pd.DataFrame({"case": list("abc")})
        for region, holders in (("ET_mL", enhancing), ("TC_mL", enhancing), ("WT_mL", tumour)):
            table[region] = [float(case in holders) for case in "abc"]
        folds = [{"train": ["a"], "val": ["b"]}, {"train": ["b"], "val": ["a"]}]
        return absent_regions(table, Split(held_out=list(held_out), folds=folds))

    return example


def in_a_lesion_free_case(folder: Path) -> pd.DataFrame:
    (folder / "free.csv").write_text("case\na\n")
    return findings_of(folder, target=declared(folder).model_copy(update={"lesion_free": str(folder / "free.csv")}))


def of_lesion_free(held_out: str, *folds: str) -> Callable[[Path], pd.DataFrame]:
    """Five cases, of which "d" and "e" are lesion-free; ``folds`` are the training cases of each."""

    def example(folder: Path) -> pd.DataFrame:
        table = pd.DataFrame({"case": list("abcde")})
        for region in ("ET_mL", "TC_mL", "WT_mL"):
            table[region] = [1.0, 1.0, 1.0, 0.0, 0.0]
        rest = [case for case in "abcde" if case not in held_out]
        made = [{"train": list(fold), "val": [case for case in rest if case not in fold]} for fold in folds]
        return absent_regions(table, Split(held_out=list(held_out), folds=made))

    return example


def of_preparation(severity: str) -> Callable[[Path], pd.DataFrame]:
    def example(folder: Path) -> pd.DataFrame:
        row = dict.fromkeys(FLAG_COLUMNS, "") | {"case": "a", "severity": severity, "text": "t2w lies 12 mm away"}
        return cohort_quality.findings(pd.DataFrame([row]))

    return example


def t1c_alone(folder: Path) -> pd.DataFrame:
    audits = audit_cohorts({"target": find_cases(declared(folder), ["t1c"])}, {"target": declared(folder)})
    return audits["target"].findings


def without_t2w(folder: Path) -> pd.DataFrame:
    image(folder).unlink()
    return findings_of(folder, target=declared(folder).model_copy(update={"may_lack": ["t2w"]}))


def of_sets(folds: Sequence[FoldCases] = (), **sequences: str) -> Callable[[Path], pd.DataFrame]:
    """Cases "a", "b", ... with these sequences, of which "c" is held out."""

    def example(folder: Path) -> pd.DataFrame:
        table = pd.DataFrame({"case": list(sequences), "sequences": list(sequences.values())})
        return sequence_sets(table, Split(held_out=["c"], folds=list(folds)))

    return example


EXAMPLES: dict[str, Callable[[Path], pd.DataFrame]] = {
    "empty file": to_image(lambda path: path.write_bytes(b"")),
    "unreadable": to_image(lambda path: path.write_text("not found")),
    "truncated": to_image(without_end),
    "checksum": to_image(checksum_off),
    "more than voxels": to_image(longer),
    "too large": to_image(lambda path: patch_header(path, dim=[3, 30_000, 30_000, 30_000, 1, 1, 1, 1])),
    "dimensions": of_values(lambda: np.ones((6, 5, 4, 2))),
    "voxel type": of_values(lambda: values().astype(np.complex64)),
    "voxel sides": to_image(lambda path: patch_header(path, pixdim=(2, 0.0))),
    "voxel sides against affine": to_image(lambda path: patch_header(path, pixdim=(1, 3.97))),
    "affine": to_image(lambda path: patch_header(path, srow_x=(0, 0.0))),
    "shear": of_values(values, sheared(8.0)),
    "sform against qform": to_image(other_qform),
    "qform": to_image(lambda path: patch_header(path, qform_code=1, quatern_b=1.5)),
    "no orientation": without_orientation,
    "other shape": of_values(lambda: values()[..., :3]),
    "other axes": of_label(labels(1, 3), np.array([[-1.0, 0, 0, 5], [0, 1, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1]])),
    "other place": of_values(values, np.eye(4)),
    "not registered": phantom_with(lambda voxels: np.roll(voxels, 5, 2)),
    "no common anatomy": phantom_with(upside_down),
    "not finite": of_values(lambda: np.where(values() > 50, np.nan, values())),
    "beyond float32": of_values(lambda: values() * 1e300),
    "no contrast in float32": of_values(lambda: values() * 1e-47),
    "constant image": of_values(lambda: np.full((6, 5, 4), 3.0)),
    "background": of_values(background_level),
    "fractional label": of_label(np.full((6, 5, 4), 0.25, np.float32)),
    "unknown label": of_label(labels(9)),
    "no lesion": of_label(labels()),
    "lesion in a lesion-free case": in_a_lesion_free_case,
    "scan in both cohorts": both_cohorts,
    "scan of two patients": two_patients,
    "scan of two sequences": two_sequences,
    "scan twice": one_patient,
    "empty region": of_all_labels(1, 3, label_map={1: "snfh", 3: "netc"}),
    "no tumour": of_all_labels(),
    "old labels": of_all_labels(1, 4),
    "repeated patient": repeated_patient,
    "rules passed over": t1c_alone,
    "lacks a sequence": without_t2w,
    "sets of sequences": of_sets(a="t1n t1c t2w t2f", b="t1n t1c t2w t2f", c="t1n t1c t2w t2f", d="t1n t1c t2f"),
    "untaught set of sequences": of_sets(a="t1n t1c t2w t2f", b="t1n t1c t2w t2f", c="t1n t1c t2f"),
    "sequence not taught in a fold": of_sets(
        [{"train": ["a"], "val": ["b"]}, {"train": ["b"], "val": ["a"]}],
        a="t1n t1c t2f", b="t1n t1c t2w t2f", c="t1n t1c t2f",
    ),
    "not taught": of_split("c"),
    "nothing to find": of_split("ab", tumour="ab"),
    "not tested": of_split("ab"),
    "nothing taught in a fold": of_lesion_free("ad", "e", "bc"),
    "lesion-free cases on one side": of_lesion_free("a", "bd", "ce"),
    "not taught in a fold": of_split("ac"),
    "not validated in a fold": of_split("ac"),
    "preparation error": of_preparation("error"),
    "preparation": of_preparation("warning"),
    "label at the border": at_the_border,
}  # fmt: skip
DOUBTED = {rule.rule for rule in plausibility.RULES}


def test_every_rule_has_an_example_and_a_name_of_its_own() -> None:
    """Those on plausibility have theirs in test_plausibility.py; one shows here that they reach the findings."""
    declared = [*rules.FILES, *rules.GEOMETRY, *rules.VALUES, *rules.LABELS, *rules.REPEATS, *rules.COHORTS]
    declared += [*rules.SCOPE, *rules.LACKING, *rules.SIDES, *rules.PREPARATION, *rules.PLAUSIBILITY]
    assert len(RULES) == len(declared)
    assert set(RULES) - DOUBTED == set(EXAMPLES) - DOUBTED
    assert set(EXAMPLES) & DOUBTED
    own_words = (*rules.PREPARATION, *rules.PLAUSIBILITY)
    assert all(rule.message and rule.example for rule in declared if rule not in own_words)


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_broken_rule_is_found_with_its_severity_and_its_words(name: str, folder: Path) -> None:
    rule, found = RULES[name], EXAMPLES[name](folder)
    assert tuple(found.columns) == FINDING_COLUMNS
    mine = found[found.rule == name]
    assert len(mine), f"found instead: {found.rule.tolist()}"
    assert set(mine.severity) == {rule.severity}
    for text in mine.finding:
        assert rule.fits(text), text
        assert "{" in rule.remedy or not rule.message or rule.remedy in text
        assert str(folder) not in text
    errors = set(found[found.severity == "error"].rule) - {name}
    assert not errors, f"one damage, several rules: {errors}"


def test_a_sound_cohort_breaks_no_rule(folder: Path) -> None:
    assert set(findings_of(folder).rule) <= DOUBTED  # volumes of 120 voxels are no heads


@pytest.mark.parametrize("name", ["t1n", "t1c", "t2w", "t2f"])
@pytest.mark.parametrize("scale", [1e300, 1e36, 1e25, 1e19])
def test_what_overflows_in_32_bits_is_an_error_wherever_it_lies(folder: Path, name: str, scale: float) -> None:
    """nnU-Net takes the deviation of float32 values, whose squares overflow from about 1e19 on."""
    path = folder / OWN_LAYOUT[name].format(case="a")
    write_image(path, values() * scale)
    single = values() * scale
    with np.errstate(over="ignore", invalid="ignore"):
        assert not np.isfinite(single.astype(np.float32).std())
    assert findings_of(folder).query("severity == 'error'").rule.tolist() == ["beyond float32"]


def test_a_scaling_of_the_header_that_overflows_is_an_error(folder: Path) -> None:
    """Integers with a slope of 3e38: finite for nibabel, which scales in 64 bits, infinite for the network."""
    patch_header(folder / "a" / "T2.nii.gz", scl_slope=3e38, scl_inter=0.0)
    found = findings_of(folder).query("severity == 'error'")
    assert found.rule.tolist() == ["beyond float32"]
    assert "3e+38" not in found.finding.iloc[0] and "e+40" in found.finding.iloc[0]


@pytest.mark.parametrize("voxels", [values() * 1e-45, values() * 1e-30, 1e12 + values()])
def test_what_vanishes_in_32_bits_is_an_error(folder: Path, voxels: np.ndarray) -> None:
    write_image(folder / "a" / "T2.nii.gz", voxels)
    assert findings_of(folder).query("severity == 'error'").rule.tolist() == ["no contrast in float32"]


@pytest.mark.parametrize(
    ("scale", "rule"), [(1e300, "beyond"), (1e25, "beyond"), (1e14, ""), (1e-6, ""), (1e-30, "no")]
)
def test_the_audit_and_nnunet_agree_on_what_32_bits_hold(folder: Path, scale: float, rule: str) -> None:
    """What nnU-Net makes of the values: not finite where they are beyond, constant where they have no contrast."""
    from nnunetv2.imageio.nibabel_reader_writer import NibabelIOWithReorient
    from nnunetv2.preprocessing.normalization.default_normalization_schemes import ZScoreNormalization

    path = folder / "a" / "T2.nii.gz"
    write_image(path, values() * scale)
    with np.errstate(all="ignore"):
        voxels = NibabelIOWithReorient().read_images([str(path)])[0]
        seen = ZScoreNormalization(False, {}).run(voxels)
    found = findings_of(folder).query("severity == 'error'").rule.tolist()
    assert [text.split()[0] for text in found] == ([rule] if rule else [])
    whole = np.isfinite(seen).all() and np.ptp(seen) > 1
    assert whole == (not rule)


def row(rule: Rule) -> str:
    """A row of the table in docs/audit.md."""
    message = rule.message or "in words of its own"
    return f"| {rule.rule} | {rule.severity} | {rule.catches} | {message} | {rule.remedy} | {rule.example} |"


def test_the_documentation_has_every_rule_as_it_is() -> None:
    """Where this fails, ``pytest`` prints the table that docs/audit.md should have."""
    table = "\n".join(row(rule).replace("{{", "{").replace("}}", "}") for rule in RULES.values())
    if table not in DOCUMENT.read_text(encoding="utf-8"):
        pytest.fail(f"docs/audit.md must hold:\n{table}", pytrace=False)
