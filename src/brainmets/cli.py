"""The ``brainmets`` command and its subcommands, from ``prepare`` to ``unpack``.

Exit status: 0 done, 1 a step failed, 2 the request cannot be carried out (a wrong parameter, a missing folder), 130
stopped by Ctrl-C. An error that nobody foresaw ends with 1 and one line; its traceback lies in a private file, or is
shown where ``BRAINMETS_DEBUG`` is set.
"""

# Each command imports what it needs by itself: the parsers stay instant, and scoring needs no papermill.

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import traceback
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from brainmets import __version__
from brainmets.files import keep_private
from brainmets.params import ParameterError
from brainmets.params.bounds import PROCESSES, THRESHOLD
from brainmets.params.yaml_files import parse_value
from brainmets.places import require_apart, require_replaceable
from brainmets.processes import BusyError, locked
from brainmets.vocabulary import ARMS, LABELS, SEQUENCES, STRATEGIES, LesionDefinition

if TYPE_CHECKING:
    from brainmets.scoring.candidates import Detections

CANDIDATE_THRESHOLD = 0.1
"""Of ``brainmets score --probabilities``, where none is given."""
FROC_FILE, FROC_RESAMPLES = "froc.csv", 2_000
MOST_OF_A_FAULT = 300
"""Characters of an unforeseen error's text that are shown."""
Commands = Any
"""What ``ArgumentParser.add_subparsers`` gives."""


def main(argv: list[str] | None = None) -> int:
    """Run one command; gives its exit status."""
    words, further = _split(list(sys.argv[1:] if argv is None else argv))
    parser = _parser()
    if not words:
        parser.print_help(sys.stderr)
        return 2
    args = parser.parse_args(words)
    if further and args.command != "study":
        print(f"only 'brainmets study' takes options after --, not {args.command!r}", file=sys.stderr)
        return 2
    args.further = further
    keep_private()
    run: Callable[[argparse.Namespace], int] = args.run
    try:
        return run(args)
    except KeyboardInterrupt:
        print(f"\nbrainmets {args.command}: stopped; run it again to go on", file=sys.stderr)
        return 130
    except (ValueError, BusyError, OSError) as error:
        if debugging():
            raise
        print(f"brainmets {args.command}: {_in_words(error)}", file=sys.stderr)
        return 2
    except Exception as error:  # a fault of the program: it must be found, and its traceback may name patients
        if debugging():
            raise
        print(f"brainmets {args.command}: {_of_a_fault(error)}", file=sys.stderr)
        return 1


def debugging() -> bool:
    """Whether ``BRAINMETS_DEBUG`` asks for tracebacks."""
    return bool(os.environ.get("BRAINMETS_DEBUG"))


def _of_a_fault(error: Exception) -> str:
    """One line on an error that nobody foresaw; its traceback goes to a file that the user alone can read."""
    if isinstance(error, MemoryError):
        return "there is not enough memory; use fewer workers, or a machine with more"
    lines = traceback.format_exception(error)
    try:
        handle, name = tempfile.mkstemp(prefix="brainmets-fault-", suffix=".txt")
        with os.fdopen(handle, "w", encoding="utf-8", errors="replace") as file:
            file.writelines(lines)
    except OSError:  # a full disk
        return "".join(lines)
    text = " ".join(str(error).split())
    what = f"{type(error).__name__}: {text if len(text) <= MOST_OF_A_FAULT else text[:MOST_OF_A_FAULT] + '...'}"
    return (
        f"{what}. This is a fault of the program. Its traceback is in {name}, which you alone can read: report it, "
        "and take out what names a patient; BRAINMETS_DEBUG=1 shows it here"
    )


def _in_words(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="brainmets", description="A notebook laboratory for transfer learning.")
    parser.add_argument("--version", action="version", version=f"brainmets {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in (
        _add_prepare,
        _add_study,
        _add_stop,
        _add_notebook,
        _add_score,
        _add_report,
        _add_review,
        _add_export,
        _add_pack,
        _add_unpack,
        _add_bundle,
        _add_screen,
        _add_follow,
        _add_phantoms,
    ):
        add(commands)
    return parser


