"""A finished model in one file: weights, plan, operating point, measured performance, and what it was trained on.

A bundle is an ordinary zip whose members are stored as they are: ``model.json`` (``contents.Model``),
``fold_<k>.safetensors`` (the weights of a fold and nothing else), ``cohort.json`` (the guard's profile of the training
cohort), ``model_card.md`` (for people) and ``hashes.json`` (SHA-256 of every other member). Nothing in it runs: it is
read as JSON and plain arrays, a plan names only what our own plans name, and no name of a case is in it.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import stat
import zipfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import pandas as pd
import safetensors.torch
import torch
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from safetensors import SafetensorError

from brainmets import schemas, tables
from brainmets.cohorts import splits
from brainmets.cohorts.cohort import Case, read_manifest, require_files
from brainmets.files import read_json, replacing, shaped
from brainmets.params.study import Study
from brainmets.paths import StudyPaths
from brainmets.preparation.pipeline import Settings
from brainmets.preparation.quality import REFERENCE
from brainmets.provenance import commit, require_whole, sha256, versions
from brainmets.screening import contents, guard, model_card
from brainmets.screening.reads import Reads
from brainmets.statistics import operating_point
from brainmets.training import channels
from brainmets.training.inference import Ensemble, build_network
from brainmets.training.subsets import trained_on
from brainmets.training.trainer import read_checkpoint
from brainmets.vocabulary import SEQUENCES, SOURCE_TRAINED, STRATEGY_STAGES, Strategy

MODEL, COHORT, CARD, HASHES = "model.json", "cohort.json", "model_card.md", "hashes.json"
FOLD = re.compile(r"fold_(0|[1-9]\d?)\.safetensors")
LARGEST_TEXT = 16 * 2**20
"""Bytes of a member that holds no weights; a profile of 10,000 cases takes 6 MB."""
LARGEST_WEIGHTS = 4 * 2**30
"""Bytes of a fold; nnU-Net's largest preset takes 0.4 GB."""
NOT_DECLARED = "not declared"
DESCRIBED = ("dice", "hd95")
DECISIVE = ("brainmets", "torch", "nnunetv2", "monai")
"""The packages whose version can change what a model gives."""
SAME_EVALUATION = ("folds", "tile_step", "mirroring", "candidate_threshold", "probability_floor")


class BundleError(ValueError):
    """A bundle that cannot be made or is not opened; the message says what is wrong and what to do."""


@dataclass(frozen=True, eq=False)
class Bundle:
    """A model that was read from ``path``; ``sha256`` is the whole file's.

    ``card``: name, study, arm, strategy, folds, created, versions, licence and what the model was trained on, see
    ``contents.Card``. ``preparation``: how its cohort was prepared, where that was done here (``card`` says of how
    many cases). ``performance``: rows of ``detection_at_operating_point.csv``, all sizes first; ``scores``: means of
    Dice and HD95 with intervals, both on held-out cases. ``profile``: what the training cohort looked like.
    """

    path: Path
    sha256: str
    card: dict[str, Any]
    preparation: Settings
    tile_step: float
    mirroring: bool
    candidate_threshold: float
    probability_floor: float
    aim: operating_point.Aim
    point: operating_point.Point
    profile: guard.Profile
    performance: pd.DataFrame
    scores: pd.DataFrame
    model: contents.Model = field(repr=False)
    weights: tuple[dict[str, torch.Tensor], ...] = field(repr=False)

    @property
    def reads(self) -> Reads:
        """The sequences that the model reads, and those that it was trained to miss."""
        return self.model.card.reads

    def ensemble(self, device: torch.device) -> Ensemble:
        """The folds, ready to predict on ``device``; they compute what the study's checkpoints compute."""
        return Ensemble.build(
            self.model.plan.content(), _dataset(self.model), self.model.card.arm, self.weights,
            self.model.mirroring_axes, device, self.tile_step, self.mirroring,
        )  # fmt: skip

    def other_release(self) -> list[str]:
        """A line for each package that decides what a model gives and has another version here; empty where none."""
        mine, theirs = versions(), self.card["versions"]
        return [
            f"{name} was {theirs.get(name, 'not recorded')} where the model was bundled, and is {mine[name]} here"
            f"{_which(theirs.get(name, ''), mine[name])}"
            for name in DECISIVE
            if theirs.get(name) != mine[name]
        ]


