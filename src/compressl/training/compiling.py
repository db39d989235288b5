"""torch.compile for the networks that do the work: the encoder and its slow copies.

Heads and objective stay as they are: they are a few small kernels, and objectives keep tables that a compiler cannot
see. So do the looks from outside (:mod:`compressl.training.online`): other batch sizes would be compiled anew.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from compressl.devices import autocast
from compressl.errors import first_line
from compressl.methods import Method


def compile_encoders(
    method: Method, stages: Sequence[Sequence[Tensor]], precision: str, graphs: bool = False
) -> str | None:
    """Compile the encoder and its copies in place; None, or why they run uncompiled.

    One step is tried for each stage, forward and backward; weights and statistics are as before it. Shapes are taken as
    fixed, as they are in a part of a training: code for shapes that vary is slower.

    Args:
        stages: views as each part of the training has them.
        graphs: capture the kernels as CUDA graphs, to be replayed without a launch for each; every step then begins
            with :func:`torch.compiler.cudagraph_mark_step_begin`.
    """
    device = stages[0][0].device
    encoders = [module for module in method.modules() if type(module) is type(method.encoder)]
    shapes = {view.shape for views in stages for view in views}
    allow_compilations(2 * len(encoders) * len(shapes))  # with gradients and without
    before = {name: value.clone() for name, value in method.state_dict().items()}
    problem = None
    try:
        for encoder in encoders:
            encoder.compile(dynamic=False, mode="reduce-overhead" if graphs else None)
        for views in stages:
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
            with autocast(device, precision):
                loss, _ = method(views, torch.Generator(device).manual_seed(0))
            loss.backward()
            method.zero_grad(set_to_none=True)
    except Exception as error:  # a compiler can fail in any way, and the run goes on without it
        for encoder in encoders:
            encoder._compiled_call_impl = None
        problem = f"{type(error).__name__}: {first_line(error)}"
    method.load_state_dict(before)
    method.zero_grad(set_to_none=True)
    return problem


def allow_compilations(count: int) -> None:
    """Let one function be compiled this often: beyond its limit torch.compile runs it as it is, with a mere warning.

    All modules of a class share a function, and every shape is one more compilation.
    """
    config = torch._dynamo.config
    config.recompile_limit = max(config.recompile_limit, count)
