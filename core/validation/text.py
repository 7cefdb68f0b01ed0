"""What may be in text that somebody sends: each check returns what is wrong with it, in a sentence, or ``None``.

What names something is of printable ASCII: a homoglyph looks like a letter, so an odd character is told by its number.
"""

import re

NAME_LENGTH = 255
TARGET_LENGTH = 255
REGEX_LENGTH = 4_096
RATIONALE_LENGTH = 4_000

NAME_PATTERN = r"^[A-Za-z0-9_][A-Za-z0-9_\-]*(\.[A-Za-z0-9_\-]+)*$"
TARGET_PATTERN = r"^([0-9]+\.)*[0-9]*[A-Za-z_\-][A-Za-z0-9_\-]*(\.[A-Za-z0-9_\-]+)*$"
PATH_PATTERN = r"^[!-\-/-~]+(\.[!-\-/-~]+)*$"
REGEX_PATTERN = r"^[ -~]+$"
HIDDEN = (
    r"\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u180e"
    r"\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
)
"""Control characters but line feeds and tabs, and what shows nothing, ends a line or turns the direction of reading."""


def find_odd(text: str, odd: str = r"[^ -~]") -> str | None:
    """Return the first odd character of a text, in words; ``None`` if there is none.

    Args:
        text: What is looked through.
        odd: Which characters are odd, as a class of a regex: what is not printable ASCII, unless told otherwise.
    """
    found = re.search(odd, text)
    if found is None:
        return None
    shown = f"{found[0]!r} " if found[0].isprintable() else ""
    return f"{shown}(U+{ord(found[0]):04X})"


def fault_in_name(name: str) -> str | None:
    """Return why this cannot be the name of an architecture or a class."""
    odd = find_odd(name, r"[^A-Za-z0-9_.\-]")
    if odd:
        return f"A name is of ASCII letters, digits, '_', '.' and '-'; {shorten(name)} holds {odd}."
    if not 1 <= len(name) <= NAME_LENGTH:
        return f"A name has 1 to {NAME_LENGTH} characters; this one has {len(name)}."
    if not re.fullmatch(NAME_PATTERN, name):
        way_out = "It begins with a letter, a digit or '_', and has something on both sides of a '.', as in 'llama'"
        return f"{shorten(name)} cannot be a name. {way_out}."
    return None


def fault_in_target(target: str) -> str | None:
    """Return why this cannot be the end of a path."""
    odd = find_odd(target, r"[^A-Za-z0-9_.\-]")
    if odd:
        way_out = "Give a regex as one string, not in a list"
        return f"A target is the end of a path; {shorten(target)} holds {odd}. {way_out}."
    if not 1 <= len(target) <= TARGET_LENGTH:
        return f"A target has 1 to {TARGET_LENGTH} characters; one here has {len(target)}."
    segments = target.split(".")
    if not all(segments):
        return f"Target {shorten(target)} has an empty segment. Write it as in 'self_attn.q_proj'."
    if all(map(str.isdecimal, segments)):
        way_out = "Put the name before it, as in 'mlp.0'"
        return f"Target {shorten(target)} is a bare index, which hits whatever else is numbered. {way_out}."
    return None


def fault_in_regex(regex: str) -> str | None:
    """Return why this cannot be a regex of paths; whether it is one at all, its engine tells."""
    if not 1 <= len(regex) <= REGEX_LENGTH:
        return f"A regex has 1 to {REGEX_LENGTH} characters; this one has {len(regex)}. Give a list of targets."
    odd = find_odd(regex)
    return (
        f"A regex is of printable ASCII, as the paths it matches; this one holds {odd}. Leave it out." if odd else None
    )


def fault_in_path(path: str) -> str | None:
    """Return why this cannot be the path of a layer."""
    odd = find_odd(path, "[^!-~]")
    if odd:
        return f"A path is of printable ASCII without spaces; {shorten(path)} holds {odd}."
    if not 1 <= len(path) <= TARGET_LENGTH:
        return f"A path has 1 to {TARGET_LENGTH} characters; one here has {len(path)}."
    if not all(path.split(".")):
        return f"Path {shorten(path)} has an empty segment. Write it as in 'model.layers.0.mlp.up_proj'."
    return None


def fault_in_text(text: str) -> str | None:
    """Return why this is no text that shows whole; line ends and tabs are fine."""
    odd = find_odd(text, f"[{HIDDEN}\ud800-\udfff]")  # halves of characters, as a shell's odd bytes are read: no text
    return f"A text has no control characters and nothing invisible; here is {odd}. Leave it out." if odd else None


def fault_in_reason(text: str) -> str | None:
    """Return why this is no text somebody could read."""
    return fault_in_text(text) or (None if text.strip() else "Say why; there is nothing to read here.")


def shorten(text: str) -> str:
    """Return a text quoted, and cut where it is too long for a line."""
    return repr(text if len(text) <= 64 else f"{text[:61]}...")  # noqa: PLR2004 - fits a line
