"""Why a model may have predicted this: how sure the folds are, what each sequence contributes, and one occlusion map.

Uncertainty, in bits, per voxel, of the probability p of one region: the entropy of the folds' mean probability, and
of it the part that is the folds' disagreement, the entropy of the mean less the mean of the folds' entropies (the
mutual information of Houlsby et al., arXiv:1112.5745; zero where all folds agree).

A sequence is withheld by its own mean in the head, in every voxel of the head. Where the plan normalises within the
head (``use_mask_for_norm``) that is 0; where it normalises over the whole box, air included, 0 is darker than any
tissue, and the mean is measured. The occlusion map hides a small cube in all sequences at once by the same values
(MONAI's ``OcclusionSensitivity``, after Zeiler and Fergus, ECCV 2014, arXiv:1311.2901).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cc3d
import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from monai.visualize import OcclusionSensitivity

from brainmets import tables
from brainmets.cohorts.background import air_level
from brainmets.cohorts.cohort import read_manifest
from brainmets.files import read_json
from brainmets.paths import StudyPaths
from brainmets.review.case import ReviewCase, read_case
from brainmets.review.panels import worst_slice
from brainmets.review.ranking import LESION_REGION
from brainmets.scoring.case import score_case
from brainmets.scoring.probabilities import entropy_bits
from brainmets.training.inference import Ensemble, NetworkImage
from brainmets.training.session import training_device
from brainmets.training.subsets import read_of
from brainmets.vocabulary import (
    NETWORK_REGIONS,
    REGIONS,
    SEQUENCES,
    STAGE_NOTEBOOKS,
    STRATEGY_STAGES,
    Model,
    region_mask,
)

REGION = LESION_REGION
"""Uncertainty and occlusion are of the tumour core, in which lesions are counted: unlike the whole tumour it has no
diffuse border, which would be uncertain everywhere."""
NOTHING = "nothing"
"""The entry of ``withheld`` for the unaltered prediction."""
COLUMNS = [
    "arm", "strategy", "case", "region", "withheld", "dice", "dice_drop", "lesions", "detected", "detected_drop",
    "false_lesions",
]  # fmt: skip

FULL_BOX = 0.95
"""No head fills its bounding box: from this share on the voxels that are not 0 are the air's too."""
CUBE_MM = 9.0
"""Edge of the hidden cube; the nearest odd number of voxels is taken along each axis."""
MARGIN_MM = 20.0
"""The occlusion map covers the lesion's bounding box on its slice and this much around it."""
BATCH = 1  # a patch of full size takes about a gigabyte inside the network
SEEN = 0.5
"""Mean probability from which a lesion counts as seen by the model."""

Floats = npt.NDArray[np.float32]
Affine = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Occlusion:
    """An occlusion map on axial slice ``z`` of the case's review grid.

    ``drop`` (x, y): probability lost where a cube is hidden, the mean over the cubes that cover a voxel, NaN where
    none was tried; ``lesion`` (x, y); ``probability``: the lesion's mean probability with nothing hidden;
    ``cube_mm``: the cube's edges on the network's grid.
    """

    drop: Floats
    lesion: Mask
    z: int
    probability: float
    cube_mm: tuple[float, ...]


@dataclass(frozen=True)
class Explanation:
    """What was found for one case and model.

    ``entropy`` and ``disagreement`` (x, y), in bits, on axial slice ``z`` of the
    case's review grid, where all models differ most from the reference; ``disagreement`` is ``None`` with a single
    fold, where it has no meaning. ``scores``: rows of ``table``, without arm, strategy and case; ``sequences``: those
    that were withheld in turn, which the case has and the model reads. ``occlusion``
    is ``None`` where none was asked for or the case has no lesion to occlude; ``note`` then says which.
    """

    case: str
    model: Model
    folds: int
    z: int
    entropy: npt.NDArray[np.floating]
    disagreement: npt.NDArray[np.floating] | None
    scores: list[dict[str, Any]]
    sequences: tuple[str, ...] = SEQUENCES
    occlusion: Occlusion | None = None
    note: str = ""


