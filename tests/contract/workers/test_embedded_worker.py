"""What is particular to experts in this process."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from safetensors.torch import load_file, save_file

from domain.errors import ExpertOverloaded, ExpertProtocolError, ExpertUnreachable
from domain.experts import Backend, ExpertCard
from domain.plan import Candidate
from tests.contract.workers.cases import Case, call_of, embedded_case, streamed
from tests.contract.workers.tiny_models import write_adapter, write_random_model
from workers.embedded.decoder import Decoder
from workers.embedded.engine import Engine
from workers.embedded.folder import ExpertFolder, find_folder
from workers.embedded.model import LoadedModel
from workers.embedded.sequence import Sequence
from workers.embedded.worker import EmbeddedWorker
from workers.limits import EmbeddedLimits
from workers.pool import WorkerPool

ZOO = Path(__file__).parents[3] / "zoo" / "weights"


@pytest.fixture(name="folder", scope="module")
def _folder(models_folder: Path) -> Path:
    write_random_model(models_folder / "random")
    write_adapter(models_folder / "adapted", "random")
    return models_folder


@pytest.fixture(name="case")
async def _case(folder: Path) -> AsyncIterator[Case]:
    async with embedded_case(folder) as case:
        yield case


@pytest.fixture(name="random_card")
def _random_card(case: Case) -> ExpertCard:
    return replace(case.speaker, id="random", model="random")


def texts_of(case: Case, card: ExpertCard, **params: Any) -> Any:
    return asyncio.gather(*(case.pool.complete(call_of(card, text=f"{'ab' * i}?", max_tokens=24, **params)) for i in range(12)))


async def test_who_shares_the_batch_changes_no_answer(case: Case, random_card: ExpertCard) -> None:
    """Prompts of different lengths, together and one by one."""
    together = [candidate.text for candidate in await texts_of(case, random_card)]
    alone = [(await case.pool.complete(call_of(random_card, text=f"{'ab' * i}?", max_tokens=24))).text for i in range(12)]

    assert together == alone
    assert len(set(together)) > 6


async def test_calls_at_once_advance_in_one_step(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight answers of 24 tokens take hardly more steps of the decoder than one of them, each for all eight."""
    card = replace(case.speaker, id="endless", model="endless")
    await case.pool.warm([card])
    rows: list[int] = []
    submitted: list[Sequence] = []
    everybody = threading.Event()
    submit, prefill, step = Engine.submit, Decoder.prefill, Decoder.step

    def counted(engine: Engine, sequences: list[Sequence]) -> None:
        submit(engine, sequences)
        submitted.extend(sequences)
        if len(submitted) == 8:
            everybody.set()

    def begun(decoder: Decoder, *arguments: Any) -> Any:
        assert everybody.wait(10)  # whoever is first does not run ahead, however the threads are scheduled
        return prefill(decoder, *arguments)

    def seen(decoder: Decoder, cache: Any, tokens: list[int], positions: list[int]) -> Any:
        rows.append(len(tokens))
        return step(decoder, cache, tokens, positions)

    monkeypatch.setattr(Engine, "submit", counted)
    monkeypatch.setattr(Decoder, "prefill", begun)
    monkeypatch.setattr(Decoder, "step", seen)
    candidates = await asyncio.gather(*(case.pool.complete(call_of(card, text=f"{i}?", max_tokens=24)) for i in range(8)))

    assert [candidate.text for candidate in candidates] == ["klm" * 8] * 8
    assert max(rows) == 8
    assert len(rows) < 2 * 24 < sum(rows)


async def test_a_seed_gives_the_same_draws_in_any_company(case: Case, random_card: ExpertCard) -> None:
    call = call_of(random_card, temperature=1.5, seed=7, max_tokens=24, n=2)
    alone = await case.pool.complete(call)
    together = (await asyncio.gather(texts_of(case, random_card, temperature=2), case.pool.complete(call)))[1]
    other = await case.pool.complete(call_of(random_card, temperature=1.5, seed=8, max_tokens=24, n=2))

    assert [choice.text for choice in alone.choices] == [choice.text for choice in together.choices]
    assert alone.choices[0].text != alone.choices[1].text
    assert alone.choices[0].text != other.choices[0].text


