"""Renew what the README shows of two studies: tables between markers, and figures in docs/images/demonstration/.

    make study && .venv/bin/python docs/renew_demonstration.py
    make small_lesions && .venv/bin/python docs/renew_demonstration.py small_lesions

A study writes to work/ and reports/, which git ignores; this copies the few results that are kept in git.
"""

from __future__ import annotations

import re
import shutil
import sys

import pandas as pd

from brainmets.paths import StudyPaths, project_root
from brainmets.statistics.froc import ALL_SIZES
from brainmets.statistics.small_lesions import AT_RATE, BASELINE, FINE_TUNED, GAIN, LOSS, NOT_SHOWN
from brainmets.statistics.tests import percent
from brainmets.vocabulary import ARMS, REGIONS, STRATEGIES, STRATEGY_TITLES, arm_title, ordered

FIGURES = {"demo": ("mean_dice.png", "froc.png"), "small_lesions": ("small_lesions.png",)}
"""By study: the files of its report that docs/images/demonstration/ keeps."""
MARKS = {"demo": "demonstration", "small_lesions": "small lesions"}
"""By study: its table stands in README.md between ``<!-- mark: table -->`` and ``<!-- mark: end -->``."""
COLUMNS = [(metric, region) for metric in ("dice", "hd95") for region in REGIONS]


def table(descriptive: pd.DataFrame) -> str:
    """The README's table, one line per model, from ``descriptive.csv``; ``KeyError`` where one is missing."""
    means = descriptive.set_index(["arm", "strategy", "metric", "region"])["mean"]
    titles = [f"Dice {region}" for region in REGIONS] + [f"HD95 {region}, mm" for region in REGIONS]
    lines = [f"| arm | training | {' | '.join(titles)} |", f"|---|---|{'---|' * len(titles)}"]
    for arm in ordered(descriptive["arm"], ARMS):
        for strategy in ordered(descriptive["strategy"], STRATEGIES):
            model = [means[arm, strategy, metric, region] for metric, region in COLUMNS]
            cells = [f"{mean:.3f}" for mean in model[: len(REGIONS)]] + [
                f"{mean:.1f}" for mean in model[len(REGIONS) :]
            ]
            lines.append(f"| {arm_title(arm)} | {STRATEGY_TITLES[strategy]} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def small_lesions(found: pd.DataFrame) -> str:
    """The README's table of arms in small lesions, one line per fine-tuned arm, from ``small_lesions.csv``.

    ``KeyError`` where a column is missing, ``ValueError`` where the baseline is not there once.
    """
    rows = found[(found["at"] == AT_RATE) & (found["strategy"] == FINE_TUNED)]
    verdicts = rows["verdict"].isin([GAIN, LOSS, NOT_SHOWN, BASELINE])
    small = rows.loc[verdicts, "size"].iloc[0]
    every = rows[rows["size"] == ALL_SIZES.name].set_index("arm")["sensitivity"]
    own = rows[rows["size"] == small]
    (baseline,) = own.loc[own["verdict"] == BASELINE, "arm"]
    (level,) = own["level"].dropna().unique()
    less = f"less {arm_title(baseline)} ({percent(level)} interval; of trainings anew)"
    below = small.replace("<", "below ")
    titles = ["arm", f"sensitivity {below}", "lowest to highest training", less, "by the rule", "all sizes"]
    lines = [f"| {' | '.join(titles)} |", "|" + "---|" * len(titles)]
    for arm in ordered(own["arm"], ARMS):
        (row,) = own[own["arm"] == arm].to_dict("records")
        ends = [f"{row[f'{which}low']:+.3f} to {row[f'{which}high']:+.3f}" for which in ("", "retrained_")]
        less = "" if arm == baseline else f"{row['difference']:+.3f} ({'; '.join(ends)})"
        cells = [arm_title(arm), f"{row['sensitivity']:.3f}", f"{row['lowest']:.3f} to {row['highest']:.3f}", less]
        cells += [row["verdict"], f"{every[arm]:.3f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def replaced(text: str, mark: str, table: str) -> str:
    """``text`` with the table between its marks; stops where they are not there once."""
    between = re.compile(rf"(?<=<!-- {mark}: table -->\n).*?(?=<!-- {mark}: end -->)", re.DOTALL)
    new, found = between.subn(lambda _: table, text)
    if found != 1:
        sys.exit(f"README.md must hold <!-- {mark}: table --> and <!-- {mark}: end -->, each once")
    return new


def main() -> None:
    """Write the README's table of a study and copy its figures; stops where the study is not finished."""
    name = sys.argv[1] if len(sys.argv) > 1 else "demo"
    if name not in FIGURES:
        sys.exit(f"{name}: must be one of {', '.join(FIGURES)}")
    root, files = project_root(), StudyPaths("work", name)
    if not files.index.is_file():
        sys.exit(f"the study is not finished: reports/{name}/index.html is missing; run it first (README.md)")
    if name == "demo":
        new = table(pd.read_csv(files.statistics / "descriptive.csv"))
    else:
        new = small_lesions(pd.read_csv(files.statistics / "small_lesions.csv"))
    readme = root / "README.md"
    readme.write_text(replaced(readme.read_text(encoding="utf-8"), MARKS[name], new), encoding="utf-8")
    for figure in FIGURES[name]:
        shutil.copyfile(files.report / "figures" / figure, root / "docs" / "images" / "demonstration" / figure)
    print(f"README.md and {len(FIGURES[name])} figure(s) now show reports/{name}")


if __name__ == "__main__":
    main()
