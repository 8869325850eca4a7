"""All settings, read from environment variables `AFTERMATH_…`. A test compares them with the table in README.md."""

import difflib
import itertools
import json
import os
import re
import shlex
from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from app.base.outgoing import allowed, parse
from app.base.values.currency import Currency
from app.base.values.severity import SEVERITIES, SeverityName

PREFIX = "AFTERMATH_"


class WrongSettings(Exception):
    """Invalid settings. `problems` has a sentence for each, without secrets."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def read_settings() -> "Settings":
    """The settings from the environment. Raises WrongSettings, also for unknown AFTERMATH_… variables."""
    problems = _unknown(os.environ)
    try:
        settings = Settings()
    except ValidationError as error:
        wrong = itertools.groupby(error.errors(include_url=False), key=lambda one: str(one["loc"][0]))
        problems += [_sentence(name, list(errors)) for name, errors in wrong]
    if problems:
        raise WrongSettings(problems)
    return settings


def database_address(url: str) -> URL:
    """Parses `postgresql://…` or `postgres://…`. Several hosts in libpq's notation become a list in the query.

    Raises ArgumentError or ValueError.
    """
    scheme, _, rest = url.partition("://")
    authority, slash, database = rest.partition("/")
    user, at, hosts = authority.rpartition("@")
    if "," in hosts:
        address = make_url(f"{scheme}://{user}{at}{slash}{database}").update_query_dict({"host": hosts.split(",")})
    else:
        address = make_url(url)
    if mode := address.query.get("sslmode"):  # libpq's name of asyncpg's `ssl`
        address = address.difference_update_query(["sslmode"]).update_query_dict({"ssl": mode})
    return address.set(drivername=_DRIVER) if address.drivername in _SCHEMES else address


_DRIVER = "postgresql+asyncpg"
_SCHEMES = {"postgresql", "postgres", _DRIVER}


def _postgresql(url: SecretStr) -> SecretStr:
    try:
        driver = database_address(url.get_secret_value()).drivername
    except (ArgumentError, ValueError):
        driver = ""
    if driver != _DRIVER:
        raise ValueError("must be the URL of a PostgreSQL database")
    return url


def _allow_list(entries: str) -> str:
    allowed(entries)
    return entries


def _proxy(url: SecretStr) -> SecretStr:
    """Raises ValueError without the URL, which may contain a password."""
    scheme, slashes, rest = url.get_secret_value().partition("://")
    try:
        address = parse(f"{scheme}{slashes}{rest.rpartition('@')[2]}")
    except ValueError:
        address = None
    if address is None or address.path.strip("/"):
        raise ValueError("must be the http:// or https:// URL of a proxy")
    return url


# A secret, because it contains a password. Not pydantic's PostgresDsn, which rejects `?host=/run/postgresql`.
DatabaseUrl = Annotated[SecretStr, AfterValidator(_postgresql)]
Impact = Annotated[Decimal, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
DEFAULT_IMPACT: dict[SeverityName, Decimal] = {
    "sev1": Decimal(1),
    "sev2": Decimal("0.5"),
    "sev3": Decimal("0.1"),
    "sev4": Decimal(0),
    "sev5": Decimal(0),
}
Pay = Annotated[Decimal, Field(ge=0, le=1_000_000, max_digits=12)]
Responders = Annotated[Decimal, Field(ge=0, le=10_000, max_digits=9)]


def _each_severity(responders: dict[SeverityName, Decimal]) -> dict[SeverityName, Decimal]:
    """Defaults to one responder: the person who acknowledged."""
    return {severity: responders.get(severity, Decimal(1)) for severity in SEVERITIES}


class Labor(BaseModel):
    """What an hour of one responder costs, and how many there are at an incident of each severity."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    currency: Currency
    low: Pay
    expected: Pay
    high: Pay
    responders: Annotated[dict[SeverityName, Responders], AfterValidator(_each_severity)] = Field(
        {}, validate_default=True
    )

    @model_validator(mode="after")
    def _ordered(self) -> "Labor":
        if not self.low <= self.expected <= self.high:
            raise ValueError("must have low <= expected <= high")
        return self


