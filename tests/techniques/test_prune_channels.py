"""Structured pruning: that what is left is right, how much is left, steps, networks."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from netzip_mlflow.edits import channels
from netzip_mlflow.edits.channels import find_groups
from netzip_mlflow.errors import NetzipError
from netzip_mlflow.metrics import operations
from netzip_mlflow.signature import OutputSpec
from netzip_mlflow.tasks.classification import Classification
from netzip_mlflow.techniques import Context
from netzip_mlflow.techniques.finetune import Finetune
from netzip_mlflow.techniques.fp32 import deploy
from netzip_mlflow.techniques.prune_channels import PruneChannels
from netzip_mlflow.twin import Architecture, InputSpec, Twin

SCORES, FACTS = OutputSpec.of(scores=(4,)), {"classes": ["0", "1", "2", "3"]}


def named(name: str, side: int = 32, kind: str = "name", **arguments: Any) -> Twin:
    """A network with seeded random weights and BatchNorm statistics, rebuildable."""
    architecture = Architecture(kind, name, {"num_classes": 4, **arguments})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = architecture.build((3, side, side), SCORES)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, std=0.2)
    spec = InputSpec((3, side, side), (0.4,) * 3, (0.2,) * 3)
    return Twin(model.eval(), spec, SCORES, architecture, FACTS)


def answer(twin: Twin, model: nn.Module | None = None, seed: int = 0) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        return (model or twin.model)(torch.randn(2, *twin.input.shape, generator=draw))


def macs(twin: Twin) -> int:
    """By torch's own counter."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        twin.model(torch.zeros(1, *twin.input.shape))
    return counter.get_total_flops() // 2


def widths(twin: Twin) -> dict[str, int]:
    return {
        name: module.weight.shape[0]
        for name, module in twin.model.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    }


def removed(twin: Twin) -> dict[str, list[int]]:
    """Of the last edit's first step."""
    return dict(twin.edits[-1].data["steps"][0])


# --- what is left is right -------------------------------------------------------------------


def unread(twin: Twin, readers: dict[str, str], gone: dict[str, list[int]]) -> nn.Module:
    """The whole network, whose `readers` of pruned layers have zeros in place of their weights."""
    model = copy.deepcopy(twin.model)
    with torch.no_grad():
        for layer, channels in gone.items():
            model.get_parameter(f"{readers[layer]}.weight")[:, channels] = 0
    return model


def test_removing_is_not_reading(twin: Twin, context: Context) -> None:
    made = PruneChannels(0.5).apply(twin, context)
    readers = {"conv1": "conv2", "conv2": "linear"}
    assert removed(made).keys() == readers.keys()
    wanted = answer(twin, unread(twin, readers, removed(made)))
    torch.testing.assert_close(answer(made), wanted)


def test_shortcuts_that_slice_and_pad_keep_their_stream(context: Context) -> None:
    """Half of the inner channels of ResNet-20: 0.505 of the MACs, counted by hand."""
    origin = named("resnet20_cifar")
    made = PruneChannels(0.5).apply(origin, context)
    blocks = [f"layer{stage}.{block}" for stage in (1, 2, 3) for block in (0, 1, 2)]
    readers = {f"{b}.conv1": f"{b}.conv2" for b in blocks}
    assert removed(made).keys() == readers.keys()
    wanted = answer(origin, unread(origin, readers, removed(made)))
    torch.testing.assert_close(answer(made), wanted)
    # per stage: side, width, inputs; a block is conv1 (inputs x width) and conv2 (width x width)
    inner = sum(
        9 * side**2 * (first * width + 2 * width**2 + 3 * width**2)
        for side, width, first in ((32, 16, 16), (16, 32, 16), (8, 64, 32))
    )
    outer = 9 * 32**2 * 3 * 16 + 64 * 4
    assert macs(origin) == inner + outer
    assert macs(made) == inner // 2 + outer
    assert made.edits[0].data["unproved"] == ["conv1"]


def test_a_channel_shuffle_is_not_believed(context: Context) -> None:
    origin = named("tiny_networks:shuffled", 12, "factory")
    made = PruneChannels(0.5).apply(origin, context)
    readers = {"second": "third", "third": "linear"}
    assert removed(made).keys() == readers.keys()
    torch.testing.assert_close(answer(made), answer(origin, unread(origin, readers, removed(made))))


