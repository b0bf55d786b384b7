"""The whole of it on a tiny model, with a judge that sees objects where the test says."""

from pathlib import Path

import pytest
import torch

from bcos_diffusion.evaluation.segmenter import Segmenter
from bcos_diffusion.missing import fit as fitting
from bcos_diffusion.missing.__main__ import main
from bcos_diffusion.missing.calibration import FILE, Calibration
from bcos_diffusion.missing.fit import fit
from bcos_diffusion.missing.judged import Judged, judge_observed
from bcos_diffusion.missing.measure import measure
from bcos_diffusion.missing.observe import SHARES, Observed, observe
from bcos_diffusion.missing.run import Run
from bcos_diffusion.pipeline import BcosDiffusionPipeline


@pytest.fixture(scope="module")
def observed(model: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Observed]:
    pipeline, cache = BcosDiffusionPipeline.from_pretrained(model), tmp_path_factory.mktemp("cache")
    new: list[int] = []
    found = observe(pipeline, "validation", 30, cache=cache, advance=new.append)
    again = observe(pipeline, "validation", 30, cache=cache, advance=new.append)
    assert sum(new) == 30 and len(list(cache.iterdir())) == 1
    for a, b in zip(found, again, strict=True):
        assert (a.asked, a.words, a.named) == (b.asked, b.words, b.named)
        assert all(torch.equal(getattr(a, n), getattr(b, n)) for n in ("images", "exact", "heat", "mass"))
    return found


def test_what_is_observed_in_batches_is_what_one_run_shows(model: Path, observed: list[Observed]) -> None:
    from bcos_diffusion.missing.features import object_features

    pipeline = BcosDiffusionPipeline.from_pretrained(model)
    for one in (observed[0], observed[7]):
        run = Run(pipeline, pipeline.job([one.asked.prompt], [None], [one.asked.seed]))
        run.advance(pipeline.defaults.steps)
        assert torch.allclose(one.exact[-1], object_features(run.words(0), one.named), atol=1e-4)
        assert (one.images[-1].float() / 255 - run.images[0]).abs().max() < 0.01
        assert one.exact.shape == (len(SHARES), len(one.named), 5) and one.heat.shape[2] == 6
        assert one.mass.max() <= 1 and [one.words[i] for i in one.named]


def _judged(observed: list[Observed], feature: int = 1) -> list[Judged]:
    """An object is drawn where its feature at the end is above the median: the features then tell it well."""
    median = torch.cat([one.exact[-1, :, feature] for one in observed]).median()
    drawn = [tuple((one.exact[-1, :, feature] > median).tolist()) for one in observed]
    areas = [tuple(tuple(float(d) for d in own) for _ in SHARES) for own in drawn]
    return [Judged(*parts) for parts in zip(observed, drawn, areas, strict=True)]


def test_fit_and_measure_agree_with_the_labels(
    model: Path, observed: list[Observed], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline, segmenter = BcosDiffusionPipeline.from_pretrained(model), Segmenter.load()
    judged = _judged(observed)
    exact, heat = (fit(pipeline, judged, segmenter, source) for source in ("exact", "heat"))
    monkeypatch.setattr("bcos_diffusion.evaluation.statistics.RESAMPLES", 50)
    found = measure(judged, exact, heat, segmenter, pipeline.defaults.steps)
    last = found["at"][str(pipeline.defaults.steps)]
    assert last["exact_share"]["auroc"]["value"] == 1.0 and last["exact"]["auroc"]["value"] > 0.9
    assert last["judge"]["auroc"]["value"] == 1.0 and found["missing"] == sum(not d for j in judged for d in j.drawn)
    assert {"auprc", "fpr_at_95", "calibration_error", "reliability"} <= set(last["daam"])
    complete = [j for j in judged if all(j.drawn)]
    least = [min(exact.early.probability(j.seen.exact[-2].numpy())) for j in complete]
    assert sum(p < exact.early.abort_below for p in least) <= 0.4 * len(least) + 1
    with pytest.raises(ValueError, match="drawn and words that were not"):
        fit(pipeline, [Judged(j.seen, (True,) * len(j.drawn), j.areas) for j in judged], segmenter)
    assert fitting.FEATURES["exact"] == exact.checkpoints[0].logistic.names


def test_the_segmenter_judges_every_moment(observed: list[Observed]) -> None:
    judged = judge_observed(Segmenter.load(), observed[:3])
    for one in judged:
        assert len(one.areas) == len(SHARES) and all(len(a) == len(one.seen.named) for a in (*one.areas, one.drawn))


def test_fit_command(model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("bcos_diffusion.missing.protocol.judge_observed", lambda _, observed: _judged(observed))
    assert main(["fit", "--model", str(model), "--validation", "12"]) == 0
    assert Calibration.of(BcosDiffusionPipeline.from_pretrained(model), model).fitted["pictures"] == 12
    (model / FILE).unlink()
    assert main(["measure", "--model", str(model)]) == 1 and "--out" in capsys.readouterr().err
    assert main(["fit", "--model", "nowhere/there"]) == 1
