"""Every reader of a file that a person, a spreadsheet or a disk can damage, on valid files that were changed.

Bits are turned, parts cut, doubled, moved or filled with noise. A reader then gives its result or raises a
``ValueError`` that names the file; it takes no more than ``SECONDS`` of a processor and ``MEMORY`` of further address
space. The quick profile repeats the same changes each time; the slow one looks for new ones.
"""

import gzip
import json
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from score_examples import example_lesions, example_scores

from brainmets import nifti, provenance, schemas, tables
from brainmets.cohorts import splits
from brainmets.cohorts.cohort import Case, read_manifest, write_manifest
from brainmets.cohorts.key import Key
from brainmets.files import read_json, write_json
from brainmets.params.study import Study
from brainmets.params.yaml_files import read_yaml
from brainmets.paths import PreparationPaths, StudyPaths
from brainmets.preparation import series, sorting
from brainmets.provenance import Provenance
from brainmets.report import content
from brainmets.review.experts import SHEET_COLUMNS, read_ratings
from brainmets.review.rating_form import sheet_of
from brainmets.statistics import tables as score_tables
from brainmets.statistics.choice import read_best_models
from brainmets.vocabulary import SEQUENCES

SECONDS = 5
MEMORY = 2**30
REPOSITORY = Path(__file__).resolve().parents[2]
KEY = pd.DataFrame(
    [("case 1", "A", "default", "finetune"), ("case 1", "B", "default", "scratch")],
    columns=list(schemas.RATING_KEY.columns),
)


# --- what changes a file -------------------------------------------------------------------------------------------

Change = Callable[[bytes], bytes]
NOISE = (
    b"\0",
    b"\xff\xfe", b"\r", b"\n", b'"', b"'", b",", b";", b"\t", b"nan", b"-1", b"1e999", b"9" * 40, b"[" * 50, b"{",
    b"}", b"&a [*a]", b"<<: *a", b"!!python/object:os.system", b"=cmd()",
    b"\xed\xa0\x80", "ä".encode(), b"../../", b"null",
)  # fmt: skip


def turned(place: float, bit: int) -> Change:
    def change(content: bytes) -> bytes:
        at = int(place * len(content))
        return content[:at] + bytes([content[at] ^ (1 << bit)]) + content[at + 1 :] if content else content

    return change


def cut(start: float, length: float) -> Change:
    def change(content: bytes) -> bytes:
        at = int(start * len(content))
        return content[:at] + content[at + 1 + int(length * (len(content) - at)) :]

    return change


def put(place: float, noise: bytes, over: bool) -> Change:
    def change(content: bytes) -> bytes:
        at = int(place * len(content))
        return content[:at] + noise + content[at + len(noise) * over :]

    return change


def line_twice(place: float, times: int) -> Change:
    def change(content: bytes) -> bytes:
        lines = content.splitlines(keepends=True)
        at = int(place * len(lines))
        return b"".join([*lines[:at], *lines[at : at + 1] * times, *lines[at + 1 :]])

    return change


def field(line: float, place: float, noise: bytes) -> Change:
    """Another cell in a table, another value in YAML or JSON."""

    def change(content: bytes) -> bytes:
        lines = content.splitlines(keepends=True)
        if not lines:
            return noise
        at = int(line * len(lines))
        sign = b"," if b"," in lines[at] else b": "
        cells = lines[at].rstrip(b"\n").split(sign)
        cells[int(place * len(cells))] = noise
        return b"".join([*lines[:at], sign.join(cells) + b"\n", *lines[at + 1 :]])

    return change


def otherwise(encoding: str) -> Change:
    return lambda content: content.decode("utf-8", errors="replace").encode(encoding, errors="replace")


PLACES = st.floats(0, 1, exclude_max=True)
NOISES = st.one_of(st.sampled_from(NOISE), st.binary(min_size=1, max_size=30))
CHANGES = st.one_of(
    st.builds(turned, PLACES, st.integers(0, 7)),
    st.builds(cut, PLACES, st.one_of(st.just(0.0), st.just(1.0), PLACES)),
    st.builds(put, PLACES, NOISES, st.booleans()),
    st.builds(line_twice, PLACES, st.sampled_from([0, 2, 50])),
    st.builds(field, PLACES, PLACES, NOISES),
    st.builds(otherwise, st.sampled_from(["utf-16", "utf-8-sig", "latin-1", "utf-32"])),
    st.builds(lambda noise: lambda _: noise, st.binary(max_size=200)),
)
CHANGED = st.lists(CHANGES, min_size=1, max_size=3)


# --- the readers ---------------------------------------------------------------------------------------------------


class Reader(NamedTuple):
    """A valid file below a folder, and what reads it; ``names`` what a message must hold, else the file's name."""

    write: Callable[[Path], Path]
    read: Callable[[Path], Any]
    names: str = ""


def image(name: str, kind: type) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        voxels = (np.arange(6 * 5 * 4).reshape(6, 5, 4) % 4).astype(kind)
        nib.save(nib.Nifti1Image(voxels, np.diag([1.0, 2.0, 3.0, 1.0])), folder / name)
        return folder / name

    return write