def explain_cases(
    files: StudyPaths,
    cases: Sequence[str],
    compared: list[Model],
    model: Model,
    folds: list[int],
    tile_step: float,
    report: Callable[[str], None],
) -> list[Explanation]:
    """Explain ``model`` on every one of ``cases``, in that order.

    Predictions are made anew without mirroring. All models ``compared`` choose the slice to show. The first case, the
    hardest, is given the occlusion map. One case is held at a time, in some 60 bytes a voxel. Without cases no
    checkpoint is read and the list is empty. Raises ``FileNotFoundError`` naming a model that was not trained (with
    its folds) or not evaluated.
    """
    if not cases:
        return []
    if not files.evaluation(*model).is_file():
        raise FileNotFoundError(
            f"{' '.join(model)} was not evaluated (there is no {files.evaluation(*model).name}): run notebook 06 "
            "for it, or set case_review.n_explained to 0"
        )
    definition = read_json(files.evaluation(*model))["provenance"]["parameters"]["lesion_definition"]
    stage = STRATEGY_STAGES[model[1]]
    checkpoints = {fold: files.checkpoint(stage, model[0], fold) for fold in folds}
    if missing := [str(fold) for fold, path in checkpoints.items() if not path.is_file()]:
        raise FileNotFoundError(
            f"{' '.join(model)} has no finished training of fold {', '.join(missing)}: run notebook "
            f"{STAGE_NOTEBOOKS[stage][:2]} for it, correct folds, or set case_review.n_explained to 0"
        )
    ensemble = Ensemble.load(list(checkpoints.values()), training_device(), tile_step, mirroring=False)
    manifest = read_manifest(files.manifest("target"))
    explanations = []
    for number, case in enumerate(cases, 1):
        review = read_case(files, case, compared, ())
        z, _ = worst_slice(review, REGION)
        review = replace(review, predictions={})  # held no longer than the slice is looked for
        image = ensemble.preprocess(manifest[case], files.references / f"{case}.nii.gz")
        found = _explain(ensemble, image, read_of(ensemble, manifest[case]), review, z, model, definition)
        if number == 1:
            try:
                found = replace(found, occlusion=occlude_lesion(ensemble, image))
            except ValueError as error:
                found = replace(found, note=f"no occlusion map: {error}")
        explanations.append(found)
        report(f"case {number} of {len(cases)}: {case} explained")
    return explanations


def table(explanations: list[Explanation]) -> pd.DataFrame:
    """One row per case, region and withheld sequence ("nothing" first); empty with these columns without any.

    A sequence that a case lacks cannot be withheld and has no row of it.
    Columns: ``COLUMNS``. ``dice`` is missing where the reference lacks the region. ``dice_drop`` and
    ``detected_drop`` are the unaltered prediction's value less this one's;
    ``detected`` of ``lesions`` reference lesions (the evaluation's definition parts them) and ``false_lesions`` are by
    the one-to-one rule (``brainmets.scoring.one_to_one``).
    """
    rows = [
        {"arm": one.model[0], "strategy": one.model[1], "case": one.case, **row}
        for one in explanations
        for row in one.scores
    ]
    values = pd.DataFrame(rows, columns=[name for name in COLUMNS if not name.endswith("_drop")])
    unaltered = values.groupby(["case", "region"])[["dice", "detected"]].transform("first")
    for name in unaltered:
        values[f"{name}_drop"] = unaltered[name] - values[name]
    return values[COLUMNS]


def write_table(folder: Path, values: pd.DataFrame) -> None:
    """Write ``explanation.csv``; without rows an older one is deleted."""
    path = folder / "explanation.csv"
    if values.empty:
        path.unlink(missing_ok=True)
    else:
        tables.write(path, values)


