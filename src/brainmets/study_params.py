"""All parameters of a study, read from its YAML and checked before anything starts.

A ``params/<profile>.yaml`` holds the parameters that several notebooks share (``study``, ``work_dir``, ``seed``,
``arms``, ``folds``, ``source``, ``target``) and one section per notebook with exactly that notebook's own.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import yaml

from brainmets.params import MODELS, PER_JOB, SHARED, Arms, NotebookParameters, ParameterError, closest
from brainmets.paths import NOTEBOOKS


class Study:
    """All parameters of a study, read from its YAML.

    ``study.notebook("03_pretraining", arm="default", fold=0)`` gives the model of one job. Reading checks every
    notebook's section with every arm, fold and strategy, so that nothing starts that a later step would refuse.
    """

    def __init__(self, content: dict[str, Any], origin: str) -> None:
        self.content = content
        self.origin = origin
        known = (*SHARED, *(section(name) for name in NOTEBOOKS))
        _refuse_names(set(content), set(known), origin)
        for name in NOTEBOOKS:
            self._check_section(name)
        self.arms = Arms(**content["arms"]).names
        self.folds = list(content["folds"])
        self._check_values()

    @classmethod
    def read(cls, path: Path) -> Study:
        """Read a YAML file. Raises ``ParameterError`` naming the file and every parameter that is not right."""
        if not path.is_file():
            raise ParameterError(f"{path}: there is no such parameters file")
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except yaml.YAMLError as error:
            raise ParameterError(f"{path} is not YAML: {error}") from error
        if not isinstance(content, dict):
            raise ParameterError(f"{path} must hold names and values, not a {type(content).__name__}")
        return cls(content, str(path))

    def values(self, notebook: str, **job: Any) -> dict[str, Any]:
        """The plain values that ``notebook``'s parameters cell is given, ``job`` (arm, fold, strategy) included."""
        fields = MODELS[notebook].model_fields
        shared = {name: self.content[name] for name in SHARED if name in fields}
        return {**shared, **self.content[section(notebook)], **job}

    def notebook(self, notebook: str, **job: Any) -> NotebookParameters:
        """The validated parameters of one job of ``notebook``."""
        try:
            return MODELS[notebook](**self.values(notebook, **job))
        except ParameterError as error:
            raise ParameterError(f"{self.origin}, section {section(notebook)}: {error}") from None

    def jobs(self, notebook: str) -> list[dict[str, Any]]:
        """Every job of ``notebook``: one dictionary of arm, fold and strategy each, empty where it runs once."""
        fields = MODELS[notebook].model_fields
        jobs: list[dict[str, Any]] = [{}]
        for name, choices in (
            ("arm", self.arms),
            ("strategy", ["finetune", "scratch"]),
            ("fold", self.folds),
        ):
            if name in fields:
                jobs = [{**job, name: choice} for job in jobs for choice in choices]
        return jobs

    def _check_section(self, notebook: str) -> None:
        fields = MODELS[notebook].model_fields
        own = {name for name in fields if name not in (*SHARED, *PER_JOB)}
        given = self.content[section(notebook)]
        where = f"{self.origin}, section {section(notebook)}"
        if not isinstance(given, dict):
            raise ParameterError(f"{where} must hold names and values, not {given!r}")
        _refuse_names(set(given), own, where)

    def _check_values(self) -> None:
        if not self.folds or len(set(self.folds)) != len(self.folds):
            raise ParameterError(f"{self.origin}: folds: {self.folds!r} must list at least one fold, each once")
        if not self.arms:
            raise ParameterError(f"{self.origin}: arms: name at least one of default, tversky_bce, segresnet")
        for notebook in NOTEBOOKS:
            for job in self.jobs(notebook):
                self.notebook(notebook, **job)
        n_folds = self.content["audit"]["n_folds"]
        if beyond := [fold for fold in self.folds if fold >= n_folds]:
            raise ParameterError(f"{self.origin}: folds: {beyond} must be below audit.n_folds, which is {n_folds}")
        fine_tuning, scratch = self.content["fine_tuning"], self.content["from_scratch"]
        unequal = [name for name in scratch if scratch[name] != fine_tuning[name]]
        if unequal:
            raise ParameterError(
                f"{self.origin}: fine_tuning and from_scratch must differ in the initialisation alone, yet "
                + ", ".join(f"{name} is {fine_tuning[name]!r} and {scratch[name]!r}" for name in unequal)
            )


def section(notebook: str) -> str:
    """The YAML section of a notebook: its name without the number and, for 01 and 02, without what it is about."""
    return {"01_data_audit": "audit", "02_plan_alignment": "alignment"}.get(notebook, notebook[3:])


def _refuse_names(given: set[str], known: set[str], where: str) -> None:
    problems = [
        f"{name}: unknown parameter{closest(str(name), sorted(known))}" for name in sorted(map(str, given - known))
    ]
    problems += [f"{name}: missing{_nearest_given(name, given - known)}" for name in sorted(known - given)]
    if problems:
        raise ParameterError(f"{where}: " + "; ".join(problems))


def _nearest_given(name: str, stray: set[str]) -> str:
    found = difflib.get_close_matches(name, sorted(map(str, stray)), n=1)
    return f" (is {found[0]!r} meant for it?)" if found else ""
