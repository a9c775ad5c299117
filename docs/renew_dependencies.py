"""Renew the tables of docs/dependencies.md: each pinned package, version, licence, and what for.

    make bill

The tables come from requirements.lock, pyproject.toml and the metadata of the installed packages; the prose around
them is written by hand. Stops where the environment, the lock and pyproject.toml do not agree.
"""

from __future__ import annotations

import re
import sys
import tomllib
from importlib.metadata import Distribution, distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "dependencies.md"
PURPOSES = {
    "beautifulsoup4": "reads the executed notebooks' HTML for the report",
    "connected-components-3d": "lesions as connected components",
    "dcm2niix": "DICOM to NIfTI, for series that SimpleITK cannot stack",
    "deepbet": "finds the brain in raw scans; its weights are in the package",
    "highdicom": "screening's label maps as DICOM segmentations",
    "ipyniivue": "3D viewer of notebook 08; its NiiVue is in the report's 3D pages",
    "ipywidgets": "controls of notebook 08",
    "itables": "tables that can be searched and sorted",
    "itkwidgets": "volume rendering in notebook 08",
    "jinja2": "templates of the report's pages and sentences",
    "jupyterlab": "where the notebooks are opened",
    "matplotlib": "figures",
    "monai": "the SegResNet arm; explanations",
    "nbconvert": "executed notebooks to HTML",
    "nibabel": "reads and writes NIfTI",
    "nilearn": "the MNI152 template",
    "nnunetv2": "plans, preprocessing, training, prediction",
    "numpy": "arrays",
    "pandas": "tables",
    "papermill": "runs a notebook with parameters",
    "pydantic": "checks parameters",
    "pydicom": "reads DICOM headers",
    "pyyaml": "reads params/*.yaml",
    "safetensors": "a model's weights in its bundle, in a format that runs no code",
    "scikit-learn": "splits in strata",
    "scipy": "distances, tests, resampling",
    "seaborn": "figures of the statistics",
    "simpleitk": "registration, resampling, DICOM series",
    "slicerio": "segmentations for 3D Slicer",
    "pynrrd": "headers of NRRD files",
    "snakemake": "order, repetition and resources of a study's steps",
    "snakemake-executor-plugin-slurm": "the same on a SLURM cluster",
    "snakemake-interface-logger-plugins": "hands Snakemake's events to the progress display",
    "surface-distance": "surface distances",
    "torch": "networks",
    "hypothesis": "tests: properties",
    "mypy": "tests: types",
    "pandas-stubs": "tests: types of pandas",
    "playwright": "tests: drives a browser",
    "pytest": "tests",
    "pytest-cov": "tests: lines and branches that run",
    "pytest-xdist": "tests: several at a time",
    "ruff": "tests: style",
    "scipy-stubs": "tests: types of SciPy",
    "types-pyyaml": "tests: types of PyYAML",
}
"""What each direct dependency is for, by normalised name."""
SPDX = {
    r"apache( software)?( license)?,?( version)? ?2\.0(,.*)?|apache|apache software license": "Apache-2.0",
    r"mit( license .*)?|mit license|the mit license \(mit\).*": "MIT",
    r"bsd 3-clause license.*": "BSD-3-Clause",
    r"2-clause bsd|bsd 2-clause license.*": "BSD-2-Clause",
    r"bsd( license)?": "BSD",  # which of them, its text tells
    r"isc license( \(iscl\))?": "ISC",
    r"mozilla public license 2\.0( \(mpl 2\.0\))?": "MPL-2.0",
    r"python software foundation license|psfl": "PSF-2.0",
    r"lgpl-3\.0": "LGPL-3.0",
    r"gnu general public license \(gpl\)": "GPL",
    r"public domain": "public domain",
    r"creative commons zero v1\.0 universal": "CC0-1.0",
}
"""Wordings of metadata without an SPDX expression (PEP 639), lower case, and what they mean."""
CUDA = re.compile(r"(nvidia|cuda)-.*|triton")
"""What PyTorch's wheel for a GPU brings along, at versions that it pins itself."""
IDENTIFIER = re.compile(r"[A-Za-z0-9.-]+( (AND|OR) [A-Za-z0-9.-]+)*")


def installed() -> dict[str, Distribution]:
    """The environment's packages by normalised name."""
    return {canonicalize_name(found.metadata["Name"]): found for found in distributions()}


def pins() -> dict[str, str]:
    """Version of every line of requirements.lock, by normalised name."""
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").split()
    return {canonicalize_name(name): number for name, _, number in (line.partition("==") for line in lines)}