async def test_an_adapter_answers_unlike_its_base(case: Case, random_card: ExpertCard) -> None:
    """And can be named with its base or by what its folder says."""
    adapted = replace(random_card, id="adapted", model="adapted")
    told = replace(adapted, adapter_of="random")
    base, first, second = await asyncio.gather(*(case.pool.complete(call_of(card, max_tokens=24)) for card in (random_card, adapted, told)))

    assert first.text == second.text
    assert first.text != base.text


@pytest.mark.parametrize(
    "name",
    ["model.layers.0.mlp.up_proj.lora_B.bias", "model.embed_tokens.lora_embedding_A", "lm_head.weight", "lm_head.base_layer.weight"],
)
async def test_an_adapter_that_is_more_than_low_rank_additions_is_refused(case: Case, folder: Path, name: str) -> None:
    """Nothing of it is left out silently. What it repeats of its base model may be left out."""
    base = load_file(folder / "random" / "model.safetensors")
    for kind, tensor in (("changed", torch.ones(4, 4)), ("same", base["lm_head.weight"])):
        adapter = write_adapter(folder / f"{name}-{kind}", "random")
        tensors = load_file(adapter / "adapter_model.safetensors") | {f"base_model.model.{name}": tensor}
        save_file(tensors, adapter / "adapter_model.safetensors")
        card = replace(case.speaker, model=adapter.name)
        if kind == "same" and name.startswith("lm_head"):
            await case.pool.warm([card])
        else:
            with pytest.raises(ExpertUnreachable, match=f"{name}.*vLLM"):
                await case.pool.warm([card])


async def test_only_short_prompts_are_rendered_on_the_event_loop(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """A millisecond there is one for every other request."""
    threads: list[threading.Thread] = []
    render = LoadedModel.prompt_of

    def seen(model: LoadedModel, messages: Any, params: Any) -> list[int]:
        threads.append(threading.current_thread())
        return render(model, messages, params)

    monkeypatch.setattr(LoadedModel, "prompt_of", seen)
    for num_messages, num_chars in ((1, 800), (1, 1600), (120, 1)):
        call = call_of(case.speaker, text="a" * num_chars)
        await case.pool.complete(replace(call, messages=call.messages * num_messages))

    assert [thread is threading.current_thread() for thread in threads] == [True, False, False]


async def test_more_sequences_than_places_are_all_answered(folder: Path) -> None:
    worker = EmbeddedWorker(folder, EmbeddedLimits(max_batch=3, max_prefill_tokens=20))
    await worker.start()
    card = ExpertCard("endless", Backend.EMBEDDED, "endless")
    candidates = await asyncio.gather(*(worker.complete(call_of(card, max_tokens=n)) for n in range(1, 20)))
    await worker.close()

    assert [candidate.text for candidate in candidates] == [("klm" * 7)[:n] for n in range(1, 20)]


async def test_a_full_queue_refuses_at_once(folder: Path) -> None:
    worker = EmbeddedWorker(folder, EmbeddedLimits(max_waiting=2))
    await worker.start()
    card = ExpertCard("endless", Backend.EMBEDDED, "endless")
    with pytest.raises(ExpertOverloaded, match="queue is full"):
        await worker.complete(call_of(card, n=3))
    await worker.close()


async def test_stop_strings_do_not_end_the_reasoning(case: Case) -> None:
    candidate = await case.pool.complete(call_of(case.speaker, stop=["w"]))

    assert candidate.choices[0].message["reasoning_content"] == "qw"
    assert candidate.text == "abcdefghij"


async def test_a_constrained_answer_has_no_reasoning_and_fits_the_token_limit(case: Case, random_card: ExpertCard) -> None:
    schema = {
        "type": "object",
        "properties": {"words": {"type": "array", "items": {"type": "string"}}, "size": {"enum": ["small", "large"]}},
        "required": ["words", "size"],
        "additionalProperties": False,
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    for limit in (48, 120):
        call = call_of(random_card, response_format=wanted, max_tokens=limit, temperature=1, seed=limit)
        choice = (await case.pool.complete(call)).choices[0]

        assert choice.finish_reason == "stop"
        assert "reasoning_content" not in choice.message
        assert "<think>" not in choice.text
        jsonschema.validate(json.loads(choice.text), schema)


async def test_json_object_is_some_object(case: Case, random_card: ExpertCard) -> None:
    candidate = await case.pool.complete(call_of(random_card, response_format={"type": "json_object"}, max_tokens=60))

    assert isinstance(json.loads(candidate.text), dict)


async def test_one_of_several_tools_is_called(case: Case, random_card: ExpertCard) -> None:
    tools = [
        {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {}}}} for name in ("up", "down")
    ]
    choice = (await case.pool.complete(call_of(random_card, tools=tools, tool_choice="required"))).choices[0]

    assert choice.message["content"] is None
    assert choice.message["tool_calls"][0]["function"]["name"] in {"up", "down"}
    assert isinstance(json.loads(choice.message["tool_calls"][0]["function"]["arguments"]), dict)


