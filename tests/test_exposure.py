"""What each parent gets of coupling and gradient: by hand, of a parent cut off, by a plain backward."""

from dataclasses import replace

import pytest
import torch

from capsnb.data import ImageSet, Split
from capsnb.measure import exposure
from capsnb.measure.protocol import find
from capsnb.nn import losses, taps
from capsnb.nn.models import CapsNetConfig, NeuronNetConfig, StridedStem
from capsnb.nn.routing import Dynamic

SMALL = CapsNetConfig(
    size=11, classes=4, dim=3, stem=StridedStem(channels=3, kernel=3, types=2, dim=3), hidden=((3, 2),), decoder="none",
    routing=Dynamic(iterations=1),
)  # fmt: skip


def build(config=SMALL):
    torch.manual_seed(0)
    return config.build()


def noise(count=12):
    generator = torch.Generator().manual_seed(3)
    images = torch.randint(0, 256, (count, 1, 11, 11), dtype=torch.uint8, generator=generator)
    split = Split(images, torch.arange(count) % 4)
    return ImageSet("noise", "random numbers", ("a", "b", "c", "d"), split, split, split)


def test_shares_by_hand():
    norms = torch.tensor([[3.0, 0.0, 0.0], [4.0, 0.0, 5.0]])  # two children, three parents: 5, 0 and 5 in all
    assert exposure.share_of_norms(norms).tolist() == [0.5, 0.0, 0.5]
    assert exposure.share_of_norms(torch.zeros(2, 4)).tolist() == [0.25] * 4


def test_a_parent_that_the_classes_do_not_hear_starves_of_gradient_though_its_coupling_is_even():
    model = build()
    with torch.no_grad():
        model.get_submodule("class").weight[1] = 0  # nothing leads from parent 1 to the loss
    found = find("exposure")(model, noise())
    assert found["certainty"] == pytest.approx(0, abs=1e-6) and found["coupling"] == [0.333333] * 3
    assert found["least coupling"] == pytest.approx(1) and found["least gradient"] == 0
    assert found["gradient"][1] == 0 and sum(found["gradient"]) == pytest.approx(1, abs=2e-6)
    assert found["starved"] == 1
    assert find("exposure")(model, noise(), starved=1.6)["starved"] >= 2, "one of the other two has at most half"


def test_shares_by_a_plain_backward_pass():
    model, data = build(replace(SMALL, routing=Dynamic(iterations=4, temperature=0.1))), noise(8)
    images, labels = data.train.images, data.train.labels
    with taps.record(model, "caps1.coupling") as seen:
        losses.margin(model(images).scores, labels).mean().backward()
    norms = model.caps1.weight.grad.pow(2).sum((0, 1, 3)).sqrt()
    before = {name: each.grad.clone() for name, each in model.named_parameters()}
    found = find("exposure")(model, data, images=8)
    assert found["gradient"] == pytest.approx((norms / norms.sum()).tolist(), abs=1e-5)
    assert found["coupling"] == pytest.approx(seen["caps1.coupling"].mean((0, 1)).tolist(), abs=1e-5)
    assert found["least gradient"] == pytest.approx(3 * min(found["gradient"]), abs=1e-5)
    assert all(torch.equal(each.grad, before[name]) for name, each in model.named_parameters()), "left as it was"


def test_another_layer_and_models_without_it():
    found = find("exposure")(build(), noise(), layer="class")
    assert len(found["coupling"]) == len(found["gradient"]) == 4
    with pytest.raises(ValueError, match=r"has no caps7\.coupling; its couplings are: caps1\.coupling, class\."):
        find("exposure")(build(), noise(), layer="caps7")
    with pytest.raises(ValueError, match="has no parse tree"):
        plain = NeuronNetConfig(size=11, classes=4, width=2, primary=2, kernel=3, hidden=(3,))
        find("exposure")(plain.build(), noise())
