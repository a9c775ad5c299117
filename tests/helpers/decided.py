"""A declared rule and what it decides, for the statistics' tests."""

import pandas as pd

from brainmets.params import Decision
from brainmets.statistics import decision, power
from brainmets.statistics.comparisons import Settings
from brainmets.statistics.conclusions import Decided
from brainmets.statistics.declared import Declared

BEFORE = Declared("before training", time="2026-01-01T00:00:00+00:00")
NO_OPERATING_POINT = "no operating point was chosen"


def rule(metric="dice", region="TC", margin=0.05, alpha=0.025, secondary=()) -> Decision:
    """The rule; ``secondary`` are pairs of metric and region."""
    further = [{"metric": one, "region": where} for one, where in secondary]
    return Decision(endpoint={"metric": metric, "region": region}, margin=margin, alpha=alpha, secondary=further)


def decided(
    scores: pd.DataFrame, settings: Settings, declared: Declared = BEFORE, plan: bool = True, **of_rule: object
) -> Decided:
    """What ``rule(**of_rule)`` decides; without ``plan`` there are no rows of cases needed."""
    one = rule(**of_rule)  # type: ignore[arg-type]
    table = decision.decide(scores, one, settings, None, NO_OPERATING_POINT)
    needed = power.cases_needed(scores, one, settings) if plan else pd.DataFrame(columns=power.POWER_COLUMNS)
    return Decided(one, declared, table, needed)
