"""How two cohorts look to a network: every difference that a shared plan leaves, on phantoms."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from brainmets.cohorts.cohort import CohortError
from brainmets.cohorts.likeness import appearance, findings, require_no_errors, summary
from brainmets.phantoms import sites
from brainmets.vocabulary import SEQUENCES

Change = Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]
ALIKE = {"source": [True] * 4, "target": [True] * 4}


def normalised(image: np.ndarray) -> np.ndarray:
    """As nnU-Net does with use_mask_for_norm: within what is not zero."""
    inside = image != 0
    values = (image - image[inside].mean()) / image[inside].std()
    return np.where(inside, values, 0)


def as_it_is(images: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return images


def cohort(change: Change = as_it_is, normalise: Callable[[np.ndarray], np.ndarray] = normalised) -> pd.DataFrame:
    rows = []
    for number in (1, 2):
        patient = sites.make_patient("source", number, 4.0, seed=5)
        images = change({name: image.astype(float) for name, image in patient.images.items()})
        stack = np.stack([normalise(images[sequence]) for sequence in SEQUENCES])
        rows += appearance(f"P{number}", stack, patient.labels, (4.0, 4.0, 4.0), SEQUENCES)
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def reference() -> pd.DataFrame:
    return cohort()


def swapped(one: str, other: str) -> Change:
    return lambda images: {**images, one: images[other], other: images[one]}


def test_a_cohort_is_like_itself_whatever_its_scale(reference: pd.DataFrame) -> None:
    louder = cohort(lambda images: {name: image * 7 for name, image in images.items()})
    tables = {"source": reference, "target": louder}
    assert findings(tables, ALIKE) == []
    assert summary(tables).distance.to_numpy() == pytest.approx(0, abs=1e-6)
    assert 1.0 < reference.head_L.median() < 2.0


@pytest.mark.parametrize(("one", "other"), [("t1n", "t1c"), ("t2w", "t2f"), ("t1n", "t2w")])
def test_swapped_sequences_are_refused(reference: pd.DataFrame, one: str, other: str) -> None:
    found = findings({"source": reference, "target": cohort(swapped(one, other))}, ALIKE)
    with pytest.raises(CohortError, match=f"the target's {one} looks like the source's {other}") as error:
        require_no_errors(found)
    assert str(error.value).count("looks like") == 1


def test_another_crop_with_air_in_the_normalisation_shifts_the_level(reference: pd.DataFrame) -> None:
    """Over a box with air the air lies below 0 and the head above: its median is far from that of a head alone."""
    with_air = cohort(normalise=lambda image: (image - image.mean()) / image.std())
    found = findings({"source": reference, "target": with_air}, ALIKE)
    assert [severity for severity, _ in found] == ["warning"] * 4
    assert [text.partition(":")[0] for _, text in found] == list(SEQUENCES)


def test_a_skull_in_one_cohort_is_found(reference: pd.DataFrame) -> None:
    """A head of 4 L around the brain: a shell of scalp as bright as the brain's brightest tissue."""

    def with_skull(images: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        brain = images["t1c"] > 0
        whole = ndimage.binary_dilation(brain, iterations=5)
        return {name: np.where(whole & ~brain, image.max(), image) for name, image in images.items()}

    tables = {"source": reference, "target": cohort(with_skull)}
    texts = [text for _, text in findings(tables, ALIKE)]
    assert texts[0].startswith("the target seems to keep the skull and the other cohort not (median")


def test_a_choice_of_nnunet_that_differs_is_shown(reference: pd.DataFrame) -> None:
    own = {"source": [True] * 4, "target": [False] * 4}
    ((severity, text),) = findings({"source": reference, "target": reference}, own)
    assert severity == "warning"
    assert "the source over the head alone and the target over the whole box with its air" in text
    assert "(use_mask_for_norm True and False); the target's choice is used for both" in text


def test_a_box_without_a_head_gives_no_number() -> None:
    rows = appearance("P", np.zeros((4, 8, 8, 8)), np.zeros((8, 8, 8)), (3.0, 3.0, 3.0), SEQUENCES)
    assert [row["head_L"] for row in rows] == [0] * 4
    assert all(np.isnan(row["p50"]) and np.isnan(row["et"]) for row in rows)