def _explain(
    ensemble: Ensemble,
    image: NetworkImage,
    there: tuple[str, ...],
    review: ReviewCase,
    z: int,
    model: Model,
    lesion_definition: Any,
) -> Explanation:
    """Uncertainty of the unaltered prediction, and the scores of it and of one prediction per withheld sequence."""
    head = head_mask(image)
    rows: list[dict[str, Any]] = []
    slices: list[Floats] = []
    for sequence in (NOTHING, *there):
        with ExitStack() as altered:
            if sequence != NOTHING:
                altered.enter_context(withheld(image.data[ensemble.sequences.index(sequence)], head))
            folds = ensemble.fold_probabilities(image)
            if sequence == NOTHING:
                folds = _keeping_slices(folds, z, slices)
            labels = _xyz(ensemble.labels(ensemble.mean_probabilities(folds)))
        scored = score_case(review.reference, labels, review.spacing_mm, review.affine, lesion_definition, REGIONS)
        value = {(row["region"], row["metric"]): row["value"] for row in scored.scores}
        rows += [
            {
                "region": name,
                "withheld": sequence,
                "dice": value[name, "dice"] if value[name, "reference_volume"] else math.nan,
                "lesions": int(value[name, "lesion_iou_tp"] + value[name, "lesion_iou_fn"]),
                "detected": int(value[name, "lesion_iou_tp"]),
                "false_lesions": int(value[name, "lesion_iou_fp"]),
            }
            for name in REGIONS
        ]
    unaltered = np.stack(slices)
    return Explanation(
        case=review.name,
        model=model,
        folds=len(unaltered),
        z=z,
        entropy=entropy_bits(unaltered.mean(axis=0)),
        disagreement=disagreement_bits(unaltered),
        scores=rows,
        sequences=there,
    )


def _keeping_slices(folds: Iterator[tuple[int, Floats]], z: int, kept: list[Floats]) -> Iterator[tuple[int, Floats]]:
    """``folds`` of ``Ensemble.fold_probabilities`` as they come, of which slice ``z`` of ``REGION`` is kept (x, y)."""
    for region, probability in folds:
        if NETWORK_REGIONS[region] == REGION:
            kept.append(probability[z].T.copy())
        yield region, probability


