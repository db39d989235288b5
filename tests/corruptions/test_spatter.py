"""Water and mud: edges, distances and equalisation against scipy and by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.ndimage
import torch
from torch import Tensor

from compressl.corruptions.spatter import distances, edges, equalize

Apply = Callable[..., Tensor]
Scenes = Callable[[int, int], Tensor]


def test_a_step_has_one_line_of_edges() -> None:
    image = torch.zeros(1, 1, 16, 16, dtype=torch.float64)
    image[..., 8:] = 200
    found = edges(image)[0, 0]
    assert found.sum(1).tolist() == [1] * 16
    assert found[:, 7].all()
    assert not edges(image / 200 * 10).any(), "a faint step is no edge"
    assert torch.equal(edges(image.transpose(2, 3))[0, 0], found.T)


def test_weak_edges_count_where_they_meet_strong_ones() -> None:
    image = torch.zeros(2, 1, 16, 16, dtype=torch.float64)
    image[..., 8:] = 25  # 4 * 25 lies between the thresholds
    image[0, :, :4, 8:] = 60
    strong, weak = edges(image)
    assert bool(strong[0, 10:, 7].all())
    assert not bool(weak.any())


def test_distances_are_nearly_euclidean() -> None:
    edge = torch.rand(3, 1, 40, 40, generator=torch.Generator().manual_seed(0)) < 0.004
    for found, e in zip(distances(edge)[:, 0].numpy(), edge[:, 0].numpy(), strict=True):
        exact = np.minimum(scipy.ndimage.distance_transform_edt(~e), 20)
        np.testing.assert_allclose(found, exact, rtol=0.025)
    assert bool((distances(torch.zeros(1, 1, 8, 8, dtype=torch.bool)) == 20).all())


def test_equalisation_spreads_the_levels() -> None:
    levels = torch.tensor([[3.0, 3], [5, 9]], dtype=torch.float64).view(1, 1, 2, 2)
    assert equalize(levels).flatten().tolist() == [0, 0, 128, 255]  # half of the pixels above the lowest: 127.5
    assert equalize(torch.full((1, 1, 2, 2), 7.0)).flatten().tolist() == [7] * 4


def test_water_shines_and_mud_covers(scenes: Scenes, apply: Apply, draws: Apply) -> None:
    x = scenes(2, 32).double()
    water = apply("spatter", x, draws("spatter", 1, 2), (0.62, 0.1, 0.7, 0.7, 0.5, 0)) - x
    assert float(water.min()) >= 0
    np.testing.assert_allclose(water.amax((2, 3)).numpy(), np.tile(np.array([175, 238, 238]) / 510, (2, 1)))
    mud = apply("spatter", x, draws("spatter", 1, 2), (0.65, 0.1, 0.5, 0.68, 0.6, 1))
    liquid = 0.65 + 0.1 * draws("spatter", 1, 2).normal(1, 32, 32).numpy()
    wet = scipy.ndimage.gaussian_filter(liquid, 0.5, mode="nearest", axes=(2, 3)) > 0.68
    cover = scipy.ndimage.gaussian_filter(wet.astype(float), 0.6, mode="nearest", axes=(2, 3))
    cover = np.where(cover < 0.8, 0, cover)
    brown = np.array([63, 42, 20]).reshape(3, 1, 1) / 255
    np.testing.assert_allclose(mud.numpy(), x.numpy() * (1 - cover) + brown * cover, atol=1e-12)
