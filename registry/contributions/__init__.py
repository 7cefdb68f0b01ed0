"""Take contributions: submissions, evidence, reviews, tokens and idempotency."""
