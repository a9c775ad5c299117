"""Uncertainty, withheld sequences and occlusion on numbers that can be worked out by hand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import study_on_disk
import torch

from brainmets.review import explain, explain_figures
from brainmets.review.case import read_case
from brainmets.review.explain import (
    MeanProbability,
    occlusion_drop,
    odd_edges,
    patch_slices,
    pieces_by_size,
    seen_lesion,
)


class Linear(torch.nn.Module):
    """The sum of the weighted voxels of all channels."""

    def __init__(self, weights: torch.Tensor) -> None:
        super().__init__()
        self.weights = weights

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return (images * self.weights).flatten(1).sum(1, keepdim=True)


def test_entropy_in_bits():
    assert explain.entropy_bits(np.array([0.5, 0.0, 1.0, 0.25])) == pytest.approx([1, 0, 0, 0.811278], abs=1e-6)


def test_disagreement_of_folds():
    equal = explain.disagreement_bits(np.array([[0.2, 0.5], [0.2, 0.5]]))
    assert equal == pytest.approx([0, 0])
    opposite = explain.disagreement_bits(np.array([[0.0, 0.0], [1.0, 0.0]]))
    assert opposite == pytest.approx([1, 0])  # mean 0.5 is 1 bit, and each fold is sure
    assert explain.disagreement_bits(np.array([[0.2, 0.5]])) is None


def test_a_withheld_sequence_changes_its_channel_alone():
    data = np.arange(1, 33, dtype=np.float32).reshape(4, 2, 2, 2)
    before = data.copy()
    altered = explain.withheld(data, "t2w")
    assert not altered[2].any()
    assert np.array_equal(altered[[0, 1, 3]], before[[0, 1, 3]])
    assert np.array_equal(data, before)


def test_occluding_a_linear_network_gives_its_terms():
    random = torch.Generator().manual_seed(1)
    weights, image = (torch.randn(1, 2, 6, 7, 8, generator=random) for _ in range(2))
    whole, drop = occlusion_drop(Linear(weights), image, [(2, 3), (1, 6), (0, 8)], (1, 1, 1))
    terms = (weights * image).sum(1)[0].numpy()
    assert whole == pytest.approx(terms.sum(), rel=1e-5)
    assert drop == pytest.approx(terms[2:3, 1:6], abs=1e-4)


def test_a_cube_spreads_what_it_hides_over_its_voxels():
    image = torch.zeros(1, 1, 7, 9, 9)
    image[0, 0, 3, 4, 4] = 1
    whole, drop = occlusion_drop(Linear(torch.ones_like(image)), image, [(3, 4), (0, 9), (0, 9)], (3, 3, 3))
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
        pieces_by_size(np.zeros((3, 3, 3), bool))
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
    half = np.full(shown.reference.shape, 0.5, np.float32)
    z = shown.reference.shape[2] // 2
    drop = np.full(shown.reference.shape[:2], np.nan, np.float32)
    drop[5:15, 5:15] = 0.2
    return explain.Explanation(
        case="P01",
        shown=shown,
        model=("default", "finetune"),
        folds=folds,
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
    one = explained(replace(shown, name="case 01"), folds)
    entries = explain_figures.draw_explanation(one, tmp_path)
    entries += explain_figures.draw_withheld(explain.table([one]), tmp_path)
    assert [entry["file"].removeprefix("panels/") for entry in entries] == [
        "case_01_uncertainty.png", "case_01_occlusion.png", "withheld_sequences.png",
    ]  # fmt: skip
    for entry in entries:
        assert (tmp_path / entry["file"]).stat().st_size > 10_000
        assert entry["shows"]
        assert entry["cannot_show"]
        assert "P01" not in " ".join(entry.values())
    assert ("one fold cannot disagree" in entries[0]["shows"]) == (folds == 1)
    assert explain_figures.draw_withheld(explain.table([]), tmp_path) == []


def test_the_disagreement_panel_says_why_it_is_empty(reviewed):
    _, shown = reviewed
    texts = [text.get_text() for text in explain_figures.uncertainty_figure(explained(shown, 1), 3).axes[2].texts]
    assert texts == ["disagreement between folds:\nundefined with a single fold"]


def test_what_was_not_evaluated_or_trained_is_named(reviewed):
    files, shown = reviewed
    model = ("default", "finetune")
    assert explain.explain_cases(files, {}, model, [0], 0.5, print) == []
    with pytest.raises(FileNotFoundError, match="default finetune was not evaluated"):
        explain.explain_cases(files, {"P01": shown}, model, [0], 0.5, print)
    study_on_disk.write_json(
        files.evaluation(*model), {"provenance": {"parameters": {"lesion_definition": "brats_2023"}}}
    )
    with pytest.raises(FileNotFoundError, match=r"default finetune has no finished training of fold 0, 2: .* 04"):
        explain.explain_cases(files, {"P01": shown}, model, [0, 2], 0.5, print)
