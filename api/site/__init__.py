"""Write the pages as files, for a CDN or a folder that a browser opens without a server."""

from .site_writing import Written, write_site

__all__ = ["Written", "write_site"]
