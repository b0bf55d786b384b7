"""``bcos-diffusion evaluate`` as people use it: what it writes, goes on with, and refuses."""

import json
from pathlib import Path

import pytest
from references.commands import refused

from bcos_diffusion import cli
from bcos_diffusion.baselines import methods
from bcos_diffusion.evaluation import statistics

pytestmark = pytest.mark.usefixtures("elsewhere")
QUICK = ("--preset", "quick", "--scenes", "2", "--costly-scenes", "1", "--pictures", "8", "--steps", "2")
MOST = ("--only", "regime_a", "regime_b", "full_run", "quality", "examples")


@pytest.fixture
def few_methods(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the command does with methods, it does with any."""
    whole = methods.by_name()
    monkeypatch.setattr(methods, "by_name", lambda: {name: whole[name] for name in ("exact", "daam", "random")})


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Intervals are not what these tests look at."""
    monkeypatch.setattr(statistics, "RESAMPLES", 20)


def run(model: Path, *arguments: str) -> dict:
    assert cli.main(["evaluate", "--model", str(model), "--device", "cpu", *QUICK, *arguments]) == 0
    return json.loads(Path("out/report.json").read_text(encoding="utf-8"))


@pytest.mark.usefixtures("few_methods")
def test_it_writes_a_page_and_its_numbers_and_goes_on(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = run(model, *MOST, "--out", "out", "--twin", str(model))
    assert found["regime_a"]["methods"].keys() == {"exact", "daam", "random", "exact_twin", "daam_twin", "random_twin"}
    assert found["regime_b"]["scenes"] == found["settings"]["scenes"] == 2 and found["settings"]["pictures"] == 8
    assert found["quality"]["model"]["count"] == 8 and found["quality"]["twin"]["drawn"]
    page = Path("out/report.html").read_text(encoding="utf-8")
    assert page.count("<img") > 10 and "The worst by leakage" in page and "Not in this report" in page
    said = capsys.readouterr().out
    assert "targets reached" in said and "out/report.html" in said

    kept = {path: path.stat().st_mtime_ns for path in Path("out/measured").rglob("*.json")}
    again = run(model, *MOST, "--out", "out", "--twin", str(model))
    assert kept == {path: path.stat().st_mtime_ns for path in Path("out/measured").rglob("*.json")}
    assert again == found | {"date": again["date"]}


@pytest.mark.usefixtures("few_methods")
def test_the_command_that_the_report_names_gives_the_same_numbers(model: Path) -> None:
    found = run(model, "--out", "out", "--only", "regime_a", "full_run", "quality")
    words = found["command"].split()
    assert words[:4] == ["bcos-diffusion", "evaluate", "--preset", "quick"] and "--pictures" in words
    assert cli.main([*words[1:-1], "other", "--device", "cpu"]) == 0
    repeated = json.loads(Path("other/report.json").read_text(encoding="utf-8"))
    for part in ("regime_a", "quality", "budget"):
        assert without_seconds(repeated[part]) == without_seconds(found[part])


@pytest.mark.slow
def test_every_method_is_compared(model: Path) -> None:
    found = run(model, *MOST, "--out", "out")
    for regime in ("regime_a", "regime_b"):
        assert found[regime]["methods"].keys() | found["left_out"].keys() >= methods.by_name().keys()


def without_seconds(values: object) -> object:
    if isinstance(values, dict):
        return {key: without_seconds(value) for key, value in values.items() if key != "seconds"}
    return values


@pytest.mark.usefixtures("few_methods")
def test_parts_that_are_not_asked_for_are_left_out(model: Path) -> None:
    found = run(model, "--out", "out", "--only", "regime_a")
    assert not found.keys() & {"regime_b", "quality", "budget"} and found["regime_a"]["methods"]
    page = Path("out/report.html").read_text(encoding="utf-8")
    assert "<img" not in page and page.count("Not in this report") >= 4
    more = run(model, "--out", "out", "--only", "full_run", "quality")
    assert more["budget"] and more["quality"] and "regime_a" not in more
    assert "Not in this report" in Path("out/report.html").read_text(encoding="utf-8")
    together = run(model, "--out", "out", "--only", "regime_a", "full_run")
    assert together["budget"] == more["budget"] and together["regime_a"] == found["regime_a"]


@pytest.mark.usefixtures("few_methods")
def test_two_shares_are_one_run(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    only = ("--only", "regime_a", "--out", "out")
    arguments = ["evaluate", "--model", str(model), "--device", "cpu", *QUICK, *only]
    assert cli.main([*arguments, "--share", "1/2"]) == 0
    assert not Path("out/report.json").exists() and "run --share 0/2 again" in capsys.readouterr().out
    found = run(model, *only, "--share", "0/2")
    assert found["complete"] and found["shards"]["done"] == found["shards"]["all"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--scenes", "0"), "scenes must be at least 1"),
        (("--pictures", "7"), "pictures at least 8"),
        (("--workers", "0"), "workers must be at least 1"),
        (("--share", "2/2"), "share must be I/N"),
        (("--share", "one"), "share must be I/N"),
        (("--model", "nowhere"), "nowhere"),
        (("--twin", "nowhere"), "nowhere"),
        (("--steps", "0"), "steps must be between 1 and 1000"),
        (("--seed", "-1"), "seed must be in"),
        (("--device", "abacus:1"), "abacus"),
    ],
)
def test_mistakes_are_one_line(arguments: tuple[str, str], expected: str, model: Path, capsys) -> None:
    given = ("--model", str(model)) if arguments[0] != "--model" else ()
    assert expected in refused(capsys, "evaluate", "--preset", "quick", "--device", "cpu", *given, *arguments)


def test_a_folder_that_cannot_be_written_is_said_before_any_work(model: Path, capsys) -> None:
    Path("taken").write_text("a file")
    assert "taken" in refused(capsys, "evaluate", "--preset", "quick", "--model", str(model), "--out", "taken/here")