def _which(theirs: str, mine: str) -> str:
    """Whether the other version is the newer one; the numbers before any "+" decide."""
    one, other = ([int(number) for number in re.findall(r"\d+", text.partition("+")[0])] for text in (theirs, mine))
    if not one or not other or one == other:
        return ""
    return ", which is older" if one > other else ", which is newer"


# --- writing -------------------------------------------------------------------------------------------------------


def write(study: Study, arm: str, strategy: Strategy, out: Path, licence: str = NOT_DECLARED) -> Path:
    """Write the bundle of a finished study's (arm, strategy) to ``out``; returns its path.

    The same study gives the same bytes on the same day with the same packages and commit: ``model.json`` holds
    these. ``licence``: of the data that the model was trained on, in its owner's words. Raises ``BundleError`` for a
    model that the study does not have, that has no operating point or one that accepts nothing, and for results that
    do not belong together; ``ValueError`` where a step has not run or its files have changed since; what is wrong with
    a checkpoint.
    """
    if arm not in study.arms or strategy not in study.strategies:
        raise BundleError(
            f"{study.origin} has no model {arm} {strategy} (arms: {', '.join(study.arms)}; strategies: "
            f"{', '.join(study.strategies)})"
        )
    files = StudyPaths(study.content["work_dir"], study.content["study"])
    _require_finished(study, files, arm, strategy)
    frozen, point = _point(study, files, arm, strategy)
    checkpoints = _checkpoints(study, files, arm, strategy)
    first = checkpoints[study.folds[0]]
    sequences = channels.names(first["init_args"]["dataset_json"])
    if REFERENCE not in sequences:
        raise BundleError(
            f"{arm} {strategy} reads {', '.join(sequences)} and no {REFERENCE}: every result of screening lies on the "
            f"{REFERENCE}, so that this model screens nobody; bundle one that was trained with it"
        )
    manifest = {cohort: read_manifest(files.manifest(cohort)) for cohort in ("source", "target")}
    held_out = splits.read(files, "target")["held_out"]
    cohort = [case for name, case in sorted(manifest["target"].items()) if name not in held_out]
    require_files(cohort)
    try:
        model = contents.build(
            card=_card(study, files, arm, strategy, manifest, len(held_out), licence)
            | {"sequences": sequences, "sequence_dropout": _dropout(first)},
            plan=contents.plan_of(first["init_args"]["plans"]).content(),
            dataset=first["init_args"]["dataset_json"],
            mirroring_axes=first["inference_allowed_mirroring_axes"],
            preparation=asdict(Settings.of(study.notebook("00_preparation", cohort="target", case=""))),  # type: ignore[arg-type]
            **{name: study.content["evaluation"][name] for name in SAME_EVALUATION[1:]},
            aim=asdict(frozen.aim),
            point=asdict(point),
            performance=_rows(_performance(files, point)),
            scores=_rows(_scores(files, arm, strategy)),
        )
    except contents.ContentError as error:
        raise BundleError(f"no bundle of {arm} {strategy} is written: {error}") from None
    profile = guard.profile(cohort, sequences)
    members = {
        MODEL: _json(model.model_dump(mode="json", by_alias=True)),
        COHORT: _json(profile.as_json()),
        CARD: model_card.text(model, profile.cases).encode(),
    }
    names = _names(model)
    for fold, checkpoint in checkpoints.items():
        weights = distinct(checkpoint["network_weights"], names, f"fold {fold} of {arm} {strategy}")
        members[f"fold_{fold}.safetensors"] = safetensors.torch.save(weights)
    members[HASHES] = _json({name: hashlib.sha256(content).hexdigest() for name, content in sorted(members.items())})
    with replacing(out) as aside:
        with zipfile.ZipFile(aside, "w", zipfile.ZIP_STORED) as archive:
            for name, content in sorted(members.items()):
                info = zipfile.ZipInfo(name)  # of 1980: the time of writing is not in the bytes
                info.external_attr = (stat.S_IFREG | 0o640) << 16
                archive.writestr(info, content)
        read(aside)
    return out


