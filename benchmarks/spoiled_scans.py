"""Phantoms that no model should be shown without a word, by kind: what ``benchmarks/guard.py`` and the tests spoil.

Each kind takes images by sequence (x, y, z along R, A, S; 0 outside the brain), their affine, a number from 0
(which of the kind's variants) and a generator of chance; and gives images and an affine.
"""

from __future__ import annotations

from collections.abc import Callable

import nibabel as nib
import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from brainmets.vocabulary import SEQUENCES

Images = dict[str, np.ndarray]
Scan = tuple[Images, np.ndarray]
Spoil = Callable[[Images, np.ndarray, int, np.random.Generator], Scan]


def _sides(affine: np.ndarray) -> np.ndarray:
    return np.asarray(nib.affines.voxel_sizes(affine))


def _shading(shape: tuple[int, ...], strength: float, rng: np.random.Generator) -> np.ndarray:
    field = ndimage.zoom(rng.normal(size=(4, 4, 4)), np.array(shape) / 4, order=3)
    return np.exp(strength * field / field.std())


def again(image: np.ndarray, rng: np.random.Generator, noise: float = 0.05) -> np.ndarray:
    """The same tissue scanned a second time: shading and noise of its own."""
    inside = image != 0
    second = image * _shading(image.shape, 0.1, rng) * rng.uniform(0.7, 1.4)
    second = second + rng.normal(0, noise * np.median(second[inside]), image.shape)
    return np.where(inside, np.maximum(second, 1), 0).astype(np.float32)


def no_contrast(images: Images, affine: np.ndarray, variant: int, rng: np.random.Generator) -> Scan:
    """The t1c is a copy of the t1n (variant 0) or a second t1n."""
    second = images["t1n"].copy() if variant == 0 else again(images["t1n"], rng)
    return {**images, "t1c": second}, affine


def bright_fluid(images: Images, affine: np.ndarray, variant: int, rng: np.random.Generator) -> Scan:
    """A second T2 in place of the FLAIR."""
    second = images["t2w"].copy() if variant == 0 else again(images["t2w"], rng)
    return {**images, "t2f": second}, affine


def swapped(images: Images, affine: np.ndarray, variant: int, rng: np.random.Generator) -> Scan:
    """Two sequences under each other's names."""
    one, other = (("t2w", "t2f"), ("t1n", "t1c"), ("t1c", "t2w"), ("t1n", "t2f"), ("t1c", "t2f"))[variant % 5]
    return {**images, one: images[other], other: images[one]}, affine


def missing(images: Images, affine: np.ndarray, variant: int, rng: np.random.Generator) -> Scan:
    """A sequence is not there, or holds nothing."""
    name = SEQUENCES[variant % 4]
    if variant < 4:
        return {other: image for other, image in images.items() if other != name}, affine
    return {**images, name: np.zeros_like(images[name])}, affine


def skull_on(images: Images, affine: np.ndarray, variant: int, rng: np.random.Generator) -> Scan:
    """A stand-in for skull and scalp: 8 mm of dark bone, 10 mm of bright scalp, air of noise (0 in every second)."""
    sides = _sides(affine)
    reach = [round(40 / side) for side in sides]
    pad = [(far, far) for far in reach]
    brain = np.pad(np.any([image != 0 for image in images.values()], axis=0), pad)
    away = ndimage.distance_transform_edt(~brain, sampling=sides)
    scalp = (away > 8) & (away <= 18)
    whole = {}
    for name, image in images.items():
        level = float(np.percentile(image[image != 0], 90))
        air = np.abs(rng.normal(0, 0.02 * level, brain.shape)) + 1
        outside = 0 if variant % 2 else air
        whole[name] = np.where(brain, np.pad(image, pad), np.where(scalp, 1.1 * level + 3 * air, outside))
    moved = affine.copy()
    moved[:3, 3] -= affine[:3, :3] @ reach
    return {name: image.astype(np.float32) for name, image in whole.items()}, moved


def half_a_head(images: Images, affine: np.ndarray, variant: int, rng: np.random.Generator) -> Scan:
    """Everything beyond the middle, or beyond two thirds, is cut off or dark."""
    axis, share = (2, 2, 1, 0, 2)[variant % 5], (0.5, 0.65, 0.5, 0.5, 0.35)[variant % 5]
    brain = np.any([image != 0 for image in images.values()], axis=0)
    along = np.flatnonzero(brain.any(axis=tuple({0, 1, 2} - {axis})))
    place = (slice(None),) * axis + (slice(int(np.quantile(along, share)), None),)
    if variant % 2:
        dark = {name: image.copy() for name, image in images.items()}
        for image in dark.values():
            image[place] = 0
        return dark, affine
    kept = (slice(None),) * axis + (slice(0, int(np.quantile(along, share))),)
    return {name: image[kept] for name, image in images.items()}, affine


