import pytest
import torch
import torch.nn.functional as F
from torch import nn

from detrex.layers import PositionEmbeddingSine
from detrex.modeling.dino.sizes import LevelSizes, embed_positions, layout_of
from detrex.modeling.dino.tokens import Layout

CPU = torch.device("cpu")
SHAPES = [(5, 11), (3, 6)]


def _padded():
    return LevelSizes.of_batch(SHAPES, 2, (40, 88), [(37, 23), (19, 88)])


@pytest.mark.parametrize(
    ("batch", "images"),
    [((40, 44), [(37, 23), (19, 41)]), ((480, 640), [(479, 640)]), ((490, 161), [(245, 160)])],
)
def test_level_sizes__masks_are_those_of_resized_pixels(batch, images):
    shapes = [(-(-batch[0] // stride), -(-batch[1] // stride)) for stride in (8, 16, 32, 64)]
    sizes = LevelSizes.of_batch(shapes, len(images), batch, images)
    pixels = torch.ones(len(images), 1, *batch)
    for row, (h, w) in zip(pixels, images, strict=True):
        row[:, :h, :w] = 0
    expected = [F.interpolate(pixels, shape)[:, 0].bool() for shape in shapes]
    for mask, resized in zip(sizes.masks(CPU), expected, strict=True):
        assert torch.equal(mask, resized)
    assert sizes.padded == any(mask.any() for mask in expected)
    padding = torch.cat([mask.flatten(1) for mask in expected], 1)
    assert sizes.fewest_tokens == (~padding).sum(1).min()


def test_level_sizes__nothing_padded():
    sizes = LevelSizes.of_batch(SHAPES, 3, (40, 88))
    assert sizes == LevelSizes.of_batch(SHAPES, 3, (40, 88), [(40, 88)] * 3)
    assert [mask.shape for mask in sizes.masks(CPU)] == [(3, *shape) for shape in SHAPES]
    assert not any(mask.any() for mask in sizes.masks(CPU))
    assert layout_of(sizes, CPU, keep=False).padding is None


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("sizes", [_padded(), LevelSizes.of_batch(SHAPES, 2, (40, 88))])
def test_layout_of__equals_that_of_the_masks(sizes, keep):
    expected = Layout.of_masks(sizes.masks(CPU))
    for _ in range(2):
        layout = layout_of(sizes, CPU, keep)
        for name in ("valid_ratios", "centers", "references", "proposals", "inside"):
            torch.testing.assert_close(
                getattr(layout, name), getattr(expected, name), rtol=0, atol=0
            )


def test_layout_of__is_kept_for_evaluation_only():
    sizes = _padded()
    kept = layout_of(sizes, CPU, keep=True)
    assert layout_of(_padded(), CPU, keep=True) is kept
    assert layout_of(sizes, CPU, keep=False) is not kept


class _Learnt(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, mask):
        return mask[:, None] * self.weight


class _Other(PositionEmbeddingSine):
    def forward(self, mask, **kwargs):
        return super().forward(mask) + 1


@pytest.mark.parametrize(
    "embedding",
    [
        PositionEmbeddingSine(4, normalize=True, offset=-0.5),
        PositionEmbeddingSine(2, 20, 3.0, 0.1, 0.2),
        _Other(4),
        _Learnt(),
    ],
)
@pytest.mark.parametrize("images", [None, [(37, 23), (19, 88)], [(19, 88)]])
def test_embed_positions__equals_the_embedding_of_the_masks(embedding, images):
    sizes = LevelSizes.of_batch(SHAPES, len(images or "ab"), (40, 88), images)
    expected = [embedding(mask) for mask in sizes.masks(CPU)]
    for keep in (True, True, False):
        positions = embed_positions(embedding, sizes, CPU, keep)
        torch.testing.assert_close(positions, expected, rtol=0, atol=0)


def test_embed_positions__follows_a_changed_attribute():
    embedding, sizes = PositionEmbeddingSine(4), LevelSizes.of_batch(SHAPES, 1, (40, 88))
    embed_positions(embedding, sizes, CPU, keep=True)
    embedding.temperature = 7
    (first, _) = embed_positions(embedding, sizes, CPU, keep=True)
    torch.testing.assert_close(first, embedding(sizes.masks(CPU)[0]), rtol=0, atol=0)
