"""Cutting bytes into pieces, for parsers that must not care."""

from itertools import pairwise

from hypothesis import strategies as st


def cut(data: bytes, at: list[int]) -> list[bytes]:
    """`data` cut at these offsets (any integers: taken modulo its length)."""
    if not data:
        return []
    edges = sorted({0, len(data), *(offset % len(data) for offset in at)})
    return [data[a:b] for a, b in pairwise(edges)]


def offsets(max_size: int = 30) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(0, 2**20), max_size=max_size)
