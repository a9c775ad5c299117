"""The loss that counts lesions, on grids worked out by hand, in every precision, and as the arm's trainer uses it."""

import math

import numpy as np
import pytest
import torch
from nnunetv2.training.loss.compound_losses import DC_and_BCE_loss
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss

from brainmets.training.lesion_loss import AppendZones, LesionDiceLoss, lesion_term, zones_of

SURE = 40.0
"""Logit whose probability is 1 in float64 to 17 digits."""


def two_lesions() -> torch.Tensor:
    """One patch of 1 x 1 x 26 voxels: a lesion of voxel 7, one of the 8 last; either one's zone has 13 voxels."""
    target = torch.zeros(1, 1, 1, 1, 26, dtype=torch.bool)
    target[..., 7] = True
    target[..., 18:] = True
    return target


def missed(voxels: int) -> float:
    """Dice loss of a lesion of so many voxels of which nothing is predicted: 1 but for nnU-Net's smoothing."""
    return 1 - 1e-5 / (voxels + 1e-5)


def zones(target: torch.Tensor) -> torch.Tensor:
    return torch.stack([torch.from_numpy(zones_of(sample.numpy())) for sample in target])


def term(logits: torch.Tensor, target: torch.Tensor) -> float:
    return float(lesion_term(logits.double(), target, zones(target)))


def by_hand(logits: torch.Tensor, target: torch.Tensor, zone: torch.Tensor) -> float:
    """The formula voxel by voxel, in Python's own numbers."""
    rows = []
    for sample in range(target.shape[0]):
        for region in range(target.shape[1]):
            lesions = []
            for number in sorted({*zone[sample, region].flatten().tolist()} - {0}):
                both = sizes = entropy = voxels = 0.0
                for z, y, x in np.ndindex(*target.shape[2:]):
                    if zone[sample, region, z, y, x] == number:
                        p = 1 / (1 + math.exp(-float(logits[sample, region, z, y, x])))
                        there = bool(target[sample, region, z, y, x])
                        both += p * there
                        sizes += p + there
                        entropy -= math.log(p if there else 1 - p)
                        voxels += 1
                lesions.append(1 - (2 * both + 1e-5) / (sizes + 1e-5) + entropy / voxels)
            if lesions:
                rows.append(sum(lesions) / len(lesions))
    return sum(rows) / len(rows) if rows else 0.0


# --- zones -------------------------------------------------------------------------------------------------------


def test_each_voxel_is_of_its_nearest_lesion() -> None:
    zone = zones_of(two_lesions()[0].numpy())[0]
    assert zone.ravel().tolist() == [1] * 13 + [2] * 13  # voxel 12 is 5 from the left one and 6 from the right one


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_zones_follow_the_axis_along_which_the_lesions_lie(axis: int) -> None:
    mask = np.zeros((1, 7, 7, 7), bool)
    mask[(0, *(0 if one == axis else 3 for one in range(3)))] = True
    mask[(0, *(6 if one == axis else 3 for one in range(3)))] = True
    zone = np.moveaxis(zones_of(mask)[0], axis, 0)
    assert (zone[:3] == 1).all() and (zone[4:] == 2).all()
    np.testing.assert_array_equal(zones_of(mask), zones_of(mask))  # the plane between is given away alike each time


@pytest.mark.parametrize(("step", "count"), [((1, 0, 0), 1), ((1, 1, 0), 1), ((1, 1, 1), 1), ((2, 0, 0), 2)])
def test_lesions_that_touch_at_a_corner_are_one(step: tuple[int, int, int], count: int) -> None:
    mask = np.zeros((1, 5, 5, 5), bool)
    mask[0, 1, 1, 1] = mask[(0, *(1 + one for one in step))] = True
    assert zones_of(mask).max() == count


