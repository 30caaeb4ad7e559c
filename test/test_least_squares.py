"""Least squares from running sums, and which inputs are left out."""

from __future__ import annotations

import torch

from hri_emo_ros.training.least_squares import Moments, eliminate


def moments_of(x: torch.Tensor, y: torch.Tensor, parts: int = 1) -> Moments:
    moments = Moments()
    for a, b in zip(x.chunk(parts), y.chunk(parts), strict=True):
        moments.add(a, b)
    return moments


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_frames_in_parts_give_what_all_at_once_give() -> None:
    x, y = draw(300, 5), draw(300, 2, seed=1)
    once, often = moments_of(x, y).solve(), moments_of(x, y, parts=7).solve()
    for a, b in zip(once, often, strict=True):
        torch.testing.assert_close(a, b)


def test_a_linear_map_is_found_with_its_offset() -> None:
    x, weights = draw(500, 4), draw(4, 3, seed=1)
    y = (x + 2.0) @ weights + torch.tensor([1.0, -2.0, 5.0])
    found, bias = moments_of(x, y).solve()
    torch.testing.assert_close(x @ found + bias, y, atol=0.05, rtol=0)


def test_an_input_that_others_can_replace_goes_before_one_that_matters_less_but_alone() -> None:
    x = draw(2000, 3)
    # The fourth is nearly the first; the third matters least of all but nothing stands in for it.
    x = torch.cat([x, x[:, :1] + 0.01 * draw(2000, 1, seed=2)], dim=1)
    y = x @ torch.tensor([[1.0], [1.0], [0.5], [1.0]])
    kept, weights, bias = eliminate(moments_of(x, y), 3)
    assert kept.tolist() in ([0, 1, 2], [1, 2, 3])
    torch.testing.assert_close(x[:, kept] @ weights + bias, y, atol=0.1, rtol=0)


def test_neighbours_of_a_group_stay_together() -> None:
    x = draw(2000, 9)
    weights = torch.zeros(9, 2)
    weights[[0, 1, 2, 8]] = draw(4, 2, seed=1)
    y = x @ weights
    kept, solved, bias = eliminate(moments_of(x, y), 2, group=3)
    assert kept.tolist() == [0, 2]
    columns = (kept[:, None] * 3 + torch.arange(3)).flatten()
    torch.testing.assert_close(x[:, columns] @ solved + bias, y, atol=0.05, rtol=0)
