"""The best rows of a stream do not depend on its order, and few are in memory."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bcos_diffusion.laion.best import Best, Row

ROWS = st.builds(
    Row,
    st.integers(0, 5).map(lambda n: n / 5),
    st.sampled_from(["http://a", "http://b", "http://c"]),
    st.sampled_from("cat dog goat".split()),
    st.tuples(st.none() | st.integers(0, 2).map(float)),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(ROWS, max_size=40), st.integers(1, 6), st.randoms(use_true_random=False))
def test_order_and_split_do_not_matter(rows: list[Row], limit: int, shuffle: random.Random) -> None:
    once = Best(limit)
    for row in rows:
        once.add(row)
    again, parts = Best(limit), [Best(limit), Best(limit)]
    shuffled = shuffle.sample(rows, len(rows))
    for number, row in enumerate(shuffled):
        parts[number % 2].add(row)
    for part in parts:
        for _, row in part.items():
            again.add(row)
    assert again.items() == once.items()
    pairs = {}
    for row in sorted(rows, key=lambda r: r.similarity):
        pairs[row.url, row.caption] = row.similarity
    assert [row.similarity for _, row in once.items()] == sorted(pairs.values(), reverse=True)[:limit]
    assert len({key for key, _ in once.items()}) == len(once.items())


def test_memory_is_bounded_and_the_floor_rises() -> None:
    draw = random.Random(0)
    best, most = Best(50), 0
    for number in range(20_000):
        best.add(Row(draw.random(), f"http://{number}", "cat"))
        most = max(most, len(best))
    assert most < 100 and len(best.items()) == 50
    assert best.floor > 0.99


def test_a_limit_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1, got 0"):
        Best(0)
