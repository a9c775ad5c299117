"""The notebook contract of CONTRIBUTING, as far as it can be read off a file."""

import ast
import io
import re
import tokenize
from pathlib import Path

import nbformat
import pytest

from brainmets.engine.notebook import declared, job_of
from brainmets.engine.steps import read_study
from brainmets.params import MODELS, PER_JOB, PaperReanalysis, Parameters
from brainmets.paths import AFTER, NOTEBOOKS

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = REPOSITORY / "notebooks"
LONGEST_CELL = 20
ABSOLUTE = re.compile(r"(?<![\w.:/<}])/(?:home|Users|root|mnt|media|tmp|work|data|opt|scratch|srv|var|usr)/")

PAPER = "paper_reanalysis"
"""The one notebook that has nothing to do with a study."""

of_a_study = pytest.mark.parametrize("name", [*NOTEBOOKS, *AFTER])
every_notebook = pytest.mark.parametrize("name", [*NOTEBOOKS, *AFTER, PAPER])


def read(name: str) -> nbformat.NotebookNode:
    path = FOLDER / f"{name}.ipynb"
    assert path.is_file(), f"notebooks/{name}.ipynb is missing"
    return nbformat.read(path, as_version=4)


def code(name: str) -> list[tuple[int, str]]:
    """Number in the notebook, from 1, and source of every code cell."""
    return [(i, cell.source) for i, cell in enumerate(read(name).cells, 1) if cell.cell_type == "code"]


def nodes(source: str) -> list[ast.AST]:
    """Every node of a cell's syntax tree; IPython's own lines (%matplotlib inline) are not Python."""
    return list(ast.walk(ast.parse(re.sub(r"^%.*$", "", source, flags=re.MULTILINE))))


def first_cell(name: str) -> str:
    cell = read(name).cells[0]
    assert cell.cell_type == "markdown", "the first cell must be the title and the table"
    return cell.source


def parameters_cell(name: str) -> str:
    found = [cell.source for cell in read(name).cells if "parameters" in cell.metadata.get("tags", [])]
    assert len(found) == 1, f"{len(found)} cells are tagged 'parameters'; there must be one"
    return found[0]


def test_the_folder_holds_the_steps_the_papers_notebook_and_no_other() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == sorted([*NOTEBOOKS, *AFTER, PAPER])


@every_notebook
def test_is_a_valid_notebook_without_outputs(name: str) -> None:
    notebook = read(name)
    nbformat.validate(notebook)
    cells = [(i, cell) for i, cell in enumerate(notebook.cells, 1) if cell.cell_type == "code"]
    assert [i for i, cell in cells if cell.outputs] == [], "these cells have outputs: clear them before committing"
    assert [i for i, cell in cells if cell.execution_count is not None] == [], "these cells have execution counts"
    assert "papermill" not in notebook.metadata, "this is an executed copy"
    assert "widgets" not in notebook.metadata, "widget states are outputs"
    assert notebook.metadata.kernelspec.name == "python3"


@every_notebook
def test_title_is_a_question(name: str) -> None:
    title = first_cell(name).splitlines()[0]
    assert title.startswith("# "), f"the first line must be a heading of the first level: {title!r}"
    assert title.endswith("?"), f"the title must be a question: {title!r}"


@every_notebook
def test_first_cell_says_what_it_reads_writes_and_how_long_it_takes(name: str) -> None:
    rows = [line.lower() for line in first_cell(name).splitlines() if line.startswith("|")]
    assert rows, "the first cell needs a table"
    missing = [word for word in ("reads", "writes", "time|takes") if not any(re.search(word, row) for row in rows)]
    assert missing == [], f"the first cell's table does not say: {missing}"


@every_notebook
def test_headings(name: str) -> None:
    text = "\n".join(cell.source for cell in read(name).cells if cell.cell_type == "markdown")
    titles = re.findall(r"^# .+", text, re.MULTILINE)
    headings = re.findall(r"^## .+", text, re.MULTILINE)
    assert len(titles) == 1, f"one title, not {titles}"
    assert len(headings) >= 2, f"at least two headings of the second level, not {headings}"
    assert len(set(headings)) == len(headings), f"each heading once: {headings}"


