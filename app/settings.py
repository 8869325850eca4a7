"""Every knob, as environment variables `AFTERMATH_…`. The table in README.md is checked against this file."""

from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, StringConstraints, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from app.base.severity import SEVERITIES, SeverityName


def database_address(url: str) -> URL:
    """Of `postgresql://…` or `postgres://…`; several hosts, as libpq writes them, become `host` in its query.

    Raises ArgumentError or ValueError.
    """
    scheme, _, rest = url.partition("://")
    who_and_where, slash, database = rest.partition("/")
    who, at, hosts = who_and_where.rpartition("@")
    if "," in hosts:
        several = make_url(f"{scheme}://{who}{at}{slash}{database}").update_query_dict({"host": hosts.split(",")})
        return several.set(drivername=_DRIVER if scheme in _SCHEMES else scheme)
    address = make_url(url)
    return address.set(drivername=_DRIVER) if address.drivername in _SCHEMES else address


_DRIVER = "postgresql+asyncpg"
_SCHEMES = {"postgresql", "postgres", _DRIVER}


def _postgresql(url: SecretStr) -> SecretStr:
    try:
        driver = database_address(url.get_secret_value()).drivername
    except (ArgumentError, ValueError):
        driver = ""
    if driver != _DRIVER:
        message = "must read postgresql://user:password@host:port/database, of several hosts host:port,host:port"
        raise ValueError(message)
    return url


# A secret, because it holds a password. Not pydantic's PostgresDsn, which refuses `?host=/run/postgresql`.
DatabaseUrl = Annotated[SecretStr, AfterValidator(_postgresql)]
Impact = Annotated[Decimal, Field(ge=0, le=1)]
Pay = Annotated[Decimal, Field(ge=0, le=1_000_000, max_digits=12)]
Responders = Annotated[Decimal, Field(ge=0, le=10_000, max_digits=9)]


def _each_severity(responders: dict[SeverityName, Decimal]) -> dict[SeverityName, Decimal]:
    """The one who acknowledged was there; of others nothing is known until somebody states it."""
    return {severity: responders.get(severity, Decimal(1)) for severity in SEVERITIES}


class Labour(BaseModel):
    """What an hour of one responder costs, and how many there are at an incident of each severity."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    currency: Annotated[str, StringConstraints(pattern="^[A-Z]{3}$")]
    low: Pay
    expected: Pay
    high: Pay
    responders: Annotated[dict[SeverityName, Responders], AfterValidator(_each_severity)] = Field(
        {}, validate_default=True
    )

    @model_validator(mode="after")
    def _ordered(self) -> "Labour":
        if not self.low <= self.expected <= self.high:
            message = "low <= expected <= high must hold"
            raise ValueError(message)
        return self


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="AFTERMATH_", extra="ignore", frozen=True)

    database_url: DatabaseUrl | None = Field(
        None,
        description="PostgreSQL 15 or later, `postgresql://user:password@host/name`, of several hosts "
        "`host:port,host:port`; unset: the built-in one",
    )
    data_dir: Path = Field(Path(".data"), description="Where the built-in PostgreSQL and the spool keep their data")
    host: str = Field("127.0.0.1", description="Address to listen on")
    port: int = Field(8080, ge=0, le=65535, description="Port to listen on")
    public_url: str | None = Field(
        None, description="How senders reach the service; used in the receiver snippet; unset: `http://HOST:PORT`"
    )
    admin_token: SecretStr | None = Field(
        None, min_length=16, description="The admin token; unset: the first start makes one and prints it once"
    )
    workers: int = Field(1, ge=1, le=64, description="Processes that serve")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least severe level to log")
    max_body_bytes: int = Field(10 * 2**20, ge=1024, description="Largest delivery taken; larger ones get 413")
    receive_seconds: float = Field(
        60, gt=0, description="A request that has not come in whole by then is cut off; senders try again"
    )
    batch_alerts: int = Field(500, ge=1, description="Alerts that one transaction takes at most")
    queue_alerts: int = Field(20_000, ge=1, description="Alerts that may wait; beyond it doors answer 503")
    queue_seconds: float = Field(
        10, gt=0, description="Where the oldest alert has waited longer than this, doors answer 503"
    )
    spool_max_bytes: int = Field(
        256 * 2**20,
        ge=0,
        description="Disk for deliveries while the database is away; beyond it doors answer 503; 0: no spool",
    )
    spool_trust_seconds: int = Field(
        86_400,
        ge=0,
        description="While the database is away, how long a token is good that was good when last looked up",
    )
    allowed_lateness_seconds: int = Field(
        600, ge=0, description="After window plus this long a resolved incident is settled and enters the histograms"
    )
    settle_interval_seconds: float = Field(10, gt=0, description="How often resolved incidents are looked at to settle")
    watch_interval_seconds: float = Field(10, gt=0, description="How often the feed is looked after")
    impact: dict[SeverityName, Impact] = Field(
        {"sev1": Decimal(1), "sev2": Decimal("0.5"), "sev3": Decimal("0.1"), "sev4": Decimal(0), "sev5": Decimal(0)},
        description="Share of the hourly cost that a severity stands for, as JSON",
    )
    labour: Labour | None = Field(
        None,
        description="An hour of one responder as JSON, `currency`, `low`, `expected`, `high`, and `responders` by "
        "severity (1 each); unset: labour is not shown",
    )
    retention_alerts_days: int = Field(
        400,
        ge=31,
        description="Months of alerts that are older than this are dropped, but for alerts of incidents that are not "
        "over; incidents and their measures stay",
    )
    retention_deliveries_days: int = Field(
        90, ge=31, description="Months of the records of deliveries that are older than this are dropped"
    )
    metrics_services: int = Field(200, ge=1, description="Services with series of their own; the rest is `other`")

    @property
    def allowed_lateness(self) -> timedelta:
        return timedelta(seconds=self.allowed_lateness_seconds)
