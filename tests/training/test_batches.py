"""Batches: each picture once, augmented alike however many processes share them, normalised, repeatable."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import pad

from torchfromscratch.training.batches import Augmentation, Batch, Batches, mirrored_border, random_crop
from torchfromscratch.training.data import Dataset, Pictures
from torchfromscratch.training.distributed import ALONE, Group

COUNT = 53
CROPS_AND_FLIPS = Augmentation(2, flip="random")


def pictures(count: int) -> Pictures:
    images = torch.randint(0, 256, (count, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    return Pictures(images, torch.arange(count) % 4)


def batches(
    group: Group = ALONE,
    batch_size: int = 10,
    augmentation: Augmentation = CROPS_AND_FLIPS,
    seed: int = 0,
    least: int = 1,
) -> Batches:
    dataset = Dataset(pictures(COUNT), pictures(COUNT), list("abcd"))
    return Batches(
        dataset,
        batch_size=batch_size,
        least=least,
        augmentation=augmentation,
        seed=seed,
        device=torch.device("cpu"),
        group=group,
    )


def positions(handed_out: list[Batch]) -> list[int]:
    return [position for batch in handed_out for position in batch.positions.tolist()]


def assert_equal(some: list[Batch], others: list[Batch]) -> None:
    for one, other in zip(some, others, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.labels, other.labels)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 10, 13, 26, 52, 53, 99])
@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("part", ["training", "testing"])
def test_every_picture_comes_exactly_once(part: str, processes: int, batch_size: int) -> None:
    seen = []
    for rank in range(processes):
        source = batches(Group(rank, processes), batch_size, least=2)
        seen += positions(list(source.training(epoch=3) if part == "training" else source.testing()))
    assert sorted(seen) == list(range(COUNT))


@pytest.mark.parametrize("batch_size", [1, 2, 3, 10, 13, 26, 52, 53, 99])
@pytest.mark.parametrize("processes", [2, 3])
def test_processes_together_get_the_batches_of_one(processes: int, batch_size: int) -> None:
    one = list(batches(batch_size=batch_size).training(epoch=1))
    parts = [list(batches(Group(rank, processes), batch_size).training(epoch=1)) for rank in range(processes)]
    for whole, *shares in zip(one, *parts, strict=True):
        own = [share.images[: len(share.labels)] for share in shares]
        assert torch.equal(whole.images, torch.cat(own))
        assert torch.equal(whole.labels, torch.cat([share.labels for share in shares]))
        assert {share.whole for share in shares} == {len(whole.labels)}
        assert all(len(share.images) >= 1 for share in shares), "no network takes an empty batch for granted"


@pytest.mark.parametrize("batch_size", [2, 4, 13, 26, 52])
def test_a_single_last_picture_joins_the_batch_before(batch_size: int) -> None:
    sizes = [len(batch.labels) for batch in batches(batch_size=batch_size).training(epoch=0)]
    assert sizes == [batch_size] * (len(sizes) - 1) + [batch_size + 1]
    assert len(sizes) == batches(batch_size=batch_size).per_epoch


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("batch_size", [1, 2, 3, 10, 50])
def test_batch_normalisation_gets_two_pictures_of_which_only_the_share_counts(batch_size: int, processes: int) -> None:
    for rank in range(processes):
        plain, enough = (batches(Group(rank, processes), batch_size, least=least) for least in (1, 2))
        for few, batch in zip(plain.training(epoch=0), enough.training(epoch=0), strict=True):
            assert len(batch.images) == max(2, len(few.labels))
            assert torch.equal(batch.labels, few.labels)
            assert torch.equal(batch.images[: len(few.labels)], few.images[: len(few.labels)])


def test_an_epoch_can_be_entered_in_its_middle() -> None:
    assert_equal(list(batches().training(epoch=2))[3:], list(batches().training(epoch=2, first=3)))


def test_order_depends_on_epoch_and_seed() -> None:
    orders = [positions(list(batches(seed=seed).training(epoch))) for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4


def test_normalised_pictures_have_mean_0_and_deviation_1_in_each_channel() -> None:
    plain = batches(augmentation=Augmentation(0, flip="none"), batch_size=COUNT)
    images = next(plain.training(epoch=0)).images
    torch.testing.assert_close(images.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(images.std((0, 2, 3)), torch.ones(3), atol=1e-5, rtol=0)


def test_test_pictures_are_not_augmented() -> None:
    source = batches()
    images = torch.cat([batch.images for batch in source.testing()])
    assert torch.equal(images, source.normalise(source.test.images))


def test_a_crop_is_the_padded_picture_shifted() -> None:
    images = pictures(5).images
    shifts = torch.tensor([[0, 0], [2, 2], [4, 1], [1, 4], [3, 3]])
    crops = random_crop(pad(images, (2, 2, 2, 2)), shifts, padding=2)
    for image, (top, left), crop in zip(images, shifts.tolist(), crops, strict=True):
        padded = torch.zeros(3, 12, 12, dtype=torch.uint8)
        padded[:, 2:-2, 2:-2] = image
        assert torch.equal(crop, padded[:, top : top + 8, left : left + 8])


def augmented(augmentation: Augmentation) -> tuple[Tensor, Tensor]:
    """The pictures of an epoch as they are and as they come, both normalised and in the same order."""
    source = batches(augmentation=augmentation)
    handed_out = list(source.training(epoch=0))
    original = source.normalise(source.train.images[positions(handed_out)])
    return original, torch.cat([batch.images for batch in handed_out])


def test_flips_mirror_about_half_of_the_pictures() -> None:
    original, changed = augmented(Augmentation(0, flip="random"))
    mirrored = (changed == original.flip(3)).flatten(1).all(1)
    untouched = (changed == original).flatten(1).all(1)
    assert (mirrored ^ untouched).all()
    assert 0.25 < mirrored.float().mean() < 0.75


def test_without_augmentation_pictures_come_as_they_are() -> None:
    original, changed = augmented(Augmentation(0, flip="none"))
    assert torch.equal(original, changed)


def test_crops_reach_every_shift() -> None:
    original, changed = augmented(Augmentation(1, flip="none"))
    kept = (changed == original).flatten(1).all(1)
    assert 0 < kept.sum() < COUNT / 2


def test_alternating_flips_mirror_in_the_next_epoch_what_they_did_not_in_this() -> None:
    source = batches(augmentation=Augmentation(0, flip="alternating"))
    mirrored = []
    for epoch in range(4):
        flags = torch.zeros(COUNT, dtype=torch.bool)
        for batch in source.training(epoch):
            original = source.normalise(source.train.images[batch.positions])
            flags[batch.positions] = (batch.images != original).flatten(1).any(1)
        mirrored.append(flags)
    assert 0.25 < mirrored[0].float().mean() < 0.75
    assert torch.equal(mirrored[0], ~mirrored[1])
    assert torch.equal(mirrored[0], mirrored[2])
    assert torch.equal(mirrored[1], mirrored[3])


@pytest.mark.parametrize("padding", [0, 1, 3, 7])
def test_a_mirrored_border_is_torch_s_reflection(padding: int) -> None:
    images = pictures(2).images
    expected = pad(images.double(), (padding,) * 4, mode="reflect")
    assert torch.equal(mirrored_border(images, padding).double(), expected)


def test_a_crop_filled_by_reflection_has_no_black_edge() -> None:
    grey = Pictures(torch.full((COUNT, 1, 8, 8), 200, dtype=torch.uint8), torch.zeros(COUNT, dtype=torch.int64))
    for fill, darkest in (("reflect", 200), ("black", 0)):
        source = Batches(
            Dataset(grey, grey, ["a"]),
            batch_size=COUNT,
            augmentation=Augmentation(2, "none", fill),
            seed=0,
            device=torch.device("cpu"),
        )
        images = next(source.training(epoch=0)).images
        assert images.min() == source.normalise(torch.tensor([[[[darkest]]]], dtype=torch.uint8)).item()
