"""Settings and their table."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic_core import PydanticUndefined

from api.settings import Settings, SettingsError, load_settings, unknown_variables

TABLE = Path(__file__).parents[3] / "docs" / "settings.md"


def rows() -> dict[str, tuple[str, str, str]]:
    """Variable to default, unit and reason."""
    found = {}
    for line in TABLE.read_text().splitlines():
        if match := re.fullmatch(r"\| `(CONSILIUM_\w+)` \| (.*?) \| (.*?) \| (.*?) \|", line):
            found[match[1]] = (match[2], match[3], match[4])
    return found


def test_table_names_every_setting() -> None:
    """docs/settings.md has a row for each setting and no other."""
    assert list(rows()) == [f"CONSILIUM_{name.upper()}" for name in Settings.model_fields]


@pytest.mark.parametrize("name", list(Settings.model_fields))
def test_table_has_default_unit_and_reason(name: str) -> None:
    """Each row says the true default, the unit and why."""
    default, unit, reason = rows()[f"CONSILIUM_{name.upper()}"]
    true = Settings.model_fields[name].default

    assert true is not PydanticUndefined
    if true is not None and true != "":
        shown = str(true).lower() if isinstance(true, bool) else f"{true:g}" if isinstance(true, float) else str(true)
        assert default == f"`{shown}`"
    else:
        assert default.startswith("none")
    assert unit
    assert len(reason) > 20


def test_wrong_value_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A value of the wrong type is an error that names the environment variable."""
    monkeypatch.setenv("CONSILIUM_PORT", "eighty")
    with pytest.raises(SettingsError, match="CONSILIUM_PORT"):
        load_settings()


def test_an_empty_variable_is_as_one_that_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compose files pass a variable on whether it is set or not."""
    for name in Settings.model_fields:
        monkeypatch.setenv(f"CONSILIUM_{name.upper()}", "")

    assert load_settings() == Settings.model_construct()


def test_command_line_beats_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """An override wins, None does not."""
    monkeypatch.setenv("CONSILIUM_PORT", "1234")

    assert load_settings(port=4321).port == 4321
    assert load_settings(port=None).port == 1234


def test_secrets_do_not_show() -> None:
    """Printing the settings gives no key away."""
    settings = Settings(_env_file=None, api_keys="s3cret", admin_key="t0p")  # type: ignore[call-arg,arg-type]

    assert "s3cret" not in repr(settings)
    assert "t0p" not in repr(settings)


def test_misspelt_variable_is_told() -> None:
    """A variable that no setting reads is named with the nearest one that exists."""
    assert unknown_variables(["CONSILIUM_DATADIR", "CONSILIUM_PORT", "PATH"]) == [
        "CONSILIUM_DATADIR is no setting; did you mean CONSILIUM_DATA_DIR?"
    ]


def test_database_defaults_to_a_file_in_the_data_dir(tmp_path: Path) -> None:
    """SQLite in the data dir, or what the URL says."""
    assert Settings(_env_file=None, data_dir=tmp_path).database == f"sqlite+aiosqlite:///{tmp_path}/consilium.db"  # type: ignore[call-arg]
    assert Settings(_env_file=None, database_url="postgresql://h/d").database == "postgresql://h/d"  # type: ignore[call-arg]


@pytest.mark.parametrize("address", ["collector:4318", "grpc://collector:4317", "http://", "http://a b"])
def test_what_is_no_address_of_a_collector_is_told(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("CONSILIUM_OTLP_ENDPOINT", address)
    with pytest.raises(SettingsError, match=r"CONSILIUM_OTLP_ENDPOINT=.* http://127\.0\.0\.1:4318"):
        load_settings()


def test_headers_for_the_collector_are_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONSILIUM_OTLP_HEADERS", "authorization=Bearer s3cret==, x-team = search")
    settings = load_settings()

    assert settings.otlp_header_map == {"authorization": "Bearer s3cret==", "x-team": "search"}
    assert "s3cret" not in repr(settings)


@pytest.mark.parametrize("headers", ["s3cret", "=s3cret", "x y=s3cret", "x-team="])
def test_what_is_no_header_is_told_without_its_value(monkeypatch: pytest.MonkeyPatch, headers: str) -> None:
    monkeypatch.setenv("CONSILIUM_OTLP_HEADERS", headers)
    with pytest.raises(SettingsError, match="CONSILIUM_OTLP_HEADERS") as caught:
        load_settings()

    assert "s3cret" not in str(caught.value)


def test_an_empty_collector_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """As compose files pass a variable on that is not set."""
    monkeypatch.setenv("CONSILIUM_OTLP_ENDPOINT", "")
    monkeypatch.setenv("CONSILIUM_OTLP_HEADERS", "")

    assert load_settings().otlp_endpoint is None
    assert load_settings().otlp_header_map == {}
