"""Each arm as it really trains: optimiser, learning rate, loss, network; the default arm equals stock nnU-Net."""

import os
import shutil
import subprocess
import sys
from copy import deepcopy
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.training.loss.compound_losses import DC_and_BCE_loss
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from small_study import training_parameters

from brainmets.params import FromScratch
from brainmets.paths import StudyPaths
from brainmets.training import plans
from brainmets.training import trainer as trainer_module
from brainmets.training.arms import TverskyBCELoss
from brainmets.training.seeds import seed_everything, training_seeds
from brainmets.training.session import prepare
from brainmets.training.trainer import StudyTrainer, choose_convolutions


@pytest.fixture(scope="module")
def small_study(small_study: StudyPaths, tmp_path_factory: pytest.TempPathFactory) -> StudyPaths:
    """The small study with no training in it, whatever other tests have trained."""
    files = StudyPaths(str(tmp_path_factory.mktemp("arms")), "own")
    shutil.copytree(small_study.work, files.work, ignore=shutil.ignore_patterns("training", "left_out", "lives"))
    return files


def trainer_of(files: StudyPaths, arm: str, **changed: object) -> StudyTrainer:
    return prepare(files, training_parameters(FromScratch, files, arm=arm, fold=1, **changed), "scratch").trainer


@pytest.mark.parametrize("arm", ["default", "tversky_bce"])
def test_the_unet_arms_train_with_nnunets_optimiser(small_study: StudyPaths, arm: str) -> None:
    trainer = trainer_of(small_study, arm)
    group = trainer.optimizer.param_groups[0]
    assert isinstance(trainer.optimizer, torch.optim.SGD)
    assert (group["lr"], group["momentum"], group["nesterov"], group["weight_decay"]) == (0.01, 0.99, True, 3e-5)


def test_segresnet_trains_with_adam_and_no_deep_supervision(small_study: StudyPaths) -> None:
    trainer = trainer_of(small_study, "segresnet")
    group = trainer.optimizer.param_groups[0]
    assert isinstance(trainer.optimizer, torch.optim.Adam)
    assert (group["lr"], group["weight_decay"], group["eps"]) == (1e-4, 1e-5, 1e-5)
    assert not trainer.enable_deep_supervision
    assert isinstance(trainer.loss, DC_and_BCE_loss)


@pytest.mark.parametrize("arm", ["default", "tversky_bce", "segresnet"])
def test_the_learning_rate_decays_with_the_power_of_nine_tenths(small_study: StudyPaths, arm: str) -> None:
    trainer = trainer_of(small_study, arm, epochs=10)
    for epoch in range(10):
        trainer.lr_scheduler.step(epoch)
        expected = trainer.initial_lr * (1 - epoch / 10) ** 0.9
        assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(expected)


def test_deep_supervision_halves_the_weight_at_each_coarser_output(small_study: StudyPaths) -> None:
    trainer = trainer_of(small_study, "tversky_bce")
    assert isinstance(trainer.loss.loss, TverskyBCELoss)
    weights = trainer.loss.weight_factors
    assert sum(weights) == pytest.approx(1)
    assert weights[-1] == 0
    assert all(fine == pytest.approx(2 * coarse) for fine, coarse in pairwise(weights[:-1]))
    assert trainer.loss.loss.positive_weight == 11


def test_lesion_transplant_is_nnunet_on_patches_with_transplanted_lesions(small_study: StudyPaths) -> None:
    settings = {
        "default": {"learning_rate": 0.01},
        "lesion_transplant": {"learning_rate": 0.01, "lesion_transplant": 0.5},
    }
    stock, ours = (trainer_of(small_study, arm, arms=settings) for arm in settings)
    assert (type(ours.optimizer), ours.initial_lr) == (torch.optim.SGD, 0.01)
    assert (str(ours.loss), str(ours.network)) == (str(stock.loss), str(stock.network))
    for trainer, share in ((stock, None), (ours, 0.5)):
        trainer.get_dataloaders()
        assert getattr(trainer.transplants, "share", None) == share


