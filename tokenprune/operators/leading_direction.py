# SPDX-License-Identifier: Apache-2.0
"""The direction in which a set of vectors varies most, without forming their covariance."""

from __future__ import annotations

import torch
from torch import Tensor

from tokenprune.device import where_fp64_is

STEPS = 48


def leading_direction(rows: Tensor) -> Tensor:
    """Top right singular vector ``(D,)`` of fp32 or fp64 ``rows`` ``(n, D)``; zero where all rows are zero.

    The best vector of a Krylov space of up to :data:`STEPS` dimensions from a fixed start. Where two directions are
    equally strong, one between them; which, the start decides. Does not wait for the device.
    """
    count, dim = rows.shape
    place = torch.arange(1, dim + 1, device=rows.device, dtype=rows.dtype)
    start = torch.cos(place * place * 0.7)  # a chirp: orthogonal to nothing in particular
    towards = (rows @ start) @ rows
    basis = rows.new_zeros(0, dim)
    for _ in range(min(count, dim, STEPS)):
        scale = torch.linalg.vector_norm(towards)
        for _ in range(2):  # once leaves rounding
            towards = towards - (basis @ towards) @ basis
        rest = torch.linalg.vector_norm(towards)
        towards = torch.where(rest > 1e-5 * scale, towards / rest, 0)  # the space is complete: nothing more to add
        basis = torch.cat([basis, towards[None]])
        towards = (rows @ towards) @ rows
    spread = where_fp64_is(rows @ basis.T).double()
    turn = torch.linalg.eigh(spread.T @ spread).eigenvectors[:, -1]
    return turn.to(rows.dtype).to(rows.device) @ basis
