"""One voxel, one millimetre: the files of a result in the conventions of DICOM, NIfTI, 3D Slicer and NiiVue."""

import base64
from pathlib import Path
from typing import Any

import dicom_files as files
import nibabel as nib
import nrrd
import numpy as np
import numpy.typing as npt
import pydicom
import pytest
import SimpleITK as sitk
from browser import needs_browser, tab

from brainmets import nifti
from brainmets.preparation import raw
from brainmets.preparation.pipeline import along_ras
from brainmets.report.scripts import script
from brainmets.screening import exchange
from brainmets.screening.exchange import ExchangeError
from brainmets.vocabulary import LABEL_COLOURS, LABEL_TITLES

OBLIQUE = ((0.96, 0.28, 0.0), (-0.224, 0.768, 0.6))
MARKED = (6, 3, 2)
"""Row, column and file of the voxel that is marked."""
LPS = np.array([-1.0, -1.0, 1.0])


@pytest.fixture
def result(tmp_path: Path) -> tuple[Path, npt.NDArray[np.float64]]:
    """Folder of t1c, labels and segmentation of an oblique scan, and where its one marked voxel lies: mm in LPS.

    The place is worked out from the header of the marked slice alone; the voxel is the brightest of the image.
    """
    row, column, number = MARKED
    voxels = files.pattern(8, 12, 10)
    voxels[number, row, column] = 3000
    source = files.write_series(tmp_path / "scan", "t1c", voxels=voxels, directions=OBLIQUE)
    head = pydicom.dcmread(source[number])
    along = np.array(head.ImageOrientationPatient, float).reshape(2, 3)
    between_rows, between_columns = map(float, head.PixelSpacing)
    place = (
        np.array(head.ImagePositionPatient, float)
        + column * between_columns * along[0]
        + row * between_rows * along[1]
    )
    (found,) = raw.find(tmp_path / "scan")[0]
    image, affine = along_ras(raw.read(found))
    labels = np.where(image == 3000, 3, 0).astype(np.uint8)
    nifti.write(tmp_path / "t1c.nii.gz", image, affine)
    nifti.write(tmp_path / "labels.nii.gz", labels, affine)
    exchange.write_nrrd(tmp_path / "labels.seg.nrrd", labels, affine)
    return tmp_path, place


def test_nifti_by_nibabel_and_by_itk(result: Any) -> None:
    folder, place = result
    for name, value in (("t1c", 3000), ("labels", 3)):
        path = folder / f"{name}.nii.gz"
        read = nib.load(path)
        (voxel,) = np.argwhere(np.asarray(read.dataobj) == value)
        assert np.allclose(nib.affines.apply_affine(read.affine, voxel) * LPS, place, atol=1e-4)
        image = sitk.ReadImage(str(path))  # as Slicer and ITK-SNAP read: LPS
        (backwards,) = np.argwhere(sitk.GetArrayFromImage(image) == value)
        assert np.allclose(image.TransformIndexToPhysicalPoint(backwards[::-1].tolist()), place, atol=1e-4)
        by_quaternion = read.header.get_qform()
        assert np.allclose(by_quaternion, read.affine, atol=1e-4), "sform and qform differ"


def test_segmentation_for_slicer(result: Any) -> None:
    folder, place = result
    voxels, header = nrrd.read(str(folder / "labels.seg.nrrd"))
    assert header["space"] == "left-posterior-superior"
    (voxel,) = np.argwhere(voxels == 3)
    assert np.allclose(header["space origin"] + voxel @ header["space directions"], place, atol=1e-4)
    assert header["Segment0_Name"] == LABEL_TITLES["et"]
    assert header["Segment0_LabelValue"] == "3"
    shown = [float(part) for part in header["Segment0_Color"].split()]
    assert np.allclose(shown, [part / 255 for part in bytes.fromhex(LABEL_COLOURS["et"][1:])], atol=1e-3)
    extent = np.array(header["Segment0_Extent"].split(), int).reshape(3, 2)
    assert (extent[:, 0] <= voxel).all()
    assert (voxel <= extent[:, 1]).all()
    assert (extent[:, 0] >= 0).all()
    assert (extent[:, 1] < voxels.shape).all()
    assert "Segment1_Name" not in header


def test_no_label_at_all(tmp_path: Path) -> None:
    path = exchange.write_nrrd(tmp_path / "labels.seg.nrrd", np.zeros((4, 5, 6), np.uint8), np.eye(4))
    voxels, header = nrrd.read(str(path))
    assert voxels.shape == (4, 5, 6)
    assert not voxels.any()
    assert "Segment0_Name" not in header


