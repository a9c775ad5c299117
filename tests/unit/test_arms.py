"""Each arm as it really trains: optimiser, learning rate, loss, network; the default arm equals stock nnU-Net."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from copy import deepcopy
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from dynamic_network_architectures.architectures.unet import ResidualEncoderUNet
from nnunetv2.experiment_planning.experiment_planners.residual_unets.residual_encoder_unet_planners import (
    ResEncUNetPlanner,
)
from nnunetv2.training.loss.compound_losses import DC_and_BCE_loss
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from small_study import RESENC, training_parameters, with_own_plans

from brainmets.cohorts.cohort import read_manifest
from brainmets.files import read_json, write_json
from brainmets.params import FineTuning, FromScratch, Pretraining
from brainmets.paths import StudyPaths
from brainmets.screening import contents
from brainmets.training import plans
from brainmets.training import trainer as trainer_module
from brainmets.training.arms import TverskyBCELoss
from brainmets.training.export import export
from brainmets.training.finetuning import transfer_weights
from brainmets.training.inference import Ensemble, predict_cases
from brainmets.training.lesion_loss import lesion_term, zones_of
from brainmets.training.preprocessed import DamagedError
from brainmets.training.seeds import seed_everything, training_seeds
from brainmets.training.session import TrainingSession, identity, prepare
from brainmets.training.trainer import StudyTrainer, choose_convolutions, read_checkpoint
from brainmets.vocabulary import RESIDUAL_PLAN, UNET_PLAN


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
from small_study import RESENC, training_parameters, with_own_plans
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


# --- arms beyond the paper ---


LESION_DICE = {"lesion_dice": {"learning_rate": 0.01, "lesion_weight": 0.5}}


def test_lesion_dice_adds_half_its_term_to_nnunets_loss(small_study: StudyPaths) -> None:
    ours = trainer_of(small_study, "lesion_dice", arms=LESION_DICE)
    stock = trainer_of(small_study, "default")
    assert (type(ours.optimizer), ours.optimizer.param_groups[0]["lr"]) == (torch.optim.SGD, 0.01)
    assert ours.loss.weight_factors == stock.loss.weight_factors
    for batches in ours.get_dataloaders():
        targets = next(batches)["target"]
        torch.manual_seed(1)
        outputs = [torch.randn(target.shape) for target in targets[:-1]]
        term = lesion_term(outputs[0], targets[0], targets[-1])
        assert term > 0
        torch.testing.assert_close(ours.loss(outputs, targets), stock.loss(outputs, targets[:-1]) + 0.5 * term)
        for sample, zones in zip(targets[0], targets[-1], strict=True):
            np.testing.assert_array_equal(zones_of(sample.numpy().astype(bool)), zones.numpy())


def test_lesion_dice_differs_in_its_loss_and_its_zones_alone(small_study: StudyPaths) -> None:
    parameters = training_parameters(FromScratch, small_study, arm="lesion_dice", arms=LESION_DICE)
    session = prepare(small_study, parameters, "scratch")
    description = session.description()
    assert set(description.index[description["set by"] == "the arm"]) == {"loss"}
    assert description.loc["loss", "lesion_dice"] == "LesionDiceLoss"
    images, regions = session.first_batch()
    assert regions.shape[1] == 3 and regions.shape[2:] == images.shape[2:]
    stock = trainer_of(small_study, "default").get_dataloaders()
    for mine, theirs in zip(session.trainer.get_dataloaders(), stock, strict=True):
        names = [type(one).__name__ for one in mine.data_loader.transforms.transforms]
        assert names == [*(type(one).__name__ for one in theirs.data_loader.transforms.transforms), "AppendZones"]


@pytest.mark.parametrize("precision", ["nnunet", "bfloat16"])
def test_lesion_dice_trains_and_goes_on_as_if_never_stopped(small_study: StudyPaths, precision: str) -> None:
    """Three epochs at once, and stopped after the second: the same weights."""
    weights = []
    for seed in (31, 31):
        parameters = training_parameters(
            FromScratch, small_study, arm="lesion_dice", arms=LESION_DICE, seed=seed, precision=precision
        )
        session = prepare(small_study, parameters, "scratch")
        session.run(lambda line: None)
        assert np.isfinite(session.curves()[["training_loss", "validation_loss"]]).all(axis=None)
        weights.append({name: value.clone() for name, value in session.trainer.network.state_dict().items()})
        (session.folder / trainer_module.FINAL).unlink()  # what is left is the checkpoint of the epoch before
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_lesion_dice_is_the_same_where_nnunet_compiles(
    small_study: StudyPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU nnU-Net compiles its Dice: the loss finds it where nnU-Net puts it, and adds the same term."""
    trainer = trainer_of(small_study, "lesion_dice", arms=LESION_DICE)
    monkeypatch.setattr(StudyTrainer, "_do_i_compile", lambda self: True)
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    compiled = trainer._build_loss()
    assert type(compiled.voxel_loss.loss.dc).__name__ == "OptimizedModule"
    targets = next(trainer.get_dataloaders()[0])["target"]
    values = []
    for loss in (trainer.loss, compiled):
        torch.manual_seed(1)
        outputs = [torch.randn(target.shape, requires_grad=True) for target in targets[:-1]]
        value = loss(outputs, targets)
        value.backward()
        values.append((value.detach(), outputs[0].grad))
    torch.testing.assert_close(values[0], values[1])


