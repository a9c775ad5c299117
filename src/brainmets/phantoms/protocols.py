"""How three vendors' scanners take and name the sequences of a phantom's scan session.

Values are such as clinical protocols have; none is copied from a site's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from brainmets.phantoms.dicom import Acquisition

Plane = Literal["axial", "sagittal", "coronal"]
PLACES = {"t1n": 2, "t2w": 3, "t2f": 5, "t1c": 6}
"""The order of a session: localiser, these, diffusion as fourth, another T1 after contrast as seventh."""


@dataclass(frozen=True)
class Vendor:
    """What one vendor's headers say: ``agent`` of the contrast, ``slope`` of stored values, ``names`` of the series.

    ``times`` per kind of sequence: repetition, echo and inversion time in ms (None: not said), flip angle in degrees,
    ScanningSequence, SequenceVariant. ``sequence_names`` are SequenceName's.
    """

    manufacturer: str
    model: str
    image_type: str
    agent: str
    slope: float
    numbered_by_hundreds: bool
    names: dict[str, str]
    times: dict[str, tuple[float, float, float | None, float, str, str]]
    sequence_names: dict[str, str]

    def number(self, place: int) -> int:
        """The number of the series that is ``place``-th of its session."""
        return 100 * place + 1 if self.numbered_by_hundreds else place


VENDORS = (
    Vendor(
        manufacturer="SIEMENS",
        model="Phantom Skyra",
        image_type="ORIGINAL\\PRIMARY\\M\\NORM\\DIS2D",
        agent="Gadovist 7.5 ml",
        slope=1.0,
        numbered_by_hundreds=False,
        names={
            "t1n 3D": "t1_mprage_sag_iso", "t1n 2D": "t1_se_tra_5mm", "t1c 3D": "t1_mprage_iso KM",
            "t1c 2D": "t1_se_tra_5mm KM", "t2w 2D": "t2_tse_tra", "t2f 3D": "t2_space_dark-fluid_sag_iso",
            "t2f 2D": "t2_tirm_tra_dark-fluid", "localiser": "localizer", "dwi": "ep2d_diff_b1000_TRACEW",
            "adc": "ep2d_diff_b1000_ADC",
        },
        times={
            "t1 3D": (2300, 2.98, 900, 9, "GR\\IR", "SK\\SP\\MP"),
            "t1 2D": (550, 9, None, 90, "SE", "SP"),
            "t2w 2D": (5200, 98, None, 150, "SE", "SK\\SP"),
            "t2f 3D": (5000, 388, 1800, 120, "SE\\IR", "SK\\SP\\MP"),
            "t2f 2D": (9000, 88, 2500, 150, "SE\\IR", "SK\\SP\\MP"),
        },
        sequence_names={
            "t1 3D": "*tfl3d1", "t1 2D": "*se2d1", "t2w 2D": "*tse2d1_15", "t2f 3D": "*spcir_278ns",
            "t2f 2D": "*tir2d1_16", "localiser": "*fl2d1", "diffusion": "*ep_b1000",
        },
    ),
    Vendor(
        manufacturer="GE MEDICAL SYSTEMS",
        model="PHANTOM Signa",
        image_type="ORIGINAL\\PRIMARY\\OTHER",
        agent="GADAVIST",
        slope=1.0,
        numbered_by_hundreds=False,
        names={
            "t1n 3D": "Sag T1 BRAVO", "t1n 2D": "Ax T1 SE", "t1c 3D": "T1 BRAVO +C", "t1c 2D": "Ax T1 SE +C",
            "t2w 2D": "Ax T2 FRFSE", "t2f 3D": "Sag CUBE T2 FLAIR", "t2f 2D": "Ax T2 FLAIR",
            "localiser": "3 Plane Loc", "dwi": "Ax DWI b1000", "adc": "Apparent Diffusion Coefficient",
        },
        times={
            "t1 3D": (8.2, 3.2, 450, 12, "GR", "SS\\SP\\SK"),
            "t1 2D": (600, 12, None, 90, "SE", "NONE"),
            "t2w 2D": (4800, 102, None, 111, "SE", "SK"),
            "t2f 3D": (6300, 128, 1780, 90, "SE\\IR", "SK"),
            "t2f 2D": (9500, 122, 2350, 160, "SE\\IR", "SK"),
        },
        sequence_names={},
    ),
    Vendor(
        manufacturer="Philips Medical Systems",
        model="Phantom Ingenia",
        image_type="ORIGINAL\\PRIMARY\\M\\M\\NONE",
        agent="",
        slope=1.5,
        numbered_by_hundreds=True,
        names={
            "t1n 3D": "sT1W_3D_TFE", "t1n 2D": "T1W_SE", "t1c 3D": "sT1W_3D_TFE GD", "t1c 2D": "T1W_SE GD",
            "t2w 2D": "T2W_TSE", "t2f 3D": "3D_VISTA_FLAIR", "t2f 2D": "T2W_FLAIR", "localiser": "SURVEY",
            "dwi": "DWI_b1000", "adc": "dADC",
        },
        times={
            "t1 3D": (8.1, 3.7, None, 8, "GR", "MP"),
            "t1 2D": (520, 10, None, 70, "SE", "SK"),
            "t2w 2D": (3600, 90, None, 90, "SE", "SK"),
            "t2f 3D": (4800, 320, 1660, 90, "IR", "SK"),
            "t2f 2D": (11000, 125, 2800, 90, "IR", "SK"),
        },
        sequence_names={},
    ),
)  # fmt: skip


def thick_slices(patient: int) -> bool:
    """Patients 2, 6, 10, ... are scanned in 5 mm slices but for the t1c."""
    return patient % 4 == 2


def protocol(patient: int) -> dict[str, tuple[str, Plane]]:
    """Per sequence "3D" or "2D", and the plane of its slices."""
    thick = thick_slices(patient)
    return {
        "t1n": ("2D", "axial") if thick else ("3D", "sagittal"),
        "t1c": ("3D", "axial" if patient % 2 else "sagittal"),
        "t2w": ("2D", "axial"),
        "t2f": ("3D", "sagittal") if patient % 2 and not thick else ("2D", "axial"),
    }


def acquire(sequence: str, acquisition: str, vendor: Vendor, patient: int, thickness_mm: float) -> Acquisition:
    """One of the four sequences, ``acquisition`` "2D" or "3D"."""
    kind = f"{'t1' if sequence in ('t1n', 't1c') else sequence} {acquisition}"
    repetition, echo, inversion, flip, scanning, variant = vendor.times[kind]
    place = PLACES[sequence]
    return Acquisition(
        number=vendor.number(place),
        time=f"10{5 * place:02d}{patient % 60:02d}",
        description=vendor.names[f"{sequence} {acquisition}"],
        sequence_name=vendor.sequence_names.get(kind, ""),
        scanning_sequence=scanning,
        sequence_variant=variant,
        image_type=vendor.image_type,
        acquisition=acquisition,
        repetition_ms=repetition,
        echo_ms=echo,
        flip_angle_deg=flip,
        thickness_mm=thickness_mm,
        inversion_ms=inversion,
        contrast_agent=vendor.agent if sequence == "t1c" else "",
        slope=vendor.slope,
    )


def localiser(vendor: Vendor) -> Acquisition:
    """Single slices in three planes, on which the others are planned."""
    return Acquisition(
        number=vendor.number(1),
        time="100300",
        description=vendor.names["localiser"],
        sequence_name=vendor.sequence_names.get("localiser", ""),
        scanning_sequence="GR",
        sequence_variant="SP",
        image_type="ORIGINAL\\PRIMARY\\M\\NORM",
        acquisition="2D",
        repetition_ms=8.6,
        echo_ms=4.0,
        flip_angle_deg=20,
        thickness_mm=8.0,
    )


def has_adc(patient: int) -> bool:
    """Whether diffusion is there as the map of its coefficient (even patients) or as an image."""
    return patient % 2 == 0


def diffusion(vendor: Vendor, patient: int) -> Acquisition:
    """Diffusion-weighted echo-planar imaging at b 1000 s/mm2, or the map computed from it."""
    adc = has_adc(patient)
    return Acquisition(
        number=vendor.number(4),
        time="102000",
        description=vendor.names["adc" if adc else "dwi"],
        sequence_name=vendor.sequence_names.get("diffusion", ""),
        scanning_sequence="EP",
        sequence_variant="SK\\SP",
        image_type="DERIVED\\PRIMARY\\DIFFUSION\\ADC" if adc else "ORIGINAL\\PRIMARY\\DIFFUSION\\TRACEW",
        acquisition="2D",
        repetition_ms=6400,
        echo_ms=84,
        flip_angle_deg=90,
        thickness_mm=5.0,
        b_value=None if adc else 1000.0,
    )


def second_contrast(vendor: Vendor, patient: int, t1c: Acquisition) -> Acquisition:
    """A lesser T1 after contrast: 2D for odd patients, slices computed from the 3D sequence for even ones."""
    if patient % 2:
        again = acquire("t1c", "2D", vendor, patient, 5.0)
    else:
        again = replace(t1c, description=f"{t1c.description} MPR tra", image_type="DERIVED\\SECONDARY\\REFORMATTED")
    return replace(again, number=vendor.number(7), time="103800", thickness_mm=5.0, slope=1.0)
