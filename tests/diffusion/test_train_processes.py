"""Training on two processes (CPU, gloo) is training on one: the same losses, weights, samples, whatever is killed."""

import os
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from references import tiny_run
from references.tiny_run import launch, log_lines, saved, seen, tiny_config

from bcos_diffusion.pipeline import BcosDiffusionPipeline
from bcos_diffusion.train import train

COMPARED = ("denoising", "effect", "total", "gradient_norm", "learning_rate", "samples", "skipped")
SEVEN = {"batch_size": 7, "steps": 5}  # seven samples do not divide into two processes or into rounds of two


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def torchrun() -> list[str]:
    return [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", f"--master_port={free_port()}"]


def accelerate() -> list[str]:
    options = ["--multi_gpu", "--num_processes=2", "--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no"]
    return [sys.executable, "-m", "accelerate.commands.launch", *options, f"--main_process_port={free_port()}"]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The run of one process that the others are compared to."""
    AcceleratorState._reset_state(reset_partial_state=True)
    out = tmp_path_factory.mktemp("alone")
    train(tiny_config(out, **SEVEN))
    AcceleratorState._reset_state(reset_partial_state=True)
    yield out


def assert_same_run(found: Path, expected: Path, **tolerance: float) -> None:
    """Losses and weights agree up to the order of sums."""
    close: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-6} | tolerance
    ours, theirs = log_lines(found), log_lines(expected)
    assert [line["step"] for line in ours] == [line["step"] for line in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        for name in COMPARED:
            assert mine[name] == pytest.approx(other[name], rel=close["rtol"], abs=close["atol"]), name
    mine, other = saved(found), saved(expected)
    assert mine.keys() == other.keys()
    for name, tensor in other.items():
        # Adam divides by the root of a second moment: where a gradient is nearly nothing, rounding decides its sign.
        torch.testing.assert_close(mine[name], tensor, rtol=1e-3, atol=2e-5, msg=lambda m, name=name: f"{name}: {m}")


def assert_each_sample_once(folder: Path, steps: int, batch: int, before: dict[int, int] | None = None) -> None:
    """before: by first position of a step, how often it was begun in vain."""
    counts = Counter(position for _, own in seen(folder) for position in own)
    assert counts.keys() == set(range(steps * batch))
    repeated = {position for position, count in counts.items() if count > 1}
    allowed = {p for start, times in (before or {}).items() for p in range(start, start + batch) if times}
    assert repeated <= allowed


def test_two_processes_train_as_one(alone: Path, tmp_path: Path) -> None:
    """Started by hand: what torchrun and accelerate launch tell their processes, without waiting for them to start."""
    out, port = tmp_path / "two", free_port()
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    started = []
    for rank in ("0", "1"):
        environment = os.environ | shared | {"RANK": rank, "LOCAL_RANK": rank, "OMP_NUM_THREADS": "1"}
        arguments = [
            sys.executable,
            tiny_run.__file__,
            str(out),
            '{"batch_size": 7, "steps": 5, "micro_batch": 2}',
            "{}",
        ]
        started.append(subprocess.Popen(arguments, env=environment))
    assert [process.wait(timeout=120) for process in started] == [0, 0]
    assert_same_run(out, alone)
    assert_each_sample_once(out, 5, 7)
    assert {len(own) for _, own in seen(out)} == {1, 2}
    assert BcosDiffusionPipeline.from_pretrained(out / "pipeline")


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [torchrun, accelerate])
@pytest.mark.parametrize("changes", [{"shard": True}, {"shard": True, "recompute": True, "micro_batch": 1}])
def test_sharded_weights_train_as_whole_ones(
    launcher: Any, changes: dict[str, Any], alone: Path, tmp_path: Path
) -> None:
    assert launch(launcher(), tmp_path, SEVEN | changes) == 0
    assert_same_run(tmp_path, alone)
    assert_each_sample_once(tmp_path, 5, 7)
    assert [line["images_per_second"] / line["images_per_second_per_process"] for line in log_lines(tmp_path)] == [
        2
    ] * 5
    one, two = (BcosDiffusionPipeline.from_pretrained(folder / "pipeline") for folder in (alone, tmp_path))
    for (name, a), b in zip(one.model.named_parameters(), two.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=2e-5, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.slow
@pytest.mark.parametrize("shard", [False, True])
@pytest.mark.parametrize("death", [
    {"rank": 1, "step": 4, "while": "training"},
    {"rank": None, "step": 4, "while": "training"},
    {"rank": 0, "step": 4, "while": "saving"},
])  # fmt: skip
def test_a_run_that_is_killed_goes_on_to_the_same_bits(death: dict[str, Any], shard: bool, tmp_path: Path) -> None:
    changes = SEVEN | {"shard": shard}
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert launch(torchrun(), whole, changes) == 0
    assert launch(torchrun(), cut, changes, death) != 0
    assert [p.name for p in (cut / "checkpoints").glob("[0-9]*")] == ["000000000014"]
    begun = {start: 1 for start, _ in seen(cut) if start >= 14}
    if death["while"] == "saving":
        assert list((cut / "checkpoints").glob(".bcos-*")), "nothing was half written"
    assert launch(torchrun(), cut, changes) == 0
    assert [p.name for p in (cut / "checkpoints").iterdir()] == ["000000000035"]
    found, expected = saved(cut), saved(whole)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name
    assert_each_sample_once(cut, 5, 7, begun)
    weights = [(folder / "pipeline" / "model.safetensors").read_bytes() for folder in (whole, cut)]
    assert weights[0] == weights[1]


@pytest.mark.slow
@pytest.mark.parametrize("shard", [False, True])
def test_a_run_goes_on_with_another_number_of_processes(shard: bool, alone: Path, tmp_path: Path) -> None:
    """Two processes, then one, then two. The learning rate of a short run falls early, so all run towards step 5."""
    deaths = ({"rank": None, "step": 4, "while": "training"}, {"rank": None, "step": 5, "while": "training"})
    assert launch(torchrun(), tmp_path, SEVEN | {"shard": shard}, deaths[0]) != 0
    assert [p.name for p in (tmp_path / "checkpoints").glob("[0-9]*")] == ["000000000014"]
    assert launch([sys.executable], tmp_path, SEVEN, deaths[1]) != 0
    assert [p.name for p in (tmp_path / "checkpoints").glob("[0-9]*")] == ["000000000028"]
    assert launch(torchrun(), tmp_path, SEVEN | {"shard": shard}) == 0
    assert_same_run(tmp_path, alone)
    assert_each_sample_once(tmp_path, 5, 7, {14: 1, 21: 1, 28: 1})


@pytest.mark.slow
@pytest.mark.parametrize("shard", [False, True])
def test_two_processes_train_in_bf16_as_one(shard: bool, tmp_path: Path) -> None:
    AcceleratorState._reset_state(reset_partial_state=True)
    one, two = tmp_path / "one", tmp_path / "two"
    train(tiny_config(one, precision="bf16", batch_size=8))
    AcceleratorState._reset_state(reset_partial_state=True)
    assert launch(torchrun(), two, {"precision": "bf16", "shard": shard, "batch_size": 8}) == 0
    losses = [[line["total"] for line in log_lines(folder)] for folder in (one, two)]
    assert losses[0] == pytest.approx(losses[1], rel=2e-2)
    assert {str(t.dtype) for name, t in saved(two).items()} == {"torch.float32"}


@pytest.mark.slow
def test_the_average_on_the_cpu_is_the_average(alone: Path, tmp_path: Path) -> None:
    assert launch(torchrun(), tmp_path, SEVEN | {"ema_on_cpu": True, "shard": True}) == 0
    assert_same_run(tmp_path, alone)


@pytest.mark.slow
def test_the_command_line_trains_on_two_processes_and_prints_once(tmp_path: Path) -> None:
    shape = "--model.size 24 --model.patch 4 --model.widths 8 16 --model.heads 2 --model.text-dim 8 --model.time-dim 8"
    attention = "--model.self-attention False False --model.cross-attention False True"
    options = f"train --out run --batch-size 4 --steps 2 --shard {shape} {attention}"
    command = [*torchrun(), "-m", "bcos_diffusion", *options.split()]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("wrote run/pipeline") == 1
    refused = subprocess.run(
        [sys.executable, "-m", "bcos_diffusion", "train", "--out", "new", "--shard"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert refused.returncode == 1 and "shard needs at least two processes" in refused.stderr
    assert refused.stderr.count("\n") == 1 and not (tmp_path / "new").exists()
