"""The trainer: a run that is cut and resumed is the run that was not, and it leaves logs to read."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from torch import Tensor

from bcos_diffusion.model import TextToImage
from bcos_diffusion.pipeline import BcosDiffusionPipeline
from bcos_diffusion.scenes import Scenes
from bcos_diffusion.text import Tokenizer
from bcos_diffusion.train import (
    TrainConfig,
    flip_caption,
    learning_rate,
    load_batch,
    parameter_groups,
    train,
    update_ema,
)
from bcos_diffusion.unet import UNetConfig
from bcos_kernels.files import read_tensors

TINY = UNetConfig(
    size=24, widths=(8, 16), heads=2, text_dim=8, time_dim=8,
    self_attention=(False, True), cross_attention=(True, True),
)  # fmt: skip


@pytest.fixture(autouse=True)
def fresh_accelerator() -> Iterator[None]:
    """Mixed precision is chosen once per process; each test chooses anew."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def config(out: Path, **changes: object) -> TrainConfig:
    values: dict[str, object] = {
        "steps": 4, "batch_size": 4, "warmup": 3, "cooldown": 0.5, "effect_weight": 1.0,
        "log_every": 1, "save_every": 2, "sample_every": 100, "seed": 1,
    }  # fmt: skip
    return TrainConfig(out=out, model=TINY, **(values | changes))  # type: ignore[arg-type]


def cut_at(step: int):  # type: ignore[no-untyped-def]
    def on_step(done: int, values: dict[str, float]) -> None:
        if done == step:
            raise KeyboardInterrupt

    return on_step


def lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole")
    train(config(out))
    return out


def test_a_cut_and_resumed_run_is_bit_identical(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(config(tmp_path), on_step=cut_at(3))
    assert int(read_tensors(tmp_path / "checkpoint.safetensors")["step"]) == 2
    assert [line["step"] for line in lines(tmp_path)] == [1, 2, 3]
    train(config(tmp_path))
    expected, found = (read_tensors(folder / "checkpoint.safetensors") for folder in (whole, tmp_path))
    assert found.keys() == expected.keys()
    assert {name.split("/")[0] for name in found} == {"step", "weights", "ema", "optimiser"}
    assert {name.split("/")[1] for name in found if name.startswith("optimiser")} == {"step", "exp_avg", "exp_avg_sq"}
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name
    for name in ("config.json", "model.safetensors"):
        assert (whole / "pipeline" / name).read_bytes() == (tmp_path / "pipeline" / name).read_bytes()

    def values(folder: Path) -> list[dict[str, float]]:
        return [{k: v for k, v in line.items() if k != "images_per_second"} for line in lines(folder)]

    assert values(tmp_path) == values(whole)


def test_training_moves_weights_and_a_finished_run_stays(whole: Path) -> None:
    saved = read_tensors(whole / "checkpoint.safetensors")
    names = [name.removeprefix("weights/") for name in saved if name.startswith("weights/")]
    moved = [name for name in names if not torch.equal(saved[f"weights/{name}"], saved[f"ema/{name}"])]
    assert len(moved) > len(names) / 2
    before = (whole / "checkpoint.safetensors").read_bytes()
    train(config(whole))
    assert (whole / "checkpoint.safetensors").read_bytes() == before


def test_a_run_leaves_logs_samples_and_a_pipeline(whole: Path) -> None:
    log = lines(whole)
    assert [line["step"] for line in log] == [1, 2, 3, 4]
    for number, line in enumerate(log):
        assert {"total", "denoising", "effect", "gradient_norm", "images_per_second", "learning_rate"} < line.keys()
        assert line["learning_rate"] == pytest.approx(learning_rate(config(whole), number))
    events = list((whole / "tensorboard").iterdir())
    assert events and max(p.stat().st_size for p in events) > 1000
    assert [p.name for p in (whole / "samples").iterdir()] == ["0000004.png"]
    pipeline = BcosDiffusionPipeline.from_pretrained(whole / "pipeline")
    ema = read_tensors(whole / "checkpoint.safetensors")
    for name, parameter in pipeline.model.named_parameters():
        assert torch.equal(parameter, ema[f"ema/{name}"])


@pytest.mark.parametrize("damage", ["cut", "foreign"])
def test_a_damaged_checkpoint_is_named(damage: str, whole: Path, tmp_path: Path) -> None:
    content = (whole / "checkpoint.safetensors").read_bytes()
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(content[:-50] if damage == "cut" else b"not tensors at all")
    with pytest.raises(ValueError, match=r"checkpoint\.safetensors is not a readable") as raised:
        train(config(tmp_path))
    assert "\n" not in str(raised.value)
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.safetensors"]


def test_a_checkpoint_of_another_model_is_refused(whole: Path, tmp_path: Path) -> None:
    (tmp_path / "checkpoint.safetensors").write_bytes((whole / "checkpoint.safetensors").read_bytes())
    other = UNetConfig(**(TINY.to_dict() | {"text_dim": 16}))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="belongs to another model"):
        train(TrainConfig(out=tmp_path, model=other, steps=5, batch_size=2))


def test_mixed_precision_keeps_weights_in_fp32(tmp_path: Path) -> None:
    train(config(tmp_path, steps=1, precision="bf16"))
    (line,) = lines(tmp_path)
    assert all(torch.isfinite(torch.tensor(value)) for value in line.values())
    saved = read_tensors(tmp_path / "checkpoint.safetensors")
    assert {t.dtype for name, t in saved.items() if name != "step"} == {torch.float32}


def test_half_of_the_images_are_mirrored_with_their_captions(tmp_path: Path) -> None:
    data = Scenes(size=24, split="train")
    plain, captions = load_batch(data, config(tmp_path, batch_size=64), step=2)
    flipped, new_captions = load_batch(data, config(tmp_path, batch_size=64, flip=True), step=2)
    mirrored = swapped = 0
    for before, after, old, new in zip(plain, flipped, captions, new_captions, strict=True):
        if torch.equal(before, after):
            assert old == new
            continue
        mirrored += 1
        assert torch.equal(before, after.flip(-1))
        words = [{"left": "right", "right": "left"}.get(word, word) for word in old.split()]
        assert new.split() == words
        swapped += old != new
    assert 16 < mirrored < 48 and swapped > 2
    _, others = load_batch(data, config(tmp_path, batch_size=64), step=3)
    assert captions != others


def test_flip_caption_swaps_whole_words_only() -> None:
    assert flip_caption("a cat to the left of a dog , right") == "a cat to the right of a dog , left"
    assert flip_caption("a cat above a dog") == "a cat above a dog"


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
    ema: dict[str, Tensor] = {"weight": torch.zeros(1, 2)}
    expected = torch.zeros(1, 2)
    for step in range(200):
        with torch.no_grad():
            layer.weight.fill_(step + 1.0)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * (step + 1.0)
        update_ema(ema, layer, 0.9, step)
    torch.testing.assert_close(ema["weight"], expected)


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"batch_size": 0}, {"word_dropout": 1.0}, {"caption_dropout": -0.1}])
def test_impossible_settings_are_refused(wrong: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        config(tmp_path, **wrong)
