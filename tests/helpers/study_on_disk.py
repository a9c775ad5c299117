"""A small finished study for the review and the report: phantoms, references, and predictions made by damaging them.

Nothing here is trained; the numbers only have to be consistent, so that tests can work them out.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import nbformat
import nibabel as nib
import numpy as np
import pandas as pd
import papermill
import yaml
from scipy import ndimage

from brainmets.cohorts import pseudonyms, splits
from brainmets.cohorts.cohort import write_manifest
from brainmets.engine.steps import result, step_name
from brainmets.figures import save as save_figure
from brainmets.params import Cohort
from brainmets.params.study import Study
from brainmets.paths import NOTEBOOKS, StudyPaths
from brainmets.phantoms import sites
from brainmets.provenance import Provenance
from brainmets.statistics import figures
from brainmets.statistics.descriptive import describe
from brainmets.statistics.tables import COLUMNS, read_scores
from brainmets.vocabulary import LESION_COLUMNS, SEQUENCES, region_mask

REPOSITORY = Path(__file__).resolve().parents[2]

MODELS = [
    ("default", "finetune"), ("default", "scratch"), ("segresnet", "finetune"), ("segresnet", "scratch"),
    ("default", "pretrained"), ("segresnet", "pretrained"),
]  # fmt: skip
VOXEL_ML = 0.064  # of the default spacing, 4 mm
TO_BRATS = np.array([0, 2, 1, 3, 1], np.uint8)  # target site: oedema, non-enhancing, enhancing, necrosis


def make(
    work_dir: Path, study: str = "tiny", patients: int = 3, spacing_mm: float = 4.0, names: Sequence[str] = ()
) -> StudyPaths:
    """Cohort, references, predictions, scores and lesions below ``work_dir/study``.

    The cases are P01, P02, ...; where ``names`` is given, the files bear those and the study gives pseudonyms.
    """
    files = StudyPaths(str(work_dir), study)
    cohort = sites.make_cohort(work_dir / "cohort", "target", patients, spacing_mm, seed=4)
    rename(cohort, names)
    cases = pseudonyms.cases_of("target", Cohort(**declared(work_dir, bool(names))), SEQUENCES, files)
    write_manifest(files.manifest("target"), cases, SEQUENCES)
    split = splits.Split(held_out=[case.case for case in cases], folds=[splits.FoldCases(train=[], val=[])])
    splits.write(files, {"target": split})
    references = {}
    for case in cases:
        image = nib.load(case.label)
        references[case.case] = TO_BRATS[np.asarray(image.dataobj)]
        save(references[case.case], image.affine, files.references / f"{case.case}.nii.gz")
    affines = {case.case: nib.load(case.label).affine for case in cases}
    for number, (arm, strategy) in enumerate(MODELS):
        scores, lesions = [], []
        for case, reference in references.items():
            predicted = damaged(reference, number)
            save(predicted, affines[case], files.predictions(arm, strategy) / f"{case}.nii.gz")
            scores += score_rows(arm, strategy, case, reference, predicted)
            lesions += lesion_rows(arm, strategy, case, reference, predicted, affines[case])
        pd.DataFrame(scores).to_csv(files.scores(arm, strategy), index=False)
        pd.DataFrame(lesions).to_csv(files.lesions(arm, strategy), index=False)
        model = {"study": study, "arm": arm, "strategy": strategy}
        written = [files.evaluation_folder(arm, strategy)]
        Provenance("06_evaluation", model, files.work).write(files.evaluation(arm, strategy), outputs=written)
    Provenance("01_data_audit", {"study": study}, files.work).write(files.audit, outputs=[files.audit.parent])
    choose(files, [model for model in MODELS if model[1] != "pretrained"])
    return files


def declared(work_dir: Path, pseudonymous: bool) -> dict:
    """The target cohort of ``make``, as a study's parameters declare it."""
    content = yaml.safe_load((REPOSITORY / "params" / "demo.yaml").read_text(encoding="utf-8"))["target"]
    own = {"folder": str(work_dir / "cohort"), "held_out": 1, "pseudonyms": pseudonymous, "phantoms": None}
    return {**content, **own}


def rename(cohort: Path, names: Sequence[str]) -> None:
    """Give the first phantoms of a cohort of target cases other names, folder and files."""
    folders = sorted(path for path in cohort.iterdir() if path.is_dir())
    for folder, name in zip(folders, names, strict=False):
        for path in folder.iterdir():
            path.rename(path.with_name(path.name.replace(folder.name, name)))
        folder.rename(folder.with_name(name))


def choose(files: StudyPaths, models) -> None:
    """What notebook 07 writes of the choice of the best model: these, the best first."""
    listed = [{"arm": arm, "strategy": strategy, "mean_dice": 0.5} for arm, strategy in models]
    sentence = "By cross-validation on 0 training cases, nothing having been trained, the first model is the best."
    write_json(files.best_model, {"rule": "none", "sentence": sentence, "models": listed, "cases": []})


def save(labels, affine, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(labels.astype(np.uint8), affine), path)


def damaged(reference, number: int):
    """The reference moved by ``number`` voxels along x, its tumour pieces below ``4 * number`` voxels left out."""
    predicted = np.roll(reference, number, axis=0)
    pieces, count = ndimage.label(np.isin(predicted, (1, 3)), np.ones((3, 3, 3)))
    for piece in range(1, count + 1):
        if (pieces == piece).sum() < 4 * number:
            predicted = np.where(pieces == piece, 0, predicted)
    return predicted