def _add_params(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("params", type=Path, help="the study's YAML, such as params/demo.yaml")


# --- prepare -----------------------------------------------------------------------------------------------------


def _add_prepare(commands: Commands) -> None:
    parser = commands.add_parser(
        "prepare",
        help="make prepared cases from raw scans",
        description="Make prepared cases (registered, without skull, on one grid, under new names) from a folder of "
        "DICOM trees, or of one folder per patient with NIfTI, MetaImage or NRRD files. What is done already is not "
        "done again. See docs/own_cohort.md.",
    )
    parser.add_argument("input", type=Path, metavar="INPUT", help="folder of raw scans")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="COHORT", help="folder of prepared cases, in BraTS naming"
    )
    parser.add_argument(
        "--private", type=Path, metavar="FOLDER",
        help="folder of series.csv, the key file, transforms and the quality page (default: COHORT.private)",
    )  # fmt: skip
    parser.add_argument(
        "--key-file", type=Path, metavar="CSV", help="who is who (default: key.csv in the private folder)"
    )
    parser.add_argument(
        "--labels", metavar="PATTERN", help="label maps, such as 'labels/{patient}.nii.gz', below INPUT or absolute"
    )
    parser.add_argument("--brain-masks", metavar="PATTERN", help="brain masks of your own, in the same way")
    parser.add_argument(
        "--sequences", nargs="+", default=list(SEQUENCES), metavar="SEQUENCE",
        help=f"what is prepared of each scan: t1c, and any of the others (default: {' '.join(SEQUENCES)})",
    )  # fmt: skip
    parser.add_argument(
        "--may-lack", nargs="+", default=[], metavar="SEQUENCE",
        help="those of them that a scan may be without: it is prepared all the same, and said to lack them",
    )  # fmt: skip
    parser.add_argument("--left-out", nargs="+", default=[], metavar="CASE", help="cases that are not prepared")
    parser.add_argument(
        "--accepted", nargs="+", default=[], metavar="CASE", help="cases whose flags you have looked at: no errors"
    )
    parser.add_argument("--prefix", default="case", help="begins the new case names (default: case)")
    parser.add_argument(
        "--space", choices=("template", "t1c"), default="template",
        help="grid of prepared cases: as the MNI152 template lies, or the t1c's own (default: template)",
    )  # fmt: skip
    parser.add_argument(
        "--spacing", type=float, nargs=3, metavar="MM", default=(1.0, 1.0, 1.0),
        help="voxel sides along R, A and S with --space template (default: 1 1 1)",
    )  # fmt: skip
    parser.add_argument(
        "--margin", type=float, default=4.0, metavar="MM", help="how far the brain mask is widened (default: 4)"
    )
    parser.add_argument("--bias-field", action="store_true", help="correct the scanner's shading (N4) first")
    parser.add_argument("--seed", type=int, default=1, help="of the registration's sampling (default: 1)")
    parser.add_argument(
        "--workers", type=int, metavar="N", help="patients at a time (default: as cores and memory allow)"
    )
    parser.set_defaults(run=_prepare)


def _prepare(args: argparse.Namespace) -> int:
    """Prepare, show the quality page; 1 where a case failed or its flags call for a look."""
    from brainmets import tables
    from brainmets.engine.devices import cpu_cores, memory_mb
    from brainmets.params import Cohort, Preparation, Raw
    from brainmets.paths import PreparationPaths
    from brainmets.preparation import batch, cohort_quality
    from brainmets.preparation.pipeline import Settings

    out = args.out.resolve()
    files = PreparationPaths((args.private or out.with_name(f"{out.name}.private")).resolve())
    key = args.key_file.resolve() if args.key_file else files.key
    others = (files.series, files.plan, files.findings, files.quality, files.quality_table, files.flags)
    private = {f"{path.name} of --private": path for path in others}
    require_apart({**private, "--key-file": key}, {"INPUT": args.input})
    raw = Raw(
        folder=str(args.input.resolve()), prefix=args.prefix, labels=args.labels, brain_masks=args.brain_masks,
        key_file=str(key) if args.key_file else None,
        left_out=args.left_out, accepted=args.accepted,
    )  # fmt: skip
    sequences, may_lack = _named("--sequences", args.sequences), _named("--may-lack", args.may_lack)
    if stray := [name for name in may_lack if name not in sequences]:
        raise ParameterError(f"--may-lack: {stray[0]} is not among --sequences ({', '.join(sequences)})")
    if "t1c" not in {*sequences} - {*may_lack}:
        raise ParameterError(
            f"--sequences {','.join(sequences)} --may-lack {','.join(may_lack) or 'none'}: every scan is laid onto "
            "its t1c: name t1c in --sequences, and not in --may-lack"
        )
    declaration = Cohort(folder=str(out), layout="brats", label_map={}, held_out=0, raw=raw, may_lack=may_lack)
    parameters = Preparation(
        study="prepare", work_dir=str(files.folder), seed=args.seed, sequences=sequences,
        source=declaration, target=declaration,
        cohort="target", case="", space=args.space, spacing_mm=args.spacing if args.space == "template" else None,
        mask_margin_mm=args.margin, bias_field=args.bias_field,
    )  # fmt: skip
    declaration, settings = parameters.declaration, Settings.of(parameters)
    _require_processes("--workers", args.workers)
    workers = args.workers or batch.most_at_a_time(cpu_cores(), memory_mb())
    failed = batch.prepare_cohort(declaration, files, settings, workers, lambda line: print(line, flush=True))
    flags = cohort_quality.review(declaration, files)
    prepared = len(tables.read(files.quality_table))
    print(f"{prepared} prepared case(s) in {args.out}; look at {files.quality} ({len(flags)} flag(s))")
    for case, reason in failed.items():
        print(f"brainmets prepare: {case}: {reason}", file=sys.stderr)
    return 1 if failed or (flags["severity"] == "error").any() else 0


