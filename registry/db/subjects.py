"""What the log of changes calls things."""


def architecture_subject(library: str, name: str) -> str:
    """Return what an architecture is called in the log."""
    return f"architecture:{library}:{name}"


def mapping_subject(mapping_id: str) -> str:
    """Return what a revision of a mapping is called in the log."""
    return f"mapping:{mapping_id}"


def submission_subject(submission_id: int) -> str:
    """Return what a submission is called in the log."""
    return f"submission:{submission_id}"


def token_subject(token_id: int) -> str:
    """Return what a token is called in the log."""
    return f"token:{token_id}"