def test_nothing_that_can_be_followed_is_said(context: Context) -> None:
    origin = named("tiny_networks:shuffled", 12, "factory")
    with pytest.raises(NetzipError, match=r"no channels that can be removed.*first"):
        PruneChannels(0.5, keep="second, third").apply(origin, context)


@pytest.mark.parametrize("ratio", [0.3, 0.9])
def test_layer_norms_keep_their_order(ratio: float, context: Context) -> None:
    origin = named("tiny_networks:normed", 4, "factory")
    order = torch.arange(100.0)
    with torch.no_grad():
        origin.model.get_parameter("norm.weight").copy_(order)
        origin.model.get_parameter("norm.bias").copy_(-order)
    made = PruneChannels(ratio, round_to=1).apply(origin, context)
    stay = [c for c in range(100) if c not in removed(made)["first"]]
    assert len(stay) == round(100 * (1 - ratio))
    assert torch.equal(made.model.get_parameter("norm.weight"), order[stay])
    assert torch.equal(made.model.get_parameter("norm.bias"), -order[stay])
    whole = origin.model.get_parameter("first.weight")
    assert torch.equal(made.model.get_parameter("first.weight"), whole[stay])
    assert answer(made).isfinite().all()


# --- how many --------------------------------------------------------------------------------


@pytest.mark.parametrize("importance", ["l1", "l2", "taylor", "random"])
@pytest.mark.parametrize("scope", ["uniform", "global"])
def test_nothing_is_removed_by_nothing(
    importance: str, scope: str, twin: Twin, context: Context
) -> None:
    for nothing in ({"ratio": 0.0}, {"macs": 1.0}):
        made = PruneChannels(importance=importance, scope=scope, **nothing).apply(twin, context)  # type: ignore[arg-type]
        assert made.edits == twin.edits
        assert torch.equal(answer(made), answer(twin))


@pytest.mark.parametrize("round_to", [1, 4, 8])
def test_widths_are_multiples(round_to: int, context: Context) -> None:
    origin = named("resnet8")
    for scope in ("uniform", "global"):
        made = PruneChannels(0.4, round_to=round_to, scope=scope).apply(origin, context)
        pruned = {n: w for n, w in widths(made).items() if w != widths(origin)[n]}
        assert pruned
        assert all(width % round_to == 0 for width in pruned.values())
    assert widths(PruneChannels(0.4, round_to=1).apply(origin, context))["conv1"] == 10  # 9.6


