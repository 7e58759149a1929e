"""The calls people make: labels and predictions as they come from loaders, numpy and PIL; ranks; dictionaries."""

from itertools import cycle

import numpy as np
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from segloss import ConfusionMatrix, OutlyingMSELoss, Scores, class_threshold, count_labels
from segloss.adapters import OutputDictLoss, compute_loss_func
from segloss.errors import InputError
from segloss.losses import LOSSES, build_criterion, class_weights_from_counts
from segloss.pixel_sample import PixelSample

LABELS = torch.tensor([[[0, 1], [1, 255]], [[2, 2], [0, 0]]])


def test_labels_of_every_kind_are_counted_alike():
    image = pytest.importorskip("PIL.Image")
    expected = count_labels(LABELS, 3)
    assert expected.pixels == (3, 2, 2)
    arrays = [labels.numpy().astype(np.uint8) for labels in LABELS]
    loader = DataLoader(TensorDataset(torch.rand(2, 3, 2, 2), LABELS), batch_size=2)
    pairs = [(torch.rand(3, 2, 2), labels) for labels in LABELS]
    named = [{"pixel_values": torch.rand(3, 2, 2), "labels": labels} for labels in LABELS]
    batches = DataLoader([{"mask": labels, "name": "a"} for labels in LABELS], batch_size=2)
    everything = (arrays, [*map(image.fromarray, arrays)], LABELS.tolist(), loader, pairs, [LABELS.numpy()])
    for labels in (*everything, named, batches):
        assert count_labels(labels, 3) == expected


def test_one_label_map_of_any_kind_is_one_image():
    """Of a nested list the rows were counted as images, which median frequency divides by."""
    rows = [[0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0]]
    expected = count_labels(torch.tensor(rows), 2)
    assert (expected.image_count, expected.pixels) == (1, (11, 1))
    for given in (rows, np.array(rows), tuple(map(tuple, rows)), [rows], [np.array(rows)]):
        assert count_labels(given, 2) == expected
    ragged = count_labels([[0, 1], [1, 1, 0]], 2)  # no rows of one map but batches of single labels
    assert (ragged.image_count, ragged.pixels) == (1, (2, 3))


def test_a_label_map_of_two_rows_is_no_pair():
    assert count_labels([[[0, 1], [1, 1]]], 2).pixels == (1, 3)
    assert count_labels([torch.tensor([[0, 1], [1, 1]])], 2).pixels == (1, 3)
    assert count_labels([[np.array([0, 1]), np.array([1, 1])]], 2).pixels == (1, 3)


@pytest.mark.parametrize("dtype", [torch.bool, torch.complex64, torch.float32])
def test_labels_that_are_no_integers_are_refused_by_counters(dtype):
    with pytest.raises(InputError, match=f"label tensor 0 must hold integer class ids, got {dtype}; give labels.long"):
        count_labels([LABELS.to(dtype)], 3)
    for pair in ((LABELS.to(dtype), LABELS), (LABELS, LABELS.to(dtype))):
        with pytest.raises(ValueError, match="class ids must be integers"):
            ConfusionMatrix(3).update(*pair)


def test_a_dictionary_without_labels_is_refused():
    with pytest.raises(InputError, match=r"sample 0 is a dictionary of image, name, without labels; .* labels, label,"):
        count_labels([{"image": LABELS[0], "name": "a"}], 3)


@pytest.mark.parametrize("labels", ["mask.png", {"labels": 1}, None, 3])
def test_what_is_no_label_map_is_refused(labels):
    with pytest.raises(InputError, match=r"label tensor 0 must be a map of class ids, got .*; give label maps"):
        count_labels([labels], 3)


def test_none_counts_every_label():
    with pytest.raises(ValueError, match="label tensor 0 holds 255"):
        count_labels(LABELS, 3, ignore_index=None)


@pytest.mark.parametrize("name", [*LOSSES, *(f"weighted_{name}" for name in LOSSES)])
def test_criteria_take_pixel_counts(name):
    counts = count_labels(LABELS, 3)
    ours, plain = (
        build_criterion(name, counts),
        build_criterion(name, counts.pixels, pixels_of_images=counts.pixels_of_images),
    )
    for own, expected in zip(ours.buffers(), plain.buffers(), strict=True):
        assert torch.equal(own, expected)


