"""The reader of YAML: what a study's file needs, and nothing that could hang, hide or surprise."""

import time
from pathlib import Path

import pytest
import yaml

from brainmets.params import ParameterError
from brainmets.params.study import Study
from brainmets.params.yaml_files import MOST_BYTES, parse_value, read_yaml

SMOKE = Path(__file__).resolve().parents[2] / "params" / "smoke.yaml"
BOMB = "a0: &a0 {x: 1}\n" + "".join(
    f"a{n}: &a{n} {{{', '.join(f'k{k}: *a{n - 1}' for k in range(9))}}}\n" for n in range(1, 12)
)
LIST_BOMB = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
MERGE_BOMB = "a0: &a0 {x: 1}\n" + "".join(
    f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 9)
)


def refused(tmp_path: Path, text: str | bytes) -> str:
    file = tmp_path / "own.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    started = time.monotonic()
    with pytest.raises(ParameterError) as error:
        Study.read(file)
    assert time.monotonic() - started < 10  # an exponential one would take years
    assert str(error.value).startswith(str(file))
    assert len(str(error.value)) < 600
    return str(error.value)


@pytest.mark.parametrize("bomb", [BOMB, LIST_BOMB, MERGE_BOMB])
def test_aliases_that_multiply_are_refused(tmp_path: Path, bomb: str) -> None:
    assert "with its aliases the file stands for more than 100,000 values" in refused(tmp_path, bomb)


def test_aliases_that_multiply_within_a_name_are_refused(tmp_path: Path) -> None:
    assert "a name must be plain text" in refused(tmp_path, LIST_BOMB[: LIST_BOMB.index("a4")] + "? *a3\n: 1\n")
    assert "a name must be plain text" in refused(tmp_path, "? &k [a, [*k]]\n: 1\n").replace(
        "an alias stands within what it is the alias of", "a name must be plain text"
    )
    assert "a name must be plain text" in refused(tmp_path, "{{a: 1}: 2}")


@pytest.mark.parametrize("text", ["[" * 20_000, "{a: " * 20_000, "- " * 20_000, "a: " + "[" * 31 + "]" * 31])
def test_deep_nesting_is_refused(tmp_path: Path, text: str) -> None:
    assert "nested more than 30 levels deep" in refused(tmp_path, text)


def test_an_alias_of_what_it_stands_in_is_refused(tmp_path: Path) -> None:
    assert "an alias stands within" in refused(tmp_path, "a: &a [1, *a]\n")


def test_a_huge_file_is_refused_by_its_size(tmp_path: Path) -> None:
    assert "no study's file" in refused(tmp_path, "# " + "x" * MOST_BYTES)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("9" * 5000, "is not written as a plain number"),
        ("0x" + "f" * 5000, "is not written as a plain number"),
        ("1:" * 5000 + "1", "is not written as a plain number"),
        ("010", "010 is not written as a plain number; give a name in quotes"),
        ("1:30", "1:30 is not written as a plain number"),
        ("2024-13-45", "2024-13-45 cannot be read as timestamp; give text in quotes"),
        ("!!int x", "is not written as a plain number"),
        ("!!float x", "x cannot be read as float"),
        ("!!bool x", "x cannot be read as bool"),
        ("!!timestamp x", "x cannot be read as timestamp"),
        ("!!python/object/apply:os.system [id]", "could not determine a constructor"),
    ],
)
def test_a_value_that_its_type_cannot_have_is_refused_with_its_line(
    tmp_path: Path, written: str, expected: str
) -> None:
    message = refused(tmp_path, f"study: a\nseed: {written}\n")
    assert "own.yaml, line 2: " in message
    assert expected in message


@pytest.mark.parametrize(
    "text", [b"\x00\x01", "a: b".encode("utf-16"), b"a: \xff", b"\x7fELF" * 100, b"a: 1\n---\nb: 2"]
)
def test_what_is_no_text_is_refused(tmp_path: Path, text: bytes) -> None:
    refused(tmp_path, text)


def test_sections_may_share_their_values(tmp_path: Path) -> None:
    """fine_tuning and from_scratch are equal but for the initialisation: an anchor says so once."""
    content = yaml.safe_load(SMOKE.read_text())
    shared = yaml.safe_dump(content.pop("from_scratch"), default_flow_style=True, width=1000).strip()
    further = {name: value for name, value in content.pop("fine_tuning").items() if name not in yaml.safe_load(shared)}
    lines = [f"from_scratch: &shared {shared}", "fine_tuning:", "  <<: *shared"]
    lines += [f"  {name}: {yaml.safe_dump(value).splitlines()[0]}" for name, value in further.items()]
    file = tmp_path / "own.yaml"
    file.write_text(yaml.safe_dump(content) + "\n".join(lines) + "\n")
    study = Study.read(file)
    assert study.content == yaml.safe_load(SMOKE.read_text())


def test_a_number_with_an_exponent_alone_is_a_number(tmp_path: Path) -> None:
    """To YAML 1.1 1e-3 is a text, which nobody means."""
    (tmp_path / "own.yaml").write_text("a: 1e-3\nb: [1.0e-3, '1e-3', 1, -2, 0, .5]\n")
    assert read_yaml(tmp_path / "own.yaml") == {"a": 0.001, "b": [0.001, "1e-3", 1, -2, 0, 0.5]}


@pytest.mark.parametrize(
    "text", ["[", "{a", "&a [*a]", "[" * 5000, "!!int x", "\0", "'", "1:30", "{[a]: 1}", "\ud800", "*a", "a: b: c"]
)
def test_a_broken_value_of_the_command_line_is_refused(text: str) -> None:
    with pytest.raises(ParameterError, match=r"^arm=.* cannot be read: .*; write the value as in") as error:
        parse_value(text, "arm")
    assert len(str(error.value)) < 300


def test_values_of_the_command_line() -> None:
    values = {"default": "default", "1": 1, "1e-3": 0.001, "[0, 1]": [0, 1], "null": None, "": None, "'1'": "1"}
    assert {text: parse_value(text, "x") for text in values} == values
