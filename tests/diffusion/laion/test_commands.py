"""``bcos-diffusion laion`` as people type it."""

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image
from references.commands import content, refused
from references.image_server import encoded, picture
from references.laion import metadata, sample, write_shard

from bcos_diffusion import cli
from bcos_diffusion.laion.shard_index import load_index

pytestmark = pytest.mark.usefixtures("elsewhere")


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run where there are two files of metadata, one of them cut off, and two shards."""
    monkeypatch.chdir(tmp_path)
    metadata(Path("meta"), files=2)
    data = Path("meta/part-0.parquet").read_bytes()
    Path("bad").mkdir()
    Path("bad/cut.parquet").write_bytes(data[:-50])
    good = [f"{'a very ' * n}long caption of cat number {n}, ねこ" for n in range(12)]
    samples = {str(n): sample(encoded(picture(100 + n, 90)), text, objects=["cat"]) for n, text in enumerate(good)}
    write_shard(Path("shards/00000.tar"), samples | {"bad": sample(b"<html>")})
    write_shard(Path("broken/00000.tar"), {"bad": sample(b"<html>"), "none": {"txt": b"a cat"}})
    Path("file").write_text("")


def test_select_writes_the_selection_and_says_what_it_found(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main("laion select meta bad/*.parquet --objects cat goat --per-object 30 --out out".split()) == 0
    said = capsys.readouterr().out
    assert "cat: 30 of " in said and "goat: 30 of " in said and "rows skipped: no caption" in said
    assert "not read: file://" in said and "cut.parquet: Parquet magic bytes not found" in said
    assert "bcos-diffusion laion download out" in said
    table = pq.read_table("out/selection.parquet")
    assert table.column_names[:4] == ["key", "url", "caption", "similarity"] and "objects" in table.column_names
    summary = json.loads(Path("out/selection.json").read_text(encoding="utf-8"))
    assert summary["pairs"] == table.num_rows and len(summary["files"]["unreadable"]) == 1
    before = content(Path("out"))
    assert cli.main("laion select meta bad/*.parquet --objects cat goat --per-object 30 --out out".split()) == 0
    assert content(Path("out")) == before


def test_select_looks_for_the_papers_objects(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["laion", "select", "meta"]) == 0
    said = capsys.readouterr().out
    assert "banana: " in said and "fewer than 20,000 (banana, bananas)" in said
    assert "penguin: none (penguin, penguins)" in said
    assert Path("laion-selection/selection.parquet").exists()


def test_check_shows_samples_and_counts(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main("laion check shards --out seen --count 10 --cache index".split()) == 0
    said = capsys.readouterr().out
    assert "12 usable samples in 1 shards, 1 skipped" in said and "1 skipped: not an image" in said
    assert "objects: cat 12" in said and re.search(r"words a caption: least 7, .*most 29", said)
    about = json.loads(Path("seen/check.json").read_text(encoding="utf-8"))
    assert about["skipped"] == [{"shard": "00000.tar", "key": "bad", "reason": "not an image"}]
    assert about["captions"]["words"]["least"] == 7 and about["captions"]["different"] == 12
    sheet = Image.open("seen/samples.png")
    assert sheet.size == (8 * 136, 2 * 175)
    assert not Path("shards/.bcos").exists() and len(list(Path("index").iterdir())) == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("select", "give at least one parquet file, folder or glob"),
        ("select nowhere", "nowhere: no parquet file there"),
        ("select meta/*.csv", "no parquet file there"),
        ("select ftp://host/x", "cannot list ftp://host/x"),
        ("select bad", "none of 1 files can be read; file://.*cut.parquet: Parquet magic bytes"),
        ("select file", "none of 1 files can be read; .*"),
        ("select meta --objects 12", "'12' of object '12' must begin and end with a letter"),
        ("select meta --objects cat CAT", "given twice: cat"),
        ("select meta --per-object 0", "per_object must be at least 1, got 0"),
        ("select meta --max-punsafe 7", r"max_punsafe must be in \[0, 1\], got 7"),
        ("select meta --workers 0", "workers must be at least 1, got 0"),
        ("select meta --out file/below", "cannot write .*file/below"),
        ("download nowhere", "nowhere does not exist; make it with: bcos-diffusion laion select"),
        ("download meta", "selection.parquet does not exist"),
        ("download file --program nowhere/img2dataset", "nowhere/img2dataset is not there; pip install"),
        ("download file --shorter-side 7", "shorter_side must be at least 64, or 0"),
        ("download file --threads 0", "threads is too small: 0"),
        ("check nowhere", r"nowhere: no shards \(\*.tar\) there"),
        ("check meta", "no shards"),
        ("check broken --cache index", "no usable sample; .*1 skipped: not an image 1 skipped: no image"),
        ("check shards --count 0", "count must be at least 1"),
        ("check shards --cache index --size 0", "size must be at least 1"),
        ("check shards --cache file/below", "cannot write .*file/below"),
        ("check shards --cache index --out file", "cannot write into .*file"),
    ],
)
def test_bad_input_is_one_line(capsys: pytest.CaptureFixture[str], arguments: str, says: str) -> None:
    for name in ("shards", "broken"):
        load_index(Path(name, "00000.tar"), Path("index"))
    assert re.search(says, refused(capsys, "laion", *arguments.split()))


def test_without_pyarrow_select_says_how_to_install_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "pyarrow" else real(name, *a))
    assert "pip install 'bcos-kernels[laion]'" in refused(capsys, "laion", "select", "meta")


def test_the_python_of_the_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    page = Path(__file__).parents[3] / "docs" / "data.md"
    (code,) = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    found: dict[str, Any] = {}
    exec(compile(code, "data.md", "exec"), found)
    assert found["images"].shape == (8, 64, 64, 3) and len(found["captions"]) == 8
    assert "12 usable samples" in capsys.readouterr().out


@pytest.mark.parametrize("command", [[], ["select"], ["download"], ["check"]])
def test_help_says_what_there_is(capsys: pytest.CaptureFixture[str], command: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["laion", *command, "--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert f"bcos-diffusion laion {' '.join(command)}".strip() in said
    assert all(name in said for name in (["select", "download", "check"] if not command else ["--out"]))
