"""Renew what the README shows of the demonstration: the table of means, and the figure in docs/images/demonstration/.

    make study && .venv/bin/python docs/renew_demonstration.py

A study writes to work/ and reports/, which git ignores; this copies the few results that are kept in git.
"""

from __future__ import annotations

import re
import shutil
import sys

import pandas as pd

from brainmets.paths import StudyPaths, project_root
from brainmets.vocabulary import ARMS, REGIONS, STRATEGIES, STRATEGY_TITLES, arm_title, ordered

FIGURES = ("mean_dice.png", "froc.png")
TABLE = re.compile(r"(?<=<!-- demonstration: table -->\n).*?(?=<!-- demonstration: end -->)", re.DOTALL)
COLUMNS = [(metric, region) for metric in ("dice", "hd95") for region in REGIONS]


def table(descriptive: pd.DataFrame) -> str:
    """The README's table, one line per model, from ``descriptive.csv``; ``KeyError`` where one is missing."""
    means = descriptive.set_index(["arm", "strategy", "metric", "region"])["mean"]
    titles = [f"Dice {region}" for region in REGIONS] + [f"HD95 {region}, mm" for region in REGIONS]
    lines = [f"| arm | training | {' | '.join(titles)} |", f"|---|---|{'---|' * len(titles)}"]
    for arm in ARMS:
        for strategy in ordered(descriptive["strategy"], STRATEGIES):
            model = [means[arm, strategy, metric, region] for metric, region in COLUMNS]
            cells = [f"{mean:.3f}" for mean in model[: len(REGIONS)]] + [
                f"{mean:.1f}" for mean in model[len(REGIONS) :]
            ]
            lines.append(f"| {arm_title(arm)} | {STRATEGY_TITLES[strategy]} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the README's table and copy the figures; stops where the demonstration is not finished."""
    root, files = project_root(), StudyPaths("work", "demo")
    descriptive = files.statistics / "descriptive.csv"
    if not files.index.is_file():
        sys.exit("the demonstration is not finished: reports/demo/index.html is missing; run make study first")
    readme = root / "README.md"
    new = table(pd.read_csv(descriptive))
    text, found = TABLE.subn(lambda _: new, readme.read_text(encoding="utf-8"))
    if found != 1:
        sys.exit("README.md must hold <!-- demonstration: table --> and <!-- demonstration: end -->, each once")
    readme.write_text(text, encoding="utf-8")
    for name in FIGURES:
        shutil.copyfile(files.report / "figures" / name, root / "docs" / "images" / "demonstration" / name)
    print(f"README.md and {len(FIGURES)} figure(s) now show reports/demo")


if __name__ == "__main__":
    main()
