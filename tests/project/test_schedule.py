import pytest

from detrex.errors import ConfigError
from detrex.project.schedule import Machine, Statistics, batch_for, epochs_for, plan, side_for
from detrex.threads import available_cores

CPU, CARD = Machine("cpu", 0.0, 8), Machine("cuda", 24.0, 8)


def statistics(images=500, side=480, share=0.3):
    return Statistics(images, [side] * images, [share] * 9)


@pytest.mark.parametrize(
    ("images", "epochs"), [(1, 150), (100, 127), (1000, 59), (16_551, 23), (10**7, 12)]
)
def test_epochs_for__more_for_less(images, epochs):
    assert epochs_for(images) == epochs


@pytest.mark.parametrize(
    ("side", "share", "device", "wanted"),
    [
        (480, 0.3, "cuda", 480),
        (3000, 0.3, "cuda", 800),
        (3000, 0.3, "cpu", 480),
        (128, 0.17, "cpu", 192),  # objects of 22 pixels become 32
        (128, 0.05, "cuda", 256),  # twice the picture at most
        (3000, 0.01, "cuda", 1024),
        (3000, 0.01, "cpu", 640),
        (20, 0.9, "cpu", 64),
    ],
)
def test_side_for__the_pictures_and_larger_for_small_objects(side, share, device, wanted):
    assert side_for(statistics(side=side, share=share), device) == wanted


def test_side_for__no_object():
    assert side_for(Statistics(1, [100], []), "cpu") == 96


@pytest.mark.parametrize(
    ("detector", "memory", "pixels", "batch"),
    [("dino", 80, 800 * 1333, 8), ("dino", 8, 800 * 1333, 1), ("fcos", 24, 400 * 667, 16)],
)
def test_batch_for__fits_the_memory(detector, memory, pixels, batch):
    assert batch_for(detector, Machine("cuda", memory, 1), pixels, 33.4) == batch
    assert batch_for(detector, Machine("cuda", memory, 1), pixels, 200.0) <= batch


def test_plan__follows_from_the_data():
    found = plan(statistics(), "dino", CPU)
    assert (found.size, found.longest, found.batch_size) == (480, 800, 2)
    assert found.iterations == -(-found.epochs * 500 // 2)
    assert found.warmup == 500
    assert found.eval_period * 10 >= found.iterations
    assert found.warmup < found.drop < found.iterations
    assert found.learning_rate == 3.5e-5
    assert (found.freeze_at, found.workers) == (2, 4)
    assert plan(statistics(), "dino", CPU, pretrained=False).freeze_at == 0
    assert plan(statistics(2000), "dino", CPU).freeze_at == 1


@pytest.mark.parametrize("images", [1, 2, 3, 11])
def test_plan__tiny_data(images):
    found = plan(statistics(images), "mask_rcnn", CARD, epochs=1)
    assert 1 <= found.batch_size <= images
    assert found.iterations == max(10, -(-images // found.batch_size))
    assert found.warmup < found.iterations
    assert 0 <= found.drop < found.iterations


def test_plan__what_is_given_stands():
    found = plan(statistics(), "fcos", CARD, size=100, epochs=7, batch_size=5)
    assert (found.size, found.epochs, found.batch_size, found.iterations) == (100, 7, 5, 700)


@pytest.mark.parametrize(
    "given", [{"size": 0}, {"size": 31}, {"epochs": 0}, {"batch_size": -1}, {"epochs": 1.5}]
)
def test_plan__numbers_of_no_use(given):
    with pytest.raises(ConfigError, match="is a whole number from"):
        plan(statistics(), "fcos", CPU, **given)


def test_machine__is_this_one():
    assert Machine.here().cores == available_cores()
