"""The limits of every number among the parameters: one pair each, with its reason, said in the message.

A type here is the number's type with its ``Limits``: ``seed: Seed``. A truth value, a text, infinity, NaN and a number
beyond the limits are refused alike, with the value and what is allowed.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BeforeValidator, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

LONGEST = 80
"""Characters of a value that a message repeats."""


@dataclass(frozen=True)
class Limits:
    """The lowest and the highest value that a number may have, and why; ``multiple_of`` where only some fit."""

    low: float
    high: float
    because: str
    multiple_of: int = 1

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """What pydantic runs: ``check`` before anything that would turn text or truth values into numbers."""
        return core_schema.no_info_before_validator_function(lambda value: self.check(value, source), handler(source))

    def check(self, value: Any, kind: type = int) -> Any:
        """``value`` itself. Raises ``ValueError`` unless it is a number of ``kind`` (int or float) within the limits.

        A whole number is a float too; a float is no whole number, 3.0 included.
        """
        if isinstance(value, str) and re.fullmatch(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", value):
            raise ValueError(f"{shown(value)} is text; write the number without quotes")
        number = isinstance(value, int if kind is int else int | float) and not isinstance(value, bool)
        if not number or not self.low <= value <= self.high or (kind is int and value % self.multiple_of):
            raise ValueError(f"{shown(value)} must be {self.words(kind)}")
        return value

    def words(self, kind: type = int) -> str:
        """What is allowed: ``a whole number from 1 to 512 (more than any machine has cores)``."""
        what = "a number" if kind is float else "a whole number"
        if kind is int and self.multiple_of > 1:
            what = f"a multiple of {self.multiple_of}"
        low, high = (f"{end:,}" if isinstance(end, int) else f"{end:g}" for end in (self.low, self.high))
        return f"{what} from {low} to {high} ({self.because})"


def shown(value: Any) -> str:
    """A value as a message repeats it: as it is written in YAML, cut where it is long.

    >>> shown(True), shown(None), shown("1")
    ('true', 'nothing', "'1'")
    """
    if value is None or isinstance(value, bool):
        return "nothing" if value is None else str(value).lower()
    if isinstance(value, int) and value.bit_length() > 4 * LONGEST:  # Python refuses to write the longest out
        return f"a number of about {int(value.bit_length() * math.log10(2)) + 1:,} digits"
    text = repr(value)
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."


def _whole_of_text(value: Any) -> Any:
    return int(value) if isinstance(value, str) and re.fullmatch(r"\d{1,9}", value) else value


# --- drawing, cohorts ----------------------------------------------------------------------------------------------

Seed = Annotated[int, Limits(0, 2**31 - 1, "what NumPy, torch and ITK all take as a seed")]
CASES = Limits(0, 100_000, "more cases than any cohort has")
Cases = Annotated[int, CASES]
LabelValue = Annotated[
    int, Limits(0, 65_535, "the largest 16-bit label"), BeforeValidator(_whole_of_text)
]  # papermill makes the keys of a dictionary text
"""A value in the files, given as the name of an entry."""
Folds = Annotated[int, Limits(2, 100, "each fold is five trainings an arm")]
Fold = Annotated[int, Limits(0, 99, "counted from 0, below audit.n_folds")]
Patients = Annotated[int, Limits(1, 10_000, "each is drawn and written, four images of it")]
LesionFreePatients = Annotated[int, Limits(0, 10_000, "further patients, each drawn and written like the others")]
PhantomSide = Annotated[float, Limits(0.4, 5, "mm; finer ones fill the memory, coarser ones lose the lesions")]
RawPhantomSide = Annotated[float, Limits(0.8, 5, "mm; finer ones fill the memory, coarser ones lose the head")]

# --- preparation ---------------------------------------------------------------------------------------------------

Side = Annotated[float, Limits(0.2, 5, "mm; finer ones fill the memory, coarser ones lose the lesions")]
Margin = Annotated[float, Limits(0, 30, "mm; further out lies no brain")]

# --- planning and training -----------------------------------------------------------------------------------------

LearningRate = Annotated[float, Limits(1e-9, 10, "below it no weight changes in float32, above it none stays finite")]
LossWeight = Annotated[float, Limits(1e-3, 1_000, "beyond it one part of the loss drowns the others")]
WeightDecay = Annotated[float, Limits(0, 1, "above 1 the weights shrink faster than they learn")]
Filters = Annotated[
    int, Limits(8, 256, "normalised in groups of 8; the deepest level has 8 times as many", multiple_of=8)
]
Share = Annotated[float, Limits(0, 1, "a share; 0 for none, 1 for all")]
SomeShare = Annotated[float, Limits(0.01, 1, "a share above 0")]
GPUMemory = Annotated[float, Limits(0.001, 1_000, "GB; below it no patch fits, above it lies no GPU")]
Features = Annotated[int, Limits(1, 320, "nnU-Net's own cap for the deepest stage")]
Epochs = Annotated[int, Limits(1, 100_000, "a hundred times nnU-Net's own 1,000")]
FirstEpochs = Annotated[int, Limits(0, 100_000, "epochs, fewer than the training has")]
Iterations = Annotated[int, Limits(1, 100_000, "four hundred times nnU-Net's own 250")]
Rate = Annotated[float, Limits(1e-6, 1, "a share of the learning rate")]
REPEATS = Limits(1, 10, "every training of the study, this many times")
Repeats = Annotated[int, REPEATS]
TrainingCases = Annotated[int, Limits(1, 100_000, "cases of the target to train on, fewer than it has")]
PROCESSES = Limits(1, 512, "processes or threads; more than one machine has cores")
Processes = Annotated[int, PROCESSES]
FurtherProcesses = Annotated[int, Limits(0, 512, "processes; more than one machine has cores")]

# --- evaluation, statistics, review --------------------------------------------------------------------------------

TileStep = Annotated[float, Limits(0.1, 1, "a share of the patch; at 0.1 there are a thousand times as many tiles")]
THRESHOLD = Limits(0.001, 0.5, "a probability; below it all is a candidate, above it less than a label")
Threshold = Annotated[float, THRESHOLD]
Floor = Annotated[
    float, Limits(0.001, 0.5, "a probability; what lies below it is not kept, and makes the files large")
]
Level = Annotated[float, Limits(0.001, 0.5, "a level of error; what lies beyond no resampling can tell")]
DecisionMargin = Annotated[
    float, Limits(1e-6, 1_000, "in the metric's unit, above 0; without a margin that matters nothing can be decided")
]
OneSidedLevel = Annotated[
    float, Limits(0.001, 0.25, "the one-sided level of each test; the interval shown is at 1 - 2 alpha")
]
Resamples = Annotated[
    int, Limits(1_000, 100_000, "fewer leave the interval's ends to noise, more fill memory and hours")
]
Volume = Annotated[float, Limits(0, 10_000, "mm^3; what is larger is a metastasis that none may drop")]
Diameter = Annotated[float, Limits(0.5, 100, "mm, of a ball of the lesion's volume")]
LackingPatients = Annotated[int, Limits(0, 10_000, "patients, fewer than the cohort has")]
ShownCases = Annotated[int, Limits(1, 1_000, "each is drawn for every model")]
ExplainedCases = Annotated[int, Limits(0, 1_000, "each is predicted anew five times")]
FalsePositives = Annotated[
    float, Limits(0.01, 100, "a case; fewer are seen in no cohort of a hospital, more are read by nobody")
]
