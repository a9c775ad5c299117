"""What preprocessing leaves on disk: checked before it is kept, read without running anything that a file carries.

nnU-Net keeps, beside a case's two arrays, its properties as a pickle, which runs whatever code was put into it, and
opens each array with a library that rebuilds proxies and functions from a file. Here the places of the labels, all
that a training needs of the properties, are plain arrays (``properties/<case>.npz``), and a file is opened as an array
once its header says that it is a plain one.
"""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import blosc2
import msgpack
import numpy as np
import numpy.typing as npt
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

from brainmets.files import replacing
from brainmets.nifti import LARGEST_BYTES
from brainmets.training import channels
from brainmets.vocabulary import LABELS

PROPERTIES = "properties"
"""Folder, beside the arrays, of each case's places of labels; nnU-Net itself looks at no folder there."""
KNOWN_LABELS = frozenset({-1, 0, *LABELS.values()})
"""Values of a preprocessed label map; -1 is nnU-Net's for what lies outside the head."""

MAGIC = b"\x9e\xa8b2frame\x00\xd2"
"""How a file of Blosc2 begins: a msgpack list of 14, whose first item is the format's name."""
PLAIN_TYPES = frozenset({"<f4", "<i2"})


class DamagedError(ValueError):
    """A file that is missing, or not what was written; the message names it and the command that makes it anew."""


# --- before anything is kept -------------------------------------------------------------------------------------


def require_finite(images: npt.NDArray[np.floating], case: str, sequences: Sequence[str]) -> None:
    """Raise ``ValueError`` naming case and sequence where a preprocessed value is not finite in float32.

    ``images``: (sequence, ...), one for each of ``sequences``, in their order.
    """
    if len(images) != len(sequences):
        raise ValueError(f"{case}: {len(images)} preprocessed image(s), {len(sequences)} sequences")
    for sequence, image in zip(sequences, images, strict=True):
        if wrong := int(np.count_nonzero(~np.isfinite(image.astype(np.float32, copy=False)))):
            raise ValueError(
                f"{case}, {sequence}: {wrong:,} of {image.size:,} preprocessed values are not finite: the image's own "
                "are too large for float32, or not finite themselves; correct the image or leave the case out"
            )


def require_varied(
    images: npt.NDArray[np.floating], case: str, sequences: Sequence[str], absent: Collection[str] = ()
) -> None:
    """Raise ``ValueError`` naming case and sequence where a preprocessed image (sequence, ...) is constant.

    One that the case lacks by its cohort's declaration (``absent``) must be 0 throughout instead.
    """
    for sequence, image in zip(sequences, images, strict=True):
        if sequence in absent:
            if image.any():
                raise ValueError(f"{case}, {sequence}: declared to be absent, and not 0 after preprocessing")
        elif image.size == 0 or image.min() == image.max():
            raise ValueError(
                f"{case}, {sequence}: the preprocessed image is constant: nothing can be learnt from it; "
                "correct the image or leave the case out"
            )


def require_known_labels(labels: npt.NDArray[np.integer], case: str) -> None:
    """Raise ``ValueError`` where a preprocessed label map holds another value than ``KNOWN_LABELS``."""
    if unknown := sorted({*np.unique(labels).tolist()} - KNOWN_LABELS):
        raise ValueError(f"{case}: the preprocessed label map holds {unknown}; known are {sorted(KNOWN_LABELS)}")


class CheckingPreprocessor(DefaultPreprocessor):
    """nnU-Net's preprocessing, which refuses what cannot be trained on and writes no pickle."""

    def run_case(
        self, image_files: list[str], seg_file: str, plans: Any, configuration: Any, dataset: dict[str, Any]
    ) -> tuple[Any, Any, Any]:
        """Images, label map (both with a first axis of channels) and properties of one case, checked.

        The case is named as its label map is. ``dataset`` is the content of ``dataset.json``.
        """
        images, labels, properties = super().run_case(image_files, seg_file, plans, configuration, dataset)
        case, sequences = Path(seg_file).name.removesuffix(".nii.gz"), channels.names(dataset)
        require_finite(images, case, sequences)
        require_varied(images, case, sequences, channels.absent_of(dataset, case))
        require_known_labels(labels, case)
        return images, labels, properties

    def run_case_save(self, *arguments: Any) -> None:
        """Write a case's arrays as nnU-Net does, and its places of labels as plain arrays."""
        module = "nnunetv2.training.dataloading.nnunet_dataset.write_pickle"
        with patch(module, lambda properties, name: write_places(_places_file(Path(name)), properties)):
            super().run_case_save(*arguments)


# --- reading -----------------------------------------------------------------------------------------------------


class StudyDataset(nnUNetDatasetBlosc2):
    """nnU-Net's preprocessed cases, read as plain arrays; of the properties only "class_locations"."""

    def load_case(self, identifier: str) -> tuple[Any, Any, None, dict[str, Any]]:
        """Images and label map, opened and not yet read, no labels of an earlier stage, and the places of labels.

        Raises ``DamagedError`` where a file is missing, cut, or anything but what preprocessing writes.
        """
        folder = Path(self.source_folder)
        images, labels = (open_array(folder / f"{identifier}{end}.b2nd") for end in ("", "_seg"))
        places = read_places(_places_file(folder / identifier))
        return images, labels, None, {"class_locations": places}