def _named(option: str, given: Sequence[str]) -> list[Any]:
    """Sequences in channel order, given apart or as a list with commas; ``ParameterError`` for an unknown name."""
    names = [name for text in given for name in text.split(",") if name]
    if unknown := [name for name in names if name not in SEQUENCES]:
        raise ParameterError(f"{option}: {unknown[0]!r} is no sequence; those are {', '.join(SEQUENCES)}")
    if twice := [name for name in SEQUENCES if names.count(name) > 1]:
        raise ParameterError(f"{option}: {twice[0]} is named twice")
    return [name for name in SEQUENCES if name in names]


# --- study and notebook ------------------------------------------------------------------------------------------


def _add_study(commands: Commands) -> None:
    parser = commands.add_parser(
        "study",
        help="run every step of a study that is not done yet",
        description="Run every step of a study that is not done yet. Options after -- go to Snakemake.",
    )
    _add_params(parser)
    parser.add_argument(
        "--profile", default="local", help="local, slurm, or a folder with a Snakemake profile (default: local)"
    )
    parser.add_argument("-n", "--dry-run", action="store_true", help="say what would be run, and run nothing")
    parser.set_defaults(run=_study)


def _study(args: argparse.Namespace) -> int:
    from brainmets.engine import study

    return study.run(args.params, profile=args.profile, dry_run=args.dry_run, further=args.further)


def _add_stop(commands: Commands) -> None:
    parser = commands.add_parser(
        "stop",
        help="end what is at work on a study",
        description="End what is at work on a study: its engine, its steps and its jobs on a cluster, also those "
        "that a closed terminal, a dropped connection or a killed engine left. Nothing that is finished is lost; a "
        "training loses at most the epoch that it is in.",
    )
    _add_params(parser)
    parser.set_defaults(run=_stop)


def _stop(args: argparse.Namespace) -> int:
    from brainmets.engine.running import stop
    from brainmets.engine.steps import read_study
    from brainmets.paths import StudyPaths

    study = read_study(args.params)
    return stop(StudyPaths(study.content["work_dir"], study.content["study"]), study.origin)


def _add_notebook(commands: Commands) -> None:
    parser = commands.add_parser("notebook", help="run one notebook through papermill")
    parser.add_argument(
        "--threads", type=int, metavar="N", help="threads of the numeric libraries (default: all cores)"
    )
    parser.add_argument("name", help="03_pretraining, 03 or pretraining")
    _add_params(parser)
    parser.add_argument(
        "values", nargs="*", metavar="key=value", help="arm, fold, strategy, or a parameter to change for this run"
    )
    parser.set_defaults(run=_notebook)


def _notebook(args: argparse.Namespace) -> int:
    from brainmets.engine import notebook, steps
    from brainmets.engine.progress import StepError

    _require_processes("--threads", args.threads)
    name = notebook.find(args.name)
    try:
        executed = notebook.run(steps.read_study(args.params), name, _values(args.values), args.threads)
    except StepError as error:
        print(f"brainmets notebook: {error}", file=sys.stderr)
        return 1
    print(f"executed copy: {steps.shown(executed)}")
    return 0


def _split(words: list[str]) -> tuple[list[str], list[str]]:
    """Words before and after ``--``."""
    if "--" not in words:
        return words, []
    at = words.index("--")
    return words[:at], words[at + 1 :]


def _values(pairs: list[str]) -> dict[str, Any]:
    """``["fold=1", "arm=default"]`` as names and values, each value read as YAML."""
    values = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise ParameterError(f"{pair!r} must be key=value, such as arm=default")
        values[name] = parse_value(text, name)
    return values


# --- score -------------------------------------------------------------------------------------------------------


