"""Nothing in the package can run what a file holds: no unpickling, no YAML tags, no evaluation of text.

What each kind of file is read with is in docs/own_cohort.md.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
FORBIDDEN = {
    "eval", "exec", "compile", "pickle.load", "pickle.loads", "pickle.Unpickler", "dill.load", "dill.loads",
    "joblib.load", "marshal.load", "marshal.loads", "shelve.open", "pd.read_pickle", "pandas.read_pickle",
    "load_pickle", "yaml.unsafe_load", "yaml.full_load", "yaml.load_all", "pydoc.locate", "runpy.run_path",
    "infer_dataset_class", "nnUNetDatasetBlosc2", "nnUNetDatasetNumpy"
}  # fmt: skip
"""Calls that run, or unpickle, what they are given."""
REQUIRED = {
    "torch.load": ("weights_only", True),
    "np.load": ("allow_pickle", False),
    "numpy.load": ("allow_pickle", False),
}
"""Readers that run nothing only when they are told so."""
ONLY_IN = {"blosc2.open": "preprocessed.py"}
"""Readers with a check of their own before them."""


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def sources() -> list[Path]:
    return sorted((REPOSITORY / "src").rglob("*.py"))


def wrong(name: str, call: ast.Call, file: str) -> bool:
    given = {word.arg: word.value for word in call.keywords}
    if name in REQUIRED:
        word, value = REQUIRED[name]
        return not (isinstance(given.get(word), ast.Constant) and given[word].value is value)
    if name == "yaml.load":
        return ast.unparse(given.get("Loader", ast.Constant(None))) != "_Reader"  # a SafeLoader, of params/yaml_files
    return name in FORBIDDEN or ONLY_IN.get(name, file) != file


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.stem)
def test_no_reader_runs_what_it_reads(path: Path) -> None:
    found = [f"line {call.lineno}: {name}" for name, call in calls(path) if wrong(name, call, path.name)]
    assert found == []


@pytest.mark.parametrize(
    "code",
    ["torch.load(p)", "torch.load(p, weights_only=False)", "np.load(p)", "np.load(p, allow_pickle=True)",
     "pickle.load(f)", "yaml.load(t)", "yaml.load(t, Loader=yaml.Loader)", "eval(t)", "load_pickle(p)",
     "pd.read_pickle(p)", "blosc2.open(p)"],
)  # fmt: skip
def test_what_would_run_it_is_found(tmp_path: Path, code: str) -> None:
    (tmp_path / "module.py").write_text(f"def read(p):\n    return {code}\n")
    assert [name for name, call in calls(tmp_path / "module.py") if wrong(name, call, "module.py")] != []
