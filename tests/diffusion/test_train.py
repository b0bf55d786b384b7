"""The trainer: a run that is cut and resumed is the run that was not, and it leaves logs to read."""

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from numpy.typing import NDArray
from references.tiny_run import TINY, log_lines, saved
from references.tiny_run import tiny_config as config

from bcos_diffusion.model import TextToImage
from bcos_diffusion.networks.unet import UNetConfig
from bcos_diffusion.pipeline import BcosDiffusionPipeline
from bcos_diffusion.text import Tokenizer
from bcos_diffusion.train import TrainConfig, train
from bcos_diffusion.training import trainer
from bcos_diffusion.training.checkpoint import FORMAT
from bcos_diffusion.training.config import learning_rate
from bcos_diffusion.training.ema import start_ema, update_ema
from bcos_diffusion.training.paces import parameter_groups
from bcos_diffusion.training.source import SceneSource
from bcos_kernels.files import read_json

MEASURED = {"images_per_second", "images_per_second_per_process", "step_seconds", "peak_memory_gb"}


@pytest.fixture(autouse=True)
def fresh_accelerator() -> Iterator[None]:
    """Mixed precision is chosen once per process; each test chooses anew."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def cut_at(step: int):  # type: ignore[no-untyped-def]
    def on_step(done: int, values: dict[str, float]) -> None:
        if done == step:
            raise KeyboardInterrupt

    return on_step


def first_checkpoint(folder: Path) -> Path:
    (found,) = (folder / "checkpoints").iterdir()
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole")
    train(config(out))
    return out


def test_a_cut_and_resumed_run_is_bit_identical(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(config(tmp_path), on_step=cut_at(3))
    assert first_checkpoint(tmp_path).name == "000000000008"  # samples: two steps of four
    assert [line["step"] for line in log_lines(tmp_path)] == [1, 2, 3]
    train(config(tmp_path))
    assert first_checkpoint(tmp_path).name == "000000000016"
    expected, found = saved(whole), saved(tmp_path)
    assert found.keys() == expected.keys()
    assert {name.split("/")[0] for name in found} == {"weights", "ema", "optimiser"}
    assert {name.split("/")[1] for name in found if name.startswith("optimiser")} == {"step", "exp_avg", "exp_avg_sq"}
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name
    for name in ("config.json", "model.safetensors"):
        assert (whole / "pipeline" / name).read_bytes() == (tmp_path / "pipeline" / name).read_bytes()

    def values(folder: Path) -> list[dict[str, float]]:
        return [{k: v for k, v in line.items() if k not in MEASURED} for line in log_lines(folder)]

    assert values(tmp_path) == values(whole)


def test_training_moves_weights_and_a_finished_run_stays(whole: Path) -> None:
    before = saved(whole)
    names = [name.removeprefix("weights/") for name in before if name.startswith("weights/")]
    moved = [name for name in names if not torch.equal(before[f"weights/{name}"], before[f"ema/{name}"])]
    assert len(moved) > len(names) / 2
    written = {path: path.stat().st_mtime_ns for path in first_checkpoint(whole).iterdir()}
    train(config(whole))
    assert {path: path.stat().st_mtime_ns for path in first_checkpoint(whole).iterdir()} == written


def test_a_run_leaves_logs_samples_and_a_pipeline(whole: Path) -> None:
    log = log_lines(whole)
    assert [line["step"] for line in log] == [1, 2, 3, 4]
    for number, line in enumerate(log):
        assert {"total", "denoising", "effect", "gradient_norm", "learning_rate", "samples"} | MEASURED < line.keys()
        assert line["learning_rate"] == pytest.approx(learning_rate(config(whole), number))
        assert (line["samples"], line["skipped"]) == (4 * (number + 1), 0)
        assert line["images_per_second"] == pytest.approx(4 / line["step_seconds"])
        assert 0.05 < line["peak_memory_gb"] < 30
    events = list((whole / "tensorboard").iterdir())
    assert events and max(p.stat().st_size for p in events) > 1000
    assert [p.name for p in (whole / "samples").iterdir()] == ["0000004.png"]
    pipeline = BcosDiffusionPipeline.from_pretrained(whole / "pipeline")
    ema = saved(whole)
    for name, parameter in pipeline.model.named_parameters():
        assert torch.equal(parameter, ema[f"ema/{name}"])


@pytest.mark.parametrize("changes", [{"micro_batch": 1}, {"micro_batch": 3}])
def test_rounds_of_a_step_add_up_to_the_whole_batch(changes: dict[str, int], whole: Path, tmp_path: Path) -> None:
    train(config(tmp_path, **changes))
    for ours, theirs in zip(log_lines(tmp_path), log_lines(whole), strict=True):
        for name in ("denoising", "effect", "gradient_norm"):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-4), name
    for name, tensor in saved(whole).items():
        torch.testing.assert_close(saved(tmp_path)[name], tensor, rtol=1e-3, atol=2e-5)


def test_recomputing_activations_changes_no_bit(whole: Path, tmp_path: Path) -> None:
    train(config(tmp_path, recompute=True))
    found = saved(tmp_path)
    for name, tensor in saved(whole).items():
        assert torch.equal(found[name], tensor), name


def test_a_run_goes_on_with_another_batch_size(tmp_path: Path) -> None:
    """Eight samples are seen in two steps of four; of twenty-four, sixteen are left: three steps of six or less."""
    with pytest.raises(KeyboardInterrupt):
        train(config(tmp_path), on_step=cut_at(3))
    train(config(tmp_path, batch_size=6))
    assert [line["step"] for line in log_lines(tmp_path)] == [1, 2, 3, 4, 5]
    assert [line["samples"] for line in log_lines(tmp_path)] == [4, 8, 14, 20, 24]


@pytest.mark.parametrize("damage", ["cut", "foreign", "missing"])
def test_a_damaged_checkpoint_is_named(damage: str, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole / "checkpoints", tmp_path / "checkpoints")
    path = first_checkpoint(tmp_path) / "tensors-00000.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-50] if damage == "cut" else b"not tensors at all")
    if damage == "missing":
        path.unlink()
    with pytest.raises(ValueError, match=r"tensors-00000\.safetensors is not a readable") as raised:
        train(config(tmp_path))
    assert "\n" not in str(raised.value)
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoints"]


@pytest.mark.parametrize("content", ["{", "[]", '{"format": "another/9"}', f'{{"format": "{FORMAT}"}}'])
def test_a_damaged_index_is_named(content: str, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole / "checkpoints", tmp_path / "checkpoints")
    (first_checkpoint(tmp_path) / "index.json").write_text(content)
    with pytest.raises(ValueError, match=r"index\.json is not"):
        train(config(tmp_path))


def test_a_checkpoint_of_another_model_or_run_is_refused(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole / "checkpoints", tmp_path / "checkpoints")
    other = UNetConfig(**(TINY.to_dict() | {"text_dim": 16}))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="belongs to another model"):
        train(TrainConfig(out=tmp_path, model=other, steps=5, batch_size=2, seed=1))
    with pytest.raises(ValueError, match="is of a run with seed 1, not 2"):
        train(config(tmp_path, seed=2))
    with pytest.raises(ValueError, match="is of a run with images of an epoch 1000000, not 5;"):
        train(config(tmp_path), data=Colours())  # type: ignore[arg-type]


def test_a_checkpoint_of_an_earlier_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.safetensors").write_bytes(b"whatever")
    with pytest.raises(ValueError, match=r"checkpoint\.safetensors is of an earlier version"):
        train(config(tmp_path))


def test_a_step_without_a_finite_gradient_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second step's loss is made infinite: its weights, average and moments are those of the first."""
    prepared = trainer.portions

    def spoiled(*arguments: object) -> Iterator[object]:
        for round_, portion in prepared(*arguments):  # type: ignore[arg-type]
            if round_.step.start == 4:
                portion.weights.fill_(float("inf"))
            yield round_, portion

    monkeypatch.setattr(trainer, "portions", spoiled)
    train(config(tmp_path / "spoiled", steps=2, save_every=1, cooldown=0.0))
    monkeypatch.undo()
    AcceleratorState._reset_state(reset_partial_state=True)
    train(config(tmp_path / "short", steps=1, save_every=1, cooldown=0.0))
    assert [line["skipped"] for line in log_lines(tmp_path / "spoiled")] == [0, 1]
    found = saved(tmp_path / "spoiled")
    for name, tensor in saved(tmp_path / "short").items():
        assert torch.equal(found[name], tensor), name
    progress = read_json(first_checkpoint(tmp_path / "spoiled") / "index.json")["progress"]
    assert progress == {"step": 2, "samples": 8, "skipped": 1}


