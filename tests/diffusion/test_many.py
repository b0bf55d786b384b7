"""Files of prompts: what is drawn depends on prompt and seed alone, whoever draws it and however often it was cut."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from references.commands import content
from references.tiny import NETWORKS, tiny_pipeline
from safetensors.torch import load_file

from bcos_diffusion import cli, many
from bcos_diffusion.explain import explain, explain_job

PROMPTS = ["two broccolis left of a cat , blue", "dog", "a red tomato", "pizza", "cat on green"]


@pytest.fixture
def prompts(tmp_path: Path, elsewhere: None) -> Path:
    """A file of prompts in an empty folder, in which the test runs."""
    path = tmp_path / "prompts.txt"
    path.write_text("\n".join([*PROMPTS[:2], "", *PROMPTS[2:]]) + "\n", encoding="utf-8")
    return path


def run(*arguments: object) -> None:
    assert cli.main([str(a) for a in arguments]) == 0


def by_processes(count: int, *arguments: object) -> subprocess.CompletedProcess[str]:
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(count), "-m", "bcos_diffusion"]
    return subprocess.run([*launch, *map(str, arguments)], capture_output=True, text=True, timeout=240)


def refusal(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert cli.main([str(a) for a in arguments]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "Traceback" not in error
    return error


def pictures(folder: str) -> dict[str, bytes | None]:
    return {name: value for name, value in content(Path(folder)).items() if name.endswith(".png")}


@pytest.mark.parametrize("update", ["homogeneous", "standard"])
@pytest.mark.parametrize("time_conditioning", ["scale", "additive"])
@pytest.mark.parametrize("network", NETWORKS)
def test_several_prompts_in_one_pass_are_each_explained_as_if_alone(
    update: str, time_conditioning: str, network: str
) -> None:
    pipeline = tiny_pipeline(time_conditioning=time_conditioning, network=network)
    spoken, negatives, seeds = ["a cat left of broccolis on blue", "dog", "on"], [None, "blue cat", "dog"], [4, 5, 6]
    job = pipeline.job(spoken, negatives, seeds, steps=3, update=update)
    assert [len(sources) for sources in job.sources] == [5, 3, 1]
    for number, found in enumerate(explain_job(pipeline, job, spoken, negatives, seeds)):
        alone = explain(pipeline, spoken[number], negatives[number], seeds[number], 3, update=update)
        assert found.completeness < 1e-12 and found.trace.sources == alone.trace.sources
        for name in ("image", "tokens", "x_T", "time", "constant"):
            one, other = getattr(found.trace, name), getattr(alone.trace, name)
            torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
        assert [part.text for part in found.words] == [part.text for part in alone.words]


def test_two_processes_draw_the_bytes_that_one_draws(model: Path, prompts: Path) -> None:
    options = ["--file", prompts, "--model", model, "--batch", 2, "--seed", 3]
    run("generate", *options, "--out", "one")
    assert by_processes(2, "generate", *options, "--out", "two").returncode == 0
    assert content(Path("one")) == content(Path("two"))
    assert len(pictures("one")) == 5


@pytest.mark.slow
def test_two_processes_explain_to_the_bit_what_one_explains(model: Path, prompts: Path) -> None:
    options = ["--file", prompts, "--model", model, "--batch", 2, "--seed", 3]
    run("explain", *options, "--save", "maps", "--out", "three")
    done = by_processes(2, "explain", *options, "--save", "maps", "--out", "four")
    assert done.returncode == 0, done.stderr
    assert "process 1 of 2: 2 new" in done.stdout and "process 0 of 2: 3 new" in done.stdout
    assert content(Path("three")) == content(Path("four"))  # raw maps and numbers, to the bit


def test_a_picture_depends_on_its_prompt_and_seed_alone(model: Path, prompts: Path) -> None:
    run("generate", "--file", prompts, "--model", model, "--batch", 2, "--out", "one", "--dtype", "float64")
    lines = [{"prompt": text, "seed": seed} for seed, text in enumerate(PROMPTS)]
    Path("other.jsonl").write_text("\n".join(json.dumps(line) for line in [lines[3], lines[0], lines[2]]))
    run("generate", "--file", "other.jsonl", "--model", model, "--batch", 2, "--out", "two", "--dtype", "float64")
    one, two = ({Path(name).name[7:]: value for name, value in pictures(folder).items()} for folder in ("one", "two"))
    assert len(two) == 3 and two.items() <= one.items()
    run("generate", "pizza", "--seed", 3, "--model", model, "--dtype", "float64", "--out", "alone")
    assert pictures("alone")["00-pizza-seed3.png"] == one["pizza-seed3.png"]


def test_a_killed_run_goes_on_and_ends_as_if_it_had_not_been_killed(model: Path, prompts: Path) -> None:
    options = ["--file", prompts, "--model", model, "--batch", 2, "--steps", 12]
    run("explain", *options, "--out", "whole")
    launch = [sys.executable, "-m", "bcos_diffusion", "explain", *map(str, options), "--out", "cut"]
    process = subprocess.Popen(launch, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(Path("cut").glob("0*/item.json")) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    left = list(Path("cut").glob("0*"))
    assert 1 <= len(left) < 5 and not Path("cut/index.jsonl").exists()
    whole = content(Path("whole"))
    for folder in left:  # what is there is whole
        assert content(folder) == {k.split("/", 1)[1]: v for k, v in whole.items() if k.startswith(folder.name + "/")}
    kept = {folder: (folder / "item.json").stat().st_mtime_ns for folder in left}
    run("explain", *options, "--out", "cut")
    assert content(Path("cut")) == whole
    assert {folder: (folder / "item.json").stat().st_mtime_ns for folder in left} == kept


def test_the_index_has_a_line_per_picture(model: Path, prompts: Path) -> None:
    run("explain", "--file", prompts, "--model", model, "--save", "numbers", "--out", "out", "--breakdown",
        "--phrase", "on green", "--box", 0, 0, 8, 8)  # fmt: skip
    lines = [json.loads(line) for line in Path("out/index.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["prompt"] for line in lines] == PROMPTS and [line["line"] for line in lines] == [1, 2, 4, 5, 6]
    assert [line["seed"] for line in lines] == [0, 1, 2, 3, 4]
    assert [word["text"] for word in lines[4]["words"]] == ["cat", "on green"]
    for line in lines:
        folder = Path("out") / line["file"]
        assert {p.name for p in folder.iterdir()} == {"image.png", "explanation.json", "breakdown.json", "item.json"}
        assert json.loads((folder / "explanation.json").read_text(encoding="utf-8"))["region"]["words"]
        assert line["completeness"] < 1e-5


def test_lines_have_their_own_negative_prompts_and_seeds(model: Path, elsewhere: None) -> None:
    Path("p.csv").write_text('prompt,seed,negative_prompt\n"two cats , red",9,dog\n\npizza,,\n', encoding="utf-8")
    Path("p.jsonl").write_text('{"prompt": "two cats , red", "seed": 9, "negative_prompt": "dog"}\n{"prompt": "pizza"}')
    for kind in ("csv", "jsonl"):
        run("explain", "--file", f"p.{kind}", "--model", model, "--seed", 5, "--out", kind, "--save", "maps")
    names = ["000000-two-cats-red-seed9", "000001-pizza-seed6"]
    for name in names:
        assert (
            content(Path("csv") / name)["explanation.safetensors"]
            == content(Path("jsonl") / name)["explanation.safetensors"]
        )
    run("explain", "two cats , red", "--seed", 9, "--negative-prompt", "dog", "--model", model, "--out", "alone")
    one, other = (load_file(f"{folder}/explanation.safetensors") for folder in (f"csv/{names[0]}", "alone"))
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=0, atol=2e-5)


def test_a_changed_setting_or_file_is_refused_with_what_differs(
    model: Path, prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["generate", "--file", prompts, "--model", model, "--out", "out"]
    run(*options)
    before = content(Path("out"))
    assert "steps was 2, now 3; choose another --out" in refusal(capsys, *options, "--steps", 3)
    said = refusal(capsys, *options, "--guidance", 1.5, "--batch", 3)
    assert "batch was 8, now 3" in said and "guidance was 2.0, now 1.5" in said
    assert "command was 'generate', now 'explain'" in refusal(capsys, "explain", *options[1:])
    prompts.write_text(prompts.read_text().replace("pizza", "pizzas"))
    assert "prompt 4: prompt was 'pizza', now 'pizzas'" in refusal(capsys, *options)
    prompts.write_text("cat\n")
    assert "had 5 prompts, this one has 1" in refusal(capsys, *options)
    assert content(Path("out")) == before


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("p.txt", "cat\nzzyzx\ndog\n\n" + "cat " * 25, r"2 bad line\(s\).*line 2: unknown word.*line 5: .*25 tokens"),
        ("p.txt", "\n \n", "has no prompts"),
        ("p.doc", "cat", r"must end in \.txt, \.csv, \.jsonl"),
        ("p.csv", "text,seed\ncat,1\n", "names its columns, one of them prompt"),
        ("p.csv", "prompt,seed\ncat,1\ndog,-3\n", "line 3: seed must be a whole number"),
        ("p.csv", "prompt\ncat, blue\n", "line 2: unknown cells without a column"),
        ("p.jsonl", '{"prompt": "cat"}\n[1]\n', "line 2: must be an object"),
        ("p.jsonl", '{"prompt": "cat"\n', "line 1: not JSON"),
        ("p.jsonl", '{"prompt": 3}\n', "line 1: prompt must be text, got 3"),
        ("p.jsonl", '{"prompt": "cat", "seed": 1.5}\n', "line 1: seed must be a whole number"),
        ("p.jsonl", '{"prompt": "cat", "sead": 1}\n', "line 1: unknown sead; accepted: prompt, negative_prompt, seed"),
        ("p.jsonl", '{"prompt": " "}\n', "line 1: the prompt is empty"),
        ("p.csv", 'prompt,negative_prompt\ncat,zzyzx\n', "line 2: unknown word: 'zzyzx'"),
    ],
)  # fmt: skip
def test_bad_lines_are_named_before_anything_is_drawn(
    model: Path, capsys: pytest.CaptureFixture[str], elsewhere: None, name: str, text: str, says: str
) -> None:
    Path(name).write_text(text, encoding="utf-8")
    assert re.search(says, refusal(capsys, "generate", "--file", name, "--model", model, "--out", "out"))
    assert not list(Path("out").glob("*"))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["generate", "cat", "--file", "p.txt"], "give no prompt and no count"),
        (["generate", "--count", "2", "--file", "p.txt"], "give no prompt and no count"),
        (["explain", "cat", "--file", "p.txt"], "and not both"),
        (["explain"], "give a prompt in quotes, or a file"),
        (["generate", "--file", "none.txt"], "none.txt does not exist"),
        (["generate", "--file", "p.txt", "--batch", "0"], "at least 1"),
        (["generate", "--file", "p.txt", "--out", "p.txt/below"], "cannot write into"),
    ],
)
def test_mistakes_with_files_are_one_line(
    model: Path, prompts: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    Path("p.txt").write_text("cat\n")
    assert says in refusal(capsys, *arguments, "--model", model)


def test_a_full_disk_leaves_what_was_done(
    model: Path, prompts: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    save, saved = Image.Image.save, []

    def fills(self: Image.Image, *args: object, **more: object) -> None:
        saved.append(self)
        if len(saved) > 2:
            raise OSError(28, "No space left on device")
        save(self, *args, **more)  # type: ignore[arg-type]

    options = ["generate", "--file", prompts, "--model", model, "--out", "out", "--batch", 2]
    with monkeypatch.context() as patched:
        patched.setattr(Image.Image, "save", fills)
        said = refusal(capsys, *options)
    assert "No space left on device" in said and ".unfinished" not in said
    assert len(pictures("out")) == 2 and not Path("out/index.jsonl").exists()
    run(*options)
    assert len(pictures("out")) == 5 and np.asarray(Image.open(next(iter(Path("out").glob("*.png"))))).shape[2] == 3


def test_settings_that_differ_are_told_by_their_path(tmp_path: Path) -> None:
    many.agree_on_settings(tmp_path, {"model": {"name": "a", "levels": [1, 2]}, "seed": 0})
    many.agree_on_settings(tmp_path, {"seed": 0, "model": {"name": "a", "levels": (1, 2)}})
    with pytest.raises(ValueError, match=r"model\.name was 'a', now 'b', seed was 0, now None(?!.*levels)"):
        many.agree_on_settings(tmp_path, {"model": {"name": "b", "levels": [1, 2]}})