def _add_score(commands: Commands) -> None:
    parser = commands.add_parser(
        "score",
        help="score predicted label maps against references",
        description="Score predicted label maps (CASE.nii.gz) against references of the same names. "
        "Writes one row per case, region and metric; see docs/metrics.md.",
    )
    parser.add_argument("predictions", type=Path, metavar="PREDICTIONS", help="folder of predicted label maps")
    parser.add_argument("references", type=Path, metavar="REFERENCES", help="folder of reference label maps")
    parser.add_argument("--out", type=Path, required=True, metavar="CSV", help="scores table to write")
    parser.add_argument("--lesions", type=Path, metavar="CSV", help="lesion table to write")
    parser.add_argument(
        "--label-map",
        metavar="VALUE=NAME,...",
        help=f"the files' label values, such as 1=netc,2=snfh,3=et (names: {', '.join(LABELS)}); for both folders; "
        "without it files hold BraTS values since 2023, and a folder with 4 and without any 3 is refused",
    )
    parser.add_argument(
        "--missing",
        choices=("fail", "worst"),
        default="fail",
        help="a reference without a prediction: stop (fail), or score it as an empty prediction (worst)",
    )
    parser.add_argument(
        "--lesion-definition",
        choices=get_args(LesionDefinition),
        default="brats_2023",
        help="rules of the lesion-wise metrics (default: brats_2023)",
    )
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes, one case each (default: 1)")
    parser.add_argument("--arm", default="default", metavar="NAME", help="the table's arm column (default: default)")
    parser.add_argument(
        "--strategy", choices=STRATEGIES, default="finetune", help="the table's strategy column (default: finetune)"
    )
    screening = parser.add_argument_group("screening", "how many lesions are found at how many false positives")
    screening.add_argument(
        "--probabilities",
        type=Path,
        metavar="FOLDER",
        help="probabilities from 0 to 1: CASE.nii.gz, 4D, with the regions ET, TC and WT along the last axis, or one "
        "3D file per region, CASE_ET.nii.gz; prints the FROC by each rule of a hit, see docs/detection.md",
    )
    screening.add_argument(
        "--candidate-threshold",
        type=float,
        metavar="P",
        help=f"probability from which a voxel belongs to a candidate (default: {CANDIDATE_THRESHOLD:g})",
    )
    screening.add_argument(
        "--detection",
        type=Path,
        metavar="FOLDER",
        help="folder to write candidates.csv, targets.csv, overlaps.csv and froc.csv to",
    )
    parser.set_defaults(run=_score)


def _score(args: argparse.Namespace) -> int:
    """Score, write the tables, say what was excluded; after an error nothing is written."""
    from brainmets import tables
    from brainmets.scoring.folders import require_one_convention, score_folders
    from brainmets.scoring.screening import order_notes
    from brainmets.vocabulary import LESION_COLUMNS, SCORE_COLUMNS

    _require_processes("--workers", args.workers)
    named: dict[str, tuple[Path, Sequence[str]]] = {"--out": (args.out, SCORE_COLUMNS)}
    if args.lesions is not None:
        named["--lesions"] = (args.lesions, LESION_COLUMNS)
    named |= _screening_outputs(args)
    for option, (path, columns) in named.items():
        require_replaceable(option, path, ".csv", _table_with(columns), f"table of {', '.join(columns[:5])}, ...")
    inputs = {"PREDICTIONS": args.predictions, "REFERENCES": args.references}
    if args.probabilities is not None:
        inputs["--probabilities"] = args.probabilities
    require_apart({option: path for option, (path, _) in named.items()}, inputs)
    scores = score_folders(
        args.predictions,
        args.references,
        arm=args.arm,
        strategy=args.strategy,
        label_map=_label_map(args.label_map),
        missing=args.missing,
        lesion_definition=args.lesion_definition,
        workers=args.workers,
        progress=lambda line: print(line, file=sys.stderr, flush=True),
    )
    for note in require_one_convention(scores) if args.label_map is None else []:
        print(f"look at the labels: {note}", file=sys.stderr)
    screened = None if args.probabilities is None else _screen(args)
    for note in [] if screened is None else order_notes(screened):
        print(f"look at the probabilities: {note}", file=sys.stderr)
    tables.write(args.out, scores.table)
    if args.lesions is not None:
        tables.write(args.lesions, scores.lesions)
    for case in scores.missing:
        print(f"scored as an empty prediction: {case}", file=sys.stderr)
    for row in scores.excluded.itertuples():
        print(f"no value: {row.case} {row.region} {row.metric}: {row.reason}", file=sys.stderr)
    print(f"{len(scores.cases)} cases, {len(scores.table)} rows -> {args.out}")
    if screened is not None:
        _show_froc(screened, args.detection)
    return 0


