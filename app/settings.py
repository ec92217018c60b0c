"""
Every setting of the service: one frozen class, read once, from the environment (`BEE_*`) or from the flags of
`beexformer serve`, which are made from the same fields. Knows nothing of the parts that use them.

A misspelt BEE_* variable is refused: pydantic-settings ignores names it doesn't know, even with extra="forbid".
"""

import difflib
import math
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from beexformer.model import signature
from beexformer.model.options import ExitOptions

PREFIX = "BEE_"
FOREIGN = {"BEE_DATA"}  # the data folder of `make train`; not ours to read, but no misspelling either
RETIRED = {  # what was a setting once, and what is in its place
    "BEE_SHUTDOWN_SECONDS": "its place has BEE_DRAIN_SECONDS",
    "BEE_THREADS": "there are no engine threads any more: BEE_WORKERS sets the processes, one event loop each",
    "BEE_MAX_BATCH_ROWS": "texts take turns instead of batches: leave it out",
    "BEE_MAX_QUEUE": "there is no queue of rows any more: BEE_MAX_WAIT_MS says how long requests may wait",
}
CPU_LIMIT = Path("/sys/fs/cgroup/cpu.max")
MEMORY_LIMIT = Path("/sys/fs/cgroup/memory.max")
PARENT_BYTES, WORKER_BYTES = 250 << 20, 60 << 20  # what the first process has, and each more has to itself, at most