def _from_json(value: object) -> object:
    """Parses a variable as JSON. The library's own parsing would abort startup with a traceback."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value, parse_float=Decimal)
    except ValueError:
        raise ValueError("must be JSON") from None


def _all_severities(impact: dict[SeverityName, Decimal]) -> dict[SeverityName, Decimal]:
    return DEFAULT_IMPACT | impact


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="AFTERMATH_", extra="ignore", frozen=True)

    database_url: DatabaseUrl | None = Field(
        None,
        description="URL of a PostgreSQL 15 or later: `postgresql://user:password@host:port/database`, with several "
        "hosts as `host:port,host:port`; unset: the built-in PostgreSQL",
        examples=["postgresql://user:password@db.example.com:5432/aftermath"],
    )
    data_dir: Path = Field(Path(".data"), description="Directory for the data of the built-in PostgreSQL and the spool")
    host: str = Field("127.0.0.1", description="Address to listen on")
    port: int = Field(8080, ge=0, le=65535, description="Port to listen on")
    public_url: str | None = Field(
        None,
        description="URL at which senders reach the service, used in the receivers that it prints and shows. With "
        "`https://`, cookies are sent over https only. Unset: `http://HOST:PORT`, and on pages the address in the "
        "browser",
    )
    admin_token: SecretStr | None = Field(
        None,
        min_length=16,
        description="Admin token of at least 16 characters; unset: the first start creates one and prints it once",
        examples=["$(openssl rand -hex 24)"],
    )
    workers: int = Field(1, ge=1, le=64, description="Number of server processes")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Lowest level to log: `debug`, `info`, `warning` or `error`"
    )
    max_body_bytes: int = Field(
        10 * 2**20, ge=1024, description="Maximum size of a delivery; larger ones are rejected with 413"
    )
    max_bytes_in_flight: int = Field(
        64 * 2**20,
        ge=2**20,
        description="Maximum total size of the request bodies in progress, without those of up to 64 KiB; at least "
        "the maximum size of one body. Beyond it, requests are rejected with 503. Also limits the responses waiting "
        "for slow clients",
    )
    max_connections: int = Field(
        1000,
        ge=1,
        description="Maximum number of client connections per process; beyond it, idle ones are closed, and then new "
        "ones are rejected with 503, except health checks",
    )
    receive_seconds: Seconds = Field(60, description="Time limit for receiving a complete request")
    write_seconds: Seconds = Field(
        30, description="Time in which a client must read the next 64 KiB of a response; slower ones are disconnected"
    )
    batch_alerts: int = Field(500, ge=1, description="Maximum number of alerts per transaction")
    queue_alerts: int = Field(
        20_000,
        ge=1,
        description="Maximum number of alerts waiting to be stored; beyond it, deliveries are rejected with 503",
    )
    queue_seconds: Seconds = Field(
        10, description="Maximum wait of an alert in that queue; beyond it, deliveries are rejected with 503"
    )
    spool_max_bytes: int = Field(
        256 * 2**20,
        ge=0,
        description="Disk space for deliveries while the database is unavailable; once full, they are rejected with "
        "503; 0: no spool",
    )
    spool_trust_seconds: int = Field(
        86_400,
        ge=0,
        description="How long a previously validated token is still accepted while the database is unavailable",
    )
    allowed_lateness_seconds: int = Field(
        600,
        ge=0,
        description="Delay after the window before a resolved incident is settled and counted in histograms",
    )
    settle_interval_seconds: Seconds = Field(10, description="Interval between searches for incidents to settle")
    watch_interval_seconds: Seconds = Field(10, description="Interval between checks of the sources' health")
    impact: Annotated[
        dict[SeverityName, Impact], NoDecode, BeforeValidator(_from_json), AfterValidator(_all_severities)
    ] = Field(
        DEFAULT_IMPACT,
        description="Share of the hourly cost by severity, as JSON; omitted severities keep their defaults",
        examples=['{"sev1": 1, "sev2": 0.5}'],
    )
    labor: Annotated[Labor | None, NoDecode, BeforeValidator(_from_json)] = Field(
        None,
        description="Cost of an hour of one responder, as JSON with `currency`, `low`, `expected`, `high` and, by "
        "severity, the number of `responders` (1 by default); unset: labor is not shown",
        examples=['{"currency": "EUR", "low": 60, "expected": 80, "high": 120}'],
    )
    outbound_allow: Annotated[str, AfterValidator(_allow_list)] | None = Field(
        None,
        description="Hosts that the service may call although they are not public: host names, IP addresses and "
        "networks, separated by commas. A host name permits private addresses only; loopback, link-local, metadata "
        "and reserved addresses must be listed as addresses. Only listed hosts may be called over http. Unset: public "
        "addresses only",
        examples=["alertmanager.monitoring.svc,10.0.0.0/8,127.0.0.1"],
    )
    outbound_proxy: Annotated[SecretStr, AfterValidator(_proxy)] | None = Field(
        None,
        description="HTTP proxy for calls to hosts that are not in `AFTERMATH_OUTBOUND_ALLOW`; unset: none; "
        "`HTTPS_PROXY` is ignored",
        examples=["http://proxy.example.com:3128"],
    )
    status_page: bool = Field(
        False, description="Whether anyone may read the status page at `/status`; otherwise its routes do not exist"
    )
    status_page_name: Annotated[str, StringConstraints(min_length=1, max_length=100)] = Field(
        "Status", description="Name on the status page and in its feeds, such as that of the company"
    )
    status_page_url: Annotated[str, StringConstraints(pattern="^https?://[^/]", max_length=2000)] | None = Field(
        None,
        description="URL at which customers reach the service, for links in the feeds and JSON of the status page. "
        "Unset: these links are paths, which not all feed readers follow",
        examples=["https://status.example.com"],
    )
    status_delay_seconds: int = Field(
        300,
        ge=0,
        description="How long a problem must last before it is published automatically, for components with "
        "`automatic`",
    )
    retention_alerts_days: int = Field(
        400,
        ge=31,
        description="Age at which a whole month of alerts is dropped, except alerts of open or unsettled incidents; "
        "incidents and their measures are kept",
    )
    quarantine_bytes: int = Field(
        64 * 2**20,
        ge=0,
        description="Disk space for the quarantine of one source; once full, deliveries that cannot be read completely "
        "are rejected with 503, and what can be read is stored",
    )
    retention_quarantine_days: int = Field(
        90, ge=1, description="Age at which quarantined items are deleted, replayed or not"
    )
    retention_deliveries_days: int = Field(
        90, ge=31, description="Age at which a whole month of delivery records is dropped"
    )
    query_occurrences: int = Field(
        100_000,
        ge=1,
        description="Maximum number of occurrences of planned maintenance in the period of one metrics request; "
        "beyond it, the request is rejected with 422",
    )
    query_parts: int = Field(
        250_000,
        ge=1,
        description="Maximum number of time intervals into which one metrics request splits its data, for example the "
        "impact of incidents by planned maintenance; beyond it, the request is rejected with 422",
    )
    page_bytes: int = Field(
        4 * 2**20,
        ge=2**16,
        description="Maximum size of the labels and annotations on one page of incidents or alerts; a page that "
        "reaches it ends early and has a `next_cursor`",
    )
    concurrent_queries: int = Field(
        2,
        ge=1,
        le=8,
        description="Maximum number of expensive requests that one process computes at once: metrics, pages that show "
        "them, and lists of alerts in Alertmanager's format. Others wait, and are rejected with 503 after ten seconds",
    )
    metrics_services: int = Field(
        200,
        ge=1,
        description="Maximum number of services exported to Prometheus separately; the rest are combined as `other`",
    )

    @property
    def allowed_lateness(self) -> timedelta:
        return timedelta(seconds=self.allowed_lateness_seconds)


# — error messages —

_NAMES = {f"{PREFIX}{name.upper()}": name for name in Settings.model_fields}
_SECRET = {"database_url", "admin_token", "outbound_proxy"}


def _unknown(environment: Mapping[str, str]) -> list[str]:
    problems = []
    for name in sorted(environment):
        if not name.upper().startswith(PREFIX) or name.upper() in _NAMES or _is_service_link(name, environment[name]):
            continue
        near = difflib.get_close_matches(
            name.upper().removeprefix(PREFIX), [known.removeprefix(PREFIX) for known in _NAMES], n=1
        )
        problems.append(
            f"{name} is not a setting; did you mean {PREFIX}{near[0]}?"
            if near
            else f"{name} is not a setting: unset it (README.md lists all settings)"
        )
    return problems


def _is_service_link(name: str, value: str) -> bool:
    """Whether Kubernetes has set the variable for a Service whose name starts with `aftermath`."""
    return bool(
        re.fullmatch(rf"{PREFIX}(\w+_)?(SERVICE_(HOST|PORT\w*)|PORT_\d+_\w+)", name)
        or re.match("(tcp|udp|sctp)://", value)
    )


def _sentence(name: str, errors: list[ErrorDetails]) -> str:
    """All errors of one setting, and an example of a valid value."""
    variable, inputs = PREFIX + name.upper(), [error["input"] for error in errors]
    problems = "; ".join(_problem(error, is_secret=name in _SECRET) for error in errors)
    sentence = f"In {variable}, {problems}" if len(errors[0]["loc"]) > 1 else f"{variable} {problems}"
    if any(isinstance(value, str) and _is_service_link(variable, value) for value in inputs):
        return f"{sentence}: Kubernetes sets it for a Service named aftermath; set enableServiceLinks: false in the pod"
    field = Settings.model_fields[name]
    example = str(field.examples[0] if field.examples else field.default)
    return f"{sentence}; example: {variable}={example if example.startswith('$(') else shlex.quote(example)}"


def _problem(error: ErrorDetails, *, is_secret: bool) -> str:
    inside = ".".join(str(part) for part in error["loc"][1:] if part != "[key]")
    phrase = _PHRASES.get(error["type"], "is invalid").format(**error.get("ctx", {}))
    value = error["input"]
    is_plain = isinstance(value, str | int | float | Decimal)
    if is_secret or not is_plain or error["type"] in {"missing", "extra_forbidden"}:
        shown = ""
    elif value == "":
        shown = ", but is empty"
    else:
        text = str(value)
        shown = f", not {text if len(text) <= _SHOWN else text[:_SHOWN] + '…'!r}"
    return f"{inside} {phrase}{shown}".lstrip()


_SHOWN = 60
_WHOLE = "must be an integer"
_NUMBER = "must be a number"
_OBJECT = "must be a JSON object"
_PHRASES = {
    "int_parsing": _WHOLE,
    "int_parsing_size": _WHOLE,
    "int_from_float": _WHOLE,
    "float_parsing": _NUMBER,
    "decimal_parsing": _NUMBER,
    "decimal_type": _NUMBER,
    "finite_number": "must be a finite number",
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be greater than {gt:g}",
    "less_than_equal": "must be at most {le}",
    "decimal_max_digits": "must have at most {max_digits} digits",
    "literal_error": "must be {expected}",
    "bool_parsing": "must be true or false",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "too_short": "must have at least {min_length} characters",
    "string_type": "must be a string",
    "string_pattern_mismatch": "must be three uppercase letters",
    "dict_type": _OBJECT,
    "model_type": _OBJECT,
    "missing": "is missing",
    "extra_forbidden": "is unknown",
    "value_error": "{error}",
}
