"""Features: the surface of a text, and what both views of an encoder become."""

from __future__ import annotations

import time

import numpy as np
import pytest

from routers.encoder import Encoder
from routers.learned.base import Features
from routers.learned.features import ViewsEncoder
from routers.learned.text_features import MAX_CHARS, NAMES, clipped, text_features
from tests.fakes.encoder import FakeTextModel, Vectors


def number(text: str, name: str) -> float:
    return float(text_features([text])[0, NAMES.index(name)])


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("Find $x$.\n", "ends with newline", 1),
        ("Find $x$.", "ends with newline", 0),
        ("Find $x$.", "ends with .", 1),
        ("who sang it?", "ends with ?", 1),
        ("who sang it?", "first word who", 1),
        ("who is it?", "second word is", 1),
        ("who is it?", "first word is", 0),
        ("when did it end", "second word did", 1),
        ("when did it end", "starts lower", 1),
        ("Solve it. Give $x^2$ and $y$.", "log count $", np.log1p(4)),
        ("Solve it. Give $x^2$ and $y$.", "log sentences", np.log1p(2)),
        ("Solve it. Give $x^2$ and $y$.", "last sentence: give", 1),
        ("Solve it. Give $x^2$ and $y$.", "last sentence: solve", 0),
        ("Pick one:\nA) red\nB) blue\nC) green", "log options", np.log1p(3)),
        ("He paid $1,250.50 in 1987 and 12 later", "log largest number", np.log1p(1987)),
        ("He paid $1,250.50 in 1987 and 12 later", "year", 1),
        ("He paid $1,250.50 in 1987 and 12 later", "money", 1),
        ("def f(x):\n    return g(x)", "def", 1),
        ("def f(x):\n    return g(x)", "log indented lines", np.log1p(1)),
        ("What is 2? And 3?", "question mark inside", 1),
        ("naïve", "not ASCII", 1),
        ("\\frac{1}{2} + \\sqrt{3}", "log commands", np.log1p(2)),
    ],
)
def test_the_surface_is_told_by_name(text: str, name: str, value: float) -> None:
    assert number(text, name) == pytest.approx(value)


def test_names_are_unique_and_as_many_as_columns() -> None:
    assert len(set(NAMES)) == len(NAMES)
    assert text_features(["a", "b"]).shape == (2, len(NAMES))
    assert text_features([]).shape == (0, len(NAMES))


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "\n\n",
        "?",
        "9" * 5000,
        "1" * 400 + "." + "2" * 400,
        "1.2.3,4",
        "\ud800",
        "\U0001f642\u0000",
        "法国的首都是哪里?",
        "'''\"\"\"",
        "²³ ٣ ½",
    ],
)
def test_odd_texts_have_finite_numbers(text: str) -> None:
    assert np.isfinite(text_features([text])).all()


def test_a_row_does_not_depend_on_its_company() -> None:
    texts = ["What is 12 + 30?", "", "Write a python function to add."]

    np.testing.assert_array_equal(text_features(texts), np.concatenate([text_features([text]) for text in texts]))


def test_of_a_huge_text_both_ends_are_read_in_bounded_time() -> None:
    text = "Who wrote " + "(a $1.5 b\n" * 500_000 + " it? Answer with \\boxed{}:"
    row = text_features([text])[0]

    assert len(clipped(text)) == MAX_CHARS
    assert row[NAMES.index("first word who")] == 1
    assert row[NAMES.index("boxed")] == 1
    assert row[NAMES.index("log chars")] == pytest.approx(np.log1p(len(text)))


@pytest.mark.parametrize("piece", ["\n", " ", "a", "A", "1,", "'", "a'", "$", "\\", "(", "x(", ".", "? ", "_", "é"])
def test_no_text_takes_long(piece: str) -> None:
    """No pattern goes back over what it has read: eight times the text takes about eight times as long, and not sixty-four times."""

    def least_s(num_chars: int) -> float:
        """Of this thread's own time, which what else runs takes nothing of."""
        text, seconds = piece * (num_chars // len(piece)), []
        for _ in range(5):
            began = time.thread_time()
            text_features([text])
            seconds.append(time.thread_time() - began)
        return min(seconds)

    assert least_s(MAX_CHARS) < 32 * least_s(MAX_CHARS // 8)


class TwoViews(FakeTextModel):
    """Its early view is the late one backwards."""

    def __init__(self) -> None:
        super().__init__()
        self.early_dimensions = self.dimensions

    def embed_views(self, texts: list[str]) -> Vectors:  # type: ignore[override]
        late = self.embed(texts)
        return np.concatenate([late, late[:, ::-1]], axis=1)


def test_both_views_are_taken_apart_again() -> None:
    model = TwoViews()
    encoder = Encoder(lambda: model)
    views = ViewsEncoder(encoder)
    encoded = views.encode_now(["red apples", "blue birds"])
    features = views.describe(["red apples", "blue birds"], encoded)

    assert views.encoder_id == f"{model.encoder_id}+early"
    assert encoded.shape == (2, views.dimensions)
    np.testing.assert_array_equal(features.vectors, encoder.encode_now(["red apples", "blue birds"]))
    assert features.early is not None
    np.testing.assert_array_equal(features.early, features.vectors[:, ::-1])
    assert len(model.runs) == 1


async def test_the_running_encoder_gives_both_views_of_one_run() -> None:
    model = TwoViews()
    encoder = Encoder(lambda: model)
    await encoder.start()
    try:
        views = ViewsEncoder(encoder)
        late = await encoder.encode(["red apples"])
        encoded = await views.encode(["red apples"])
    finally:
        await encoder.close()

    np.testing.assert_array_equal(encoded[:, : late.shape[1]], late)
    assert len(model.runs) == 1


def test_an_encoder_of_one_view_has_features_without_the_other() -> None:
    views = ViewsEncoder(Encoder(FakeTextModel))
    features = views.describe(["a"], views.encode_now(["a"]))

    assert features.early is None
    assert views.encoder_id == FakeTextModel().encoder_id


def test_rows_are_taken_of_every_part() -> None:
    features = Features(("a", "b", "c"), np.eye(3, dtype=np.float32), 2 * np.eye(3, dtype=np.float32))
    some = features.rows([2, 0])

    assert some.texts == ("c", "a")
    assert some.early is not None
    np.testing.assert_array_equal(some.vectors, np.eye(3)[[2, 0]])
    np.testing.assert_array_equal(some.early, 2 * np.eye(3)[[2, 0]])
