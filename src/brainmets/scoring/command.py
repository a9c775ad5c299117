"""``brainmets score``: the command line of ``brainmets.scoring.folders``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from brainmets.atomic import write_csv
from brainmets.regions import LABELS

# pandas, nibabel and scipy are imported by run_score alone: building the parser must stay instant


def add_score_command(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``score`` to a command line; ``run_score`` runs it (set as the default ``run``)."""
    parser = subparsers.add_parser(
        "score",
        help="score a folder of predicted label maps against a folder of references",
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
        "without it files hold BraTS values",
    )
    parser.add_argument(
        "--missing",
        choices=("fail", "worst"),
        default="fail",
        help="a reference without a prediction: stop (fail), or score it as an empty prediction (worst)",
    )
    parser.add_argument(
        "--lesion-definition",
        choices=("brats_2023", "brats_2026"),
        default="brats_2023",
        help="rules of the lesion-wise metrics (default: brats_2023)",
    )
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes, one case each (default: 1)")
    parser.add_argument("--arm", default="default", metavar="NAME", help="the table's arm column (default: default)")
    parser.add_argument(
        "--strategy",
        choices=("finetune", "scratch"),
        default="finetune",
        help="the table's strategy column (default: finetune)",
    )
    parser.set_defaults(run=run_score)


def parse_label_map(text: str | None) -> dict[int, int] | None:
    """``"1=netc,2=snfh"`` to ``{1: 1, 2: 2}``; ``None`` stays ``None``; ``ValueError`` names a wrong item."""
    if text is None:
        return None
    result: dict[int, int] = {}
    for item in text.split(","):
        value, equals, name = (part.strip() for part in item.partition("="))
        if not equals or not value.isdigit() or name not in LABELS:
            raise ValueError(f"--label-map: {item.strip()!r} must be VALUE=NAME with a name of {', '.join(LABELS)}")
        if int(value) in result:
            raise ValueError(f"--label-map: {value} is given twice")
        result[int(value)] = LABELS[name]
    return result


def run_score(args: argparse.Namespace) -> int:
    """Score, write the tables, say what was excluded. Status 0; 2 after an error, with nothing written."""
    from brainmets.scoring.folders import score_folders

    try:
        scores = score_folders(
            args.predictions,
            args.references,
            arm=args.arm,
            strategy=args.strategy,
            label_map=parse_label_map(args.label_map),
            missing=args.missing,
            lesion_definition=args.lesion_definition,
            workers=args.workers,
            progress=lambda line: print(line, file=sys.stderr, flush=True),
        )
        write_csv(args.out, scores.table)
        if args.lesions is not None:
            write_csv(args.lesions, scores.lesions)
    except (ValueError, OSError) as error:
        print(f"brainmets score: {error}", file=sys.stderr)
        return 2
    for case in scores.missing:
        print(f"scored as an empty prediction: {case}", file=sys.stderr)
    for row in scores.excluded.itertuples():
        print(f"no value: {row.case} {row.region} {row.metric}: {row.reason}", file=sys.stderr)
    print(f"{len(scores.cases)} cases, {len(scores.table)} rows -> {args.out}")
    return 0
