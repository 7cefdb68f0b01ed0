"""Connect to the database: engine, tables, schema state, transactions and the audit log."""