async def test_with_tool_choice_auto_the_answer_is_plain(case: Case) -> None:
    tools = [{"type": "function", "function": {"name": "up"}}]
    candidate = await case.pool.complete(call_of(case.speaker, tools=tools, tool_choice="auto"))

    assert candidate.text == "abcdefghij"


async def test_a_folder_that_is_not_there_suggests_the_nearest(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """And is looked for once."""
    looked: list[ExpertCard] = []

    def look(card: ExpertCard, embedded_dir: Path) -> ExpertFolder:
        looked.append(card)
        return find_folder(card, embedded_dir)

    monkeypatch.setattr("workers.embedded.worker.find_folder", look)
    with pytest.raises(ExpertUnreachable, match="did you mean 'speaker'"):
        await case.pool.complete(call_of(replace(case.speaker, model="speeker")))

    assert len(looked) == 1


async def test_a_broken_folder_says_what_is_wrong(case: Case, folder: Path) -> None:
    (folder / "empty").mkdir(exist_ok=True)
    (folder / "gpt").mkdir(exist_ok=True)
    (folder / "gpt" / "config.json").write_text('{"model_type": "gpt2"}')
    (folder / "cut").mkdir(exist_ok=True)
    (folder / "cut" / "config.json").write_text((folder / "random" / "config.json").read_text())
    (folder / "cut" / "model.safetensors").write_bytes(b"\x10\x00")

    (folder / "scribble").mkdir(exist_ok=True)
    (folder / "scribble" / "adapter_config.json").write_text("{not json")
    (folder / "worded").mkdir(exist_ok=True)
    for path in (folder / "adapted").iterdir():
        (folder / "worded" / path.name).write_bytes(path.read_bytes().replace(b'"lora_alpha": 8', b'"lora_alpha": "8"'))
    names = {"empty": r"no config\.json", "gpt": "serve it with vLLM", "cut": "cannot be loaded", "scribble": "cannot be read"}
    for name, message in (names | {"worded": "cannot be loaded", "x" * 300: "File name too long"}).items():
        with pytest.raises(ExpertUnreachable, match=message) as caught:
            await case.pool.warm([replace(case.speaker, model=name)])
        assert not caught.value.retryable


async def test_a_failing_step_fails_its_own_sequences_only(case: Case, random_card: ExpertCard, monkeypatch: pytest.MonkeyPatch) -> None:
    await case.pool.warm([random_card])
    worker: Any = case.pool._workers[Backend.EMBEDDED]
    broken = worker._models[("random", None)]

    def fail(*_: object) -> None:
        msg = "out of memory"
        raise RuntimeError(msg)

    monkeypatch.setattr(broken.decoder, "prefill", fail)
    outcomes = await asyncio.gather(worker.complete(call_of(random_card)), worker.complete(call_of(case.speaker)), return_exceptions=True)

    assert isinstance(outcomes[0], ExpertProtocolError)
    assert "out of memory" in outcomes[0].message
    assert outcomes[1].text == "abcdefghij"
    monkeypatch.undo()
    assert (await worker.complete(call_of(random_card, max_tokens=3))).usage.completion_tokens == 3


async def test_a_step_that_fails_is_not_tried_again(case: Case, random_card: ExpertCard, monkeypatch: pytest.MonkeyPatch) -> None:
    await case.pool.warm([random_card])
    worker: Any = case.pool._workers[Backend.EMBEDDED]
    failures = []

    def fail(*_: object) -> None:
        failures.append(1)
        msg = "out of memory"
        raise RuntimeError(msg)

    monkeypatch.setattr(worker._models["random", None].decoder, "prefill", fail)
    for run in (case.pool.complete(call_of(random_card)), streamed(case, call_of(random_card))):
        with pytest.raises(ExpertProtocolError, match="out of memory"):
            await run

    assert len(failures) == 2


async def test_a_sequence_that_cannot_go_on_fails_alone(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """It shares its batch with one that goes on, is not tried again, and says nothing about the expert."""
    choose, failures = Sequence.choose, []

    def fail_third(sequence: Sequence, logits: Any) -> Any:
        if sequence.num_tokens == 2:
            failures.append(1)
            msg = "no token is left"
            raise ValueError(msg)
        return choose(sequence, logits)

    monkeypatch.setattr(Sequence, "choose", fail_third)
    sampled = call_of(case.endless, max_tokens=60, temperature=1, top_k=1)
    good, bad = await asyncio.gather(
        case.pool.complete(call_of(case.endless, max_tokens=60)), case.pool.complete(sampled), return_exceptions=True
    )

    assert isinstance(bad, ExpertProtocolError)
    assert "no token is left" in bad.message
    assert not bad.expert_at_fault
    assert len(failures) == 1
    assert isinstance(good, Candidate)
    assert good.text == "klm" * 20


async def test_closing_fails_what_still_runs(folder: Path) -> None:
    pool = WorkerPool(embedded_dir=folder)
    card = ExpertCard("endless", Backend.EMBEDDED, "endless")
    stream = pool.stream(call_of(card))
    await anext(stream)
    await pool.close()

    with pytest.raises(ExpertUnreachable, match="shutting down"):
        async for _ in stream:
            pass


async def test_a_slow_reader_gets_larger_pieces_of_the_same_text(case: Case) -> None:
    stream = case.pool.stream(call_of(case.endless, max_tokens=300))
    first = await anext(stream)
    await case.until_idle()  # everything is produced, nothing more was read
    rest = [chunk async for chunk in stream]
    text = "".join(piece.delta.get("content", "") for chunk in (first, *rest) for piece in chunk.choices)

    assert text == "klm" * 100
    assert len(rest) < 10


async def test_memory_of_the_cache_is_given_back(case: Case, random_card: ExpertCard) -> None:
    await texts_of(case, random_card)
    worker: Any = case.pool._workers[Backend.EMBEDDED]
    await case.until_idle()

    assert worker._engine._batches == {}


async def test_the_zoo_answers_a_question() -> None:
    """A trained expert, read from the repository."""
    card = ExpertCard("numerals", Backend.EMBEDDED, "numerals")
    pool = WorkerPool(embedded_dir=ZOO)
    candidate = await pool.complete(call_of(card, text="Write MCMXCIV in Arabic numerals."))
    await pool.close()

    assert candidate.text == "1994"


async def test_streamed_json_is_the_same_as_plain(case: Case, random_card: ExpertCard) -> None:
    call = call_of(random_card, response_format={"type": "json_object"}, max_tokens=60)
    plain = await case.pool.complete(call)
    stream = await streamed(case, call)

    assert stream.contents[0] == plain.text