def test_lesion_dice_needs_every_label(small_study: StudyPaths) -> None:
    trainer = trainer_of(small_study, "lesion_dice", arms=LESION_DICE)
    trainer.enable_deep_supervision = False
    with pytest.raises(ValueError, match="lesion_dice: needs regions without an ignore label"):
        trainer._build_loss()


@pytest.fixture(scope="module")
def planned_twice(small_study: StudyPaths, tmp_path_factory: pytest.TempPathFactory) -> StudyPaths:
    """The small study with the residual encoder's plan beside the U-Net's, as notebook 02 makes it for the arm."""
    copied = StudyPaths(str(tmp_path_factory.mktemp("named")), "small")  # the study that its manifests name
    shutil.copytree(small_study.work, copied.work, ignore=shutil.ignore_patterns("training"))
    return with_own_plans(copied, RESENC, tmp_path_factory.mktemp("resenc"))


def resenc(files: StudyPaths, model: type = FromScratch, stage: str = "scratch", **changed: object) -> TrainingSession:
    parameters = training_parameters(model, files, arm="default_resenc", arms=RESENC, **{"epochs": 1, **changed})
    return prepare(files, parameters, stage)


def test_the_residual_encoder_is_nnunets_own_plan(planned_twice: StudyPaths) -> None:
    """As nnU-Net's planner makes it by itself, for the same memory and features."""
    session = resenc(planned_twice)
    trainer = session.trainer
    assert type(trainer.bare_network) is ResidualEncoderUNet
    assert trainer.plans_manager.plans_name == "nnUNetResEncUNetPlans"
    assert isinstance(trainer.optimizer, torch.optim.SGD)
    assert isinstance(trainer.loss.loss, DC_and_BCE_loss)
    plans.use_nnunet_folders(planned_twice)
    planner = ResEncUNetPlanner(plans.DATASETS["target"], 0.02)
    planner.UNet_base_num_features = 4
    stock = planner.plan_experiment()["configurations"][plans.CONFIGURATION]
    mine = plans.read_plan(planned_twice, "target", RESIDUAL_PLAN)["configurations"][plans.CONFIGURATION]
    assert json.loads(json.dumps(mine)) == json.loads(json.dumps(stock, default=lambda array: array.tolist()))
    assert [*trainer.configuration_manager.patch_size] == [*map(int, mine["patch_size"])]
    description = session.description()
    assert not set(description.index[description["set by"] == "the arm"])
    assert description.loc["network", "default_resenc"] == "ResidualEncoderUNet"
    outputs = trainer.network(torch.zeros(1, 4, *trainer.configuration_manager.patch_size))
    assert len(outputs) == len(trainer.loss.weight_factors) == len(trainer.bare_network.decoder.seg_layers)


def test_the_other_arms_keep_their_plan_and_its_files(small_study: StudyPaths, planned_twice: StudyPaths) -> None:
    for cohort in plans.DATASETS:
        assert plans.arrays_folder(planned_twice, cohort).name == plans.arrays_folder(small_study, cohort).name
        for files in (small_study, planned_twice):
            plan = plans.read_plan(files, cohort, UNET_PLAN)
            assert plan == plans.read_plan(small_study, cohort)
        names = [{path.name for path in plans.outputs(files, cohort)} for files in (small_study, planned_twice)]
        assert names[1] - names[0] == {f"{plans.identifier(cohort, RESIDUAL_PLAN)}.json"}
        assert not names[0] - names[1]
    one, other = (
        identity(files, training_parameters(FromScratch, files), "scratch") for files in (small_study, planned_twice)
    )
    assert one == other, "a study's trainings are not repeated because another plan lies beside theirs"
    parameters = training_parameters(FromScratch, planned_twice, arm="default_resenc", arms=RESENC)
    assert identity(planned_twice, parameters, "scratch")["plan"] != one["plan"]


@pytest.mark.parametrize(("memory", "features"), [(0.01, 4), (0.02, 8), (0.04, 4), (0.04, 8)])
def test_tiny_residual_encoders_are_valid(planned_twice: StudyPaths, memory: float, features: int) -> None:
    kept = {path: path.read_bytes() for path in plans.plan_paths(planned_twice, "target")}
    try:
        plan = plans.plan_target(planned_twice, memory, features, RESIDUAL_PLAN)
        configuration = plan["configurations"][plans.CONFIGURATION]
        network = configuration["architecture"]["arch_kwargs"]
        assert network["features_per_stage"][0] == features
        assert len(network["n_blocks_per_stage"]) == network["n_stages"] == len(network["strides"]) >= 2
        strides = np.prod(network["strides"], axis=0)
        assert not np.mod(configuration["patch_size"], strides).any()
        assert configuration["batch_size"] >= 2
    finally:
        for path, content in kept.items():
            path.write_bytes(content)