def _xyz(volume: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A volume (z, y, x), turned to RAS as predictions are, in the order (x, y, z) of ``read_case``'s images."""
    return volume.transpose(2, 1, 0)


# --- uncertainty and withheld sequences --------------------------------------------------------------------------


def disagreement_bits(folds: npt.NDArray[np.floating]) -> npt.NDArray[np.float64] | None:
    """The folds' disagreement (fold, ...) to (...): entropy of the mean less mean of the entropies; at least 0.

    ``None`` with fewer than two folds: one opinion cannot disagree.
    """
    if len(folds) < 2:
        return None
    return np.maximum(entropy_bits(np.mean(folds, axis=0)) - entropy_bits(folds).mean(0), 0.0)


@contextmanager
def withheld(channel: Floats, head: Mask) -> Iterator[None]:
    """Within the block, one channel of a normalised image is its own mean throughout the ``head``.

    Around the head it stays as it is, and so does all with an empty head. The channel is altered in place, since a
    copy of the image would be the largest thing in memory, and given back as it was.
    """
    kept = channel[head]
    channel[head] = kept.mean(dtype=np.float64) if kept.size else 0
    try:
        yield
    finally:
        channel[head] = kept


def head_levels(data: Floats, head: Mask) -> Floats:
    """Each sequence's mean in the ``head`` of a normalised image (sequence, ...); 0 where the head is empty."""
    if not head.any():
        return np.zeros(len(data), np.float32)
    return np.array([channel.mean(where=head, dtype=np.float64) for channel in data], np.float32)


def head_mask(image: NetworkImage) -> Mask:
    """The head on the network's grid: what nnU-Net took for it, the voxels that are not 0 in every sequence.

    Where that is nearly all of the box (``FULL_BOX``), the air around the head is noise and not 0. Then the head is
    what lies, on the mean of the sequences, above ``air_level``. ``image`` holds the reference.
    """
    assert image.labels is not None, "nnU-Net marks the outside of the head in the label map"
    inside = image.labels >= 0
    if np.count_nonzero(inside) <= FULL_BOX * inside.size:
        return np.asarray(inside)
    mean = image.data.mean(axis=0)
    return np.asarray(mean > air_level(mean))


# --- occlusion ---------------------------------------------------------------------------------------------------


class MeanProbability(torch.nn.Module):
    """A network's mean probability of one output channel over a mask: (batch, channel, ...) to (batch, 1)."""

    def __init__(self, network: torch.nn.Module, channel: int, mask: torch.Tensor) -> None:
        super().__init__()
        self.network, self.channel, self.mask = network, channel, mask

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The mean of the sigmoid of ``channel`` where ``mask`` holds."""
        logits: torch.Tensor = self.network(images)[:, self.channel]
        return logits[:, self.mask].sigmoid().mean(1, keepdim=True)


@torch.no_grad()
def occlude_lesion(ensemble: Ensemble, image: NetworkImage) -> Occlusion:
    """The occlusion map of one reference lesion of ``REGION`` (``seen_lesion``) on its largest axial slice.

    ``image`` holds the reference. The network is given one patch with the lesion in its middle, for every fold in
    turn; the folds' maps are averaged. Raises ``ValueError`` where the reference has no such lesion on the network's
    grid.
    """
    assert image.labels is not None, "an occlusion map needs the reference"
    manager = ensemble.predictor.configuration_manager
    spacing = np.asarray(manager.spacing)
    lesion = seen_lesion(
        pieces_by_size(region_mask(image.labels, REGION)),
        lambda piece: float(np.mean([float(score(data)) for score, data in _scores(ensemble, image, piece)])),
    )
    levels = torch.from_numpy(head_levels(image.data, head_mask(image))).to(ensemble.predictor.device)
    axis = list(ensemble.plans.transpose_forward).index(0)  # along S: the network's grid is (z, y, x) transposed
    number = int(lesion.sum(tuple(other for other in range(3) if other != axis)).argmax())
    patch = patch_slices(lesion, manager.patch_size)
    box = _box(lesion[patch], spacing, axis, number - patch[axis].start)
    edges = odd_edges(spacing)
    maps = [occlusion_drop(score, data, box, edges, levels) for score, data in _scores(ensemble, image, lesion)]
    drop = np.full(lesion.shape, np.nan, np.float32)
    place = [slice(part.start + first, part.start + end) for part, (first, end) in zip(patch, box, strict=True)]
    place[axis] = slice(None)
    drop[tuple(place)] = np.mean([fall for _, fall in maps], axis=0)
    drop, lesion, z = _review_slice(ensemble, image, drop, lesion, axis, number)
    sides = tuple(float(edge * step) for edge, step in zip(edges, spacing, strict=True))
    return Occlusion(drop, lesion, z, float(np.mean([whole for whole, _ in maps])), sides)


def seen_lesion(pieces: Iterable[Mask], probability: Callable[[Mask], float]) -> Mask:
    """The first of ``pieces`` with a mean probability of ``SEEN`` or more; where none has, that with the highest.

    A lesion that the model misses has no probability to lose, and its map would say nothing. Raises ``ValueError``
    without a piece.
    """
    best, highest = None, -1.0
    for piece in pieces:
        value = probability(piece)
        if value > highest:
            best, highest = piece, value
        if value >= SEEN:
            break
    if best is None:
        raise ValueError("the reference has no lesion of this region on the network's grid")
    return best


def _scores(ensemble: Ensemble, image: NetworkImage, lesion: Mask) -> Iterator[tuple[MeanProbability, torch.Tensor]]:
    """Each fold's network as a score of the lesion, with the patch (1, sequence, ...) around it to score.

    The patch has the network's patch size, zeros beyond the image's far ends. The network is the same one throughout,
    with the fold's weights in it: a score holds until the next one is asked for.
    """
    device, size = ensemble.predictor.device, ensemble.predictor.configuration_manager.patch_size
    patch = patch_slices(lesion, size)
    missing = [(0, edge - part.stop + part.start) for edge, part in zip(size, patch, strict=True)]
    data = torch.from_numpy(np.pad(image.data[(slice(None), *patch)], [(0, 0), *missing]))[None].to(device)
    mask = torch.from_numpy(np.pad(lesion[patch], missing)).to(device)
    network = ensemble.network.to(device).eval()
    for weights in ensemble.weights:
        network.load_state_dict(weights)
        yield MeanProbability(network, NETWORK_REGIONS.index(REGION), mask), data


class Raised(torch.nn.Module):
    """A score of images (batch, channel, ...) to which ``levels`` (channel) are added first."""

    def __init__(self, score: torch.nn.Module, levels: torch.Tensor) -> None:
        super().__init__()
        self.score, self.levels = score, levels[None, :, None, None, None]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The score of the images on their own level."""
        value: torch.Tensor = self.score(images + self.levels)
        return value


def occlusion_drop(
    score: torch.nn.Module,
    image: torch.Tensor,
    box: list[tuple[int, int]],
    edges: tuple[int, ...],
    levels: torch.Tensor,
) -> tuple[float, Floats]:
    """The score of ``image`` (1, channel, x, y, z), and how far it falls where a cube of ``edges`` voxels is hidden.

    In the cube every channel is its level (``levels``, one value per channel). ``score`` maps images to (batch, 1).
    ``box``: first and past-the-last voxel per axis; the drop has its shape. Cubes
    overlap by about a quarter and stay inside the image; a voxel is given the mean over the cubes that cover it.
    """
    # MONAI hides all channels by one value: on images less their levels that is 0
    hidden_by_zero = Raised(score, levels)
    occlude = OcclusionSensitivity(
        hidden_by_zero, edges, n_batch=BATCH, mode=0.0, overlap=0.25, activate=False, verbose=False
    )
    with torch.no_grad(), warnings.catch_warnings():
        # MONAI 1.6 indexes with a list of slices, which later releases of torch may refuse
        warnings.filterwarnings("ignore", message="Using a non-tuple sequence")
        whole = float(score(image))
        hidden, _ = occlude(image - hidden_by_zero.levels, b_box=[end for ends in box for end in ends])
    return whole, whole - np.asarray(hidden.cpu(), np.float32)[0, 0]


def pieces_by_size(mask: Mask) -> Iterator[Mask]:
    """The 26-connected pieces of a mask, the largest first, each made when it is asked for."""
    pieces = cc3d.connected_components(mask.view(np.uint8), connectivity=26)
    for number in np.argsort(-cc3d.statistics(pieces)["voxel_counts"][1:].astype(int), kind="stable") + 1:
        yield np.asarray(pieces == number)


def odd_edges(spacing: npt.NDArray[np.floating]) -> tuple[int, ...]:
    """The odd number of voxels nearest to ``CUBE_MM`` along each axis, 1 at least.

    >>> odd_edges(np.array([1.0, 3.0, 8.0]))
    (9, 3, 1)
    """
    return tuple(max(1, 2 * round((CUBE_MM / float(step) - 1) / 2) + 1) for step in spacing)


def patch_slices(lesion: Mask, patch_size: Sequence[int]) -> tuple[slice, ...]:
    """Where a patch with the lesion in its middle lies, moved (or cut, where the image is smaller) to stay inside."""
    patch = []
    for at, edge, size in zip(np.argwhere(lesion).mean(0), patch_size, lesion.shape, strict=True):
        start = int(np.clip(round(float(at) - edge / 2), 0, max(size - edge, 0)))
        patch.append(slice(start, min(start + edge, size)))
    return tuple(patch)


def _box(lesion: Mask, spacing: npt.NDArray[np.floating], axis: int, number: int) -> list[tuple[int, int]]:
    """First and past-the-last voxel per axis: the lesion on slice ``number`` along ``axis``, and the margin."""
    places = np.argwhere(lesion.take([number], axis))
    margin = np.ceil(MARGIN_MM / spacing).astype(int)
    first = np.clip(places.min(0) - margin, 0, None)
    last = np.minimum(places.max(0) + 1 + margin, lesion.shape)
    box = [(int(start), int(end)) for start, end in zip(first, last, strict=True)]
    box[axis] = (number, number + 1)
    return box


def _review_slice(
    ensemble: Ensemble, image: NetworkImage, drop: Floats, lesion: Mask, axis: int, number: int
) -> tuple[Floats, Mask, int]:
    """Both maps on the slice of the review's grid nearest to slice ``number`` along ``axis`` of the network's grid.

    Of equally near slices that with most of the lesion. Returns drop (x, y), lesion (x, y) and z.
    """
    numbers = np.arange(lesion.shape[axis], dtype=np.float32).reshape([-1 if one == axis else 1 for one in range(3)])
    slices = _xyz(ensemble.on_case_grid(numbers, image))
    distance = np.array(
        [np.nanmin(np.append(np.abs(slices[:, :, z] - number), np.inf)) for z in range(slices.shape[2])]
    )
    del slices
    lesions = _xyz(ensemble.on_case_grid(lesion.astype(np.float32), image)) == 1
    z = int(max(np.flatnonzero(distance == distance.min()), key=lambda at: np.count_nonzero(lesions[:, :, at])))
    return _xyz(ensemble.on_case_grid(drop, image))[:, :, z].copy(), lesions[:, :, z].copy(), z