SINGLE = torch.tensor([0] * 90 + [1] * 9 + [2])
OF_SINGLE = {
    "tensor": lambda size: SINGLE,
    "loader": lambda size: DataLoader(TensorDataset(torch.rand(100, 3), SINGLE), batch_size=size),
    "batches": lambda size: SINGLE.split(size),
    "arrays": lambda size: (batch.numpy() for batch in SINGLE.split(size)),
    "dictionaries": lambda size: ({"pixels": torch.rand(3), "labels": batch} for batch in SINGLE.split(size)),
}


@pytest.mark.parametrize("kind", OF_SINGLE)
@pytest.mark.parametrize("size", [1, 7, 16, 100])
def test_single_labels_are_one_population_in_batches_of_any_size(kind, size):
    """Each batch was an image, and median-frequency weights were of its size: all 1 at batches of one."""
    counts = count_labels(OF_SINGLE[kind](size), 3)
    assert (counts.pixels, counts.images, counts.image_count) == ((90, 9, 1), (1, 1, 1), 1)
    assert build_criterion("weighted_ce", counts).weight.tolist() == pytest.approx([0.1, 1, 9])


def test_median_frequency_reads_the_pixels_of_images():
    counts = count_labels(LABELS, 3)
    expected = class_weights_from_counts(counts.pixels, pixels_of_images=counts.pixels_of_images)
    assert torch.equal(class_weights_from_counts(counts), expected)


ONE_HOT = torch.nn.functional.one_hot(torch.arange(60).view(2, 5, 6) % 3, 3)  # (2, 5, 6, 3)


@pytest.mark.parametrize("dim", [1, -1])
def test_one_hot_maps_are_no_class_ids(dim):
    """Each of their numbers was counted as a class: IoU of background and of class 1 alone."""
    ids, maps = ONE_HOT.argmax(-1), ONE_HOT.movedim(-1, dim)
    with pytest.raises(InputError, match=f"are one-hot along dim {dim % 4}; give class ids: labels.argmax"):
        ConfusionMatrix(3).update(maps, maps)
    with pytest.raises(InputError, match="one-hot"):
        count_labels([image.movedim(-1, dim % 4 - 1) for image in ONE_HOT], 3)
    confusion = ConfusionMatrix(3)
    confusion.update(ids, ids)
    assert count_labels(ids, 3).pixels == tuple(confusion.matrix.sum(1).tolist()) == (20, 20, 20)


def test_a_batch_of_as_many_maps_as_classes_is_a_batch():
    maps = torch.stack([torch.full((6, 6), c) for c in range(3)])
    assert count_labels([maps], 3).pixels == (36, 36, 36)


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32, np.uint64])
def test_maps_of_wide_unsigned_ids_are_counted_whatever_their_size(dtype):
    """Torch neither compares nor adds them up, which was done where a side or the batch is as long as the classes."""
    maps = np.stack([np.full((6, 6), c) for c in range(3)]).astype(dtype)
    assert count_labels([maps], 3).pixels == (36, 36, 36)
    confusion = ConfusionMatrix(3)
    confusion.update(maps, maps)
    assert confusion.matrix.diagonal().tolist() == [36, 36, 36]
    assert PixelSample.of(torch.full((3, 3, 6, 6), 1 / 3), maps).pixels == 108
    with pytest.raises(InputError, match="are one-hot along dim 0"):
        count_labels([np.eye(3, dtype=dtype)[maps[:, 0]].transpose(2, 0, 1).repeat(3, 1)], 3)