def score_rows(arm, strategy, case, reference, predicted):
    rows = []
    for region in ("ET", "TC", "WT"):
        a, b = region_mask(reference, region), region_mask(predicted, region)
        both = np.count_nonzero(a & b)
        values = {
            "dice": (2 * both / (a.sum() + b.sum()), "1"),
            "sensitivity": (both / a.sum(), "1"),
            "specificity": (np.count_nonzero(~a & ~b) / np.count_nonzero(~a), "1"),
            "hd95": (4.0 * (a != b).any(), "mm"),
            "reference_volume": (a.sum() * VOXEL_ML, "mL"),
            "predicted_volume": (b.sum() * VOXEL_ML, "mL"),
        }
        for metric, (value, unit) in values.items():
            rows.append((arm, strategy, case, region, metric, value, unit))
    return [dict(zip(COLUMNS, row, strict=True)) for row in rows]


def lesion_rows(arm, strategy, case, reference, predicted, affine):
    mask = region_mask(reference, "TC")
    pieces, count = ndimage.label(mask, np.ones((3, 3, 3)))
    volume = abs(np.linalg.det(affine[:3, :3]))
    rows = []
    for lesion in range(1, count + 1):
        place = np.argwhere(pieces == lesion)
        x, y, z = nib.affines.apply_affine(affine, place.mean(0))
        hit = bool((region_mask(predicted, "TC") & (pieces == lesion)).any())
        rows.append((arm, strategy, case, "TC", "reference", lesion, len(place) * volume, x, y, z, "", "", hit, hit))
    return [dict(zip(LESION_COLUMNS, row, strict=True)) for row in rows]


def write_json(path: Path, content) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def parameters(work_dir: Path, study: str = "tiny", pseudonymous: bool = False) -> dict:
    """The study's parameters: ``params/demo.yaml`` with two arms, one fold, this work folder and its cohort."""
    root = REPOSITORY
    content = yaml.safe_load((root / "params" / "demo.yaml").read_text(encoding="utf-8"))
    content |= {"study": study, "work_dir": str(work_dir), "folds": [0], "target": declared(work_dir, pseudonymous)}
    content["arms"] = {name: content["arms"][name] for name in ("default", "segresnet")}
    content["case_review"] |= {"viewer": "slices", "n_explained": 0}  # no model was trained
    return content


def finish(files: StudyPaths, study: Study) -> None:
    """What notebooks 00 to 07 leave besides the scores: provenance, tables, figures and executed copies."""
    for notebook in NOTEBOOKS[:-1]:
        for job in study.jobs(notebook):
            values = study.notebook(notebook, **job).model_dump(mode="json")
            Provenance(notebook, values, root=files.work).write(result(files, notebook, job))
            executed(files.runs / f"{step_name(notebook, job)}.ipynb", f"{notebook[:2]} What does {notebook} do?")
    scores = read_scores(files.evaluations)
    table = describe(scores, alpha=0.05)
    table.to_csv(files.statistics / "descriptive.csv", index=False)
    entries = []
    for metric in ("dice", "hd95"):
        save_figure(figures.mean_with_interval(table, metric), files.statistics / f"mean_{metric}.png")
        entries.append({"file": f"mean_{metric}.png", "shows": f"The mean {metric}.", "cannot_show": "Single cases."})
    statistics = json.loads((files.statistics / "statistics.json").read_text())
    write_json(
        files.statistics / "statistics.json",
        {
            **statistics,
            "answer": ["Nothing was trained.", "So nothing is better."],
            "decision": {
                "rule": study.content["statistics"]["decision"],
                "declared": {"when": "before training", "changed": False, "time": "", "entry": "", "confirms": True},
                "verdict": "inconclusive",
                "size": "",
                "endpoints": [{"unit": "1"}],
            },
            "conclusion": "Nothing was trained, so nothing can be concluded.",
            "figures": entries,
        },
    )


def executed(path: Path, title: str) -> None:
    """An executed notebook with everything a page must not hand on."""
    nbf = nbformat.v4
    home = str(Path.home())
    outputs = [
        nbf.new_output("stream", name="stdout", text=f"read {home}/secret/scan.nii.gz\nepoch 1\repoch 2\n"),
        nbf.new_output("stream", name="stdout", text="epoch 3\n"),
        nbf.new_output("stream", name="stderr", text="/srv/data/hospital/x.py:3: UserWarning: P01 and P02\n"),
        nbf.new_output(
            "display_data", data={"text/html": "<b>bold</b><script>fetch('x')</script>", "text/plain": "plain"}
        ),
        nbf.new_output(
            "display_data", data={"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/plain": "W"}
        ),
        nbf.new_output("display_data", data={"image/png": PIXEL, "text/plain": "<Figure>"}),
        nbf.new_output("display_data", data={"text/html": lesion_volumes().to_html(), "text/plain": "a table"}),
    ]
    notebook = nbf.new_notebook(
        cells=[nbf.new_markdown_cell(f"# {title}"), nbf.new_code_cell("look()", outputs=outputs, execution_count=1)]
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)


def lesion_volumes() -> pd.DataFrame:
    """A table long enough to be searched: 20 lesions of 1, 2, 4, ... mm^3 in mixed order, the last without a value."""
    volumes = [float(2 ** (7 * number % 19)) for number in range(19)]
    return pd.DataFrame({"lesion": [f"L{number:02d}" for number in range(20)], "volume": [*volumes, np.nan]})


PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def review(files, study, **changes):
    papermill.execute_notebook(
        str(REPOSITORY / "notebooks" / "08_case_review.ipynb"),
        str(files.runs / "08_case_review.ipynb"),
        parameters={**study.values("08_case_review"), **changes},
        progress_bar=False,
        kernel_name="python3",
    )
