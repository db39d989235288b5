"""torch.compile for the networks that do the work: the encoder and its slow copies.

Heads and objective stay as they are: they are a few small kernels, and objectives keep tables that a compiler cannot
see. So do the looks from outside (:mod:`compressl.training.online`): other batch sizes would be compiled anew.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from compressl.devices import autocast
from compressl.methods import Method


def compile_encoders(method: Method, views: Sequence[Tensor], precision: str) -> str | None:
    """Compile the encoder and its copies in place, for views like these; None, or why they run uncompiled.

    One step is tried, forward and backward; weights and statistics are as before it. Shapes are taken as fixed, as they
    are in a training: code for shapes that vary is slower.
    """
    device = views[0].device
    encoders = [module for module in method.modules() if type(module) is type(method.encoder)]
    before = {name: value.clone() for name, value in method.state_dict().items()}
    problem = None
    try:
        for encoder in encoders:
            encoder.compile(dynamic=False)
        with autocast(device, precision):
            loss, _ = method(views, torch.Generator(device).manual_seed(0))
        loss.backward()
    except Exception as error:  # a compiler can fail in any way, and the run goes on without it
        for encoder in encoders:
            encoder._compiled_call_impl = None
        reason = str(error).strip() or "no reason given"
        problem = f"{type(error).__name__}: {reason.splitlines()[0]}"
    method.load_state_dict(before)
    method.zero_grad(set_to_none=True)
    return problem
