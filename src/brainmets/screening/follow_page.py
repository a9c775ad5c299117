"""The page of a follow-up: one file that opens anywhere, with every lesion at every date at the same place.

Nothing is fetched and no script runs. It shows heads inside the brain's neighbourhood and names cases as their folders
do; no path, person or machine.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from io import BytesIO
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import numpy.typing as npt
import pandas as pd
import SimpleITK as sitk
from matplotlib.figure import Figure
from PIL import Image
from scipy import ndimage

from brainmets import nifti
from brainmets.figures import SCREEN_DPI, panel_grid
from brainmets.files import write_text
from brainmets.paths import FollowUpPaths
from brainmets.preparation.grids import image_of
from brainmets.preparation.registration import one_thread
from brainmets.report.redaction import leaks
from brainmets.screening import extent, rano
from brainmets.screening.followup import FollowUp, FollowUpError, Visit
from brainmets.screening.lesion_tracks import EVENT_WORDS, Event
from brainmets.screening.page import PAGES
from brainmets.screening.rano import CATEGORY_TITLES

FIELD_MM, PIXEL_MM = 64.0, 0.5
"""Width of a lesion's picture, and of its pixels."""
JPEG_QUALITY = 88
OUTLINES = {"accepted": (240, 228, 66), "candidate": (86, 180, 233)}
"""Colours of the page of a single scan."""
LESION_STYLES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vP*X"
CATEGORY_MARKS = {"CR": "*", "PR": "v", "SD": "s", "PD": "^", "NE": "x", "baseline": "o"}
STATE_WORDS = {
    "absent": "nothing", "merged": "merged", "not evaluable": "not evaluable", "below": "below the point",
}  # fmt: skip


def write(files: FollowUpPaths, found: FollowUp) -> None:
    """Write ``index.html``. Raises ``FollowUpError`` where it would reveal a path or a name of the machine."""
    html = render(found)
    if revealed := leaks(html):
        raise FollowUpError(f"the page would reveal {', '.join(revealed[:5])}: rename the case, or make it again")
    write_text(files.page, html)


def render(found: FollowUp) -> str:
    """The page's text."""
    days = [visit.day.isoformat() for visit in found.visits]
    last = max(place for place, visit in enumerate(found.visits) if visit.usable)
    shown = [_shown(visit) for visit in found.visits]
    return PAGES.get_template("follow.html.j2").render(
        cases=[visit.result.files.case for visit in found.visits],
        dates=[
            {
                "day": day, "case": visit.result.files.case, "refused": visit.refused, "laid": visit.laid,
                "model": str(visit.model["name"]), "hash": str(visit.model["sha256"])[:12],
            }
            for day, visit in zip(days, found.visits, strict=True)
        ],
        headline=_headline(found, last),
        latest=found.assessments[last],
        latest_day=days[last],
        titles=CATEGORY_TITLES,
        assessments=list(zip(days, found.assessments, strict=True)),
        days=days,
        targets=found.targets,
        events=[_event(event, days) for event in found.tracks.events],
        lesions=[_lesion(found, shown, track) for track in found.tracks.places],
        volumes=_uri(volumes_figure(found)) if found.tracks.places else "",
        sums=_uri(sums_figure(found)) if found.targets else "",
        warnings=found.warnings,
        rules=rano.RULES,
        imaging_only=rano.IMAGING_ONLY,
        immunotherapy=found.immunotherapy,
        limits=_limits(found),
        source=found.repeatability.source,
        candidates=_candidates(found),
    )  # fmt: skip


def _headline(found: FollowUp, last: int) -> str:
    latest = found.assessments[last]
    if not found.tracks.places:
        return f"No lesion at any of {len(found.visits)} dates"
    title = CATEGORY_TITLES[latest.category]
    return f"{title[0].upper()}{title[1:]} on {found.visits[last].day} (imaging part)"