def test_masks_of_0_and_255_are_no_two_classes():
    """All was background to the counts, to the loss and to the score: 100 % for a network that sees nothing."""
    mask = np.where(np.arange(64).reshape(8, 8) % 7, 0, 255).astype(np.uint8)
    with pytest.raises(InputError, match=r"class 0 alone has pixels.*where they are 0 and 255"):
        count_labels([mask, mask], 2)
    assert count_labels([mask, mask // 255], 2).pixels[1]
    assert count_labels([mask], 2, ignore_index=255).pixels[1] == 0  # as it was asked for


def test_of_a_dictionary_the_map_counts_not_the_label_of_the_image():
    batch = {"image": torch.rand(2, 3, 2, 2), "mask": LABELS, "label": torch.tensor([0, 1])}
    assert count_labels([batch], 3) == count_labels(LABELS, 3)
    with pytest.raises(InputError, match="of which labels and mask may be the labels"):
        count_labels([{"labels": LABELS, "mask": LABELS}], 3)


def test_maps_with_one_channel_at_the_end_are_one_image_each():
    """Each row was counted as an image of its own, and median frequency weights were all 1."""
    maps = [labels.numpy().astype(np.uint8) for labels in LABELS]
    assert count_labels([each[..., None] for each in maps], 3) == count_labels(maps, 3)
    with pytest.raises(InputError, match=r"got \(8, 8, 3\): rows of colours; give class ids"):
        count_labels([np.zeros((8, 8, 3), dtype=np.uint8)], 3)


@pytest.mark.parametrize(
    ("labels", "cure"),
    [
        (
            [{"image": torch.rand(1, 3, 6, 7), "label": torch.arange(126).view(1, 3, 6, 7) % 3}],
            "of volumes .* the slices",
        ),
        ([(torch.arange(126).view(1, 3, 6, 7) % 3).numpy().astype(np.uint16)], "of volumes .* slices"),
        ([torch.arange(126).view(1, 1, 3, 6, 7) % 3], r"labels.reshape\(-1, \*labels.shape\[-2:\]\)"),
        ((torch.rand(2, 3, 2, 2), LABELS), r"of an image and its labels give a pair in a list: \[\(images, labels\)\]"),
        ([ONE_HOT.movedim(-1, 1).repeat(1, 1, 2, 2)], r"of one-hot labels labels.argmax\(1\)"),
        ([ONE_HOT.repeat(1, 2, 2, 1).bool()], r"of one-hot labels labels.argmax\(-1\)"),
    ],
)
def test_what_has_too_many_dimensions_is_told_with_its_cure(labels, cure):
    """argmax(1) of a volume was the place of its deepest label, and counted."""
    with pytest.raises(InputError, match=rf"must be \(H, W\) or \(N, H, W\), got .*{cure}"):
        count_labels(labels, 3)


@pytest.mark.parametrize("mask", [np.zeros((4, 4), bool), np.zeros((4, 4)), [[0.0, 1.0]]])
def test_what_is_no_tensor_is_cast_by_numpy(mask):
    with pytest.raises(InputError, match=r"give np.array\(labels\).astype\(int\)"):
        count_labels([mask], 3)


def test_a_one_bit_mask_is_cast_by_numpy():
    image = pytest.importorskip("PIL.Image")
    with pytest.raises(InputError, match=r"give np.array\(labels\).astype\(int\): False is class 0"):
        count_labels([image.fromarray(np.zeros((8, 8), bool))], 2)


def test_two_maps_with_one_channel_are_no_image_and_its_labels():
    with pytest.raises(InputError, match="is a pair of maps of integers"):
        count_labels([[LABELS[:1], LABELS[1:]]], 3)


def test_the_label_that_counts_leave_out_is_left_out_by_the_loss():
    """The loss trained the ignored background, with the largest label value of all."""
    counts = count_labels([torch.tensor([[0, 0, 1], [2, 2, 1]])], 3, ignore_index=0)
    assert counts.pixels == (0, 2, 2)
    for criterion in (OutlyingMSELoss.from_counts(counts), build_criterion("weighted_ce", counts)):
        assert criterion.ignore_index == 0
    assert OutlyingMSELoss.from_counts(counts, ignore_index=7).ignore_index == 7
    assert type(counts).from_dict(counts.to_dict()) == counts
    assert OutlyingMSELoss.from_counts(count_labels([LABELS], 3)).ignore_index == 255


def test_loaders_that_give_a_share_are_not_counted():
    """Each rank made its own loss; classes that are drawn more often looked frequent."""
    data = TensorDataset(LABELS)
    samplers = (
        *(DistributedSampler(data, 2, 0), WeightedRandomSampler([1.0, 3.0], 2), [0, 1, 1]),
        *(RandomSampler(data, num_samples=1), RandomSampler(data, True), RandomSampler(data, True, 50)),
    )
    for sampler in samplers:
        with pytest.raises(InputError, match=f"a loader with a {type(sampler).__name__} gives a share"):
            count_labels(DataLoader(data, sampler=sampler), 3)
        for size in (1, None):  # None: no batches
            with pytest.raises(InputError, match="count the data set"):
                count_labels((labels for (labels,) in DataLoader(data, size, sampler=sampler)), 3)


class Batches:
    """A batch sampler of one's own, without a length."""

    def __init__(self, *batches):
        self.batches = batches

    def __iter__(self):
        yield from self.batches


class BatchSamplerShard(Batches):
    """As accelerate calls that of a rank."""


class Own(BatchSampler):
    pass


@pytest.mark.parametrize(
    ("batches", "name"),
    [
        (BatchSampler(WeightedRandomSampler([1.0, 3.0], 2), 2, False), "WeightedRandomSampler"),
        (BatchSampler(DistributedSampler(LABELS, 2, 0), 1, False), "DistributedSampler"),
        (BatchSampler(RandomSampler(LABELS, num_samples=1), 1, False), "RandomSampler"),
        (Batches([0, 1], [0, 1]), "Batches"),
        (BatchSamplerShard([0]), "BatchSamplerShard"),
        (cycle([[0, 1]]), "cycle"),
        (iter([[0, 1]]), "list_iterator"),  # which a count would use up
        ([[0, 0]], "list"),
    ],
)
def test_a_batch_sampler_that_gives_a_share_is_not_counted(batches, name):
    """The sampler of its loader gives all images, and is asked for none; so are those of accelerate's ranks."""
    data = TensorDataset(LABELS)
    with pytest.raises(InputError, match=f"a loader with a {name} gives a share of the images.*count the data set"):
        count_labels(DataLoader(data, batch_sampler=batches), 3)
    with pytest.raises(InputError, match=f"a loader with a {name} gives a share"):
        count_labels((labels for (labels,) in DataLoader(data, batch_sampler=batches)), 3)


class Sharded(DataLoader):
    """Goes through itself as those of accelerate do."""

    def __iter__(self):
        yield from super().__iter__()


def test_loaders_that_go_through_themselves_are_seen_behind_generators():
    loader = Sharded(TensorDataset(LABELS), batch_sampler=BatchSamplerShard([0]))
    for labels in (loader, iter(loader), (each for each in (labels for (labels,) in loader))):
        with pytest.raises(InputError, match="a loader with a BatchSamplerShard gives a share"):
            count_labels(labels, 3)
    assert count_labels((labels for (labels,) in Sharded(TensorDataset(LABELS))), 3) == count_labels(LABELS, 3)


@pytest.mark.parametrize("batches", [Batches([1], [0]), [[0, 1]], BatchSampler(SubsetRandomSampler([1, 0]), 1, False)])
def test_a_batch_sampler_that_gives_each_image_once_is_counted(batches):
    loader = DataLoader([*LABELS], batch_sampler=batches)
    assert count_labels(loader, 3) == count_labels((labels for labels in loader), 3) == count_labels(LABELS, 3)


@pytest.mark.parametrize(
    "batches", [Batches([1]), BatchSampler([1], 1, False), Own(SubsetRandomSampler([1]), 1, False)]
)
def test_batches_of_a_subset_of_ones_own_are_counted(batches):
    assert count_labels(DataLoader([*LABELS], batch_sampler=batches), 3) == count_labels(LABELS[1:], 3)


@pytest.mark.parametrize("sampler", [SubsetRandomSampler([1]), [1]])
def test_a_subset_of_ones_own_is_counted(sampler):
    assert count_labels(DataLoader(TensorDataset(LABELS), sampler=sampler, collate_fn=first), 3).pixels == (2, 0, 2)


def first(samples):
    return samples[0][0]


class Endless(Dataset):
    """Python's own way to go through it ends where an IndexError is raised, and so never."""

    def __len__(self):
        return 3

    def __getitem__(self, place):
        return LABELS[place % 2]


def test_a_data_set_is_counted_by_its_length():
    expected = count_labels(LABELS[[0, 1, 0]], 3)
    for labels in (Endless(), DataLoader(Endless()), Subset(Endless(), [0, 1, 2])):
        assert count_labels(labels, 3) == expected


class Unknown(IterableDataset):
    def __iter__(self):
        yield from LABELS


def test_workers_that_each_go_through_all_of_a_data_set_are_not_counted():
    told = "a loader with 2 workers gives each image 2 times where its IterableDataset does not part itself; count the"
    with pytest.raises(InputError, match=told):
        count_labels(DataLoader(Unknown(), num_workers=2), 3)
    with pytest.raises(InputError, match=told):
        count_labels((labels for labels in DataLoader(Unknown(), num_workers=2)), 3)
    for given in (Unknown(), DataLoader(Unknown()), (labels for labels in DataLoader(Unknown()))):
        assert count_labels(given, 3).image_count == len(LABELS)


@pytest.mark.parametrize("shuffle", [False, True])
def test_loaders_that_drop_a_batch_are_not_counted(shuffle):
    """Other images were left out each time, and with batches larger than the data set all of them."""
    data = [*torch.cat([LABELS, LABELS, LABELS])[:5]]
    for size, dropped in ((2, 1), (8, 5)):
        with pytest.raises(InputError, match=f"a loader with drop_last leaves out {dropped} of the images"):
            count_labels(DataLoader(data, size, shuffle=shuffle, drop_last=True), 3)
        with pytest.raises(InputError, match=f"a loader with drop_last leaves out {dropped} of the images"):
            count_labels((labels for labels in DataLoader(data, size, shuffle=shuffle, drop_last=True)), 3)
    assert count_labels((labels for labels in DataLoader(data, 2, shuffle=shuffle)), 3).image_count == 5
    assert count_labels((labels for labels in data), 3).image_count == 5
    assert count_labels(DataLoader(data, 5, shuffle=shuffle, drop_last=True), 3).image_count == 5
    assert count_labels(DataLoader(data, 2, shuffle=shuffle), 3).image_count == 5
    assert count_labels(DataLoader(Unknown(), 1, drop_last=True), 3).image_count == len(LABELS)


@pytest.mark.parametrize("labels", [[], (), DataLoader(Unknown(), 99, drop_last=True)])
def test_no_label_map_is_not_counted(labels):
    with pytest.raises(InputError, match="labels gave no label map; give some"):
        count_labels(labels, 3)


def test_arrays_are_counted_as_tensors():
    predictions = LABELS.clone().clamp(max=1)
    ours, expected = ConfusionMatrix(3), ConfusionMatrix(3)
    ours.update(predictions.numpy().astype(np.uint8), LABELS.numpy())
    expected.update(predictions, LABELS)
    assert torch.equal(ours.matrix, expected.matrix)
    assert (ours.ignored, ours.images) == (expected.ignored, expected.images)


def test_without_ranks_sync_changes_nothing():
    confusion = ConfusionMatrix(3)
    confusion.update(LABELS, LABELS)
    before = confusion.matrix.clone()
    assert confusion.sync() is confusion
    assert torch.equal(confusion.matrix, before)


def test_counts_of_all_ranks_are_not_added_up_again(monkeypatch):
    """A second sync, of the next epoch, counted the first one once more for each rank."""
    confusion = ConfusionMatrix(3)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_backend", lambda: "gloo")
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda counts: counts.mul_(2))
    confusion.update(LABELS, LABELS)
    assert confusion.sync().matrix.sum() == 2 * (LABELS != 255).sum() and confusion.synced
    with pytest.raises(ValueError, match="holds the counts of all ranks already; sync once"):
        confusion.sync()


def _rank(rank: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    confusion = ConfusionMatrix(3)
    confusion.update(LABELS[rank : rank + 1], LABELS[rank : rank + 1])
    confusion.sync()
    torch.save((confusion.matrix, confusion.ignored, confusion.images), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_sync_adds_up_the_ranks_on_each_of_them(tmp_path):
    torch.multiprocessing.spawn(_rank, (str(tmp_path),), nprocs=2)
    whole = ConfusionMatrix(3)
    whole.update(LABELS, LABELS)
    for rank in range(2):
        matrix, ignored, images = torch.load(tmp_path / f"{rank}.pt")
        assert torch.equal(matrix, whole.matrix)
        assert (ignored, images) == (whole.ignored, whole.images)


def test_the_loss_of_dictionaries_reads_them_too():
    criterion = OutlyingMSELoss([1.0, 2.0, 3.0])
    logits = torch.randn(2, 3, 4, 5)
    loss = OutputDictLoss(criterion)
    for tau in (0.0, 1.0):
        assert torch.equal(loss.decide({"out": logits}, tau), criterion.decide(logits, tau))
    assert torch.equal(loss.posterior({"out": logits}), criterion.posterior(logits))


@pytest.mark.parametrize("outputs", [torch.zeros(1, 3, 2, 2), {"logits": 1}, [torch.zeros(1, 3, 2, 2)]])
def test_outputs_without_out_are_refused_with_a_cure(outputs):
    loss = OutputDictLoss(OutlyingMSELoss([1.0, 2.0, 3.0]))
    for call in (lambda: loss(outputs, LABELS), lambda: loss.decide(outputs), lambda: loss.posterior(outputs)):
        with pytest.raises(InputError, match=r"outputs must be a mapping with 'out'.*; give what"):
            call()


def test_arrays_that_torch_does_not_take_are_counted():
    expected, reversed_rows = count_labels(LABELS, 3), LABELS.numpy()[:, ::-1]
    read_only = LABELS.numpy().astype(np.uint8)
    read_only.flags.writeable = False
    for labels in (reversed_rows, LABELS.numpy().astype(">i4"), read_only):
        assert count_labels([labels], 3) == expected
        confusion = ConfusionMatrix(3)
        confusion.update(labels, labels)
        assert confusion.matrix.diagonal().tolist() == list(expected.pixels)


GAPS = np.ma.masked_array(LABELS.numpy(), LABELS.numpy() == 0)  # as rasterio reads labels with nodata


@pytest.mark.parametrize(
    "call",
    [
        lambda: count_labels(GAPS, 3),
        lambda: count_labels([(torch.rand(2, 3, 8, 8), GAPS)], 3),
        lambda: count_labels([{"labels": GAPS[0]}], 3),
        lambda: ConfusionMatrix(3).update(LABELS, GAPS),
        lambda: ConfusionMatrix(3).update(GAPS, LABELS),
        lambda: ConfusionMatrix(3).update(LABELS, [*GAPS]),
        lambda: PixelSample.of(torch.full((2, 3, *LABELS.shape[1:]), 1 / 3), GAPS),
        lambda: class_threshold(torch.rand(LABELS.shape), GAPS, 1),
        lambda: class_threshold(np.ma.masked_less(np.linspace(0, 1, LABELS.numel()), 0.1), None, 1),
    ],
)
def test_what_is_masked_in_an_array_is_not_read(call):
    """Torch takes what lies below the mask: nodata was a class to counts, scores and thresholds."""
    with pytest.raises(InputError, match=r"masked array is given, \d+ of whose \d+ values are masked; .*filled\(255\)"):
        call()


def test_masked_arrays_without_masked_values_are_arrays():
    whole = np.ma.masked_array(LABELS.numpy())
    assert count_labels(whole, 3) == count_labels(LABELS, 3) == count_labels(np.ma.masked_equal(LABELS, 77), 3)
    filled = count_labels(GAPS.filled(255), 3)
    assert filled.pixels == (0, *count_labels(LABELS, 3).pixels[1:])


def test_one_map_is_one_image():
    image = pytest.importorskip("PIL.Image")
    expected = count_labels([LABELS[0]], 3)
    for labels in (LABELS[0], LABELS[0].numpy(), image.fromarray(LABELS[0].numpy().astype(np.uint8))):
        assert count_labels(labels, 3) == expected


def test_one_map_with_its_channel_at_an_end_is_one_image():
    """Each row of a mask as Keras has it, (H, W, 1), was an image, and median frequency weights were of these."""
    expected = count_labels([LABELS[0]], 3)
    for labels in (LABELS[0, ..., None], LABELS[0, ..., None].numpy(), LABELS[:1], LABELS[:1, ..., None]):
        assert count_labels(labels, 3) == expected
    for labels in (LABELS, LABELS[..., None], LABELS[:, None].numpy()):
        assert count_labels(labels, 3).image_count == 2

    class Column(list):  # as a Dataset of Hugging Face with one column
        shape = (2, 1)

    assert count_labels(Column(LABELS), 3).image_count == 2


def test_colours_are_no_class_ids():
    image = pytest.importorskip("PIL.Image")
    with pytest.raises(InputError, match=r"label image 0 must hold class ids, got colours \(RGB\); give ids"):
        count_labels([image.new("RGB", (2, 2))], 3)


def test_a_generator_that_was_used_up_is_named():
    labels = iter(LABELS)
    assert count_labels(labels, 3).image_count == 2
    with pytest.raises(InputError, match="labels gave no label map; a generator that was used up"):
        count_labels(labels, 3)


@pytest.mark.parametrize("num_classes", ["3", 3.0, None])
def test_a_number_of_classes_is_an_integer(num_classes):
    for call in (lambda: ConfusionMatrix(num_classes), lambda: count_labels(LABELS, num_classes)):
        with pytest.raises(InputError, match=f"num_classes must be an integer, got {num_classes!r}"):
            call()


def test_counters_stay_on_the_cpu_whatever_the_default_device():
    with torch.device("meta"):
        assert count_labels(LABELS, 3).pixels == (3, 2, 2)
        ConfusionMatrix(3).update(LABELS, LABELS)


class _OfALibrary(torch.Tensor):
    """As MONAI's and fastai's: all that is made of it is of its kind."""


def test_what_is_counted_of_tensors_of_another_library_is_torchs():
    """A confusion matrix became one of theirs, with what they hold beside the numbers, and was pickled as one."""
    labels = LABELS.as_subclass(_OfALibrary)
    confusion, sample = ConfusionMatrix(3), PixelSample()
    confusion.update(labels, labels)
    sample.update(torch.rand(2, 3, 2, 2).softmax(1).as_subclass(_OfALibrary), labels)
    scores = (confusion.compute(), Scores.from_confusion(confusion.matrix.as_subclass(_OfALibrary)))
    counted = (confusion.matrix, sample.posterior, sample.labels, *(each.iou for each in scores))
    assert {type(each) for each in counted} == {torch.Tensor}
    expected = ConfusionMatrix(3)
    expected.update(LABELS, LABELS)
    assert torch.equal(confusion.matrix, expected.matrix)


def test_what_was_made_in_inference_mode_is_used_outside():
    """As of a validation, whose counters are gone on with: torch refused to add to them."""
    scores = torch.randn(2, 3, 2, 2, requires_grad=True)
    posterior = scores.detach().softmax(1)
    with torch.inference_mode():
        confusion, sample, criterion = ConfusionMatrix(3), PixelSample(), OutlyingMSELoss([1.0, 2.0, 3.0])
        confusion.update(LABELS, LABELS)
        sample.update(posterior, LABELS)
    confusion.update(LABELS, LABELS)
    sample.update(posterior, LABELS)
    assert confusion.matrix.sum() == sample.pixels == 2 * (LABELS != 255).sum()
    criterion(scores, LABELS).backward()
    assert scores.grad.any()


@pytest.mark.parametrize("outputs", [torch.zeros(1, 3, 2, 2), {"out": 1}, (torch.zeros(1, 3, 2, 2),)])
def test_outputs_without_logits_are_refused_with_a_cure(outputs):
    with pytest.raises(InputError, match=r"outputs must be a mapping with 'logits'.*; give what"):
        compute_loss_func(OutlyingMSELoss([1.0, 2.0, 3.0]))(outputs, LABELS)


def test_outputs_and_labels_that_are_none():
    criterion = OutlyingMSELoss([1.0, 2.0, 3.0])
    outputs = {"out": torch.zeros(2, 3, 2, 2), "aux": None}
    assert torch.equal(OutputDictLoss(criterion)(outputs, LABELS), criterion(outputs["out"], LABELS))
    with pytest.raises(TypeError, match=r"labels must be a torch\.Tensor, got NoneType"):
        OutputDictLoss(criterion)(outputs, None)
    with pytest.raises(InputError, match="aux_weight must be >= 0 and finite, got nan"):
        OutputDictLoss(criterion, aux_weight=float("nan"))