def open_array(path: Path) -> blosc2.NDArray:
    """The array of a Blosc2 file, mapped and not yet read.

    Opened only once the header says that it is one whole, plain array of float32 or int16: Blosc2 takes lazy
    expressions, functions, proxies and stores for arrays too, whatever the file is called, and rebuilds them as it
    opens the file. A few bytes can stand for any number of zeros: an array of more than ``LARGEST_BYTES`` is refused.
    Raises ``DamagedError`` naming the file.
    """
    _require_plain_array(path)
    try:
        array = blosc2.open(str(path), mode="r", mmap_mode="r", dparams={"nthreads": 1})
    except Exception as error:  # Blosc2 raises RuntimeError and others
        raise DamagedError(f"{path} cannot be read ({error}); notebook 02 makes it anew") from error
    if type(array) is not blosc2.NDArray:
        raise DamagedError(f"{path} holds a {type(array).__name__}, not a plain array; notebook 02 makes it anew")
    if (size := math.prod(array.shape) * array.dtype.itemsize) > LARGEST_BYTES:
        raise DamagedError(f"{path} promises {size / 2**30:.3g} GiB; notebook 02 makes it anew")
    return array


def _require_plain_array(path: Path) -> None:
    """Raise ``DamagedError`` unless the header of ``path`` is one plain array's.

    The header (https://github.com/Blosc/c-blosc2/blob/main/README_CFRAME_FORMAT.rst) is a msgpack list: its own length
    at byte 11, the file's at byte 16; item 11 says whether metadata follow that can be read by name, and the last one
    holds those that say what the file is: {"b2nd"} for an array and nothing else.
    """
    try:
        if not path.is_file():
            raise ValueError("is missing" if not path.exists() else "is no file")
        size = path.stat().st_size
        with path.open("rb") as handle:
            start = handle.read(24)
            if not start.startswith(MAGIC):
                raise ValueError("is no array of Blosc2")
            length, whole = int.from_bytes(start[11:15], "big"), int.from_bytes(start[16:24], "big")
            if size != whole:
                raise ValueError(f"has {size} bytes and should have {whole}")
            handle.seek(0)
            header = msgpack.unpackb(handle.read(min(length, 65536)))
        _, names, contents = header[13]
        if set(names) != {"b2nd"} or header[11]:
            raise ValueError(f"is no plain array: its header names {', '.join(sorted(map(str, names)))} and metadata")
        kind = msgpack.unpackb(contents[0])[-1]
        if kind not in PLAIN_TYPES:
            raise ValueError(f"holds values of type {kind}, not float32 or int16")
    except (OSError, ValueError, LookupError, TypeError, msgpack.UnpackException) as error:
        raise DamagedError(f"{path} {error}; notebook 02 makes it anew") from error


def write_places(path: Path, properties: Mapping[str, Any]) -> None:
    """Write nnU-Net's "class_locations" as plain arrays, one per label or region, in their order.

    Each is (voxel, axis), the first axis the channel's; its name is the label, or the list of a region's labels, in
    JSON.
    """
    arrays = {
        json.dumps(key, separators=(",", ":")): np.asarray(places, np.int32).reshape(-1, 4)
        for key, places in properties["class_locations"].items()
    }
    with replacing(path) as aside, aside.open("wb") as handle:
        np.savez(handle, allow_pickle=False, **arrays)


def read_places(path: Path) -> dict[int | tuple[int, ...], npt.NDArray[np.int32]]:
    """The places of each label and region as nnU-Net's loader takes them: key -> (voxel, 4).

    Raises ``DamagedError`` naming a file that is missing or anything but what ``write_places`` writes.
    """
    places: dict[int | tuple[int, ...], npt.NDArray[np.int32]] = {}
    try:
        require_stored(path)
        with np.load(path, allow_pickle=False) as stored:
            for name in stored.files:
                key, array = json.loads(name), stored[name]
                if array.dtype != np.int32 or array.ndim != 2 or array.shape[1] != 4:
                    raise ValueError(f"{name} is no list of voxels")
                places[tuple(key) if isinstance(key, list) else int(key)] = array
    except Exception as error:  # a zip archive's, NumPy's and JSON's errors alike
        raise DamagedError(f"{path} holds no places of labels ({error}); notebook 02 makes it anew") from error
    return places


def require_stored(path: Path) -> None:
    """Raise ``ValueError`` unless a zip archive holds its members as they are, side by side.

    Compressed, or one within another, a few kilobytes would fill the memory of who reads them.
    """
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise ValueError("it is compressed")
    if sum(member.file_size for member in members) > path.stat().st_size:
        raise ValueError("its parts are larger than the whole")


def require_sound(folder: Path, case: str, dataset: Mapping[str, Any]) -> None:
    """Read all that preprocessing left of a case, and refuse what it would not have kept.

    ``dataset`` is the content of its cohort's ``dataset.json``. Raises ``DamagedError`` as ``open_array`` and
    ``read_places`` do, and ``ValueError`` for values that are not finite, another number of images than sequences, a
    constant image (or, where the case lacks it, one that is not 0), and unknown labels.
    """
    images, labels = (open_array(folder / f"{case}{end}.b2nd") for end in ("", "_seg"))
    try:
        values, known = np.asarray(images[:]), np.asarray(labels[:])
    except RuntimeError as error:  # Blosc2's, for a chunk that cannot be unpacked
        raise DamagedError(f"{case} cannot be read ({error}); notebook 02 makes it anew") from error
    require_finite(values, case, channels.names(dataset))
    require_varied(values, case, channels.names(dataset), channels.absent_of(dataset, case))
    require_known_labels(known, case)
    read_places(_places_file(folder / case))


def _places_file(case: Path) -> Path:
    return case.parent / PROPERTIES / f"{case.name.removesuffix('.pkl')}.npz"
