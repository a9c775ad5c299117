"""The engine's benchmark: its bounds by hand, and a small study against them."""

import importlib.util
import sys
from types import ModuleType

import pytest
from fake_checkout import REPOSITORY


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("engine_benchmark", REPOSITORY / "benchmarks" / "engine.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_ideal_schedule_by_hand(benchmark: ModuleType) -> None:
    lengths = {
        ("03_pretraining", "default", 0): 4.0,
        ("04_fine_tuning", "default", 0): 3.0,
        ("05_from_scratch", "default", 0): 2.0,
        ("03_pretraining", "default", 1): 1.0,
        ("04_fine_tuning", "default", 1): 1.0,
        ("05_from_scratch", "default", 1): 1.0,
    }
    # one slot: all after each other. Two: 4 + 3 beside 1 + 1 + 2 + 1, the fine-tuning before the scratch ones
    assert [benchmark.ideal(lengths, slots) for slots in (1, 2, 6)] == [12.0, 7.0, 7.0]
    assert [benchmark.lower_bound(lengths, slots) for slots in (1, 2, 6)] == [12.0, 7.0, 7.0]


def test_the_priorities_are_the_snakefiles(benchmark: ModuleType) -> None:
    text = (REPOSITORY / "workflow" / "Snakefile").read_text()
    for notebook, priority in benchmark.PRIORITIES.items():
        rule = text.partition(f"rule {notebook[3:]}:")[2].partition("\nrule ")[0]
        assert f"priority: {priority}" in rule


def test_durations_repeat_and_have_their_mean(benchmark: ModuleType) -> None:
    lengths = benchmark.durations(("default", "segresnet"), 50, 2.0, seed=1)
    assert len(lengths) == 300
    assert lengths == benchmark.durations(("default", "segresnet"), 50, 2.0, seed=1)
    assert sum(lengths.values()) / 300 == pytest.approx(2.0, abs=0.01)


@pytest.mark.slow
def test_a_study_of_sleeping_trainings_is_near_the_ideal(benchmark: ModuleType) -> None:
    run = benchmark.run(("default", "segresnet"), folds=5, slots=4, mean=4.0)
    assert run.trainings == 30
    assert run.bound <= run.ideal  # by priorities, not the shortest there is: a late start may beat it by a little
    assert run.bound <= run.makespan
    assert run.ratio < 1.1, run
