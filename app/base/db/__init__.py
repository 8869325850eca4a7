"""PostgreSQL: connections, transactions, migrations and monitoring."""

from app.base.db.built_in import DATABASE, prepare_built_in
from app.base.db.engine import (
    OLDEST_SERVER,
    UnsupportedServer,
    connect,
    is_contended,
    is_unreachable,
    read_session,
    read_transaction,
    require_supported,
    session,
    session_within,
    state_of,
    transaction,
)
from app.base.db.failures import CannotUseDatabase, explained
from app.base.db.migrations import MIGRATIONS, alembic_config, migrate
from app.base.db.monitor import HANGS_SECONDS, PROBE_AT_MOST_SECONDS, PROBE_SECONDS, DatabaseDown, DatabaseMonitor
from app.base.db.public_role import HOW_TO_CREATE_IT, PUBLIC_ROLE, public_transaction
from app.base.db.raw import RawConnection, Rows, Transaction, copy
from app.base.db.rows import containing, total, upsert

__all__ = [
    "DATABASE",
    "HANGS_SECONDS",
    "HOW_TO_CREATE_IT",
    "MIGRATIONS",
    "OLDEST_SERVER",
    "PROBE_AT_MOST_SECONDS",
    "PROBE_SECONDS",
    "PUBLIC_ROLE",
    "CannotUseDatabase",
    "DatabaseDown",
    "DatabaseMonitor",
    "RawConnection",
    "Rows",
    "Transaction",
    "UnsupportedServer",
    "alembic_config",
    "connect",
    "containing",
    "copy",
    "explained",
    "is_contended",
    "is_unreachable",
    "migrate",
    "prepare_built_in",
    "public_transaction",
    "read_session",
    "read_transaction",
    "require_supported",
    "session",
    "session_within",
    "state_of",
    "total",
    "transaction",
    "upsert",
]