@every_notebook
def test_parameters_are_literals_each_with_a_comment(name: str) -> None:
    source = parameters_cell(name)
    declared(FOLDER / f"{name}.ipynb")  # raises where a value is not a literal
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    commented = {
        token.start[0] for token in tokens if token.type == tokenize.COMMENT and token.line.split("#")[0].strip()
    }
    bare = [
        ast.unparse(statement)
        for statement in ast.parse(source).body
        if statement.end_lineno not in commented and statement.lineno not in commented
    ]
    assert bare == [], "each parameter needs a trailing comment with its meaning and unit"


@every_notebook
def test_parameters_are_those_of_the_model(name: str) -> None:
    models: dict[str, type[Parameters]] = {**MODELS, PAPER: PaperReanalysis}
    given, fields = set(declared(FOLDER / f"{name}.ipynb")), set(models[name].model_fields)
    assert given - fields == set(), f"unknown to brainmets.params.{models[name].__name__}"
    assert fields - given == set(), f"brainmets.params.{models[name].__name__} needs these too"


@of_a_study
def test_parameters_become_one_checked_object_in_one_call(name: str) -> None:
    model = MODELS[name].__name__
    calls = [
        ast.unparse(node)
        for _, source in code(name)
        for node in nodes(source)
        if isinstance(node, ast.Call) and ast.unparse(node.func).partition(".")[0] == model
    ]
    assert calls == [f"{model}.from_cell(globals())"]


@of_a_study
def test_parameters_default_to_the_demo(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    study = read_study(REPOSITORY / "params" / "demo.yaml")
    given = declared(FOLDER / f"{name}.ipynb")
    job = {key: given[key] for key in PER_JOB if key in given}
    job_of(study, name, job)  # the notebook's own arm, strategy, fold and branch must be ones of the demo
    expected = study.values(name, **job)
    unequal = {key: (given[key], value) for key, value in expected.items() if key in given and given[key] != value}
    assert unequal == {}, "name: (notebook, params/demo.yaml)"


@every_notebook
def test_defines_no_machinery(name: str) -> None:
    machinery = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
    found = [
        f"cell {i}: {ast.unparse(node).splitlines()[0]}"
        for i, source in code(name)
        for node in nodes(source)
        if isinstance(node, machinery)
    ]
    assert found == [], "functions and classes belong into the package"


@every_notebook
def test_names_no_absolute_path(name: str) -> None:
    found = [
        f"cell {i}: {line}"
        for i, cell in enumerate(read(name).cells, 1)
        for line in cell.source.splitlines()
        if ABSOLUTE.search(line)
    ]
    assert found == []


@every_notebook
def test_cells_are_short(name: str) -> None:
    cells = [(i, source) for i, source in code(name) if source != parameters_cell(name)]  # as long as its list is
    long = {i: len(source.splitlines()) for i, source in cells if len(source.splitlines()) > LONGEST_CELL}
    assert long == {}, f"cell: lines; {LONGEST_CELL} at most"


@every_notebook
def test_checks_what_it_reads(name: str) -> None:
    assert any(isinstance(node, ast.Assert) for _, source in code(name) for node in nodes(source)), (
        "an assertion belongs after every load"
    )


@every_notebook
def test_last_code_cell_writes_the_provenance(name: str) -> None:
    number, source = code(name)[-1]
    assert "provenance.write(" in source, f"cell {number} is the last; it must end with provenance.write(...)"


@pytest.mark.parametrize(
    ("text", "absolute"),
    [
        ("open('/home/ann/scan.nii.gz')", True),
        ("/data/BraTS", True),
        ("work/demo/data/x", False),
        ("https://example.org/data/x", False),
        ("see ../data/x", False),
        ("mm/s", False),
    ],
)
def test_the_search_for_absolute_paths_finds_them(text: str, absolute: bool) -> None:
    assert bool(ABSOLUTE.search(text)) is absolute
