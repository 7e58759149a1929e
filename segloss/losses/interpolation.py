"""Bilinear interpolation of a band of rows, and its transpose, so that label-sized logits need not exist."""

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor


class _Axis:
    """Linear interpolation from ``size`` to ``new_size`` positions along one axis, and its transpose.

    Forward every new position reads two old ones, ``below`` and ``above``, the latter with the share ``upper``.
    Transposed every old position adds up ``sources[k]`` times ``shares[k]``, shape ``(K, size)``: sums in a fixed
    order, without the atomic additions that would change their last digits from run to run on a GPU.
    """

    def __init__(self, size: int, new_size: int, align_corners: bool, dtype: torch.dtype, device: torch.device):
        # The ramp 0, 1, 2 ... interpolated is the position each new point has among the old ones.
        ramp = torch.arange(size, dtype=torch.float64, device="cpu").view(1, 1, size, 1)
        position = F.interpolate(ramp, (new_size, 1), mode="bilinear", align_corners=align_corners).view(-1)
        below = position.floor().long().clamp(0, size - 1)
        above = (below + 1).clamp(max=size - 1)
        upper = position - below
        self.lowest, self.highest = below.tolist(), above.tolist()
        self.below, self.above = below.to(device), above.to(device)
        self.upper = upper.to(device, dtype)

        old, new = torch.cat([below, above]), torch.arange(new_size, device="cpu").repeat(2)
        share = torch.cat([1 - upper, upper])
        order = old.argsort(stable=True)
        order = order[share[order] != 0]
        old, new, share = old[order], new[order], share[order]
        fan = old.bincount(minlength=size)
        slot = torch.arange(len(old), device="cpu") - (fan.cumsum(0) - fan)[old]
        sources = torch.zeros(int(fan.max()), size, dtype=torch.int64, device="cpu")
        shares = torch.zeros(sources.shape, dtype=torch.float64, device="cpu")
        sources[slot, old], shares[slot, old] = new, share
        self.sources, self.shares = sources.to(device), shares.to(device, dtype)


_axis = lru_cache(maxsize=1024)(_Axis)  # a few KB each; so that a training step copies nothing to the device


class BilinearRows:
    """``F.interpolate(mode="bilinear")`` of ``(n, C, h, w)`` to ``new_size`` (H, W), by bands of the new rows."""

    def __init__(
        self,
        size: torch.Size,
        new_size: torch.Size,
        align_corners: bool,
        dtype: torch.dtype,
        device: torch.device,
    ):
        self.width = new_size[1]
        self._y = _axis(size[0], new_size[0], align_corners, dtype, device)
        self._x = _axis(size[1], new_size[1], align_corners, dtype, device)
        self._buffer = torch.empty(0, dtype=dtype, device=device)

    def _old_rows(self, rows: slice) -> slice:
        return slice(self._y.lowest[rows.start], self._y.highest[rows.stop - 1] + 1)

    def _like(self, shape: tuple[int, ...]) -> Tensor:
        """Memory that is kept from band to band: fresh pages would cost more than the arithmetic."""
        if self._buffer.numel() < math.prod(shape):
            self._buffer = self._buffer.new_empty(math.prod(shape))
        return self._buffer[: math.prod(shape)].view(shape)

    def interpolate(self, logits: Tensor, rows: slice, out: Tensor) -> None:
        """Rows ``rows`` of the interpolated ``logits``, written to ``out (n, C, rows, W)``."""
        old_rows = self._old_rows(rows)
        short = logits[:, :, old_rows].to(out.dtype)
        shape = (*short.shape[:3], self.width)
        wide = torch.lerp(
            short.gather(3, self._x.below.expand(shape)), short.gather(3, self._x.above.expand(shape)), self._x.upper
        )
        torch.index_select(wide, 2, self._y.below[rows] - old_rows.start, out=out)
        other = torch.index_select(wide, 2, self._y.above[rows] - old_rows.start, out=self._like(out.shape))
        out.lerp_(other, self._y.upper[rows].unsqueeze(1))

    def add_transposed(self, band: Tensor, rows: slice, gradient: Tensor, factor: Tensor) -> None:
        """Add factor times the transpose of :meth:`interpolate`, applied to ``band (n, C, rows, W)``."""
        old_rows = self._old_rows(rows)
        sources = self._y.sources[:, old_rows] - rows.start
        inside = (sources >= 0) & (sources < rows.stop - rows.start)
        shares = torch.where(inside, self._y.shares[:, old_rows], 0).unsqueeze(2)
        sources = sources.clamp_(0, rows.stop - rows.start - 1)
        wide = band.index_select(2, sources[0]).mul_(shares[0])
        for k in range(1, len(sources)):
            wide.addcmul_(band.index_select(2, sources[k]), shares[k])
        shape = (*wide.shape[:3], gradient.shape[3])
        short = wide.gather(3, self._x.sources[0].expand(shape)).mul_(self._x.shares[0])
        for k in range(1, len(self._x.sources)):
            short.addcmul_(wide.gather(3, self._x.sources[k].expand(shape)), self._x.shares[k])
        gradient[:, :, old_rows] += short.mul_(factor)
