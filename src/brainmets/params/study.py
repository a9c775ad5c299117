"""All parameters of a study, read from its YAML and checked before anything starts.

A ``params/<profile>.yaml`` holds the parameters that several notebooks share (``study``, ``work_dir``, ``seed``,
``arms``, ``folds``, ``source``, ``target``) and one section per notebook with exactly that notebook's own.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from brainmets.files import read_json, shaped
from brainmets.params import (
    MAIN,
    MODELS,
    ORIGIN,
    PER_JOB,
    SHARED,
    Arms,
    Branches,
    Cohort,
    NotebookParameters,
    ParameterError,
    closest,
)
from brainmets.params.models import given, meant_for
from brainmets.params.yaml_files import read_yaml
from brainmets.paths import AFTER, COHORTS, NOTEBOOKS, StudyPaths, project_root
from brainmets.vocabulary import COMPARED_STRATEGIES, CONTROL, STAGE_NOTEBOOKS, STRATEGY_STAGES, Strategy

EXAMPLE = "params/demo.yaml"


class Study:
    """All parameters of a study, read from its YAML.

    ``study.notebook("03_pretraining", arm="default", fold=0)`` gives the model of one job. Reading checks every
    notebook's section with every arm, fold and strategy, so that nothing starts that a later step would refuse.
    """

    def __init__(self, content: dict[str, Any], origin: str) -> None:
        self.content = content
        self.origin = origin
        self.raw: dict[str, list[str]] = {}  # per cohort the raw cases that a look at its folder found
        self._check_names()
        self.arms = self._read_arms()
        self.folds = self._read_folds()
        beside = self._read_branches()
        self.repeats, self.learning_curve = beside.repeats, beside.learning_curve
        self.strategies = beside.strategies  # evaluated with all training cases, in their fixed order
        self._check_values()

    @classmethod
    def read(cls, path: Path) -> Study:
        """Read a YAML file. Raises ``ParameterError`` naming the file and every parameter that is not right."""
        if not path.is_file():
            raise ParameterError(f"{path}: {_absent(path)}")
        content = read_yaml(path)
        if not isinstance(content, dict):
            raise ParameterError(f"{path} must hold names and values, not a {type(content).__name__}")
        return cls(content, str(path))

    def values(self, notebook: str, **job: Any) -> dict[str, Any]:
        """The plain values that ``notebook``'s parameters cell is given, ``job`` (arm, fold, strategy, ...) included.

        What a job does not say of its branch is the main one's. The scratch control is given the epochs of the
        pretraining and the fine-tuning together.
        """
        fields = MODELS[notebook].model_fields
        shared = {name: self.content[name] for name in SHARED if name in fields}
        own = {**self.content[section(notebook)], **MAIN.get(notebook, {})}
        if ORIGIN in fields:
            own[ORIGIN] = self.origin
        if notebook == STAGE_NOTEBOOKS[CONTROL] and job.get("strategy") == CONTROL:
            own["epochs"] = self.content["pretraining"]["epochs"] + self.content["fine_tuning"]["epochs"]
        return {**shared, **own, **job}

    def notebook(self, notebook: str, **job: Any) -> NotebookParameters:
        """The validated parameters of one job of ``notebook``."""
        try:
            return MODELS[notebook](**self.values(notebook, **job))
        except ParameterError as error:
            top = [line for line in error.problems if re.split(r"\W", line, maxsplit=1)[0] in SHARED]
            own = [line for line in error.problems if line not in top]
            places = ((self.origin, top), (f"{self.origin}, section {section(notebook)}", own))
            raise ParameterError(
                "; ".join(f"{where}: {'; '.join(lines)}" for where, lines in places if lines)
            ) from None

    def jobs(self, notebook: str) -> list[dict[str, Any]]:
        """Every job of ``notebook``: one dictionary of arm, fold and strategy each, empty where it runs once.

        Jobs of another branch than the main one, which come last, have ``repeat`` or ``training_cases`` too, and those
        of notebook 05 for the scratch control ``strategy``. Pretraining knows no number of the target's cases; with
        fewer of them the two compared strategies are trained and evaluated alone. Notebook 00 has one job for every
        raw case that is known so far, of ``cohort`` and ``case``.
        """
        fields = MODELS[notebook].model_fields
        if "case" in fields:
            return [{"cohort": cohort, "case": case} for cohort in COHORTS for case in self.raw_cases(cohort)]
        found = []
        for repeat, training_cases in self.branches():
            branch = without_main(notebook, {"repeat": repeat, "training_cases": training_cases})
            if not set(branch) <= set(fields):
                continue
            jobs: list[dict[str, Any]] = [{}]
            strategies = self._strategies_of(notebook, training_cases)
            for name, choices in (("arm", self.arms), ("strategy", strategies), ("fold", self.folds)):
                if name in fields:
                    jobs = [{**job, name: choice} for job in jobs for choice in choices]
            found += [without_main(notebook, {**job, **branch}) for job in jobs]
        return found

    def branches(self) -> list[tuple[int, int | None]]:
        """(repeat, training cases) of every branch: the main one, (1, None), first; None stands for all cases."""
        others: list[tuple[int, int | None]] = [(repeat, None) for repeat in range(2, self.repeats + 1)]
        return [(1, None), *others, *((1, cases) for cases in self.learning_curve)]

    def _strategies_of(self, notebook: str, training_cases: int | None) -> list[Strategy]:
        """The strategies that a branch trains in ``notebook``, or evaluates in notebook 06."""
        chosen = [name for name in self.strategies if training_cases is None or name in COMPARED_STRATEGIES]
        return [name for name in chosen if notebook in ("06_evaluation", STAGE_NOTEBOOKS[STRATEGY_STAGES[name]])]

    def sequences_of(self, cohort: str) -> list[str]:
        """The channels of the networks that are trained on a cohort."""
        return list(self.content[cohort].get("sequences") or self.content["sequences"])

    def raw_cases(self, cohort: str) -> list[str]:
        """The cases that notebook 00 prepares: those in ``raw``, or as the raw folder was last sorted; else none.

        Phantoms are known before: a cohort of them is numbered through.
        """
        if cohort in self.raw:
            return self.raw[cohort]
        declared = self.content[cohort].get("raw")
        if not declared:
            return []
        plan = StudyPaths(self.content["work_dir"], self.content["study"]).preparation(cohort).plan
        if plan.is_file():
            return _cases_of(plan)
        raw = Cohort(**self.content[cohort]).raw
        assert raw is not None
        return raw_phantom_cases(raw.prefix, raw.phantoms.patients) if raw.phantoms else []

    def _check_names(self) -> None:
        """Refuse every unknown and missing name at once: a file of an earlier version lacks some in many places."""
        problems = _wrong_names(set(self.content), {*SHARED, *map(section, MODELS)}, self.origin)
        for name in MODELS:
            if section(name) not in self.content:
                continue
            where, values = f"{self.origin}, section {section(name)}", self.content[section(name)]
            if not isinstance(values, dict):
                problems.append(f"{where} must hold names and values{given(values)}")
                continue
            problems += _wrong_names(set(values), set(MODELS[name].model_fields) - {*SHARED, *PER_JOB, ORIGIN}, where)
        if problems:
            raise ParameterError("; ".join(problems))

    def _read_arms(self) -> list[Any]:
        settings = self.content["arms"]
        where = f"{self.origin}: arms"
        if not isinstance(settings, dict) or not settings:
            raise ParameterError(f"{where}: name at least one of {', '.join(Arms.model_fields)}, with its settings")
        try:
            names = Arms(**{str(name): of_arm for name, of_arm in settings.items()}).names
        except ParameterError as error:
            raise ParameterError("; ".join(f"{where}.{line}" for line in error.problems)) from None
        if bare := [name for name in settings if name not in names]:
            raise ParameterError(f"{where}.{bare[0]}: holds no settings; give them, or leave the arm out")
        return names

    def _read_folds(self) -> list[int]:
        folds = self.content["folds"]
        whole = isinstance(folds, list) and all(type(fold) is int and fold >= 0 for fold in folds)
        if not whole or not folds or len(set(folds)) != len(folds):
            what = "must list at least one fold, each once, such as [0, 1, 2]"
            raise ParameterError(f"{self.origin}: folds: {what}{given(folds)}")
        return list(folds)

    def _read_branches(self) -> Branches:
        try:
            return Branches(**{name: self.content[name] for name in Branches.model_fields})
        except ParameterError as error:
            raise ParameterError("; ".join(f"{self.origin}: {line}" for line in error.problems)) from None

    def _check_values(self) -> None:
        for notebook in (*NOTEBOOKS[1:], *AFTER):
            for job in self.jobs(notebook):
                self.notebook(notebook, **job)
        self.notebook(NOTEBOOKS[0], cohort="target", case="")
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
        asked = self.content["statistics"]["small_lesions"]
        if asked and (asked["baseline"] not in self.arms or len(self.arms) < 2):
            raise ParameterError(
                f"{self.origin}, section statistics: small_lesions.baseline: {asked['baseline']} must be one of the "
                f"study's arms ({', '.join(self.arms)}), and another must stand beside it to be compared"
            )
        held_out = self.content["source"]["held_out"]
        if held_out and "pretrained" not in self.strategies:
            raise ParameterError(
                f"{self.origin}: source.held_out: {held_out!r}: what fine-tuning forgot is read beside the pretrained "
                "models: add pretrained to strategies, or hold out 0"
            )
        steps = [self.content[name]["iterations_per_epoch"] for name in ("pretraining", "fine_tuning")]
        if CONTROL in self.strategies and steps[0] != steps[1]:
            raise ParameterError(
                f"{self.origin}: strategies: {CONTROL}: as many epochs are as many steps only where both trainings "
                f"have the same iterations_per_epoch, yet pretraining has {steps[0]} and fine_tuning {steps[1]}: "
                f"make them equal, or leave {CONTROL} out"
            )


def without_main(notebook: str, job: dict[str, Any]) -> dict[str, Any]:
    """A job without what it has in common with the main branch's."""
    main = {"repeat": 1, "training_cases": None, **MAIN.get(notebook, {})}
    return {name: value for name, value in job.items() if name not in main or value != main[name]}


