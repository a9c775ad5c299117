"""Carrying a pretraining between two machines: packed with a manifest, unpacked only where every byte is as packed.

The machine with the patients plans (notebooks 01 and 02), the one with the GPU pretrains (notebook 03). ``pack``
"plan" makes the archive for the way there: the source cohort's preprocessed cases and the plan. ``pack`` "pretraining"
makes the one for the way back: the finished models and their records. An archive is an uncompressed zip; none holds a
pickle, an absolute path, or an image, a name or a label map of the target cohort.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from brainmets.files import read_json, replacing, write_json
from brainmets.params import Training, own_plans
from brainmets.params.study import Study
from brainmets.paths import StudyPaths
from brainmets.processes import locked
from brainmets.provenance import commit, damaged, sha256, versions
from brainmets.training import channels, plans
from brainmets.training.preprocessed import PROPERTIES, require_sound
from brainmets.training.session import IDENTITY, LOCK, identity
from brainmets.training.trainer import FINAL, LATEST, PREVIOUS, RECORD, read_checkpoint
from brainmets.vocabulary import ARMS, UNET_PLAN

Kind = Literal["plan", "pretraining"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""What an archive holds: what a pretraining needs, or what came of it."""

FORMAT = "brainmets hand-over 1"
MANIFEST = "manifest.json"
LARGEST_MANIFEST = 64 * 2**20
"""Bytes; 10,000 cases take 5 MB."""
KEPT = ("notebook", "versions", "commit", "device", "started", "seconds")
"""What an archive holds of notebook 02's record: no parameter, and no file to be looked for."""
PIECE = 2**20

_SOURCE = f"nnunet/preprocessed/{plans.DATASETS['source']}"
_PLANS = (re.escape(plans.identifier("source", name)) for name in plans.PLANNERS)
_JSON = "|".join((*_PLANS, "dataset", "dataset_fingerprint", "splits_final", "content"))
_NAME = r"(?!\.)[^/\\\x00-\x1f]+"
ALLOWED: Mapping[str, re.Pattern[str]] = {
    "plan": re.compile(
        rf"{_SOURCE}/(({_JSON})\.json|\w+_{plans.CONFIGURATION}/({_NAME}\.b2nd|{PROPERTIES}/{_NAME}\.npz))"
        r"|audit/splits\.json|alignment/alignment\.json"
    ),
    "pretraining": re.compile(
        rf"training/pretraining/({'|'.join(ARMS)})/fold_\d{{1,3}}/({re.escape(FINAL)}|{RECORD}|{IDENTITY})"
    ),
}
"""The names, below the study's folder, that an archive of each kind may hold."""
MACHINES_OWN = ("study", "work_dir", "augmentation_workers")
"""Parameters of a training that two machines may differ in."""


class HandOverError(ValueError):
    """An archive that cannot be made, or is not unpacked; the message says what is wrong with it and what to do."""


# --- packing -----------------------------------------------------------------------------------------------------


def pack(study: Study, kind: Kind, out: Path, report: Callable[[str], None] = print) -> Path:
    """Write the archive ``out`` of a study's plan, or of its finished pretrainings; returns its path.

    ``report`` is told what is in it and what is not. Raises ``HandOverError`` where ``out`` is there already or
    nothing is finished, and what the check of a damaged plan or model raises.
    """
    if out.exists():
        raise HandOverError(f"{out} is there already; delete it, or name another archive")
    files = _files(study)
    gather = {"plan": _gather_plan, "pretraining": _gather_pretraining}[kind]
    texts, paths, manifest = gather(study, files, report)
    listed: dict[str, dict[str, Any]] = {}
    with replacing(out) as aside, zipfile.ZipFile(aside, "w", zipfile.ZIP_STORED) as archive:
        for name, text in texts.items():
            listed[name] = _add(archive, name, iter([text.encode()]))
        for name, path in paths.items():
            listed[name] = _add(archive, name, _pieces(path), path.stat().st_size)
        whole = {"format": FORMAT, "holds": kind, "versions": versions(), "commit": commit(), **manifest}
        _add(archive, MANIFEST, iter([(json.dumps({**whole, "files": listed}, indent=1) + "\n").encode()]))
    report(f"{out}: {len(listed)} files, {sum(entry['bytes'] for entry in listed.values()) / 1e6:.1f} MB")
    return out


