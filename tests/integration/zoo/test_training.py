"""The training code: packed examples are blind to each other, and what it writes loads in the usual libraries."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from random import Random

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from domain.chat import Choice, Message
from domain.experts import Backend, ExpertCard
from domain.plan import Candidate
from orchestrator.aggregation.prompts import fuse_messages
from orchestrator.cascade.confidence import judge_messages, read_verdict
from zoo.questions import GENERATORS
from zoo.questions.base import Question
from zoo.training import evaluate, package
from zoo.training import train as training
from zoo.training.aggregation import with_candidates
from zoo.training.data import Packer, prompt_of
from zoo.training.judging import with_verdict
from zoo.training.model import Decoder, initialise, llama_config, rotary_tables
from zoo.training.recipes import RECIPES, Recipe
from zoo.training.tokenizer import END, build_tokenizer

ROWS, LENGTH = 4, 160
TINY = Recipe(
    lambda split: lambda rng: GENERATORS["logic"](rng, split), minutes=1, hidden_size=32, num_layers=1, rows=ROWS, row_length=LENGTH
)


@pytest.fixture(autouse=True)
def _float32_on_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setattr("zoo.training.model.arithmetic_dtype", lambda: torch.float32)
    monkeypatch.setattr("zoo.training.optimizer.arithmetic_dtype", lambda: torch.float32)


def make_decoder() -> Decoder:
    tokenizer = build_tokenizer(LENGTH)
    torch.manual_seed(3)
    config = llama_config(hidden_size=64, num_layers=2, max_length=LENGTH, pad_id=tokenizer.pad_token_id, end_id=tokenizer.eos_token_id)
    model = package.empty_model(config)
    initialise(model)
    return Decoder(model)


@torch.inference_mode()
def test_an_example_gets_the_same_logits_packed_as_alone() -> None:
    """Blind to its neighbours: alone means in the library's own model, with nothing before it."""
    decoder, tokenizer = make_decoder(), build_tokenizer(LENGTH)
    questions: list[Question] = []

    def draw(rng: Random) -> Question:
        questions.append(GENERATORS["logic"](rng, "train"))
        return questions[-1]

    batch = next(iter(Packer(tokenizer, draw, Random(1), rows=ROWS, length=LENGTH)))
    packed = decoder.logits(decoder(batch.ids, *rotary_tables(LENGTH), batch.mask))

    compared = 0
    rows = [tokenizer.decode(ids) for ids in batch.ids]
    for question in {prompt_of(q): q for q in questions}.values():
        text = f"{prompt_of(question)}{question.completion}{END}"
        ids = tokenizer(text)["input_ids"]
        for i, row in enumerate(rows):
            if (at := row.find(text)) < 0:
                continue
            start = len(tokenizer(row[:at])["input_ids"])
            alone = decoder.model(torch.tensor([ids])).logits[0]
            torch.testing.assert_close(packed[i, start : start + len(ids)], alone, rtol=1e-3, atol=1e-3)
            compared += start > 0
    assert compared >= ROWS, "at least one neighbour a row"


def test_the_loss_is_on_answers_only() -> None:
    tokenizer = build_tokenizer(LENGTH)
    batch = next(iter(Packer(tokenizer, TINY.draw("train"), Random(1), rows=ROWS, length=LENGTH)))

    for ids, targets in zip(batch.ids, batch.targets, strict=True):
        examples = tokenizer.decode(ids).split("<|user|>")[1:]
        answers = "".join(example.split("<|assistant|>")[1].split("<|pad|>")[0] for example in examples)
        learned = tokenizer.decode(targets[targets != -100])
        assert learned == answers
        at = torch.nonzero(targets != -100).flatten()
        assert torch.equal(ids[at + 1], targets[at])


def test_every_row_of_a_batch_is_filled_with_whole_examples() -> None:
    tokenizer = build_tokenizer(LENGTH)

    for batch in islice(Packer(tokenizer, TINY.draw("train"), Random(1), rows=ROWS, length=LENGTH), 10):
        assert batch.ids.shape == batch.targets.shape == (ROWS, LENGTH)
        for row in map(tokenizer.decode, batch.ids):
            assert row.replace("<|pad|>", "").endswith(END)
            assert row.count("<|user|>") == row.count(END) >= 1