def _screening_outputs(args: argparse.Namespace) -> dict[str, tuple[Path, Sequence[str]]]:
    """The tables below ``--detection`` with their columns; refuses options that say nothing without probabilities."""
    given = {"--candidate-threshold": args.candidate_threshold, "--detection": args.detection}
    if args.probabilities is None and (idle := [option for option, value in given.items() if value is not None]):
        raise ParameterError(f"{idle[0]}: needs --probabilities FOLDER")
    try:
        if args.candidate_threshold is not None:
            THRESHOLD.check(args.candidate_threshold, float)
    except ValueError as error:
        raise ParameterError(f"--candidate-threshold: {error}") from None
    if args.detection is None:
        return {}
    from brainmets.scoring.candidates import FILES
    from brainmets.statistics.froc_by_rule import COLUMNS

    tables = {name: list(schema.columns) for name, schema in FILES.items()} | {FROC_FILE: COLUMNS}
    return {f"--detection ({name})": (args.detection / name, columns) for name, columns in tables.items()}


def _screen(args: argparse.Namespace) -> Detections:
    """Candidates and reference lesions of every case."""
    from brainmets.scoring.screening import detect_folders

    return detect_folders(
        args.probabilities,
        args.references,
        arm=args.arm,
        strategy=args.strategy,
        threshold=CANDIDATE_THRESHOLD if args.candidate_threshold is None else args.candidate_threshold,
        label_map=_label_map(args.label_map),
        workers=args.workers,
        progress=lambda line: print(f"candidates, {line}", file=sys.stderr, flush=True),
    )


def _show_froc(detections: Detections, folder: Path | None) -> None:
    """Print the FROC, each case counting as a patient; with ``folder`` write it there, with the detections."""
    from brainmets import tables
    from brainmets.scoring.candidates import write_detections
    from brainmets.statistics.comparisons import Settings
    from brainmets.statistics.froc_by_rule import by_rule, lines

    froc = by_rule(detections, Settings(0.05, FROC_RESAMPLES, 1))
    if folder is not None:
        write_detections(folder, detections)
        tables.write(folder / FROC_FILE, froc)
    print("\n".join(lines(froc)))


def _table_with(columns: Sequence[str]) -> Callable[[Path], bool]:
    """Whether a file is a table that begins with the first five of these columns: those that every version wrote."""
    from brainmets import tables

    def ours(path: Path) -> bool:
        try:
            return tables.lines(path)[0][1][:5] == list(columns[:5])
        except ValueError:
            return False

    return ours


def _require_processes(option: str, number: int | None) -> None:
    """Refuse a number of processes or threads that no machine has."""
    try:
        if number is not None:
            PROCESSES.check(number)
    except ValueError as error:
        raise ParameterError(f"{option}: {error}") from None


def _label_map(text: str | None) -> dict[int, int] | None:
    """``"1=netc,2=snfh"`` to ``{1: 1, 2: 2}``; ``None`` stays ``None``; ``ParameterError`` names a wrong item."""
    if text is None:
        return None
    result: dict[int, int] = {}
    for item in text.split(","):
        value, equals, name = (part.strip() for part in item.partition("="))
        if not equals or not value.isdigit() or name not in LABELS:
            raise ParameterError(
                f"--label-map: {item.strip()!r} must be VALUE=NAME with a name of {', '.join(LABELS)}"
            )
        if int(value) in result:
            raise ParameterError(f"--label-map: {value} is given twice")
        result[int(value)] = LABELS[name]
    return result


# --- report, review and export -----------------------------------------------------------------------------------


def _add_report(commands: Commands) -> None:
    parser = commands.add_parser("report", help="make the report of a finished study")
    _add_params(parser)
    parser.set_defaults(run=_report)


def _report(args: argparse.Namespace) -> int:
    """The report as a step of its study: with a log that says how it ended."""
    from brainmets.engine.progress import logged
    from brainmets.engine.steps import command, read_study
    from brainmets.paths import StudyPaths, project_root
    from brainmets.report.build import ReportError, build, in_mb

    study = read_study(args.params)
    files = StudyPaths(study.content["work_dir"], study.content["study"])
    try:
        with (
            locked(files.step_lock("report"), f"the report of study {files.study}"),
            logged(files.runs / "report.log", command("report", study.origin)),
        ):
            index = build(files, study)
            print(f"report: {index.relative_to(project_root())}, {in_mb(index.parent)}")
    except ReportError as error:
        print(f"brainmets report: {error}", file=sys.stderr)
        return 1
    return 0


