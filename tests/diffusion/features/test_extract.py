"""Extraction beside the slow way; stopped, shared and refused."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from references import tiny_features
from references.tiny_features import files, tiny_plan
from torch import Tensor

from bcos_diffusion.diffusion import add_noise, paired_noise
from bcos_diffusion.encoding import encode, from_pixels
from bcos_diffusion.features import FeatureStore, GeneratedImages, Subject, extract, lay_out, load_subject
from bcos_diffusion.features import plan as planning
from bcos_diffusion.many import Share
from bcos_diffusion.scenes import Scenes

SHARDS = 5


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "_SHARD_IMAGES", 4)


@pytest.fixture(scope="module")
def subject(model: Path) -> Subject:
    return load_subject(model)


@pytest.fixture(scope="module")
def done(subject: Subject, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole extraction, in one go by one process."""
    out = tmp_path_factory.mktemp("features")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planning, "_SHARD_IMAGES", 4)
        extract(subject, tiny_plan(), out)
    return out


@torch.no_grad()
def slowly(subject: Subject, number: int, layer: str, t: int, caption: bool) -> Tensor:
    """The spatial features of one scene, from nothing that extraction is made of but the network."""
    scene = Scenes(24, "test")[number]
    digest = hashlib.sha256(f"0 {number} {t}".encode()).digest()
    noise = paired_noise((1, 6, 24, 24), torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") // 2))
    pipeline = subject.pipeline
    x_t = add_noise(encode(from_pixels(scene.image)[None]), torch.tensor([t]), noise, pipeline.alpha_bar)
    tokenizer = pipeline.model.tokenizer
    text = pipeline.model.condition(tokenizer.encode([scene.caption]) if caption else tokenizer.encode_null(1))
    unet, kept = pipeline.model.unet, {}
    places = {"bottleneck": unet.down[1][0], "up_ft0": unet.up[1][0]}
    handle = places[layer].register_forward_hook(lambda _, __, output: kept.update(x=output))
    unet(x_t, torch.tensor([t]), text)
    handle.remove()
    return kept["x"][0]


def test_features_are_those_read_slowly(subject: Subject, done: Path) -> None:
    store = FeatureStore(done)
    for layer in ("bottleneck", "up_ft0"):
        for t in (25, 400):
            for said in ("empty", "caption"):
                found = store.read(layer, t, said)
                assert found.shape == (18, 16) and found.dtype == torch.float32
                for number in (0, 7, 17):
                    expected = slowly(subject, number, layer, t, said == "caption").mean((1, 2))
                    torch.testing.assert_close(found[number], expected, atol=2e-6, rtol=1e-4)


@pytest.mark.parametrize("dtype, most", [("float16", 1e-3), ("bfloat16", 8e-3)])
def test_spatial_features_in_fewer_bits(subject: Subject, tmp_path: Path, dtype: str, most: float) -> None:
    plan = tiny_plan(count=5, layers=("up_ft0",), timesteps=(25,), pooled=False, dtype=dtype)
    store = extract(subject, plan, tmp_path)
    assert store is not None
    found = store.read("up_ft0", 25, "caption")
    expected = torch.stack([slowly(subject, number, "up_ft0", 25, True) for number in range(5)])
    assert found.shape == (5, 16, 3, 3)
    assert (found - expected).abs().max() <= most * expected.abs().max()


def test_the_size_is_known_beforehand(subject: Subject, done: Path, tmp_path: Path) -> None:
    layout = lay_out(subject, tiny_plan())
    sizes = {path.name: path.stat().st_size for path in (done / "shards").iterdir()}
    assert sizes == {shard.name: layout.shard_bytes(shard) for shard in layout.shards} and len(sizes) == SHARDS
    assert layout.total_bytes == sum(map(len, files(done).values()))
    assert f"{layout.total_bytes:,} bytes" in layout.summary()
    drawn = GeneratedImages(subject.pipeline, ["a cat , blue", "two dogs"], steps=2)
    odd = tiny_plan(images=drawn, count=2, layers=("up_ft0",), pooled=False, dtype="bfloat16")
    extract(subject, odd, tmp_path)
    assert lay_out(subject, odd).total_bytes == sum(map(len, files(tmp_path).values()))


def test_two_workers_write_the_same_bytes(subject: Subject, done: Path, tmp_path: Path) -> None:
    told: list[object] = []
    assert extract(subject, tiny_plan(), tmp_path, workers=2, advance=told.append) is not None
    assert files(tmp_path) == files(done) and len(told) == SHARDS


def test_two_machines_share_a_folder(subject: Subject, done: Path, tmp_path: Path) -> None:
    begun: list[tuple[str, int]] = []
    tell = lambda line, shards: begun.append((line, shards))  # noqa: E731
    assert extract(subject, tiny_plan(), tmp_path, share=Share(1, 2), begin=tell) is None
    with pytest.raises(ValueError, match="not finished; run it again"):
        FeatureStore(tmp_path)
    assert extract(subject, tiny_plan(), tmp_path, share=Share(0, 2), begin=tell) is not None
    assert files(tmp_path) == files(done) and [shards for _, shards in begun] == [2, 3]


def test_a_killed_extraction_goes_on_without_a_gap(model: Path, subject: Subject, done: Path, tmp_path: Path) -> None:
    program = Path(tiny_features.__file__)
    # The same build of the kernels as here, whose last digits are its own: not that of the checkout, if it has one.
    paths = [*filter(None, [os.environ.get("PYTHONPATH")]), str(program.parents[1])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, str(program), str(model), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        while not process.stdout.readline().startswith("Shard(first=4"):
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
    before = files(tmp_path)
    assert 3 <= len(before) < SHARDS + 1
    (tmp_path / "shards" / ".left-by-a-killed-process.safetensors").write_bytes(b"half")
    told: list[object] = []
    assert extract(subject, tiny_plan(), tmp_path, advance=told.append) is not None
    assert len(told) == SHARDS - (len([name for name in before if name.startswith("shards/0")]))
    assert files(tmp_path) == files(done)


def test_damaged_shards_are_made_again(subject: Subject, done: Path, tmp_path: Path) -> None:
    shutil.copytree(done, tmp_path, dirs_exist_ok=True)
    shard = sorted((tmp_path / "shards").iterdir())[2]
    shard.write_bytes(shard.read_bytes()[:-10])
    with pytest.raises(ValueError, match=r"is damaged: .* run the extraction again"):
        FeatureStore(tmp_path)
    assert extract(subject, tiny_plan(), tmp_path) is not None
    assert files(tmp_path) == files(done)


def test_another_plan_is_refused_and_loses_nothing(subject: Subject, done: Path) -> None:
    before = files(done)
    for changes, said in (
        ({"seed": 1}, "seed was 0, now 1"),
        ({"layers": ("up_ft0",)}, r"layers was \['bottleneck', 'up_ft0'\], now \['up_ft0'\]"),
        ({"count": 17}, "count was 18, now 17"),
    ):
        with pytest.raises(ValueError, match=said):
            extract(subject, tiny_plan(**changes), done)
    assert files(done) == before


def test_a_full_disk_is_told_before_anything_is_made(
    subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = lay_out(subject, tiny_plan()).total_bytes
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(needed, 1, needed - 1))
    with pytest.raises(OSError, match=f"needs {needed:,} bytes more, its disk has {needed - 1:,} free"):
        extract(subject, tiny_plan(), tmp_path)
    assert not files(tmp_path)


def test_values_that_do_not_fit_the_type_are_refused(subject: Subject, tmp_path: Path) -> None:
    handle = subject.layers["up_ft0"].register_forward_hook(lambda _, __, output: output * 1e6)
    try:
        with pytest.raises(ValueError, match="layer up_ft0 have values that float16 cannot hold and bfloat16"):
            extract(subject, tiny_plan(dtype="float16"), tmp_path)
    finally:
        handle.remove()


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"layers": ("up_ft9",)}, "no layer 'up_ft9'.*there are down_ft0, down_ft1, bottleneck, up_ft0"),
        ({"timesteps": (1000,)}, r"timesteps must be in \[0, 1000\), got 1000"),
        ({"conditionings": ("a zyzzyva",)}, "unknown word"),
        ({"timesteps": (1, 1)}, "each once, got 1, 1"),
        ({"conditionings": ()}, "at least one"),
        ({"count": 0}, "count must be between 1"),
        ({"batch": 0}, "batch must be at least 1"),
        ({"dtype": "int8"}, "float32, float16, bfloat16"),
    ],
)
def test_impossible_plans_are_refused(subject: Subject, tmp_path: Path, changes: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        extract(subject, tiny_plan(**changes), tmp_path / "out")
    assert not (tmp_path / "out").exists()
