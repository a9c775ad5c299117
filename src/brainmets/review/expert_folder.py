"""What experts are handed: per case the sequences and segmentations that 3D Slicer loads, the models blinded, and a
rating sheet.

The folder holds no model's name. The key, which letter is which model in which case, lies beside it and stays behind.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import nrrd
import numpy as np
import pandas as pd

from brainmets import nifti
from brainmets.cohorts.cohort import read_manifest
from brainmets.files import replacing, write_csv, write_text
from brainmets.paths import StudyPaths
from brainmets.vocabulary import LABEL_COLOURS, LABEL_TITLES, LABELS, SEQUENCES, Model

LETTERS = ("A", "B")
SHEET_COLUMNS = [
    "rater", "case", "model", "overall", "boundary", "missed_lesions", "false_lesions", "acceptable", "comment",
]  # fmt: skip

INSTRUCTIONS = """\
Expert review

Each folder is one case. Load it in 3D Slicer: drag the folder into the window and confirm. It holds the four
sequences (t1n, t1c, t2w, t2f), the reference, and the segmentations of two models, A and B. A in one case need not be
A in another.

Make a copy of ratings.csv with your name in it and fill in one row per case and model, on your own:
  rater            your name or initials, the same in every row
  overall          1 (useless) to 5 (as good as the reference)
  boundary         1 (wrong throughout) to 5 (exact)
  missed_lesions   lesions that the model missed: 0, 1, 2, ...
  false_lesions    lesions that the model invented: 0, 1, 2, ...
  acceptable       yes or no: would you use it after no more than small corrections?
  comment          anything else
Leave a row's ratings empty where you did not rate. Not a medical device: no decision about a patient may rest on this.
"""


def best_models(scores: pd.DataFrame, count: int = 2) -> list[Model]:
    """The models with the highest mean Dice over all cases and regions; of equals the first by name.

    Raises ``ValueError`` where there are fewer models than asked for.
    """
    dice = scores[scores["metric"] == "dice"]
    means = dice.groupby(["arm", "strategy"])["value"].mean().sort_index().sort_values(ascending=False, kind="stable")
    if len(means) < count:
        raise ValueError(f"{len(means)} model(s) are scored; a blinded comparison needs {count}")
    return [(str(arm), str(strategy)) for arm, strategy in means.index[:count]]


def write_expert_folder(
    files: StudyPaths, cases: dict[str, str], models: list[Model], folder: Path, seed: int
) -> pd.DataFrame:
    """Write ``folder`` (replacing what an earlier call wrote) and ``<folder>_key.csv`` beside it; gives the key.

    ``cases`` maps case names to what the experts see. Which of the two ``models`` is A is drawn per case. Images are
    written anew from voxels and affine, so that no other header field of the originals goes along. The key's columns:
    case (as in the cohort), shown, model (A or B), arm, strategy. Raises ``FileExistsError`` where the folder holds
    anything else, or a rating sheet that somebody has filled in.
    """
    if len(models) != len(LETTERS):
        raise ValueError(f"{len(models)} models were given; the blinded comparison takes two")
    _refuse_what_is_not_ours(folder)
    manifest = read_manifest(files.manifest("target"))
    random = np.random.default_rng(seed)
    aside = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    rows = []
    for case, shown in cases.items():
        for sequence in SEQUENCES:
            _write_image(manifest[case].images[sequence], aside / shown / f"{sequence}.nii.gz")
        write_segmentation(files.references / f"{case}.nii.gz", aside / shown / "reference.seg.nrrd")
        for letter, place in zip(LETTERS, random.permutation(len(models)), strict=True):
            arm, strategy = models[place]
            write_segmentation(
                files.predictions(arm, strategy) / f"{case}.nii.gz", aside / shown / f"{letter}.seg.nrrd"
            )
            rows.append((case, shown, letter, arm, strategy))
    key = pd.DataFrame(rows, columns=["case", "shown", "model", "arm", "strategy"])
    sheet = pd.DataFrame({"case": key["shown"], "model": key["model"]}).reindex(columns=SHEET_COLUMNS)
    write_csv(aside / "ratings.csv", sheet)
    write_text(aside / "README.txt", INSTRUCTIONS)
    shutil.rmtree(folder, ignore_errors=True)
    aside.rename(folder)
    write_csv(folder.with_name(f"{folder.name}_key.csv"), key)
    return key


def _refuse_what_is_not_ours(folder: Path) -> None:
    names = {"ratings.csv", "README.txt", "reference.seg.nrrd"}
    names |= {f"{sequence}.nii.gz" for sequence in SEQUENCES} | {f"{letter}.seg.nrrd" for letter in LETTERS}
    found = [path.name for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in names]
    sheet = folder / "ratings.csv"
    if sheet.is_file() and pd.read_csv(sheet, dtype=str)["rater"].notna().any():
        found.append("ratings.csv, filled in")
    if found:
        raise FileExistsError(
            f"{folder.name} holds other files than an expert review hands out ({'; '.join(found[:5])}): move them "
            "away, or set case_review.expert_folder to false"
        )


def write_segmentation(labels: Path, path: Path) -> Path:
    """A BraTS label map as a segmentation that 3D Slicer knows by its suffix ``.seg.nrrd``, with names and colours.

    One layer on the label map's own grid. Field names follow Slicer's segmentation file format
    (https://slicer.readthedocs.io/en/latest/developer_guide/modules/segmentations.html).
    """
    voxels = nifti.read_labels(labels)
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ nifti.read_grid(labels).affine
    header: dict[str, object] = {
        "space": "left-posterior-superior",
        "space directions": lps[:3, :3].T,
        "space origin": lps[:3, 3],
        "kinds": ["domain"] * 3,
        "encoding": "gzip",
        "Segmentation_ContainedRepresentationNames": "Binary labelmap|",
        "Segmentation_MasterRepresentation": "Binary labelmap",
        "Segmentation_ReferenceImageExtentOffset": "0 0 0",
    }
    extent = " ".join(f"0 {size - 1}" for size in voxels.shape)
    for number, name in enumerate(name for name, value in LABELS.items() if value in voxels and value):
        colour = LABEL_COLOURS[name]
        rgb = " ".join(f"{int(colour[at : at + 2], 16) / 255:.6f}" for at in (1, 3, 5))
        fields = {
            "ID": name, "Name": LABEL_TITLES[name], "NameAutoGenerated": "0", "Color": rgb,
            "ColorAutoGenerated": "0", "LabelValue": str(LABELS[name]), "Layer": "0", "Extent": extent, "Tags": "|",
        }  # fmt: skip
        header |= {f"Segment{number}_{field}": value for field, value in fields.items()}
    with replacing(path) as aside:
        nrrd.write(str(aside), voxels, header)
    return path


def _write_image(source: Path, path: Path) -> None:
    voxels, grid = nifti.read_volume(source)
    nifti.write(path, voxels.astype(np.float32) if voxels.dtype == np.float64 else voxels, grid.affine)
