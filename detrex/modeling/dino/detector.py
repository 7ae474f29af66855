"""The detector: DINO from images to losses or detections (arXiv:2203.03605)."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from detectron2.utils.events import get_event_storage
from jaxtyping import Float
from torch import Tensor, nn

from detrex.modeling.backbone.features.coverage import Size
from detrex.modeling.pixel_statistics import Statistic, resolve_pixel_statistics
from detrex.utils.misc import at_least_float32

from .assembly import check_parts, connect_neck, size_position_embedding, weigh_losses
from .denoising import DenoisingQueries, denoising_queries
from .head import as_outputs, box_heads, class_heads, predict
from .inputs import (
    Levels,
    PaddedImages,
    PaddingConstraints,
    group_by_padded_size,
    merge_levels,
    normalize_images,
    prepare_targets,
)
from .postprocess import draw_training, resize_detections, select_detections
from .sizes import LevelSizes, embed_positions, layout_of
from .transformer import DINOTransformer, HiddenStates


class DINO(nn.Module):
    """DETR with improved denoising anchor boxes.

    In training the images of a batch are padded to one size, as in the original. In evaluation each
    image goes through backbone and neck at its own size, together with those of the batch that have
    the same one, and padding is masked from there on, so that what is found in an image does not
    depend on the images beside it, up to rounding. (Padding is zero only before the first layer: a
    backbone that sees it carries its biases over the image's edge by half a receptive field, as it
    does in training.)

    Args:
        backbone: gives a dict of feature maps; a detectron2 ``Backbone`` or alike. Its
            ``padding_constraints`` and ``size_divisibility`` are honoured.
        position_embedding: maps an (n, h, w) padding mask to (n, embed_dim, h, w); one whose
            ``num_pos_feats`` is None gets half of `embed_dim`.
        neck: maps that dict to a sequence of (n, embed_dim, h, w) levels, finest first. A
            ``ChannelMapper`` without ``input_shapes`` takes what the backbone gives.
        transformer: encoder, query selection and decoder.
        embed_dim: channels of everything after the neck.
        num_classes: object classes, background not counted.
        num_queries: queries, at most as many as there are tokens; that of the transformer.
        criterion: called as ``criterion(outputs, targets, dn_metas)``, gives a dict of losses. Its
            ``weight_dict`` needs the weights of the last layer's losses only: those of other
            layers, of the encoder and of the denoising queries inherit them unless they are given.
        pixel_mean: one value per channel of the image, in the image's unit and channel order, or
            ``"auto"`` for that of the backbone's ``preprocess``. A warning shows both where values
            by hand are not those of the backbone.
        pixel_std: one value per channel, or ``"auto"``.
        aux_loss: train every decoder layer and not the last one only.
        select_box_nums_for_evaluation: the most detections per image.
        device: accepted for configs of the original and without effect: the detector runs where
            ``model.to(...)`` has brought its parameters.
        dn_number: positive denoising queries to aim for; 0 for none.
        label_noise_ratio: half of it is the share of denoising labels that are drawn anew, 0..1.
        box_noise_scale: noise of denoising boxes in halves of their width and height.
        input_format: the order of an image's channels, ``"RGB"`` or ``"BGR"``. Where the backbone
            takes the other one, ``"auto"`` statistics flip the channels before they normalise.
        vis_period: iterations between two pictures of training; 0 for none.

    Raises:
        ConfigError: when neck, backbone, transformer and the numbers given do not fit together.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        position_embedding: nn.Module,
        neck: nn.Module,
        transformer: DINOTransformer,
        embed_dim: int,
        num_classes: int,
        num_queries: int,
        criterion: nn.Module,
        pixel_mean: Statistic = (123.675, 116.280, 103.530),
        pixel_std: Statistic = (58.395, 57.120, 57.375),
        aux_loss: bool = True,
        select_box_nums_for_evaluation: int = 300,
        device: str = "cuda",
        dn_number: int = 100,
        label_noise_ratio: float = 0.2,
        box_noise_scale: float = 1.0,
        input_format: str = "RGB",
        vis_period: int = 0,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.position_embedding = position_embedding
        self.neck = neck
        self.transformer = transformer
        self.criterion = criterion
        self.embed_dim = embed_dim
        self.num_classes = num_classes
        self.num_queries = num_queries
        self.aux_loss = aux_loss
        self.select_box_nums_for_evaluation = select_box_nums_for_evaluation
        self.dn_number = dn_number
        self.label_noise_ratio = label_noise_ratio
        self.box_noise_scale = box_noise_scale
        self.input_format = input_format
        self.vis_period = vis_period
        connect_neck(backbone, neck)
        size_position_embedding(position_embedding, embed_dim)
        check_parts(
            position_embedding,
            neck,
            transformer,
            criterion,
            embed_dim=embed_dim,
            num_classes=num_classes,
            num_queries=num_queries,
        )
        mean, std, self.flips_channels = resolve_pixel_statistics(
            backbone, pixel_mean, pixel_std, input_format
        )

        num_layers = transformer.decoder.num_layers
        self.label_enc = nn.Embedding(num_classes, embed_dim)
        self.class_embed = class_heads(embed_dim, num_classes, num_layers + 1)
        self.bbox_embed = box_heads(embed_dim, num_layers + 1)
        transformer.decoder.class_embed = self.class_embed
        transformer.decoder.bbox_embed = self.bbox_embed
        for name, statistic in {"pixel_mean": mean, "pixel_std": std}.items():
            values = torch.tensor(statistic, dtype=torch.get_default_dtype())
            self.register_buffer(name, values.view(-1, 1, 1), persistent=False)
        self.init_neck()
        weigh_losses(criterion, num_layers)

    @property
    def device(self) -> torch.device:
        """The device that the detector runs on."""
        return self.pixel_mean.device

    def init_neck(self) -> None:
        """Draw the neck's convolutions by Xavier's rule and set their biases to zero."""
        for module in self.neck.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(
        self, batched_inputs: Sequence[Mapping[str, Any]]
    ) -> dict[str, Tensor] | list[dict[str, Any]]:
        """Detect objects, or tell how far the detector is from doing so.

        Args:
            batched_inputs: dicts of detectron2's kind: ``"image"`` (c, h, w), in training
                ``"instances"``, in evaluation ``"height"`` and ``"width"`` of the wanted result.

        Returns:
            In training the weighted losses ``loss_class``, ``loss_bbox`` and ``loss_giou`` with the
            suffixes of :func:`~detrex.modeling.dino.criterion.expand_weight_dict`. In evaluation
            ``{"instances": Instances}`` per image with ``pred_boxes``, ``scores`` and
            ``pred_classes``.
        """
        images = normalize_images(
            batched_inputs, self.pixel_mean, self.pixel_std, self.flips_channels
        )
        if not self.training:
            logits, boxes = self.locate_in(images)
            return self.detections(logits, boxes, batched_inputs)
        levels = self.extract_levels(images)
        targets = self.prepare_targets(batched_inputs)
        denoising = self.denoising_queries(targets, levels.features)
        hidden = self.hidden_states(levels, denoising)
        logits, boxes = predict(
            hidden.inter_states, hidden.layer_references, self.class_embed, self.bbox_embed
        )
        outputs, dn_metas = self.training_outputs(logits, boxes, hidden, denoising)
        self.visualize_training(batched_inputs, outputs)
        return self.weighted_losses(self.criterion(outputs, targets, dn_metas))

    def forward_tensors(
        self, images: Float[Tensor, "n _ h w"], sizes: Sequence[Size] | None = None
    ) -> tuple[Float[Tensor, "n q c"], Float[Tensor, "n q 4"]]:
        """Detect objects in a batch of tensors, without what only Python can do.

        This is what an evaluation calls between `normalize_images` and the choice of the best
        detections, unless the images of a batch are padded to different sizes: a function of
        tensors, to be compiled or exported as a whole.

        Args:
            images: (n, c, H, W), normalised, and padded as the backbone's ``padding_constraints``
                and ``size_divisibility`` ask for.
            sizes: (height, width) of each image before padding; None where none is padded.

        Returns:
            Class logits (n, q, c) and boxes (n, q, 4), cxcywh in 0..1 of the image, of the last
            decoder layer, both in float32 at least. A query that was taken from padding, which
            happens only where an image has fewer tokens than there are queries, has logits of -inf
            and a box of zeros.
        """
        return self.locate(self.batch_levels(PaddedImages(images, sizes)))

    def locate_in(
        self, images: Sequence[Float[Tensor, "_ _ _"]]
    ) -> tuple[Float[Tensor, "n q c"], Float[Tensor, "n q 4"]]:
        """Find objects in normalised (c, h, w) images; see :meth:`forward_tensors`."""
        rule = PaddingConstraints.of(self.backbone)
        if len(group_by_padded_size(images, rule)) > 1:
            return self.locate(self.extract_levels(images))
        batch = PaddedImages.pad(images, rule)
        return self.forward_tensors(batch.tensor, batch.sizes)

    def extract_levels(self, images: Sequence[Float[Tensor, "c _ _"]]) -> Levels:
        """Send images through backbone and neck: all at once in training, else by their size."""
        rule = PaddingConstraints.of(self.backbone)
        groups = [list(range(len(images)))]
        if not self.training:
            groups = group_by_padded_size(images, rule)
        batches = [PaddedImages.pad([images[index] for index in group], rule) for group in groups]
        return merge_levels([self.batch_levels(batch) for batch in batches], groups)

    def batch_levels(self, batch: PaddedImages) -> Levels:
        """Send one batch through backbone and neck."""
        features = list(self.neck(self.backbone(batch.tensor)))
        count, _, height, width = batch.tensor.shape
        shapes = [(feature.shape[-2], feature.shape[-1]) for feature in features]
        return Levels(features, LevelSizes.of_batch(shapes, count, (height, width), batch.sizes))

    def hidden_states(
        self, levels: Levels, denoising: DenoisingQueries | None = None
    ) -> HiddenStates:
        """Run the transformer; in evaluation the last decoder layer's states are all it gives."""
        keep, device = not self.training, levels.features[0].device
        masks, known = None, {}
        if type(self.transformer).forward is DINOTransformer.forward:
            known = {"layout": layout_of(levels.sizes, device, keep), "all_layers": self.training}
        else:  # a user's own, which takes masks and gives all layers
            masks = levels.sizes.masks(device)
        return self.transformer(
            levels.features,
            masks,
            embed_positions(self.position_embedding, levels.sizes, device, keep),
            query_embed=denoising.query_embed if denoising else (None, None),
            attn_masks=denoising.attn_masks if denoising else None,
            **known,
        )

    def locate(self, levels: Levels) -> tuple[Float[Tensor, "n q c"], Float[Tensor, "n q 4"]]:
        """Find objects in the levels of a batch; see :meth:`forward_tensors`."""
        hidden = self.hidden_states(levels)
        last = self.transformer.decoder.num_layers - 1
        logits, boxes = predict(
            hidden.inter_states[-1:],
            hidden.layer_references[-1:],
            [self.class_embed[last]],
            [self.bbox_embed[last]],
        )
        if hidden.query_padding is None:
            return logits[0], boxes[0]
        padding_nq1 = hidden.query_padding[..., None]
        logits = logits.masked_fill(padding_nq1, float("-inf"))
        return logits[0], boxes.masked_fill(padding_nq1, 0.0)[0]

    def prepare_targets(
        self, batched_inputs: Sequence[Mapping[str, Any]]
    ) -> list[dict[str, Tensor]]:
        """Give each image's labels and boxes in training, nothing in evaluation."""
        if not self.training:
            return []
        return prepare_targets(batched_inputs, self.num_classes, at_least_float32(self.pixel_mean))

    def denoising_queries(
        self,
        targets: Sequence[Mapping[str, Tensor]],
        features: Sequence[Float[Tensor, "n d _ _"]],
    ) -> DenoisingQueries | None:
        """Make denoising queries of the targets in training; None without objects."""
        if not self.training:
            return None
        return denoising_queries(
            targets,
            self.label_enc,
            dn_number=self.dn_number,
            num_queries=self.transformer.num_queries(features),
            label_noise_ratio=self.label_noise_ratio,
            box_noise_scale=self.box_noise_scale,
        )

    def training_outputs(
        self,
        logits_lnqc: Float[Tensor, "l n q c"],
        boxes_lnq4: Float[Tensor, "l n q 4"],
        hidden: HiddenStates,
        denoising: DenoisingQueries | None,
    ) -> tuple[dict[str, Any], dict[str, Any] | None]:
        """Part matching from denoising queries and name both as the criterion expects them.

        Every parameter has a part in the outputs, if only with a factor of 0, so that distributed
        training finds a gradient for each in every step.
        """
        first = denoising.num_queries if denoising else 0
        outputs = as_outputs(logits_lnqc[:, :, first:], boxes_lnq4[:, :, first:], self.aux_loss)
        outputs["enc_outputs"] = {
            "pred_logits": at_least_float32(self.class_embed[-1](hidden.enc_state)),
            "pred_boxes": hidden.enc_reference,
        }
        unused = self.label_enc.weight.sum()
        if not self.aux_loss:
            unused = unused + logits_lnqc[:-1].sum() + boxes_lnq4[:-1].sum()
        outputs["pred_logits"] = outputs["pred_logits"] + 0.0 * unused
        if denoising is None:
            return outputs, None
        known = as_outputs(logits_lnqc[:, :, :first], boxes_lnq4[:, :, :first], self.aux_loss)
        return outputs, denoising.metas(known)

    def weighted_losses(self, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Multiply each loss by its weight; one without a weight stays as it is."""
        weights = getattr(self.criterion, "weight_dict", {})
        return {name: loss * weights.get(name, 1.0) for name, loss in losses.items()}

    def detections(
        self,
        logits_nqc: Float[Tensor, "n q c"],
        boxes_nq4: Float[Tensor, "n q 4"],
        batched_inputs: Sequence[Mapping[str, Any]],
    ) -> list[dict[str, Any]]:
        """Choose the best detections of each image and bring them to the wanted size."""
        found = select_detections(
            logits_nqc,
            boxes_nq4,
            [tuple(inputs["image"].shape[-2:]) for inputs in batched_inputs],
            self.select_box_nums_for_evaluation,
        )
        return resize_detections(found, batched_inputs)

    @torch.no_grad()
    def visualize_training(
        self, batched_inputs: Sequence[Mapping[str, Any]], outputs: Mapping[str, Tensor]
    ) -> None:
        """Every ``vis_period`` iterations store a picture of the first image as an event."""
        if self.vis_period <= 0:
            return
        storage = get_event_storage()
        if storage.iter % self.vis_period:
            return
        inputs = batched_inputs[0]
        (found,) = select_detections(
            outputs["pred_logits"][:1],
            outputs["pred_boxes"][:1],
            [tuple(inputs["image"].shape[-2:])],
            self.select_box_nums_for_evaluation,
        )
        picture = draw_training(inputs, found, self.input_format)
        storage.put_image("Left: GT bounding boxes; Right: predicted boxes", picture)