def _gather_plan(
    study: Study, files: StudyPaths, report: Callable[[str], None]
) -> tuple[dict[str, str], dict[str, Path], dict[str, Any]]:
    plans.require_whole(files, "source")
    if wrong := damaged(files.alignment, files.work):
        name, what = next(iter(wrong.items()))
        raise HandOverError(f"notebook 02 has not finished, or what it wrote has changed since: {name} {what}; run it")
    alignment, made = read_json(files.alignment), read_json(files.alignment)["provenance"]
    dataset = {name: value for name, value in plans.read_dataset(files, "source").items() if name != "dataset"}
    texts = {
        f"{_SOURCE}/dataset.json": _text(dataset),
        "audit/splits.json": _text({"source": read_json(files.splits)["source"]}),
        "alignment/alignment.json": _text(
            {"aligned": alignment["aligned"], "provenance": {name: made[name] for name in KEPT if name in made}}
        ),
    }
    paths = {_below(files, path): path for path in plans.outputs(files, "source")}
    report("of the source cohort: the preprocessed cases, their names and folds")
    report("of the target cohort: the plan, with the cohort's median size and spacing, and its grey values in numbers")
    report("(mean, median, deviation, extremes, percentiles); no image, no label map, no name")
    trainings = [
        {"arm": p.arm, "fold": p.fold, "identity": identity(files, p, "pretraining")} for p in _pretrainings(study)
    ]
    return texts, {name: path for name, path in paths.items() if name not in texts}, {"trainings": trainings}


def _gather_pretraining(
    study: Study, files: StudyPaths, report: Callable[[str], None]
) -> tuple[dict[str, str], dict[str, Path], dict[str, Any]]:
    texts: dict[str, str] = {}
    paths: dict[str, Path] = {}
    for p in _pretrainings(study):
        where = f"{p.arm}, fold {p.fold}"
        model, written = files.checkpoint("pretraining", p.arm, p.fold), files.training("pretraining", p.arm, p.fold)
        if not written.is_file():
            report(f"{where} is not finished, and not packed")
            continue
        read_checkpoint(model, torch.device("cpu"))
        if differing := _differences(read_json(model.with_name(IDENTITY)), identity(files, p, "pretraining")):
            raise HandOverError(f"{where} was trained otherwise than {study.origin} says: {differing}")
        texts[_below(files, written)] = _text(_without_places(read_json(written)))
        paths |= {_below(files, path): path for path in (model, model.with_name(IDENTITY))}
        report(f"{where}: packed")
    if not texts:
        raise HandOverError(f"no pretraining of {study.origin} is finished; notebook 03 trains one per arm and fold")
    return texts, paths, {}


def _without_places(record: dict[str, Any]) -> dict[str, Any]:
    """A training's record without the name of its study and folder: the machine that unpacks it has its own."""
    provenance = record["provenance"]
    parameters = {name: value for name, value in provenance["parameters"].items() if name not in ("study", "work_dir")}
    return {**record, "provenance": {**provenance, "parameters": parameters}}


def _add(archive: zipfile.ZipFile, name: str, pieces: Iterator[bytes], size: int = 0) -> dict[str, Any]:
    """Write one member, and give its size and hash."""
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFREG | 0o640) << 16
    digest, written = hashlib.sha256(), 0
    with archive.open(info, "w", force_zip64=size > 2**31) as member:
        for piece in pieces:
            member.write(piece)
            digest.update(piece)
            written += len(piece)
    return {"bytes": written, "sha256": digest.hexdigest()}


# --- unpacking ---------------------------------------------------------------------------------------------------


def unpack(archive: Path, study: Study, report: Callable[[str], None] = print) -> list[Path]:
    """Put what an archive holds into a study's folder, all or nothing; returns the files that are new there.

    First everything is written aside and checked: names, sizes and hashes as the manifest has them, arrays and weights
    as plain ones, and that the study's own parameters, plan and cases are those that the archive was made for. What is
    there already, byte by byte, is left as it is. Raises ``HandOverError`` where anything is otherwise, and where the
    study's folder holds another plan or pretraining.
    """
    files = _files(study)
    aside = files.work.parent / f".unpacking-{files.study}"
    with locked(files.work.parent / f".unpacking-{files.study}.lock", f"unpacking into {files.work}"):
        shutil.rmtree(aside, ignore_errors=True)  # of an unpacking that was killed
        try:
            with _opened(archive) as opened:
                manifest = _read_manifest(opened)
                staged = StudyPaths(str(aside), files.study)
                _extract(opened, manifest, staged.work)
            for line in _other_versions(manifest):
                report(line)
            place = {"plan": _place_plan, "pretraining": _place_pretraining}[manifest["holds"]]
            return place(manifest, study, staged, files, report)
        except (ValueError, LookupError, TypeError) as error:
            raise HandOverError(f"{archive} is not unpacked: {error}") from error
        finally:
            shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    if not path.is_file():
        raise HandOverError("there is no such file")
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (zipfile.BadZipFile, NotImplementedError, EOFError) as error:
        raise HandOverError(f"it is damaged, cut, or no archive of `brainmets pack` ({error}); copy it anew") from None


