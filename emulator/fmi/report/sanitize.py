"""Text of others that is safe on a terminal."""


def printable(text: str) -> str:
    """Return a text without what would move a terminal's cursor, change its colours or name; newlines stay."""
    return "".join(character if character.isprintable() or character == "\n" else " " for character in text)