class Settings(BaseSettings):
    """Serve checkpoints over HTTP. Every flag can be given as an environment variable instead; the flag wins."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,  # compose files pass VARIABLE="" for what isn't set
        extra="forbid",
        frozen=True,
        cli_prog_name="beexformer serve",
        cli_kebab_case=True,
        cli_show_env_vars=True,
        cli_hide_none_type=True,
        cli_avoid_json=True,
    )

    host: str = Field(
        default="127.0.0.1", min_length=1, description="address to listen on; 0.0.0.0 for every interface"
    )
    port: int = Field(default=8000, ge=0, le=65535, description="port to listen on; 0 takes a free one and logs it")
    checkpoints: Annotated[tuple[Path | str, ...], NoDecode] = Field(
        default=(),
        description="checkpoint folders, folders of them, or URLs of checkpoints in an object store (extra `[store]`), "
        "separated by commas; empty serves the shipped ones",
    )
    checkpoint_cache: Path = Field(
        default=Path("~/.cache/beexformer"), description="folder for checkpoints that come from an object store"
    )
    trusted_key: str | None = Field(
        default=None,
        description="public key of minisign that must have signed every checkpoint (extra `[sign]`); unset trusts all",
    )
    default_model: str | None = Field(
        default=None,
        description="model that answers when a request names none; unset takes the first one loaded, of the shipped "
        "ones `sst2`",
    )
    workers: int = Field(
        default=0,
        ge=0,
        le=256,
        description="server processes; 0 makes one for each CPU that the container's limit or the machine gives, "
        "as far as the container's memory goes",
    )
    cpu: Literal["auto", "native", "x86-64-v4-vpopcntdq", "x86-64-v3", "x86-64-v2"] = Field(
        default="auto",
        description="instructions that kernels are compiled for: `auto`, the highest of the levels that this CPU has, "
        "one of them, or `native`, this very CPU's. Answers are the same",
    )
    max_wait_ms: int = Field(
        default=500,
        ge=1,
        le=600_000,
        description="milliseconds that a request may wait; one that has waited so long, and a batch or long text that "
        "would, gets 503",
    )
    brownout_wait_ms: int = Field(
        default=0,
        ge=0,
        le=600_000,
        description="milliseconds of waiting from which texts leave earlier, more so up to `BEE_MAX_WAIT_MS`; requests "
        "that state a delta, an entropy_threshold or a profile get what they state; 0 for never",
    )
    brownout_entropy_threshold: float = Field(
        default=0.8, ge=0, le=1, description="entropy threshold that is in effect at `BEE_MAX_WAIT_MS`"
    )
    max_items: int = Field(default=256, ge=1, description="items of one /classify/batch; more are refused with 413")
    max_body_bytes: int = Field(
        default=524288, ge=1024, description="bytes of one request body; more are refused with 413"
    )
    request_timeout_ms: int = Field(
        default=5000,
        ge=1,
        le=600_000,
        description="deadline of requests that send no X-Request-Timeout-Ms; late ones get 504",
    )
    api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        default=(),
        description="accepted keys, separated by commas; empty lets everyone in. Health checks, /metrics and page "
        "stay open",
    )
    admin_keys: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        default=(),
        description="keys that may load, reload and unload models at `/admin`, separated by commas; without one there "
        "is no `/admin`",
    )
    checkpoint_roots: Annotated[tuple[Path | str, ...], NoDecode] = Field(
        default=(), description="folders or URLs below which `/admin` may load checkpoints, separated by commas"
    )
    model_defaults: dict[str, ExitOptions] = Field(
        default={},
        description="exit options by model where requests state none, as JSON: "
        '`{"sst2": {"delta": 0.001, "max_blocks": 4}}`',
    )
    root_path: str = Field(
        default="",
        pattern=r"^((/[A-Za-z0-9._~-]+)+)?$",
        description="path prefix that a proxy strips, as `/ml/sentiment`, so that `/docs` finds its parts; unset takes "
        "the proxy's own X-Forwarded-Prefix",
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="origins whose pages may call the API from a browser, separated by commas, as "
        "`https://app.example.com`; `*` for all; empty for none",
    )
    tracing: bool = Field(
        default=False,
        description="send OpenTelemetry spans to where OTEL_EXPORTER_OTLP_ENDPOINT says; needs the extra [otel]",
    )
    quota_per_minute: int = Field(
        default=0,
        ge=0,
        description="texts a minute for each API key, counted by each server process for itself; more are refused with "
        "429; 0 for no bound",
    )
    shadow_ratio: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="share of answers whose text also runs through all blocks afterwards, for `bee_shadow_total`",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="least severe log lines written; info has one line a request"
    )
    drain_seconds: int = Field(
        default=5,
        ge=0,
        le=3600,
        description="seconds from SIGTERM, when `/readyz` turns to 503, until the socket is closed; up to then and of "
        "what has come by then everything is answered",
    )
    health_seconds: int = Field(
        default=10, ge=1, le=3600, description="a worker whose event loop hangs for so long is killed and replaced"
    )
    keep_alive_seconds: int = Field(
        default=150,
        ge=1,
        le=86400,
        description="an idle connection is closed after so long; longer than a proxy keeps its own, or it will lose "
        "requests",
    )
    connection_seconds: int = Field(
        default=600,
        ge=0,
        le=86400,
        description="age at which a connection is ended with `Connection: close`, so that clients spread over new "
        "replicas; 0 for never",
    )
    max_connections: int = Field(
        default=1024,
        ge=16,
        le=1_000_000,
        description="connections that a worker holds; further clients wait in the queue of the socket until one ends, "
        "and idle ones are closed for them",
    )
    head_seconds: int = Field(
        default=10, ge=1, le=3600, description="time for a client to send a request's headers; then 408"
    )
    body_seconds: int = Field(default=30, ge=1, le=3600, description="time for a client to send a body; then 408")

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_variables(cls, values: Any) -> Any:
        known = {f"{PREFIX}{name.upper()}" for name in cls.model_fields}
        unknown = sorted(name for name in os.environ if name.upper().startswith(PREFIX) and name.upper() not in known)
        for name in unknown:
            if name.upper() in RETIRED:
                raise ValueError(f"{name} is no setting any more; {RETIRED[name.upper()]}")
            if name not in FOREIGN:
                near = difflib.get_close_matches(name.upper(), known, n=1)
                raise ValueError(f"{name} is no setting" + (f"; did you mean {near[0]}?" if near else ""))
        return values

    @field_validator("checkpoints", "checkpoint_roots", "api_keys", "admin_keys", "cors_origins", mode="before")
    @classmethod
    def _split_at_commas(cls, value: Any) -> Any:
        return [part.strip() for part in value.split(",")] if isinstance(value, str) else value

    @field_validator("checkpoints", "checkpoint_roots")
    @classmethod
    def _tell_folders_from_urls(cls, places: tuple[Path | str, ...]) -> tuple[Path | str, ...]:
        return tuple(place_of(str(place)) for place in places)

    @field_validator("checkpoint_cache")
    @classmethod
    def _expand_home(cls, folder: Path) -> Path:
        return folder.expanduser()

    @field_validator("trusted_key")
    @classmethod
    def _refuse_what_is_no_key(cls, key: str | None) -> str | None:
        if key:
            signature.public_key(key)
        return key

    @field_validator("api_keys", "admin_keys")
    @classmethod
    def _refuse_unusable_keys(cls, keys: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        for key in keys:
            if len(key.get_secret_value()) < 8 or not key.get_secret_value().isascii():
                raise ValueError("each key needs at least 8 characters, all of them ASCII")
        return keys

    @field_validator("cors_origins")
    @classmethod
    def _refuse_what_is_no_origin(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if origin != "*" and not re.fullmatch(r"https?://[^/\s]+", origin):
                raise ValueError("an origin is a scheme and a host, as https://app.example.com, without a path")
        return origins

    @model_validator(mode="after")
    def _refuse_what_does_not_fit_together(self) -> "Settings":
        if self.quota_per_minute and not self.api_keys:
            raise ValueError("BEE_QUOTA_PER_MINUTE is for each API key, and BEE_API_KEYS names none; set both")
        if self.brownout_wait_ms >= self.max_wait_ms:
            raise ValueError(
                f"BEE_BROWNOUT_WAIT_MS is {self.brownout_wait_ms} and must lie below BEE_MAX_WAIT_MS, "
                f"{self.max_wait_ms}"
            )
        return self

    @property
    def worker_processes(self) -> int:
        """Processes, with 0 worked out."""
        return self.workers or max(1, min(cpus(), 256, (memory() - PARENT_BYTES) // WORKER_BYTES))


def place_of(text: str) -> Path | str:
    """A URL as it is, anything else as a folder."""
    return text if "://" in text else Path(text)


def cpus() -> int:
    """CPUs that this process may use: those it may run on, or what a container's limit leaves of them."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = (int(part) for part in CPU_LIMIT.read_text().split())
    except (OSError, ValueError):  # no control group of version 2, or no limit ("max") in it
        return usable
    return min(usable, math.ceil(quota / period))


def memory() -> int:
    """Bytes that this container may use, or that the machine has."""
    has = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(has, int(MEMORY_LIMIT.read_text()))
    except (OSError, ValueError):
        return has


def sentences(error: ValidationError) -> list[str]:
    """One sentence for each bad setting. Never shows the value: it may be a key."""
    result = []
    for problem in error.errors(include_input=False, include_url=False, include_context=False):
        message = problem["msg"].removeprefix("Value error, ")
        place = f"{PREFIX}{str(problem['loc'][0]).upper()}: " if problem["loc"] else ""
        result.append(f"{place}{message}")
    return result


def markdown() -> str:
    """The settings as the table in the README, which a test compares with."""
    lines = ["| variable | default | meaning |", "| --- | --- | --- |"]
    for name, field in Settings.model_fields.items():
        default = "" if field.default in (None, ()) else f"`{field.default}`"
        lines.append(f"| `{PREFIX}{name.upper()}` | {default} | {field.description} |")
    return "\n".join(lines)
