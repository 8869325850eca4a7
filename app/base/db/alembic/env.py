"""Runs migrations on the connection that `app.base.db.migrate` passes.

This folder has no `__init__.py`: it would hide the library of the same name.
"""

from alembic import context

from app.base.db.partitions import PARTITION_NAME
from app.base.schema import metadata

connection = context.config.attributes["connection"]
if connection.in_transaction():
    # To build an index CONCURRENTLY, a migration leaves its transaction, which therefore cannot be the caller's.
    connection.commit()
context.configure(
    connection=connection,
    target_metadata=metadata,
    compare_type=True,
    compare_server_default=False,
    transaction_per_migration=True,
    # Partitions come and go without a migration.
    include_name=lambda name, kind, _: kind != "table" or not PARTITION_NAME.fullmatch(name or ""),
)
with context.begin_transaction():
    context.run_migrations()