def _add_review(commands: Commands) -> None:
    parser = commands.add_parser(
        "review",
        help="write a blinded folder for experts, or read their rating sheets",
        description="Without --ratings: write every held-out case for 3D Slicer, two models blinded as A and B, with "
        "a rating sheet. With --ratings: read the sheets, unblind and summarise them.",
    )
    _add_params(parser)
    parser.add_argument(
        "--ratings", type=Path, metavar="FOLDER", help="folder of filled-in rating sheets (*.csv), or one sheet"
    )
    parser.set_defaults(run=_review)


def _review(args: argparse.Namespace) -> int:
    from brainmets.params.study import Study
    from brainmets.review import experts

    study = Study.read(args.params)
    if args.ratings is None:
        experts.hand_out(study)
    else:
        experts.read_back(study, args.ratings)
    return 0


def _add_export(commands: Commands) -> None:
    parser = commands.add_parser("export", help="write a trained arm as a stock nnU-Net model archive")
    _add_params(parser)
    parser.add_argument("arm", help=f"one of {', '.join(ARMS)}")
    parser.add_argument("strategy", choices=STRATEGIES, help="which of the arm's models")
    parser.add_argument("--out", type=_archive, required=True, metavar="model.zip", help="the archive to write")
    parser.set_defaults(run=_export)


def _archive(text: str) -> Path:
    if text.endswith("/") or Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is a folder; name the archive, such as {Path(text, 'model.zip')}")
    return Path(text)


def _export(args: argparse.Namespace) -> int:
    from brainmets.params.study import Study
    from brainmets.paths import StudyPaths
    from brainmets.training.export import export
    from brainmets.training.trainer import CheckpointError

    study = Study.read(args.params)
    if args.arm not in study.arms:
        raise ParameterError(f"{args.arm!r} is no arm of {args.params} (there: {', '.join(study.arms)})")
    files = StudyPaths(study.content["work_dir"], study.content["study"])
    require_replaceable("--out", args.out, ".zip", zipfile.is_zipfile, "archive")
    require_apart({"--out": args.out}, {"the study's folder": files.work})
    evaluation = study.content["evaluation"]
    options = evaluation["tile_step"], evaluation["mirroring"]
    try:
        out = export(files, args.arm, args.strategy, study.folds, args.out, *options)
    except CheckpointError as error:
        print(f"brainmets export: {error}", file=sys.stderr)
        return 1
    print(f"model archive: {out}, {out.stat().st_size / 1e6:.1f} MB; its README.txt says how to predict with it")
    return 0


# --- bundle --------------------------------------------------------------------------------------------------------


def _add_bundle(commands: Commands) -> None:
    parser = commands.add_parser(
        "bundle",
        help="write a model of a finished study as one file",
        description="Write a model of a finished study as one file: weights, plan, operating point, measured "
        "performance and what its training cohort looked like. See docs/screening.md.",
    )
    _add_params(parser)
    parser.add_argument("arm", help=f"one of {', '.join(ARMS)}")
    parser.add_argument("strategy", choices=STRATEGIES, help="which of the arm's models")
    parser.add_argument("--out", type=_archive, required=True, metavar="model.zip", help="the file to write")
    parser.add_argument(
        "--licence", metavar="TEXT", default="not declared",
        help="licence of the data that the model was trained on, in its owner's words (default: not declared)",
    )  # fmt: skip
    parser.set_defaults(run=_bundle)


def _bundle(args: argparse.Namespace) -> int:
    from brainmets.params.study import Study
    from brainmets.paths import StudyPaths
    from brainmets.screening import bundle

    study = Study.read(args.params)
    require_replaceable("--out", args.out, ".zip", bundle.is_one, "model bundle")
    require_apart(
        {"--out": args.out}, {"the study's folder": StudyPaths(study.content["work_dir"], study.content["study"]).work}
    )
    out = bundle.write(study, args.arm, args.strategy, args.out, args.licence)
    print(
        f"model: {out}, {out.stat().st_size / 1e6:.1f} MB; model_card.md in it says what it is and was measured to do"
    )
    return 0


# --- screen ------------------------------------------------------------------------------------------------------


