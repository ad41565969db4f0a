"""The noise is that of the package ``noise``; the table holds it as often."""

import numpy as np
from datacomp.pools.synthetic import perlin

PNOISE1 = {  # noise 1.2.2
    0.0: 0.0, 0.25: 0.6861328482627869, 1.5: 0.20000000298023224, 7.9: 0.036575984209775925,
    254.3: -0.32874760031700134, 255.6: -0.4927576184272766, 300.123: 0.2691138684749603,
    1023.5: -0.30000001192092896, 1024.25: 0.6861328482627869, 9999.875: 0.06043396145105362,
}  # fmt: skip


def test_noise_is_that_of_the_package():
    found = {place: float(perlin.noise(place, perlin.GRADIENTS)) for place in PNOISE1}
    assert found == PNOISE1


def test_the_table_is_distributed_as_noise_at_random_places():
    places = np.random.default_rng(0).uniform(0, perlin.SPAN, 200_000)
    noise = np.sort([float(perlin.noise(place, perlin.GRADIENTS)) for place in places])
    table = np.sort(perlin.table().astype(float))
    assert len(table) == 65_536
    grid = np.linspace(-1, 1, 401)
    cumulated = (np.searchsorted(values, grid) / len(values) for values in (noise, table))
    assert np.max(np.abs(np.subtract(*cumulated))) < 0.004  # Kolmogorov and Smirnov, p about 0.1
    assert abs(table.mean()) < 0.002
    assert abs(table.std() - 0.330) < 0.002
