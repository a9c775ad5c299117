"""What a raw folder holds: series of scans, as their headers or files tell, and what is wrong with them.

A series is one image of one scan session. ``patient`` and ``date`` are a person's: they go into the key file and
nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

Kind = Literal["dicom", "volume"]


class ScanError(ValueError):
    """A raw image that cannot be used; the message says why and what to do, and names no person and no path."""


class Finding(NamedTuple):
    """One remark on the raw data. ``severity`` "error": the case cannot be prepared; "warning": for a person to judge.

    ``case`` is the case's new name ("" while it has none); ``series`` is the series' number in series.csv, 0 where the
    finding is about the whole scan or folder.
    """

    severity: Literal["error", "warning"]
    case: str
    series: int
    text: str


@dataclass(frozen=True)
class Header:
    """What tells one series from another; empty text, NaN or 0 where a header does not say.

    ``spacing_mm``: in plane (column step, row step), then between slice centres; ``thickness_mm``: of a slice.
    ``acquisition``: "2D", "3D" or "". ``plane``: "axial", "coronal", "sagittal", "oblique" or "". ``time``: HHMMSS of
    the acquisition. ``contrast_agent``: free text of ContrastBolusAgent. ``image_type``: ImageType's values,
    joined by backslashes.
    """

    modality: str = ""
    description: str = ""
    protocol: str = ""
    sequence_name: str = ""
    scanning_sequence: str = ""
    sequence_variant: str = ""
    image_type: str = ""
    contrast_agent: str = ""
    acquisition: str = ""
    plane: str = ""
    time: str = ""
    repetition_ms: float = float("nan")
    echo_ms: float = float("nan")
    inversion_ms: float = float("nan")
    flip_angle_deg: float = float("nan")
    b_value: float = float("nan")
    rows: int = 0
    columns: int = 0
    slices: int = 0
    spacing_mm: tuple[float, float, float] = (float("nan"), float("nan"), float("nan"))
    thickness_mm: float = float("nan")


@dataclass(frozen=True)
class Series:
    """One image of one scan session.

    ``key`` is its name within the raw folder, the same on every run (DICOM: the series' UID, with "/2", "/3" where one
    UID holds several images; a volume: its path below the raw folder). ``number`` counts the series of a scan from 1,
    in the order of ``key`` once times are equal. ``files`` are in the order of the slices. ``problems`` say what is
    wrong with the image itself (missing slices, colour, a localiser): a series with one is not chosen by itself.
    ``usable`` is false where it cannot be read as one volume at all.
    """

    patient: str
    date: str
    key: str
    number: int
    files: tuple[Path, ...]
    kind: Kind
    header: Header = field(default_factory=Header)
    problems: tuple[str, ...] = ()
    usable: bool = True
