"""Every setting of the service: environment ``CONSILIUM_*`` or ``.env``, read once. The table is docs/settings.md."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from pathlib import Path

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, DotEnvSettingsSource, SettingsConfigDict

from domain.errors import InvalidRequest
from domain.nearest import nearest

_PREFIX = "CONSILIUM_"


class SettingsError(InvalidRequest):
    """The settings do not fit together. The text says what to change; the command line prints it without a stack trace."""


class Settings(BaseSettings):
    """Read once at start and passed on; nothing else reads the environment (secrets of experts apart)."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, env_file=".env", extra="ignore", frozen=True)

    # --- where it listens and what it keeps ---
    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65535)
    allowed_hosts: str = ""
    data_dir: Path = Path("data")
    database_url: str | None = None
    log_level: str = Field(default="info", pattern="^(debug|info|warning|error)$")

    # --- who may come in ---
    api_keys: SecretStr | None = None
    admin_key: SecretStr | None = None

    # --- models ---
    encoder: str = "all-MiniLM-L6-v2"
    encoder_threads: int = Field(default=2, ge=1)
    seed_zoo: bool = True
    embedded_dir: Path | None = None
    embedded_threads: int = Field(default=1, ge=1)

    # --- vLLM servers of its own ---
    engine: str = Field(default="embedded", pattern="^(embedded|vllm)$")
    vllm_python: Path | None = None
    vllm_command: str | None = None
    worker_memory_mb: float | None = Field(default=None, gt=0)
    gpu_memory_mb: float | None = Field(default=None, gt=0)
    server_memory_mb: float = Field(default=3600.0, gt=0)
    residency_policy: str = Field(default="cost", pattern="^(lru|belady|cost)$")

    # --- bounds of one request ---
    max_body_bytes: int = Field(default=10_000_000, ge=1024)
    body_timeout_s: float = Field(default=30.0, gt=0)
    max_requests: int = Field(default=512, ge=1)
    max_embedding_inputs: int = Field(default=2048, ge=1)
    send_timeout_s: float = Field(default=60.0, gt=0)

    # --- files and batches ---
    max_file_bytes: int = Field(default=500_000_000, ge=1024)
    max_files_bytes: int = Field(default=20_000_000_000, ge=1024)
    file_timeout_s: float = Field(default=900.0, gt=0)
    file_days: float = Field(default=30.0, gt=0)
    run_batches: bool = True
    batch_lease_s: float = Field(default=60.0, ge=2)
    batches_at_once: int = Field(default=1, ge=1)

    # --- the registry and traces ---
    registry_poll_s: float = Field(default=1.0, gt=0)
    startup_retry_s: float = Field(default=2.0, gt=0)
    traces: bool = True
    trace_content: bool = True
    trace_days: float = Field(default=30.0, gt=0)

    # --- the end ---
    drain_timeout_s: float = Field(default=20.0, ge=0)

    @property
    def is_loopback(self) -> bool:
        """Whether only programs on this machine can reach the service."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return False

    @property
    def database(self) -> str:
        """The SQLAlchemy URL: as set, else a SQLite file in the data dir."""
        return self.database_url or f"sqlite+aiosqlite:///{self.data_dir.absolute() / 'consilium.db'}"

    @property
    def api_key_list(self) -> tuple[str, ...]:
        """The data-plane keys, blanks dropped."""
        return _split(self.api_keys.get_secret_value()) if self.api_keys else ()

    @property
    def allowed_host_list(self) -> tuple[str, ...]:
        """Host names, beside the loopback ones, under which a loopback service may be addressed."""
        return tuple(name.lower() for name in _split(self.allowed_hosts))

    def check_exposure(self) -> None:
        """Raise ``SettingsError`` when others could reach the service without a key."""
        if not self.is_loopback and not self.api_key_list:
            raise SettingsError(
                f"CONSILIUM_HOST={self.host} is reachable from other machines, and no API key is set. Set CONSILIUM_API_KEYS "
                "(a comma-separated list), or bind to 127.0.0.1."
            )


def load_settings(**overrides: object) -> Settings:
    """Settings from the environment, *overrides* (the command line's) first. Raises ``SettingsError`` naming the variable."""
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        settings = Settings(**given)  # type: ignore[arg-type]  # validated by pydantic
    except ValidationError as error:
        lines = [f"{_PREFIX}{'.'.join(str(part) for part in e['loc']).upper()}: {e['msg']}" for e in error.errors(include_input=False)]
        raise SettingsError("; ".join(lines)) from error
    settings.check_exposure()
    return settings


def names_in_env_file() -> list[str]:
    """The variables that ``.env`` sets, read as the settings read it."""
    return [name.upper() for name in DotEnvSettingsSource(Settings).env_vars]


def unknown_variables(names: Iterable[str]) -> list[str]:
    """A warning for each ``CONSILIUM_*`` variable among *names* that no setting reads, with the nearest one that exists."""
    known = [_PREFIX + name.upper() for name in Settings.model_fields]
    warnings = []
    for name in sorted(set(names)):
        if not name.startswith(_PREFIX) or name in known:
            continue
        near = nearest(name, known)
        warnings.append(f"{name} is no setting" + (f"; did you mean {near}?" if near else ""))
    return warnings


def _split(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())
