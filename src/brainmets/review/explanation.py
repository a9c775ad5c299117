"""Why a model may have said so: how sure the folds are, what each sequence contributes, and one occlusion map.

Uncertainty, in bits, per voxel, of the probability p of one region: the entropy of the folds' mean probability, and
of it the part that is the folds' disagreement, the entropy of the mean less the mean of the folds' entropies (the
mutual information of Houlsby et al., arXiv:1112.5745; zero where all folds agree). A sequence is withheld by the value
0 after normalisation: with nnU-Net's z-score within the head's nonzero mask that is the sequence's mean in the head.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from brainmets import nifti
from brainmets.cohorts.cohort import Case, read_manifest
from brainmets.files import read_json, write_csv
from brainmets.paths import StudyPaths
from brainmets.review.case import ReviewCase
from brainmets.review.occlusion import Occlusion, occlude_lesion
from brainmets.scoring.case import score_case
from brainmets.training.inference import Ensemble, NetworkImage
from brainmets.training.session import training_device
from brainmets.vocabulary import NETWORK_REGIONS, REGIONS, SEQUENCES, STAGE_NOTEBOOKS, Model

REGION = "TC"
"""Uncertainty and occlusion are of the tumour core: lesions are counted and called missed in it, and unlike the whole
tumour it has no diffuse border, which would be uncertain everywhere."""
NOTHING = "nothing"
"""The entry of ``withheld`` for the unaltered prediction."""
COLUMNS = [
    "arm", "strategy", "case", "region", "withheld", "dice", "dice_drop", "lesions", "detected", "detected_drop",
    "false_lesions",
]  # fmt: skip

Floats = npt.NDArray[np.floating]


@dataclass(frozen=True)
class OcclusionSlice:
    """An occlusion map on the review's grid: ``drop`` (NaN where not tried) and ``lesion`` (x, y) of slice ``z``."""

    drop: npt.NDArray[np.float32]
    lesion: npt.NDArray[np.bool_]
    z: int
    probability: float
    cube_mm: tuple[float, ...]


@dataclass(frozen=True)
class Explanation:
    """What was found for one case and model.

    ``entropy`` and ``disagreement`` (x, y, z) on the case's review grid, in bits; ``disagreement`` is ``None`` with a
    single fold, where it has no meaning. ``scores``: rows of ``table``, without arm, strategy and case. ``occlusion``
    is ``None`` where none was asked for or the case has no lesion to occlude; ``note`` then says which.
    """

    case: str
    shown: ReviewCase
    model: Model
    folds: int
    entropy: npt.NDArray[np.float32]
    disagreement: npt.NDArray[np.float32] | None
    scores: list[dict[str, Any]]
    occlusion: OcclusionSlice | None = None
    note: str = ""


