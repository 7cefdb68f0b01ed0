"""discovery *scans*: it turns an architecture nobody registered into layers, roles, slots and proposals."""

from ..errors import LoradarError  # noqa: F401
