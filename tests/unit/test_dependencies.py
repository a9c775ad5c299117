"""The bill of materials: environment, lock, pyproject.toml and docs/dependencies.md agree."""

import importlib.util
import re
from email.message import Message
from importlib.metadata import packages_distributions
from pathlib import Path
from types import ModuleType

import pytest
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = (REPOSITORY / "docs" / "dependencies.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def bill() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bill", REPOSITORY / "docs" / "renew_dependencies.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Package:
    """A package of no more than its metadata and one licence file."""

    def __init__(self, text: str = "", **metadata: str | list[str]) -> None:
        self.metadata = Message()
        for name, values in metadata.items():
            for value in [values] if isinstance(values, str) else values:
                self.metadata[name.replace("_", "-")] = value
        self.text = text

    @property
    def files(self) -> list["Package"]:
        return [self]

    name, suffix = "LICENSE", ""

    def read_text(self) -> str:
        return self.text


def test_the_lock_holds_what_is_needed_and_nothing_else(bill: ModuleType) -> None:
    assert bill.disagreements(bill.installed()) == []


def test_every_direct_dependency_is_imported(bill: ModuleType) -> None:
    modules: dict[str, set[str]] = {}
    for module, owners in packages_distributions().items():
        for owner in owners:
            modules.setdefault(canonicalize_name(owner), set()).add(module)
    text = "\n".join(path.read_text() for path in (REPOSITORY / "src").rglob("*.py"))
    programs = {"jupyterlab", "snakemake-executor-plugin-slurm"}  # of the Makefile and of workflow/profiles/slurm
    of_tests = {name for name, purpose in bill.PURPOSES.items() if purpose.startswith("tests")}
    for name in set(bill.direct()) - programs - of_tests:
        called = "|".join(map(re.escape, modules[name]))
        assert re.search(rf"^\s*(import|from) ({called})\b|\"({called})\"", text, re.MULTILINE), (
            f"nothing imports {name}"
        )


def test_the_page_has_every_line_of_the_lock(bill: ModuleType) -> None:
    rows = re.findall(r"^\| ([a-z0-9-]+) \| (\d\S*) \|", PAGE, re.MULTILINE)
    assert sorted(rows) == sorted(bill.pins().items()), "run make bill"
    assert set(bill.direct()) <= {
        name for name, _ in re.findall(r"^\| ([a-z0-9-]+) \| (\d\S*) \| .+ \| .+ \|$", PAGE, re.M)
    }


def test_what_does_not_agree_is_named(bill: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    locked = bill.pins()
    changed = {**locked, "numpy": "1.0", "pingouin": "0.7.0"}
    del changed["fastremap"]
    monkeypatch.setattr(bill, "pins", lambda: changed)
    assert bill.disagreements(bill.installed()) == [
        "fastremap is needed and has no line in requirements.lock",
        "pingouin is in requirements.lock and nothing needs it",
        f"numpy {locked['numpy']} is installed, requirements.lock has 1.0",
    ]


@pytest.mark.parametrize(
    ("package", "expected"),
    [
        (Package(License_Expression="MIT AND PSF-2.0", License="GPL"), "MIT AND PSF-2.0"),
        (Package(License="Apache License, Version 2.0"), "Apache-2.0"),
        (Package(License="Apache License\n        Version 2.0, January 2004\n  http://..."), "Apache-2.0"),
        (Package(License="LGPL-3.0-or-later"), "LGPL-3.0-or-later"),
        (Package(Classifier="License :: OSI Approved :: ISC License (ISCL)", License="UNKNOWN"), "ISC"),
        (
            Package(Classifier=["License :: OSI Approved :: BSD License", "License :: Public Domain"]),
            "BSD OR public domain",
        ),
        (Package("Redistributions in binary form ... Neither the name of", License="BSD"), "BSD-3-Clause"),
        (Package("Redistributions in binary form", License="BSD"), "BSD-2-Clause"),
        (Package(License="BSD"), "BSD"),
        (Package("MIT License\n\nCopyright"), "MIT"),
        (Package(License="The following files are from different authors"), "see its files"),
        (Package(), "see its files"),
    ],
)
def test_licences(bill: ModuleType, package: Package, expected: str) -> None:
    assert bill.licence(package) == expected


def test_every_licence_that_is_not_permissive_is_judged(bill: ModuleType) -> None:
    judged = PAGE.partition("## Licences")[2].partition("## Known holes")[0]
    tables = PAGE.partition("## Direct dependencies")[2]
    copyleft = re.findall(
        r"^\| ([a-z0-9-]+) \| \d\S* \| (?:[^|]*(?:GPL|MPL|CC-BY|see its files)|BSD \|)", tables, re.MULTILINE
    )
    assert copyleft
    assert [name for name in copyleft if name not in judged] == []