def section(notebook: str) -> str:
    """The YAML section of a notebook: its name without the number and, for 01 and 02, without what it is about."""
    return {"01_data_audit": "audit", "02_plan_alignment": "alignment"}.get(notebook, notebook[3:])


@shaped
def _cases_of(plan: Path) -> list[str]:
    return sorted(dict(read_json(plan)["cases"].items()))


def raw_phantom_cases(prefix: str, patients: int) -> list[str]:
    """The names that cases of raw phantoms get.

    >>> raw_phantom_cases("scan", 2)
    ['scan-00001-000', 'scan-00002-000']
    """
    return [f"{prefix}-{number:05d}-000" for number in range(1, patients + 1)]


def _wrong_names(given: set[str], known: set[str], where: str) -> list[str]:
    """At most one text, which names what is unknown and what is missing, and says where to look what that is."""
    problems = [
        f"{name}: unknown parameter{closest(str(name), sorted(known))}" for name in sorted(map(str, given - known))
    ]
    problems += [f"{name}: missing{meant_for(name, given - known)}" for name in sorted(known - given)]
    example = f" ({EXAMPLE} has each with its meaning)" if known - given else ""
    return [f"{where}: {'; '.join(problems)}{example}"] if problems else []


def _absent(path: Path) -> str:
    """Why there is nothing to read at ``path``, and what to do."""
    if path.is_dir():
        return "is a folder; name the YAML file in it"
    where = "there is no such parameters file" + ("" if path.is_absolute() else f" in {Path.cwd()}")
    try:
        found = sorted(str(file.relative_to(project_root())) for file in (project_root() / "params").glob("*.yaml"))
    except FileNotFoundError:
        return f"{where}; change into the checkout (the folder with notebooks/ and params/)"
    return f"{where}; the checkout has {', '.join(found)}" if found else where