def table(name: str, content: Callable[[], pd.DataFrame]) -> Callable[[Path], Path]:
    return lambda folder: tables.write(folder / name, content())


def text(name: str, content: str, mode: int = 0o644) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / name).write_text(content)
        (folder / name).chmod(mode)
        return folder / name

    return write


def wide() -> pd.DataFrame:
    return pd.DataFrame([{"sample": name, **dict.fromkeys(score_tables.WIDE_COLUMNS, 0.5)} for name in "abc"])


def sheet() -> pd.DataFrame:
    rows = [("R", "case 1", letter, 4, 3, 0, 2, "yes", "good") for letter in "AB"]
    return pd.DataFrame(rows, columns=SHEET_COLUMNS)


def all_series() -> pd.DataFrame:
    cells = dict.fromkeys(series.SERIES_COLUMNS, "")
    rows = [
        cells
        | {"case": "P-00001-000", "series": n, "role": role, "guess": role, "rank": 1, "slices": 9, "key": f"k.{n}"}
        | {"confidence": 1.0, "thickness_mm": 1.0, "repetition_ms": 1.0, "echo_ms": 1.0, "inversion_ms": 1.0}
        for n, role in enumerate(SEQUENCES)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def manifest(folder: Path) -> Path:
    place = folder / "study" / "audit" / "target"
    place.mkdir(parents=True, exist_ok=True)
    label = image("label.nii.gz", np.uint8)(place)
    cases = [
        Case(case=name, patient=name, images=dict.fromkeys(SEQUENCES, label), label=label) for name in ("P1", "P2")
    ]
    return write_manifest(place / "manifest.json", cases, SEQUENCES)


def drawn(folder: Path) -> Path:
    manifest(folder)
    split = splits.Split(held_out=["P1"], folds=[splits.FoldCases(train=[], val=["P2"])])
    return splits.write(StudyPaths(str(folder), "study"), {"target": split})


def plan(folder: Path) -> Path:
    case = {"images": {}, "label": None, "brain_mask": None, "digest": "x"}
    return write_json(PreparationPaths(folder).plan, {"state": "x", "cases": {"P-00001-000": case}})


def statistics(folder: Path) -> Path:
    place = folder / "own" / "statistics"
    return write_json(place / "statistics.json", {"answer": ["Yes."], "conclusion": "So.", "figures": []})


def review(folder: Path) -> Path:
    case = {"name": "P1", "explanation": None, "volumes": {"focus": [0, 0, 0]}, "figures": []}
    return write_json(folder / "own" / "review" / "review.json", {"cases": [case], "figures": [], "rule": "None."})


def record(folder: Path) -> Path:
    tables.write(folder / "own.csv", example_scores(1))
    return Provenance("06_evaluation", {"arm": "default"}, folder).write(
        folder / "own.json", outputs=[folder / "own.csv"]
    )


def checkpoint(folder: Path) -> Path:
    import torch

    weights = {"a.weight": torch.zeros(3, 4), "b": torch.ones(2, dtype=torch.int64)}
    torch.save({"network_weights": weights, "init_args": {"plans": {"a": [1]}}, "x": None}, folder / "own.pth")
    return folder / "own.pth"


def read_checkpoint(path: Path) -> Any:
    import torch

    from brainmets.training.trainer import read_checkpoint

    return read_checkpoint(path, torch.device("cpu"))


def read_key(path: Path) -> Any:
    return Key.open(path, path.parent / "cohort", "P").proposed([("a", "2020")])


SMOKE = (REPOSITORY / "params" / "smoke.yaml").read_text(encoding="utf-8")
READERS: dict[str, Reader] = {
    "image": Reader(image("own.nii", np.int16), nifti.read_volume),
    "compressed image": Reader(image("own.nii.gz", np.float32), nifti.read_volume),
    "scan's grid": Reader(image("own.nii", np.int16), nifti.read_scan_grid),
    "label map": Reader(image("own.nii", np.uint8), nifti.read_labels),
    "label map of floats": Reader(image("own.nii", np.float64), nifti.read_labels),
    "long scores": Reader(
        table("scores.csv", lambda: example_scores(2)), lambda f: score_tables.read_scores(f.parent)
    ),
    "wide scores": Reader(
        table("scores_default_scratch.csv", wide), lambda path: score_tables.read_scores(path.parent)
    ),
    "lesions": Reader(
        table("lesions.csv", lambda: example_lesions(example_scores(2))),
        lambda path: score_tables.read_lesions(path.parent),
    ),
    "any table": Reader(table("own.csv", lambda: example_scores(2)), tables.read),
    "rating key": Reader(table("key.csv", lambda: KEY), lambda path: schemas.read(path, schemas.RATING_KEY)),
    "rating sheet": Reader(table("own.csv", sheet), lambda path: read_ratings([path], KEY)),
    "sheet of the form": Reader(
        table("ratings_R.csv", sheet), lambda path: sheet_of("R", path, path.parent), "ratings_R.csv"
    ),
    "parameters": Reader(text("own.yaml", SMOKE), Study.read),
    "YAML": Reader(text("own.yaml", "a: &a [1, 2]\nb: {c: *a, d: 1e-3}\ne: 'text'\n"), read_yaml),
    "JSON": Reader(lambda folder: write_json(folder / "own.json", {"a": [1, {"b": None}], "c": "d"}), read_json),
    "splits": Reader(drawn, lambda path: splits.read(StudyPaths(str(path.parents[2]), "study"), "target")),
    "manifest": Reader(manifest, read_manifest),
    "plan": Reader(plan, lambda path: sorting.read_plan(PreparationPaths(path.parent))),
    "best model": Reader(
        lambda folder: write_json(folder / "own.json", {"models": [{"arm": "default", "strategy": "scratch"}]}),
        read_best_models,
    ),
    "record": Reader(record, lambda path: provenance.damaged(path, path.parent)),
    "conclusions": Reader(statistics, lambda path: content.conclusions(StudyPaths(str(path.parents[2]), "own"))),
    "cases of a report": Reader(review, lambda path: content.cases(StudyPaths(str(path.parents[2]), "own"))),
    "series": Reader(lambda folder: series.write(folder / "series.csv", all_series()), series.read),
    "key file": Reader(
        text("key.csv", '"patient","date","case"\n"a","2020","P-00001-000"\n"b","2021","P-00002-000"\n', 0o600),
        read_key,
    ),
    "checkpoint": Reader(checkpoint, read_checkpoint),
}


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, bytes]]:
    """Every reader's file, written once, and what it holds."""
    found = {}
    for name, reader in READERS.items():
        path = reader.write(tmp_path_factory.mktemp(name.replace(" ", "_")))
        reader.read(path)
        found[name] = (path, path.read_bytes())
    return found


