"""Text as data: a corpus becomes chunks of tokens of one length."""

VERSION = "1.0.0"
"""The version of the rows on disk."""