def train_a_little(name: str, recipe: Recipe, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some steps of *recipe*, counted by a clock on which each takes a tenth of the budget; nothing is compiled."""
    ticks = iter(range(10_000))
    monkeypatch.setitem(RECIPES, name, recipe)
    monkeypatch.setattr(training.time, "process_time", lambda: 6.0 * next(ticks))
    monkeypatch.setattr(training, "accuracy", lambda *args, **kwargs: evaluate.accuracy(*args, **{**kwargs, "num_questions": 2}))
    training.train(name, weights=weights, compiled=False)


def test_a_few_steps_write_a_folder_that_transformers_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train_a_little("tiny", TINY, tmp_path, monkeypatch)

    model = AutoModelForCausalLM.from_pretrained(tmp_path / "tiny", dtype="auto")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "tiny")
    assert (model.dtype, model.config.hidden_size, model.config.head_dim) == (torch.bfloat16, 32, 32)
    rendered = tokenizer.apply_chat_template([{"role": "user", "content": "What is true?"}], tokenize=False, add_generation_prompt=True)
    assert rendered == "<|user|>What is true?<|assistant|>"
    assert model.generate(**tokenizer("x", return_tensors="pt", return_token_type_ids=False), max_new_tokens=2).shape[0] == 1


def test_training_changes_the_adapter_and_leaves_its_base_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train_a_little("tiny", TINY, tmp_path, monkeypatch)
    before = (tmp_path / "tiny" / "model.safetensors").read_bytes()
    adapter = Recipe(TINY.draw, minutes=1, base="tiny", lora_rank=8, rows=ROWS, row_length=LENGTH)

    train_a_little("tiny-adapter", adapter, tmp_path, monkeypatch)

    base = AutoModelForCausalLM.from_pretrained(tmp_path / "tiny")
    adapted = PeftModel.from_pretrained(base, tmp_path / "tiny-adapter")
    grown = [value for key, value in adapted.state_dict().items() if "lora_B" in key]
    assert len(grown) == 7
    assert all(value.abs().sum() > 0 for value in grown)
    assert (tmp_path / "tiny" / "model.safetensors").read_bytes() == before


def test_the_loss_falls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses: list[float] = []
    plain = torch.nn.functional.cross_entropy

    def recorded(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        loss = plain(logits, targets)
        losses.append(loss.item())
        return loss

    monkeypatch.setattr(training.F, "cross_entropy", recorded)

    train_a_little("tiny", TINY, tmp_path, monkeypatch)

    assert len(losses) >= 5
    assert losses[-1] < losses[0]


def test_the_aggregator_is_trained_on_the_prompt_that_the_service_sends() -> None:
    question = Question("What is 2+2?", "4", "arithmetic", "addition", history=(("1+1", "2"),))
    answers = ["3", " 4 \n", "a  long answer " * 20]

    trained = with_candidates(question, [*answers, "4"])
    conversation: list[Message] = [
        {"role": "user", "content": "1+1"},
        {"role": "assistant", "content": "2"},
        {"role": "user", "content": question.text},
    ]
    served = fuse_messages(conversation, [*answers, "4"], "compact")

    assert [message["content"] for message in served] == ["1+1", "2", trained.text]


@pytest.mark.parametrize(("answer", "verdict"), [("4", 1.0), (" 5\n", 0.0)])
def test_the_judge_is_trained_on_the_prompt_that_the_service_sends_and_says_what_it_reads(answer: str, verdict: float) -> None:
    question = Question("And doubled?", "4", "arithmetic", "addition", think="2+2", history=(("1+1", "2"),))
    small = ExpertCard("judge", Backend.EMBEDDED, model="judge", aggregation_prompt="compact")
    conversation: list[Message] = [
        {"role": "user", "content": "1+1"},
        {"role": "assistant", "content": "2"},
        {"role": "user", "content": question.text},
    ]

    trained = with_verdict(question, answer)
    served = judge_messages(small, conversation, Candidate("a", (Choice({"role": "assistant", "content": answer}),)))

    assert [message["content"] for message in served] == ["1+1", "2", trained.text]
    assert read_verdict(trained.completion) == verdict
