"""Boolean logic: expressions with brackets, and statements that are true or false."""

from __future__ import annotations

from random import Random

from zoo.questions.base import Question, Split, choose_phrasing, draw, dress

_WORD = {True: "true", False: "false"}
_LETTER = {True: "T", False: "F"}
_APPLY = {
    "and": lambda a, b: a and b,
    "or": lambda a, b: a or b,
    "xor": lambda a, b: a != b,
}
_EXPRESSION = (
    "Evaluate: {x}", "What is {x}?", "Is {x} true or false?", "Simplify the boolean expression {x}.", "{x} = ?", "Give the truth value of {x}.",
    "Compute the logical value of {x}.", "What does {x} evaluate to?", "True or false: {x}?", "Boolean logic: {x}",
)  # fmt: skip
_EXPRESSION_TRICKY = (
    "On Monday the lamp rule is {x}. What is its value?", "In Paris they wrote {x}. True or false?", "Chapter 7 asks for the value of {x}.",
    "In {n} words or fewer: what is {x}?", "The iron gate opens if {x}. Is that true or false?", "After {n} days the answer to {x} is?",
)  # fmt: skip
# Statements have 16 sets of operands, all trained: of these phrasings the last ones are held out, two each for validation and test.
_NUM_HELD_OUT = 2
_PAIRS = (
    "P is {p} and Q is {q}. What is P {o} Q?", "If P is {p} and Q is {q}, what is P {o} Q?", "Let P be {p} and Q be {q}. Evaluate P {o} Q.",
    "Given P = {p}, Q = {q}: P {o} Q?",
    "With P {p} and Q {q}, what is P {o} Q?", "Let P = {p} and Q = {q}. What is P {o} Q?",
    "Suppose P is {p} and Q is {q}. What is P {o} Q?", "P = {p}, Q = {q}. Evaluate P {o} Q.",
)  # fmt: skip
_PAIRS_TRICKY = (
    "The claim about the capital is {p}, the claim about the date is {q}. What is the first {o} the second?",
    "The chemist's claim is {p}, the grocer's {q}. What is the first {o} the second?",
    "Tuesday's test was {p}, Friday's {q}. What is the first {o} the second?",
    "The first letter's claim is {p}, the second's {q}. What is the first {o} the second?",
    "Rome's answer was {p}, Oslo's {q}. What is the first {o} the second?",
    "The word on page 3 is {p}, the word on page 8 is {q}. What is the first {o} the second?",
    "March's reading was {p}, April's {q}. What is the first {o} the second?",
    "The claim about copper is {p}, the claim about gold is {q}. What is the first {o} the second?",
)  # fmt: skip
_IMPLIES = (
    "P is {p} and Q is {q}. Does P imply Q?", "If P is {p} and Q is {q}, is 'P implies Q' true or false?", "Given P = {p}, Q = {q}: P implies Q?",
    "Let P be {p} and Q be {q}. Does P imply Q?", "If P is {p} and Q is {q}, does P imply Q?",
    "Given P = {p}, Q = {q}: does P imply Q?", "P is {p} and Q is {q}. Is 'P implies Q' true or false?",
)  # fmt: skip


class _Expression:
    """A random expression with its value and the steps that reduce it."""

    def __init__(self, rng: Random, depth: int) -> None:
        if depth == 0 or rng.random() < 0.15:
            self.value = rng.random() < 0.5
            self.text = _WORD[self.value]
            self.steps: list[str] = []
        elif rng.random() < 0.3:
            inner = _Expression(rng, depth - 1)
            self.value = not inner.value
            self.text = f"not {inner.text}" if inner.text in ("true", "false") else f"not ({inner.text})"
            self.steps = [*inner.steps, f"~{_LETTER[inner.value]}={_LETTER[self.value]}"]
        else:
            left, right = _Expression(rng, depth - 1), _Expression(rng, depth - 1)
            op = rng.choice(("and", "or", "xor", "and", "or"))
            self.value = _APPLY[op](left.value, right.value)
            self.text = f"{left._bracketed()} {op} {right._bracketed()}"
            step = f"{_LETTER[left.value]} {op} {_LETTER[right.value]}={_LETTER[self.value]}"
            self.steps = [*left.steps, *right.steps, step]

    def _bracketed(self) -> str:
        return f"({self.text})" if " and " in self.text or " or " in self.text or " xor " in self.text else self.text


def _expression(rng: Random) -> tuple[str, _Expression]:
    while True:
        expression = _Expression(rng, rng.choice((1, 2, 2, 3)))
        if 1 <= len(expression.steps) <= 6 and len(expression.text) <= 60:
            return f"logic:{expression.text}", expression


def generate(rng: Random, split: Split, *, tricky: bool = False) -> Question:
    tricky = tricky or rng.random() < 0.15
    roll = rng.random()
    if roll < 0.7:
        e = draw(split, lambda: _expression(rng))
        phrasing = rng.choice(_EXPRESSION_TRICKY if tricky else _EXPRESSION)
        text = phrasing.format(x=e.text, n=rng.randint(2, 20))
        return Question(dress(rng, text), _WORD[e.value], "logic", "boolean expressions", " ".join(e.steps), tricky=tricky)
    p, q = rng.random() < 0.5, rng.random() < 0.5
    if roll < 0.9 or tricky:
        op = rng.choice(("and", "or", "xor"))
        value = _APPLY[op](p, q)
        phrasing = choose_phrasing(rng, split, _PAIRS_TRICKY if tricky else _PAIRS, num_held_out=_NUM_HELD_OUT)
        text = phrasing.format(p=_WORD[p], q=_WORD[q], o=op)
        think = f"{_LETTER[p]} {op} {_LETTER[q]}={_LETTER[value]}"
        return Question(dress(rng, text), _WORD[value], "logic", "truth of statements", think, tricky=tricky)
    value = (not p) or q
    text = choose_phrasing(rng, split, _IMPLIES, num_held_out=_NUM_HELD_OUT).format(p=_WORD[p], q=_WORD[q])
    think = f"~{_LETTER[p]} or {_LETTER[q]}={_LETTER[value]}"
    return Question(dress(rng, text), _WORD[value], "logic", "truth of statements", think)
