"""Understudy: something expensive turned into something cheap that can be trusted."""

__version__ = "0.1.0"
