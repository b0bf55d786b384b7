"""The suite from end to end on tiny shapes, and what it does when a peer is missing, wrong or too slow."""

import json
import sys
from dataclasses import replace

import pytest
import torch

import benchmarks.__main__ as command
from benchmarks import report
from benchmarks.memory import peak_bytes, saved_bytes
from benchmarks.networks import CALLS
from benchmarks.passes import PASSES, flat, input_sets, weight_of
from benchmarks.peers import PEERS, eager, ours, plain
from benchmarks.plot import draw
from benchmarks.report import OUT_OF_TIME, Budget, run
from benchmarks.shapes import Layer

LAYERS = [
    Layer("net", "a", "conv", 6, 8, 6, 2, kernel=3, count=2),
    Layer("net", "b", "linear", 8, 6, 5, b=1.5),
    Layer("other", "c", "linear", 8, 6, 5, max_out=2),
    Layer(CALLS, "d", "linear", 4, 4, 1),
]
PEERS_HERE = ("plain", "bcos_kernels", "eager")


@pytest.fixture(autouse=True)
def short_samples(monkeypatch):
    monkeypatch.setattr("benchmarks.timing.HostClock.sample_s", 1e-4)
    monkeypatch.setattr("benchmarks.timing.ROUNDS", (3, 3))


@pytest.fixture
def small(monkeypatch):
    """The command measures the small layers with peers that need no compiler and no package."""
    monkeypatch.setattr(command, "layers", lambda device, quick: LAYERS)
    monkeypatch.setattr(command, "run", lambda *arguments: run(*arguments, peers=PEERS_HERE))