@contextmanager
def bounded() -> Iterator[None]:
    """No more than ``MEMORY`` beyond what the process has, and ``SECONDS`` of processor time."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    has = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (has + MEMORY, hard))
    began = time.process_time()
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    assert time.process_time() - began < SECONDS


def reads_or_says_why(reader: Reader, path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with bounded():
        try:
            reader.read(path)
        except FileNotFoundError as error:  # a picture that the file names
            assert "rerun the notebook that draws it" in str(error)
        except ValueError as error:
            message = str(error)
            assert any(name in message for name in (reader.names or path.name).split("|")), message
            assert len(message) < 20_000


def changed(content: bytes, changes: list[Change]) -> bytes:
    for change in changes:
        content = change(content)
    return content


QUICK = settings(
    max_examples=60, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)
LONG = settings(max_examples=500, database=None, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("name", READERS)
def test_a_changed_file_is_read_or_refused_by_name(name: str, valid: dict[str, tuple[Path, bytes]]) -> None:
    path, content = valid[name]

    @QUICK
    @given(CHANGED)
    @example([lambda _: b""])
    @example([lambda content: content[: len(content) // 2]])
    @example([lambda content: content + content])
    def run(changes: list[Change]) -> None:
        reads_or_says_why(READERS[name], path, changed(content, changes))

    run()
    path.write_bytes(content)


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_many_changed_files_are_read_or_refused_by_name(name: str, valid: dict[str, tuple[Path, bytes]]) -> None:
    path, content = valid[name]

    @LONG
    @given(CHANGED)
    def run(changes: list[Change]) -> None:
        reads_or_says_why(READERS[name], path, changed(content, changes))

    run()
    path.write_bytes(content)


@pytest.mark.parametrize("shape", [(32767, 32767, 32767), (0, 5, 5), (-1, 5, 5), (3, 3, 30000)])
def test_a_header_that_promises_more_than_the_file_holds_takes_no_memory(
    tmp_path: Path, shape: tuple[int, int, int]
) -> None:
    path = image("own.nii", np.float32)(tmp_path)
    content = bytearray(path.read_bytes())
    content[42:48] = np.array(shape, np.int16).tobytes()
    for name, stored in (("own.nii", bytes(content)), ("own.nii.gz", gzip.compress(bytes(content)))):
        reads_or_says_why(Reader(image(name, np.float32), nifti.read_volume), tmp_path / name, stored)
        if shape[0] > 0:
            with pytest.raises(ValueError, match=name):
                nifti.read_volume(tmp_path / name)


def test_a_reader_that_fails_otherwise_would_be_found(tmp_path: Path) -> None:
    def hang(_: Path) -> None:
        while True:
            pass

    def fill(_: Path) -> None:
        bytearray(2 * MEMORY)

    def other(path: Path) -> Any:
        return json.loads(path.read_text())["a"]["b"]

    for read, error in ((fill, MemoryError), (other, (TypeError, KeyError))):
        with pytest.raises(error):
            reads_or_says_why(Reader(text("own.json", ""), read), tmp_path / "own.json", b'{"a": 3}')
    with pytest.raises(AssertionError):  # the file is not named
        reads_or_says_why(Reader(text("own.json", ""), other), tmp_path / "own.json", b"{")
    del hang