def test_a_run_whose_gradients_stay_infinite_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "MOST_SKIPPED", 3)
    with pytest.raises(ValueError, match="not been finite for 3 steps"):
        train(config(tmp_path, learning_rate=float("nan"), steps=10))


def test_mixed_precision_keeps_weights_in_fp32(tmp_path: Path) -> None:
    train(config(tmp_path, steps=1, precision="bf16"))
    (line,) = log_lines(tmp_path)
    assert all(torch.isfinite(torch.tensor(value)) for value in line.values())
    assert {t.dtype for t in saved(tmp_path).values()} == {torch.float32}


def test_fp16_needs_a_device(tmp_path: Path) -> None:
    if torch.accelerator.is_available():
        pytest.skip("there is one")
    with pytest.raises(ValueError, match="fp16 needs a device"):
        train(config(tmp_path, precision="fp16"))


def test_the_average_may_live_on_the_cpu(whole: Path, tmp_path: Path) -> None:
    train(config(tmp_path, ema_on_cpu=True))
    found = saved(tmp_path)
    assert all(torch.equal(found[name], tensor) for name, tensor in saved(whole).items())


class Colours:
    """Images of one colour by position, 24 pixels wide, that notes what it is asked for."""

    size = 24

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __len__(self) -> int:
        return 5

    def batch(self, positions: list[int]) -> tuple[NDArray[np.uint8], list[str]]:
        self.asked += positions
        names = ("red", "green", "blue", "yellow", "pink")
        images = np.stack([np.full((24, 24, 3), 50 * (p % 5), np.uint8) for p in positions])
        return images, [f"a {names[p % 5]} cat" for p in positions]


