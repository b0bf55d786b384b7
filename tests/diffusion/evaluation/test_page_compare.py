"""Which method is best, and that ours is not said to be where it is not."""

import pytest

from bcos_diffusion.evaluation.page.compare import best, losses, mark, table
from bcos_diffusion.evaluation.page.measures import LOCALISATION, Measure
from bcos_diffusion.evaluation.page.results import UNKNOWN, Number
from bcos_diffusion.page.section import Cell

UP, DOWN = LOCALISATION["miou"], LOCALISATION["leakage"]


def near(value: float, spread: float = 0.01) -> Number:
    return Number(value, value - spread, value + spread)


@pytest.mark.parametrize(("measure", "winner"), [(UP, "exact"), (DOWN, "random")])
def test_the_best_follows_the_direction(measure: Measure, winner: str) -> None:
    column = {"exact": near(0.9), "daam": near(0.5), "random": near(0.1), "rollout": UNKNOWN}
    assert best(measure, column) == winner
    assert mark(measure, winner, column) == "best"
    assert mark(measure, "rollout", column) == "" and best(measure, {"rollout": UNKNOWN}) is None


def test_judges_do_not_compete() -> None:
    column = {"exact": near(0.8), "leave_one_out": near(1.0)}
    assert mark(UP, "exact", column) == "beaten"
    assert mark(UP, "exact", column, judges=("leave_one_out",)) == "best"
    assert mark(UP, "leave_one_out", column, judges=("leave_one_out",)) == ""


def test_ours_beaten_is_marked_and_said_with_how_clearly() -> None:
    rows = {
        "exact": {"miou": near(0.70), "leakage": near(0.05)},
        "daam": {"miou": near(0.75), "leakage": near(0.055)},
        "rollout": {"miou": near(0.74), "leakage": near(0.045)},
    }
    said = losses((UP, DOWN), rows)
    assert len(said) == 2
    assert said[0].startswith("mIoU: DAAM is better than ours, 75.0 [74.0, 76.0] against 70.0 [69.0, 71.0]")
    assert said[0].endswith("the intervals are apart.")
    assert "attention rollout" in said[1] and said[1].endswith("the intervals overlap.")
    built = table("t", (UP, DOWN), rows)
    marks = {row[0]: [cell.mark for cell in row[1:] if isinstance(cell, Cell)] for row in built.rows}
    assert list(marks.values()) == [["beaten", "beaten"], ["best", "close"], ["close", "best"]]
    assert set(said) <= set(built.notes)


def test_winning_everywhere_is_said_and_absent_measures_have_no_column() -> None:
    built = table("t", (UP, DOWN), {"exact": {"miou": near(0.9)}, "daam": {"miou": near(0.5)}, "random": {}})
    assert len(built.heads) == 2 and "No method is better than ours" in built.notes[-1]
    assert [row[1].text for row in built.rows if isinstance(row[1], Cell)] == ["90.0", "50.0", "–"]
    alone = table("t", (UP,), {"daam": {"miou": near(0.5)}})
    assert len(alone.notes) == 1  # nothing is claimed of ours where it was not measured


def test_equal_values_are_both_best() -> None:
    column = {"exact": near(0.5), "daam": near(0.5)}
    assert [mark(UP, name, column) for name in column] == ["best", "best"]
