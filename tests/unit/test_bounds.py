"""Every number among the parameters has limits with a reason, and what lies beyond them is refused by name."""

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
import yaml
from pydantic import BaseModel

from brainmets import cli
from brainmets.params import ParameterError, models
from brainmets.params.bounds import Limits, shown
from brainmets.params.study import Study

SMOKE = Path(__file__).resolve().parents[2] / "params" / "smoke.yaml"
EVERY = [
    model
    for model in vars(models).values()
    if isinstance(model, type) and issubclass(model, BaseModel) and model.model_fields
]
BEYOND = (math.inf, -math.inf, math.nan, 1e300, -1e300, 10**400, -(10**5000), True, False, "1", "1e3", "many", None)


def numbers(annotation: Any, metadata: list[Any]) -> Iterator[tuple[type, Limits | None]]:
    """Every number within a field's annotation, with its limits or None."""
    if annotation in (int, float):
        found = [one for one in metadata if isinstance(one, Limits)]
        yield annotation, found[0] if len(found) == 1 else None
    elif get_origin(annotation) is not Literal:
        inner = getattr(annotation, "__metadata__", ())
        for one in get_args(annotation):
            if inner and one in inner:
                continue
            yield from numbers(one, list(inner))


def limited() -> list[tuple[str, type, Limits | None]]:
    return [
        (f"{model.__name__}.{name}", kind, limits)
        for model in EVERY
        for name, field in model.model_fields.items()
        for kind, limits in numbers(field.annotation, field.metadata)
    ]


def test_every_number_has_limits_with_a_reason() -> None:
    found = limited()
    assert len(found) > 50
    assert {"Cohort.held_out", "Cohort.label_map", "Evaluation.folds", "Preparation.spacing_mm"} <= {
        name for name, *_ in found
    }
    assert [name for name, _, limits in found if limits is None] == []
    assert [name for name, _, limits in found if limits and not limits.because] == []


def test_a_number_without_limits_would_be_found() -> None:
    class Loose(models.Parameters):
        a: int
        b: list[float]
        c: tuple[models.Side, float] | None

    fields = Loose.model_fields.values()
    found = [limits for field in fields for _, limits in numbers(field.annotation, field.metadata)]
    assert found.count(None) == 3
    assert len(found) == 4


@pytest.mark.parametrize(("name", "kind", "limits"), limited())
def test_each_limit_takes_its_ends_and_nothing_beyond(name: str, kind: type, limits: Limits) -> None:
    for end in (limits.low, limits.high):
        assert limits.check(kind(end), kind) == end
    step = limits.multiple_of if kind is int else 1e-12 + 1e-9 * limits.high
    for value in (*BEYOND, limits.low - step, limits.high + step, *((limits.low + 0.5,) if kind is int else ())):
        with pytest.raises(ValueError, match=r"must be a (whole )?number|must be a multiple|is text; write") as error:
            limits.check(value, kind)
        assert len(str(error.value)) < 300


@pytest.mark.parametrize(
    ("path", "written"),
    [
        ("arms.default.learning_rate", ".inf"),
        ("arms.default.learning_rate", ".nan"),
        ("arms.default.learning_rate", "1e400"),
        ("arms.default.learning_rate", "true"),
        ("arms.segresnet.filters", "9"),
        ("statistics.n_bootstrap", "1000000000000"),
        ("statistics.n_bootstrap", "9" * 29),
        ("seed", "-1"),
        ("seed", "4294967296"),
        ("pretraining.epochs", "3.0"),
        ("evaluation.tile_step", "1e-6"),
        ("alignment.gpu_memory_gb", "1e-9"),
        ("alignment.workers", "100000"),
        ("target.phantoms.patients", "1000000000"),
        ("target.label_map", "{true: et}"),
        ("target.label_map", "{-1: et}"),
    ],
)
def test_a_study_with_a_number_beyond_its_limits_is_refused(tmp_path: Path, path: str, written: str) -> None:
    content = yaml.safe_load(SMOKE.read_text())
    *above, last = path.split(".")
    part = content
    for name in above:
        part = part[name]
    part[last] = "PLACE"
    file = tmp_path / "own.yaml"
    file.write_text(re.sub(r"PLACE", written, yaml.safe_dump(content)))
    with pytest.raises(ParameterError, match=rf"own\.yaml.*\b{last}[.\w-]*: .* must be a ") as error:
        Study.read(file)
    assert len(str(error.value)) < 2500


def test_text_with_characters_that_cannot_be_seen_is_refused(tmp_path: Path) -> None:
    content = yaml.safe_load(SMOKE.read_text())
    for value in ("work\0", "work\n=cmd()", "work\u2028"):
        file = tmp_path / "own.yaml"
        file.write_text(yaml.safe_dump({**content, "work_dir": value}))
        with pytest.raises(ParameterError, match=r"work_dir: .*holds a character that cannot be seen"):
            Study.read(file)


def test_a_value_of_any_size_is_shown_in_one_line() -> None:
    assert shown(10**5000) == "a number of about 5,001 digits"
    assert len(shown("x" * 10**6)) == 80
    assert shown(0.1) == "0.1"


@pytest.mark.parametrize(
    "words",
    [
        ("score", "a", "b", "--out", "c.csv", "--workers", "0"),
        ("score", "a", "b", "--out", "c.csv", "--workers", "100000"),
        ("notebook", "03", "params/smoke.yaml", "--threads", "-1"),
        ("notebook", "03", "params/smoke.yaml", "--threads", "1000000000000"),
    ],
)
def test_processes_and_threads_have_limits_on_the_command_line(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*words]) == 2
    assert f"{words[-2]}: {words[-1]} must be a whole number from 1 to 512" in capsys.readouterr().err
