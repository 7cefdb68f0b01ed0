"""``/``: one search box, the coverage of the registry, and the latest changes."""

from collections import Counter

from fastapi import Request
from starlette.responses import Response

from ..dependencies import OpenRegistry
from .rendering import PageRouter, page

MOST_CHANGES = 6

EXAMPLES = ("Qwen/Qwen3-8B", "LlamaForCausalLM", "sdxl", "Wqkv", "vit_base_patch16_224")
"""What may be typed: a checkpoint, a class, a nickname, a layer, an architecture of timm."""

ACTIONS = {
    "seed": "The packaged catalog was stored",
    "scan.store": "A scan was stored",
    "constants.import": "PEFT's tables were stored",
    "audit": "Mappings were checked again",
    "submission.add": "A mapping was submitted",
    "submission.check": "A submission was checked",
    "submission.publish": "A submission was published",
    "submission.reject": "A submission was rejected",
    "submission.withdraw": "A submission was withdrawn",
    "mapping.yank": "A mapping was taken out of use",
    "mapping.restore": "A mapping was taken into use again",
}
"""Operations that change mappings, in words; others stand as they are."""

router = PageRouter()


@router.page("/", twin="/")
def show_home(request: Request, registry: OpenRegistry) -> Response:
    """Return the page at which most people arrive."""
    info = registry.info()
    summaries = registry.browsing.list_all()
    proved = Counter(one.architecture.library for one in summaries if one.status == "live")
    every = Counter(one.architecture.library for one in summaries)
    shares = [(library, proved[library], count) for library, count in every.most_common()]
    changes = registry.list_changes(max(0, info.serial - MOST_CHANGES), MOST_CHANGES)
    context = {"info": info, "shares": shares, "proved": proved.total(), "changes": changes[::-1]}
    return page(request, "home.html", **context, actions=ACTIONS, examples=EXAMPLES)