def _require_finished(study: Study, files: StudyPaths, arm: str, strategy: Strategy) -> None:
    """Refuse results of steps that have not run, have changed since, or ran with other parameters than now."""
    values = study.content["statistics"]
    if values["scores_dir"] is not None or values["out_dir"] is not None:
        raise BundleError(
            f"{study.origin}: statistics.scores_dir and out_dir must be null: a bundle is of a study's own results"
        )
    evaluation = files.evaluation(arm, strategy)
    for result in (
        *(files.training(STRATEGY_STAGES[strategy], arm, fold) for fold in study.folds),
        evaluation,
        files.statistics / "statistics.json",
    ):
        require_whole(result, files.study, files.work)
    wanted = study.notebook("06_evaluation", arm=arm, strategy=strategy).model_dump(mode="json")
    used = _provenance(evaluation)["parameters"]
    for name in SAME_EVALUATION:
        if used[name] != wanted[name]:
            raise BundleError(
                f"{arm} {strategy} was evaluated with {name} {used[name]}, and {study.origin} says {wanted[name]}: "
                "run notebooks 06 and 07 again, or write what it was evaluated with"
            )
    scores = files.scores(arm, strategy)
    name = scores.relative_to(files.work).as_posix()
    if _provenance(files.statistics / "statistics.json")["inputs"].get(name) != sha256(scores):
        raise BundleError(f"{name} is not what notebook 07 has read: run notebook 07 again")


@shaped
def _provenance(path: Path) -> dict[str, Any]:
    record: dict[str, Any] = read_json(path)["provenance"]
    record["parameters"].items(), record["inputs"].items()
    return record


def _point(
    study: Study, files: StudyPaths, arm: str, strategy: str
) -> tuple[operating_point.Frozen, operating_point.Point]:
    frozen = operating_point.thaw(files.operating_point, files.work)
    if (arm, strategy) not in frozen.points:
        raise BundleError(f"{files.operating_point.name} holds no point of {arm} {strategy}: run notebook 07 again")
    declared = study.content["statistics"]["detection"]
    if asdict(frozen.aim) != declared:
        raise BundleError(
            f"the operating point was chosen for {asdict(frozen.aim)}, and {study.origin} declares {declared}: run "
            "notebook 07 again"
        )
    point = frozen.points[arm, strategy]
    if math.isinf(point.threshold):
        raise BundleError(
            f"{arm} {strategy} has {point.note}: a model that accepts nothing cannot screen anybody; bundle another"
        )
    return frozen, point


def _checkpoints(study: Study, files: StudyPaths, arm: str, strategy: Strategy) -> dict[int, dict[str, Any]]:
    """By fold; of one plan, and those that were evaluated."""
    paths = {fold: files.checkpoint(STRATEGY_STAGES[strategy], arm, fold) for fold in study.folds}
    evaluated = _provenance(files.evaluation(arm, strategy))["inputs"]
    found = {}
    for fold, path in paths.items():
        if evaluated.get(path.relative_to(files.work).as_posix()) != sha256(path):
            raise BundleError(
                f"fold {fold} of {arm} {strategy} was trained again after it was evaluated: run notebooks 06 and 07 "
                "again, so that the measured performance is this model's"
            )
        found[fold] = read_checkpoint(path, torch.device("cpu"))
    first = found[study.folds[0]]
    for fold, checkpoint in found.items():
        for name in ("plans", "dataset_json"):
            if checkpoint["init_args"][name] != first["init_args"][name]:
                raise BundleError(f"fold {fold} of {arm} {strategy} was trained with another plan than the first")
    return found


def _card(
    study: Study,
    files: StudyPaths,
    arm: str,
    strategy: Strategy,
    manifest: Mapping[str, Mapping[str, Case]],
    held_out: int,
    licence: str,
) -> dict[str, Any]:
    """``contents.Card``. The cases that a fold trained on are those that its record lists."""
    trained: dict[str, set[str]] = {"source": set(), "target": set()}
    if strategy != "pretrained":
        trained["target"] = trained_on(files, STRATEGY_STAGES[strategy], arm, study.folds)
    if strategy in SOURCE_TRAINED:
        trained["source"] = trained_on(files, "pretraining", arm, study.folds)
    last = "source" if strategy == "pretrained" else "target"
    patients = {cohort: {manifest[cohort][case].patient for case in cases} for cohort, cases in trained.items()}
    prepared = files.preparation("target")
    return {
        "name": f"{files.study}_{arm}_{strategy}",
        "study": files.study,
        "arm": arm,
        "strategy": strategy,
        "folds": study.folds,
        "created": datetime.now(UTC).date().isoformat(),
        "versions": versions(),
        "commit": commit(),
        "licence": licence,
        "may_lack": _lacked(manifest[last], trained[last]),
        "training_cases": len(trained["target"]),
        "training_patients": len(patients["target"]),
        "source_cases": len(trained["source"]),
        "source_patients": len(patients["source"]),
        "held_out_cases": held_out,
        "phantoms": [cohort for cohort in trained if study.content[cohort].get("phantoms")],
        "prepared_here": sum(prepared.prepared(case).is_file() for case in trained["target"]),
        "interval": 1 - study.content["statistics"]["alpha"],
    }


