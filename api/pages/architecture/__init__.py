"""The page of one architecture, and its badge: targets of a choice, costs, the tree of modules, and related facts."""

from . import badge, overview

ROUTERS = (overview.router,)
FILES = (badge.router,)
