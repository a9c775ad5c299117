"""Uncertainty, withheld sequences and occlusion on numbers that can be worked out by hand."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import one_layer
import pandas as pd
import pytest
import study_on_disk
import torch
from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
from one_layer import network_image

from brainmets.review import explain, explain_figures
from brainmets.review.case import ReviewCase, read_case
from brainmets.review.explain import (
    MeanProbability,
    occlusion_drop,
    odd_edges,
    patch_slices,
    pieces_by_size,
    seen_lesion,
)
from brainmets.scoring.probabilities import entropy_bits
from brainmets.training.inference import NetworkImage
from brainmets.vocabulary import SEQUENCES


class Linear(torch.nn.Module):
    """The sum of the weighted voxels of all channels."""

    def __init__(self, weights: torch.Tensor) -> None:
        super().__init__()
        self.weights = weights

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return (images * self.weights).flatten(1).sum(1, keepdim=True)


def test_entropy_in_bits():
    assert entropy_bits(np.array([0.5, 0.0, 1.0, 0.25])) == pytest.approx([1, 0, 0, 0.811278], abs=1e-6)


def test_disagreement_of_folds():
    equal = explain.disagreement_bits(np.array([[0.2, 0.5], [0.2, 0.5]]))
    assert equal == pytest.approx([0, 0])
    opposite = explain.disagreement_bits(np.array([[0.0, 0.0], [1.0, 0.0]]))
    assert opposite == pytest.approx([1, 0])  # mean 0.5 is 1 bit, and each fold is sure
    assert explain.disagreement_bits(np.array([[0.2, 0.5]])) is None


# --- withheld: on both kinds of plan -----------------------------------------------------------------------------

HEAD = np.zeros((6, 6, 6), bool)
HEAD[1:5, 1:5, 1:5] = True


def normalised(use_mask: bool) -> NetworkImage:
    """Four sequences with tissue from 50 on and a background of 0, z-scored within the head or over the whole box."""
    tissue = np.linspace(50, 113, 64)
    data = np.zeros((4, 6, 6, 6))
    for channel in range(4):
        data[channel][HEAD] = tissue + 10 * channel
        inside = data[channel][HEAD] if use_mask else data[channel]
        scaled = (data[channel] - inside.mean()) / inside.std()
        data[channel] = np.where(HEAD, scaled, 0) if use_mask else scaled
    labels = np.where(HEAD, 0, -1)
    labels[2, 2, 2:4] = 3
    return network_image(data, labels)


@pytest.mark.parametrize("use_mask", [True, False])
def test_a_withheld_sequence_is_its_mean_in_the_head(use_mask):
    image = normalised(use_mask)
    before = image.data.copy()
    head = explain.head_mask(image)
    assert np.array_equal(head, HEAD)
    level = before[2][HEAD].mean()
    assert level == pytest.approx(0, abs=1e-6) if use_mask else level > 1  # 0 would be darker than any tissue
    with explain.withheld(image.data[2], head):
        assert image.data[2][HEAD] == pytest.approx(level)
        assert np.array_equal(image.data[2][~HEAD], before[2][~HEAD])  # air stays air
        assert np.array_equal(image.data[[0, 1, 3]], before[[0, 1, 3]])
    assert np.array_equal(image.data, before)
    assert explain.head_levels(image.data, head)[2] == pytest.approx(level)
    assert not explain.head_levels(image.data, np.zeros_like(HEAD)).any()


def test_a_sequence_is_given_back_after_an_error():
    image = normalised(False)
    before = image.data.copy()
    with pytest.raises(KeyError), explain.withheld(image.data[0], HEAD):
        raise KeyError
    assert np.array_equal(image.data, before)


def test_the_head_is_found_in_air_that_is_noise():
    random = np.random.default_rng(1)
    place = np.indices((24, 24, 24)) - 11.5
    ball = (place**2).sum(0) < 64
    data = np.where(ball, random.normal(100, 10, (4, 24, 24, 24)), np.abs(random.normal(0, 2, (4, 24, 24, 24))))
    scored = (data - data.mean((1, 2, 3), keepdims=True)) / data.std((1, 2, 3), keepdims=True)
    found = explain.head_mask(network_image(scored, np.zeros((24, 24, 24))))
    assert np.mean(found == ball) > 0.995
    assert explain.head_levels(scored, found) == pytest.approx(scored[:, ball].mean(1), abs=0.05)


# --- uncertainty -------------------------------------------------------------------------------------------------

FOLDS = [(np.full((3, 4), 0.3), [-1.0, -1.5, -2.0]), (np.full((3, 4), -0.2), [0.5, 0.2, -0.4])]


def test_explanation_equals_the_plain_computation_on_whole_volumes():
    image = normalised(False)
    ensemble = one_layer.ensemble(FOLDS)
    shape = (6, 6, 6)
    review = ReviewCase("P1", {}, np.where(image.labels > 0, image.labels, 0).astype(np.uint8).T, {}, np.eye(4))
    one = explain._explain(ensemble, image, SEQUENCES, review, 2, ("default", "finetune"), "brats_2023")
    logits = np.array([np.einsum("rc,czyx->rzyx", weight, image.data) for weight, _ in FOLDS])
    logits += np.array([bias for _, bias in FOLDS])[:, :, None, None, None]
    folds = 1 / (1 + np.exp(-logits))
    core = folds[:, 1, 2].transpose(0, 2, 1)  # tumour core on slice z = 2, as (x, y)
    assert one.entropy == pytest.approx(entropy_bits(core.mean(0)), abs=2e-3)  # nnU-Net's logits are float16
    assert one.disagreement == pytest.approx(explain.disagreement_bits(core), abs=2e-3)
    assert one.entropy.shape == shape[:2]
    assert [(row["region"], row["withheld"]) for row in one.scores[:3]] == [
        (name, "nothing") for name in ("ET", "TC", "WT")
    ]
    assert len(one.scores) == 15


def test_probabilities_by_region_are_those_of_nnunet():
    image = replace(normalised(False))
    cropped = network_image(image.data, image.labels, margin=2)
    ensemble = one_layer.ensemble(FOLDS)
    ensemble.network.load_state_dict(ensemble.weights[0])
    logits = ensemble.predictor.predict_sliding_window_return_logits(torch.from_numpy(cropped.data))
    _, expected = convert_predicted_logits_to_segmentation_with_correct_shape(
        logits, ensemble.plans, ensemble.predictor.configuration_manager, ensemble.predictor.label_manager,
        cropped.properties, return_probabilities=True,
    )  # fmt: skip
    given = list(ensemble.fold_probabilities(cropped))
    assert [region for region, _ in given] == [0, 1, 2, 0, 1, 2]
    assert np.array_equal(np.stack([probability for _, probability in given[:3]]), expected)
    whole = np.stack([probability for _, probability in given]).reshape(2, 3, 10, 10, 10)
    assert ensemble.mean_probabilities(iter(given)) == pytest.approx(whole.mean(0), abs=1e-6)


def test_explaining_takes_few_bytes_a_voxel():
    """Arrays of numpy and torch together, by the peak of the process: 2 GiB are 50 bytes for 512 x 432 x 192."""
    script = Path(__file__).parents[2] / "benchmarks" / "review_memory.py"
    ended = subprocess.run(
        [sys.executable, str(script), "160", "144", "96"], capture_output=True, text=True, check=True, timeout=600
    )
    per_voxel = {line.split("|")[1].strip(): float(line.split("|")[3]) for line in ended.stdout.splitlines()[-3:]}
    assert set(per_voxel) == {"pictures and 3D page", "uncertainty and withheld sequences", "occlusion"}
    assert max(per_voxel.values()) < 60, ended.stdout


def test_occluding_a_linear_network_gives_its_terms():
    random = torch.Generator().manual_seed(1)
    weights, image = (torch.randn(1, 2, 6, 7, 8, generator=random) for _ in range(2))
    whole, drop = occlusion_drop(Linear(weights), image, [(2, 3), (1, 6), (0, 8)], (1, 1, 1), torch.zeros(2))
    terms = (weights * image).sum(1)[0].numpy()
    assert whole == pytest.approx(terms.sum(), rel=1e-5)
    assert drop == pytest.approx(terms[2:3, 1:6], abs=1e-4)


def test_a_hidden_voxel_has_its_channels_level():
    random = torch.Generator().manual_seed(2)
    weights, image = (torch.randn(1, 2, 4, 5, 6, generator=random) for _ in range(2))
    levels = torch.tensor([3.0, -1.0])
    whole, drop = occlusion_drop(Linear(weights), image, [(0, 4), (0, 5), (2, 3)], (1, 1, 1), levels)
    terms = (weights * (image - levels[None, :, None, None, None])).sum(1)[0].numpy()
    assert whole == pytest.approx(float((weights * image).sum()), rel=1e-4)
    assert drop == pytest.approx(terms[:, :, 2:3], abs=1e-4)


def test_a_cube_spreads_what_it_hides_over_its_voxels():
    image = torch.zeros(1, 1, 7, 9, 9)
    image[0, 0, 3, 4, 4] = 1
    whole, drop = occlusion_drop(
        Linear(torch.ones_like(image)), image, [(3, 4), (0, 9), (0, 9)], (3, 3, 3), torch.zeros(1)
    )
    assert whole == 1
    # cubes start at 0, 2, 4 and 6; two of them hide voxel 4: a voxel's value is their share of the cubes that cover it
    assert drop[0, 4].tolist() == pytest.approx([0, 0, 1 / 2, 1, 1, 1, 1 / 2, 0, 0])
    assert not drop[0, :, [0, 1, 7, 8]].any()


def test_mean_probability_is_over_the_mask():
    mask = torch.tensor([[[True, False]]])
    score = MeanProbability(torch.nn.Identity(), 1, mask)
    images = torch.zeros(2, 3, 1, 1, 2)
    images[1, 1] = torch.tensor([[[np.log(3.0), 50.0]]])
    assert score(images).flatten().tolist() == pytest.approx([0.5, 0.75])


@pytest.mark.parametrize(
    ("probabilities", "chosen"),
    [([0.9, 0.95, 0.8], 0), ([0.14, 0.5, 0.9], 1), ([0.1, 0.3, 0.2], 1), ([0.0, 0.0, 0.0], 0)],
)
def test_the_largest_lesion_that_the_model_sees_is_occluded(probabilities, chosen):
    pieces = [np.full((1, 1, 1), number) for number in range(3)]
    assert seen_lesion(pieces, lambda piece: probabilities[piece.item()]) is pieces[chosen]


def test_lesion_patch_and_cube():
    mask = np.zeros((10, 10, 10), bool)
    mask[1, 1, 1] = True
    mask[8, 8, 7:9] = True
    lesion, smaller = pieces_by_size(mask)
    assert smaller.sum() == 1
    assert lesion.sum() == 2
    assert patch_slices(lesion, [4, 20, 4]) == (slice(6, 10), slice(0, 10), slice(6, 10))
    with pytest.raises(ValueError, match="no lesion"):
        seen_lesion(pieces_by_size(np.zeros((3, 3, 3), bool)), lambda piece: 1.0)
    assert odd_edges(np.array([1.0, 3.0, 8.0])) == (9, 3, 1)


@pytest.fixture(scope="module")
def reviewed(tmp_path_factory):
    files = study_on_disk.make(tmp_path_factory.mktemp("work"), patients=1)
    model = ("default", "finetune")
    return files, read_case(files, "P01", [model])


def rows(region: str, dice: float, detected: int) -> list[dict]:
    names = [explain.NOTHING, "t1n", "t1c", "t2w", "t2f"]
    return [
        {"region": region, "withheld": name, "dice": dice - 0.1 * number, "lesions": 4, "detected": detected - number,
         "false_lesions": number}
        for number, name in enumerate(names)
    ]  # fmt: skip


def explained(shown, folds: int) -> explain.Explanation:
    half = np.full(shown.reference.shape[:2], 0.5, np.float32)
    z = shown.reference.shape[2] // 2
    drop = np.full(shown.reference.shape[:2], np.nan, np.float32)
    drop[5:15, 5:15] = 0.2
    return explain.Explanation(
        case="P01",
        model=("default", "finetune"),
        folds=folds,
        z=z,
        entropy=half,
        disagreement=half if folds > 1 else None,
        scores=[row for number, region in enumerate(("ET", "TC", "WT")) for row in rows(region, 0.9 - number / 10, 4)],
        occlusion=explain.Occlusion(drop, shown.reference[:, :, z] > 0, z, 0.8, (9.0, 9.0, 9.0)),
    )


def test_table_gives_drops_against_the_unaltered_prediction(reviewed):
    _, shown = reviewed
    table = explain.table([explained(shown, 1)])
    assert list(table.columns) == explain.COLUMNS
    tumour_core = table[table["region"] == "TC"].set_index("withheld")
    assert tumour_core.loc["t1c", "dice_drop"] == pytest.approx(0.2)
    assert tumour_core.loc["nothing", ["dice_drop", "detected_drop"]].tolist() == [0, 0]
    assert tumour_core["detected_drop"].tolist() == [0, 1, 2, 3, 4]
    assert explain.table([]).empty


def test_table_is_deleted_where_nothing_is_explained(tmp_path: Path, reviewed):
    _, shown = reviewed
    explain.write_table(tmp_path, explain.table([explained(shown, 1)]))
    assert len(pd.read_csv(tmp_path / "explanation.csv")) == 15
    explain.write_table(tmp_path, explain.table([]))
    assert not (tmp_path / "explanation.csv").exists()


@pytest.mark.parametrize("folds", [1, 2])
def test_pictures_come_with_what_they_show_and_do_not(tmp_path: Path, reviewed, folds: int):
    _, shown = reviewed
    one = explained(shown, folds)
    entries = explain_figures.draw_explanation(one, shown, tmp_path)
    entries += explain_figures.draw_withheld(explain.table([one]), tmp_path)
    assert [entry["file"].removeprefix("panels/") for entry in entries] == [
        "P01_uncertainty.png", "P01_occlusion.png", "withheld_sequences.png",
    ]  # fmt: skip
    for entry in entries:
        assert (tmp_path / entry["file"]).stat().st_size > 10_000
        assert entry["shows"]
        assert entry["cannot_show"]
    assert ("one fold cannot disagree" in entries[0]["shows"]) == (folds == 1)
    assert explain_figures.draw_withheld(explain.table([]), tmp_path) == []


def test_the_disagreement_panel_says_why_it_is_empty(reviewed):
    _, shown = reviewed
    texts = [text.get_text() for text in explain_figures.uncertainty_figure(explained(shown, 1), shown).axes[2].texts]
    assert texts == ["disagreement between folds:\nundefined with a single fold"]


def test_what_was_not_evaluated_or_trained_is_named(reviewed):
    files, _ = reviewed
    model = ("default", "finetune")
    assert explain.explain_cases(files, [], [model], model, [0], 0.5, print) == []
    files.evaluation(*model).unlink()
    with pytest.raises(FileNotFoundError, match="default finetune was not evaluated"):
        explain.explain_cases(files, ["P01"], [model], model, [0], 0.5, print)
    parameters = {"study": files.study, "lesion_definition": "brats_2023"}
    study_on_disk.write_json(files.evaluation(*model), {"provenance": {"parameters": parameters}})
    with pytest.raises(FileNotFoundError, match=r"default finetune has no finished training of fold 0, 2: .* 04"):
        explain.explain_cases(files, ["P01"], [model], model, [0, 2], 0.5, print)