def test_the_command_writes_what_it_prints_and_draws_it(small, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(sys, "argv", ["benchmarks", "report", "--device", "cpu", "--json", f"{tmp_path}/out.json",
                                      "--plot", f"{tmp_path}/out.png"])  # fmt: skip
    assert command.main() == 0
    printed = capsys.readouterr().out
    results = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert {"device", "commit", "torch", "threads"} <= results["machine"].keys()
    assert results["dtype"] == "float32" and results["device"] == "cpu"
    assert len(results["rows"]) == 3 * 6 + 2
    for row in results["rows"]:
        assert f"{row['layer']}" in printed and row["peers"].keys() == set(PEERS_HERE)
        assert all(entry["ratio_low"] <= entry["ratio"] <= entry["ratio_high"] for entry in row["peers"].values())
        timed = row["unit"] != "MB"
        assert all(entry["rounds"] == (3 if timed else 1) for entry in row["peers"].values())
        assert row["peers"]["plain"]["ratio"] == 1
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
    monkeypatch.setattr(sys, "argv", [*sys.argv[:-1], "/proc/nowhere/out.png"])
    assert command.main() == 1 and "cannot write /proc/nowhere/out.png" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["report", "--dtype", "int8"], "choose from"),
        (["report", "--limit-seconds", "0"], "--limit-seconds must be more than 0, got 0"),
        (["report", "--limit-seconds", "nan"], "--limit-seconds must be more than 0, got nan"),
        (["report", "--plot", "out.txt"], "--plot must end in .png, .svg or .pdf, got 'out.txt'"),
        (["report", "--json", "/"], "/ is a folder"),
        ([], "COMMAND"),
    ],
)
def test_bad_options_are_named(options, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        command.arguments(options)
    assert stopped.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a CUDA device")
def test_a_device_that_is_not_there_is_named(capsys):
    with pytest.raises(SystemExit):
        command.arguments(["report", "--device", "cuda"])
    assert "needs a CUDA device" in capsys.readouterr().err


def test_a_peer_without_numbers_says_why(monkeypatch, tmp_path):
    def missing(layer, weight):
        raise ImportError("No module named 'nowhere'")

    def wrong(layer, weight):
        peer = eager(layer, weight)
        return peer._replace(forward=lambda x: 1.2 * peer.forward(x))

    def broken(layer, weight):
        return eager(layer, weight)._replace(forward=lambda x: x @ x.new_ones(1, 7))

    for peer in (missing, wrong, broken):
        monkeypatch.setitem(PEERS, peer.__name__, peer)
    rows = run(LAYERS[:1], "cpu", torch.float32, 60, ("plain", "missing", "wrong", "broken", "eager"))
    by_name = {row["pass"]: row["peers"] for row in rows}
    for name in ("forward", "train", "saved", "peak"):
        assert by_name[name]["missing"] == {"reason": "ImportError: No module named 'nowhere'"}
        assert by_name[name]["wrong"] == {"reason": "computes something else than the reference"}
        assert by_name[name]["broken"]["reason"].startswith("RuntimeError")
        assert by_name[name]["eager"]["ratio"] > 0
    assert by_name["explanation"]["wrong"]["ratio"] > 0  # that part of it is right
    draw(rows, "", tmp_path / "out.svg")


def test_a_limit_that_is_spent_drops_nothing_silently():
    rows = run(LAYERS, "cpu", torch.float32, 1e-9, PEERS_HERE)
    assert len(rows) == 3 * 6 + 2
    assert all(entry == {"reason": OUT_OF_TIME} for row in rows for entry in row["peers"].values())


def test_time_is_shared_by_price_and_compiling_has_its_part(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(report.time, "monotonic", lambda: clock[0])
    budget = Budget(90, prices=6)
    assert budget.may_compile() and budget.until(1) == pytest.approx(100 + 60 / 6)  # 30 s are kept for compiling
    budget.compiled(30)
    clock[0] = 140.0  # what compiling took beyond 10 s is everybody's loss
    assert not budget.may_compile() and budget.until(2) == pytest.approx(140 + 50 * 2 / 5)
    clock[0] = 191.0
    assert budget.spent() and budget.until(3) == 191


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.label)
@pytest.mark.parametrize("name", PASSES)
def test_peers_compute_the_same(layer, name):
    which = PASSES[name]
    weight = weight_of(layer, "cpu", torch.float64)
    sets = input_sets(layer, "cpu", torch.float64, 2, which.tangents)
    with torch.set_grad_enabled(which.grad):
        mine, theirs = (which.build(peer(layer, weight), sets) for peer in (ours, eager))
        for i in (1, 0, 1):  # in any order, and more than once
            torch.testing.assert_close(flat(mine(i)), flat(theirs(i)), rtol=1e-5, atol=1e-6)
        assert not torch.equal(flat(mine(0)), flat(mine(1)))


@pytest.mark.parametrize("layer", LAYERS[:2], ids=lambda layer: layer.label)
def test_memory_is_counted(layer):
    """A plain layer keeps its input; ours also a norm a pixel and a length a unit."""
    weight = weight_of(layer, "cpu", torch.float64)
    (one,) = input_sets(layer, "cpu", torch.float64, 1, 0)
    peer = plain(layer, weight)
    assert saved_bytes(peer, one.x) == 8 * one.x.numel()
    outputs = one.cotangent.numel()
    expected = one.x.numel() + outputs // layer.outputs + layer.outputs
    assert saved_bytes(ours(layer, weight), one.x) == 8 * expected
    call = PASSES["train"].build(peer, [one])
    call(0)
    least = 8 * (one.x.numel() + weight.numel())  # the gradients
    assert least <= peak_bytes(call, "cpu") <= 4 * (least + 8 * outputs)


def test_the_peak_is_the_highest_sum_of_what_lives():
    def call(i):
        large = torch.ones(1000, dtype=torch.float64)
        total = large.sum()
        del large
        return total + torch.ones(10, dtype=torch.float64)

    assert 8000 <= peak_bytes(call, "cpu") <= 8000 + 4 * 64


@pytest.mark.slow
def test_compiled_peers_are_measured():
    rows = run([replace(layer, count=1) for layer in LAYERS], "cpu", torch.float32, 600, ("plain", "compiled", "eager"))
    assert all("ratio" in entry for row in rows for entry in row["peers"].values())
