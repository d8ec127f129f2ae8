"""Every setting of the service: environment ``CONSILIUM_*`` or ``.env``, read once. The table is docs/settings.md."""

from __future__ import annotations

import ipaddress
import re
import ssl
from collections.abc import Iterable
from pathlib import Path

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, DotEnvSettingsSource, SettingsConfigDict

from domain.errors import InvalidRequest
from domain.nearest import did_you_mean, nearest

_PREFIX = "CONSILIUM_"
_NETWORKS = ("loopback", "private", "public")


class SettingsError(InvalidRequest):
    """The settings do not fit together. The text says what to change; the command line prints it without a stack trace."""


class Settings(BaseSettings):
    """Read once at start and passed on; nothing else reads the environment (secrets of experts apart)."""

    # Compose files pass a variable on whether it is set or not: an empty one is as one that is not there.
    model_config = SettingsConfigDict(env_prefix=_PREFIX, env_file=".env", env_ignore_empty=True, extra="ignore", frozen=True)

    # --- where it listens and what it keeps ---
    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65535)
    allowed_hosts: str = ""
    cors_origins: str = ""
    tls_cert: Path | None = None
    tls_key: Path | None = None
    data_dir: Path = Path("data")
    database_url: str | None = None
    workers: int = Field(default=1, ge=1, le=256)
    log_level: str = Field(default="info", pattern="^(debug|info|warning|error)$")

    # --- who may come in ---
    api_keys: SecretStr | None = None
    admin_key: SecretStr | None = None
    redis_url: SecretStr | None = None
    expert_networks: str = "loopback,private,public"

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
    connect_timeout_s: float = Field(default=5.0, gt=0)
    expert_attempts: int = Field(default=3, ge=1, le=10)
    circuit_faults: int = Field(default=3, ge=1)
    circuit_cool_down_s: float = Field(default=15.0, gt=0)

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
    trace_content: str | None = Field(default=None, pattern="^(off|hashed|full)$")
    trace_days: float = Field(default=30.0, gt=0)
    feedback: bool = True
    feedback_days: float = Field(default=365.0, gt=0)
    memory: bool = True
    memory_problems: int = Field(default=1000, ge=1, le=10_000)

    # --- telemetry ---
    log_format: str = Field(default="text", pattern="^(text|json)$")
    otlp_endpoint: str | None = None
    otlp_headers: SecretStr | None = None
    otlp_sample_ratio: float = Field(default=1.0, ge=0, le=1)
    otlp_timeout_s: float = Field(default=10.0, gt=0)

    # --- the end ---
    drain_timeout_s: float = Field(default=20.0, ge=0)

    @field_validator("trace_content", mode="before")
    @classmethod
    def _yes_or_no(cls, value: object) -> object:
        """What the setting was before there was a third way."""
        return {"true": "full", "false": "off"}.get(str(value).lower(), value) if value is not None else None

    @property
    def content_kept(self) -> str:
        """What traces keep of prompts and answers: ``off``, ``hashed`` or ``full``. Where others can reach the service, nothing that
        nobody has asked for."""
        return self.trace_content or ("full" if self.is_loopback else "off")

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

    @property
    def cors_origin_list(self) -> tuple[str, ...]:
        """Web sites whose pages may use the service from a browser."""
        return tuple(origin.rstrip("/") for origin in _split(self.cors_origins))

    @property
    def expert_network_list(self) -> tuple[str, ...]:
        """Where experts may be called."""
        return _split(self.expert_networks)

    @property
    def otlp_header_map(self) -> dict[str, str]:
        """Headers for the collector. Raises ``SettingsError`` for what is none."""
        told = self.otlp_headers.get_secret_value() if self.otlp_headers else ""
        headers = {}
        for part in _split(told):
            name, equals, value = (piece.strip() for piece in part.partition("="))
            if not (equals and value and re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name)):
                raise SettingsError("CONSILIUM_OTLP_HEADERS: list headers as in authorization=Bearer secret,x-team=search")
            headers[name] = value
        return headers

    @property
    def scheme(self) -> str:
        return "http" if self.tls_cert is None else "https"

    def check_network(self) -> None:
        """Raise ``SettingsError`` when certificate and key, sites or networks do not fit together."""
        if (self.tls_cert is None) is not (self.tls_key is None):
            raise SettingsError("CONSILIUM_TLS_CERT and CONSILIUM_TLS_KEY belong together: set both, or none")
        if self.tls_cert is not None and self.tls_key is not None:
            try:
                ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self.tls_cert, self.tls_key)
            except (OSError, ssl.SSLError) as error:
                raise SettingsError(
                    f"CONSILIUM_TLS_CERT={self.tls_cert} and CONSILIUM_TLS_KEY={self.tls_key} cannot be used "
                    f"({error.strerror or error}): both are PEM files, the certificate with its chain, and its own key without a "
                    "password"
                ) from None
        for origin in self.cors_origin_list:
            if not re.fullmatch(r"https?://[^/\s*]+", origin):
                raise SettingsError(f"CONSILIUM_CORS_ORIGINS: {origin!r} is no origin: list them as in https://app.example.org, never *")
        for network in self.expert_network_list:
            if network not in _NETWORKS:
                raise SettingsError(
                    f"CONSILIUM_EXPERT_NETWORKS: {network!r} is not known; {did_you_mean(network, _NETWORKS, always_list=True)}"
                )

    def check_telemetry(self) -> None:
        """Raise ``SettingsError`` when spans could not be sent as the settings say."""
        if self.otlp_endpoint is not None and not re.fullmatch(r"https?://[^/\s]+(/\S*)?", self.otlp_endpoint):
            raise SettingsError(
                f"CONSILIUM_OTLP_ENDPOINT={self.otlp_endpoint} is no address of a collector: give one that takes OTLP over HTTP, as in "
                "http://127.0.0.1:4318"
            )
        _ = self.otlp_header_map

    def check_workers(self) -> None:
        """Raise ``SettingsError`` when several processes are asked for where one alone can do the work."""
        if self.workers > 1 and self.engine == "vllm":
            raise SettingsError(
                f"CONSILIUM_ENGINE=vllm needs one process, which looks after the servers, and CONSILIUM_WORKERS is {self.workers}. "
                "Set CONSILIUM_WORKERS=1, or run vLLM yourself and enter it as experts with the backend openai."
            )

    def check_exposure(self, *, has_stored_keys: bool = False) -> None:
        """Raise ``SettingsError`` when others could reach the service and nobody has a key: it would only look open."""
        if not self.is_loopback and not self.api_key_list and not has_stored_keys:
            raise SettingsError(
                f"CONSILIUM_HOST={self.host} is reachable from other machines, and there is no API key. Create one with "
                "`consilium keys create NAME`, set CONSILIUM_API_KEYS (a comma-separated list), or bind to 127.0.0.1."
            )


def load_settings(**overrides: object) -> Settings:
    """Settings from the environment, *overrides* (the command line's) first. Raises ``SettingsError`` naming the variable."""
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        settings = Settings(**given)  # type: ignore[arg-type]  # validated by pydantic
    except ValidationError as error:
        lines = [f"{_PREFIX}{'.'.join(str(part) for part in e['loc']).upper()}: {e['msg']}" for e in error.errors(include_input=False)]
        raise SettingsError("; ".join(lines)) from error
    settings.check_workers()
    settings.check_network()
    settings.check_telemetry()
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
