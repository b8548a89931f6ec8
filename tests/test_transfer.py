"""Transfer schemes: two domains that share every digit and no pair, what is kept, what starts afresh, what it costs."""

from dataclasses import replace

import pytest
import torch

from capsnb.data import Augment, DataSpec, prepare
from capsnb.data.transforms import Pairs
from capsnb.measure import transfer
from capsnb.nn.models import CapsNetConfig, ConvNetAvgConfig, StridedStem, neuron_twin
from capsnb.plot import points
from capsnb.training import runs
from capsnb.training.recipe import Recipe
from capsnb.training.spec import Spec

MODEL = CapsNetConfig(
    size=14, dim=4, stem=StridedStem(channels=4, kernel=3, types=2, dim=4), hidden=((3, 4), (3, 4)), decoder="none"
)
DATA = DataSpec(crop=20, resize=10, train=200, derive=Pairs(size=14, shift=2, train=48, validation=20, test=20))
SPEC = Spec(model=MODEL, data=DATA, recipe=Recipe(epochs=1, batch=16, augment=Augment()))


# ---------------------------------------------------------------- domains


def test_domains_share_every_digit_and_no_pair():
    a, b = transfer.domains(DATA)
    first, second = set(a.derive.pairs), set(b.derive.pairs)
    assert not first & second and len(first | second) == 45
    for part in (first, second):
        assert {digit for pair in part for digit in pair} == set(range(10))
    assert replace(a, derive=replace(a.derive, pairs=None)) == DATA == replace(b, derive=replace(b.derive, pairs=None))


def test_no_image_of_a_domain_shows_a_pair_of_the_other():
    seen = []
    for domain in transfer.domains(DATA):
        data = prepare(domain)
        labels = torch.cat([batch.labels for split in (data.train, data.test) for batch in split.batches(50)])
        seen.append({tuple(sorted(pair)) for pair in labels.tolist()})
    assert seen[0] and seen[1] and not seen[0] & seen[1]


@pytest.mark.parametrize("data", [DataSpec(), replace(DATA, derive=replace(DATA.derive, pairs=((0, 1),)))])
def test_only_all_overlapping_pairs_can_be_split(data):
    with pytest.raises(ValueError, match="domains are made of overlapping digits"):
        transfer.domains(data)


def test_a_seed_draws_the_split_and_keeps_the_halves():
    halves, seen = transfer.domains(DATA), set()
    for seed in range(4):
        a, b = (transfer.redrawn(half, seed) for half in halves)
        assert len(a.derive.pairs) == 22 and len(set(a.derive.pairs) | set(b.derive.pairs)) == 45
        assert all(first < second for first, second in (*a.derive.pairs, *b.derive.pairs))
        for part in (a, b):
            assert {digit for pair in part.derive.pairs for digit in pair} == set(range(10))
        assert transfer.redrawn(a, 0) == halves.a and transfer.redrawn(transfer.redrawn(a, 3), seed) == a
        seen.add(a.derive.pairs)
    assert len(seen) == 4 and transfer.redrawn(halves.b, 0) == halves.b
    assert transfer.redrawn(DATA, 3) == DATA and transfer.redrawn(DataSpec(), 3) == DataSpec()
    with pytest.raises(ValueError, match=r"1 pairs are no domain"):
        transfer.redrawn(replace(DATA, derive=replace(DATA.derive, pairs=((0, 1),))), 1)


# ---------------------------------------------------------------- layers and schemes


def test_three_layers_as_the_paper_counts_them():
    assert transfer.blocks(MODEL) == (("conv1", "primary", "caps1"), ("caps2",), ("class",))
    assert transfer.blocks(neuron_twin(MODEL)) == (("conv1", "conv2", "linear1"), ("linear2",), ("out",))
    decoded = replace(MODEL, decoder="conditional", decoder_widths=(8,))
    assert transfer.blocks(decoded)[-1] == ("class", "decoder")
    assert transfer.blocks(MODEL, above=1) == (("conv1", "primary", "caps1", "caps2"), ("class",))
    with pytest.raises(ValueError, match="ConvNetAvg has 3 parts: none is left to keep below the last 3"):
        transfer.blocks(ConvNetAvgConfig(), above=3)