@pytest.mark.parametrize(
    ("arm", "own"),
    [
        ("default", set()),
        ("tversky_bce", {"loss"}),
        ("segresnet", {"network", "outputs under supervision", "optimiser"}),
    ],
)
def test_the_description_says_what_the_arm_changes(small_study: StudyPaths, arm: str, own: set[str]) -> None:
    session = prepare(small_study, training_parameters(FromScratch, small_study, arm=arm, fold=1), "scratch")
    set_by = session.description()["set by"]
    assert set(set_by.index[set_by == "the arm"]) == own
    source = session.arm_source()
    assert type(session.trainer).__doc__.splitlines()[0] in source
    assert "class StudyTrainer" not in source
    assert ("configure_optimizers" in source) == (arm == "segresnet")


TRAIN = """
import sys, torch
import brainmets.training.arms, brainmets.training.inference, brainmets.training.watching
assert "monai" not in sys.modules
from small_study import training_parameters
from brainmets.params import FromScratch
from brainmets.paths import StudyPaths
from brainmets.training.session import prepare
files = StudyPaths(sys.argv[1], sys.argv[2])
for precision in ("nnunet", "bfloat16"):
    prepare(files, training_parameters(FromScratch, files, epochs=1, seed=81, precision=precision), "scratch").run()
checkpoint = files.checkpoint("scratch", "default", 0)
brainmets.training.inference.Ensemble.load([checkpoint], torch.device("cpu"), 0.5, False)
assert "monai" not in sys.modules
"""


