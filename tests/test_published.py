"""The published numbers: found by readable keys, and consistent with each other where a paper prints a number twice."""

from itertools import pairwise
from math import log2

import pytest

from capsnb.evidence import published
from capsnb.evidence.published import PUBLISHED, find, lookup
from capsnb.evidence.published.entry import column, grid


def value(key):
    return lookup(key).value


def test_keys_are_paper_table_quantity_variant():
    for key in PUBLISHED:
        assert key == key.lower().replace(" ", "-")
        assert 3 <= len(key.split("/")) <= 6, key


def test_no_paper_overwrites_an_entry_of_another():
    modules = [
        published.sabour2017,
        published.tawalbeh2024,
        published.lin2018,
        published.renzulli2022,
        published.mitterreiter2023,
        published.gu2021,
    ]
    assert sum(len(module.ENTRIES) for module in modules) == len(PUBLISHED)
    for module in modules:
        assert {entry.paper for entry in module.ENTRIES.values()} == {module.PAPER}


def test_every_entry_says_where_it_stands():
    assert all(entry.where.startswith(("Table", "table", "text", "computed")) for entry in PUBLISHED.values())


def test_percentages_are_percentages():
    percentages = {key: entry for key, entry in PUBLISHED.items() if entry.unit.startswith("%")}
    assert len(percentages) > 200
    for key, entry in percentages.items():
        assert 0 <= entry.value <= 100, key
        assert entry.spread is None or 0 <= entry.spread < 25, key


def test_sabour_table_1():
    assert {name: entry.value for name, entry in find("sabour2017/table1/mnist").items()} == {
        "baseline": 0.39,
        "1-iteration": 0.34,
        "1-iteration-reconstruction": 0.29,
        "3-iterations": 0.35,
        "3-iterations-reconstruction": 0.25,
    }
    assert str(lookup("sabour2017/table1/mnist/3-iterations-reconstruction")) == "0.25 ± 0.005 % error"
    assert "sabour2017/table1/multimnist/1-iteration" not in PUBLISHED  # not printed


def test_mitterreiter_dys_is_dyr_times_the_live_next_capsules():
    layers = ["layer-1", "layer-2", "layer-3", "layer-4", "output"]
    for layer, following in pairwise(layers):
        alive = value(f"mitterreiter2023/table1/alive/{following}")
        product = value(f"mitterreiter2023/table1/dyr/{layer}") * alive
        assert value(f"mitterreiter2023/table1/dys/{layer}") == pytest.approx(product, abs=0.005 * alive + 0.01)


@pytest.mark.parametrize(("rate", "total"), [("cnm", "cns"), ("car", "cas"), ("cdr", "cds")])
def test_mitterreiter_sums_are_rates_times_capsules(rate, total):
    for layer, capsules in enumerate((16, 16, 16, 16, 10), 1):
        product = value(f"mitterreiter2023/table2/{rate}/layer-{layer}") * capsules
        printed = value(f"mitterreiter2023/table2/{total}/layer-{layer}")
        assert printed == pytest.approx(product, abs=0.0051 * capsules)


def test_mitterreiter_dead_and_alive_add_up():
    for layer in (1, 2, 3, 4):
        alive = value(f"mitterreiter2023/table1/alive/layer-{layer}")
        assert alive + value(f"mitterreiter2023/table2/cds/layer-{layer}") == pytest.approx(16)


def test_renzulli_keys_add_up_to_the_total_in_the_text():
    counts = {name: entry.value for name, entry in find("renzulli2022/table3/keys").items()}
    assert counts.pop("total") == sum(counts.values()) == 8147


def test_renzulli_entropy_is_below_its_bound():
    for model in ("capsnet-q", "rem"):
        bounds = [log2(entry.value) for entry in find(f"renzulli2022/table5/keys/{model}").values()]
        assert value(f"renzulli2022/table5/entropy/{model}") < sum(bounds) / len(bounds)


def test_gu_repeats_its_models_between_tables():
    assert value("gu2021/table1/affnist/convnet-avg") == value("gu2021/table3/affnist/convnet-avg-k9") == 94.11
    assert value("gu2021/table1/affnist/capsnet-nor") == 81.81
    assert len(find("gu2021/table3/affnist")) == 13  # two ConvNet-FC cells are empty
    assert value("gu2021/parameters/convnet-avg-k9") == 5_332_234


def test_gu_printed_parameters_agree_with_the_computed_ones_within_three_percent():
    for name, computed in find("gu2021/parameters").items():
        millions = computed.value / 1e6 if computed.unit == "parameters" else computed.value
        printed = PUBLISHED.get(f"gu2021/table3/parameters/{name}")
        assert printed is None or printed.value == pytest.approx(millions, rel=0.032)


def test_tawalbeh_overall_interval_spans_the_classes():
    for name in ("dr/mnist", "dr/svhn", "em/mnist", "em/svhn"):
        low, high = (find(f"tawalbeh2024/table2/{name}/{side}") for side in ("low", "high"))
        classes = [f"class-{digit}" for digit in range(10)]
        assert low["all-classes"].value == min(low[row].value for row in classes)
        assert high["all-classes"].value == max(high[row].value for row in classes)


def test_tawalbeh_steps_divide_the_intervals_into_eleven():
    for images in ("mnist", "svhn"):
        for label, step in find(f"tawalbeh2024/step/{images}").items():
            low, high = (value(f"tawalbeh2024/table2/dr/{images}/{side}/{label}") for side in ("low", "high"))
            assert step.value == pytest.approx((high - low) / 11, abs=0.003)


def test_tawalbeh_overlap_falls_with_the_threshold():
    for images in ("mnist", "svhn", "celeba", "cifar10"):
        scores = [entry.value for entry in find(f"tawalbeh2024/table4/{images}").values()]
        assert all(a > b > c for a, b, c in zip(scores[::3], scores[1::3], scores[2::3], strict=True))


def test_an_unknown_key_names_the_nearest():
    with pytest.raises(
        ValueError, match=r"'gu2021/table1/afnist/capsnet': the nearest are gu2021/table1/affnist/capsnet"
    ):
        lookup("gu2021/table1/afnist/capsnet")
    with pytest.raises(ValueError, match="keys start with gu2021, lin2018"):
        lookup("???")
    with pytest.raises(ValueError, match="No published number"):
        find("gu2021/table9")


def test_a_table_reads_row_by_row():
    entries = grid("P", "Table 1", "p/t", {"a": "%", "b": ""}, {"x": ((1.0, 0.5), None), "y": (2.0, 3.0)}, {"b/y": "n"})
    assert {key: (entry.value, entry.spread, entry.unit, entry.note) for key, entry in entries.items()} == {
        "p/t/a/x": (1.0, 0.5, "%", ""),
        "p/t/a/y": (2.0, None, "%", ""),
        "p/t/b/y": (3.0, None, "", "n"),
    }
    with pytest.raises(ValueError):
        grid("P", "Table 1", "p/t", {"a": "%"}, {"x": (1.0, 2.0)})
    with pytest.raises(ValueError, match="name no cell"):
        grid("P", "Table 1", "p/t", {"a": "%"}, {"x": (1.0,)}, {"c": "remark"})


def test_numbers_read_well():
    assert [str(entry) for entry in column("P", "w", "p", "keys", {"a": 8_147, "b": (1.5, 0.25)}).values()] == [
        "8,147 keys",
        "1.5 ± 0.25 keys",
    ]
