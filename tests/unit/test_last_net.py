"""Damaged files end with a line that names them, and a fault of the program with one line and a private traceback."""

import re
import stat
from pathlib import Path

import pytest

from brainmets import cli
from brainmets.cohorts.cohort import read_manifest
from brainmets.files import read_json, shaped
from brainmets.params.study import Study
from brainmets.paths import PreparationPaths
from brainmets.preparation import sorting
from brainmets.statistics.choice import read_best_models

SMOKE = Path(__file__).resolve().parents[2] / "params" / "smoke.yaml"


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe{\x00}\x00", b"\x00" * 10, b"[" * 100_000, b'{"a":' * 100_000, b"[1]", b"3", b"9" * 5000],
)
def test_what_is_no_json_object_is_refused_with_its_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "own.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"own\.json (is not JSON|holds a).*rerun the step that writes it") as error:
        read_json(tmp_path / "own.json")
    assert len(str(error.value)) < 500


@pytest.mark.parametrize(
    "content", ["{}", '{"models": 1, "cases": 2, "a": 3}', '{"models": [1], "cases": [1], "a": []}']
)
def test_json_of_another_shape_is_refused_with_its_name(tmp_path: Path, content: str) -> None:
    files = PreparationPaths(tmp_path)
    for path, read in (
        (tmp_path / "best_model.json", read_best_models),
        (files.plan, lambda _: sorting.read_plan(files)),
    ):
        path.write_text(content)
        with pytest.raises(ValueError, match=rf"{path.name} does not hold what the step writes that makes it"):
            read(path)
    manifest = tmp_path / "study" / "audit" / "target" / "manifest.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text('{"a": 3}')
    with pytest.raises(ValueError, match=r"manifest\.json"):
        read_manifest(manifest)


def test_a_reader_may_still_miss_its_file(tmp_path: Path) -> None:
    @shaped
    def read(path: Path) -> str:
        return path.read_text()

    with pytest.raises(FileNotFoundError):
        read(tmp_path / "none.json")


def faulty(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def read(_: Path) -> Study:
        raise error

    monkeypatch.setattr(Study, "read", read)


def test_a_fault_is_one_line_with_a_private_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.delenv("BRAINMETS_DEBUG", raising=False)
    faulty(monkeypatch, KeyError("patient 17\n" + "x" * 1000))
    assert cli.main(["review", str(SMOKE)]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    line = said.err.removesuffix("\n")
    assert "\n" not in line and "Traceback (" not in line and len(line) < 800
    assert line.startswith("brainmets review: KeyError: 'patient 17")
    found = re.search(r"Its traceback is in (\S+), which you alone can read", line)
    assert found
    file = Path(found[1])
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "Traceback (most recent call last)" in file.read_text()
    assert "in read" in file.read_text()


def test_the_traceback_is_shown_where_it_is_asked_for_and_where_it_cannot_be_kept(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    faulty(monkeypatch, KeyError("patient 17"))
    monkeypatch.delenv("BRAINMETS_DEBUG", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    assert cli.main(["review", str(SMOKE)]) == 1
    assert "Traceback (most recent call last)" in capsys.readouterr().err
    monkeypatch.setenv("BRAINMETS_DEBUG", "1")
    with pytest.raises(KeyError, match="patient 17"):
        cli.main(["review", str(SMOKE)])
    faulty(monkeypatch, ValueError("a request that cannot be met"))
    with pytest.raises(ValueError, match="a request"):
        cli.main(["review", str(SMOKE)])


def test_too_little_memory_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("BRAINMETS_DEBUG", raising=False)
    faulty(monkeypatch, MemoryError())
    assert cli.main(["review", str(SMOKE)]) == 1
    assert capsys.readouterr().err == (
        "brainmets review: there is not enough memory; use fewer workers, or a machine with more\n"
    )


@pytest.mark.parametrize(
    "word", ["arm=[", "arm=&a [*a]", "arm", "=1", "arm={[a]: 1}", f"arm={'[' * 3000}", "arm=!!int x"]
)
def test_a_broken_value_of_a_notebook_ends_with_its_name(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["notebook", "03", str(SMOKE), word]) == 2
    said = capsys.readouterr().err
    assert said.startswith("brainmets notebook: ") and said.count("\n") == 1 and len(said) < 400
    assert word[:10] in said
