"""Random crops and flips of whole batches, on any device."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["crop_and_flip", "crop_only"]


def crop_and_flip(images: Tensor, generator: torch.Generator, padding: int = 4, flip: bool = True) -> Tensor:
    """Shift each image by up to ``padding`` pixels, filling with zeros, and mirror it with probability 1/2.

    Args:
        images: [N, C, H, W], any dtype.
        generator: A CPU generator; it draws the same numbers for every device.
        padding: Largest shift in pixels.
        flip: Whether to mirror.
    """
    count, channels, height, width = images.shape
    device = images.device
    padded = torch.nn.functional.pad(images, (padding,) * 4)
    top, left = torch.randint(2 * padding + 1, (2, count, 1), generator=generator).to(device)
    rows = top + torch.arange(height, device=device)
    columns = left + torch.arange(width, device=device)
    if flip:
        mirrored = (torch.rand(count, 1, generator=generator) < 0.5).to(device)
        columns = torch.where(mirrored, columns.flip(1), columns)
    image = torch.arange(count, device=device).view(-1, 1, 1, 1)
    channel = torch.arange(channels, device=device).view(1, -1, 1, 1)
    return padded[image, channel, rows.view(count, 1, -1, 1), columns.view(count, 1, 1, -1)]


def crop_only(images: Tensor, generator: torch.Generator) -> Tensor:
    """Shift by up to two pixels. Digits are not mirrored, because mirroring changes them."""
    return crop_and_flip(images, generator, padding=2, flip=False)
