"""How the house is built: which room may import which, what importing costs, and that tests do not lean on tests."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGE = REPOSITORY / "src" / "brainmets"
FLOORS = (
    ("cli",),
    ("screening",),
    ("report",),
    ("review",),
    ("engine", "training"),
    ("preparation",),
    ("statistics", "cohorts"),
    ("scoring", "phantoms"),
    ("params", "provenance"),
    ("nifti", "figures", "schemas"),
    ("paths", "tables"),
    ("vocabulary", "files", "parallel", "places", "processes"),
)
"""From the roof down. A room (a folder or a module of the package) imports from lower floors only."""
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
WITHOUT_TORCH = ("cli", "cohorts", "engine", "params", "phantoms", "preparation", "report", "scoring", "statistics")


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and full dotted name of everything that a file imports, at its head or inside a function."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.relative_to(REPOSITORY)}:{node.lineno}: write the import in full"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)


def modules(room: str) -> list[Path]:
    folder = PACKAGE / room
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [PACKAGE / f"{room}.py"]


def test_every_room_has_its_floor() -> None:
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")} | {path.stem for path in PACKAGE.glob("*.py")}
    assert rooms - {"__init__"} == set(FLOOR)


@pytest.mark.parametrize("room", FLOOR)
def test_imports_go_one_way(room: str) -> None:
    """Which rules out circles among the folders as well."""
    upwards = [
        f"{path.relative_to(REPOSITORY)}:{line} imports {name}"
        for path in modules(room)
        for line, name in imports(path)
        for package, other in [(name + ".").split(".")[:2]]
        if package == "brainmets" and other in FLOOR and other != room and FLOOR[other] <= FLOOR[room]
    ]
    assert upwards == [], f"{room} may import from {FLOORS[FLOOR[room] + 1 :]}"


def test_importing_loads_no_torch_and_prints_nothing() -> None:
    """The package alone first, then every module that scores, audits, compares, reports or runs a study."""
    paths = [path for room in WITHOUT_TORCH for path in modules(room)]
    names = ["brainmets", *(".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in paths)]
    code = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(name)\n"
        "    loaded = {'torch', 'monai', 'nnunetv2'} & set(sys.modules)\n"
        "    assert not loaded, f'{name} loads {loaded}'\n"
    )
    ended = subprocess.run([sys.executable, "-c", code, *names], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def test_no_test_file_imports_another() -> None:
    tests = {path.stem for path in (REPOSITORY / "tests").rglob("*.py") if path.parent.name != "helpers"}
    found = [
        f"{path.relative_to(REPOSITORY)}:{line} imports {name}"
        for path in (REPOSITORY / "tests").rglob("*.py")
        for line, name in imports(path)
        if name.split(".")[0] in tests | {"tests"}
    ]
    assert found == [], "what two tests need belongs into tests/helpers or a conftest.py"


def test_the_hooks_use_the_locked_ruff() -> None:
    hooks = yaml.safe_load((REPOSITORY / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    used = {pin for hook in hooks for pin in hook.get("additional_dependencies", []) if pin.startswith("ruff")}
    assert used == set(re.findall(r"^ruff==.*$", (REPOSITORY / "requirements.lock").read_text(), re.MULTILINE))
