"""Statistics and tables from numbers that are known."""

import json
import math

import pytest

from benchmarks.summary import (
    against_plain,
    by_network,
    by_pass,
    geometric_mean,
    peers_of,
    quantile,
    ratio,
    reasons,
    table,
)


def row(network, layer, count, name, **values):
    """A row in which a peer took a time, or has a reason."""
    peers = {}
    for peer, value in values.items():
        if isinstance(value, str):
            peers[peer] = {"reason": value}
        else:
            share = value / values["plain"]
            peers[peer] = {"value": value, "ratio": share, "ratio_low": share, "ratio_high": share}
    return {"network": network, "layer": layer, "count": count, "pass": name, "unit": "ms", "peers": peers}


ROWS = [
    row("net", "a", 3, "forward", plain=1.0, bcos_kernels=2.0, bcos=8.0),
    row("net", "b", 1, "forward", plain=10.0, bcos_kernels=5.0, bcos="not installed"),
    row("net", "a", 3, "train", plain=4.0, bcos_kernels=4.0, bcos=6.0),
    row("net", "b", 1, "train", plain="failed", bcos_kernels="failed", bcos="failed"),
    row("small", "c", 1, "forward", plain=1.0, bcos_kernels=27.0, bcos=27.0),
]


def test_geometric_mean():
    assert geometric_mean([2, 0.5]) == pytest.approx(1)
    assert geometric_mean([2, 4, 8]) == pytest.approx(4)
    with pytest.raises(ValueError, match="no values"):
        geometric_mean([])


def test_quantiles_are_interpolated():
    values = [4.0, 0.0, 3.0, 1.0, 2.0]
    assert [quantile(values, share) for share in (0, 0.1, 0.5, 1)] == pytest.approx([0, 0.4, 2, 4])
    assert quantile([7.0], 0.9) == 7


def test_ratios_are_taken_within_a_round():
    """The machine is ten times slower in one round: all see it, and no ratio does."""
    found = against_plain({"plain": [1.0, 10.0, 1.0], "bcos_kernels": [2.0, 20.0, 2.0]}, scale=1e3)["bcos_kernels"]
    assert found["value"] == 2000 and found["rounds"] == 3 and found["high"] > 10000
    assert found["ratio"] == found["ratio_low"] == found["ratio_high"] == 2
    assert "ratio" not in against_plain({"bcos": [1.0]})["bcos"]


def test_a_plain_layer_that_takes_nothing_gives_no_ratio():
    entry = against_plain({"plain": [0.0], "bcos": [1.0]})
    assert math.isnan(entry["bcos"]["ratio"]) and ratio({"peers": entry}, "bcos") is None


def test_the_table_has_a_line_a_shape_and_pass():
    heads, cells = table(ROWS)
    assert heads == ["network", "layer", "×", "pass", "plain", "bcos_kernels", "bcos", "bcos_kernels p10–p90"]
    assert cells[0] == ["net", "a", "3", "forward", "1 ms", "2.00", "8.00", "2.00–2.00"]
    assert cells[1][4:] == ["10 ms", "0.50", "-", "0.50–0.50"]
    assert cells[3][4:] == ["-", "-", "-", "-"]


def test_a_table_is_the_same_from_a_file():
    from_file = json.loads(json.dumps(ROWS, sort_keys=True))
    assert table(from_file) == table(ROWS) and by_pass(from_file) == by_pass(ROWS)
    assert peers_of([row("n", "l", 1, "p", zebra=1.0, plain=1.0, eager=1.0, ant=1.0)]) == ["eager", "ant", "zebra"]


def test_passes_are_summed_up_by_what_was_measured():
    heads, cells = by_pass(ROWS)
    line = dict(zip(heads, cells[0], strict=True))
    assert line == {
        "pass": "forward", "shapes": "3", "bcos_kernels": "3.00", "bcos": "14.70 (of 2)", "ours vs bcos": "2.00×",
        "our worst shape": "small c (27.00)",
    }  # fmt: skip
    assert cells[1][:4] == ["train", "1", "1.00", "1.50"]


def test_a_network_is_summed_up_by_how_often_it_has_a_shape():
    heads, cells = by_network(ROWS)
    assert heads == ["network", "pass", "plain", "bcos_kernels", "bcos"]
    assert cells == [
        ["net", "forward", "13 ms", "0.85", "8.00 (1 of 2 shapes)"],
        ["net", "train", "12 ms", "1.00 (1 of 2 shapes)", "1.50 (1 of 2 shapes)"],
    ]


def test_every_reason_is_named_once():
    assert reasons(ROWS) == [
        "- bcos: not installed (1: net b, forward)",
        "- plain: failed (1: net b, train)",
        "- bcos_kernels: failed (1: net b, train)",
        "- bcos: failed (1: net b, train)",
    ]
