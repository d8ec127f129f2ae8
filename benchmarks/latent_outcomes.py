"""How far outcomes could be foreseen at all: an item response model of a table of outcomes, and what it says of any router.

An outcome is one draw: had an expert been asked again it might have answered otherwise, and an oracle that picks among nine draws wins
by luck too. So no router, however good, closes the whole gap to it. How much of the gap is luck is estimated with a multidimensional
item response model (Reckase 2009) in which questions are drawn and experts are fixed: of a question of task t

    P(expert e is right) = 1 / (1 + exp(-(c[t, e] + w[t, e] · z))),   z ~ N(0, 1) in r dimensions,

fitted by the marginal likelihood (the integral over z is a mean over fixed quasi-random points; Bock and Aitkin 1981), with normal priors
around what an expert does in all tasks. Rank and prior are those under which unseen questions are likeliest.

What it cannot see: knowledge that one expert alone has and that nobody else's answers betray counts as luck. The ceiling is therefore
that of what experts have in common; where it stands above what routers reach, the difference is not in the texts, or not learnt yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_INTERCEPT_SPREAD = 1.5
"""Standard deviation of the prior of ``c``, in logits, around the expert's own."""
_SHARED_SPREAD = 3.0
"""Of the prior of what an expert does in all tasks: next to none."""
_NUM_POINTS = 512
_MAX_ROUNDS = 400


@dataclass(frozen=True, slots=True)
class LatentModel:
    """Fitted."""

    intercepts: Floats
    """(T, E) logits."""
    loadings: Floats
    """(T, E, r)"""

    @property
    def rank(self) -> int:
        return int(self.loadings.shape[2])

    def probabilities(self, points: Floats) -> Floats:
        """(T, S, E) of questions that stand at *points* (S, r)."""
        return _sigmoid(self.intercepts[:, None, :] + np.einsum("ter,sr->tse", self.loadings, points))

    def log_likelihood(self, outcomes: Floats, task: Ints) -> float:
        """Mean logarithm (base 2) of the marginal likelihood of a question's *outcomes* (N, E), per outcome: bits, 0 at most."""
        _, total = _posterior(self.probabilities(_points(self.rank)), outcomes, task)
        return float(total / outcomes.size / np.log(2))


@dataclass(frozen=True, slots=True)
class Ceiling:
    """What a table would look like that was drawn from a model, and what routers could get on it. Mean scores."""

    best_single: float
    perfect_task: float
    """Of who takes the best expert of the question's task."""
    true_probabilities: float
    """Of who knows each question's true probabilities, and nothing of the draw."""
    oracle: float
    """Of who knows the draw."""
    one_right: float
    """Share of questions that exactly one expert has right."""

    def closed(self, accuracy: float) -> float:
        """Share of the gap between the best single expert and the oracle."""
        return (accuracy - self.best_single) / (self.oracle - self.best_single)


def fit(outcomes: Floats, task: Ints, num_tasks: int, *, rank: int, spread: float) -> LatentModel:
    """The model of *outcomes* (N, E) in {0, 1} of questions of tasks *task* (N,). *spread* is the standard deviation of the prior of a
    task's loadings around the expert's own. Deterministic."""
    from scipy.optimize import minimize

    num_experts = outcomes.shape[1]
    points = _points(rank)
    shape = (num_tasks + 1, num_experts, 1 + rank)
    """The last task is what an expert does in all of them."""
    scale = np.array([_INTERCEPT_SPREAD] + [spread] * rank)

    def loss(flat: Floats) -> tuple[float, Floats]:
        values = flat.reshape(shape)
        model = LatentModel(values[:-1, :, 0], values[:-1, :, 1:])
        probabilities = model.probabilities(points)
        weights, total = _posterior(probabilities, outcomes, task)
        gradient = np.zeros(shape)
        for number in range(num_tasks):
            mine = task == number
            residual = weights[mine].T @ outcomes[mine] - weights[mine].sum(axis=0)[:, None] * probabilities[number]
            gradient[number, :, 0] = -residual.sum(axis=0)
            gradient[number, :, 1:] = -residual.T @ points
        away = (values[:-1] - values[-1]) / scale
        gradient[:-1] += away / scale
        gradient[-1] = -(away / scale).sum(axis=0) + values[-1] / _SHARED_SPREAD**2
        penalty = 0.5 * np.square(away).sum() + 0.5 * np.square(values[-1] / _SHARED_SPREAD).sum()
        return -total + float(penalty), gradient.ravel()

    # Loadings that begin at zero would stay there: z and -z are alike.
    start = np.zeros(shape)
    start[:, :, 1:] = 0.5 * np.random.default_rng(0).standard_normal((num_experts, rank))
    found = minimize(loss, start.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": _MAX_ROUNDS}).x.reshape(shape)
    return LatentModel(found[:-1, :, 0], found[:-1, :, 1:])


def held_out(outcomes: Floats, task: Ints, num_tasks: int, *, rank: int, spread: float, folds: Sequence[tuple[Ints, Ints]]) -> float:
    """Bits per outcome of questions that a model was not fitted on, mean over *folds* (train, test)."""
    bits = [
        fit(outcomes[train], task[train], num_tasks, rank=rank, spread=spread).log_likelihood(outcomes[test], task[test])
        for train, test in folds
    ]
    return float(np.mean(bits))


def ceiling(model: LatentModel, shares: Floats, *, num_draws: int = 20_000, seed: int = 0) -> Ceiling:
    """*shares* (T,) of the questions that each task has."""
    rng = np.random.default_rng(seed)
    probabilities = model.probabilities(rng.standard_normal((num_draws, model.rank)))
    drawn = rng.random(probabilities.shape) < probabilities
    by_task = probabilities.mean(axis=1)
    return Ceiling(
        best_single=float((shares @ by_task).max()),
        perfect_task=float(shares @ by_task.max(axis=1)),
        true_probabilities=float(shares @ probabilities.max(axis=2).mean(axis=1)),
        oracle=float(shares @ drawn.any(axis=2).mean(axis=1)),
        one_right=float(shares @ (drawn.sum(axis=2) == 1).mean(axis=1)),
    )


def _points(rank: int) -> Floats:
    """(S, r) that stand for a normal distribution; one where there is nothing to stand for."""
    from scipy.stats import norm, qmc

    if not rank:
        return np.zeros((1, 0))
    return np.asarray(norm.ppf(qmc.Sobol(rank, rng=np.random.default_rng(0)).random(_NUM_POINTS)), np.float64)


def _posterior(probabilities: Floats, outcomes: Floats, task: Ints) -> tuple[Floats, float]:
    """How likely each point is for each question (N, S), and the marginal log likelihood of all."""
    inside = np.clip(probabilities, 1e-9, 1 - 1e-9)
    right, wrong = np.log(inside), np.log1p(-inside)
    weights, total = np.empty((len(outcomes), probabilities.shape[1])), 0.0
    for number in range(len(probabilities)):
        mine = task == number
        joint = outcomes[mine] @ right[number].T + (1 - outcomes[mine]) @ wrong[number].T
        highest = joint.max(axis=1, keepdims=True, initial=-np.inf)
        raised = np.exp(joint - highest)
        sums = raised.sum(axis=1, keepdims=True)
        weights[mine] = raised / sums
        total += float((highest + np.log(sums / probabilities.shape[1])).sum())
    return weights, total


def _sigmoid(logits: Floats) -> Floats:
    values: Floats = 1 / (1 + np.exp(-np.clip(logits, -30, 30)))
    return values
