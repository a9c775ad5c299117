"""Headers of brain examinations as scanners and archives write them: written by hand after vendors' protocols.

``EXAMINATIONS`` maps a name to the series of one scan session, each with what it truly is ("" for none of the four).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from brainmets.preparation.scans import Header, Series

Entry = tuple[str, Series]


def _physics(
    sequence: str, variant: str, kind: str, plane: str, times: tuple[float, ...], flip: float,
    slices: int, spacing: tuple[float, float, float],
) -> dict[str, Any]:  # fmt: skip
    names = ("repetition_ms", "echo_ms", "inversion_ms")
    return {
        "scanning_sequence": sequence, "sequence_variant": variant, "acquisition": kind, "plane": plane,
        **dict(zip(names, times, strict=False)), "flip_angle_deg": flip, "slices": slices, "spacing_mm": spacing,
        "thickness_mm": min(spacing[2], 5.0),
    }  # fmt: skip


FINE, ISO, THICK, GAP = (0.5, 0.5, 1.0), (1.0, 1.0, 1.0), (0.45, 0.45, 5.0), (0.43, 0.43, 5.5)
PHYSICS = {
    # Siemens
    "s mprage": _physics("GR\\IR", "SK\\SP\\MP", "3D", "sagittal", (2300, 2.98, 900), 9, 176, ISO),
    "s mprage15": _physics("GR\\IR", "SK\\SP\\MP\\OSP", "3D", "axial", (1900, 3.1, 1100), 15, 160, FINE),
    "s t1se": _physics("SE", "SK\\SP", "2D", "axial", (500, 9.4), 90, 27, GAP),
    "s t1tse": _physics("SE", "SK\\SP\\OSP", "2D", "coronal", (650, 11), 150, 35, THICK),
    "s t1flash": _physics("GR", "SP\\OSP", "2D", "axial", (250, 2.5), 70, 28, GAP),
    "s t1space": _physics("SE", "SK\\SP\\OSP", "3D", "sagittal", (700, 11), 120, 176, ISO),
    "s vibe": _physics("GR", "SP\\OSP", "3D", "axial", (5.6, 2.5), 10, 160, FINE),
    "s t2": _physics("SE", "SK\\SP\\OSP", "2D", "axial", (5000, 96), 150, 28, GAP),
    "s t2space": _physics("SE", "SK\\SP\\OSP", "3D", "sagittal", (3200, 408), 120, 176, ISO),
    "s flair": _physics("SE\\IR", "SK\\SP\\MP\\OSP", "2D", "axial", (9000, 94, 2500), 150, 28, GAP),
    "s flair3d": _physics("SE\\IR", "SK\\SP\\MP", "3D", "sagittal", (5000, 387, 1800), 120, 176, ISO),
    "s stir": _physics("SE\\IR", "SK\\SP\\MP", "2D", "coronal", (4500, 60, 160), 150, 30, THICK),
    "s dwi": _physics("EP", "SK\\SP", "2D", "axial", (4200, 88), 90, 28, GAP),
    "s swi": _physics("GR", "SP", "3D", "axial", (28, 20), 15, 72, (0.9, 0.9, 2.0)),
    "s t2star": _physics("GR", "SP", "2D", "axial", (620, 19.9), 20, 28, GAP),
    "s tof": _physics("GR", "SP\\OSP", "3D", "axial", (22, 3.6), 18, 160, (0.4, 0.4, 0.6)),
    "s ciss": _physics("GR", "SS", "3D", "axial", (6.0, 2.7), 50, 60, (0.5, 0.5, 0.5)),
    "s loc": _physics("GR", "SP\\OSP", "2D", "sagittal", (8.6, 4), 20, 3, (1.0, 1.0, 20.0)),
    "s inv1": _physics("GR\\IR", "SK\\SP\\MP", "3D", "sagittal", (5000, 2.98, 700), 4, 176, ISO),
    "s inv2": _physics("GR\\IR", "SK\\SP\\MP", "3D", "sagittal", (5000, 2.98, 2500), 5, 176, ISO),
    "s perf": _physics("EP", "SK", "2D", "axial", (1500, 30), 90, 20, GAP),
    # GE
    "g bravo": _physics("GR\\IR", "SS\\SP\\SK", "3D", "axial", (8.2, 3.2, 450), 12, 160, FINE),
    "g fspgr": _physics("GR", "SP\\SK", "3D", "axial", (9.1, 3.6), 20, 124, (0.94, 0.94, 1.5)),
    "g t1flair": _physics("SE\\IR", "SK", "2D", "axial", (2200, 24, 860), 90, 24, GAP),
    "g t1flair rm": _physics("RM", "SK", "2D", "axial", (2100, 9.5, 780), 111, 24, GAP),
    "g t1se": _physics("SE", "SK", "2D", "axial", (600, 14), 90, 24, GAP),
    "g t1cube": _physics("SE", "SK", "3D", "sagittal", (600, 16), 90, 170, ISO),
    "g t2": _physics("SE", "SK", "2D", "axial", (4800, 102), 90, 24, GAP),
    "g t2cube": _physics("SE", "SK", "3D", "sagittal", (2500, 95), 90, 170, ISO),
    "g flair": _physics("SE\\IR", "SK", "2D", "axial", (9002, 125, 2250), 90, 24, GAP),
    "g flair rm": _physics("RM", "SK", "2D", "axial", (8800, 145, 2250), 160, 24, GAP),
    "g flaircube": _physics("SE\\IR", "SK", "3D", "sagittal", (6500, 118, 1850), 90, 170, ISO),
    "g dwi": _physics("EP\\SE", "NONE", "2D", "axial", (7000, 76), 90, 24, GAP),
    "g swan": _physics("GR", "SS\\SP", "3D", "axial", (41, 25), 15, 60, (0.5, 0.5, 2.0)),
    "g gre": _physics("GR", "NONE", "2D", "axial", (550, 15), 20, 24, GAP),
    "g fiesta": _physics("GR", "SS\\SK", "3D", "axial", (5.4, 2.2), 55, 60, (0.5, 0.5, 0.4)),
    "g loc": _physics("SE", "OSP", "2D", "axial", (1100, 80), 90, 9, (0.9, 0.9, 12.0)),
    # Philips
    "p tfe": _physics("GR", "MP", "3D", "sagittal", (8.1, 3.7), 8, 180, ISO),
    "p tfe ti": _physics("GR", "MP", "3D", "sagittal", (6.9, 3.2, 850), 9, 180, ISO),
    "p ffe": _physics("GR", "SS", "3D", "axial", (25, 4.6), 30, 110, (0.9, 0.9, 1.4)),
    "p t1se": _physics("SE", "NONE", "2D", "axial", (520, 12), 70, 24, GAP),
    "p t1tse": _physics("SE", "SK", "3D", "sagittal", (500, 28), 90, 180, ISO),
    "p t2": _physics("SE", "SK", "2D", "axial", (3000, 80), 90, 24, GAP),
    "p t2long": _physics("SE", "SK", "2D", "axial", (7200, 100), 90, 30, GAP),
    "p vista": _physics("SE", "SK", "3D", "sagittal", (2500, 251), 90, 180, ISO),
    "p flair": _physics("IR", "SK", "2D", "axial", (11000, 125, 2800), 90, 24, GAP),
    "p flair3d": _physics("IR", "SK", "3D", "sagittal", (4800, 340, 1650), 90, 180, ISO),
    "p dwi": _physics("SE", "SK", "2D", "axial", (3400, 85), 90, 24, GAP),
    "p t2ffe": _physics("GR", "SS", "2D", "axial", (700, 23), 18, 24, GAP),
    "p swip": _physics("GR", "SS", "3D", "axial", (31, 7.2), 17, 130, (0.6, 0.6, 1.0)),
    "p bffe": _physics("GR", "SS", "3D", "axial", (6.2, 3.1), 45, 50, (0.5, 0.5, 0.5)),
    "p survey": _physics("GR", "NONE", "2D", "sagittal", (11, 4.6), 15, 9, (1.0, 1.0, 20.0)),
    # Canon
    "c t1fe": _physics("GR", "MP", "3D", "sagittal", (6.1, 2.6, 900), 9, 176, ISO),
    "c t1se": _physics("SE", "NONE", "2D", "axial", (540, 10), 80, 24, GAP),
    "c t2": _physics("SE", "SK", "2D", "axial", (5100, 105), 90, 24, GAP),
    "c flair": _physics("SE\\IR", "SK", "2D", "axial", (10000, 105, 2700), 90, 24, GAP),
    "c mpv": _physics("SE\\IR", "SK", "3D", "sagittal", (6500, 430, 1950), 90, 176, ISO),
    "c dwi": _physics("EP", "NONE", "2D", "axial", (5200, 80), 90, 24, GAP),
    # dual echo, T1 with an inversion but no number, and headers without physics
    "pd": _physics("SE", "SK", "2D", "axial", (3000, 14), 150, 28, GAP),
    "dual t2": _physics("SE", "SK", "2D", "axial", (3000, 98), 150, 28, GAP),
    "none": {},
}  # fmt: skip

ORIGINAL = "ORIGINAL\\PRIMARY\\M\\ND\\NORM"
GADO = "Gadovist 7.5 ml"


def examination(*rows: str, strip: tuple[str, ...] = (), **shared: Any) -> list[Entry]:
    """A scan from rows "truth | physics | description | further fields as name=value, ...".

    ``strip`` names fields that were emptied by de-identification. Times run from 10:00, five minutes a series, in
    the order of the rows.
    """
    entries = []
    for number, row in enumerate(rows, start=1):
        truth, physics, description, *further = (part.strip() for part in row.split("|"))
        fields: dict[str, Any] = {
            "modality": "MR", "image_type": ORIGINAL, "time": f"{10 + number // 12:02d}{number * 5 % 60:02d}00",
            "description": description, **PHYSICS[physics], **shared,
        }  # fmt: skip
        series: dict[str, Any] = {}
        for part in further:
            name, _, value = part.partition("=")
            if name == "problem":
                series["problems"] = (value,)
            elif name == "agent":
                fields["contrast_agent"] = GADO if value == "yes" else value
            else:
                fields[name] = type(getattr(Header(), name))(value)
        defaults = Header()
        fields |= {name: getattr(defaults, name) for name in strip}
        entries.append(
            (truth, Series("anon", "d", f"1.2.3.{number}", number, (), "dicom", Header(**fields), **series))
        )
    return entries


def volumes(**names: str) -> list[Entry]:
    """A scan of volumes: the file's name (without suffix) and what it truly is; headers tell sizes alone."""
    return [
        (truth, Series("p", "", f"p/{name}.nii.gz", number, (Path(f"{name}.nii.gz"),), "volume", Header(
            rows=256, columns=256, slices=30, spacing_mm=(0.9, 0.9, 5.0), plane="axial")))
        for number, (name, truth) in enumerate(names.items(), start=1)
    ]  # fmt: skip


