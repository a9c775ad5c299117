"""``brainmets follow`` and ``brainmets phantoms`` as they are typed."""

import json

import pytest
from screened import Ball, make_screened

from brainmets.cli import main
from brainmets.paths import FollowUpPaths

LESION = Ball((-30.0, 10.0, 10.0), 15.0, 0.99)
GROWN = Ball((-30.0, 10.0, 10.0), 21.0, 0.99)


def test_follow_with_its_own_registration(tmp_path, capsys):
    folders = [
        make_screened(tmp_path / f"scan-00001-{place:03d}", [ball], date=f"2026-0{1 + 2 * place}-05").folder
        for place, ball in enumerate((LESION, GROWN))
    ]
    out = tmp_path / "out"
    status = main(["follow", *map(str, folders), "--out", str(out), "--repeatability", "20"])
    said = capsys.readouterr()
    assert status == 0, said.err
    assert "2026-03-05: progressive disease (imaging part)" in said.out and str(out / "index.html") in said.out
    record = json.loads(FollowUpPaths(out).record.read_text())
    assert record["dates"][1]["registration"]["spread_mm"] < 2
    assert record["assessments"][1]["category"] == "PD"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--repeatability", "0"], "--repeatability: 0 must be a percentage above 0"),
        ([], "holds no screened scan"),
        (["--dates", "2026-01-05"], "--dates: 1 for 2 folders"),
    ],
)
def test_what_cannot_be_followed_ends_with_2_and_a_sentence(tmp_path, capsys, words, said):
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    folders = [str(tmp_path / name) for name in ("one", "other")]
    assert main(["follow", *folders, "--out", str(tmp_path / "out"), *words]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_phantoms_of_one_date(tmp_path, capsys):
    folder = tmp_path / "next_patient"
    assert main(["phantoms", str(folder), "--spacing", "5"]) == 0
    assert {path.name for path in folder.iterdir()} == {
        "dicom", "labels", "brain_masks", "truth.json", "phantoms.json"
    }  # fmt: skip
    assert json.loads((folder / "phantoms.json").read_text())["seed"] == 2026
    assert "1 patient(s), 1 date(s)" in capsys.readouterr().out
    assert main(["phantoms", str(folder), "--spacing", "5"]) == 0, "what is there already is left"
    assert main(["phantoms", str(folder), "--spacing", "5", "--seed", "9"]) == 2
    assert "other phantoms" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--patients", "0"], "patients: 0"),
        (["--dates", "0"], "--dates: 0"),
        (["--seed", "-1"], "--seed: -1"),
        (["--spacing", "9"], "spacing_mm: 9"),
        (["--spacing", "9", "--dates", "2"], "spacing_mm: 9"),
    ],
)
def test_phantoms_that_cannot_be_drawn(tmp_path, capsys, words, said):
    assert main(["phantoms", str(tmp_path / "p"), *words]) == 2
    assert said in capsys.readouterr().err and not (tmp_path / "p").exists()
