"""What the weight α of the instruction router should be: ``python benchmarks/instruction_weight.py``.

On the zoo's measured questions, in five folds: the share of queries that go to an expert that answered rightly, for instructions as
good as they can be (the name and description of the query's skill), and for none (the query stands for it). With what cards
declare, and with nothing but the questions that experts win.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from rich.console import Console
from rich.table import Table

from domain.experts import ExpertCard, ExpertRole
from domain.outcomes import OutcomeTable, floats
from domain.registry import RegistrySnapshot
from domain.skills import SkillCount, SkillProfile
from experts_registry.manifest import load_manifest
from routers.encoder import DEFAULT_MODEL, Encoder
from routers.instructions import Instructions, InstructionsRecipe, global_shares
from routers.learned.base import Features, Floats
from routers.training_data import TrainingData
from zoo import release

ALPHAS = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
NUM_FOLDS = 5


def profiles(ids: list[str], skills: list[str], scores: Floats) -> dict[str, SkillProfile]:
    """What *ids* scored (n, experts) on questions of these *skills* (n)."""
    counts: dict[str, dict[str, SkillCount]] = {expert_id: {} for expert_id in ids}
    for skill, row in zip(skills, scores, strict=True):
        for expert_id, score in zip(ids, row, strict=True):
            counts[expert_id][skill] = counts[expert_id].get(skill, SkillCount()) + SkillCount(1, int(score))
    return {expert_id: SkillProfile(expert_id, by_skill) for expert_id, by_skill in counts.items()}


def choices(made: Instructions, instructions: Floats, queries: Floats, alpha: float) -> list[int]:
    """The expert with the best score for each query."""
    pairs = zip(instructions, queries, strict=True)
    return [int(np.argmax(alpha * global_shares(made.similarities(i)[0]) + (1 - alpha) * made.local(q))) for i, q in pairs]


async def main() -> None:
    manifest, console = load_manifest(release.manifest_text()), Console(width=120)
    cards = [card for card in manifest.to_cards() if ExpertRole.CANDIDATE in card.roles]
    ids = [card.id for card in cards]
    questions = {row["id"]: row for row in release.labelled_questions()}
    right: dict[str, set[str]] = {question_id: set() for question_id in questions}
    for row in release.outcomes():
        if row["correct"]:
            right[row["question_id"]].add(row["expert_id"])
    texts = [row["question"] for row in questions.values()]
    skills = [row["skills"][0] for row in questions.values()]
    scores = np.array([[float(expert_id in right[question_id]) for expert_id in ids] for question_id in questions], np.float32)
    folds = np.random.default_rng(0).integers(0, NUM_FOLDS, len(texts))
    with tempfile.TemporaryDirectory() as folder:
        encoder = Encoder.for_model(DEFAULT_MODEL, cache_dir=Path(folder), num_threads=os.cpu_count() or 1)
        await encoder.start()
        vectors = await encoder.encode(texts)
        ideal = await encoder.encode([f"{skill}: {manifest.skills[skill]}" for skill in skills])
        table = Table("cards", "instruction", *(f"α {alpha:g}" for alpha in ALPHAS), title="Right answers")
        for declares in (True, False):
            found: dict[tuple[str, float], list[float]] = {}
            for fold in range(NUM_FOLDS):
                train, test = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
                known = cards if declares else [bare(card) for card in cards]
                measured = profiles(ids, [skills[row] for row in train], scores[train]) if declares else {}
                described = manifest.skills if declares else {}
                snapshot = RegistrySnapshot(1, 1, {card.id: card for card in known}, {}, described, measured)
                outcomes = OutcomeTable(tuple(texts[row] for row in train), tuple(ids), floats(scores[train].ravel().tolist()))
                data = TrainingData(Features(outcomes.questions, vectors[train]), outcomes)
                made = await InstructionsRecipe(encoder).make(data, snapshot)
                for name, instructions in (("ideal", ideal), ("none", vectors)):
                    for alpha in ALPHAS:
                        chosen = choices(made, instructions[test], vectors[test], alpha)
                        found.setdefault((name, alpha), []).extend(scores[test, chosen].tolist())
            for name in ("ideal", "none"):
                figures = (f"{np.mean(found[name, alpha]):.3f}" for alpha in ALPHAS)
                table.add_row("as they are" if declares else "nothing declared", name, *figures)
        await encoder.close()
    console.print(table)
    console.print(f"best single expert {scores.mean(axis=0).max():.3f}, oracle {scores.max(axis=1).mean():.3f}")


def bare(card: ExpertCard) -> ExpertCard:
    return replace(card, description="", skills=(), exemplars=())


if __name__ == "__main__":
    asyncio.run(main())
