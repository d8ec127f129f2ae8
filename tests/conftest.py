"""What holds for every test: no network but loopback, no model hub, no provider's keys."""

from __future__ import annotations

import os

# Before any library reads them.
os.environ.update(
    HF_HUB_OFFLINE="1",
    TRANSFORMERS_OFFLINE="1",
    LITELLM_LOCAL_MODEL_COST_MAP="True",
    TOKENIZERS_PARALLELISM="false",
    OMP_NUM_THREADS="1",
)

import pytest

_SECRETS = ("_API_KEY", "_TOKEN", "_SECRET")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees a provider's key or a setting of whoever runs it, except what names the test database."""
    for name in list(os.environ):
        if name.endswith(_SECRETS) or (name.startswith("CONSILIUM_") and not name.startswith("CONSILIUM_TEST_")):
            monkeypatch.delenv(name)