def test_any_source_can_be_trained_on(tmp_path: Path) -> None:
    data = Colours()
    train(config(tmp_path), data=data)  # type: ignore[arg-type]
    watched = range(5)  # whose captions the sheet of samples is drawn from
    assert sorted(data.asked) == sorted([*range(16), *watched])  # positions go on past the five of an epoch


def test_images_of_another_size_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="images of 32 pixels, the model reads 24"):
        train(config(tmp_path), data=SceneSource(32, seed=0))
    assert not list(tmp_path.iterdir())


def test_data_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="data must be 'scenes' or a folder of shards; nowhere"):
        train(config(tmp_path, data="nowhere"))


def test_learning_rate_rises_stays_and_falls(tmp_path: Path) -> None:
    shape = config(tmp_path, steps=10, warmup=4, cooldown=0.2, learning_rate=1.0)
    assert [learning_rate(shape, step) for step in range(10)] == [0.25, 0.5, 0.75, 1, 1, 1, 1, 1, 1, 0.5]


def test_every_parameter_is_trained_once_at_its_pace() -> None:
    model = TextToImage(UNetConfig(size=8, widths=(8, 16, 16), heads=2, text_dim=8, time_dim=8), Tokenizer(["cat"]))
    names = {parameter: name for name, parameter in model.named_parameters()}
    pace = {names[p]: group["pace"] for group in parameter_groups(model) for p in group["params"]}
    assert pace.keys() == set(names.values())
    assert sum(len(group["params"]) for group in parameter_groups(model)) == len(names)
    assert {name for name, value in pace.items() if value == 20} == {"text.value_table.weight"}
    faster = {name for name, value in pace.items() if value == 5}
    assert len(faster) == 12 and all(name.endswith(("tokens.place", "tokens.position")) for name in faster)
    steering = {name for name, value in pace.items() if value == 3}
    assert {name.split(".")[0] for name in steering} == {"text", "unet"}
    assert sum("tokens.attend.query" in name or "tokens.attend.key" in name for name in steering) == 12
    assert {pace[name] for name in names.values() if "conv" in name or "attend.value" in name} == {1}
    assert set(pace.values()) == {1, 3, 5, 20}


def test_ema_follows_its_definition() -> None:
    layer = torch.nn.Linear(2, 1, bias=False)
    torch.nn.init.zeros_(layer.weight)
    ema = start_ema(layer)
    expected = torch.zeros(1, 2)
    for step in range(200):
        with torch.no_grad():
            layer.weight.fill_(step + 1.0)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * (step + 1.0)
        update_ema(ema, layer, 0.9, step)
    torch.testing.assert_close(ema["weight"], expected)


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"batch_size": 0},
        {"word_dropout": 1.0},
        {"caption_dropout": -0.1},
        {"micro_batch": 0},
        {"workers": 0},
        {"save_every": 0},
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        config(tmp_path, **wrong)


def test_a_run_starts_from_the_weights_of_a_pipeline(whole: Path, tmp_path: Path) -> None:
    begun = trainer.Run(config(tmp_path, start_from=str(whole / "pipeline"), seed=8), None)
    held = BcosDiffusionPipeline.from_pretrained(whole / "pipeline").model.state_dict()
    assert all(torch.equal(value, held[name]) for name, value in begun.model.state_dict().items())
    assert all(torch.equal(average, held[name]) for name, average in begun.ema.items())


def test_a_start_of_another_shape_is_refused(whole: Path, tmp_path: Path) -> None:
    wider = dataclasses.replace(TINY, time_dim=2 * TINY.time_dim)
    with pytest.raises(ValueError, match="another shape"):
        train(dataclasses.replace(config(tmp_path, start_from=str(whole / "pipeline")), model=wider))


def test_a_run_that_goes_on_does_not_start_again(whole: Path, tmp_path: Path) -> None:
    settings = {"start_from": str(whole / "pipeline"), "save_every": 1}
    with pytest.raises(KeyboardInterrupt):
        train(config(tmp_path, **settings), on_step=cut_at(2))
    resumed = trainer.Run(config(tmp_path, **settings), None)
    held = BcosDiffusionPipeline.from_pretrained(whole / "pipeline").model.state_dict()
    assert resumed.progress.step > 0
    assert any(not torch.equal(value, held[name]) for name, value in resumed.model.state_dict().items())
