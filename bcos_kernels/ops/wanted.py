"""Which gradients a backward pass is asked for: of an explanation the inputs', of training the weights' too."""

from __future__ import annotations

import threading
from typing import Any

import torch


class _Asked(threading.local):
    """The last backward pass of this thread that was asked for a weight by name."""

    def __init__(self) -> None:
        self.task = -1


_asked = _Asked()


def wanted(ctx: Any) -> tuple[bool, bool]:
    """Whether this backward pass asks for the gradients of x and of the weight; at most, what it asks for and more.

    ``needs_input_grad`` alone is about the forward pass: of an explanation, which asks for inputs only, it would say
    that every weight needs one, and double the price.
    """
    x, weight = ctx.needs_input_grad[:2]
    if torch.compiler.is_compiling() or not (x and weight):
        return x, weight
    of_x, of_weight = ctx.next_functions[0][0], ctx.next_functions[1][0]
    task = torch._C._current_graph_task_id()
    if task != _asked.task:
        try:
            weight = torch._C._will_engine_execute_node(of_weight)
        except RuntimeError:  # a leaf that is itself asked for, which takes as long to find out as a small layer
            _asked.task = task
    if weight and not isinstance(of_x, torch._C._functions.AccumulateGrad):
        x = torch._C._will_engine_execute_node(of_x)
    return x, weight
