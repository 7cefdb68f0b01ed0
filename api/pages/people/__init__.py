"""Render pages that know who reads them: signing in, submitting mappings, and reviewing them."""

from . import contributing, login, reviewing

ROUTERS = (login.router, contributing.router, reviewing.router)
"""The pages; ``/submissions/new`` stands before ``/submissions/{submission_id}``."""
