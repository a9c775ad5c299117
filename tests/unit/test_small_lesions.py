"""Arms against a baseline in small lesions: sensitivities by hand, the declared rule, and what is refused."""

import importlib
import json
import math
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import yaml
from detection_examples import make_detections, make_hits
from matplotlib.collections import LineCollection

from brainmets.params import ParameterError, SmallLesions
from brainmets.params.study import Study
from brainmets.paths import StudyPaths
from brainmets.scoring.candidates import hits, write_detections
from brainmets.statistics import operating_point, small_lesion_figures, small_lesions
from brainmets.statistics.comparisons import Settings
from brainmets.statistics.declared import UNKNOWN, Declared
from brainmets.statistics.small_lesions import SmallLesionsError
from brainmets.vocabulary import ARMS

QUICK = Settings(0.05, 1000, 1)
RULE = SmallLesions(baseline="default", below_mm=5.0, false_positives=1.0, alpha=0.05)
LESIONS = [("a", 4.0, 0.9), ("a", 2.0, 0.4), ("b", 3.0, 0.6), ("b", 5.0, 0.35), ("c", 12.0, 0.8)]
FALSE = [("a", 0.5), ("b", 0.7), ("c", 0.3), ("c", 0.2)]


def rule(**changed) -> SmallLesions:
    return SmallLesions(**{**RULE.model_dump(), **changed})


def trained(**arms) -> small_lesions.Trainings:
    """Fine-tuned arms; each a list of (cases, lesions, false), one per repeat."""
    return {
        (arm, "finetune"): {
            number: make_hits(*one, model=(arm, "finetune")) for number, one in enumerate(repeats, start=1)
        }
        for arm, repeats in arms.items()
    }


def table(
    trainings: small_lesions.Trainings, asked: SmallLesions = RULE, patients=None, settings=QUICK
) -> pd.DataFrame:
    compared = small_lesions.curves_of(trainings, asked, "TC", patients or {})
    return small_lesions.compare(compared, settings).set_index(["arm", "size"])


def many(random: np.random.Generator, found: float, lesions_of=6, patients=16) -> tuple:
    """Six lesions of 3 mm a patient, each found above every false candidate with this chance, else never."""
    cases = [f"p{number:02d}" for number in range(patients)]
    lesions = [(case, 3.0, 0.9 if random.random() < found else -math.inf) for case in cases for _ in range(lesions_of)]
    return cases, lesions, [(case, 0.5) for case in cases]