@pytest.mark.slow
def test_a_unet_trains_and_predicts_without_importing_monai(small_study: StudyPaths) -> None:
    helpers = Path(__file__).resolve().parents[1] / "helpers"
    ended = subprocess.run(
        [sys.executable, "-c", TRAIN, small_study.work_dir, small_study.study], capture_output=True, text=True,
        check=False, env={**os.environ, "PYTHONPATH": f"{helpers}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr


def test_segresnet_has_the_papers_shape(small_study: StudyPaths) -> None:
    network = trainer_of(small_study, "segresnet").bare_network
    assert network.blocks_down == (1, 2, 2, 4)
    assert network.blocks_up == (1, 1, 1)
    assert network.init_filters == 8
    assert network.convInit.conv.in_channels == 4
    assert network.conv_final[-1].conv.out_channels == 3


@pytest.mark.parametrize("size", [(16, 16, 16), (10, 12, 7)])
def test_segresnet_takes_any_patch(small_study: StudyPaths, size: tuple[int, int, int]) -> None:
    network = trainer_of(small_study, "segresnet").bare_network
    assert network(torch.zeros(1, 4, *size)).shape == (1, 3, *size)


def test_the_default_arms_first_steps_equal_stock_nnunets(small_study: StudyPaths, tmp_path: Path) -> None:
    ours = trainer_of(small_study, "default", seed=5)
    plan = deepcopy(plans.read_plan(small_study, "target")) | {"continue_training": False}
    os.environ["nnUNet_results"] = str(tmp_path)
    stock = nnUNetTrainer(plan, plans.CONFIGURATION, 1, plans.read_dataset(small_study, "target"), torch.device("cpu"))
    stock.num_epochs = ours.num_epochs
    seed_everything(training_seeds(5, "scratch", "default", 1).weights)
    stock.initialize()
    assert [case for side in stock.do_split() for case in side] == [case for side in ours.do_split() for case in side]
    source, _ = ours.get_dataloaders()  # test_seeds.py shows that nnU-Net's own gives the same
    batches, losses = [next(source) for _ in range(3)], []
    for trainer in (ours, stock):
        trainer.network.train()
        losses.append([trainer.train_step(batch)["loss"] for batch in batches])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)
    for mine, theirs in zip(ours.network.parameters(), stock.network.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_cudnn_chooses_its_convolutions_on_a_gpu_alone(
    small_study: StudyPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    """nnU-Net sets it in its command, which the study does not call."""
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    trainer_of(small_study, "default")
    assert not torch.backends.cudnn.benchmark
    choose_convolutions(torch.device("cuda"))
    assert torch.backends.cudnn.benchmark
    assert not torch.backends.cudnn.deterministic
    asked = []
    monkeypatch.setattr(trainer_module, "choose_convolutions", asked.append)
    for arm in ("default", "segresnet"):
        trainer_of(small_study, arm)
    assert asked == [torch.device("cpu")] * 2, "every trainer asks for its own device"


def test_bfloat16_stays_close_to_float32(small_study: StudyPaths) -> None:
    losses = []
    for precision in ("nnunet", "bfloat16"):
        trainer = trainer_of(small_study, "default", seed=5, precision=precision)
        batches, _ = trainer.get_dataloaders()
        losses.append(float(trainer.train_step(next(batches))["loss"]))
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
    assert losses[0] != losses[1]


@pytest.mark.parametrize("arm", ["default", "tversky_bce", "segresnet"])
def test_bfloat16_gives_the_gradients_of_float32(small_study: StudyPaths, arm: str) -> None:
    """Also in SegResNet's two deepest slices, where torch's own bfloat16 gives what lay in memory."""
    gradients = []
    for precision in ("nnunet", "bfloat16"):
        trainer = trainer_of(small_study, arm, seed=5, precision=precision)
        assert trainer.configuration_manager.patch_size[0] <= 16
        trainer.optimizer.step = lambda: None
        batches, _ = trainer.get_dataloaders()
        trainer.network.train()
        trainer.train_step(next(batches))
        gradients.append({name: value.grad for name, value in trainer.network.named_parameters()})
    for name, exact in gradients[0].items():
        if exact is not None and exact.abs().max() > 1e-4:
            difference = torch.linalg.vector_norm(gradients[1][name] - exact) / torch.linalg.vector_norm(exact)
            assert difference < 0.5, name  # rounding reaches a quarter; a wrong gradient is off by its own size


def test_gradients_that_are_not_finite_stop_the_training(small_study: StudyPaths) -> None:
    trainer = trainer_of(small_study, "segresnet", precision="bfloat16")
    loss = trainer.loss
    trainer.loss = lambda output, target: float("inf") * loss(output, target)
    batches, _ = trainer.get_dataloaders()
    trainer.network.train()
    before = [value.clone() for value in trainer.network.parameters()]
    with pytest.raises(FloatingPointError, match=r"epoch 1: the gradients are not finite .* learning_rate"):
        trainer.train_step(next(batches))
    assert all(torch.equal(one, other) for one, other in zip(before, trainer.network.parameters(), strict=True))


AUGMENTATIONS = [
    # name and probability, as nnU-Net has them; gamma first on the inverted image
    ("SpatialTransform", None), ("GaussianNoiseTransform", 0.1), ("GaussianBlurTransform", 0.2),
    ("MultiplicativeBrightnessTransform", 0.15), ("ContrastTransform", 0.15),
    ("SimulateLowResolutionTransform", 0.25), ("GammaTransform", 0.1), ("GammaTransform", 0.3),
    ("MirrorTransform", None),
]  # fmt: skip


@pytest.mark.parametrize("arm", ["default", "tversky_bce", "segresnet"])
def test_every_arm_augments_as_the_paper_says(small_study: StudyPaths, arm: str) -> None:
    training, validation = trainer_of(small_study, arm).get_dataloaders()
    found = []
    for transform in training.data_loader.transforms.transforms:
        inner = getattr(transform, "transform", transform)  # what is applied with a probability is wrapped
        found.append((type(inner).__name__, getattr(transform, "apply_probability", None)))
    assert found[: len(AUGMENTATIONS)] == AUGMENTATIONS
    spatial = training.data_loader.transforms.transforms[0]
    assert (spatial.p_rotation, spatial.p_scaling, spatial.p_elastic_deform) == (0.2, 0.2, 0)
    only_form = {"RemoveLabelTransform", "ConvertSegmentationToRegionsTransform", "DownsampleSegForDSTransform"}
    assert {name for name, _ in found[len(AUGMENTATIONS) :]} <= only_form | {"MaskImageTransform"}
    assert {type(one).__name__ for one in validation.data_loader.transforms.transforms} <= only_form


@pytest.mark.parametrize("precision", ["nnunet", "bfloat16"])
@pytest.mark.parametrize("arm", ["default", "tversky_bce", "segresnet"])
def test_gradients_are_clipped_to_a_norm_of_twelve(small_study: StudyPaths, arm: str, precision: str) -> None:
    trainer = trainer_of(small_study, arm, precision=precision)
    loss = trainer.loss
    trainer.loss = lambda output, target: 1e6 * loss(output, target)
    batches, _ = trainer.get_dataloaders()
    trainer.network.train()
    trainer.train_step(next(batches))
    gradients = [value.grad for value in trainer.network.parameters() if value.grad is not None]
    norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(one) for one in gradients]))
    assert norm.item() == pytest.approx(12, rel=1e-3)
