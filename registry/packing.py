"""Make the packaged registry from the packaged catalog: ``python -m loradar.registry.packing FILE``.

The wheel's build and ``make`` run it; ``db.shipped`` finds the file.
"""

import sqlite3
import sys
from contextlib import closing
from pathlib import Path

from .catalogs import seed_digest
from .db.database import Database, first_use_transaction
from .db.prepare import migrate
from .db.shipped import is_of_seed
from .seed import add_seed


def make_shipped(out: Path) -> bool:
    """Write the packaged registry, or leave the file as it is if it is of the present catalog; return whether written.

    Raises:
        DatabaseUnusable: If the file cannot be written.
    """
    part = out.with_name(f"{out.name}.new")
    if out.exists():
        with closing(sqlite3.connect(out)) as connection:
            if is_of_seed(connection, seed_digest()):
                return False
    part.unlink(missing_ok=True)
    database = Database(f"sqlite:///{part.absolute()}")
    try:
        part.touch()
        with first_use_transaction(database.engine) as transaction:
            migrate(transaction)
            add_seed(transaction)
    finally:
        database.close()
    with closing(sqlite3.connect(part)) as connection:
        connection.execute("VACUUM")
    part.replace(out)
    return True


if __name__ == "__main__":
    make_shipped(Path(sys.argv[1]))
