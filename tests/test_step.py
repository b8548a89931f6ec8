"""The compiled step against the eager one, and what happens where compiling fails."""

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from capsnb.data import Batch
from capsnb.nn.models import CapsNetConfig, StridedStem
from capsnb.nn.routing import Dynamic
from capsnb.training.step import WORTH, TrainStep

SMALL = CapsNetConfig(
    size=20, stem=StridedStem(channels=6, types=2), hidden=((5, 4),), dim=4, classes=4, decoder_widths=(8, 8)
)
CONFIGS = {
    "gradient through all iterations": SMALL,
    "gradient through the last": replace(SMALL, routing=Dynamic(gradient="last", learned_prior=True)),
    "no decoder": replace(SMALL, decoder="none", bias=0.1),
}


def batch(size=3):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (size, 1, 20, 20), dtype=torch.uint8, generator=generator)
    return Batch(images, torch.arange(size) % 4)


def build(config=SMALL):
    torch.manual_seed(0)
    return config.build()


def gradients(model):
    return [parameter.grad.clone() for parameter in model.parameters()]


@pytest.mark.parametrize("name", CONFIGS)
def test_a_model_is_compiled_as_one_graph_with_the_same_gradients(name, monkeypatch):
    model = build(CONFIGS[name])
    step = TrainStep(model, "margin", 0.01)
    loss, scores = step(batch())
    expected = gradients(model)
    step._compiled = torch.compile(step.value, backend="aot_eager", fullgraph=True)
    compiled_loss, compiled_scores = step(batch())
    assert_close(compiled_loss, loss)
    assert_close(compiled_scores, scores)
    assert_close(gradients(model), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("fails_in", ["forward", "backward"])
def test_a_failing_compiler_is_a_warning_and_the_step_is_eager(fails_in):
    model = build()
    step = TrainStep(model, "margin", 0.01)
    loss, _ = step(batch())
    expected = gradients(model)

    class Fails(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            raise RuntimeError("no kernel\nfor this")

    def broken(given):
        value, scores = step.value(given)
        if fails_in == "forward":
            raise RuntimeError("no kernel\nfor this")
        return value + Fails.apply(scores).sum(), scores

    step._compiled = broken
    with pytest.warns(UserWarning, match="could not be compiled and runs eagerly: no kernel$"):
        again, _ = step(batch())
    assert_close(again, loss)
    assert_close(gradients(model), expected)
    assert step._compiled is None


def test_wrong_input_is_not_hidden_by_the_fallback():
    step = TrainStep(build(), "margin", 0.01)
    step._compiled = step.value
    images = torch.zeros(2, 1, 8, 8, dtype=torch.uint8)
    with pytest.warns(UserWarning), pytest.raises(ValueError, match=r"the model takes images \(1, 20, 20\)"):
        step(Batch(images, torch.zeros(2, dtype=torch.long)))


def test_only_long_trainings_on_cuda_are_compiled(monkeypatch):
    asked = []
    monkeypatch.setattr(torch, "compile", lambda value, mode: asked.append(mode) or value)

    class OnCuda(torch.nn.Module):
        def parameters(self, recurse=True):
            yield type("Parameter", (), {"device": torch.device("cuda")})()

    TrainStep(build(), "margin", 0.0, steps=WORTH)
    TrainStep(OnCuda(), "margin", 0.0, steps=WORTH - 1)
    assert asked == []
    TrainStep(OnCuda(), "margin", 0.0, steps=WORTH)
    assert asked == ["reduce-overhead"]
    monkeypatch.setenv("CAPSNB_COMPILE", "0")
    TrainStep(OnCuda(), "margin", 0.0, steps=WORTH)
    assert len(asked) == 1
