"""Phantoms with known histories show what they plan, and the follow-up finds it, registration and all."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from followed import bodies_by_number, components, found_events, planted, screened_visits

from brainmets.params.yaml_files import read_yaml
from brainmets.phantoms.head import make_head
from brainmets.phantoms.histories import DEFAULT_SEED, KINDS, make_history_cohort, make_visits
from brainmets.phantoms.lesions import NECROSIS, OEDEMA, paint
from brainmets.screening import followup

SPACING, SEED = 3.0, 5


@pytest.fixture(scope="module")
def visits():
    """A vanishing, a merge and a split beside the stable lesion."""
    return make_visits(8, 2, SPACING, SEED)


def tumour_mm3(visits, place, body):
    lesions = dict(zip(visits.bodies(place), visits.sessions[place].lesions, strict=True))
    return lesions[body][1]


def test_all_histories_come_in_turn():
    turns = [KINDS[(3 * patient + turn) % len(KINDS)] for patient in range(8) for turn in range(3)]
    assert {kind: turns.count(kind) for kind in KINDS} == dict.fromkeys(KINDS, 3)


def test_the_label_maps_show_what_was_planned(visits):
    """By components: two bodies are one where they merged or before they split, and each its own else."""
    groups = []
    for place, session in enumerate(visits.sessions):
        numbers = components(session)
        held = bodies_by_number(visits, place, numbers)
        assert set(held) == set(range(1, int(numbers.max()) + 1)), "no component without a body"
        groups.append(set(held.values()))
    kinds = {one.kind: frozenset(one.bodies) for one in visits.histories}
    merge, split, gone = kinds["merge"], kinds["split"], kinds["vanishing"]
    assert all(frozenset({body}) in groups[0] for body in merge) and merge in groups[1]
    assert split in groups[0] and all(frozenset({body}) in groups[1] for body in split)
    assert gone in groups[0] and not any(group & gone for group in groups[1])


@pytest.mark.slow
def test_every_planted_event_is_found(visits, tmp_path):
    """The real registration, between heads that lie and are noisy another way."""
    found = followup.run(screened_visits(tmp_path, visits), tmp_path / "out")
    assert found_events(found, visits) == planted(visits)
    laid = found.visits[1].laid
    assert laid.spread_mm < 1 and laid.detail > 0.8


@pytest.mark.slow
def test_growth_shrinkage_and_treatment():
    visits = make_visits(1, 3, SPACING, SEED, ("growth", "shrinkage", "treatment"))
    growth, shrinkage, treated = (next(iter(one.bodies)) for one in visits.histories[1:])
    for body, sign in ((growth, 1), (shrinkage, -1), (treated, -1)):
        sizes = [tumour_mm3(visits, place, body) for place in range(3)]
        assert sizes == sorted(sizes, reverse=sign < 0) and len(set(sizes)) > 1
    assert visits.events() == []
    head = make_head(np.random.default_rng([SEED, 3, 1]), 1.5)
    before, after = visits.histories[3].bodies[treated][:2]
    shares = []
    for lesion in (replace(after, rim=before.rim), after):  # of one size: a small lesion has a smaller centre anyway
        parts, _ = paint(head.grid.crop(head.box), head.anatomy, [lesion])
        shares.append((parts == NECROSIS).sum() / (parts > OEDEMA).sum())
    assert shares[1] > shares[0], "treatment leaves a thinner rim around more necrosis"


def test_the_head_moves_and_the_noise_differs_between_dates(visits):
    one, other = (session.sequences["t1c"] for session in visits.sessions)
    assert not np.allclose(one.pose, other.pose)
    assert one.voxels.shape != other.voxels.shape or not np.array_equal(one.voxels, other.voxels)


def test_one_patient_at_other_dates_in_the_headers(visits):
    studies = [session.study for session in visits.sessions]
    assert studies[0].patient_id == studies[1].patient_id
    assert studies[0].seed != studies[1].seed, "the identifiers of two studies must differ"
    assert visits.dates == [study.date for study in studies] and visits.dates == sorted(set(visits.dates))


@pytest.mark.slow
def test_the_same_arguments_give_the_same_phantom(visits):
    again = make_visits(8, 2, SPACING, SEED)
    for one, other in zip(visits.sessions, again.sessions, strict=True):
        assert np.array_equal(one.labels, other.labels)
        assert all(np.array_equal(one.sequences[name].voxels, other.sequences[name].voxels) for name in one.sequences)


@pytest.mark.parametrize(("dates", "spacing", "words"), [(1, 3.0, "dates: 1"), (2, 9.0, "spacing_mm: 9.0")])
def test_what_cannot_be_drawn(dates, spacing, words):
    with pytest.raises(ValueError, match=words):
        make_visits(1, dates, spacing, SEED)


def test_the_cohort_on_disk_says_what_is_in_it(tmp_path):
    folder = make_history_cohort(tmp_path / "next", 1, 5.0, SEED, 2)
    truth = json.loads((folder / "truth.json").read_text())["patients"]["PHANTOM-0001"]
    assert [visit["date"] for visit in truth["visits"]] == sorted(visit["date"] for visit in truth["visits"])
    assert {one["kind"] for one in truth["histories"]} == {"stable", "growth", "shrinkage"}
    assert truth["events"] == []
    for visit in truth["visits"]:
        name = f"PHANTOM-0001-{visit['date'].replace('-', '')}.nii.gz"
        assert (folder / "brain_masks" / name).is_file() and (folder / "labels" / name).is_file()
    assert len(list((folder / "dicom" / "DICOM").iterdir())) == 2, "a study a date"
    before = (folder / "truth.json").stat().st_mtime_ns
    make_history_cohort(folder, 1, 5.0, SEED, 2)
    assert (folder / "truth.json").stat().st_mtime_ns == before, "it is left as it is"


def test_no_study_trains_on_the_default_seed():
    root = Path(__file__).resolve().parents[2]
    seeds = set()
    for path in sorted((root / "params").glob("*.yaml")):
        content = read_yaml(path)
        for cohort in ("source", "target"):
            declared = content.get(cohort, {})
            for phantoms in (declared.get("phantoms"), (declared.get("raw") or {}).get("phantoms")):
                if phantoms:
                    seeds.add(phantoms["seed"])
    assert seeds and DEFAULT_SEED not in seeds


@pytest.mark.slow
@pytest.mark.parametrize("patient", range(1, 17))
def test_every_planted_event_of_16_pairs(patient, tmp_path):
    """Each history six times; benchmarks/follow_up.py does the same with 100 pairs."""
    visits = make_visits(patient, 2, SPACING, SEED)
    found = followup.run(screened_visits(tmp_path, visits), tmp_path / "out")
    assert found_events(found, visits) == planted(visits)
