"""The frozen text tower against open_clip's own CLIP, and every place its weights may come from."""

import json
import shutil
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from references.clip import SHAPE, penultimate, save_clip, tiny_clip
from safetensors.torch import load_file, save_file

from bcos_diffusion.text.clip import ClipText, ClipTextConfig
from bcos_diffusion.text.clip_tokenizer import ClipTokenizer
from bcos_diffusion.text.clip_weights import VIT_H_14, fingerprint, load_clip_text
from bcos_diffusion.text.frozen import FrozenText

PROMPTS = ["a photo of two flamingos", "cat", "a very long caption about a goat, and 3 penguins & bananas"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clip(tmp_path_factory.mktemp("clip") / "tiny")


def ids() -> torch.Tensor:
    return ClipTokenizer(12).encode(PROMPTS, cut=True).ids


def test_the_encoder_is_open_clips_penultimate_layer(folder: Path) -> None:
    tower = load_clip_text(folder)
    torch.testing.assert_close(tower(ids()), penultimate(tiny_clip(), ids()))
    assert not any(p.requires_grad for p in tower.parameters())
    assert len(tower.transformer.resblocks) == 2  # type: ignore[union-attr, arg-type]


def test_quick_gelu_is_read_from_the_configuration(tmp_path: Path) -> None:
    folder = save_clip(tmp_path / "quick", quick_gelu=True)
    tower = load_clip_text(folder)
    torch.testing.assert_close(tower(ids()), penultimate(tiny_clip(quick_gelu=True), ids()))
    assert (tower(ids()) - penultimate(tiny_clip(), ids())).abs().max() > 1e-3


def test_embeddings_are_of_one_token_and_its_place(folder: Path) -> None:
    tower, clip = load_clip_text(folder, "embeddings"), tiny_clip()
    expected = clip.token_embedding.weight[ids()] + clip.positional_embedding
    torch.testing.assert_close(tower(ids()), expected.detach())
    assert sum(p.numel() for p in tower.parameters()) == (49408 + 12) * 16


def test_the_encoder_hears_earlier_tokens_only(folder: Path) -> None:
    tower, changed = load_clip_text(folder), ids()
    changed[:, 5] = 1000
    before, after = tower(ids()), tower(changed)
    assert torch.equal(before[:, :5], after[:, :5]) and (before[:, 6:] != after[:, 6:]).any()


def test_every_form_of_the_weights_gives_the_same_text(folder: Path, tmp_path: Path) -> None:
    weights = load_file(folder / "open_clip_model.safetensors")
    config = folder / "open_clip_config.json"
    towers = {}

    def put(name: str, write: Any) -> None:
        (tmp_path / name).mkdir()
        shutil.copy(config, tmp_path / name)
        write(tmp_path / name)

    put("bin", lambda to: torch.save(weights, to / "open_clip_pytorch_model.bin"))
    state = {"epoch": 3, "state_dict": {f"module.{k}": v for k, v in weights.items()}}
    put("training", lambda to: torch.save(state, to / "epoch_3.pt"))
    split = {k if k.startswith("visual") else f"text.{k}": v for k, v in weights.items()}
    put("custom", lambda to: save_file(split, to / "weights.safetensors"))
    for source in ("bin", "training/epoch_3.pt", "custom/weights.safetensors"):
        towers[source] = load_clip_text(tmp_path / source)
    expected = load_clip_text(folder)
    for source, tower in towers.items():
        assert torch.equal(tower(ids()), expected(ids())), source
        assert fingerprint(tower) == fingerprint(expected)
    assert fingerprint(load_clip_text(folder, "embeddings")) != fingerprint(expected)


def test_half_precision_files_are_read_in_single_precision(folder: Path, tmp_path: Path) -> None:
    halves = {k: v.half() for k, v in tiny_clip().state_dict().items()}
    half = tmp_path / "half"
    shutil.copytree(folder, half)
    save_file({k: v.contiguous() for k, v in halves.items()}, half / "open_clip_model.safetensors")
    tower = load_clip_text(half)
    assert all(p.dtype == torch.float32 for p in tower.parameters())
    assert torch.equal(tower.positional_embedding, halves["positional_embedding"].float())


def test_only_the_text_tower_is_built(folder: Path) -> None:
    names = set(load_clip_text(folder).state_dict())
    expected = {n for n in tiny_clip().state_dict() if not n.startswith(("visual.", "transformer.resblocks.2."))}
    assert names == expected - {"text_projection", "logit_scale"}


def test_stable_diffusions_text_encoder_has_its_size() -> None:
    """340,387,840 parameters: what Stable Diffusion 2.1's own text encoder has, 23 of 24 layers."""
    with torch.device("meta"):
        tower = ClipText(ClipTextConfig.from_open_clip(open_clip.get_model_config("ViT-H-14")))
    assert tower.config == ClipTextConfig()
    block = 4 * 1024**2 + 4 * 1024 + 8 * 1024**2 + 5 * 1024 + 4 * 1024
    assert sum(p.numel() for p in tower.parameters()) == (49408 + 77) * 1024 + 23 * block + 2 * 1024 == 340_387_840


def test_a_place_that_cannot_be_reached_says_what_to_get(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        FileNotFoundError, match="neither a file or folder here nor a model that can be downloaded"
    ) as e:
        load_clip_text(VIT_H_14)
    assert "open_clip_model.safetensors" in str(e.value) and "\n" not in str(e.value)


def test_what_is_not_a_clip_says_so_in_one_line(folder: Path, tmp_path: Path) -> None:
    def broken(name: str, weights: bytes | dict[str, torch.Tensor], config: dict[str, Any] | None = None) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        if isinstance(weights, dict):
            save_file(weights, path)
        else:
            path.write_bytes(weights)
        values = {"model_cfg": SHAPE if config is None else config}
        (path.parent / "open_clip_config.json").write_text(json.dumps(values))
        return path

    wide = SHAPE | {"text_cfg": SHAPE["text_cfg"] | {"width": 32}}
    weights = load_file(folder / "open_clip_model.safetensors")
    cases = {
        broken("a/x.safetensors", b"no"): "not a readable safetensors file",
        broken("b/x.pt", b"no"): "not a file of plain PyTorch weights",
        broken("c/x.safetensors", {"a": torch.zeros(1)}): "holds no CLIP text weights",
        broken("d/x.safetensors", weights, wide): "does not fit its configuration",
        broken("e/x.safetensors", weights, {"text_cfg": {"hf_model_name": "roberta"}}): "only CLIP's own text tower",
        broken("f/x.safetensors", weights, {}): "has no text_cfg",
        broken("g/x.txt", b"no"): "these end in .safetensors, .bin, .pt",
        broken("h/x.safetensors", {k: v for k, v in weights.items() if "ln_final" not in k}): "ln_final.weight",
    }
    for path, message in cases.items():
        with pytest.raises(ValueError, match=message) as e:
            load_clip_text(path)
        assert str(tmp_path) in str(e.value) and "\n" not in str(e.value)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="has no CLIP weights"):
        load_clip_text(tmp_path / "empty")


