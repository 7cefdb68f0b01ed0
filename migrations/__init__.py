"""Change the schema of the database: Alembic's environment and the numbered revisions."""
