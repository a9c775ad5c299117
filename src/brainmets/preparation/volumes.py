"""NIfTI, MetaImage and NRRD in: one file is one series; the folder says whose it is.

``<folder>/<patient>/[<date>/...]<file>``. NIfTI goes through the rules of ``brainmets.nifti``, the others through
SimpleITK, and all come out alike: axes turned to LPS, whichever of the 48 ways the file stores them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from brainmets import nifti
from brainmets.preparation import tree
from brainmets.preparation.grids import image_of
from brainmets.preparation.scans import Finding, Header, ScanError, Series
from brainmets.preparation.stacks import FEWEST, LEAN_DEG, PLANE_COSINE

META, NRRD = (".mha", ".mhd"), (".nrrd", ".nhdr")
SUFFIXES = (*nifti.SUFFIXES, *META, *NRRD)
NOT_A_SERIES = re.compile(
    r"(?<![a-z])(seg(mentations?)?|labels?(maps?)?|masks?|rois?|gt|brain[_-]?mask)(?![a-z])|(^|[_-])brain$",
    re.IGNORECASE,
)
"""Names of label maps, masks and stripped brains."""
HEADER_BYTES = 65_536
ORIENTATION = {
    **dict.fromkeys(META, re.compile(rb"^(TransformMatrix|Rotation|Orientation)\s*=", re.MULTILINE)),
    **dict.fromkeys(NRRD, re.compile(rb"^space:\s*\S.*?^space directions:\s*\(", re.MULTILINE | re.DOTALL)),
}
"""What a header holds that says where the axes point; without it SimpleITK takes them for LPS in silence."""
NO_ORIENTATION = "says no orientation: left and right cannot be told apart; export it again from the DICOM files"

Affine = npt.NDArray[np.float64]


def find_series(folder: Path, progress: Callable[[str], None] | None = None) -> tuple[list[Series], list[Finding]]:
    """Every volume below ``folder`` by its header, and what else there is to say of them.

    ``patient`` is the first folder below ``folder``, ``date`` the folders between it and the file, joined by "/";
    ``key`` is the path below ``folder``; ``header.description`` the file's name without its ending. Label maps and
    masks, known by their names, are counted in a warning. Volumes that lie in no patient's folder are an error, and so
    is a folder without any volume, which gives no series.
    """
    paths, findings = tree.files(folder)
    paths = [path for path in paths if path.name.lower().endswith(SUFFIXES)]
    drawn = [path for path in paths if NOT_A_SERIES.search(_stem(path))]
    images = [path for path in paths if path not in set(drawn)]
    loose = [path for path in images if path.parent == folder]
    if drawn:
        text = (
            f"{tree.count(len(drawn), 'file')} with names of label maps, masks or stripped brains: left out as series"
        )
        findings.append(Finding("warning", "", 0, text))
    if loose:
        text = (
            f"{tree.count(len(loose), 'volume')} in no patient's folder: put each patient's files into one of its own"
        )
        findings.append(Finding("error", "", 0, text))
    if not images:
        findings.append(Finding("error", "", 0, f"the folder holds no volume ({', '.join(SUFFIXES)})"))
    scans: dict[tuple[str, str], list[Path]] = {}
    for path in images:
        if path.parent != folder:
            patient, *between, _ = path.relative_to(folder).parts
            scans.setdefault((patient, "/".join(between)), []).append(path)
    found = []
    for done, ((patient, date), files) in enumerate(sorted(scans.items())):
        if progress is not None and done % 50 == 49:
            progress(f"reading headers: {done + 1:,} of {len(scans):,} scans")
        for number, path in enumerate(sorted(files), start=1):
            header, problems, usable = _looked_at(path)
            key = str(PurePosixPath(path.relative_to(folder)))
            found.append(Series(patient, date, key, number, (path,), "volume", header, tuple(problems), usable))
    return found, findings


def read(series: Series) -> sitk.Image:
    """One volume: float32 after the header's slope and intercept, axes turned to LPS.

    Raises ``ScanError`` for what ``find_series`` calls unusable, for voxels that cannot be decoded and for voxels that
    are no number.
    """
    (path,) = series.files
    who = f"series {series.number}"
    if faults := _looked_at(path)[1:]:
        problems, usable = faults
        if not usable:
            raise ScanError(f"{who}: {'; '.join(problems)}")
    image = _image(path, who)
    voxels = sitk.GetArrayViewFromImage(image)
    if broken := int(np.count_nonzero(~np.isfinite(voxels))):
        raise ScanError(f"{who}: {tree.count(broken, 'voxel')} of it are no numbers; write it again without them")
    return sitk.DICOMOrient(sitk.Cast(image, sitk.sitkFloat32), "LPS")


def read_labels(path: Path) -> sitk.Image:
    """A label map or mask in its own values: uint8, axes turned to LPS.

    Raises ``ScanError`` for a file that cannot be read or says no orientation, and for values that are not whole
    numbers from 0 to 255: nothing is rounded.
    """
    who = "the label map or mask"
    _, problems, usable = _looked_at(path)
    if not usable:
        raise ScanError(f"{who}: {'; '.join(problems)}")
    image = _image(path, who)
    voxels = sitk.GetArrayViewFromImage(image)
    wrong = ~np.isfinite(voxels) | (voxels != np.rint(voxels)) | (voxels < 0) | (voxels > 255)
    if wrong.any():
        shown = ", ".join(f"{value:g}" for value in np.unique(voxels[wrong])[:5])
        raise ScanError(f"{who}: must hold whole numbers from 0 to 255, found {shown} in {int(wrong.sum())} voxels")
    return sitk.DICOMOrient(sitk.Cast(image, sitk.sitkUInt8), "LPS")


def _stem(path: Path) -> str:
    ending = next(suffix for suffix in sorted(SUFFIXES, key=len, reverse=True) if path.name.lower().endswith(suffix))
    return path.name[: -len(ending)]


# --- headers -----------------------------------------------------------------------------------------------------


def _looked_at(path: Path) -> tuple[Header, list[str], bool]:
    """The header, what is wrong, and whether it can be read."""
    empty = Header(description=_stem(path))
    try:
        shape, affine = _nifti_grid(path) if path.name.lower().endswith(nifti.SUFFIXES) else _itk_grid(path)
    except ScanError as error:
        return empty, [str(error)], False
    sides = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite(affine).all() or not (sides > 0).all() or abs(np.linalg.det(affine[:3, :3] / sides)) < 0.1:
        return empty, ["its axes do not span a volume: its header is damaged"], False
    header = _header(empty, shape, affine, sides)
    if min(shape) < FEWEST:
        return header, [f"holds {tree.count(min(shape), 'slice')} only"], False
    axes = affine[:3, :3] / sides
    lean = max(abs(90 - math.degrees(math.acos(float(axes[:, a] @ axes[:, b])))) for a, b in ((0, 1), (0, 2), (1, 2)))
    return header, [f"its axes lean by {lean:.1f} degrees (gantry tilt)"] if lean > LEAN_DEG else [], True


def _nifti_grid(path: Path) -> tuple[tuple[int, ...], Affine]:
    """Shape and affine to mm in RAS."""
    try:
        grid = nifti.read_scan_grid(path)
    except nifti.ImageError as error:
        raise ScanError(error.problem.replace(path.name, "the file")) from None
    except OSError:
        raise ScanError("cannot be opened") from None
    return grid.shape, grid.affine


def _itk_grid(path: Path) -> tuple[tuple[int, ...], Affine]:
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        if not path.stat().st_size:
            raise ScanError("is empty (0 bytes); copy it again")
        with path.open("rb") as handle:
            start = handle.read(HEADER_BYTES)
        reader.ReadImageInformation()
    except (OSError, RuntimeError):
        raise ScanError("cannot be read; copy it again") from None
    if reader.GetDimension() != 3:
        raise ScanError(f"must be one 3D volume of three dimensions, its shape is {tuple(reader.GetSize())}")
    if reader.GetNumberOfComponents() != 1:
        raise ScanError(f"holds {reader.GetNumberOfComponents()} values a voxel (colour or vectors), not one")
    if not ORIENTATION[path.suffix.lower()].search(start.replace(b"\r\n", b"\n")):
        raise ScanError(NO_ORIENTATION)
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(reader.GetDirection(), (3, 3)) * np.array(reader.GetSpacing())
    affine[:3, 3] = reader.GetOrigin()
    return tuple(reader.GetSize()), np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def _header(header: Header, shape: tuple[int, ...], affine: Affine, sides: npt.NDArray[np.float64]) -> Header:
    """Slices lie along the longest voxel side, the third axis where sides are equal."""
    across = 2 if sides.max() < 1.01 * sides[2] else int(sides.argmax())
    columns, rows = (axis for axis in range(3) if axis != across)
    normal = np.abs(affine[:3, across] / sides[across])
    plane = ("sagittal", "coronal", "axial")[int(normal.argmax())] if normal.max() >= PLANE_COSINE else "oblique"
    return Header(
        description=header.description,
        plane=plane,
        rows=int(shape[rows]),
        columns=int(shape[columns]),
        slices=int(shape[across]),
        spacing_mm=(float(sides[columns]), float(sides[rows]), float(sides[across])),
    )


# --- voxels ------------------------------------------------------------------------------------------------------


def _image(path: Path, who: str) -> sitk.Image:
    """In the file's own axes and values."""
    if path.name.lower().endswith(nifti.SUFFIXES):
        try:
            voxels, grid = nifti.read_scan(path)
        except nifti.ImageError as error:
            raise ScanError(f"{who}: {error.problem.replace(path.name, 'the file')}") from None
        return image_of(voxels, grid.affine)
    try:
        return sitk.ReadImage(str(path))
    except (RuntimeError, MemoryError):  # its message names the file
        raise ScanError(f"{who}: its voxels cannot be read; copy it again") from None