def test_pickled_code_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "ran",)

    torch.save({"token_embedding.weight": Evil()}, tmp_path / "evil.bin")
    with pytest.raises(ValueError, match="not a file of plain PyTorch weights"):
        load_clip_text(tmp_path / "evil.bin")
    assert not (tmp_path / "ran").exists()


def test_a_frozen_text_is_no_parameter_but_moves_along(folder: Path) -> None:
    text = FrozenText.load(folder)
    assert not list(text.parameters()) and not text.state_dict() and list(text.modules()) == [text]
    batch = text.tokenizer.encode(["two flamingos"])
    single, double = text.condition(batch).values, text.double().condition(batch).values
    assert double.dtype == torch.float64
    torch.testing.assert_close(single.double(), double, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="the tokenizer lays out 77 tokens, the text tower reads 12"):
        FrozenText(text.tower, ClipTokenizer(), "nowhere")


def test_prompts_hidden_whole_are_read_as_the_empty_prompt(folder: Path) -> None:
    batch = ClipTokenizer(12).encode(["two flamingos", "a cat"])
    batch.mask[0] = False
    visible = FrozenText.load(folder)
    read, empty = visible.condition(batch), visible.condition(visible.tokenizer.encode_null(1))
    assert read.mask.all()
    torch.testing.assert_close(read.values[0], empty.values[0])
    assert (read.values[1] - empty.values[0]).abs().max() > 0.1
    masked = FrozenText.load(folder, "embeddings", "masked")
    assert not masked.condition(masked.tokenizer.encode_null(1)).values.any()
