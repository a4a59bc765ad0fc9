"""FMI's binomial tree: ranks rotated so that the root is 0, children at the distances of the powers of two.

A rank's *virtual* number is ``(rank - root) mod size``. Its parent is the number without its lowest set
bit; its child at distance 2^i exists where 2^i is below that bit, and heads the subtree of up to 2^i
virtual ranks from itself on.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Child:
    """A child in the tree.

    Attributes
    ----------
    rank
        Its real rank.
    offset
        Its distance from the parent in virtual ranks, a power of two.
    subtree
        Number of ranks in its subtree, itself included.
    """

    rank: int
    offset: int
    subtree: int


@dataclass(frozen=True, slots=True)
class Position:
    """A rank's place in the tree.

    Attributes
    ----------
    virtual
        Number in the rotated order, 0 at the root.
    parent
        Real rank of the parent, None at the root.
    children
        Nearest first, the order of a reduction; a broadcast uses the reverse order.
    subtree
        Number of ranks in this rank's subtree, itself included.
    """

    virtual: int
    parent: int | None
    children: tuple[Child, ...]
    subtree: int


def position(rank: int, size: int, root: int) -> Position:
    """Return the place of `rank` in the tree of `size` ranks around `root`."""
    virtual = (rank - root) % size
    children = []
    distance = 1
    while distance < size and not virtual & distance:
        child = virtual + distance
        if child < size:
            children.append(Child((child + root) % size, distance, min(distance, size - child)))
        distance *= 2
    parent = None if virtual == 0 else ((virtual & (virtual - 1)) + root) % size
    return Position(virtual, parent, tuple(children), 1 + sum(child.subtree for child in children))