def _read_manifest(archive: zipfile.ZipFile) -> dict[str, Any]:
    """The manifest, checked against the archive's own list of names, kinds and sizes."""
    members = archive.infolist()
    names = [member.filename for member in members]
    if names.count(MANIFEST) != 1 or archive.getinfo(MANIFEST).file_size > LARGEST_MANIFEST:
        raise HandOverError(f"it has no {MANIFEST} as `brainmets pack` writes it: it is cut, or of another program")
    for member in members:
        kind = stat.S_IFMT(member.external_attr >> 16)
        if kind not in (0, stat.S_IFREG) or member.is_dir():
            raise HandOverError(f"{member.filename!r} is a link, a folder or a device, not a file")
        if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
            raise HandOverError(f"{member.filename!r} is compressed or encrypted")
    try:
        manifest = json.loads(_bounded(archive, MANIFEST, LARGEST_MANIFEST))
        kind, listed = manifest["holds"], manifest["files"]
        sizes = {name: (int(entry["bytes"]), str(entry["sha256"])) for name, entry in listed.items()}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise HandOverError(f"its {MANIFEST} cannot be read ({error})") from None
    if manifest.get("format") != FORMAT or kind not in KINDS:
        raise HandOverError(f"it is {manifest.get('format')!r} of {kind!r}, and this version unpacks {FORMAT!r}")
    if sorted(names) != sorted([*sizes, MANIFEST]):
        odd = sorted({*names} ^ {*sizes, MANIFEST}) or [name for name in names if names.count(name) > 1]
        raise HandOverError(f"{odd[0]!r} is in the archive and not in its {MANIFEST}, the other way round, or twice")
    if strange := [name for name in sizes if not ALLOWED[kind].fullmatch(name)]:
        raise HandOverError(f"{strange[0]!r} is no file of a {kind}")
    for member in members:
        if member.filename != MANIFEST and member.file_size != sizes[member.filename][0]:
            raise HandOverError(
                f"{member.filename!r} has {member.file_size} bytes and should have {sizes[member.filename][0]}"
            )
    result: dict[str, Any] = manifest
    return result


