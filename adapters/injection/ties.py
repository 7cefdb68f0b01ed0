"""Weights that more than one module holds, such as the embeddings of a language model."""

from collections import Counter

from .sites import Survey


def shared_parameters(survey: Survey) -> set[int]:
    """Return the ids of the parameters that more than one module holds."""
    counts = Counter(map(id, survey.parameters()))
    return {key for key, count in counts.items() if count > 1}


def others_with(survey: Survey, path: str) -> list[str]:
    """Return the paths outside of ``path`` whose module holds a parameter that is also held there."""
    inside = {id(parameter) for parameter in survey.sites[path].module.parameters()}
    return [
        other
        for other, site in survey.sites.items()
        if not f"{other}.".startswith(f"{path}.") and not inside.isdisjoint(map(id, site.module._parameters.values()))  # noqa: SLF001 - see Survey.parameters
    ]
