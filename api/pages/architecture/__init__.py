"""Render the page of one architecture, and its badge: targets of a choice, costs, and related facts."""

from . import badge, overview

ROUTERS = (overview.router,)
FILES = (badge.router,)