def entropy_bits(probability: Floats) -> npt.NDArray[np.float64]:
    """Entropy of a yes-or-no outcome, -p log2 p - (1-p) log2 (1-p), element by element; 0 at 0 and 1."""
    p = np.clip(np.asarray(probability, np.float64), 0, 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        bits = -(p * np.log2(p) + (1 - p) * np.log2(1 - p))
    return np.where((p == 0) | (p == 1), 0.0, bits)


def disagreement_bits(folds: Floats) -> npt.NDArray[np.float64] | None:
    """The folds' disagreement (fold, ...) to (...): entropy of the mean less mean of the entropies; at least 0.

    ``None`` with fewer than two folds: one opinion cannot disagree.
    """
    if len(folds) < 2:
        return None
    return np.maximum(entropy_bits(np.mean(folds, axis=0)) - entropy_bits(folds).mean(0), 0.0)


def withheld(data: npt.NDArray[np.float32], sequence: str) -> npt.NDArray[np.float32]:
    """A copy of a normalised image (sequence, ...) in which one sequence is 0 throughout: its mean in the head."""
    copy = data.copy()
    copy[SEQUENCES.index(sequence)] = 0
    return copy


def load_model(files: StudyPaths, model: Model, folds: list[int], tile_step: float) -> Ensemble:
    """The model's folds, ready to predict, without mirroring.

    Raises ``FileNotFoundError`` naming the model and every fold without a finished training.
    """
    arm, strategy = model
    missing = [fold for fold in folds if not files.checkpoint(strategy, arm, fold).is_file()]
    if missing:
        step = STAGE_NOTEBOOKS[strategy][:2]
        raise FileNotFoundError(
            f"{arm} {strategy} has no finished training of fold {', '.join(map(str, missing))}: run notebook {step} "
            "for it, correct folds, or set case_review.n_explained to 0"
        )
    checkpoints = [files.checkpoint(strategy, arm, fold) for fold in folds]
    return Ensemble.load(checkpoints, training_device(), tile_step, mirroring=False)


def explain_cases(
    files: StudyPaths,
    shown: Mapping[str, ReviewCase],
    model: Model,
    folds: list[int],
    tile_step: float,
    report: Callable[[str], None],
) -> list[Explanation]:
    """Explain ``model`` on every case of ``shown`` (name in the cohort to the case as reviewed), in that order.

    The first case, the hardest, is given the occlusion map. Without cases no checkpoint is read and the list is
    empty. Raises ``FileNotFoundError`` naming a model that was not trained or not evaluated.
    """
    if not shown:
        return []
    definition = _lesion_definition(files, model)
    ensemble = load_model(files, model, folds, tile_step)
    manifest = read_manifest(files.manifest("target"))
    found = []
    for number, (case, review) in enumerate(shown.items(), 1):
        image = ensemble.preprocess(manifest[case], files.references / f"{case}.nii.gz")
        one = _explain(ensemble, image, manifest[case], review, model, definition)
        if number == 1:
            one = _with_occlusion(one, ensemble, image, manifest[case])
        found.append(one)
        report(f"case {number} of {len(shown)}: {review.name} explained")
    return found


def table(explanations: list[Explanation]) -> pd.DataFrame:
    """One row per case, region and withheld sequence ("nothing" first); empty with these columns without any.

    Columns: ``COLUMNS``. ``dice_drop`` and ``detected_drop`` are the unaltered prediction's value less this one's;
    ``detected`` of ``lesions`` reference lesions and ``false_lesions`` follow the evaluation's lesion definition.
    """
    rows = [
        {"arm": one.model[0], "strategy": one.model[1], "case": one.case, **row}
        for one in explanations
        for row in one.scores
    ]
    values = pd.DataFrame(rows, columns=[name for name in COLUMNS if not name.endswith("_drop")])
    whole = values[values["withheld"] == NOTHING].set_index(["case", "region"])
    keys = pd.MultiIndex.from_frame(values[["case", "region"]])
    for name in ("dice", "detected"):
        values[f"{name}_drop"] = whole[name].reindex(keys).to_numpy() - values[name].to_numpy()
    return values[COLUMNS]


def write_table(folder: Path, values: pd.DataFrame) -> None:
    """Write ``explanation.csv``; without rows an older one is deleted."""
    path = folder / "explanation.csv"
    if values.empty:
        path.unlink(missing_ok=True)
    else:
        write_csv(path, values)


def _explain(
    ensemble: Ensemble, image: NetworkImage, case: Case, review: ReviewCase, model: Model, definition: Any
) -> Explanation:
    affine = nifti.read_grid(case.images["t1c"]).affine
    folds = list(ensemble.fold_probabilities(image))
    region = np.stack([probability[NETWORK_REGIONS.index(REGION)] for probability in folds])
    disagreement = disagreement_bits(region)
    rows = _scores(ensemble, np.mean(folds, axis=0), affine, review, NOTHING, definition)
    for sequence in SEQUENCES:
        altered = replace(image, data=withheld(image.data, sequence))
        mean = np.mean(list(ensemble.fold_probabilities(altered)), axis=0)
        rows += _scores(ensemble, mean, affine, review, sequence, definition)
    return Explanation(
        case=case.case,
        shown=review,
        model=model,
        folds=len(folds),
        entropy=_canonical(entropy_bits(region.mean(0)), affine),
        disagreement=None if disagreement is None else _canonical(disagreement, affine),
        scores=rows,
    )


def _scores(
    ensemble: Ensemble,
    probabilities: npt.NDArray[np.float32],
    affine: npt.NDArray[np.float64],
    review: ReviewCase,
    sequence: str,
    definition: Any,
) -> list[dict[str, Any]]:
    labels = _canonical(ensemble.labels(probabilities), affine).astype(np.uint8)
    scored = score_case(review.reference, labels, review.spacing_mm, review.affine, definition, REGIONS)
    by_region: dict[str, dict[str, float]] = {}
    for row in scored.scores:
        by_region.setdefault(row["region"], {})[row["metric"]] = row["value"]
    return [
        {
            "region": region,
            "withheld": sequence,
            "dice": values["dice"],
            "lesions": int(values["lesion_tp"] + values["lesion_fn"]),
            "detected": int(values["lesion_tp"]),
            "false_lesions": int(values["lesion_fp"]),
        }
        for region, values in by_region.items()
    ]


def _with_occlusion(one: Explanation, ensemble: Ensemble, image: NetworkImage, case: Case) -> Explanation:
    affine = nifti.read_grid(case.images["t1c"]).affine
    try:
        found = occlude_lesion(ensemble, image, affine, REGION)
    except ValueError as error:
        return replace(one, note=f"no occlusion map: {error}")
    return replace(one, occlusion=_on_review_slice(found, ensemble, image, affine))


def _on_review_slice(
    found: Occlusion, ensemble: Ensemble, image: NetworkImage, affine: npt.NDArray[np.float64]
) -> OcclusionSlice:
    """The map on the slice of the review's grid that lies nearest; of equally near ones that with most lesion."""
    shape = [1, 1, 1]
    shape[found.axis] = -1
    numbers = np.broadcast_to(np.arange(found.lesion.shape[found.axis]).reshape(shape), found.lesion.shape)
    slices, drop, lesion = (
        _canonical(ensemble.on_case_grid(np.asarray(volume, np.float32), image), affine)
        for volume in (numbers, found.drop, found.lesion)
    )
    distance = np.abs(slices - found.slice_number)
    nearest = np.flatnonzero((distance == np.nanmin(distance)).any((0, 1)))
    z = int(max(nearest, key=lambda at: np.count_nonzero(lesion[:, :, at] == 1)))
    return OcclusionSlice(drop[:, :, z], lesion[:, :, z] == 1, z, found.probability, found.cube_mm)


def _canonical(volume: npt.NDArray[Any], affine: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """A volume (z, y, x) on the file's grid as (x, y, z) along R, A and S, as ``read_case`` turns images."""
    return nifti.to_ras(volume.transpose(2, 1, 0).astype(np.float32), affine)[0]


def _lesion_definition(files: StudyPaths, model: Model) -> str:
    path = files.evaluation(*model)
    if not path.is_file():
        raise FileNotFoundError(
            f"{model[0]} {model[1]} was not evaluated ({path.name} is not there): run notebook 06 for it, "
            "or set case_review.n_explained to 0"
        )
    return str(read_json(path)["provenance"]["parameters"]["lesion_definition"])
