"""The published numbers: found by readable keys, and consistent with each other where a paper prints a number twice."""

from itertools import pairwise
from math import log2

import pytest

from capsnb.evidence.published import COLUMNS, Published, find, folder, lookup, read

PUBLISHED = read(folder())


def value(key):
    return lookup(key).value


def test_keys_are_paper_table_quantity_variant():
    for key in PUBLISHED:
        assert key == key.lower().replace(" ", "-")
        assert 3 <= len(key.split("/")) <= 6, key


def test_every_line_of_every_paper_is_an_entry_of_that_paper():
    lines = {path.stem: path.read_text(encoding="utf-8").splitlines() for path in folder().glob("*.csv")}
    assert len(lines) == 7
    assert sum(len(found) - 2 for found in lines.values()) == len(PUBLISHED) == 554
    for name, (first, *_) in lines.items():
        assert {f"# {entry.paper}" for key, entry in PUBLISHED.items() if key.startswith(f"{name}/")} == {first}


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


def test_hinton_table_1_agrees_with_the_text():
    errors = {name: entry.value for name, entry in find("hinton2018/table1/error").items()}
    assert errors.pop("3-iterations") == value("hinton2018/error/smallnorb/capsules") == 1.8 < min(errors.values())
    assert len(errors) == 8 and errors["1-iteration"] == max(errors.values()) == 9.7
    assert all(entry.note.endswith("not run here") for entry in find("hinton2018").values())


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
    with pytest.raises(ValueError, match="keys start with gu2021, hinton2018, lin2018"):
        lookup("???")
    with pytest.raises(ValueError, match="No published number"):
        find("gu2021/table9")


def write(folder, *lines):
    """A paper's file, its lines joined as they are."""
    (folder / "p2020.csv").write_bytes("\n".join(lines).encode("latin-1"))
    return folder


HEAD = ("# P & Q 2020", ",".join(COLUMNS))


def test_a_file_reads_line_by_line(tmp_path):
    lines = ("p2020/t/b,1.50,0.25,%,Table 1,", 'p2020/t/a,8147,,keys,"text, sec. 2","a ""note"""')
    assert read(write(tmp_path, *HEAD, *lines)) == {
        "p2020/t/b": Published(1.5, 0.25, "%", "P & Q 2020", "Table 1"),
        "p2020/t/a": Published(8147, None, "keys", "P & Q 2020", "text, sec. 2", 'a "note"'),
    }
    assert list(read(tmp_path)) == ["p2020/t/b", "p2020/t/a"]


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ((), "p2020.csv holds no numbers"),
        (("P", HEAD[1]), "p2020.csv, line 1: it is not '# ' and the paper"),
        (("# P", "key,value"), "line 2: the columns are not key,value,spread,unit,table,note"),
        ((*HEAD, "p2020/t/a,1"), "line 3: it has 2 columns, not 6"),
        ((*HEAD, "", "p2020/t/a,1,,,,"), "line 3: it has 0 columns, not 6"),
        ((*HEAD, "p2020/t/a,one,,,,"), "line 3: 'one' is not a number"),
        ((*HEAD, "p2020/t/a,1,+-2,,,"), "line 3: '\\+-2' is not a number"),
        ((*HEAD, "q2020/t/a,1,,,,"), "line 3: the key 'q2020/t/a' does not start with p2020/"),
        ((*HEAD, "p2020/t/a,1,,,,", "p2020/t/a,2,,,,"), "line 4: the key 'p2020/t/a' stands there twice"),
        ((*HEAD, 'p2020/t/a,1,,,"Table,'), "line 3: unexpected end of data"),
        ((*HEAD, "p2020/t/a,1,,\xb5m,,"), "line 3: 'utf-8' codec can't decode"),
    ],
)
def test_a_damaged_file_is_one_sentence_with_its_line(tmp_path, lines, sentence):
    with pytest.raises(ValueError, match=sentence):
        read(write(tmp_path, *lines))


def test_a_folder_without_numbers_is_one_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match="There are no published numbers in"):
        read(tmp_path)


def test_numbers_read_well():
    entries = (Published(8_147, None, "keys", "P", "w"), Published(1.5, 0.25, "keys", "P", "w"))
    assert [str(entry) for entry in entries] == ["8,147 keys", "1.5 ± 0.25 keys"]
