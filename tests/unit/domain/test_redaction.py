"""What goes into the audit log holds no secret."""

from __future__ import annotations

from typing import Any

import pytest

from domain.redaction import HIDDEN, has_hidden, without_secrets


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ({"api_key": "env:OPENAI_API_KEY"}, {"api_key": "env:OPENAI_API_KEY"}),
        ({"api_key": "sk-live"}, {"api_key": HIDDEN}),
        ({"key": "ck-abc", "prefix": "ck-Jb1cXyZ"}, {"key": HIDDEN, "prefix": "ck-Jb1cXyZ"}),
        ({"max_tokens": 5, "token": "t", "tokens": ["a"]}, {"max_tokens": 5, "token": HIDDEN, "tokens": ["a"]}),
        ([{"note": "use Bearer abcdefghij now"}], [{"note": f"use {HIDDEN} now"}]),
        ("sk-abcdefghijklmnop and task-force-of-many", f"{HIDDEN} and task-force-of-many"),
        ("postgresql://me:secret@host/db", f"postgresql://{HIDDEN}@host/db"),
        (f"hf_{'aB3' * 11} of hf-internal-testing/tiny", f"{HIDDEN} of hf-internal-testing/tiny"),
        (
            {"id": "sk-learn-assistant-7b", "model": "pk-research/sk-big-model-7b"},
            {"id": "sk-learn-assistant-7b", "model": "pk-research/sk-big-model-7b"},
        ),
        ("redis://:secret@host:6379/0 and http://host:80/a@b", f"redis://{HIDDEN}@host:6379/0 and http://host:80/a@b"),
        ({"x-api-key": "abc", "X-Api-Key": "abc", "api-keys": "abc"}, dict.fromkeys(("x-api-key", "X-Api-Key", "api-keys"), HIDDEN)),
        ({"apiKey": "abc", "clientSecret": "abc", "apikey": "abc"}, dict.fromkeys(("apiKey", "clientSecret", "apikey"), HIDDEN)),
        ({"API_KEY": "abc", "APIKEY": "abc", "Authorization": "abc"}, dict.fromkeys(("API_KEY", "APIKEY", "Authorization"), HIDDEN)),
        ({"monkey": "capuchin", "hockey": "ice", "keyword": "sum"}, {"monkey": "capuchin", "hockey": "ice", "keyword": "sum"}),
        (None, None),
    ],
)
def test_secrets_are_hidden_by_name_and_by_shape(value: Any, kept: Any) -> None:
    assert without_secrets(value) == kept
    assert has_hidden(without_secrets(value)) is (kept != value)
