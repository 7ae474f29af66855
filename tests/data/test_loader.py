from itertools import islice

import numpy as np
import pytest
import torch

from detrex.data.loader import TrainLoader, build_train_loader
from detrex.errors import ConfigError


def make_dataset(n: int = 11) -> list[dict]:
    sizes = [(7, 5), (5, 7), (6, 6)]
    return [{"image_id": i, "width": sizes[i % 3][0], "height": sizes[i % 3][1]} for i in range(n)]


def noisy_mapper(sample: dict) -> dict:
    sample["noise"] = (float(np.random.rand()), float(torch.rand(())))
    return sample


def drop_even(sample: dict) -> dict | None:
    return sample if sample["image_id"] % 2 else None


def take(loader: TrainLoader, n: int) -> list[list[dict]]:
    return list(islice(iter(loader), n))


@pytest.mark.parametrize("grouping", [False, True])
def test_seek__equals_passing_over(grouping):
    loader = build_train_loader(
        make_dataset(), noisy_mapper, total_batch_size=3, aspect_ratio_grouping=grouping
    )
    loader.seek(0, seed=5)
    straight = take(loader, 13)
    loader.seek(7, seed=5)
    assert take(loader, 6) == straight[7:]
    loader.seek(0, seed=6)
    assert take(loader, 13) != straight


def test_iter__workers_do_not_change_the_batches():
    batches = []
    for num_workers in (0, 2):
        loader = build_train_loader(
            make_dataset(), noisy_mapper, total_batch_size=2, num_workers=num_workers
        )
        loader.seek(3, seed=5)
        batches.append(take(loader, 7))
    assert batches[0] == batches[1]


def test_iter__leaves_the_caller_generators_alone():
    loader = build_train_loader(make_dataset(), noisy_mapper, total_batch_size=2)
    iterator = iter(loader)
    torch.manual_seed(3)
    np.random.seed(3)
    expected = torch.rand(()), np.random.rand()
    torch.manual_seed(3)
    np.random.seed(3)
    next(iterator)
    assert (torch.rand(()), np.random.rand()) == expected


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_sample_keys__ranks_cover_each_epoch_once(world_size):
    n = 12
    shares = []
    for rank in range(world_size):
        loader = TrainLoader(
            make_dataset(n),
            noisy_mapper,
            batch_size=2,
            aspect_ratio_grouping=False,
            rank=rank,
            world_size=world_size,
        )
        keys = loader.sample_keys(seed=1)
        shares += [key for batch in islice(keys, n // 2 // world_size) for key in batch]
    assert sorted(position for position, _ in shares) == list(range(n))
    assert sorted(index for _, index in shares) == list(range(n))


def test_sample_keys__samples_do_not_depend_on_the_number_of_ranks():
    def mapped(world_size: int) -> dict[int, tuple]:
        samples = {}
        for rank in range(world_size):
            loader = TrainLoader(
                make_dataset(8),
                noisy_mapper,
                batch_size=2,
                aspect_ratio_grouping=False,
                rank=rank,
                world_size=world_size,
            )
            loader.seek(0, seed=9)
            for batch in take(loader, 4 // world_size):
                samples.update({sample["image_id"]: sample["noise"] for sample in batch})
        return samples

    assert mapped(1) == mapped(2)
    assert len(mapped(1)) == 8


def test_iter__batches_hold_one_orientation():
    loader = build_train_loader(make_dataset(), noisy_mapper, total_batch_size=3)
    for batch in take(loader, 12):
        assert len({sample["width"] > sample["height"] for sample in batch}) == 1


def test_iter__a_shuffle_of_its_own_for_each_epoch():
    loader = build_train_loader(
        make_dataset(), noisy_mapper, total_batch_size=11, aspect_ratio_grouping=False
    )
    first, second = ([sample["image_id"] for sample in batch] for batch in take(loader, 2))
    assert first != second
    assert sorted(first) == sorted(second) == list(range(11))


def test_iter__none_from_the_mapper_draws_another():
    loader = build_train_loader(make_dataset(), drop_even, total_batch_size=4)
    loader.seek(0, seed=2)
    batches = take(loader, 5)
    assert all(sample["image_id"] % 2 for batch in batches for sample in batch)
    assert take(loader, 5) == batches


def test_iter__a_mapper_that_drops_everything_is_an_error():
    loader = build_train_loader(make_dataset(), lambda sample: None, total_batch_size=2)
    with pytest.raises(ConfigError, match="returned None for 100 dataset dicts in a row"):
        next(iter(loader))


def test_seek__negative_is_refused():
    loader = build_train_loader(make_dataset(), noisy_mapper, total_batch_size=2)
    with pytest.raises(ValueError, match="batch=-1"):
        loader.seek(-1, seed=0)


def test_build_train_loader__mapper_may_change_its_sample():
    dataset = make_dataset(2)
    take(build_train_loader(dataset, noisy_mapper, total_batch_size=2), 2)
    assert "noise" not in dataset[0]


@pytest.mark.parametrize("batch_size", [0, -2, 3])
def test_build_train_loader__batch_must_divide(batch_size, monkeypatch):
    monkeypatch.setattr("detrex.data.loader.comm.get_world_size", lambda: 2)
    with pytest.raises(ConfigError, match=r"cannot be shared by 2 process.*multiple of 2"):
        build_train_loader(make_dataset(), noisy_mapper, total_batch_size=batch_size)


def test_build_train_loader__empty_dataset():
    with pytest.raises(ConfigError, match="dataset is empty"):
        build_train_loader([], noisy_mapper, total_batch_size=2)


def test_build_train_loader__grouping_needs_sizes():
    with pytest.raises(ConfigError, match=r"no 'width'.*aspect_ratio_grouping=False"):
        build_train_loader([{"image_id": 1}], noisy_mapper, total_batch_size=1)


@pytest.mark.parametrize(
    ("workers", "card", "pinned"), [(2, True, True), (0, True, False), (2, False, False)]
)
def test_build_train_loader__pins_what_workers_give_to_a_card(monkeypatch, workers, card, pinned):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: card)
    loader = build_train_loader(
        make_dataset(), noisy_mapper, total_batch_size=2, num_workers=workers
    )
    assert loader.pin_memory is pinned
    given = {}
    monkeypatch.setattr(
        torch.utils.data, "DataLoader", lambda *_, **options: given.update(options) or [1]
    )
    assert next(iter(loader)) == 1
    assert given["pin_memory"] is pinned


def test_build_train_loader__hands_its_options_to_the_workers(monkeypatch):
    given = {}
    monkeypatch.setattr(
        torch.utils.data, "DataLoader", lambda *_, **options: given.update(options) or [1]
    )
    options = {"pin_memory": True, "prefetch_factor": 5, "persistent_workers": True}
    iter(build_train_loader(make_dataset(), None, total_batch_size=2, num_workers=2, **options))
    assert {name: given[name] for name in options} == options


@pytest.mark.parametrize("option", [{"prefetch_factor": 2}, {"persistent_workers": True}])
def test_build_train_loader__options_of_workers_need_some(option):
    with pytest.raises(ConfigError, match=rf"{next(iter(option))}=.* num_workers is 0: set"):
        build_train_loader(make_dataset(), noisy_mapper, total_batch_size=2, **option)
