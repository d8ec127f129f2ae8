"""Held-out accuracy of a decoder that is still in training form."""

from __future__ import annotations

from random import Random

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from zoo.training.data import Draw, prompt_of
from zoo.training.model import Decoder


def merged_model(decoder: Decoder) -> LlamaForCausalLM:
    """A float32 copy of the model with its low-rank additions, if any, folded in; rounded to bfloat16 as it is served."""
    model = LlamaForCausalLM(decoder.config).float().eval()
    state = {k: v.detach().bfloat16().float() for k, v in decoder.model.state_dict().items()}
    for key, b in decoder.lora.items():
        if key.endswith("/B"):
            layer, linear = key.removesuffix("/B").split(":", 1)
            name = f"model.layers.{layer}.{linear.replace('/', '.')}.weight"
            delta = b.detach().bfloat16().float() @ decoder.lora[key.removesuffix("B") + "A"].detach().bfloat16().float()
            state[name] = state[name] + decoder.lora_scale * delta
    model.load_state_dict(state)
    return model


@torch.inference_mode()
def complete(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, prompts: list[str], *, max_new_tokens: int = 220) -> list[str]:
    """Greedy completions of *prompts*, in order, special tokens dropped."""
    tokenizer.padding_side = "left"
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    out = [""] * len(prompts)
    for start in range(0, len(order), 128):
        part = order[start : start + 128]
        inputs = tokenizer([prompts[i] for i in part], return_tensors="pt", padding=True, return_token_type_ids=False)
        ids = model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False, pad_token_id=tokenizer.pad_token_id)
        texts = tokenizer.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        for i, text in zip(part, texts, strict=True):
            out[i] = text
    return out


def answer_of(completion: str) -> str:
    """The answer without its reasoning."""
    return completion.rsplit("</think>", 1)[-1].strip()


def accuracy(decoder: Decoder, tokenizer: PreTrainedTokenizerFast, draw: Draw, *, num_questions: int, seed: int = 99) -> float:
    """Share of *num_questions* drawn questions that the model answers exactly."""
    rng = Random(seed)
    questions = [draw(rng) for _ in range(num_questions)]
    completions = complete(merged_model(decoder), tokenizer, [prompt_of(q) for q in questions])
    right = [answer_of(c) == q.answer for c, q in zip(completions, questions, strict=True)]
    for question, completion, ok in zip(questions, completions, right, strict=True):
        if not ok and rng.random() < 12 / max(1, num_questions - sum(right)):
            print(f"  wrong: {question.text!r} -> {completion!r}, not {question.completion!r}", flush=True)
    return sum(right) / num_questions
