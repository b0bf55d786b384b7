"""Tables 1 and 2: masses from one backward pass against maps pushed forward, shards, and the table."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from references.commands import refused

from bcos_diffusion import cli
from bcos_diffusion.encoding import encode
from bcos_diffusion.explain import explain
from bcos_diffusion.explanation.attribution import contributions_of_words
from bcos_diffusion.paper import token_masses
from bcos_diffusion.paper.corpus import SceneCaptions, TextCaptions, read_captions
from bcos_diffusion.paper.token_masses import Masses, Measurement, Shard, measure, one_step, read_shards
from bcos_diffusion.paper.token_table import correlations, kind, rows, shares_of
from bcos_diffusion.pipeline import BcosDiffusionPipeline

SIZE = 24


@pytest.fixture(scope="module")
def pipeline(model: Path) -> BcosDiffusionPipeline:
    return BcosDiffusionPipeline.from_pretrained(model, torch.float64)


def table_of(folder: Path) -> dict:
    return json.loads((folder / "tokens.json").read_text())


def flat(measured: list[Masses]) -> np.ndarray:
    return np.concatenate([m.mass for m in measured])


def test_one_backward_pass_gives_the_mass_of_every_words_map(pipeline: BcosDiffusionPipeline) -> None:
    indices = range(5, 17)
    images, captions = SceneCaptions(SIZE, 20).batch(indices)
    measured = one_step(pipeline, images, captions, indices, seed=3)
    x_0 = encode(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255)
    x_t, t = token_masses._noised(x_0, indices, 3, pipeline.alpha_bar)
    for row, (caption, found) in enumerate(zip(captions, measured, strict=True)):
        batch = pipeline.model.tokenizer.encode([caption])
        _, maps = contributions_of_words(pipeline, batch, x_t[row : row + 1].double(), t[row : row + 1])
        expected = maps.sum((1, 2, 3, 4))  # [words]
        got = torch.zeros_like(expected)
        got.index_add_(0, batch.word_index[0, : len(found.mass)], torch.from_numpy(found.mass))
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)
        assert found.index == indices[row] and found.texts == batch.texts[0]


def test_masses_depend_neither_on_the_batch_nor_on_where_a_run_was_cut(
    pipeline: BcosDiffusionPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_masses, "SHARD", 8)
    corpus, settings = SceneCaptions(SIZE, 20), {"model": "tiny"}

    def cut(count: int) -> None:
        if cut.calls == 1:  # type: ignore[attr-defined]
            raise KeyboardInterrupt
        cut.calls += 1  # type: ignore[attr-defined]

    cut.calls = 0  # type: ignore[attr-defined]
    with pytest.raises(KeyboardInterrupt):
        measure(Measurement(pipeline, corpus, 0, 3, None), tmp_path / "cut", settings, cut)
    untouched = sorted((tmp_path / "cut").glob("*.npz"))
    before = {path: path.stat().st_mtime_ns for path in untouched}
    assert len(untouched) == 2
    done: list[int] = []
    measure(Measurement(pipeline, corpus, 0, 8, None), tmp_path / "cut", settings, done.append)
    measure(Measurement(pipeline, corpus, 0, 20, None), tmp_path / "whole", settings, done.append)
    assert done == [8, 8, 4] * 2 and all(path.stat().st_mtime_ns == time for path, time in before.items())
    for first, second in zip(read_shards(tmp_path / "cut", 20), read_shards(tmp_path / "whole", 20), strict=True):
        np.testing.assert_array_equal(first.token, second.token)
        np.testing.assert_array_equal(first.caption, second.caption)
        np.testing.assert_allclose(first.mass, second.mass, rtol=1e-9, atol=1e-9)


def test_whole_runs_sum_the_maps_of_the_explanation(pipeline: BcosDiffusionPipeline, tmp_path: Path) -> None:
    corpus = TextCaptions("two", ("a cat , blue", "nonsense", "eggplants on red"))
    measured, left_out = Measurement(pipeline, corpus, 7, 64, {"steps": 2}).of(range(3))
    assert left_out == 1 and [m.index for m in measured] == [0, 2]
    expected = explain(pipeline, "eggplants on red", seed=9, steps=2)
    np.testing.assert_allclose(measured[1].mass, [part.mass for part in expected.tokens])
    assert measured[1].texts == ["egg", "plants", "on", "red"]
    assert measured[1].words == ["eggplants", "eggplants", "on", "red"]


def shard(*captions: list[tuple[str, float]]) -> Shard:
    entries = [(number, token, mass) for number, caption in enumerate(captions) for token, mass in caption]
    numbers, tokens, masses = zip(*entries, strict=True)
    return Shard(np.array(numbers), np.array(tokens), np.array(tokens), np.array(masses), 0)


def test_a_token_that_stands_twice_is_left_out_of_its_caption_but_keeps_its_mass() -> None:
    found = shares_of(shard([("cat", 1.0), (",", 1.0), ("dog", -1.0), (",", 3.0)], [("cat", 2.0), ("red", 2.0)]))
    assert found.token.tolist() == ["cat", "dog", "cat", "red"]
    np.testing.assert_allclose(found.signed, [1 / 4, -1 / 4, 1 / 2, 1 / 2])
    np.testing.assert_allclose(found.absolute, [1 / 6, 1 / 6, 1 / 2, 1 / 2])


def test_rows_average_over_shards_and_drop_rare_tokens() -> None:
    first = shard([("cat", 1.0), ("red", 3.0)], [("cat", 1.0), ("dog", 1.0)])
    second = shard([("cat", 4.0)], [("red", 1.0), ("to", 0.0)])
    table = rows([first, second], minimum=2)
    assert [(row.token, row.kind, row.occurrences) for row in table] == [("red", "colour", 2), ("cat", "object", 3)]
    assert table[0].signed == pytest.approx(0.875) and table[1].absolute == pytest.approx((0.25 + 0.5 + 1) / 3)


def test_the_correlation_is_numpys(pipeline: BcosDiffusionPipeline) -> None:
    rng = np.random.default_rng(0)
    names = ["cat", "dog", "red", "blue", "owl", "to"]
    captions = [[(n, float(rng.random())) for n in names[: int(rng.integers(2, 7))]] for _ in range(40)]
    table = rows([shard(*captions)], 1)
    expected = np.corrcoef([row.occurrences for row in table], [row.absolute for row in table])[0, 1]
    found = correlations(table)["all_tokens"]["absolute"]["pearson"]
    assert found["value"] == pytest.approx(expected) and found["low"] <= expected <= found["high"]


def test_kinds_follow_the_lexicon() -> None:
    words = ["cats", "gray", "two", "above", "on", ",", "background", "[EOS]"]
    expected = ["object", "colour", "number", "relation", "function", "punctuation", "other", "special"]
    assert [kind(word) for word in words] == expected


@pytest.mark.usefixtures("elsewhere")
def test_the_command_writes_table_plot_and_numbers_and_goes_on(model: Path) -> None:
    command = ["paper", "tokens", "--model", str(model), "--out", "found", "--count"]
    assert cli.main([*command, "30", "--batch-size", "7"]) == 0
    first = table_of(Path("found"))
    assert first["captions"] == 30 and first["refused"] == 0 and first["provenance"]["model_sha256"]
    assert {p.name for p in Path("found").iterdir()} == {
        "shards",
        "tokens.csv",
        "tokens.json",
        "tokens.md",
        "tokens.png",
    }
    assert cli.main([*command, "30"]) == 0
    assert table_of(Path("found"))["tokens"] == first["tokens"]
    assert sum(row["absolute"] for row in first["tokens"] if row["kind"] == "function") == 0


@pytest.mark.usefixtures("elsewhere")
def test_captions_come_from_files_of_four_kinds(model: Path) -> None:
    captions = ["a cat on red", "two dogs"]
    Path("c.txt").write_text("a cat on red\n\n two  dogs \n")
    Path("c.json").write_text(json.dumps([{"text": c} for c in captions]))
    Path("c.jsonl").write_text("\n".join(json.dumps(c) for c in captions))
    for name in ("c.txt", "c.json", "c.jsonl"):
        assert list(read_captions(Path(name), "text", 9).captions) == captions
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    parquet.write_table(pyarrow.table({"text": captions}), "c.parquet")
    assert list(read_captions(Path("c.parquet"), "text", 1).captions) == captions[:1]
    assert cli.main(["paper", "tokens", "--model", str(model), "--captions", "c.txt", "--steps", "1"]) == 0
    assert table_of(Path("bcos-paper-tokens"))["way"] == "whole runs"


@pytest.mark.usefixtures("elsewhere")
def test_mistakes_are_told_in_one_line(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("empty.txt").write_text("\n")
    Path("c.json").write_text('[{"caption": 3}]')
    Path("c.csv").write_text("a cat")
    command = ["paper", "tokens", "--model", model]
    assert "no captions" in refused(capsys, *command, "--captions", "empty.txt")
    assert "'caption'" in refused(capsys, *command, "--captions", "c.json")
    assert ".parquet" in refused(capsys, *command, "--captions", "c.csv")
    assert "gone.txt" in refused(capsys, *command, "--captions", "gone.txt")
    assert "at least 1" in refused(capsys, *command, "--count", "0")
    assert "--steps" in refused(capsys, *command, "--guidance", "3")
    assert cli.main([str(a) for a in [*command, "--count", "5", "--out", "kept"]]) == 0
    assert "another sampling" in refused(capsys, *command, "--count", "5", "--seed", "1", "--out", "kept")
    assert "lower --minimum" in refused(capsys, *command, "--count", "5", "--minimum", "6", "--out", "kept")