def _add_screen(commands: Commands) -> None:
    parser = commands.add_parser(
        "screen",
        help="find lesions in the scans of new patients",
        description="Prepare scans as the model's training cohort was, look whether they are like it, predict, and "
        "write a folder for each: its page, lesion table, and the results on the source T1 after contrast. What is "
        "done already is not done again. Research use only. See docs/screening.md.",
    )
    parser.add_argument("model", type=Path, metavar="MODEL", help="what 'brainmets bundle' wrote")
    parser.add_argument(
        "input", type=Path, nargs="+", metavar="INPUT",
        help="folder of DICOM, of one patient's raw files, of one folder per patient, or of prepared cases",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="folder of results, your own (0700)")
    parser.add_argument(
        "--private", type=Path, metavar="FOLDER",
        help="folder of series.csv, the key file and the preparation's quality page (default: FOLDER/private)",
    )  # fmt: skip
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--prepared", dest="said", action="store_const", const="prepared", help="all are prepared cases")
    kind.add_argument("--raw", dest="said", action="store_const", const="raw", help="all are raw scans")
    parser.add_argument(
        "--brain-masks", metavar="PATTERN",
        help="brain masks of your own, such as '/data/masks/{patient}.nii.gz', absolute, or where every INPUT holds "
        "patients' folders below it",
    )  # fmt: skip
    parser.add_argument("--left-out", nargs="+", default=[], metavar="CASE", help="cases that are not screened")
    parser.add_argument(
        "--accepted", nargs="+", default=[], metavar="CASE",
        help="cases whose preparation you have looked at (quality.html): its flags refuse them no more",
    )  # fmt: skip
    parser.add_argument("--prefix", default="scan", help="begins the names of raw scans (default: scan)")
    parser.add_argument(
        "--workers", type=int, metavar="N", help="patients that are prepared at a time (default: as cores allow)"
    )
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="what predicts (default: a GPU if there is)"
    )
    parser.set_defaults(run=_screen_scans)


def _screen_scans(args: argparse.Namespace) -> int:
    """Screen, and say what was found; 1 where a scan was refused, failed, or waits for a person's decision."""
    from brainmets.engine.devices import cpu_cores, memory_mb
    from brainmets.preparation import batch
    from brainmets.screening import bundle, screen, source
    from brainmets.screening.reads import LEAST
    from brainmets.screening.scans import Options

    _require_processes("--workers", args.workers)
    out = args.out.resolve()
    private = args.private.resolve() if args.private else out / "private"
    places = {f"INPUT {path}": path for path in args.input}
    require_apart({"--out": out}, {"MODEL": args.model, **places})
    require_apart({"--private": private}, {"MODEL": args.model, **places})
    inputs = source.find(args.input, args.said, LEAST)  # before the model is read, which may take a while
    read = {**inputs.raw, **{case: scan.reference.parent for case, scan in inputs.prepared.items()}}
    for case, folder in read.items():
        where = folder.resolve()  # an INPUT may hold links to it
        for option, place in (("--out", out), ("--private", private)):
            if place.is_relative_to(where) or where.is_relative_to(place):
                raise ParameterError(f"{option}: {place} and the scans {case!r} lie one within the other")
    model = bundle.read(args.model)
    inputs = source.find(args.input, args.said, model.reads)
    for line in model.other_release():
        print(f"look at the model: {line}", file=sys.stderr)
    options = Options(
        out, private, args.brain_masks, args.prefix, tuple(args.left_out), tuple(args.accepted),
        args.workers or batch.most_at_a_time(cpu_cores(), memory_mb()),
    )  # fmt: skip
    outcome = screen.screen(model, inputs, options, screen.device(args.device), lambda line: print(line, flush=True))
    print(f"{len(outcome.screened)} scan(s) screened; open {args.out / 'worklist.html'}. Research use only.")
    for case, reasons in outcome.refused.items():
        print(f"brainmets screen: {case} was refused: {'; '.join(reasons)}", file=sys.stderr)
    for case, why in outcome.failed.items():
        print(f"brainmets screen: {case}: {why}", file=sys.stderr)
    return 1 if outcome.refused or outcome.failed or not outcome.screened else 0


# --- follow and phantoms -------------------------------------------------------------------------------------------


def _add_follow(commands: Commands) -> None:
    parser = commands.add_parser(
        "follow",
        help="follow a patient's lesions over dates",
        description="Lay the screened scans of one patient upon each other, match their lesions, and write a page, a "
        "table and a record: volumes and diameters over time, what is new, gone, split or merged, and the imaging "
        "part of RANO-BM. Research use only. See docs/follow_up.md.",
    )
    parser.add_argument(
        "folders", type=Path, nargs="+", metavar="FOLDER", help="screened folders of one patient, two dates or more"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="folder to write the follow-up to")
    parser.add_argument(
        "--dates", nargs="+", metavar="DATE",
        help="when each folder's scan was taken, such as 2026-01-05, in the folders' order (default: as recorded)",
    )  # fmt: skip
    parser.add_argument(
        "--repeatability", type=float, metavar="PERCENT",
        help="change of volume that two scans of an unchanged lesion may show (default: as measured on phantoms)",
    )  # fmt: skip
    parser.add_argument(
        "--immunotherapy", action="store_true", help="a new lesion alone is not progression under immunotherapy"
    )
    parser.set_defaults(run=_follow)