def _bounded(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    with archive.open(name) as member:
        return member.read(limit)


def _extract(archive: zipfile.ZipFile, manifest: Mapping[str, Any], folder: Path) -> None:
    needed = sum(entry["bytes"] for entry in manifest["files"].values())
    folder.mkdir(parents=True)
    if (free := shutil.disk_usage(folder).free) < needed:
        raise HandOverError(f"it needs {needed / 1e9:.1f} GB, and {folder.parent.parent} has {free / 1e9:.1f} GB free")
    for name, entry in manifest["files"].items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        digest, left = hashlib.sha256(), entry["bytes"]
        with archive.open(name) as member, target.open("wb") as handle:
            while piece := member.read(min(PIECE, left + 1)):
                left -= len(piece)
                if left < 0:
                    break
                handle.write(piece)
                digest.update(piece)
        if left or digest.hexdigest() != entry["sha256"]:
            raise HandOverError(f"{name} is not what was packed; copy the archive anew")


def _place_plan(
    manifest: Mapping[str, Any],
    study: Study,
    staged: StudyPaths,
    files: StudyPaths,
    report: Callable[[str], None],
) -> list[Path]:
    for path in plans.outputs(staged, "source"):
        if path.suffix == ".json":
            _require_json(path)
    arrays = plans.arrays_folder(staged, "source")
    cases = sorted(_require_json(staged.nnunet_preprocessed / plans.DATASETS["source"] / plans.CONTENT))
    names = [f"{case}{end}" for case in cases for end in (".b2nd", "_seg.b2nd")]
    names += [f"{PROPERTIES}/{case}.npz" for case in cases]
    needed = {f"{_below(staged, arrays)}/{name}" for name in names}
    found = {name for name in manifest["files"] if name.endswith((".b2nd", ".npz"))}
    if odd := sorted(needed ^ found):
        raise HandOverError(f"{odd[0]!r} is lacking" if odd[0] in needed else f"{odd[0]!r} is of no case")
    dataset = _require_json(staged.nnunet_preprocessed / plans.DATASETS["source"] / "dataset.json")
    declared = study.sequences_of("source")
    if {*channels.names(dataset)} != {*declared}:
        raise HandOverError(
            f"its source cohort has {', '.join(channels.names(dataset))}, and {study.origin} declares "
            f"{', '.join(declared)} for it; use the same parameters on both machines"
        )
    for case in cases:
        require_sound(arrays, case, dataset)
    if not (staged.splits.is_file() and staged.alignment.is_file()):
        raise HandOverError(f"it lacks {staged.splits.name} or {staged.alignment.name}")
    alignment = _require_json(staged.alignment)
    if {*alignment} != {"aligned", "provenance"} or {*alignment["provenance"]} - {*KEPT}:
        raise HandOverError(f"{staged.alignment.name} is not as `brainmets pack` writes it")
    if {*_require_json(staged.splits)} != {"source"}:
        raise HandOverError(f"{staged.splits.name} holds more than the source cohort's folds")
    trainings = {(p.arm, p.fold): p for p in _pretrainings(study)}
    packed = {(one["arm"], one["fold"]): one["identity"] for one in manifest["trainings"]}
    if {*trainings} != {*packed}:
        raise HandOverError(
            f"it was packed for {_listed(packed)}, and {study.origin} trains "
            f"{_listed(trainings)}; use the same parameters on both machines"
        )
    planned = [UNET_PLAN, *own_plans(arm for arm, _ in trainings)]
    for path in (plans.plan_path(staged, "source", name) for name in planned):
        if not path.is_file():
            raise HandOverError(f"{_below(staged, path)!r} is lacking")
    wanted = {training: identity(staged, p, "pretraining") for training, p in trainings.items()}
    for (arm, fold), mine in wanted.items():
        if differing := _differences(packed[arm, fold], mine):
            raise HandOverError(
                f"the pretraining {arm}, fold {fold} of {study.origin} would not be the one "
                f"that the other machine expects back: {differing}; use the same parameters on both machines"
            )
    plans.record(staged, "source")
    folder = files.nnunet_preprocessed / plans.DATASETS["source"]
    pairs = [(path, files.work / path.relative_to(staged.work)) for path in (staged.splits, staged.alignment)]
    there = [files.work / name for name in manifest["files"] if (files.work / name).exists()]
    if there:
        if all(_is_file_of(files.work / name, entry["sha256"]) for name, entry in manifest["files"].items()):
            report("the plan is there already, and whole: nothing to do")
            return []
        raise HandOverError(
            f"{there[0]} is there, of another plan or a part of one; unpack into a study of "
            f"another name, or delete {folder}, {files.splits} and {files.alignment} if nothing here needs them"
        )
    if folder.exists():
        raise HandOverError(f"{folder} is there already; delete it if nothing needs it")
    new = _move([(staged.nnunet_preprocessed / plans.DATASETS["source"], folder), *pairs])
    report(f"the plan and {len(cases)} preprocessed source cases are in {files.work}")
    return new


def _place_pretraining(
    manifest: Mapping[str, Any],
    study: Study,
    staged: StudyPaths,
    files: StudyPaths,
    report: Callable[[str], None],
) -> list[Path]:
    plans.require_whole(files, "source")
    wanted = {(p.arm, p.fold): p for p in _pretrainings(study)}
    packed = {(parts[2], int(parts[3][5:])) for name in manifest["files"] for parts in [name.split("/")]}
    if stray := sorted(packed - set(wanted)):
        raise HandOverError(f"it holds {_listed(stray)}, which {study.origin} does not train")
    pairs = []
    with ExitStack() as locks:
        for arm, fold in sorted(packed):
            _require_the_trainings_own(study, staged, files, wanted[arm, fold])
            folder, new = (one.training_folder("pretraining", arm, fold) for one in (files, staged))
            locks.enter_context(locked(folder / LOCK, f"the training {arm}, fold {fold}, pretraining"))
            packed_model = sha256(new / FINAL)
            recorded = (folder / RECORD).is_file() and read_json(folder / RECORD).get("checkpoint_sha256")
            if recorded == packed_model and not damaged(folder / RECORD, files.work):
                report(f"{arm}, fold {fold}: there already, and whole")
                continue
            same = recorded == packed_model or _is_file_of(folder / FINAL, packed_model)  # lost since, or unrecorded
            held = [name for name in (FINAL, LATEST, PREVIOUS) if (folder / name).is_file()]
            if held and not same:
                raise HandOverError(
                    f"{folder / held[0]} is of another pretraining of {arm}, fold {fold}; "
                    "move that folder away first if it is not needed"
                )
            pairs += [(new / name, folder / name) for name in (FINAL, IDENTITY, RECORD)]  # the record says: done
            report(f"{arm}, fold {fold}: unpacked")
        return _move(pairs)


def _require_the_trainings_own(study: Study, staged: StudyPaths, files: StudyPaths, parameters: Training) -> None:
    """Refuse a model, record or identity that are not of one training, the one that the study would do itself."""
    arm, fold = parameters.arm, parameters.fold
    folder, where = staged.training_folder("pretraining", arm, fold), f"{arm}, fold {fold}"
    if missing := [name for name in (FINAL, RECORD, IDENTITY) if not (folder / name).is_file()]:
        raise HandOverError(f"{where} lacks {missing[0]}")
    mine = identity(files, parameters, "pretraining")
    if differing := _differences(_require_json(folder / IDENTITY), mine):
        raise HandOverError(
            f"{where} was trained otherwise than {study.origin} says: {differing}; train it "
            "again with these parameters and this plan, or correct the parameters"
        )
    record, values = _require_json(folder / RECORD), parameters.model_dump(mode="json")
    name = _below(files, files.checkpoint("pretraining", arm, fold))
    try:
        own = (record["stage"], record["arm"], record["fold"]) == ("pretraining", arm, fold)
        provenance, written = record["provenance"], record["provenance"]["outputs"][name]
        given, changed = dict(provenance["parameters"]), int(written["changed_ns"])
        own &= record["checkpoint_sha256"] == written["sha256"] == sha256(folder / FINAL)
    except (LookupError, TypeError, ValueError) as error:
        raise HandOverError(f"{RECORD} of {where} is no record of a training ({error!r})") from None
    if not own:
        raise HandOverError(f"{RECORD} of {where} is of another model than {FINAL}")
    if differing := _differences(_decisive(given, arm), _decisive(values, arm)):
        raise HandOverError(f"{where}: {differing}; use the same parameters on both machines")
    read_checkpoint(folder / FINAL, torch.device("cpu"))
    own_places = {"study": values["study"], "work_dir": values["work_dir"]}
    provenance |= {"parameters": {**given, **own_places}, "outputs": {name: written}}
    os.utime(folder / FINAL, ns=(changed, changed))
    write_json(folder / RECORD, record)


def _decisive(parameters: Mapping[str, Any], arm: str) -> dict[str, Any]:
    kept = {name: value for name, value in parameters.items() if name not in MACHINES_OWN}
    return {**kept, "arms": kept["arms"][arm] if isinstance(kept.get("arms"), dict) and arm in kept["arms"] else None}


def _move(pairs: Sequence[tuple[Path, Path]]) -> list[Path]:
    """Move files and folders into place; where one cannot be moved, take those before it away again."""
    done: list[Path] = []
    try:
        for path, target in pairs:
            target.parent.mkdir(parents=True, exist_ok=True)
            new = not target.exists()
            path.replace(target)
            if new:
                done.append(target)
    except OSError:
        for target in done:
            shutil.rmtree(target) if target.is_dir() else target.unlink()
        raise
    return [target for _, target in pairs]


def _is_file_of(path: Path, digest: str) -> bool:
    return path.is_file() and sha256(path) == digest


def _require_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise HandOverError(f"{path.name} is not JSON ({error})") from None


def _other_versions(manifest: Mapping[str, Any]) -> list[str]:
    """A line for each package of which the two machines have different versions: it changes last digits, no more."""
    theirs, mine = manifest.get("versions"), versions()
    if not isinstance(theirs, dict):
        return []
    return [
        f"{name} was {theirs.get(name)!s:.40} where it was packed, and is {version} here"
        for name, version in mine.items()
        if theirs.get(name) != version
    ]


def _differences(packed: Any, mine: Mapping[str, Any]) -> str:
    """What two descriptions of a training differ in, in words; empty where they are equal."""
    theirs = packed if isinstance(packed, dict) else {}
    mine = json.loads(json.dumps(mine))
    return ", ".join(
        f"{name} is {_short(theirs.get(name))} there and {_short(mine.get(name))} here"
        for name in sorted({*theirs, *mine})
        if theirs.get(name) != mine.get(name)
    )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _listed(trainings: Any) -> str:
    return ", ".join(f"{arm} fold {fold}" for arm, fold in sorted(trainings)) or "nothing"


def _pretrainings(study: Study) -> list[Any]:
    """Those of the first repeat; the others are trained where the study runs."""
    jobs = [job for job in study.jobs("03_pretraining") if "repeat" not in job]
    return [study.notebook("03_pretraining", **job) for job in jobs]


def _files(study: Study) -> StudyPaths:
    return StudyPaths(study.content["work_dir"], study.content["study"])


def _below(files: StudyPaths, path: Path) -> str:
    return path.relative_to(files.work).as_posix()


def _text(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=2) + "\n"


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as handle:
        while piece := handle.read(PIECE):
            yield piece