def direct() -> dict[str, Requirement]:
    """What pyproject.toml names, tests included, by normalised name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = map(Requirement, [*project["dependencies"], *project["optional-dependencies"]["test"]])
    return {canonicalize_name(requirement.name): requirement for requirement in found}


def needed(packages: dict[str, Distribution]) -> set[str]:
    """The direct dependencies and everything that they need on this machine, but CUDA.

    Raises ``KeyError`` where one is not installed.
    """
    ahead, seen = list(direct().values()), set()
    while ahead:
        requirement = ahead.pop()
        name = canonicalize_name(requirement.name)
        if (name, *requirement.extras) in seen:
            continue
        seen.add((name, *requirement.extras))
        for further in map(Requirement, packages[name].requires or []):
            if CUDA.fullmatch(canonicalize_name(further.name)):
                continue
            if further.marker is None or any(
                further.marker.evaluate({"extra": extra}) for extra in ("", *requirement.extras)
            ):
                ahead.append(further)
    return {name for name, *_ in seen}


def disagreements(packages: dict[str, Distribution]) -> list[str]:
    """What is wrong between environment, lock and pyproject.toml, in sentences; a version's +cpu is no matter."""
    locked, wanted = pins(), needed(packages)
    problems = [f"{name} is needed and has no line in requirements.lock" for name in sorted(wanted - set(locked))]
    problems += [f"{name} is in requirements.lock and nothing needs it" for name in sorted(set(locked) - wanted)]
    for name in sorted(wanted & set(locked)):
        there = packages[name].version.partition("+")[0]
        if there != locked[name]:
            problems.append(f"{name} {there} is installed, requirements.lock has {locked[name]}")
    problems += [f"PURPOSES lacks {name}" for name in sorted(set(direct()) - set(PURPOSES))]
    return problems + [
        f"{name} of PURPOSES is not in pyproject.toml" for name in sorted(set(PURPOSES) - set(direct()))
    ]


def licence(package: Distribution) -> str:
    """The package's licence: its SPDX expression, else its own words as SPDX names them, else its licence file's."""
    stated = package.metadata
    if expression := stated.get("License-Expression"):
        return str(expression)
    text = " ".join((stated.get("License") or "").split())
    classes = [line.split(" :: ")[-1] for line in stated.get_all("Classifier") or [] if line.startswith("License ::")]
    classes = [_spdx(name) or name for name in classes if name != "OSI Approved"]
    name = _spdx(text) or " OR ".join(dict.fromkeys(classes)) or _spdx(_file(package)) or "see its files"
    if name == "BSD":
        whole = text + _file(package)
        name = "BSD-3-Clause" if "either the name" in whole else "BSD-2-Clause" if "inary form" in whole else name
    return name


def _spdx(words: str) -> str | None:
    for wording, name in SPDX.items():
        if re.fullmatch(wording, words.lower()):
            return name
    return words if IDENTIFIER.fullmatch(words) and words != "UNKNOWN" else None


def _file(package: Distribution) -> str:
    """The text of the package's licence files, in one line; empty where it has none."""
    files = [file for file in package.files or [] if re.match(r"(licen[cs]e|copying)", file.name, re.IGNORECASE)]
    texts = [file.read_text() for file in files if file.suffix in ("", ".txt", ".md", ".rst")]
    return " ".join(" ".join(texts).split())


def tables(packages: dict[str, Distribution]) -> dict[str, str]:
    """The page's two tables, by the name of their markers."""
    named, locked = direct(), pins()
    first = ["| package | version | licence | what for |", "|---|---|---|---|"]
    first += [
        f"| {name} | {locked[name]} | {licence(packages[name])} | {PURPOSES[name]} |"
        for name in locked
        if name in named
    ]
    second = ["| package | version | licence |", "|---|---|---|"]
    second += [f"| {name} | {locked[name]} | {licence(packages[name])} |" for name in locked if name not in named]
    return {"direct": "\n".join(first), "further": "\n".join(second)}


def renewed(text: str, packages: dict[str, Distribution]) -> str:
    """The page with its tables made anew; ``ValueError`` where a marker is missing."""
    for name, table in tables(packages).items():
        place = re.compile(rf"(?<=<!-- dependencies: {name} -->\n).*?(?=<!-- dependencies: end -->)", re.DOTALL)
        text, found = place.subn(lambda _, table=table: table + "\n", text, count=1)
        if found != 1:
            raise ValueError(f"{PAGE.name} must hold <!-- dependencies: {name} --> once, and an end after it")
    return text


def main() -> None:
    """Write the tables into docs/dependencies.md."""
    packages = installed()
    if problems := disagreements(packages):
        sys.exit("docs/dependencies.md is not renewed:\n  " + "\n  ".join(problems))
    PAGE.write_text(renewed(PAGE.read_text(encoding="utf-8"), packages), encoding="utf-8")
    print(f"{PAGE.relative_to(ROOT)}: {len(direct())} direct dependencies, {len(pins())} pinned packages")


if __name__ == "__main__":
    main()
