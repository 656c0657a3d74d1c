"""Shifts and mirroring."""

import itertools

import torch

from sol_tasks.augmentation import crop_and_flip, crop_only


def test_augmentation_shifts_and_mirrors_each_image_on_its_own():
    images = torch.arange(200 * 2 * 8 * 8).view(200, 2, 8, 8).to(torch.int32) + 1
    generator = torch.Generator().manual_seed(0)
    out = crop_and_flip(images, generator, padding=1)
    kinds = set()
    for before, after in zip(images, out):
        padded = torch.nn.functional.pad(before, (1,) * 4)
        for top, left in itertools.product(range(3), range(3)):
            shifted = padded[:, top : top + 8, left : left + 8]
            kinds |= {(top, left, flip) for flip in (0, 1) if torch.equal(shifted.flip(2) if flip else shifted, after)}
    assert len(kinds) == 18
    assert out.dtype == images.dtype
    again = crop_and_flip(images, torch.Generator().manual_seed(0), padding=1)
    assert torch.equal(out, again)


def test_digits_are_not_mirrored():
    images = torch.zeros(50, 1, 8, 8)
    images[:, :, 4, 3] = 1
    images[:, :, 4, 4] = 2
    out = crop_only(images, torch.Generator().manual_seed(0))
    assert all(((image == 1).nonzero()[0, 2] + 1 == (image == 2).nonzero()[0, 2]) for image in out)
