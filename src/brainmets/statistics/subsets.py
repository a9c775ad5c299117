"""How well a model does with the sequences that a case has: held-out cases by their set, and what each set costs.

``occurring``: the cases as they are, grouped by the sequences that they have. ``made``: cases predicted again with
some of their sequences left out, each beside its own prediction with all that it has.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from brainmets import schemas
from brainmets.paths import StudyPaths
from brainmets.statistics.paired_measures import measured
from brainmets.vocabulary import SEQUENCE_TITLES, SEQUENCES, Model, model_title

COLUMNS = list(schemas.SUBSETS.columns)
OUTSIDE = "outside what it learnt"
"""Of a set of sequences that no training case had, where no sequence was dropped in training either."""


def name_of(sequences: Iterable[str]) -> str:
    """A set's name in tables and folders.

    >>> name_of(["t2f", "t1c"])
    't1c+t2f'
    """
    given = set(sequences)
    return "+".join(sequence for sequence in SEQUENCES if sequence in given)


def title_of(name: str) -> str:
    """A set's name for readers.

    >>> title_of("t1c+t2f")
    'T1 after contrast + FLAIR'
    """
    return " + ".join(SEQUENCE_TITLES[sequence] for sequence in name.split("+"))


def occurring(
    scores: pd.DataFrame,
    sequences: Mapping[str, Sequence[str]],
    patients: Mapping[str, str],
    learnt: Collection[str] | None,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """One model's scores by the set of sequences that the cases have; ``sequences``: by case. Columns: ``COLUMNS``.

    ``learnt``: names of the sets that it was trained on; None where any was, by sequence dropout. Sets stand from the
    largest down. Raises ``ValueError`` for a scored case whose sequences are not given.
    """
    names = scores["case"].astype(str)
    if unknown := sorted(set(names) - set(sequences)):
        raise ValueError(f"sequences: nothing says which {', '.join(unknown)} has")
    of_case = names.map({case: name_of(given) for case, given in sequences.items()})
    rows = [
        row
        for subset in sorted(set(of_case), key=_largest_first)
        for row in _rows(scores[of_case == subset], None, subset, patients, learnt, confidence)
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def made(
    by_subset: Mapping[str, pd.DataFrame],
    whole: pd.DataFrame,
    patients: Mapping[str, str],
    learnt: Collection[str] | None,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """One model's scores of cases predicted with fewer sequences, by the name of the set that was left.

    Columns and ``learnt`` as in ``occurring``. ``whole``: its scores of the same cases with all they have.
    ``difference``: with the set less with all, paired by case, so that it is below 0 where a Dice is lost.
    """
    rows = [
        row
        for subset in sorted(by_subset, key=_largest_first)
        for row in _rows(
            by_subset[subset],
            whole[whole["case"].isin(by_subset[subset]["case"])],
            subset,
            patients,
            learnt,
            confidence,
        )
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def _rows(
    scores: pd.DataFrame,
    whole: pd.DataFrame | None,
    subset: str,
    patients: Mapping[str, str],
    learnt: Collection[str] | None,
    confidence: float,
) -> list[tuple[object, ...]]:
    model = scores[["arm", "strategy"]].iloc[0]
    outside = OUTSIDE if learnt is not None and subset not in learnt else ""
    full = {} if whole is None else {(one.region, one.measure): one for one in measured(whole)}
    rows: list[tuple[object, ...]] = []
    for one in measured(scores):
        whose = {patients.get(str(case), str(case)) for case in one.part.index}
        lost = (float("nan"),) * 3 if whole is None else one.less(full[one.region, one.measure], patients, confidence)
        rows.append(
            (*model, subset, "occurring" if whole is None else "made", one.region, one.measure, len(one.part),
             len(whose), one.value, *one.interval(patients, confidence), *lost, outside)
        )  # fmt: skip
    return rows


def _largest_first(name: str) -> tuple[int, list[int]]:
    parts = name.split("+")
    return -len(parts), [SEQUENCES.index(part) for part in parts]


def tables_of(files: StudyPaths, models: Iterable[Model]) -> list[Path]:
    """The tables (``schemas.SUBSETS``) that notebook 06 wrote for these models; a model may have none."""
    paths = [files.subsets(*model) for model in models]
    return [path for path in paths if path.is_file()]


def sentence(table: pd.DataFrame) -> str:
    """What the table holds, and which models were asked for more than they learnt, in words."""
    if table.empty:
        return "Nothing is known of sets of sequences: scores from elsewhere, or a study of an earlier version."
    sets = list(dict.fromkeys(table["subset"]))
    told = (
        f"All held-out cases have the same sequences: {title_of(sets[0])}."
        if len(sets) == 1
        else f"{len(sets)} sets of sequences: {'; '.join(map(title_of, sets))}."
    )
    outside = table[table["note"] == OUTSIDE]
    if len(outside):
        models = dict.fromkeys(outside[["arm", "strategy"]].itertuples(index=False, name=None))
        titles = "; ".join(model_title(*model) for model in models)
        told += (
            f" Sets marked as outside what was learnt were in no training case of {titles}, which "
            f"{'was' if len(models) == 1 else 'were'} trained without sequence dropout: there the table says what "
            "happens to a network that is given what it never saw, not what a network can do with these sequences."
        )
    return told
