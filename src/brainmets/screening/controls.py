"""The controls with which a reader decides the candidates of a screened scan in JupyterLab, one at a time.

Nothing is written before a button is pressed; every decision goes through ``reading``, which keeps it beside the
result. The slider's outline is drawn before it is saved.
"""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import ipywidgets
import numpy as np
import numpy.typing as npt
from IPython.display import display
from matplotlib.figure import Figure

from brainmets import nifti
from brainmets.paths import ScreeningPaths
from brainmets.review import viewers
from brainmets.review.case import ReviewCase
from brainmets.scoring import probabilities
from brainmets.screening import extent, left, page, pictures, reading, result, worklist
from brainmets.screening.pictures import PLANES, Scan
from brainmets.screening.reading import Reading, Verdict

Mask = npt.NDArray[np.bool_]

FIELD_MM = 60.0
"""Least width of a candidate's pictures."""
BEFORE, AFTER = "#E69F00", "#56B4E9"
"""The outline as the model has it (solid), and at the slider's probability (dashed): of Okabe and Ito's colours."""
NOTHING = "No candidate: nothing reached the lowest probability at which this model marks one."
REFUSED = "This scan was refused before anything was predicted: there is nothing to read."


def show(files: ScreeningPaths) -> None:
    """Show the controls of a screened scan, or say that it was refused or that no candidate is there."""
    if not files.numbers.is_file():
        print(REFUSED)
        return
    display(ReadingControls(files).widget)


def view(files: ScreeningPaths, folder: Path, viewer: viewers.Viewer) -> Any:
    """The scan in 3D with the model's label map, as ``viewers.show``; the head outside the brain is left out.

    ``folder`` receives the files that NiiVue and the slices need.
    """
    if not files.numbers.is_file():
        print(REFUSED)
        return None
    record = result.read(files.folder).record["model"]
    scan = pictures.read_scan(files)
    labels = nifti.to_ras(nifti.read_labels(files.labels), nifti.read_grid(files.labels).affine)[0]
    image = scan.image if scan.inside is None else np.where(scan.inside | (labels > 0), scan.image, np.float32(0))
    shown = (str(record["arm"]), str(record["strategy"]))
    case = ReviewCase(files.case, {"t1c": image}, labels, {shown: labels}, scan.affine)
    return viewers.show(viewers.coarser(case), shown, folder, viewer)