def test_zones_are_nearest_by_brute_force() -> None:
    draw = np.random.default_rng(3)
    for _ in range(20):
        mask = draw.random((1, *draw.integers(3, 9, 3))) < 0.05
        zone = zones_of(mask)[0]
        if not mask.any():
            assert not zone.any()
            continue
        voxels = np.argwhere(mask[0])
        everywhere = np.stack(np.indices(zone.shape), -1)
        squared = ((everywhere[..., None, :] - voxels) ** 2).sum(-1)
        nearest = squared == squared.min(-1, keepdims=True)
        allowed = (zone[tuple(voxels.T)] == zone[..., None]) & nearest
        assert allowed.any(-1).all()


def test_regions_have_their_own_zones_and_an_empty_one_has_none() -> None:
    whole = two_lesions()[0, 0].numpy()
    left = whole.copy()
    left[..., 18:] = False
    zone = zones_of(np.stack([whole, left, np.zeros_like(whole)]))
    assert [int(one.max()) for one in zone] == [2, 1, 0]
    assert zone[1].min() == 1


@pytest.mark.parametrize("grid", [1, 5, 40, 300])
def test_a_large_patch_is_looked_at_in_cubes_and_each_lesion_keeps_its_voxels(grid: int) -> None:
    draw = np.random.default_rng(1)
    mask = draw.random((1, 9, 10, 11)) < 0.02
    exact, coarse = zones_of(mask), zones_of(mask, grid)
    np.testing.assert_array_equal(exact[mask], coarse[mask])
    assert coarse.min() >= 1
    far = np.zeros((1, 8, 8, 24), bool)
    far[0, 4, 4, 1] = far[0, 4, 4, 22] = True
    differing = np.flatnonzero((zones_of(far) != zones_of(far, 8 * 8 * 24 // 8)).any((0, 1, 2)))
    assert set(differing) <= {10, 11, 12, 13}, "cubes move the border by less than their width"


# --- the term ----------------------------------------------------------------------------------------------------


def test_missing_the_small_lesion_costs_as_much_as_missing_the_large_one() -> None:
    """Dice of a zone: 1 where its lesion is found, 0 where missed; so 1/2 either way. Plain Dice: 16/17, and 2/10."""
    target = two_lesions()
    found = torch.where(target, SURE, -SURE)
    small, large = found.clone(), found.clone()
    small[..., :13] = -SURE
    large[..., 13:] = -SURE
    assert term(found, target) == pytest.approx(0, abs=1e-6)
    # beside Dice the cross-entropy of a missed voxel is 40: of 1 of the 13 voxels of its zone, or of 8; half each
    assert term(small, target) - 40 * 1 / 13 / 2 == pytest.approx(0.5 * missed(1), abs=1e-6)
    assert term(large, target) - 40 * 8 / 13 / 2 == pytest.approx(0.5 * missed(8), abs=1e-6)
    plain = MemoryEfficientSoftDiceLoss(torch.sigmoid, smooth=1e-5, ddp=False)
    assert float(plain(found, target) - plain(small, target)) == pytest.approx(16 / 17 - 1, abs=1e-5)
    assert float(plain(found, target) - plain(large, target)) == pytest.approx(2 / 10 - 1, abs=1e-5)


def test_a_half_sure_network_costs_what_is_worked_out_by_hand() -> None:
    """All logits 0: p is 1/2 everywhere, 6.5 in a zone. Dice 1 / (6.5 + 1) and 8 / (6.5 + 8); cross-entropy log 2."""
    target = two_lesions()
    expected = ((1 - 1 / 7.5) + (1 - 8 / 14.5)) / 2 + math.log(2)
    assert term(torch.zeros(target.shape), target) == pytest.approx(expected, abs=1e-6)


def test_the_term_is_the_formula_on_random_patches() -> None:
    torch.manual_seed(2)
    for rate in (0.0, 0.01, 0.05, 0.3):
        target = torch.rand(2, 3, 4, 5, 6) < rate
        target[0, 1] = False
        logits = 3 * torch.randn(target.shape, dtype=torch.float64)
        zone = zones(target)
        expected = by_hand(logits, target, zone)
        assert float(lesion_term(logits, target, zone)) == pytest.approx(expected, abs=1e-6)
        assert float(lesion_term(logits.float(), target, zone)) == pytest.approx(expected, abs=1e-5)


def test_samples_and_regions_weigh_alike_however_many_lesions_they_have() -> None:
    """One region with two missed lesions and a found one, one with a found lesion, one without any."""
    target = torch.zeros(1, 3, 1, 1, 31, dtype=torch.bool)
    target[0, 0, 0, 0, [2, 15, 28]] = True
    target[0, 1, 0, 0, 15] = True
    logits = torch.where(target, SURE, -SURE)
    logits[0, 0, 0, 0, [2, 28]] = -SURE
    # the outer zones are voxels 0 to 8 and 22 to 30: a missed one costs 1 - 0, and 40 over 9 voxels
    assert term(logits, target) == pytest.approx((2 * (missed(1) + 40 / 9)) / 3 / 2, abs=1e-6)


def test_a_patch_without_a_lesion_adds_nothing() -> None:
    target = torch.zeros(1, 3, 2, 2, 2, dtype=torch.bool)
    logits = torch.full(target.shape, 9.0, requires_grad=True)
    value = lesion_term(logits, target, zones(target))
    assert value.item() == 0
    loss = LesionDiceLoss(voxel_loss(1), 2.0)([logits], [target, zones(target)])
    assert loss.item() == pytest.approx(voxel_loss(1)([logits], [target]).item())
    loss.backward()
    assert logits.grad.abs().sum() > 0


def three_regions() -> tuple[torch.Tensor, torch.Tensor]:
    """A target whose regions have 2, 2 and 1 lesions of different shapes, and logits that find them all."""
    target = torch.zeros(1, 3, 6, 6, 6, dtype=torch.bool)
    target[0, 0, 0, 1, 0:2] = target[0, 0, 4:, 4, 4:] = True
    target[0, 1, 0, 1, 0] = target[0, 1, 4:, 4, 4] = True
    target[0, 2, 4, 4, 4] = True
    return target, torch.where(target, 7.0, -7.0)


def test_a_wrong_sign_axis_or_order_of_regions_costs_more() -> None:
    target, logits = three_regions()
    right = term(logits, target)
    assert right < 0.05
    wrong = {
        "sign": term(-logits, target),
        "axis": term(logits.transpose(2, 4), target),
        "regions": term(logits.flip(1), target),
    }
    assert min(wrong.values()) > 4 * right, wrong


def test_zones_by_another_component_axis_or_region_give_another_value() -> None:
    target = torch.zeros(1, 3, 6, 6, 6, dtype=torch.bool)
    target[0, 0, [0, 5], 3, 3] = target[0, 1, 5, 3, 3] = target[0, 2, 3, [0, 5], 3] = True
    logits = torch.where(target, 7.0, -7.0)
    logits[0, 0, 0, 3, 3] = -7.0  # one lesion is missed, and something else is seen near the other
    logits[0, 0, 4, 0, 0] = 7.0
    zone = zones(target)
    right = float(lesion_term(logits.double(), target, zone))
    assert right == pytest.approx(by_hand(logits, target, zone), abs=1e-6)
    swapped = torch.where(target, zone, torch.where(zone.amax((2, 3, 4), keepdim=True) == 2, 3 - zone, zone))
    for wrong in (swapped, zone.transpose(2, 4), zone.flip(1), zone.clamp_max(1)):
        assert float(lesion_term(logits.double(), target, wrong)) != pytest.approx(right, abs=1e-4)


@pytest.mark.parametrize("side", ["first", "last"])
def test_the_gradient_raises_each_missed_lesion_and_lowers_the_false_voxel_beside_it(side: str) -> None:
    target = two_lesions()
    logits = torch.zeros(target.shape, requires_grad=True)
    lesion_term(logits, target, zones(target)).backward()
    here = slice(13) if side == "first" else slice(13, None)
    wanted = target[..., here]
    assert (logits.grad[..., here][wanted] < 0).all() and (logits.grad[..., here][~wanted] > 0).all()
    # by hand: half of 1/4 d(1 - Dice)/dp = -(2 S - 2 I) / S^2 / 4 and of -1/2 / 13, with S and I as above
    single, of_eight = -((15 - 1) / 7.5**2 / 4 + 0.5 / 13) / 2, -((29 - 8) / 14.5**2 / 4 + 0.5 / 13) / 2
    assert logits.grad[target].tolist() == pytest.approx([single, *[of_eight] * 8], abs=1e-6)


def test_gradients_are_right() -> None:
    torch.manual_seed(1)
    target = torch.rand(2, 2, 3, 3, 4) < 0.1
    logits = torch.randn(target.shape, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda one: lesion_term(one, target, zones(target)), logits)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("logit", [0.0, 30.0, -30.0, 6e4])
def test_half_precision_is_added_up_in_float32(dtype: torch.dtype, logit: float) -> None:
    """40,000 voxels: their number itself does not fit float16's steps, nor a logit of 60,000 its sigmoid's tail."""
    target = torch.zeros(1, 1, 20, 40, 50, dtype=torch.bool)
    target[0, 0, 3, 3, 3] = target[0, 0, 15, 30, 40] = True
    logits = torch.full(target.shape, logit).to(dtype).requires_grad_()
    with torch.autocast("cpu", dtype):
        value = lesion_term(logits, target, zones(target))
    scale = 2.0**16  # with which nnU-Net's float16 steps begin
    (scale * value).backward()
    assert value.dtype == torch.float32
    assert torch.isfinite(value) and torch.isfinite(logits.grad).all()
    exact_logits = logits.detach().double().requires_grad_()
    exact = lesion_term(exact_logits, target, zones(target))
    exact.backward()
    assert value.item() == pytest.approx(exact.item(), rel=1e-5)
    torch.testing.assert_close(logits.grad.double() / scale, exact_logits.grad, rtol=1e-2, atol=1e-10)


def test_shapes_that_differ_are_refused() -> None:
    target = two_lesions()
    with pytest.raises(ValueError, match=r"shapes .*: they must be the same"):
        lesion_term(torch.zeros(1, 3, 1, 1, 26), target, zones(target))


# --- beside nnU-Net's loss, under deep supervision ---------------------------------------------------------------


def voxel_loss(outputs: int) -> DeepSupervisionWrapper:
    inner = DC_and_BCE_loss(
        {}, {"batch_dice": False, "do_bg": True, "smooth": 1e-5, "ddp": False}, dice_class=MemoryEfficientSoftDiceLoss
    )
    return DeepSupervisionWrapper(inner, [0.5**level for level in range(outputs)])


def test_the_finest_output_alone_has_the_term() -> None:
    fine = two_lesions()
    coarse = torch.zeros(1, 1, 1, 1, 13, dtype=torch.bool)
    outputs = [torch.zeros(one.shape, requires_grad=True) for one in (fine, coarse)]
    targets = AppendZones()(image=None, segmentation=[fine[0], coarse[0]])["segmentation"]
    targets = [one[None] for one in targets]
    value = LesionDiceLoss(voxel_loss(2), 3.0)(outputs, targets)
    term_alone = ((1 - 1 / 7.5) + (1 - 8 / 14.5)) / 2 + math.log(2)
    assert value.item() - voxel_loss(2)(outputs, targets[:2]).item() == pytest.approx(3 * term_alone, abs=1e-5)
    value.backward()
    own = outputs[1].grad.clone()
    outputs[1].grad = None
    voxel_loss(2)(outputs, targets[:2]).backward()
    torch.testing.assert_close(outputs[1].grad, own)


def test_a_loss_without_zones_is_refused() -> None:
    target = two_lesions()
    with pytest.raises(ValueError, match="1 outputs have 1 targets: one each is wanted, and the zones"):
        LesionDiceLoss(voxel_loss(1), 1.0)([torch.zeros(target.shape)], [target])
