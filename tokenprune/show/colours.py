# SPDX-License-Identifier: Apache-2.0
"""Colours of the contact sheet and the page, red, green, blue and where needed opacity; apart for the colour-blind."""

from __future__ import annotations

Colour = tuple[int, int, int]

PAPER: Colour = (20, 23, 31)
TEXT: Colour = (236, 239, 244)
TEXT_DIM: Colour = (160, 168, 184)
DOT: Colour = (255, 209, 71)
SCORES: Colour = (249, 142, 9)
LINE = (255, 255, 255, 190)
STATIC = (56, 132, 255, 105)
DARK = (10, 12, 18, 185)
SEGMENTS: tuple[Colour, ...] = (
    (86, 180, 233), (230, 159, 0), (0, 158, 115), (204, 121, 167), (240, 228, 66), (213, 94, 0), (140, 140, 255),
)  # fmt: skip
"""One a segment, over again after the last."""

HEAT: tuple[Colour, ...] = ((0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164))
"""From the lowest score to the highest, evenly spaced."""


def heat_colour(value: float) -> Colour:
    """The colour of a value in [0, 1]."""
    place = min(max(value, 0.0), 1.0) * (len(HEAT) - 1)
    low = min(int(place), len(HEAT) - 2)
    part = place - low
    red, green, blue = (round(a + (b - a) * part) for a, b in zip(HEAT[low], HEAT[low + 1]))
    return red, green, blue