def _event(event: Event, days: Sequence[str]) -> dict[str, str]:
    other = {"split": " from lesion ", "merge": ": lesion "}.get(event.kind, "")
    words = {"split": "split off", "merge": "merged into another"}.get(event.kind, EVENT_WORDS[event.kind])
    return {
        "day": days[event.date], "kind": event.kind, "lesion": str(event.track),
        "text": words + (f"{other}{event.other}" if event.other is not None else ""),
    }  # fmt: skip


def _limits(found: FollowUp) -> list[str]:
    texts, low = [], 0.0
    for most, factor in found.repeatability.limits:
        size = f"up to {most:g} mm³" if low == 0 and np.isfinite(most) else f"above {low:g} mm³"
        if low and np.isfinite(most):
            size = f"{low:g} to {most:g} mm³"
        if low == 0 and not np.isfinite(most):
            size = "all sizes"
        texts.append(f"{size}: {100 * (1 / factor - 1):+.0f}% to {100 * (factor - 1):+.0f}%")
        low = most
    return texts


def _candidates(found: FollowUp) -> list[tuple[str, int]]:
    """Per date the candidates below the operating point that belong to no followed lesion."""
    counted = []
    for at, visit in enumerate(found.visits):
        used = {places[at].lesion for places in found.tracks.places.values()}
        below = visit.result.table.loc[~visit.result.table["accepted"], "lesion"]
        counted.append((visit.day.isoformat(), sum(int(number) not in used for number in below)))
    return counted


# --- one lesion ------------------------------------------------------------------------------------------------------


def _lesion(found: FollowUp, shown: Sequence[_Shown | None], track: int) -> dict[str, Any]:
    rows = found.table[found.table["lesion"] == track].to_dict("records")
    pictures = _pictures(found, shown, track)
    joined = found.tracks.joined
    return {
        "number": track,
        "target": track in found.targets,
        "split_from": joined.split_from.get(track),
        "merged_into": joined.merged_into.get(track),
        "at": [
            _at(row, picture, _before(rows, place, joined.split_from.get(track)))
            for place, (row, picture) in enumerate(zip(rows, pictures, strict=True))
        ],
    }


def _before(rows: Sequence[dict[Any, Any]], place: int, whole: int | None) -> str:
    """What a part is before its split."""
    gone = all(row["state"] == "absent" for row in rows[: place + 1])
    return f"part of lesion {whole}" if whole is not None and gone else ""


def _at(row: dict[Any, Any], picture: str, before: str) -> dict[str, Any]:
    shown = pd.notna(row["volume_mm3"])
    twice = row["from_nadir_mm3"] == row["from_baseline_mm3"]
    return {
        "day": row["date"],
        "state": row["state"],
        "number": None if pd.isna(row["number"]) else int(row["number"]),
        "state_words": before or STATE_WORDS.get(row["state"], ""),
        "volume": f"{row['volume_mm3']:.0f}" if shown else "",
        "size": f"{row['longest_mm']:.1f} x {row['perpendicular_mm']:.1f}" if shown and row["longest_mm"] else "",
        "nadir": row["nadir"],
        "baseline": _change(row, "baseline"),
        "from_nadir": {"numbers": "", "words": ""} if twice else _change(row, "nadir"),
        "picture": picture,
    }


def _change(row: dict[Any, Any], name: str) -> dict[str, str]:
    if pd.isna(row[f"from_{name}_mm3"]):
        return {"numbers": "", "words": ""}
    percent = row[f"from_{name}_percent"]
    shown = "" if pd.isna(percent) else f"{percent:+.0f}%, "
    return {
        "numbers": f"{shown}{row[f'from_{name}_mm3']:+.0f} mm³, {row[f'from_{name}_mm']:+.1f} mm",
        "words": str(row[f"against_{name}"]),
    }


class _Shown(NamedTuple):
    """What one date's pictures are cut from: t1c and numbers (LPS), the grey level drawn white, what is accepted."""

    image: sitk.Image
    numbers: sitk.Image
    white: float
    accepted: frozenset[int]
    to_source: sitk.Euler3DTransform


