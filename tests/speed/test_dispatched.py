# SPDX-License-Identifier: Apache-2.0
"""Operations counted by hand, and counted by torch."""

from __future__ import annotations

import pytest
import torch

from tokenprune.bench.speed.dispatched import count_dispatched

CPU = torch.device("cpu")
X = torch.arange(12.0).view(3, 4)


def test_a_function_counted_by_hand() -> None:
    def function() -> tuple[torch.Tensor, int]:
        turned = X.T[1:].unsqueeze(0).expand(2, 3, 3)  # views
        added = torch.empty(2, 3, 3).copy_(turned).add_(1)  # an allocation, then copy_ and add_
        places = (added > 3).nonzero()  # gt and nonzero
        return places, int(added.sum())  # sum and _local_scalar_dense

    (_, total), found = count_dispatched(function, CPU)
    assert total == int((X.T[1:] + 1).sum()) * 2
    assert found.operations == {"copy_": 1, "add_": 1, "gt": 1, "nonzero": 1, "sum": 1, "_local_scalar_dense": 1}
    assert found.waits == {"nonzero": 1, "_local_scalar_dense": 1}
    assert (found.total, found.total_waits) == (6, 2)


def test_only_tensors_of_the_device_count() -> None:
    """Meta tensors stand in for those of a GPU."""
    there = X.to("meta")
    _, found = count_dispatched(lambda: (there @ there.T, int((X + 1).sum()), torch.zeros(3, device="meta")), CPU)
    assert found.operations == {"add": 1, "sum": 1, "_local_scalar_dense": 1}
    _, found = count_dispatched(lambda: (there @ there.T, int((X + 1).sum())), there.device)
    assert (found.operations, found.waits) == ({"mm": 1}, {})


def test_nothing_counts_as_nothing() -> None:
    result, found = count_dispatched(lambda: X.view(4, 3)[::2].transpose(0, 1).detach(), CPU)
    assert result.shape == (3, 2)
    assert (found.operations, found.waits) == ({}, {})


@pytest.mark.parametrize(
    ("waits", "call"),
    [
        (1, lambda: X[X > 5]),
        (0, lambda: X[torch.tensor([0, 2])]),
        (1, lambda: X.masked_select(X > 5)),
        (1, lambda: X.flatten().unique()),
        (1, lambda: torch.bincount(torch.tensor([0, 2, 2]))),
        (1, lambda: torch.equal(X, X + 0)),
        (1, lambda: bool((X > 5).all())),
        (12, lambda: [float(value) for value in X.flatten()]),
        (1, lambda: torch.repeat_interleave(torch.tensor([1, 2]))),
        (1, lambda: X.repeat_interleave(torch.tensor([1, 0, 2]), dim=0)),
        (0, lambda: X.repeat_interleave(torch.tensor([1, 0, 2]), dim=0, output_size=3)),
        (0, lambda: X.to(torch.float64)),
        (0, lambda: X.masked_fill(X > 5, 0).argsort().cumsum(0)),
    ],
)
def test_what_the_host_waits_for(waits: int, call: object) -> None:
    assert callable(call)
    _, found = count_dispatched(call, CPU)
    assert found.total_waits == waits, found.waits


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_copies_between_host_and_gpu() -> None:
    there = X.cuda()
    calls = [lambda: there.cpu(), lambda: X.cuda(), lambda: torch.tensor([1, 2], device="cuda"), lambda: there.tolist()]
    for call in calls:
        assert count_dispatched(call, there.device)[1].total_waits >= 1
    _, found = count_dispatched(lambda: (there + 1).to(torch.bfloat16), there.device)
    assert (found.total, found.total_waits) == (2, 0)
    _, found = count_dispatched(lambda: (there + 1, int((X + 1).sum())), there.device)
    assert (found.total, found.total_waits) == (1, 0)