def _lacked(cases: Mapping[str, Case], trained: Collection[str]) -> list[str]:
    """The sequences that one or more of the training cases lack, of those that any has."""
    there = [{*cases[case].images} for case in trained]
    return [name for name in SEQUENCES if any(name in one for one in there) and any(name not in one for one in there)]


def _dropout(checkpoint: Mapping[str, Any]) -> float:
    """The probability with which each sequence was blanked in training."""
    return float(checkpoint["init_args"]["plans"]["brainmets"]["settings"].get("sequence_dropout", 0.0))


def _performance(files: StudyPaths, point: operating_point.Point) -> pd.DataFrame:
    path = files.statistics / "detection_at_operating_point.csv"
    schemas.read(path, schemas.DETECTION)
    table = tables.read(path)
    own = table[(table["arm"] == point.arm) & (table["strategy"] == point.strategy)]
    if list(table.columns) != operating_point.COLUMNS or own.empty:
        raise BundleError(f"{path.name} holds nothing of {point.arm} {point.strategy}: run notebook 07 again")
    counts = ["cases", "patients", "lesions", "found", "false"]
    return own.assign(note=own["note"].fillna("")).astype(dict.fromkeys(counts, "Int64"))


def _scores(files: StudyPaths, arm: str, strategy: str) -> pd.DataFrame:
    """The means of ``DESCRIBED``; notes name cases, and are told as their number."""
    path = files.statistics / "descriptive.csv"
    schemas.read(path, schemas.DESCRIPTIVE)
    table = tables.read(path)
    own = table[(table["arm"] == arm) & (table["strategy"] == strategy) & table["metric"].isin(DESCRIBED)]
    if own.empty:
        raise BundleError(f"{path.name} holds nothing of {arm} {strategy}: run notebook 07 again")
    there = (own["n_both"] + own["n_reference_only"]).fillna(own["n"])
    own = own.assign(left_out=(there - own["n"]).astype(int))
    return own[list(contents.ScoreRow.model_fields)]


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows for JSON: a missing number is null, and infinity the text "inf"."""
    rows = table.astype(object).where(table.notna(), None).to_dict("records")
    return [
        {str(name): "inf" if isinstance(value, float) and math.isinf(value) else value for name, value in row.items()}
        for row in rows
    ]


def _json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=1, allow_nan=False) + "\n").encode()


# --- weights -------------------------------------------------------------------------------------------------------


def _dataset(model: contents.Model) -> dict[str, Any]:
    """As notebook 02 writes it: nnU-Net goes by the order of the regions, which JSON does not promise."""
    return contents.description(model.dataset["numTraining"], model.card.sequences)


@dataclass(frozen=True)
class Names:
    """``first``: every name in a network's ``state_dict``, and the first of the names of the same tensor.

    nnU-Net's U-Net knows each weight by two to four names. ``shapes``: of the tensors, by their first name.
    """

    first: dict[str, str]
    shapes: dict[str, tuple[int, ...]]


def _names(model: contents.Model) -> Names:
    """The names in the network that the plan describes, built without memory for its weights, and tried once."""
    try:
        with torch.device("meta"), torch.no_grad():
            network = build_network(PlansManager(model.plan.content()), _dataset(model), model.card.arm).eval()
            patch = model.plan.configurations.fullres.patch_size
            output = network(torch.zeros(1, len(model.card.sequences), *patch))
            if tuple(output.shape[2:]) != patch:
                raise ValueError(f"a patch of {patch} comes out as {tuple(output.shape[2:])}")
    except Exception as error:  # torch, nnU-Net and MONAI each raise their own
        raise BundleError(f"{MODEL}: its plan makes no network ({error})") from None
    by_tensor: dict[int, str] = {}
    first, shapes = {}, {}
    for name, tensor in network.state_dict(keep_vars=True).items():
        first[name] = by_tensor.setdefault(id(tensor), name)
        shapes[first[name]] = tuple(tensor.shape)
    return Names(first, shapes)


def distinct(weights: Mapping[str, torch.Tensor], names: Names, what: str) -> dict[str, torch.Tensor]:
    """Each tensor of a ``state_dict`` once, by its first name. Raises ``BundleError`` naming ``what``."""
    if differing := {*weights} ^ {*names.first}:
        raise BundleError(f"{what}: the weight {sorted(differing)[0]} is in one of checkpoint and network alone")
    for name, first in names.first.items():
        if not torch.equal(weights[name], weights[first]):
            raise BundleError(
                f"{what}: {name} and {first} are one weight of the network, and differ in the checkpoint"
            )
    return {name: weights[name].contiguous() for name in names.shapes}


def _weights(content: bytes, names: Names, member: str) -> dict[str, torch.Tensor]:
    """A whole ``state_dict`` from a member; every tensor is one of the network's, of its shape, float32 and finite."""
    try:
        stored = safetensors.torch.load(content)
    except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise BundleError(f"{member} holds no plain weights ({error})") from None
    if differing := {*stored} ^ {*names.shapes}:
        name = sorted(differing)[0]
        where = "which the network does not have" if name in stored else "which the network needs, is not there"
        raise BundleError(f"{member}: the weight {name!r:.100}, {where}")
    for name, tensor in stored.items():
        if tuple(tensor.shape) != names.shapes[name] or tensor.dtype != torch.float32:
            raise BundleError(
                f"{member}: the weight {name} is {tuple(tensor.shape)} of {tensor.dtype}, and the network has "
                f"{names.shapes[name]} of {torch.float32}"
            )
        if not bool(torch.isfinite(tensor).all()):
            raise BundleError(f"{member}: the weight {name} is not finite")
    return {name: stored[first] for name, first in names.first.items()}