def _shown(visit: Visit) -> _Shown | None:
    if not visit.usable or visit.to_source is None:
        return None
    files, table = visit.result.files, visit.result.table
    image, grid = nifti.read_scan(files.t1c)
    numbers, _ = extent.read_numbers(files)
    voxels = np.nan_to_num(np.asarray(image, np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    seen = voxels[voxels > 0]
    return _Shown(
        image_of(voxels, grid.affine),
        image_of(numbers, grid.affine),
        float(np.percentile(seen, 99.7)) if seen.size else 1.0,
        frozenset(int(number) for number in table.loc[table["accepted"], "lesion"]),
        visit.to_source,
    )


def _pictures(found: FollowUp, shown: Sequence[_Shown | None], track: int) -> list[str]:
    """The same axial place of the common space at every date, with outlines; "" where there is no scan."""
    places = found.tracks.places[track]
    home = next(at for at, place in enumerate(places) if place.lesion is not None)
    number = places[home].lesion
    assert number is not None
    plane = _plane(_centre(found.visits[home], number))
    return [
        "" if one is None else _picture(one, plane, place.lesion) for one, place in zip(shown, places, strict=True)
    ]


def _centre(visit: Visit, number: int) -> npt.NDArray[np.float64]:
    """Where a lesion's centroid lies in the common space (mm, LPS)."""
    row = visit.result.table.set_index("lesion")[["x_mm", "y_mm", "z_mm"]].astype(float).loc[number]
    assert visit.to_source is not None
    place = (row.to_numpy() * (-1, -1, 1)).tolist()
    return np.asarray(visit.to_source.GetInverse().TransformPoint(place))


def _plane(centre: npt.NDArray[np.float64]) -> sitk.Image:
    """An axial plane of the common space around a place: one slice, along L and P."""
    pixels = round(FIELD_MM / PIXEL_MM)
    plane = sitk.Image(pixels, pixels, 1, sitk.sitkUInt8)
    plane.SetSpacing((PIXEL_MM, PIXEL_MM, PIXEL_MM))
    half = (pixels - 1) / 2 * PIXEL_MM
    plane.SetOrigin([float(centre[0]) - half, float(centre[1]) - half, float(centre[2])])
    return plane


def _picture(shown: _Shown, plane: sitk.Image, lesion: int | None) -> str:
    with one_thread():
        grey, marked = (
            sitk.GetArrayFromImage(sitk.Resample(image, plane, shown.to_source, how, 0.0))[0]
            for image, how in ((shown.image, sitk.sitkLinear), (shown.numbers, sitk.sitkNearestNeighbor))
        )
    shade = np.clip(grey / shown.white, 0, 1)
    tile = np.repeat((235 * shade).astype(np.uint8)[..., None], 3, axis=2)
    for number in np.unique(marked[marked > 0]).tolist():
        mask = marked == number
        line = mask & ~ndimage.binary_erosion(mask)
        if number != lesion:  # another lesion's outline is dotted
            line &= (np.indices(line.shape).sum(0) % 4) < 2
        tile[line] = OUTLINES["accepted" if number in shown.accepted else "candidate"]
    written = BytesIO()
    Image.fromarray(tile).save(written, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return _data("jpeg", written.getvalue())


# --- figures ---------------------------------------------------------------------------------------------------------


def volumes_figure(found: FollowUp) -> Figure:
    """Each lesion's volume over time in a panel of its own, with the band within which a change means nothing."""
    tracks = list(found.tracks.places)
    columns = min(4, len(tracks))
    rows = -(-len(tracks) // columns)
    figure, panels = panel_grid(rows, columns, 2.9, 2.1)
    days = [visit.day for visit in found.visits]
    for panel in panels.flat[len(tracks) :]:
        panel.set_axis_off()
    for place, (track, panel) in enumerate(zip(tracks, panels.flat, strict=False)):
        table = found.table[found.table["lesion"] == track]
        volume = table["volume_mm3"].astype(float).to_numpy()
        states = table["state"].to_list()
        known = np.flatnonzero(~np.isnan(volume))
        begun = next((at for at in known if volume[at] > 0), None)
        colour = LESION_STYLES[place % len(LESION_STYLES)]
        if begun is not None:
            factor = found.repeatability.factor(volume[begun])
            panel.axhspan(volume[begun] / factor, volume[begun] * factor, color="0.88", zorder=0)
            panel.axhline(volume[begun], color="0.6", linewidth=0.8, linestyle=":")
        when = np.array(days)[known]
        panel.plot(when, volume[known], color=colour, marker=MARKERS[place % len(MARKERS)], markersize=4)
        hollow = [at for at in known if states[at] == "below"]
        panel.plot(
            np.array(days)[hollow], volume[hollow], linestyle="", color=colour, markerfacecolor="white",
            marker=MARKERS[place % len(MARKERS)], markersize=6,
        )  # fmt: skip
        lowest = [at for at in known if bool(table["nadir"].iloc[at])]
        if lowest:
            at = lowest[-1]
            panel.annotate(
                "nadir", (days[at], volume[at]), (0, -10), textcoords="offset points", fontsize=7, ha="center"
            )
        panel.set_xlim(days[0], days[-1])
        panel.margins(x=0.08)
        panel.set_ylim(bottom=0)
        panel.set_xticks(days, [day.isoformat() for day in days], rotation=30, ha="right", fontsize=7)
        panel.set_title(f"Lesion {track}{' (target)' if track in found.targets else ''}", fontsize=9)
        panel.set_ylabel("volume (mm³)", fontsize=8)
    return figure


def sums_figure(found: FollowUp) -> Figure:
    """The sum of the target lesions' longest diameters, with each date's category and the borders that gave it."""
    figure, panels = panel_grid(1, 1, 6.2, 2.6)
    panel = panels[0, 0]
    days = [visit.day for visit in found.visits]
    known = [at for at, one in enumerate(found.assessments) if one.sum_mm is not None]
    sums = [float(found.assessments[at].sum_mm or 0.0) for at in known]
    panel.plot([days[at] for at in known], sums, color="0.4", linewidth=1)
    for at, total in zip(known, sums, strict=True):
        one = found.assessments[at]
        panel.plot(days[at], total, marker=CATEGORY_MARKS[one.category], color="black", markersize=7, linestyle="")
        label = "" if one.category == "baseline" else f"\n{one.category}"
        panel.annotate(f"{total:.1f} mm{label}", (days[at], total), (0, 8), textcoords="offset points",
                       fontsize=8, ha="center", bbox={"color": "white", "alpha": 0.8, "pad": 0.5})  # fmt: skip
    for at, one in enumerate(found.assessments):
        if one.sum_mm is None:
            panel.annotate(one.category, (days[at], 0), (0, 4), textcoords="offset points", fontsize=8, ha="center")
    baseline = sums[0]
    panel.axhline(baseline, color="0.6", linestyle=":", linewidth=0.9)
    panel.axhline(baseline * (1 - rano.RESPONSE_PERCENT / 100), color="#0072B2", linestyle="--", linewidth=0.9)
    nadir = min(sums)
    panel.axhline(nadir * (1 + rano.PROGRESSION_PERCENT / 100), color="#D55E00", linestyle="-.", linewidth=0.9)
    for height, text in (
        (baseline * (1 - rano.RESPONSE_PERCENT / 100), "baseline - 30%"),
        (nadir * (1 + rano.PROGRESSION_PERCENT / 100), "lowest + 20%"),
    ):
        panel.annotate(text, (1.0, height), (3, -2), xycoords=("axes fraction", "data"), textcoords="offset points",
                       fontsize=7)  # fmt: skip
    panel.set_ylim(0, 1.3 * max([*sums, 1.0]))
    span = (days[-1] - days[0]) * 0.08
    panel.set_xlim(days[0] - span, days[-1] + span)
    panel.set_xticks(days, [day.isoformat() for day in days], fontsize=8)
    panel.set_ylabel("sum of longest diameters (mm)", fontsize=8)
    return figure


def _uri(figure: Figure) -> str:
    written = BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "path", "svg.hashsalt": "follow"}):
        figure.savefig(written, format="png", dpi=1.5 * SCREEN_DPI, metadata={"Software": None})
    return _data("png", written.getvalue())


def _data(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"