def test_one_ratio_of_all_layers_or_of_each(context: Context) -> None:
    origin = named("resnet8")
    each = PruneChannels(0.5, round_to=1).apply(origin, context)
    for name, width in widths(origin).items():
        assert widths(each)[name] == (width if name == "linear" else width // 2)
    together = PruneChannels(0.5, round_to=1, scope="global").apply(origin, context)
    assert widths(together) != widths(each)
    groups = find_groups(origin.model, origin.input.shape, ()).groups
    gone = removed(together)
    assert sum(map(len, gone.values())) == pytest.approx(sum(g.channels for g in groups) / 2, abs=1)


def test_global_never_empties_a_layer(context: Context) -> None:
    made = PruneChannels(0.95, scope="global", round_to=4).apply(named("resnet8"), context)
    assert min(widths(made).values()) == 4


def test_kept_layers_keep_their_outputs(context: Context) -> None:
    origin = named("resnet8")
    made = PruneChannels(0.5, keep="layer2.conv1, layer3*").apply(origin, context)
    before, after = widths(origin), widths(made)
    kept = {"layer2.conv1", "layer3.conv1", "layer3.conv2", "layer3.shortcut", "linear"}
    assert {n for n in before if before[n] == after[n]} == kept


@pytest.mark.parametrize("target", [0.75, 0.5, 0.3])
@pytest.mark.parametrize("scope", ["uniform", "global"])
def test_the_macs_are_reached_from_below(
    target: float, scope: str, twin: Twin, context: Context
) -> None:
    """Against every ratio there is, by torch's counter."""
    made = PruneChannels(macs=target, scope=scope, round_to=1).apply(twin, context)
    shares = {
        macs(PruneChannels(r / 100, scope=scope, round_to=1).apply(twin, context)) / macs(twin)
        for r in range(4, 94, 2)
    }
    found = macs(made) / macs(twin)
    assert found <= target
    assert found >= max(s for s in shares if s <= target)


def test_macs_are_a_share_of_the_baseline(twin: Twin, context: Context) -> None:
    once = PruneChannels(macs=0.5, round_to=1).apply(twin, context)
    again = PruneChannels(macs=0.5, round_to=1).apply(once, context)
    assert again.edits == once.edits, "it is there already"
    alone = PruneChannels(macs=0.5, round_to=1).apply(once, replace(context, teacher=None))
    assert macs(alone) <= macs(once) / 2


def test_the_file_that_ships_has_fewer_macs_and_bytes(context: Context) -> None:
    origin = named("resnet8")
    made = PruneChannels(macs=0.4).apply(origin, replace(context, teacher=origin))
    whole, shipped = deploy(origin, context), deploy(made, context)
    counts = [operations.totals(operations.layers(d.model))["macs"] for d in (whole, shipped)]
    assert counts == [macs(origin), macs(made)]
    assert 0.3 < counts[1] / counts[0] <= 0.4
    assert shipped.model.ByteSize() < 0.5 * whole.model.ByteSize()


# --- saved, repeated, seeded -----------------------------------------------------------------


def assert_rebuilt(made: Twin, folder: Path) -> None:
    made.save(folder)
    again = Twin.load(folder, ["tiny_networks:tiny"])
    one, two = made.model.state_dict(), again.model.state_dict()
    assert {k: v.shape for k, v in one.items()} == {k: v.shape for k, v in two.items()}
    assert torch.equal(answer(again), answer(made))
    assert again.digest() == made.digest()
    fresh = made.architecture.build(made.input.shape, made.outputs)  # type: ignore[union-attr]
    flags = [p.requires_grad for p in fresh.parameters()]
    for edit in made.edits:
        channels.replay(fresh, json.loads(json.dumps(edit.data)))
    assert [p.requires_grad for p in fresh.parameters()] == flags
    assert widths(made.replace(model=fresh)) == widths(made)


def test_a_chain_of_several_is_rebuilt(context: Context, tmp_path: Path) -> None:
    made = named("resnet20_cifar")
    for technique in (
        PruneChannels(0.3, importance="random"),
        PruneChannels(0.3, scope="global", round_to=1),
        PruneChannels(0.2, round_to=1, keep="layer1*"),
    ):
        made = technique.apply(made, context)
    assert [e.technique for e in made.edits] == ["prune_channels"] * 3
    assert made.chain == ("prune_channels(0.3)", "prune_channels(0.3)", "prune_channels(0.2)")
    assert_rebuilt(made, tmp_path)


def test_steps_are_rebuilt(twin: Twin, context: Context, tmp_path: Path) -> None:
    made = PruneChannels(0.5, steps=2, epochs=1, round_to=1).apply(twin, context)
    (edit,) = made.edits
    assert [len(step) for step in edit.data["steps"]] == [2, 2]
    assert widths(made) == {"conv1": 4, "conv2": 8, "linear": 4}
    assert_rebuilt(made, tmp_path)


def test_random_is_seeded(context: Context) -> None:
    origin = named("resnet8")

    def gone(seed: int) -> dict[str, list[int]]:
        return removed(
            PruneChannels(0.5, importance="random").apply(origin, replace(context, seed=seed))
        )

    assert gone(1) == gone(1)
    assert gone(1) != gone(2)


def test_memory_layout_and_frozen_weights(twin: Twin, context: Context) -> None:
    odd = twin.copy()
    odd.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    odd.model.get_parameter("conv1.weight").requires_grad_(False)
    made = PruneChannels(0.5, importance="taylor").apply(odd, context)
    plain = PruneChannels(0.5, importance="taylor").apply(twin, context)
    assert removed(made) == removed(plain)
    trained = {name: p.requires_grad for name, p in made.model.named_parameters()}
    assert {name for name, flag in trained.items() if not flag} == {"conv1.weight"}
    assert all(p.grad is None for p in (*made.model.parameters(), *odd.model.parameters()))
    assert not any(m.training for m in made.model.modules())
    assert not any(m._forward_hooks for m in made.model.modules())


# --- steps with training ---------------------------------------------------------------------


def test_steps_with_training_gain_on_one_shot(
    twin: Twin, task: Classification, context: Context
) -> None:
    shot = PruneChannels(0.75, importance="random").apply(twin, context)
    steps = PruneChannels(0.75, importance="random", steps=3, epochs=2, lr=0.05)
    trained = steps.apply(twin, context)
    assert widths(trained) == widths(shot)
    assert task.validate(trained.network()) > task.validate(shot.network()) + 0.1


def test_training_is_that_of_finetune(twin: Twin, context: Context) -> None:
    settings: dict[str, Any] = {"epochs": 2, "lr": 0.05, "batch": 32, "teacher": "baseline"}
    inside = PruneChannels(0.5, **settings).apply(twin, context)
    outside = Finetune(**settings).apply(PruneChannels(0.5).apply(twin, context), context)
    one, two = inside.model.state_dict(), outside.model.state_dict()
    assert all(torch.equal(one[k], two[k]) for k in one)


def test_epochs_are_logged_in_a_row(twin: Twin, context: Context) -> None:
    logged: list[int] = []
    shown: list[float] = []
    watched = replace(
        context,
        log=lambda key, _value, step: logged.append(step) if key == "training/loss" else None,
        progress=lambda _what, done: shown.append(done),
    )
    PruneChannels(0.5, steps=2, epochs=2, round_to=1).apply(twin, watched)
    assert logged == [1, 2, 3, 4]
    assert shown == sorted(shown)
    assert shown[-1] == 1.0


def test_label() -> None:
    assert PruneChannels(0.25).label() == "prune_channels(0.25)"
    assert PruneChannels(macs=0.5).label() == "prune_channels(macs 0.5)"


# --- networks --------------------------------------------------------------------------------

SMALL = ("resnet8", "lenet5", "resnet20_cifar")
LARGE = (
    *("resnet18", "vgg11_bn", "mobilenet_v2", "mobilenet_v3_small", "squeezenet1_1"),
    *("efficientnet_b0", "shufflenet_v2_x0_5", "densenet121", "resnext50_32x4d", "swin_t"),
)


def vision_transformer(num_classes: int) -> nn.Module:
    """ViT of two layers for 32x32, four heads: torchvision's class, found as a user's factory."""
    from torchvision.models import VisionTransformer

    return VisionTransformer(32, 8, 2, 4, 32, 64, num_classes=num_classes)


@pytest.mark.parametrize(
    "name", [*SMALL, *(pytest.param(name, marks=pytest.mark.slow) for name in LARGE)]
)
def test_networks_are_pruned_rebuilt_and_shipped(
    name: str, context: Context, tmp_path: Path
) -> None:
    origin = named(name, 32 if name in SMALL else 64)
    made = PruneChannels(0.5).apply(origin, context)
    share = macs(made) / macs(origin)
    assert 0.1 < share < (0.6 if name not in ("shufflenet_v2_x0_5", "swin_t") else 0.9)
    assert answer(made).shape == (2, 4)
    assert_rebuilt(made, tmp_path)
    file = deploy(made, context).save(tmp_path / "shipped")
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    images = np.random.default_rng(0).random((2, *made.input.shape), dtype=np.float32)
    (scores,) = session.run(None, {"images": images})
    with torch.no_grad():
        wanted = made.network()(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(scores, wanted, atol=1e-4, rtol=1e-3)


def test_a_transformer_loses_hidden_features(context: Context) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = vision_transformer(4).eval()
    origin = Twin.of(model, shape=(3, 32, 32))
    made = PruneChannels(0.5).apply(origin, context)
    readers = {f"encoder.layers.encoder_layer_{i}.mlp.0": "" for i in (0, 1)}
    readers = {name: name.replace("mlp.0", "mlp.3") for name in readers}
    assert removed(made).keys() == readers.keys()
    torch.testing.assert_close(answer(made), answer(origin, unread(origin, readers, removed(made))))