def wrong_way_up(images: Images, affine: np.ndarray, variant: int, rng: np.random.Generator) -> Scan:
    """The header lies about the axes: upside down, back to front, axes exchanged."""
    turns: tuple[Callable[[np.ndarray], np.ndarray], ...] = (
        lambda a: a[:, :, ::-1],
        lambda a: a[:, ::-1],
        lambda a: a.transpose(0, 2, 1),
        lambda a: a.transpose(1, 0, 2),
        lambda a: a.transpose(2, 1, 0)[:, ::-1],
    )
    turn = turns[variant % 5]
    order = np.array(turn(np.arange(27).reshape(3, 3, 3)).strides) // 8
    sides = _sides(affine)[[{9: 0, 3: 1, 1: 2}[abs(int(step))] for step in order]]
    lying = np.diag([*sides, 1.0])
    turned = {name: np.ascontiguousarray(turn(image)) for name, image in images.items()}
    shape = np.array(next(iter(turned.values())).shape)
    lying[:3, 3] = -sides * (shape - 1) / 2
    return turned, lying


def other_contrast(images: Images, affine: np.ndarray, variant: int, rng: np.random.Generator) -> Scan:
    """A gamma curve of 0.4 or 2.5 on all sequences, on one, or one inverted."""
    changed = dict(images)
    for name in (SEQUENCES, SEQUENCES, ("t1c",), ("t2f",), ("t1c",))[variant % 5]:
        image = images[name].astype(np.float32)
        inside = image != 0
        top = float(np.percentile(image[inside], 99.9))
        if variant % 5 == 4:
            curve = np.clip(1.05 - image / top, 0.01, None)
        else:
            curve = np.clip(image / top, 1e-3, None) ** ((0.4, 2.5, 2.5, 0.4)[variant % 5])
        changed[name] = np.where(inside, 1000 * curve, 0).astype(np.float32)
    return changed, affine