# --- reading -------------------------------------------------------------------------------------------------------


def read(path: Path) -> Bundle:
    """Open a bundle: names, kinds, sizes and hashes of its members first, then what they hold.

    Nothing is unpickled, nothing is imported that the file names, and what was checked is what is kept. Raises
    ``BundleError`` with the file and the member that is damaged, missing, or not what a bundle may hold. A bundle of
    another release is opened; see ``Bundle.other_release``.
    """
    try:
        if not path.is_file():
            raise BundleError("it is a folder" if path.is_dir() else "there is no such file")
        with path.open("rb") as handle:
            digest = hashlib.file_digest(handle, "sha256").hexdigest()
            with _opened(handle) as archive:
                return _bundle(path, digest, Members(archive, path.stat().st_size))
    except BundleError as error:
        raise BundleError(f"{path} is not opened: {error}; get it anew from where it was made") from None


def is_one(path: Path) -> bool:
    """Whether a file is a bundle, whole or not: what may be written over, as other archives may not."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {MODEL, HASHES} <= {*archive.namelist()}
    except (zipfile.BadZipFile, NotImplementedError, EOFError, OSError, ValueError):
        return False


@contextmanager
def _opened(handle: IO[bytes]) -> Iterator[zipfile.ZipFile]:
    try:
        archive = zipfile.ZipFile(handle)
    except (zipfile.BadZipFile, NotImplementedError, EOFError, OSError, ValueError) as error:
        raise BundleError(f"it is damaged, cut, or no bundle of `brainmets bundle` ({error})") from None
    with archive:
        yield archive


class Members:
    """The members of a bundle by name, once names, kinds and sizes are those of one; each read with its hash.

    Raises ``BundleError``, naming the member, for one that a bundle does not have or that is not what was written.
    """

    def __init__(self, archive: zipfile.ZipFile, size: int) -> None:
        self.archive = archive
        listed = archive.infolist()
        for member in listed:
            _require_plain(member)
        self.names = [member.filename for member in listed]
        if twice := [name for name in self.names if self.names.count(name) > 1]:
            raise BundleError(f"it holds {twice[0]} twice")
        if sum(member.file_size for member in listed) > size:
            raise BundleError("its parts are larger than the whole")
        if missing := [name for name in (HASHES, MODEL, COHORT, CARD) if name not in self.names]:
            raise BundleError(f"{missing[0]} is missing")
        self.hashes = _object(self._content(HASHES), HASHES)
        if differing := sorted({*self.hashes} ^ ({*self.names} - {HASHES})):
            where = "is missing" if differing[0] in self.hashes else f"is not in {HASHES}"
            raise BundleError(f"{differing[0]!r:.200} {where}")

    def read(self, name: str) -> bytes:
        """A member's content."""
        content = self._content(name)
        if hashlib.sha256(content).hexdigest() != self.hashes[name]:
            raise BundleError(f"{name} is damaged: it is not what {HASHES} lists")
        return content

    def _content(self, name: str) -> bytes:
        try:
            content = self.archive.read(name)
        except (zipfile.BadZipFile, NotImplementedError, EOFError, OSError, ValueError, RuntimeError) as error:
            raise BundleError(f"{name} is damaged ({error})") from None
        if len(content) != self.archive.getinfo(name).file_size:
            raise BundleError(f"{name} is damaged: it is cut")
        return content


