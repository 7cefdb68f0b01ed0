"""Write a configuration or a script with the targets of a mapping for each training tool, from templates.

Keys, names and limits of the tools are in ``data/snippets/``. Others may import: ``write_snippet`` (a mapping, with
what is known of its model -> ``Snippet``), ``list_tools``, and ``Subject``, which is that knowledge.
"""

from .snippet import Snippet, Subject, write_snippet
from .tools import Tool, get_tool, list_tools

__all__ = ["Snippet", "Subject", "Tool", "get_tool", "list_tools", "write_snippet"]