def test_every_label_by_its_name(tmp_path: Path) -> None:
    labels = np.arange(60, dtype=np.uint8).reshape(3, 4, 5) % 5
    voxels, header = nrrd.read(str(exchange.write_nrrd(tmp_path / "labels.seg.nrrd", labels, np.eye(4))))
    assert np.array_equal(voxels, labels)
    found = {header[f"Segment{n}_Name"]: int(header[f"Segment{n}_LabelValue"]) for n in range(4)}
    assert found == dict(zip(LABEL_TITLES.values(), range(1, 5), strict=True))


def test_an_unknown_label_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="labels: 7 are no labels"):
        exchange.write_nrrd(tmp_path / "labels.seg.nrrd", np.full((2, 2, 2), 7, np.uint8), np.eye(4))


@pytest.mark.parametrize(("lean", "refused"), [(0.05, False), (0.2, True), (20, True)])
def test_leaning_slices_are_refused(tmp_path: Path, lean: float, refused: bool) -> None:
    affine = np.eye(4)
    affine[1, 2] = np.tan(np.radians(lean))
    path, labels = tmp_path / "labels.seg.nrrd", np.ones((2, 2, 2), np.uint8)
    if refused:
        with pytest.raises(ExchangeError, match=f"lean by {lean:.1f} degrees.*use labels.nii.gz or labels.dcm"):
            exchange.write_nrrd(path, labels, affine)
    else:
        exchange.write_nrrd(path, labels, affine)
    assert path.exists() is not refused


PAGE = """<canvas id="canvas" width="300" height="300"></canvas><script>{script}</script><script>
(async function () {{
  const viewer = new Niivue({{logLevel: "error"}});
  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer;
  await viewer.attachToCanvas(document.getElementById("canvas"));
  await viewer.loadFromArrayBuffer(bytes("{t1c}"), "t1c.nii.gz");
  await viewer.loadFromArrayBuffer(bytes("{labels}"), "labels.nii.gz");
  window.under = function (mm) {{
    let told;
    viewer.onLocationChange = (location) => {{ told = location; }};
    viewer.scene.crosshairPos = viewer.mm2frac(mm, 0, true);
    viewer.createOnLocationChange();
    return {{mm: Array.from(told.mm), values: told.values.map((one) => one.value)}};
  }};
  window.place = (voxel) => Array.from(viewer.frac2mm(viewer.vox2frac(voxel, 1), 1, true));
  document.body.dataset.ready = "yes";
}})().catch((error) => {{ document.body.dataset.ready = "error: " + error; }});
</script>"""
"""Both images in NiiVue; ``under`` gives what it tells of a point in mm, ``place`` where a label voxel lies."""


@pytest.mark.slow
@pytest.mark.browser
def test_niivue_puts_the_label_on_the_voxel(result: Any) -> None:
    """What the viewer tells at the crosshair: mm in RAS, and the values of image and overlay there."""
    needs_browser()
    folder, place = result
    images = {name: (folder / f"{name}.nii.gz").read_bytes() for name in ("t1c", "labels")}
    coded = {name: base64.b64encode(content).decode() for name, content in images.items()}
    page = folder / "page.html"
    page.write_text(PAGE.format(script=script("Niivue").replace("</script", "<\\/script"), **coded))
    with tab(offline=True, width=400, height=400) as opened:
        opened.page.goto(page.as_uri())
        opened.page.wait_for_function("() => document.body.dataset.ready", timeout=120_000)
        assert opened.page.evaluate("() => document.body.dataset.ready") == "yes"
        there = opened.page.evaluate("mm => under(mm)", (place * LPS).tolist())
        beside = opened.page.evaluate("mm => under(mm)", (place * LPS + np.array(OBLIQUE[0]) * LPS).tolist())
        labels = nib.load(folder / "labels.nii.gz")
        turned = nib.as_closest_canonical(labels)  # NiiVue counts voxels along R, A and S
        (voxel,) = np.argwhere(np.asarray(turned.dataobj) == 3)
        from_voxel = opened.page.evaluate("voxel => place(voxel)", voxel.tolist())
    assert np.abs(np.array(there["mm"][:3]) - place * LPS).max() < 0.01
    assert there["values"] == [3000, 3]
    assert beside["values"][1] == 0
    assert np.abs(np.array(from_voxel[:3]) - place * LPS).max() < 0.01
    assert opened.outside == []
    assert opened.errors == []
