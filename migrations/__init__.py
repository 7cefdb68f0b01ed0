"""migrations *changes the schema*: Alembic's environment and the numbered revisions."""