NAMELESS = ("description", "protocol", "sequence_name")
EXAMINATIONS: dict[str, list[Entry]] = {
    "siemens 3T, standard": examination(
        "|s loc|AAHead_Scout",
        "t1n|s mprage|t1_mprage_sag_p2_iso",
        "t2w|s t2|t2_tse_tra_512",
        "|s dwi|ep2d_diff_3scan_trace",
        "|s dwi|ep2d_diff_3scan_trace_ADC|image_type=DERIVED\\PRIMARY\\ADC",
        "t2f|s flair|t2_tirm_tra_dark-fluid",
        "|s swi|t2_swi3d_tra_p2_2mm",
        "t1c|s mprage|t1_mprage_sag_p2_iso_KM|agent=yes",
    ),
    "siemens 3T, 3D": examination(
        "t1n|s mprage|t1_mprage_sag_p2_iso",
        "t2f|s flair3d|t2_space_dark-fluid_sag_p2_iso",
        "t2w|s t2space|t2_space_sag_p2_iso",
        "|s perf|ep2d_perf|agent=yes",
        "t1c|s mprage|t1_mprage_sag_p2_iso|agent=yes",
        "t1c|s t1tse|t1_tse_cor_fs|agent=yes",
    ),
    "siemens 1.5T, german, native and KM": examination(
        "t1n|s t1se|T1 SE tra nativ",
        "t2w|s t2|T2 TSE tra",
        "t2f|s flair|TIRM tra",
        "t1c|s t1se|T1 SE tra nach KM",
        "t1c|s t1tse|T1 TSE cor n. KM",
    ),
    "siemens, german, ohne and mit": examination(
        "t1n|s t1se|T1 axial ohne KM",
        "t2w|s t2|T2 axial",
        "t2f|s flair|FLAIR axial",
        "|s t2star|T2* Hämo",
        "t1c|s mprage15|MPRAGE mit KM",
    ),
    "siemens, post not flagged, names alike": examination(
        "t1n|s mprage|t1_mprage_sag",
        "t2w|s t2|t2_tse_tra",
        "t2f|s flair|t2_flair_tra",
        "t1c|s mprage|t1_mprage_sag",
    ),
    "siemens, one MPRAGE without a flag anywhere": examination(
        "t2w|s t2|t2_tse_tra",
        "t2f|s flair|t2_flair_tra",
        "t1c|s mprage|t1_mprage_sag",
    ),
    "siemens, agent in every series": examination(
        "t1n|s mprage|t1_mprage_sag|agent=yes",
        "t2w|s t2|t2_tse_tra|agent=yes",
        "t2f|s flair|t2_flair_tra|agent=yes",
        "t1c|s mprage|t1_mprage_sag|agent=yes",
    ),
    "siemens, agent in every series but names tell": examination(
        "t1n|s mprage|t1_mprage_pre|agent=yes",
        "t2w|s t2|t2_tse_tra|agent=yes",
        "t2f|s flair|t2_flair_tra|agent=yes",
        "t1c|s mprage|t1_mprage_post|agent=yes",
    ),
    "siemens, FLAIR after contrast": examination(
        "t1n|s mprage|t1_mprage_sag",
        "t2w|s t2|t2_tse_tra",
        "t1c|s mprage|t1_mprage_sag_post|agent=yes",
        "t2f|s flair3d|t2_space_dark-fluid_sag_post_KM|agent=yes",
    ),
    "siemens, reformats of MPRAGE": examination(
        "t1n|s mprage|t1_mprage_sag",
        "|s mprage|t1_mprage_sag_MPR_tra|image_type=DERIVED\\SECONDARY\\MPR\\CSA MPR",
        "t2w|s t2|t2_tse_tra",
        "t2f|s flair|t2_flair_tra",
        "t1c|s mprage|t1_mprage_sag_KM|agent=yes",
        "|s mprage|t1_mprage_sag_KM_MPR_cor|image_type=DERIVED\\SECONDARY\\MPR\\CSA MPR|agent=yes",
    ),
    "siemens, MPRAGE called mpr": examination(
        "t1n|s mprage|t1_mpr_ns_sag_iso",
        "t2w|s t2|t2_tse_tra",
        "t2f|s flair|t2_flair_tra",
        "t1c|s mprage|t1_mpr_ns_sag_iso_gd",
    ),
    "siemens, MP2RAGE": examination(
        "|s inv1|t1_mp2rage_sag_INV1",
        "|s inv2|t1_mp2rage_sag_INV2",
        "t1n|s inv1|t1_mp2rage_sag_UNI_Images",
        "|s inv1|t1_mp2rage_sag_T1_Images",
        "t2w|s t2space|t2_space_sag",
        "t2f|s flair3d|t2_space_flair_sag",
        "t1c|s mprage|t1_mprage_sag_gd|agent=yes",
    ),
    "siemens, MP2RAGE denoised beside MPRAGE": examination(
        "|s inv1|t1_mp2rage_sag_INV1",
        "|s inv2|t1_mp2rage_sag_INV2",
        "t1n|s inv1|t1_mp2rage_sag_UNI-DEN",
        "t1n|s mprage|t1_mprage",
        "t2w|s t2space|t2_space_sag",
        "t2f|s flair3d|t2_space_flair_sag",
        "t1c|s mprage|t1_mprage_gd|agent=yes",
    ),
    "siemens, Dixon VIBE": examination(
        "t1n|s mprage|t1_mprage_sag",
        "t2w|s t2|t2_tse_tra",
        "t2f|s flair|t2_flair_tra",
        "t1c|s vibe|t1_vibe_dixon_tra_KM_in|agent=yes",
        "|s vibe|t1_vibe_dixon_tra_KM_opp|agent=yes",
        "|s vibe|t1_vibe_dixon_tra_KM_F|agent=yes",
        "t1c|s vibe|t1_vibe_dixon_tra_KM_W|agent=yes",
    ),
    "siemens, Dixon beside MPRAGE": examination(
        "t1n|s mprage|t1_mprage_sag",
        "t2w|s t2|t2_tse_tra",
        "t2f|s flair|t2_flair_tra",
        "t1c|s vibe|t1_vibe_dixon_tra_W|agent=yes",
        "|s vibe|t1_vibe_dixon_tra_F|agent=yes",
        "t1c|s mprage|t1_mprage_sag|agent=yes",
    ),
    "siemens, cranial nerves": examination(
        "|s ciss|t2_ci3d_tra_CISS",
        "t1n|s t1se|t1_se_tra",
        "t2w|s t2|t2_tse_tra",
        "t2f|s flair|t2_flair_tra",
        "|s tof|TOF_3D_multi-slab",
        "t1c|s mprage|t1_mprage_post",
    ),
    "siemens, dual echo": examination(
        "|pd|pd+t2_tse_tra",
        "t2w|dual t2|pd+t2_tse_tra",
        "t1n|s t1se|t1_se_tra",
        "t2f|s flair|t2_flair_tra",
        "t1c|s t1se|t1_se_tra_gd",
    ),
    "siemens, STIR and spine in the same visit": examination(
        "|s stir|t2_stir_cor",
        "t1n|s t1se|t1_se_tra",
        "t2w|s t2|t2_tse_tra",
        "t2f|s flair|t2_tirm_tra_dark-fluid",
        "|s t2|t2_tse_sag HWS",
        "|s t1se|t1_tse_sag_spine|agent=yes",
        "t1c|s mprage|t1_mprage|agent=yes",
    ),
    "siemens, TIRM that is a STIR": examination(
        "|s stir|t2_tirm_cor",
        "t1n|s t1se|t1_se_tra",
        "t2w|s t2|t2_tse_tra",
        "t2f|s flair|t2_tirm_tra_dark-fluid",
        "t1c|s t1se|t1_se_tra_km",
    ),
    "siemens, subtraction and MIP": examination(
        "t1n|s mprage|t1_mprage",
        "t2w|s t2|t2_tse",
        "t2f|s flair|flair",
        "t1c|s mprage|t1_mprage_gd|agent=yes",
        "|s mprage|t1_mprage_gd_SUB|agent=yes|image_type=DERIVED\\SECONDARY\\SUB",
        "|s mprage|MIP t1_mprage_gd|agent=yes",
    ),
    "siemens, corrected originals called derived (XA)": examination(
        "t1n|s mprage|t1_mprage_sag",
        "t2w|s t2|t2_tse_tra",
        "t2f|s flair|t2_flair_tra",
        "t1c|s mprage|t1_mprage_sag_gd|agent=yes",
        image_type="DERIVED\\PRIMARY\\M\\NORM\\DIS3D",
    ),
    "siemens, SPACE": examination(
        "t1n|s t1space|t1_space_sag",
        "t2w|s t2space|t2_space_sag",
        "t2f|s flair3d|t2_spc_da-fl_sag",
        "t1c|s t1space|t1_space_sag_post|agent=yes",
    ),
    "siemens, FLASH": examination(
        "t1n|s t1flash|t1_fl2d_tra",
        "t2w|s t2|t2_tse_tra",
        "t2f|s flair|t2_tirm_tra_dark-fluid",
        "|s t2star|t2_fl2d_tra_hemo",
        "t1c|s t1flash|t1_fl2d_tra_km|agent=yes",
    ),
    "siemens, no names": examination(
        "|s loc|",
        "t1n|s mprage|",
        "t2w|s t2|",
        "t2f|s flair|",
        "|s swi|",
        "|s dwi|",
        "t1c|s mprage||agent=yes",
        strip=NAMELESS,
    ),
    "siemens, no names, 2D": examination(
        "|s loc|", "t1n|s t1se|", "t2w|s t2|", "t2f|s flair|", "|s t2star|", "t1c|s t1se||agent=yes", strip=NAMELESS
    ),
    "siemens, no names, no agent": examination(
        "t1n|s mprage|", "t2w|s t2|", "t2f|s flair|", "t1c|s mprage|", strip=NAMELESS
    ),
    "siemens, no names, TOF and CISS": examination(
        "t1n|s t1se|",
        "|s tof|",
        "|s ciss|",
        "t2w|s t2space|",
        "t2f|s flair3d|",
        "t1c|s t1se||agent=yes",
        strip=NAMELESS,
    ),
    "siemens, no names, STIR": examination(
        "t1n|s t1se|", "|s stir|", "t2w|s t2|", "t2f|s flair|", "t1c|s t1se||agent=yes", strip=NAMELESS
    ),
    "siemens, no names, MP2RAGE": examination(
        "|s inv1|", "|s inv2|", "t1n|s inv1|", "t2w|s t2|", "t2f|s flair|", "t1c|s mprage||agent=yes", strip=NAMELESS
    ),
    "siemens, agent entered late": examination(
        "t1n|s t1se|t1_se_tra",
        "t2w|s t2|t2_tse_tra",
        "t2f|s flair|t2_flair",
        "t1c|s mprage|t1_mprage_sag",
        "t1c|s t1tse|t1_tse_cor|agent=yes",
    ),
    "siemens, agent entered once": examination(
        "t1n|s t1se|t1_se_tra",
        "t2w|s t2|t2_tse_tra",
        "t2f|s flair|t2_flair",
        "t1c|s t1tse|t1_tse_cor|agent=yes",
        "t1c|s mprage|t1_mprage_sag",
    ),
    "siemens, T1 repeated for motion": examination(
        "t1n|s mprage|t1_mprage",
        "t1n|s mprage|t1_mprage",
        "t2w|s t2|t2_tse",
        "t2w|s t2|t2_tse",
        "t2f|s flair|flair",
        "t1c|s mprage|t1_mprage|agent=yes",
    ),
    "siemens, phase of SWI, magnitude": examination(
        "|s swi|Mag_Images",
        "|s swi|Pha_Images|image_type=ORIGINAL\\PRIMARY\\P\\ND",
        "|s swi|mIP_Images(SW)",
        "t1n|s mprage|t1_mprage",
        "t2w|s t2|t2_tse",
        "t2f|s flair|t2_flair",
        "t1c|s mprage|t1_mprage_ce",
    ),
    "siemens, posterior fossa and post op in names": examination(
        "t1n|s t1se|t1_tra post op",
        "t1n|s t1tse|t1_cor posterior fossa",
        "t2w|s t2|t2_tra post op",
        "t2f|s flair|flair post op",
        "t1c|s mprage|t1_mprage post op KM|agent=yes",
    ),
    "siemens, no times": examination(
        "t1n|s mprage|t1_mprage",
        "t2w|s t2|t2_tse",
        "t2f|s flair|t2_flair",
        "t1c|s mprage|t1_mprage|agent=yes",
        strip=("time",),
    ),
    "siemens, no times, native named": examination(
        "t1n|s mprage|t1_mprage_native",
        "t2w|s t2|t2_tse",
        "t2f|s flair|t2_flair",
        "t1c|s mprage|t1_mprage_km",
        strip=("time",),
    ),
    "siemens, missing slices": examination(
        "t1n|s mprage|t1_mprage|problem=2 slices are missing",
        "t1n|s t1se|t1_se",
        "t2w|s t2|t2_tse",
        "t2f|s flair|t2_flair",
        "t1c|s mprage|t1_mprage|agent=yes",
    ),
    "siemens, past midnight": examination(
        "t1n|s mprage|t1_mprage|time=235500",
        "t2w|s t2|t2_tse|time=235900",
        "t2f|s flair|t2_flair|time=000400",
        "t1c|s mprage|t1_mprage|time=001000|agent=yes",
    ),
    "siemens, names that lie": examination(
        "t2w|s t2|t1_tse_tra",
        "t1n|s t1se|t2_tse_tra",
        "t2f|s flair|t2_flair",
        "t1c|s mprage|t1_mprage_gd|agent=yes",
    ),
    "ge 3T, 2D": examination(
        "|g loc|3-Plane Loc",
        "t1n|g t1flair|Ax T1 FLAIR",
        "t2w|g t2|Ax T2 FRFSE",
        "t2f|g flair|Ax T2 FLAIR",
        "|g dwi|Ax DWI b1000",
        "|g gre|Ax T2* GRE",
        "t1c|g t1flair|Ax T1 FLAIR +C|agent=yes",
        "t1c|g bravo|Ax BRAVO +C|agent=yes",
        protocol="BRAIN W WO CONTRAST",
    ),
    "ge 3T, 3D": examination(
        "|g loc|3 Plane Loc",
        "|g loc|ASSET Cal",
        "t1n|g bravo|Sag BRAVO",
        "t2w|g t2cube|Sag CUBE T2",
        "t2f|g flaircube|Sag CUBE T2 FLAIR",
        "|g swan|Ax SWAN",
        "t1c|g bravo|Sag BRAVO POST|agent=yes",
        protocol="BRAIN TUMOR POST",
    ),
    "ge, exam protocol says contrast": examination(
        "t1n|g t1se|AX T1",
        "t2w|g t2|AX T2",
        "t2f|g flair|AX FLAIR",
        "t1c|g t1se|AX T1 C+",
        protocol="HEAD WITH CONTRAST",
    ),
    "ge, research mode": examination(
        "t1n|g t1flair rm|Ax T1 FLAIR",
        "t2w|g t2|Ax T2",
        "t2f|g flair rm|Ax FLAIR",
        "t1c|g fspgr|Ax 3D FSPGR +C|agent=yes",
    ),
    "ge, no names": examination(
        "t1n|g t1flair|", "t2w|g t2|", "t2f|g flair|", "|g gre|", "t1c|g t1flair||agent=Magnevist", strip=NAMELESS
    ),
    "ge, no names, FSPGR": examination(
        "t1n|g fspgr|", "t2w|g t2|", "t2f|g flair|", "|g fiesta|", "t1c|g fspgr||agent=yes", strip=NAMELESS
    ),
    "ge, FIESTA and COR T2": examination(
        "|g fiesta|Ax FIESTA-C",
        "t1n|g t1se|Sag T1",
        "t2w|g t2|Cor T2",
        "t2w|g t2|Ax PROPELLER T2",
        "t2f|g flair|Ax FLAIR PROPELLER",
        "t1c|g fspgr|Ax SPGR GD",
    ),
    "ge, perfusion before the last T1": examination(
        "t1n|g bravo|Ax BRAVO",
        "t2w|g t2|Ax T2",
        "t2f|g flair|Ax T2 FLAIR",
        "|s perf|DSC Perfusion",
        "t1c|g bravo|Ax BRAVO",
    ),
    "ge, ASL before native T1": examination(
        "|s perf|3D ASL perfusion",
        "t1n|g bravo|Ax BRAVO",
        "t2w|g t2|Ax T2",
        "t2f|g flair|Ax T2 FLAIR",
        "t1c|g bravo|Ax BRAVO Gd",
    ),
    "ge, T1 FLAIR without its inversion time": examination(
        "t1n|pd|Ax T1 FLAIR",
        "t2w|g t2|Ax T2",
        "t2f|g flair|Ax T2 FLAIR",
        "t1c|g bravo|Ax BRAVO +C|agent=yes",
    ),
    "ge, french": examination(
        "|g loc|Reperage 3 plans",
        "t1n|g t1se|T1 axial sans injection",
        "t2w|g t2|T2 axial",
        "t2f|g flair|FLAIR axial",
        "|g dwi|Diffusion",
        "t1c|g t1se|T1 axial avec gado",
        "t1c|g bravo|T1 EG 3D inj",
    ),
    "ge, T1 cube": examination(
        "t1n|g t1cube|Sag T1 CUBE",
        "t2w|g t2cube|Sag T2 CUBE",
        "t2f|g flaircube|Sag FLAIR CUBE",
        "t1c|g t1cube|Sag T1 CUBE FS +GAD",
    ),
    "ge, synthetic": examination(
        "|g t2|MAGiC T2 syn",
        "|g t1se|MAGiC T1 syn",
        "t1n|g t1se|Ax T1",
        "t2w|g t2|Ax T2",
        "t2f|g flair|Ax FLAIR",
        "t1c|g t1se|Ax T1 +C",
    ),
    "ge, orbits": examination(
        "t1n|g t1se|Ax T1 brain",
        "t2w|g t2|Ax T2 brain",
        "t2f|g flair|Ax FLAIR brain",
        "|g t1se|Ax T1 FS orbits post|agent=yes",
        "t1c|g bravo|Ax BRAVO brain post|agent=yes",
    ),
    "philips 3T, 3D": examination(
        "|p survey|Survey_32ch",
        "t1n|p tfe|sT1W_3D_TFE",
        "t2w|p t2|T2W_TSE",
        "t2f|p flair3d|sFLAIR_VISTA",
        "|p dwi|DWI_b1000|b_value=1000",
        "|p swip|SWIp",
        "t1c|p tfe|sT1W_3D_TFE_GD|agent=yes",
    ),
    "philips 1.5T, 2D": examination(
        "|p survey|Survey",
        "t1n|p t1se|T1W_SE",
        "t2w|p t2|T2W_TSE",
        "t2f|p flair|FLAIR_longTR",
        "|p t2ffe|T2W_FFE",
        "t1c|p t1se|T1W_SE_Gd",
    ),
    "philips, T2 of long TR": examination(
        "t1n|p t1se|T1W_SE",
        "t2w|p t2long|T2W_TSE_HR",
        "t2f|p flair|FLAIR",
        "t1c|p tfe ti|3D_T1W_TFE CE|agent=yes",
    ),
    "philips, no names": examination(
        "|p survey|",
        "t1n|p tfe ti|",
        "t2w|p t2|",
        "t2f|p flair|",
        "|p t2ffe|",
        "t1c|p tfe ti||agent=yes",
        strip=NAMELESS,
    ),
    "philips, no names, T2 of long TR": examination(
        "t1n|p t1se|", "t2w|p t2long|", "t2f|p flair|", "t1c|p t1se||agent=yes", strip=NAMELESS
    ),
    "philips, no names, diffusion as spin echo": examination(
        "t1n|p t1se|", "|p dwi||b_value=800", "t2w|p t2|", "t2f|p flair|", "t1c|p t1se||agent=yes", strip=NAMELESS
    ),
    "philips, BFFE and DRIVE": examination(
        "|p bffe|BFFE_3D",
        "|p vista|T2W_DRIVE_IAC",
        "t1n|p tfe|T1W_3D_TFE",
        "t2w|p vista|T2W_3D_VISTA",
        "t2f|p flair3d|3D_FLAIR",
        "t1c|p tfe|T1W_3D_TFE post contrast|agent=yes",
    ),
    "philips, black blood T1": examination(
        "t1n|p tfe|T1 TFE nativ",
        "t2w|p t2|T2 TSE",
        "t2f|p flair3d|FLAIR 3D",
        "t1c|p t1tse|T1 VISTA SPIR KM|agent=yes",
        "t1c|p tfe|T1 TFE KM|agent=yes",
    ),
    "philips, FFE": examination(
        "t1n|p ffe|T1W_3D_FFE",
        "t2w|p t2|T2W_TSE",
        "t2f|p flair|FLAIR",
        "t1c|p ffe|T1W_3D_FFE_gd|agent=yes",
    ),
    "philips, german": examination(
        "|p survey|Übersicht",
        "t1n|p t1se|T1 tra nativ",
        "t2w|p t2|T2 tra",
        "t2f|p flair|Dark Fluid tra",
        "|p dwi|Diffusion|b_value=1000",
        "t1c|p tfe|T1 3D KM",
        "|p tfe|T1 3D KM Subtraktion",
    ),
    "philips, french": examination(
        "t1n|p t1se|AX T1 SE",
        "t2w|p t2|AX T2 TSE",
        "t2f|p flair|AX FLAIR",
        "t1c|p tfe|3D T1 apres gadolinium",
    ),
    "canon 1.5T": examination(
        "|s loc|Locator",
        "t1n|c t1se|AX T1 SE",
        "t2w|c t2|AX T2 FSE",
        "t2f|c flair|AX FLAIR",
        "|c dwi|AX DWI b1000",
        "t1c|c t1se|AX T1 SE CE",
    ),
    "canon 3T, 3D": examination(
        "t1n|c t1fe|SAG 3D T1 FFE MPRAGE",
        "t2w|c t2|AX T2",
        "t2f|c mpv|SAG 3D FLAIR MPV",
        "t1c|c t1fe|SAG 3D MPRAGE +Gd|agent=yes",
    ),
    "canon, no names": examination(
        "t1n|c t1fe|", "t2w|c t2|", "t2f|c flair|", "t1c|c t1fe||agent=yes", strip=NAMELESS
    ),
    "names alone": examination(
        "t1n|none|T1 pre", "t2w|none|T2", "t2f|none|FLAIR", "t1c|none|T1 post", strip=("time", "image_type")
    ),
    "names alone, T1 FLAIR": examination(
        "t1n|none|AX T1 FLAIR",
        "t2w|none|AX T2",
        "t2f|none|AX T2 FLAIR",
        "t1c|none|AX T1 FLAIR POST",
        strip=("time", "image_type"),
    ),
    "nothing at all": examination("t1n|none|", "t2w|none|", "t2f|none|", "t1c|none|", strip=("time", "image_type")),
    "CT among MR": examination(
        "|none|T1|modality=CT",
        "t1n|s t1se|t1_se",
        "t2w|s t2|t2_tse",
        "t2f|s flair|flair",
        "t1c|s t1se|t1_se_gd",
    ),
    "b0 of a diffusion": examination(
        "|s dwi|ep2d_diff_b0",
        "|p dwi|b0|b_value=0",
        "t1n|s t1se|t1_se",
        "t2w|s t2|t2_tse",
        "t2f|s flair|flair",
        "t1c|s t1se|t1_se_gd",
    ),
    "native after contrast by its name": examination(
        "t1c|s mprage|t1_mprage_gd|agent=yes",
        "t1c|s mprage|t1_mprage_pre",
        "t2w|s t2|t2_tse",
        "t2f|s flair|flair",
    ),
    "a few slices for a T2": examination(
        "t1n|s mprage|t1_mprage",
        "|s t2|t2_tse_sag mid|slices=5",
        "t2w|s t2|t2_tse_tra",
        "t2f|s flair|flair",
        "t1c|s mprage|t1_mprage km",
    ),
    "volumes t1, t1gd, t2, flair": volumes(
        T1="t1n",
        T1GD="t1c",
        T2="t2w",
        FLAIR="t2f",
    ),
    "volumes of BraTS": volumes(
        **{"A-1-t1n": "t1n", "A-1-t1c": "t1c", "A-1-t2w": "t2w", "A-1-t2f": "t2f", "A-1-seg": ""}
    ),
    "volumes of BraTS 2021": volumes(
        B_t1="t1n",
        B_t1ce="t1c",
        B_t2="t2w",
        B_flair="t2f",
        B_seg="",
    ),
    "volumes of BIDS": volumes(
        **{
            "sub-1_T1w": "t1n",
            "sub-1_ce-gadolinium_T1w": "t1c",
            "sub-1_T2w": "t2w",
            "sub-1_FLAIR": "t2f",
            "sub-1_dwi": "",
        }
    ),
    "volumes, german": volumes(T1nativ="t1n", T1_KM="t1c", T2="t2w", T2_FLAIR="t2f", Maske=""),
    "volumes, T1 without a sign": volumes(
        T1a="t1n",
        T1b="t1c",
        T2="t2w",
        FLAIR="t2f",
    ),
    "volumes, t1post": volumes(
        t1="t1n",
        t1post="t1c",
        t2="t2w",
        flair="t2f",
        adc="",
        swi="",
    ),
    "volumes by number": volumes(scan_0000="t1n", scan_0001="t1c", scan_0002="t2w", scan_0003="t2f"),
    "ge, plain": examination(
        "|g loc|3 PLANE LOC",
        "t1n|g t1se|AX T1 PRE",
        "t2w|g t2|AX T2 FSE",
        "t2f|g flair|AX FLAIR",
        "|g dwi|AX DIFFUSION",
        "t1c|g t1se|AX T1 POST",
        "t1c|g t1se|COR T1 POST",
    ),
    "siemens, blade": examination(
        "t1n|s t1se|t1_se_tra",
        "t2w|s t2|t2_blade_tra",
        "t2f|s flair|t2_tirm_blade_tra",
        "t1c|s mprage|t1_mpr_tra_gad|agent=yes",
    ),
    "ge, C- and C+": examination(
        "t1n|g t1se|AX T1 SE C-",
        "t2w|g t2|AX T2 FSE",
        "t2f|g flair|AX FLAIR",
        "t1c|g t1se|AX T1 SE C+",
    ),
    "ge, T1 FLAIR and its reformat": examination(
        "t1n|g t1flair|AX T1 PRE GD FLAIR",
        "t2w|g t2|AX T2 FSE",
        "t2f|g flair|AX T2 FLAIR",
        "t1c|g t1flair|AX T1 POST GD FLAIR",
        "|g t1flair|AX T1 POST GD FLAIR RFMT|image_type=DERIVED\\SECONDARY\\REFORMATTED\\AVERAGE",
    ),
    "philips, FFE SENSE": examination(
        "|p survey|REF SCAN",
        "t1n|p ffe|T1W_FFE SENSE",
        "t2w|p t2|T2W_TSE SENSE",
        "t2f|p flair|FLAIR SENSE",
        "t1c|p ffe|T1W_FFE SENSE GAD",
    ),
    "ge, for navigation": examination(
        "t1n|g t1se|SAG T1",
        "t2w|g t2|AX T2",
        "t2f|g flair|AX FLAIR",
        "t1c|g fspgr|STEALTH AX T1 POST",
        "t1c|g bravo|BRAIN LAB 3D T1 +C",
    ),
    "siemens, nKM": examination(
        "t1n|s t1se|t1_se_tra_nativ",
        "t2w|s t2|t2_tse_tra",
        "t2f|s flair|t2_flair_tra",
        "t1c|s t1se|t1_se_tra_nKM",
    ),
    "siemens, v. Gd and nach Gd": examination(
        "t1n|s t1se|T1 tra v. Gd",
        "t2w|s t2|T2 tra",
        "t2f|s flair|Flair cor",
        "t1c|s mprage|MPR nach Gd|agent=yes",
    ),
    "philips, italian": examination(
        "t1n|p t1se|T1 SE ASS",
        "t2w|p t2|T2 TSE ASS",
        "t2f|p flair|FLAIR ASS",
        "t1c|p tfe|T1 3D dopo mdc",
    ),
    "ge, spanish": examination(
        "t1n|g t1se|AX T1 sin contraste",
        "t2w|g t2|AX T2",
        "t2f|g flair|AX FLAIR",
        "t1c|g t1se|AX T1 con contraste",
    ),
    "ge, french, agent's name": examination(
        "t1n|g t1se|SAG T1",
        "|g dwi|AX DIFF B1000",
        "t2w|g t2|AX T2",
        "t2f|g flaircube|3D FLAIR",
        "t1c|g bravo|AX 3D T1 GADO|agent=DOTAREM",
    ),
    "siemens, french": examination(
        "t1n|s mprage|T1 MPRAGE SANS GADO",
        "t2w|s t2|T2 AX",
        "t2f|s flair3d|FLAIR 3D",
        "t1c|s mprage|T1 MPRAGE AVEC GADO",
    ),
    "siemens, pituitary gland": examination(
        "t1n|s t1tse|t1_tse_cor Hypophyse",
        "t1c|s t1tse|t1_tse_cor_dyn_KM|agent=yes",
        "t2w|s t2|t2_tse_tra",
        "t2f|s flair|flair tra",
    ),
    "philips, THRIVE": examination(
        "t1n|p tfe|T1 TFE",
        "t2w|p t2|T2",
        "t2f|p flair|FLAIR",
        "t1c|p ffe|eTHRIVE GD|agent=yes",
    ),
    "ge, localiser by FGRE": examination(
        "|g fspgr|Loc FGRE|slices=9",
        "t1n|g bravo|Ax 3D T1 BRAVO",
        "t2w|g t2|Ax T2 PROP",
        "t2f|g flair|Ax T2 FLAIR PROP",
        "t1c|g bravo|Ax 3D T1 BRAVO+C",
    ),
    "ge, WITH": examination(
        "t1n|g t1se|OBL AX T1",
        "t2w|g t2|OBL AX T2",
        "t2f|g flair|OBL AX FLAIR",
        "t1c|g t1se|OBL AX T1 WITH",
    ),
    "ge, agent yes and no": examination(
        "t1n|g t1se|AX T1|agent=NO",
        "t2w|g t2|AX T2|agent=NO",
        "t2f|g flair|AX FLAIR|agent=NO",
        "t1c|g t1se|AX T1|agent=YES",
    ),
    "philips, inflow angiography": examination(
        "t1n|p ffe|T1W 3D FFE",
        "|p ffe|s3DI_MC_HR",
        "t2w|p t2|T2W_TSE",
        "t2f|p flair|FLAIR",
        "t1c|p ffe|T1W 3D FFE Gd|agent=yes",
    ),
    "philips, no names, inflow angiography": examination(
        "t1n|p t1se|",
        "|p ffe|",
        "t2w|p t2|",
        "t2f|p flair|",
        "t1c|p t1se||agent=yes",
    ),
    "volumes, numbered": volumes(
        **{"001_T1_MPRAGE_SAG": "t1n", "002_T2_TSE": "t2w", "003_FLAIR": "t2f", "004_T1_MPRAGE_SAG_GAD": "t1c"}
    ),
    "volumes of UPENN": volumes(
        **{
            "UPENN-GBM-00001_11_T1": "t1n",
            "UPENN-GBM-00001_11_T1GD": "t1c",
            "UPENN-GBM-00001_11_T2": "t2w",
            "UPENN-GBM-00001_11_FLAIR": "t2f",
        }
    ),
    "volumes of UCSF": volumes(
        **{
            "U-1_T1": "t1n",
            "U-1_T1c": "t1c",
            "U-1_T2": "t2w",
            "U-1_FLAIR": "t2f",
            "U-1_SWI": "",
            "U-1_DWI": "",
            "U-1_ASL": "",
            "U-1_brain_segmentation": "",
            "U-1_tumor_segmentation": "",
            "U-1_DTI_eddy_MD": "",
            "U-1_T1_bias": "t1n",
        }
    ),
    "volumes, pre and post": volumes(pre="t1n", post="t1c", t2="t2w", flair="t2f"),
    "volumes, bravo": volumes(
        **{"0_t1_pre": "t1n", "1_flair": "t2f", "2_t1_gd": "t1c", "3_bravo": "t1c", "4_t2": "t2w"}
    ),
    "volumes with a lesion mask": volumes(
        T1="t1n",
        T1POST="t1c",
        T2="t2w",
        FLAIR="t2f",
        GT="",
    ),
    "volumes by date": volumes(
        t1_mprage_sag_20200101_5="t1n",
        t1_mprage_sag_20200101_12="t1c",
        t2_tse_tra_20200101_7="t2w",
        t2_flair_tra_20200101_9="t2f",
    ),
    "siemens, a word for before that nobody knows": examination(
        "t1n|s t1se|t1_tra antes Gd",
        "t2w|s t2|t2_tra",
        "t2f|s flair|flair",
        "t1c|s t1se|t1_tra Gd",
    ),
    "volumes, pre alone": volumes(pre="t1n", t2="t2w", flair="t2f"),
}
