"""The brain mask of a head, from deepbet's network.

deepbet (Fisch et al. 2024, doi:10.1016/j.compbiomed.2024.108845) brings its weights with the package and was trained
on T1-weighted images without contrast; on a T1 with contrast the mask leaks into the sagittal sinus. Masks are
``uint8`` SimpleITK images, 1 inside.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from brainmets.preparation.grids import isotropic_grid, resampled
from brainmets.preparation.registration import one_thread
from brainmets.preparation.scans import ScanError

PLAUSIBLE_ML = (800.0, 2200.0)
"""In 58 adults of 41 to 77 years the brain had 1,245 mL (standard deviation 125), the intracranial space 1,397 (133):
Ahmad et al., Journal of Biomedical and Clinical Sciences, article 232; masks hold some of the fluid around the brain.
Between 3.5 deviations below the one and 6 above the other. This finds masks that missed or swallowed something; in
noise the network sees a brain of plausible size, which then does not match the template."""
MASK_SPACING_MM = 1.0


def brain_mask(image: sitk.Image) -> sitk.Image:
    """The brain mask of a T1-weighted head, on its grid.

    The network sees the head at 1 mm with axes along R, A and S. The largest component is kept and its holes are
    filled. Raises ``ScanError`` where nothing plausible comes out (``PLAUSIBLE_ML``).
    """
    with one_thread():
        fine = resampled(image, isotropic_grid(image, MASK_SPACING_MM), sitk.Euler3DTransform())
        inside = sitk.GetImageFromArray(_network(fine))
        inside.CopyInformation(fine)
        mask = _whole(carried(inside, sitk.Euler3DTransform(), image))
    volume_ml = volume(mask)
    low, high = PLAUSIBLE_ML
    if not low <= volume_ml <= high:
        raise ScanError(
            f"the brain mask has {volume_ml:.0f} mL, a brain has {low:.0f} to {high:.0f} mL; supply a mask of your own"
        )
    return mask


def volume(mask: sitk.Image) -> float:
    """Volume in mL."""
    inside = int(np.count_nonzero(sitk.GetArrayViewFromImage(mask)))
    return inside * float(np.prod(mask.GetSpacing())) / 1000


def widened(mask: sitk.Image, margin_mm: float) -> sitk.Image:
    """The mask and every voxel whose centre lies within ``margin_mm`` of it; 0 gives the mask itself."""
    if margin_mm < 0:
        raise ValueError(f"margin_mm must be at least 0, not {margin_mm:g}")
    binary = sitk.Cast(mask > 0, sitk.sitkUInt8)
    if not margin_mm:
        return binary
    away = sitk.SignedMaurerDistanceMap(binary, insideIsPositive=False, squaredDistance=False, useImageSpacing=True)
    return sitk.Cast(away <= margin_mm, sitk.sitkUInt8)


def carried(mask: sitk.Image, transform: sitk.Transform, grid: sitk.Image) -> sitk.Image:
    """The mask on another grid: where half or more of the linearly interpolated mask is inside.

    ``transform`` takes points of ``grid`` to points of ``mask``.
    """
    share = sitk.Resample(sitk.Cast(mask > 0, sitk.sitkFloat32), grid, transform, sitk.sitkLinear, 0.0)
    return sitk.Cast(share >= 0.5, sitk.sitkUInt8)


def without_bias_field(image: sitk.Image) -> sitk.Image:
    """The image (float32) without the scanner's shading: N4, estimated on a grid of 4 mm within the head.

    Tustison et al. 2010, doi:10.1109/TMI.2010.2046908. Off by default: nnU-Net normalises each image by itself and
    learns to live with shading, and a large oedema or a bright lesion is taken for shading in part.
    """
    with one_thread():
        floats = sitk.Cast(image, sitk.sitkFloat32)
        steps = [max(1, round(4 / side)) for side in image.GetSpacing()]
        coarse = sitk.Shrink(floats, steps)
        method = sitk.N4BiasFieldCorrectionImageFilter()
        method.SetMaximumNumberOfIterations([50, 50, 30])
        method.Execute(coarse, sitk.OtsuThreshold(coarse, 0, 1, 64))
        return floats / sitk.Exp(method.GetLogBiasFieldAsImage(floats))


def _whole(mask: sitk.Image) -> sitk.Image:
    largest = sitk.RelabelComponent(sitk.ConnectedComponent(mask), sortByObjectSize=True) == 1
    return sitk.Cast(sitk.BinaryFillhole(largest), sitk.sitkUInt8)


def _network(image: sitk.Image) -> npt.NDArray[np.uint8]:
    """The network's mask as an array in ITK's order (slices first) for an image with axes along L, P and S."""
    import torch
    from deepbet import BrainExtraction

    voxels = np.array(sitk.GetArrayViewFromImage(image).transpose(2, 1, 0)[::-1, ::-1], dtype=np.float32)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        network = BrainExtraction(no_gpu=True)
        inside = network.postprocess(network.run_model(voxels) > 0.5)
    except (AssertionError, ValueError) as error:  # deepbet's ways to say that it sees no brain
        raise ScanError("no brain was found in the image; supply a mask of your own") from error
    finally:
        torch.set_num_threads(threads)
    return np.ascontiguousarray(inside[::-1, ::-1].transpose(2, 1, 0), dtype=np.uint8)