def test_schemes_keep_reset_and_train_what_their_names_say():
    halves = transfer.domains(DATA)
    found = transfer.schemes(SPEC, halves)
    assert list(found) == ["source", "base", "continued", "B1B", "B1B+", "B2B", "B2B+", "A1B", "A2B"]
    assert set(points.SCHEMES) == set(found) - {"source"}
    assert found["continued"] == replace(SPEC, data=halves.b, start=found["base"])
    assert found["source"] == replace(SPEC, data=halves.a) and found["base"] == replace(SPEC, data=halves.b)
    lower = ("conv1", "primary", "caps1")
    for name, spec in found.items():
        if name.endswith("+"):
            assert spec == replace(found[name[:-1]], frozen=()), "the same but that nothing is kept still"
        elif name not in ("source", "base", "continued"):
            kept = int(name[1])
            assert spec.start == found["source" if name[0] == "A" else "base"]
            assert spec.data == halves.b and spec.recipe == SPEC.recipe and spec.redraw == 1
            assert spec.frozen == (lower if kept == 1 else (*lower, "caps2"))
            assert spec.reset == (("caps2", "class") if kept == 1 else ("class",))
    again = transfer.schemes(SPEC, halves, fresh=False)["A1B"]
    assert again == replace(found["A1B"], reset=(), redraw=0)
    assert "B1B+" not in transfer.schemes(SPEC, halves, fresh=False), "it would be base, continued"
    longer = replace(SPEC.recipe, epochs=3)
    first = transfer.schemes(SPEC, halves, first=longer)
    assert {name for name, spec in first.items() if spec.recipe == longer} == {"source", "base"}
    for name in set(first) - {"source", "base"}:
        assert first[name] == replace(found[name], start=replace(found[name].start, recipe=longer))


def test_what_becomes_of_each_layer():
    found = {name: transfer.states(spec) for name, spec in transfer.schemes(SPEC, transfer.domains(DATA)).items()}
    kept, anew = {"A": ("A", "kept"), "B": ("B", "kept")}, ("B", "redrawn")
    assert found["source"] == [("A", "trained")] * 3 and found["base"] == [("B", "trained")] * 3
    assert found["continued"] == [("B", "goes on")] * 3
    assert found["B1B"] == [kept["B"], anew, anew] and found["A2B"] == [kept["A"], kept["A"], anew]
    assert found["B1B+"] == [("B", "goes on"), anew, anew]
    with pytest.raises(ValueError, match=r"all pairs are no domain: those have \[22, 23\]"):
        transfer.states(SPEC)


def test_random_layers_stay_as_they_were_drawn(tmp_path, monkeypatch):
    monkeypatch.setenv("CAPSNB_RUNS", str(tmp_path))
    halves = transfer.domains(DATA)
    found, schemes = transfer.random_layers(SPEC, halves), transfer.schemes(SPEC, halves)
    assert list(found) == ["R1B", "R2B"]
    assert all(spec.frozen == schemes[f"B{name[1]}B"].frozen for name, spec in found.items())
    assert transfer.states(found["R1B"]) == [("random", "kept"), ("B", "trained"), ("B", "trained")]
    drawn, ended = found["R2B"].build().state_dict(), runs.get(found["R2B"], progress=False, device="cpu")
    for name, value in ended.model.state_dict().items():
        assert torch.equal(value, drawn[name]) == (not name.startswith("class.")), name


@pytest.mark.parametrize("config", [MODEL, neuron_twin(MODEL)], ids=["capsnet", "cnn"])
def test_kept_layers_stay_and_the_others_learn_from_a_fresh_start(config, tmp_path, monkeypatch):
    monkeypatch.setenv("CAPSNB_RUNS", str(tmp_path))
    spec = replace(SPEC, model=config, recipe=replace(SPEC.recipe, loss="margin" if config is MODEL else "bce"))
    found = transfer.schemes(spec, transfer.domains(DATA))
    source = runs.get(found["source"], progress=False, device="cpu").model.state_dict()
    scheme = found["A2B"]
    started = scheme.build().state_dict()
    assert all(not torch.equal(started[name], found["source"].build().state_dict()[name]) for name in started)
    ended = runs.get(scheme, progress=False, device="cpu").model.state_dict()
    for name, value in ended.items():
        kept = any(name.startswith(f"{part}.") for part in scheme.frozen)
        assert torch.equal(value, source[name]) == kept, name
        if not kept:
            # Adam moves each number by about 1e-3 per step, of which there are 3: it began at the fresh draw
            assert (value - started[name]).abs().max() < 0.01 and not torch.equal(value, started[name])


def test_the_network_trained_twice_goes_on_from_where_it_was(tmp_path, monkeypatch):
    monkeypatch.setenv("CAPSNB_RUNS", str(tmp_path))
    found = transfer.schemes(SPEC, transfer.domains(DATA))
    once = runs.get(found["base"], progress=False, device="cpu").model.state_dict()
    twice = runs.get(found["continued"], progress=False, device="cpu").model.state_dict()
    moved = [(twice[name] - value).abs().max() for name, value in once.items()]
    assert min(moved) > 0 and max(moved) < 0.01  # 3 steps of Adam


def test_a_redraw_is_part_of_a_run_s_name_and_draws_other_numbers():
    other = replace(SPEC, redraw=1)
    assert runs.folder_of(other) != runs.folder_of(SPEC)
    first, same, second = (spec.build().state_dict()["class.weight"] for spec in (SPEC, SPEC, other))
    assert torch.equal(first, same) and not torch.equal(first, second)


# ---------------------------------------------------------------- costs