def _follow(args: argparse.Namespace) -> int:
    from brainmets.screening import followup
    from brainmets.screening.rano import CATEGORY_TITLES
    from brainmets.screening.repeatability import DECLARED, Repeatability

    known = DECLARED if args.repeatability is None else Repeatability.of_percent(args.repeatability)
    found = followup.run(
        args.folders, args.out, args.dates, known, immunotherapy=args.immunotherapy,
        say=lambda line: print(line, flush=True),
    )  # fmt: skip
    for visit, one in zip(found.visits, found.assessments, strict=True):
        print(f"{visit.day}: {CATEGORY_TITLES[one.category]} (imaging part): {one.why}")
    for warning in found.warnings:
        print(f"brainmets follow: {warning}", file=sys.stderr)
    print(f"look at {args.out / 'index.html'}")
    return 0


def _add_phantoms(commands: Commands) -> None:
    parser = commands.add_parser(
        "phantoms",
        help="write scanner phantoms to try the commands on",
        description="Write phantoms as they leave a scanner: dicom/, labels/, brain_masks/ and truth.json. With more "
        "dates than one, the lesions have known histories. No study of this repository trains on those of the "
        "default seed.",
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder to write, which must not be there yet")
    parser.add_argument("--patients", type=int, default=1, metavar="N", help="how many (default: 1)")
    parser.add_argument(
        "--spacing", type=float, default=3.0, metavar="MM", help="voxel side: 1 is full size (default: 3)"
    )
    parser.add_argument("--seed", type=int, metavar="N", help="draws other patients (default: 2026)")
    parser.add_argument("--dates", type=int, default=1, metavar="N", help="scans of each patient (default: 1)")
    parser.set_defaults(run=_phantoms)


def _phantoms(args: argparse.Namespace) -> int:
    from brainmets.phantoms.histories import DEFAULT_SEED, make_history_cohort
    from brainmets.phantoms.scanner import make_scanner_cohort

    seed = DEFAULT_SEED if args.seed is None else args.seed
    if seed < 0:
        raise ParameterError(f"--seed: {seed} must be 0 or more")
    if args.dates < 1:
        raise ParameterError(f"--dates: {args.dates} must be 1 or more")

    def say(line: str) -> None:
        print(line, flush=True)

    if args.dates == 1:
        make_scanner_cohort(args.folder, args.patients, args.spacing, seed, progress=say)
    else:
        make_history_cohort(args.folder, args.patients, args.spacing, seed, args.dates, progress=say)
    print(f"{args.folder}: {args.patients} patient(s), {args.dates} date(s); truth.json says what is in them")
    return 0


# --- pack and unpack ---------------------------------------------------------------------------------------------


def _add_pack(commands: Commands) -> None:
    parser = commands.add_parser(
        "pack",
        help="pack the plan or the pretrainings for another machine",
        description="Write an archive to carry to another machine: 'plan' holds what notebook 03 needs there (the "
        "source cohort's preprocessed cases and the plan), 'pretraining' the models that it trained. See "
        "docs/own_cohort.md.",
    )
    parser.add_argument("kind", choices=("plan", "pretraining"), metavar="KIND", help="plan or pretraining")
    _add_params(parser)
    parser.add_argument("--out", type=_archive, required=True, metavar="file.zip", help="the archive to write")
    parser.set_defaults(run=_pack)


def _pack(args: argparse.Namespace) -> int:
    from brainmets.params.study import Study
    from brainmets.training import handover

    handover.pack(Study.read(args.params), args.kind, args.out)
    return 0


def _add_unpack(commands: Commands) -> None:
    parser = commands.add_parser(
        "unpack",
        help="put what another machine packed into the study",
        description="Check every file of an archive of 'brainmets pack', and whether it belongs to this study; then "
        "put it into the study's folder, all or nothing.",
    )
    parser.add_argument("archive", type=Path, metavar="file.zip", help="the archive")
    _add_params(parser)
    parser.set_defaults(run=_unpack)


def _unpack(args: argparse.Namespace) -> int:
    from brainmets.params.study import Study
    from brainmets.training import handover

    handover.unpack(args.archive, Study.read(args.params))
    return 0


if __name__ == "__main__":
    sys.exit(main())