class ReadingControls:
    """The form; ``widget`` is what a notebook displays. Raises ``ResultError`` for a result that is not whole."""

    def __init__(self, files: ScreeningPaths) -> None:
        found = result.read(files.folder)
        self.files = files
        self.rows = found.table.set_index("lesion")
        self.scan = pictures.read_scan(files)
        predicted, grid = probabilities.read(files.probabilities)
        self.probability = nifti.to_ras(predicted[extent.region_of(files)], grid.affine)[0]
        self.reading = reading.read(files)
        self.seen = self.reading.result
        wide = {"style": {"description_width": "14em"}, "layout": {"width": "44em"}}
        self.state = ipywidgets.Label()
        self.candidate = ipywidgets.Dropdown(description="candidate", **wide)
        self.words = ipywidgets.HTML()
        self.picture = ipywidgets.Image(format="png")
        self.threshold = ipywidgets.FloatSlider(
            description="from probability", min=0.01, max=1.0, step=0.01, continuous_update=False, **wide
        )
        self.drawn = ipywidgets.Text(description="label map of 3D Slicer", placeholder=".seg.nrrd or .nii.gz", **wide)
        self.place = ipywidgets.Text(
            description="missed lesion at (mm)", placeholder="right, front, top: 12.5, -30, 8", **wide
        )
        self.message = ipywidgets.Label()
        self.widget = ipywidgets.VBox(
            [
                self.state, self.candidate, self.words, self.picture,
                self._row(
                    ("Accept", "success", self._accept), ("Reject", "danger", self._reject),
                    ("Take back", "", self._take_back),
                ),
                self.threshold, self._row(("Correct to this probability", "", self._correct)),
                self.drawn, self._row(("Correct to this label map", "", self._correct_by_map)),
                self.place, self._row(("Add a missed lesion here", "", self._add)),
                self._row(("Write label map and table", "primary", self._write)), self.message,
            ]
        )  # fmt: skip
        self.candidate.observe(self._changed, "value")
        self._list()
        self.threshold.observe(lambda _: self._draw(), "value")
        self._show()

    # --- deciding

    def _accept(self) -> Reading:
        return self._decide("accepted")

    def _reject(self) -> Reading:
        return self._decide("rejected")

    def _take_back(self) -> Reading:
        return reading.withdraw(self.files, self._chosen(), result=self.seen)

    def _correct(self) -> Reading:
        return self._decide("corrected", threshold=float(self.threshold.value))

    def _correct_by_map(self) -> Reading:
        return self._decide("corrected", mask=self._typed_map())

    def _add(self) -> Reading:
        parts = self.place.value.replace(";", ",").split(",")
        try:
            place = [float(part) for part in parts]
        except ValueError:
            raise reading.ReadingError(f"missed lesion: {self.place.value!r} must be three numbers in mm") from None
        mask = self._typed_map() if self.drawn.value.strip() else None
        return reading.add(self.files, place, mask=mask, result=self.seen)

    def _write(self) -> Reading:
        left.write(self.files)
        page.write(self.files)
        worklist.renew(self.files.folder.parent)
        return reading.read(self.files)

    def _decide(self, verdict: Verdict, **extent_of: Any) -> Reading:
        return reading.decide(self.files, self._chosen(), verdict, result=self.seen, **extent_of)

    def _chosen(self) -> int:
        if self.candidate.value is None:
            raise reading.ReadingError("there is no candidate to decide")
        return int(self.candidate.value)

    def _typed_map(self) -> Path:
        if not self.drawn.value.strip():
            raise reading.ReadingError("label map: is empty; type the path of the file that was saved in 3D Slicer")
        return Path(self.drawn.value.strip()).expanduser()

    # --- showing

    def _row(self, *buttons: tuple[str, str, Callable[[], Reading]]) -> ipywidgets.HBox:
        made = []
        for title, style, act in buttons:
            button = ipywidgets.Button(description=title, button_style=style, layout={"width": "16em"})
            button.on_click(self._pressed(title, act))
            made.append(button)
        return ipywidgets.HBox(made)

    def _pressed(self, title: str, act: Callable[[], Reading]) -> Callable[[ipywidgets.Button], None]:
        def press(_: ipywidgets.Button) -> None:
            try:
                self.reading = act()
            except (ValueError, OSError) as error:
                self.message.value = f"Not saved: {error}"
                return
            self._list()
            self._show()
            self.message.value = f"{title}: saved beside the result."

        return press

    def _list(self) -> None:
        """The candidates with what is decided, and the state above them; the chosen one stays chosen."""
        decided = self.reading.decisions
        options = []
        for number in (*self.reading.candidates, *self.reading.added):
            verdict = decided[number].verdict if number in decided else "not decided"
            kind = "added" if number not in self.rows.index else self._kind(number)
            options.append((f"{number}, {kind}: {verdict}", number))
        before = self.candidate.value
        self.candidate.unobserve(self._changed, "value")  # new options choose the first one
        self.candidate.options = options
        if before in [number for _, number in options]:
            self.candidate.value = before
        self.candidate.observe(self._changed, "value")
        self.state.value = self.reading.sentence

    def _changed(self, _: Any) -> None:
        self._show()

    def _kind(self, number: int) -> str:
        return "lesion" if number in self.reading.accepted else "below the operating point"

    def _show(self) -> None:
        """Text, slider and picture of the chosen candidate."""
        self.message.value = ""
        number = self.candidate.value
        if number not in self.rows.index:
            self.words.value = "" if number is not None else NOTHING
            self.picture.layout.display = "none"
            return
        row = self.rows.loc[number]
        self.words.value = (
            f"<b>{number}</b> of {len(self.rows)} ({self._kind(number)}): probability {row['score']:.2f}, "
            f"{row['volume_mm3']:.0f} mm³, {row['longest_mm']:.1f} x {row['perpendicular_mm']:.1f} mm, {row['side']}, "
            f"at {row['x_mm']:.0f}, {row['y_mm']:.0f}, {row['z_mm']:.0f} mm"
        )
        decision = self.reading.decisions.get(number)
        threshold = decision.threshold if decision is not None and decision.threshold is not None else None
        self.threshold.value = threshold or min(0.5, round(float(row["score"]), 2))
        self.picture.layout.display = ""
        self._draw()

    def _draw(self) -> None:
        number = self.candidate.value
        if number not in self.rows.index:
            return
        own = self.scan.numbers == number
        try:
            grown = extent.grown(self.probability, self.scan.numbers, number, float(self.threshold.value))
            side_mm3 = float(np.prod(self.scan.spacing))
            self.message.value = f"From {self.threshold.value:.2f}: {grown.sum() * side_mm3:.0f} mm³ (dashed)."
        except reading.ReadingError as error:
            grown = np.zeros_like(own)
            self.message.value = str(error)
        self.picture.value = picture(self.scan, own, grown)


def picture(scan: Scan, own: Mask, grown: Mask) -> bytes:
    """A PNG of a lesion in three planes through its middle: ``own`` solid, ``grown`` dashed (masks of the scan).

    As radiologists look at it: the patient's right on the left, the front of the sagittal plane too.
    """
    centre = np.rint(np.argwhere(own).mean(axis=0)).astype(int)
    low, high = scan.grey
    figure = Figure(figsize=(9, 3.3), layout="constrained")
    for panel, plane in zip(figure.subplots(1, 3), PLANES, strict=True):
        at = int(centre[plane.axis])
        grey = scan.image.take(at, plane.axis).T
        sides = scan.spacing[plane.across], scan.spacing[plane.up]
        shape = scan.image.shape[plane.across], scan.image.shape[plane.up]
        across, up = np.arange(shape[0]) * sides[0], np.arange(shape[1]) * sides[1]
        edges = (-sides[0] / 2, across[-1] + sides[0] / 2, -sides[1] / 2, up[-1] + sides[1] / 2)
        panel.imshow(grey, cmap="gray", vmin=low, vmax=high, origin="lower", extent=edges, interpolation="nearest")
        for mask, colour, line in ((own, BEFORE, "-"), (grown, AFTER, "--")):
            plane_of = mask.take(at, plane.axis).T.astype(float)
            if plane_of.any() and min(plane_of.shape) > 1:
                panel.contour(across, up, plane_of, [0.5], colors=[colour], linestyles=[line])
        reach = max(FIELD_MM, 1.6 * max(np.ptp(line) for line in np.argwhere(own).T * scan.spacing[:, None])) / 2
        middle = centre[plane.across] * sides[0], centre[plane.up] * sides[1]
        panel.set_xlim(middle[0] + reach, middle[0] - reach)
        panel.set_ylim(middle[1] - reach, middle[1] + reach)
        panel.set_title(f"{plane.name} ({plane.left} left, {plane.top} above)", fontsize=9)
        panel.tick_params(left=False, bottom=False, labelleft=False, labelbottom=False)
    picture = BytesIO()
    figure.savefig(picture, format="png", dpi=90)
    return picture.getvalue()