def test_the_residual_encoder_is_pretrained_and_fine_tuned(planned_twice: StudyPaths) -> None:
    before = resenc(planned_twice, Pretraining, "pretraining")
    assert before.trainer.plans_manager.plans_name == "nnUNetResEncUNetPlans_from_target"
    before.run(lambda line: None)
    session = resenc(planned_twice, FineTuning, "finetune", epochs=2, transfer_head=False, freeze_encoder_epochs=1)
    table = session.transfer_table()
    heads = table[table.status == "skipped"].key
    assert len(heads) and all(".seg_layers." in key for key in heads)
    assert set(table.status) == {"loaded", "skipped"}
    encoder = {name: value.clone() for name, value in session.trainer.bare_network.encoder.state_dict().items()}
    for name, value in encoder.items():
        torch.testing.assert_close(value, before.trainer.bare_network.encoder.state_dict()[name])
    session.run(lambda line: None)
    first = read_checkpoint(session.folder / trainer_module.PREVIOUS, torch.device("cpu"))["network_weights"]
    last = session.trainer.bare_network.state_dict()
    taken = before.trainer.bare_network.state_dict()
    assert all(torch.equal(first[f"encoder.{name}"], value) for name, value in encoder.items()), "frozen for an epoch"
    assert not all(torch.equal(last[f"encoder.{name}"], value) for name, value in encoder.items())
    assert not any(torch.equal(first[key], taken[key]) for key in heads if key.endswith("weight"))


def test_the_residual_encoders_first_layer_is_adapted_to_other_sequences(planned_twice: StudyPaths) -> None:
    trainer = resenc(planned_twice, seed=4).trainer
    four, two = (
        trainer.bare_network,
        trainer.build_network_architecture(trainer.plans_manager, trainer.configuration_manager, 2, 3, True),
    )
    given, wanted = ("t1n", "t1c", "t2w", "t2f"), ("t1c", "t2f")
    rows = transfer_weights(two, four.state_dict(), trainer.head_keys, True, given, wanted)
    adapted = [row.key for row in rows if row.status == "adapted"]
    assert adapted and all(key.startswith(("encoder.stem.", "decoder.encoder.stem.")) for key in adapted)
    own, other = two.state_dict(), four.state_dict()
    for key in adapted:
        torch.testing.assert_close(own[key], other[key][:, [1, 3]])


def test_the_residual_encoder_predicts_from_its_checkpoint(planned_twice: StudyPaths, tmp_path: Path) -> None:
    session = resenc(planned_twice, seed=3)
    session.run(lambda line: None)
    case = next(iter(read_manifest(planned_twice.manifest("target")).values()))
    path = planned_twice.checkpoint("scratch", "default_resenc", 0)
    ensemble = Ensemble.load([path], torch.device("cpu"), tile_step=0.5, mirroring=False)
    assert type(ensemble.network) is ResidualEncoderUNet
    (written,) = predict_cases(ensemble, [case], tmp_path / "mine", lambda line: None)
    assert written.is_file()
    whole = read_checkpoint(path, torch.device("cpu"))["init_args"]["plans"]
    kept = {plans.CONFIGURATION: whole["configurations"][plans.CONFIGURATION]}
    bundled = contents.plan_of(whole).content()
    assert bundled["configurations"] == json.loads(json.dumps(kept))
    assert bundled["plans_name"] == "nnUNetResEncUNetPlans"
    archive = export(planned_twice, "default_resenc", "scratch", [0], tmp_path / "model.zip", 0.5, False)
    with zipfile.ZipFile(archive) as content:
        folder = "Dataset502_Target/nnUNetTrainer__nnUNetResEncUNetPlans_default_resenc_scratch__3d_fullres"
        plan = json.loads(content.read(f"{folder}/plans.json"))
    assert "brainmets" not in plan
    assert plan["configurations"]["3d_fullres"]["architecture"]["network_class_name"].endswith(".ResidualEncoderUNet")


def test_a_plan_that_asks_for_other_images_is_refused(planned_twice: StudyPaths) -> None:
    path = plans.plan_path(planned_twice, "source", RESIDUAL_PLAN)
    original, changed = path.read_bytes(), read_json(path)
    changed["configurations"][plans.CONFIGURATION]["spacing"] = [9, 9, 9]
    write_json(path, changed)
    try:
        with pytest.raises(plans.AlignmentError, match=r"source cohort's plans .*\n  spacing: nnUNetPlans \["):
            plans.require_shared_images(planned_twice, RESIDUAL_PLAN)
        with pytest.raises(DamagedError, match=r"nnUNetResEncUNetPlans_from_target\.json"):
            resenc(planned_twice, Pretraining, "pretraining", seed=9)
    finally:
        path.write_bytes(original)


def test_an_arm_without_its_plan_is_told_so(small_study: StudyPaths) -> None:
    with pytest.raises(FileNotFoundError, match=r"nnUNetResEncUNetPlans\.json is not in .* run notebook 02"):
        resenc(small_study)
