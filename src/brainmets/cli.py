"""The ``brainmets`` command: ``study``, ``notebook``, ``score``, ``report``, ``review`` and ``export``.

Exit status: 0 done, 1 a step failed, 2 the request cannot be carried out (a wrong parameter, a missing folder).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import yaml

from brainmets import __version__
from brainmets.params import ParameterError
from brainmets.processes import BusyError

ELSEWHERE = {
    "score": "score predicted label maps against references",
    "report": "make the report of a finished study",
    "review": "write a blinded folder for experts, or read their rating sheets",
    "export": "write a trained arm as a stock nnU-Net model archive",
}
"""Commands that other modules declare and run, imported only when they are asked for: scoring needs no papermill."""


def main(argv: list[str] | None = None) -> int:
    """Run one command; gives its exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    words, further = _split(words)
    if not words:
        _parser("").print_help(sys.stderr)
        return 2
    args = _parser(words[0] if words else "").parse_args(words)
    if further and args.command != "study":
        print(f"only 'brainmets study' takes options after --, not {args.command!r}", file=sys.stderr)
        return 2
    try:
        return _dispatch(args, further)
    except (ParameterError, BusyError, OSError) as error:
        print(f"brainmets {args.command}: {_in_words(error)}", file=sys.stderr)
        return 2


def _in_words(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def _dispatch(args: argparse.Namespace, further: list[str]) -> int:
    if args.command == "study":
        from brainmets.engine import study

        return study.run(args.params, profile=args.profile, dry_run=args.dry_run, further=further)
    if args.command == "notebook":
        return _notebook(args)
    if args.command == "report":
        return _report(args)
    if args.command == "review":
        from brainmets.review.expert_command import run_review

        return run_review(args)
    if args.command == "export":
        from brainmets.training.export import run_export

        return run_export(args)
    from brainmets.scoring.command import run_score

    return run_score(args)


def _report(args: argparse.Namespace) -> int:
    """The report as a step of its study: with a log that says how it ended."""
    from brainmets.engine.journal import logged
    from brainmets.engine.steps import command, read_study
    from brainmets.paths import StudyPaths
    from brainmets.report.build import ReportError, run_report

    study = read_study(args.params)
    files = StudyPaths(study.content["work_dir"], study.content["study"])
    try:
        with logged(files.runs / "report.log", command("report", study.origin)):
            return run_report(args)
    except ReportError as error:
        print(f"brainmets report: {error}", file=sys.stderr)
        return 1


def _notebook(args: argparse.Namespace) -> int:
    from brainmets.engine import notebook, steps
    from brainmets.engine.journal import StepError

    name = notebook.find(args.name)
    try:
        executed = notebook.run(steps.read_study(args.params), name, _values(args.values), args.threads)
    except StepError as error:
        print(f"brainmets notebook: {error}", file=sys.stderr)
        return 1
    print(f"executed copy: {steps.shown(executed)}")
    return 0


def _parser(command: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="brainmets", description="A notebook laboratory for transfer learning.")
    parser.add_argument("--version", action="version", version=f"brainmets {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    study = commands.add_parser(
        "study",
        help="run every step of a study that is not done yet",
        description="Run every step of a study that is not done yet. Options after -- go to Snakemake.",
    )
    study.add_argument("params", type=Path, help="the study's YAML, such as params/demo.yaml")
    study.add_argument(
        "--profile", default="local", help="local, slurm, or a folder with a Snakemake profile (default: local)"
    )
    study.add_argument("-n", "--dry-run", action="store_true", help="say what would be run, and run nothing")

    one = commands.add_parser("notebook", help="run one notebook through papermill")
    one.add_argument("--threads", type=int, metavar="N", help="threads of the numeric libraries (default: all cores)")
    one.add_argument("name", help="03_pretraining, 03 or pretraining")
    one.add_argument("params", type=Path, help="the study's YAML, such as params/demo.yaml")
    one.add_argument(
        "values", nargs="*", metavar="key=value", help="arm, fold, strategy, or a parameter to change for this run"
    )
    if command == "score":
        from brainmets.scoring.command import add_score_command

        add_score_command(commands)
    if command == "report":
        from brainmets.report.build import add_report_command

        add_report_command(commands)
    if command == "review":
        from brainmets.review.expert_command import add_review_command

        add_review_command(commands)
    if command == "export":
        from brainmets.training.export import add_export_command

        add_export_command(commands)
    for name in sorted(ELSEWHERE.keys() - {command}):
        commands.add_parser(name, help=ELSEWHERE[name])
    return parser


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
        values[name] = yaml.safe_load(text)
    return values


if __name__ == "__main__":
    sys.exit(main())
