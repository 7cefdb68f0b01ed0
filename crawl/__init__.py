"""Count the structures on a hub: walk its listing, and read each repository's configuration and headers, without torch.

Others may import ``crawl`` (the whole walk) with ``CrawlQuery`` (which repos), and the ``CrawlReport`` it returns.
"""

from .hub_listing import CrawlQuery
from .walk import CrawlReport, crawl

__all__ = ["CrawlQuery", "CrawlReport", "crawl"]