def blurred(images: Images, affine: np.ndarray, variant: int, rng: np.random.Generator) -> Scan:
    """Of far lower resolution, brought back to the grid: blurred (all, or one), or of slices of 14 mm."""
    sides = _sides(affine)
    names = (SEQUENCES, SEQUENCES, ("t1c",), SEQUENCES, ("t2f",))[variant % 5]
    changed = dict(images)
    for name in names:
        image = images[name].astype(np.float32)
        inside = image != 0
        if variant % 2 == 0:
            soft = ndimage.gaussian_filter(image, 4.0 / sides) / np.maximum(
                ndimage.gaussian_filter(inside.astype(np.float32), 4.0 / sides), 1e-3
            )
        else:
            axis = (2, 0)[variant % 4 // 2]
            count = max(2, round(14 / sides[axis]))
            means = ndimage.uniform_filter1d(image, count, axis=axis)
            first = means[(slice(None),) * axis + (slice(count // 2, None, count),)]
            places = (np.arange(image.shape[axis]) - count // 2) / count
            points = np.meshgrid(
                *(places if a == axis else np.arange(image.shape[a]) for a in range(3)), indexing="ij"
            )
            soft = ndimage.map_coordinates(first, points, order=1, mode="nearest")
        changed[name] = np.where(inside, np.maximum(soft, 1), 0).astype(np.float32)
    return changed, affine


def moving(images: Images, affine: np.ndarray, variant: int, rng: np.random.Generator) -> Scan:
    """The head moves while a sequence (or all) is taken: parts of k-space are those of a moved head."""
    changed = dict(images)
    for name in (SEQUENCES, ("t1c",), ("t2f",), ("t1c", "t2f"), ("t1n",))[variant % 5]:
        image = images[name].astype(np.float32)
        inside = image != 0
        spectrum = np.fft.fftshift(np.fft.fftn(image))
        lines = np.arange(image.shape[1])
        for turn in range(4):
            move = Rotation.from_rotvec(rng.normal(0, 5, 3), degrees=True).as_matrix()
            middle = (np.array(image.shape) - 1) / 2
            shift = rng.normal(0, 4, 3) / _sides(affine)
            moved = ndimage.affine_transform(image, move, middle - move @ middle + shift, order=1)
            part = lines % 5 == turn
            part &= np.abs(lines - len(lines) // 2) > 2
            spectrum[:, part] = np.fft.fftshift(np.fft.fftn(moved))[:, part]
        ghosted = np.abs(np.fft.ifftn(np.fft.ifftshift(spectrum)))
        changed[name] = np.where(inside, np.maximum(ghosted, 1), 0).astype(np.float32)
    return changed, affine


def noisy(images: Images, affine: np.ndarray, variant: int, rng: np.random.Generator) -> Scan:
    """Noise of a fifth to a half of the median, on all sequences or one."""
    changed = dict(images)
    for name in (SEQUENCES, SEQUENCES, ("t1c",), ("t2f",), SEQUENCES)[variant % 5]:
        image = images[name].astype(np.float32)
        inside = image != 0
        level = (0.2, 0.5, 0.3, 0.3, 0.3)[variant % 5] * float(np.median(image[inside]))
        real, imaginary = rng.normal(0, level, (2, *image.shape))
        changed[name] = np.where(inside, np.maximum(np.hypot(image + real, imaginary), 1), 0).astype(np.float32)
    return changed, affine


def no_brain(images: Images, affine: np.ndarray, variant: int, rng: np.random.Generator) -> Scan:
    """Noise, a ball of fluid, a trunk with lungs and spine, an empty scan, a brain's outline."""
    shape = images["t1c"].shape
    places = np.indices(shape).astype(np.float32)
    middle = (np.array(shape) - 1) / 2
    x, y, z = ((places[axis] - middle[axis]) * _sides(affine)[axis] for axis in range(3))
    made = {}
    for number, name in enumerate(SEQUENCES):
        noise = np.abs(rng.normal(0, 20, shape))
        if variant % 5 == 0:
            image = noise
        elif variant % 5 == 1:
            image = np.where(np.sqrt(x**2 + y**2 + z**2) < 70, 500 + noise, 0)
        elif variant % 5 == 2:
            trunk = (x / 95) ** 2 + (y / 70) ** 2 < 1
            lungs = (((np.abs(x) - 45) / 30) ** 2 + (y / 45) ** 2 + (z / 75) ** 2) < 1
            spine = (x**2 + (y + 50) ** 2) < 15**2
            image = np.where(trunk, np.where(lungs, 30, np.where(spine, 250 + 60 * number, 500 - 80 * number)), 0)
            image = np.where(trunk, image + noise, 0)
        elif variant % 5 == 3:
            image = np.zeros(shape)
        else:
            image = np.where(images[name] != 0, 500 + noise, 0)
        made[name] = image.astype(np.float32)
    return made, affine


def displaced(images: Images, affine: np.ndarray, variant: int, rng: np.random.Generator) -> Scan:
    """One sequence lies 12 or 20 mm away, turned by 20 degrees, mirrored, or is another time's (both T2 turned)."""
    sides = _sides(affine)
    changed = dict(images)
    for name in (("t2f",), ("t1n",), ("t2w",), ("t2f",), ("t2w", "t2f"))[variant % 5]:
        image = images[name].astype(np.float32)
        if variant % 5 == 3:
            changed[name] = np.ascontiguousarray(image[::-1])
            continue
        degrees = (0, 0, 20, 0, 15)[variant % 5]
        shift = np.array(((0, 12, 0), (20, 0, 0), (0, 0, 0), (0, 0, 0), (0, 6, 6))[variant % 5]) / sides
        scale = np.diag(sides)
        turn = np.linalg.inv(scale) @ Rotation.from_rotvec([degrees, 0, 0], degrees=True).as_matrix() @ scale
        middle = (np.array(image.shape) - 1) / 2
        changed[name] = ndimage.affine_transform(image, turn, middle - turn @ middle + shift, order=1)
    return changed, affine


KINDS: dict[str, Spoil] = {
    "t1c without contrast": no_contrast,
    "FLAIR with bright fluid": bright_fluid,
    "sequences swapped": swapped,
    "sequence missing or empty": missing,
    "skull left on": skull_on,
    "half a head": half_a_head,
    "wrong way up": wrong_way_up,
    "other contrast": other_contrast,
    "low resolution": blurred,
    "motion": moving,
    "noise": noisy,
    "no brain": no_brain,
    "sequences displaced": displaced,
}
"""By name; each has five variants."""