def _require_plain(member: zipfile.ZipInfo) -> None:
    """Refuse a member that no bundle has, and one that is anything but a file, stored as it is."""
    name, kind = member.filename, stat.S_IFMT(member.external_attr >> 16)
    weights = FOLD.fullmatch(name) is not None
    if not weights and name not in (MODEL, COHORT, CARD, HASHES):
        raise BundleError(f"it holds {name!r:.200}, which is no part of a bundle")
    if kind not in (0, stat.S_IFREG) or member.is_dir():
        raise BundleError(f"{name} is a link, a folder or a device, not a file")
    if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
        raise BundleError(f"{name} is compressed or encrypted")
    if member.file_size > (LARGEST_WEIGHTS if weights else LARGEST_TEXT):
        raise BundleError(f"{name} promises {member.file_size / 2**20:.0f} MiB, more than a bundle holds there")


def _object(content: bytes, name: str) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{name} is not JSON ({error})") from None
    if not isinstance(found, dict):
        raise BundleError(f"{name} holds no JSON object")
    return found


def _bundle(path: Path, digest: str, members: Members) -> Bundle:
    members.read(CARD)  # for people: nothing here goes by it, and a damaged one is named all the same
    try:
        model = contents.parse(members.read(MODEL))
    except contents.ContentError as error:
        raise BundleError(f"{MODEL}: {error}") from None
    try:
        profile = guard.Profile.from_json(_object(members.read(COHORT), COHORT))
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        raise error if isinstance(error, BundleError) else BundleError(f"{COHORT}: {error}") from None
    wanted, there = (
        [f"fold_{fold}.safetensors" for fold in model.card.folds],
        [*filter(FOLD.fullmatch, members.names)],
    )
    if differing := sorted({*wanted} ^ {*there}):
        raise BundleError(f"{differing[0]} {'is missing' if differing[0] in wanted else 'is no fold of the model'}")
    names = _names(model)
    return Bundle(
        path=path,
        sha256=digest,
        card=model.card.model_dump(),
        preparation=Settings(**model.preparation.model_dump()),
        tile_step=model.tile_step,
        mirroring=model.mirroring,
        candidate_threshold=model.candidate_threshold,
        probability_floor=model.probability_floor,
        aim=operating_point.Aim(**model.aim.model_dump()),
        point=operating_point.Point(**model.point.model_dump()),
        profile=profile,
        performance=_table(model.performance, contents.PerformanceRow),
        scores=_table(model.scores, contents.ScoreRow),
        model=model,
        weights=tuple(_weights(members.read(name), names, name) for name in wanted),
    )


def _table(rows: Sequence[contents.Part], kind: type[contents.Part]) -> pd.DataFrame:
    """One row per part; a number that is not there is NaN."""
    table = pd.DataFrame([row.model_dump() for row in rows], columns=list(kind.model_fields))
    numbers = [str(name) for name, column in table.items() if not any(isinstance(value, str) for value in column)]
    return table.astype(dict.fromkeys(numbers, float)).astype(
        {name: int for name in numbers if kind.model_fields[name].annotation is int}
    )
