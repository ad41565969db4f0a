"""The epoch of open_clip's trainer, made the same for any number of processes.

With ``--local-loss --gather-with-grad``, DataComp's own settings, each process computes the rows
of the loss that belong to its samples, against all columns. What its features owe to the rows of
the others comes back through the gathering, so the average over processes is the gradient of the
mean over all rows: that of one process with the whole batch. Three things do not follow from that
and are put right here: where the generators stand, the loss that is logged (the first process
would log its own rows), and, with accumulated gradients, that of the scale of the logits (every
part of a batch brings the whole of it, so that it would be so many times too large).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any


def seeded_epochs(train_one_epoch: Callable[..., Any], seed: int) -> Callable[..., Any]:
    """Wrap open_clip's epoch so that its generators depend on seed, epoch and rank only.

    Its loss is that of the global batch, in value and in gradient.
    """

    def wrapped(model: Any, data: Any, loss: Any, epoch: int, *rest: Any, **kwargs: Any) -> Any:
        import numpy as np
        import torch

        args = rest[4]
        own = random.Random(f"{seed}/{epoch}/{args.rank}").getrandbits(31)
        torch.manual_seed(own)
        np.random.seed(own)
        random.seed(own)
        loss = of_the_global_batch(loss, args.world_size, args.accum_freq)
        return train_one_epoch(model, data, loss, epoch, *rest, **kwargs)

    return wrapped


def of_the_global_batch(loss: Callable[..., Any], world: int, parts: int) -> Callable[..., Any]:
    """Wrap a loss of open_clip: same gradient, but for the scale's, and the mean of all as value.

    ``parts`` is the number of accumulation steps, each of which calls the loss once.
    """
    if world == parts == 1:
        return loss

    def wrapped(*, logit_scale: Any, **features: Any) -> dict[str, Any]:
        from torch import distributed

        if parts > 1:
            value = logit_scale.detach()
            logit_scale = value + (logit_scale - value) / parts
        losses = loss(logit_scale=logit_scale, **features)
        if world == 1:
            return losses
        for name, own in losses.items():
            mean = own.detach().clone()
            distributed.all_reduce(mean)
            losses[name] = mean / world + (own - own.detach())
        return losses

    return wrapped
