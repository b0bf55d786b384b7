"""The table of what is fastest: asked once, kept on disk, never in the way."""

import json
import warnings

import pytest
import torch

from bcos_kernels import tuning

CPU = torch.device("cpu")


@pytest.fixture
def clock(monkeypatch, tmp_path):
    """Tuning allowed, with times that the candidates return; yields how often each was timed."""
    timed = []

    def seconds(run, device):
        taken = run()
        timed.append(taken)
        return taken

    monkeypatch.setenv(tuning.FOLDER, str(tmp_path / "cache"))
    monkeypatch.setattr(tuning, "_may_measure", lambda device: True)
    monkeypatch.setattr(tuning, "_seconds", seconds)
    tuning._table.cache_clear()
    tuning._warn_once.cache_clear()
    yield timed
    tuning._table.cache_clear()


def forget():
    tuning._table.cache_clear()


CANDIDATES = {"slow": lambda: 3.0, "fast": lambda: 1.0, "middling": lambda: 2.0}


def test_the_fastest_is_found_once_and_remembered_by_the_next_process(clock, tmp_path):
    assert tuning.choose("product 8x8", CPU, CANDIDATES) == "fast"
    assert tuning.choose("product 8x8", CPU, CANDIDATES) == "fast"
    forget()
    assert tuning.choose("product 8x8", CPU, CANDIDATES) == "fast"
    assert clock == [3.0, 1.0, 2.0]
    (file,) = (tmp_path / "cache").iterdir()
    assert torch.__version__.split("+")[0] in file.name and json.loads(file.read_text()) == {"product 8x8": "fast"}


def test_what_another_process_found_meanwhile_is_kept(clock, tmp_path):
    tuning.choose("a", CPU, CANDIDATES)
    (file,) = (tmp_path / "cache").iterdir()
    file.write_text(json.dumps({"a": "fast", "of another": "slow"}))
    tuning.choose("b", CPU, CANDIDATES)
    assert json.loads(file.read_text()) == {"a": "fast", "b": "fast", "of another": "slow"}


def test_a_candidate_that_fails_is_left_out(clock):
    def fails():
        raise RuntimeError("out of resource: shared memory")

    assert tuning.choose("c", CPU, {"large": fails, **CANDIDATES}) == "fast"
    with pytest.raises(RuntimeError, match="shared memory"):
        tuning.choose("d", CPU, {"large": fails})


def test_a_remembered_name_that_is_no_candidate_any_more_is_measured_again(clock):
    tuning.choose("e", CPU, {"old": lambda: 1.0})
    assert tuning.choose("e", CPU, CANDIDATES) == "fast"


def test_shipped_defaults_answer_first_and_measurements_replace_them(clock, tmp_path, monkeypatch):
    monkeypatch.setattr(tuning, "SHIPPED", tmp_path)
    (tmp_path / "cpu.json").write_text(json.dumps({"f": "middling"}))
    assert tuning.choose("f", CPU, CANDIDATES) == "middling" and not clock


def test_a_folder_that_cannot_be_written_costs_a_warning_and_no_more(clock, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(tuning.FOLDER, str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="not kept beyond this process.*BCOS_CACHE"):
        assert tuning.choose("g", CPU, CANDIDATES) == "fast"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert tuning.choose("h", CPU, CANDIDATES) == "fast"


@pytest.mark.parametrize("content", ["{", "[]", '{"a": 1}', b"\xff\xfe\x00"])
def test_a_broken_table_is_ignored_and_replaced(content, clock, tmp_path):
    path = tuning._path(CPU)
    path.parent.mkdir()
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.warns(UserWarning, match="ignored"):
        assert tuning.choose("i", CPU, CANDIDATES) == "fast"
    forget()
    assert tuning.choose("i", CPU, {"slow": CANDIDATES["slow"], "fast": CANDIDATES["fast"]}) == "fast"
    assert clock == [3.0, 1.0, 2.0]


def test_where_nothing_may_be_measured_the_first_candidate_runs(monkeypatch, tmp_path):
    monkeypatch.setenv(tuning.FOLDER, str(tmp_path))
    tuning._table.cache_clear()
    assert tuning.choose("j", CPU, CANDIDATES) == "slow"
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    assert not tuning._may_measure(torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    assert tuning._may_measure(torch.device("cuda"))
    torch.use_deterministic_algorithms(True)
    try:
        assert not tuning._may_measure(torch.device("cuda"))
    finally:
        torch.use_deterministic_algorithms(False)


def test_shape_classes_double():
    assert [tuning.shape_class(n) for n in (0, 1, 2, 3, 4, 5, 1000)] == [1, 1, 2, 4, 4, 8, 1024]


def test_a_run_is_timed_until_it_is_done():
    calls = []
    seconds = tuning._seconds(lambda: calls.append(torch.randn(100).sum()), CPU)
    assert seconds > 0 and len(calls) == tuning.WARM_UPS + tuning.ROUNDS