@pytest.fixture(scope="module")
def simulation() -> ModuleType:
    """The benchmark's studies of arms that are alike."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).resolve().parents[2]))
        return importlib.import_module("benchmarks.coverage.small_lesions")


# --- what is counted ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rate", "threshold", "small", "every"),
    [(1.0, 0.3, 1.0, 1.0), (2 / 3, 0.35, 1.0, 1.0), (1 / 3, 0.6, 2 / 3, 3 / 5), (0.1, 0.8, 1 / 3, 2 / 5)],
)
def test_sensitivity_below_the_limit_by_hand(rate: float, threshold: float, small: float, every: float) -> None:
    """Three patients: so many times the rate in false candidates, of all sizes; 5.0 mm is not below 5 mm."""
    one = ("abc", LESIONS, FALSE)
    asked = rule(false_positives=rate)
    compared = small_lesions.curves_of(trained(default=[one], segresnet=[one]), asked, "TC", {})
    found = small_lesions.by_repeat(compared).set_index(["arm", "size"])
    assert found.loc[("default", "<5 mm"), ["sensitivity", "threshold", "lesions"]].tolist() == [small, threshold, 3]
    assert found.loc[("default", "all"), ["sensitivity", "lesions"]].tolist() == [every, 5]


def test_the_mean_over_repeats_and_their_spread() -> None:
    worse = [("a", 4.0, 0.9), ("a", 2.0, -math.inf), ("b", 3.0, -math.inf), *LESIONS[3:]]
    found = table(
        trained(default=[("abc", LESIONS, FALSE)] * 2, segresnet=[("abc", LESIONS, FALSE), ("abc", worse, FALSE)])
    )
    row = found.loc["segresnet", "<5 mm"]
    assert row["sensitivity"] == pytest.approx(2 / 3)
    assert (row["lowest"], row["highest"]) == (pytest.approx(1 / 3), 1)
    assert row["spread"] == pytest.approx(np.std([1, 1 / 3], ddof=1))
    assert (row["difference"], row["least_difference"], row["most_difference"]) == pytest.approx((-1 / 3, -2 / 3, 0))


def test_arms_are_compared_at_equal_false_positives_and_not_by_sensitivity_alone() -> None:
    """An arm that finds all with three false candidates a patient finds nothing at one."""
    cases, lesions, _ = many(np.random.default_rng(1), 1.0)
    flood = [(case, 0.95) for case in cases for _ in range(3)]
    found = table(trained(default=[(cases, lesions, [])] * 2, tversky_bce=[(cases, lesions, flood)] * 2))
    assert found.loc[("tversky_bce", "<5 mm"), ["sensitivity", "difference", "verdict"]].tolist() == [0, -1, "loss"]


def test_several_scans_of_a_patient_weigh_as_one() -> None:
    """A has two scans with two false candidates in one: one a scan, and so half a one a patient; B has one scan."""
    lesions = [("a1", 4.0, 0.8), ("a2", 4.0, -math.inf), ("b", 4.0, 0.8)]
    one = (["a1", "a2", "b"], lesions, [("a1", 0.9), ("a1", 0.9)])
    trainings, whose = trained(default=[one], segresnet=[one]), {"a1": "A", "a2": "A", "b": "B"}
    row = table(trainings, rule(false_positives=0.5), whose).loc["default", "<5 mm"]
    assert (row["cases"], row["patients"], row["lesions"]) == (3, 2, 3)
    assert (row["sensitivity"], row["false_positives"]) == ((0.5 + 1) / 2, 0.5)
    assert table(trainings, rule(false_positives=0.49), whose).loc[("default", "<5 mm"), "sensitivity"] == 0


# --- the rule -------------------------------------------------------------------------------------------------------


def test_two_copies_of_an_arm_claim_nothing() -> None:
    random = np.random.default_rng(2)
    repeats = [many(random, 0.5) for _ in range(3)]
    row = table(trained(default=repeats, lesion_dice=repeats)).loc["lesion_dice", "<5 mm"]
    assert row[["difference", "low", "high"]].tolist() == [0, 0, 0]
    assert row["verdict"] == "not shown"


@pytest.mark.parametrize(("baseline", "other", "said"), [(0.4, 0.75, "gain"), (0.75, 0.4, "loss")])
def test_a_true_difference_is_claimed_with_its_sign(baseline: float, other: float, said: str) -> None:
    random = np.random.default_rng(3)
    first, second = ([many(random, chance) for _ in range(3)] for chance in (baseline, other))
    row = table(trained(default=first, lesion_dice=second)).loc["lesion_dice", "<5 mm"]
    assert row["verdict"] == said
    assert row["low"] < other - baseline < row["high"]


def test_one_repeat_with_the_other_sign_and_nothing_is_shown() -> None:
    random = np.random.default_rng(4)
    first = [many(random, 0.4) for _ in range(3)]
    second = [many(random, chance) for chance in (0.95, 0.95, 0.3)]
    row = table(trained(default=first, lesion_dice=second)).loc["lesion_dice", "<5 mm"]
    assert row["low"] > 0
    assert row["least_difference"] < 0
    assert row["verdict"] == "not shown"


@pytest.mark.parametrize(
    ("differences", "low", "high", "patients", "said", "why"),
    [
        ([0.1, 0.2], 0.01, 0.3, 16, "gain", ""),
        ([0.1, 0.2], 0.0, 0.3, 16, "not shown", ""),
        ([-0.1, -0.2], -0.3, -0.01, 16, "loss", ""),
        ([0.1, 0.0], 0.01, 0.3, 16, "not shown", ""),
        ([0.1], 0.01, 0.3, 16, "not shown", "trained once"),
        ([0.1, 0.2], 0.01, 0.3, 6, "not shown", "too few"),
        ([math.nan] * 2, math.nan, math.nan, 0, "not shown", "no such lesion"),
    ],
)
def test_the_declared_rule(differences: list, low: float, high: float, patients: int, said: str, why: str) -> None:
    found, reason = small_lesions.verdict(np.array(differences), low, high, patients, 0.05 / 6)
    assert found == said
    assert why in reason


def test_no_gain_is_claimed_of_false_positives_that_the_baseline_does_not_have() -> None:
    """A baseline without a further candidate is read at none a patient; the arm spends one, and finds more with it."""
    cases, lesions, false = many(np.random.default_rng(1), 1.0)
    missed = [(case, diameter, -math.inf) for case, diameter, _ in lesions]
    bought, fair = ([(cases, lesions, some)] * 2 for some in (false, []))
    silent = [(cases, missed, [])] * 2
    row = table(trained(default=silent, lesion_dice=bought)).loc["lesion_dice", "<5 mm"]
    assert (row["difference"], row["low"], row["retrained_low"], row["false_positives"]) == (1, 1, 1, 1)
    assert row["verdict"] == "not shown"
    assert row["note"].startswith("1.00 false positives a patient beside 0.00 of the baseline")
    assert table(trained(default=silent, lesion_dice=fair)).loc[("lesion_dice", "<5 mm"), "verdict"] == "gain"
    assert table(trained(default=bought, lesion_dice=silent)).loc[("lesion_dice", "<5 mm"), "verdict"] == "not shown"
    assert table(trained(default=fair, lesion_dice=silent)).loc[("lesion_dice", "<5 mm"), "verdict"] == "loss"


def test_a_single_false_positive_more_among_all_patients_is_equal() -> None:
    """Rates of 16 patients go by sixteenths: one more is what a threshold leaves open, two are not."""
    for own, said in ((1.0, "gain"), (1.0 + 1 / 16, "gain"), (1.0 + 2 / 16, "not shown")):
        assert small_lesions.at_equal_false_positives(("gain", ""), own, 1.0, 1 / 16)[0] == said
        assert small_lesions.at_equal_false_positives(("loss", ""), own, 1.0, 1 / 16)[0] == "loss"
    assert small_lesions.at_equal_false_positives(("loss", ""), 0.5, 1.0, 1 / 16)[0] == "not shown"
    assert small_lesions.at_equal_false_positives(("not shown", "why"), 0.5, 1.0, 0) == ("not shown", "why")


def test_small_lesions_of_one_patient_are_said_to_be_too_few_and_not_to_be_none() -> None:
    one = ("abc", [("a", 4.0, 0.9), ("b", 12.0, 0.8)], FALSE)
    found = table(trained(default=[one] * 2, segresnet=[one] * 2))
    row = found.loc["segresnet", "<5 mm"]
    assert (row["lesions"], row["verdict"]) == (1, "not shown")
    assert row["note"].startswith("1 patient has such lesions: too few")


def test_what_is_resampled_in_blocks_is_what_is_resampled_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(11)
    trainings = trained(**{arm: [many(random, 0.5) for _ in range(2)] for arm in ARMS[:2]})
    at_once = table(trainings)
    monkeypatch.setattr(small_lesions, "BLOCK", 100)
    pd.testing.assert_frame_equal(table(trainings), at_once)


def test_patients_with_all_repeats_and_both_arms_are_resampled_together() -> None:
    """An arm that finds one lesion more in every patient differs from the baseline alike in each resample."""
    random = np.random.default_rng(12)
    cases, scores = [f"p{number:02d}" for number in range(12)], random.random(12)
    lesions = [(case, 3.0, 0.9 if score > 0.5 else -math.inf) for case, score in zip(cases, scores, strict=True)]
    both = [*lesions, *((case, 3.0, -math.inf) for case in cases)]
    more = [*lesions, *((case, 3.0, 0.9) for case in cases)]
    row = table(trained(default=[(cases, both, [])] * 3, segresnet=[(cases, more, [])] * 3)).loc["segresnet", "<5 mm"]
    assert row[["difference", "low", "high"]].tolist() == pytest.approx([0.5, 0.5, 0.5])


def test_intervals_widen_with_the_number_of_arms_so_that_all_hold_together() -> None:
    random = np.random.default_rng(5)
    arms = {arm: [many(random, 0.5) for _ in range(2)] for arm in ARMS}
    of_two, of_seven = (
        table(trained(**{arm: arms[arm] for arm in chosen})).loc["tversky_bce", "<5 mm"] for chosen in (ARMS[:2], ARMS)
    )
    assert of_two["difference"] == of_seven["difference"]
    assert (of_two["level"], of_seven["level"]) == pytest.approx((0.95, 1 - 0.05 / 6))
    assert of_seven["low"] < of_two["low"] < of_two["high"] < of_seven["high"]


def test_of_equal_arms_few_are_claimed_to_differ(simulation: ModuleType) -> None:
    """A level of 0.05 for both arms together; 60 studies leave room for chance (docs/statistics.md has more)."""
    random = np.random.default_rng(6)
    assert sum(simulation.any_claim(random, 12, 0.2) for _ in range(60)) <= 7


def test_thresholds_are_looked_for_anew_in_each_resample() -> None:
    """One patient has all false candidates: where it is drawn twice, a threshold that let them through does not."""
    cases = [f"p{number}" for number in range(10)]
    lesions = [(case, 3.0, 0.5) for case in cases for _ in range(3)]
    flood = [("p0", 0.6)] * 10
    row = table(trained(default=[(cases, lesions, flood)] * 2, segresnet=[(cases, lesions, [])] * 2))
    row = row.loc["segresnet", "<5 mm"]
    assert row["difference"] == 0
    assert (row["low"], row["high"]) == (0, 1), "a fixed threshold would leave nothing to vary"


# --- what is refused ------------------------------------------------------------------------------------------------


def test_what_cannot_be_compared_is_refused() -> None:
    one = ("abc", LESIONS, FALSE)
    fewer_cases = ("ab", LESIONS[:4], FALSE[:2])
    fewer_lesions = ("abc", LESIONS[1:], FALSE)
    for trainings, message in (
        (trained(segresnet=[one], tversky_bce=[one]), "baseline: default has no fine-tuned model"),
        (trained(default=[one]), "only arm"),
        (trained(default=[one, one], segresnet=[one]), "segresnet finetune: lacks repeat 2"),
        (trained(default=[one], segresnet=[one, one]), "default finetune: lacks repeat 2"),
        (trained(default=[one], segresnet=[fewer_cases]), "other cases"),
        (trained(default=[one, fewer_cases], segresnet=[one, one]), "default finetune, repeat 2: other cases"),
        (trained(default=[one], segresnet=[fewer_lesions]), "other reference lesions"),
    ):
        with pytest.raises(SmallLesionsError, match=message):
            small_lesions.curves_of(trainings, RULE, "TC", {})


def test_without_a_small_lesion_nothing_is_said_of_them() -> None:
    one = ("abc", LESIONS[3:], FALSE)
    found = table(trained(default=[one] * 2, segresnet=[one] * 2))
    row = found.loc["segresnet", "<5 mm"]
    assert math.isnan(row["sensitivity"])
    assert row["verdict"] == "not shown"
    (sentence,) = small_lesions.sentences(found.reset_index(), RULE, UNKNOWN)
    assert sentence.startswith("No lesion of TC below 5 mm was held out")


# --- files, words and the figure -------------------------------------------------------------------------------------


def test_trainings_are_read_from_the_branches_of_repeats(tmp_path: Path) -> None:
    files = StudyPaths(str(tmp_path), "study")
    models = [("segresnet", "finetune"), ("default", "finetune"), ("default", "pretrained"), ("default", "scratch")]
    for repeat in (1, 2):
        for place, model in enumerate(models):
            false = [("b", 0.1 * (place + repeat), 20.0)]
            written = make_detections("ab", [("a", 14.0, 0.9)], false, model=model)
            write_detections(files.branch(repeat=repeat).evaluation_folder(*model), written)
    aim = operating_point.Aim("TC", "one_to_one", 1.0)
    found = small_lesions.read_trainings(files, models, 2, ["a", "b"], aim)
    assert [*found] == [("default", "finetune"), ("default", "scratch"), ("segresnet", "finetune")]
    assert found["segresnet", "finetune"][2].false["score"].tolist() == pytest.approx([0.2])
    assert found["segresnet", "finetune"][1].false["score"].tolist() == pytest.approx([0.1])
    named = small_lesions.tables_of(files, models, 2)
    assert len(named) == 9
    assert all(path.is_file() and "repeat_2" in path.parts for path in named)
    with pytest.raises(FileNotFoundError):
        small_lesions.read_trainings(files, models, 3, ["a", "b"], aim)


def seven(seed: int) -> tuple[small_lesions.Curves, pd.DataFrame]:
    random = np.random.default_rng(seed)
    chances = dict(zip(ARMS, (0.4, 0.45, 0.9, 0.5, 0.1, 0.4, 0.4), strict=True))
    trainings = trained(**{arm: [many(random, chance) for _ in range(3)] for arm, chance in chances.items()})
    scratch = {
        ("default", "scratch"): {n: make_hits(*many(random, 0.3), model=("default", "scratch")) for n in (1, 2, 3)}
    }
    compared = small_lesions.curves_of({**trainings, **scratch}, RULE, "TC", {})
    return compared, small_lesions.compare(compared, QUICK)


def test_each_arm_gets_one_sentence_with_its_verdict() -> None:
    _, found = seven(7)
    said = small_lesions.sentences(found, RULE, Declared("before training"))
    assert len(said) == 7
    assert said[0].startswith("Lesions of TC below 5 mm (96 in 16 held-out patients) at 1 false positive a patient")
    assert "six differences to Default hold together at 95%" in said[0]
    assert said[0].endswith(f"{small_lesions.RULE} The rule was declared before the first training.")
    row = found[(found["arm"] == "segresnet") & found["difference"].notna()].iloc[0]
    for ends in ("low", "high"), ("retrained_low", "retrained_high"):
        assert " to ".join(f"{row[end]:+.3f}" for end in ends) in said[2]
    verdicts = {sentence.partition(" finds")[0]: sentence for sentence in said[1:]}
    assert "a gain is shown" in verdicts["SegResNet"]
    assert "a loss is shown" in verdicts["Lesion sampling"]
    assert "not shown" in verdicts["Lesion transplant"]
    scratch = found[found["strategy"] == "scratch"]
    assert len(scratch)
    assert set(scratch["verdict"]) == {"described"}
    assert scratch["difference"].isna().all()


def test_the_operating_point_stands_beside_as_context() -> None:
    compared, _ = seven(8)
    point = operating_point.Point("default", "finetune", 0.5, 0.0, 4, 8, 6, 4, met=True)
    detections = make_detections("ab", [("a", 14.0, 0.9), ("a", 500.0, 0.4)], [("b", 0.8, 20.0)])
    found = hits(detections, "one_to_one")
    lesions = found.lesions.assign(found=found.lesions["score"] >= 0.5)
    aim = operating_point.Aim("TC", "one_to_one", 1.0)
    applied = {("default", "finetune"): operating_point.Applied(aim, point, ("a", "b"), lesions, found.false)}
    rows = small_lesions.compare(compared, QUICK, applied)
    rows = rows[rows["at"] == "operating point"].set_index("size")
    assert rows.loc["<5 mm", ["sensitivity", "lesions", "false_positives"]].tolist() == [1, 1, 0.5]
    assert rows.loc["all", ["sensitivity", "lesions", "false_positives"]].tolist() == [0.5, 2, 0.5]
    assert set(rows["verdict"]) == {"described"}


def test_curves_are_means_over_repeats_by_size_and_hold_the_declared_rate() -> None:
    compared, found = seven(9)
    curves = small_lesions.curves(compared)
    at_rate = curves[(curves["false_positives"] == 1) & (curves["size"] == "<5 mm")]
    own = found[(found["size"] == "<5 mm") & (found["at"] == small_lesions.AT_RATE)]
    assert at_rate.set_index(["arm", "strategy"])["sensitivity"].to_dict() == pytest.approx(
        own.set_index(["arm", "strategy"])["sensitivity"].to_dict()
    )
    assert set(curves["size"]) == {"<5 mm", "all", "<3 mm", "3-5 mm", "5-10 mm", ">=10 mm"}
    assert curves.loc[curves["size"] == ">=10 mm", "sensitivity"].isna().all()


def test_the_figure_marks_the_rate_and_fills_what_is_shown() -> None:
    compared, found = seven(7)
    figure = small_lesion_figures.small_lesions(
        small_lesions.curves(compared), found, small_lesions.by_repeat(compared), RULE
    )
    left, right = figure.axes
    assert left.get_lines()[0].get_xdata()[0] == 1, "the rate"
    drawn = {(line.get_marker(), line.get_color()) for line in left.get_lines()[1:]}
    assert len(drawn) == len({marker for marker, _ in drawn}) == len({colour for _, colour in drawn}) == 7
    markers = [line for line in right.get_lines() if line.get_marker() != "None"]
    assert [line.get_markerfacecolor() != "white" for line in markers] == [
        verdict != "not shown" for verdict in found.loc[found["difference"].notna(), "verdict"]
    ]
    assert len(figure.legends[0].get_texts()) == 7
    shown = found[found["difference"].notna()]
    segments = [tuple(bar.get_segments()[0][:, 0]) for bar in right.collections if isinstance(bar, LineCollection)]
    for ends in (["low", "high"], ["retrained_low", "retrained_high"]):
        assert {*shown[ends].itertuples(index=False, name=None)} <= {*segments}, "both intervals are drawn"


def test_the_rule_stands_everywhere_in_the_same_words() -> None:
    root = Path(__file__).resolve().parents[2]
    notebook = json.loads((root / "notebooks" / "07_statistics.ipynb").read_text(encoding="utf-8"))
    texts = {"07": " ".join("".join(cell["source"]) for cell in notebook["cells"])}
    for name in ("README.md", "docs/statistics.md", "docs/arms.md"):
        texts[name] = (root / name).read_text(encoding="utf-8")
    lacking = [name for name, text in texts.items() if small_lesions.RULE.rstrip(".") not in " ".join(text.split())]
    assert not lacking


@pytest.mark.parametrize("arms", [("tversky_bce", "segresnet"), ("default",)])
def test_a_study_without_the_baseline_or_anything_beside_it_is_refused_before_it_starts(arms: tuple) -> None:
    path = Path(__file__).resolve().parents[2] / "params" / "small_lesions.yaml"
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert Study(content, "own.yaml").arms == list(ARMS)
    content["arms"] = {arm: content["arms"][arm] for arm in arms}
    with pytest.raises(ParameterError, match=r"small_lesions.baseline: default must be one of the study's arms"):
        Study(content, "own.yaml")


def test_the_readmes_table_says_of_each_arm_what_the_rule_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "docs"))
    renew = importlib.import_module("renew_demonstration")
    _, found = seven(7)
    lines = renew.small_lesions(found).splitlines()
    assert len(lines) == 2 + 7
    row = found[(found["arm"] == "segresnet") & (found["size"] == "<5 mm")].iloc[0]
    assert f"| SegResNet | {row['sensitivity']:.3f} |" in lines[4]
    both = f"{row['low']:+.3f} to {row['high']:+.3f}; {row['retrained_low']:+.3f} to {row['retrained_high']:+.3f}"
    assert f"| {row['difference']:+.3f} ({both}) | gain |" in lines[4]
    text = "a\n<!-- small lesions: table -->\nold\n<!-- small lesions: end -->\nb\n"
    assert "old" not in renew.replaced(text, "small lesions", "new\n")
    with pytest.raises(SystemExit, match="each once"):
        renew.replaced("none", "small lesions", "new\n")
    readme = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
    assert {renew.replaced(readme, mark, "") for mark in renew.MARKS.values()}
