"""B-cos convolution as a loop over patches in float64."""

import itertools
import math

import torch


def _index(i, size, mode):
    """Which element of the image stands at position i, where i may lie outside; None for a zero."""
    if mode == "circular":
        return i % size
    if mode == "replicate":
        return min(max(i, 0), size - 1)
    if mode == "reflect":
        return -i if i < 0 else 2 * (size - 1) - i if i >= size else i
    return i if 0 <= i < size else None


def _patch(image, top, left, kernel, dilation, mode):
    """The patch ``[C, h, w]`` whose first element is at (top, left)."""
    patch = torch.zeros(image.shape[0], *kernel, dtype=image.dtype)
    for i, j in itertools.product(*map(range, kernel)):
        row = _index(top + i * dilation[0], image.shape[1], mode)
        column = _index(left + j * dilation[1], image.shape[2], mode)
        if row is not None and column is not None:
            patch[:, i, j] = image[:, row, column]
    return patch


def _unit(patch, filters, b, convention):
    """One output: the best of M filters on one patch (mathematics §1, the three conventions)."""
    candidates = []
    for w in filters:
        length = float(w.norm())
        wx = float((w * patch).sum())
        candidates.append((wx / length if convention == "A" else wx, wx, length))
    _, wx, length = max(candidates)
    if b == 1:
        return wx / length if convention == "A" else wx
    n = math.sqrt(float(patch.square().sum()) + 1e-6)
    delta = 0 if b == 2 else 1e-6
    if convention == "B":
        return wx * (abs(wx) / n + delta) ** (b - 1)
    return (wx / length if convention == "A" else wx) * (abs(wx) / length / n + delta) ** (b - 1)


def slow(
    x, weight, b=2, max_out=1, stride=1, padding=0, dilation=1, groups=1, padding_mode="zeros", convention="A"
):  # fmt: skip
    kernel = tuple(weight.shape[2:])
    stride, dilation = ((v, v) if isinstance(v, int) else v for v in (stride, dilation))
    spans = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    if padding == "same":
        before, total = [s // 2 for s in spans], spans
    else:
        before = [0, 0] if padding == "valid" else [padding] * 2 if isinstance(padding, int) else list(padding)
        total = [2 * p for p in before]
    size = [(n + t - s - 1) // step + 1 for n, t, s, step in zip(x.shape[2:], total, spans, stride, strict=True)]
    outputs, channels = weight.shape[0] // max_out, weight.shape[1]
    out = torch.empty(x.shape[0], outputs, *size, dtype=torch.float64)
    for n, p, q in itertools.product(range(x.shape[0]), *map(range, size)):
        patch = _patch(x[n], p * stride[0] - before[0], q * stride[1] - before[1], kernel, dilation, padding_mode)
        for o in range(outputs):
            group = o // (outputs // groups)
            part = patch[group * channels : (group + 1) * channels]
            out[n, o, p, q] = _unit(part, weight[o * max_out : (o + 1) * max_out], b, convention)
    return out
