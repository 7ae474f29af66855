"""The colour distortion of SSD (arXiv 1512.02325, section 2.2), as in its Caffe code."""

from types import ModuleType
from typing import Any

import numpy as np
from fvcore.transforms.transform import Transform


class ColorAugSSDTransform(Transform):
    """Random brightness, contrast, saturation and hue, each half of the time; boxes stay.

    Contrast comes either before or after the distortion of saturation and hue, by chance. Every
    call of ``apply_image`` draws anew from numpy's global random state.

    Args:
        img_format: ``"RGB"`` or ``"BGR"``, the channels of the images to come.
        brightness_delta: the most to add to all channels or take from them, of 255.
        contrast_low: the least factor on all channels.
        contrast_high: the greatest factor on all channels.
        saturation_low: the least factor on the saturation.
        saturation_high: the greatest factor on the saturation.
        hue_delta: the most to turn the hue by either way, in units of 2 degrees.

    Raises:
        ValueError: if ``img_format`` is another one.
        ImportError: OpenCV is not installed.
    """

    def __init__(
        self,
        img_format: str,
        brightness_delta: int = 32,
        contrast_low: float = 0.5,
        contrast_high: float = 1.5,
        saturation_low: float = 0.5,
        saturation_high: float = 1.5,
        hue_delta: int = 18,
    ) -> None:
        super().__init__()
        _opencv()
        if img_format not in ("BGR", "RGB"):
            raise ValueError(f"img_format must be 'RGB' or 'BGR', got {img_format!r}.")
        self.is_rgb = img_format == "RGB"
        self.brightness_delta = brightness_delta
        self.contrast_low = contrast_low
        self.contrast_high = contrast_high
        self.saturation_low = saturation_low
        self.saturation_high = saturation_high
        self.hue_delta = hue_delta

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """Colours move no point: returns ``coords`` ``(n, 2)`` themselves."""
        return coords

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        """Labels are no colours: returns ``segmentation`` ``(H, W)`` itself."""
        return segmentation

    def apply_image(self, img: np.ndarray, interp: Any = None) -> np.ndarray:
        """Distort an image ``(H, W, 3)`` of 0..255; the original array is left as it is.

        One that is not uint8 is taken to be grey, which has no hue to turn, and keeps its type.
        """
        image = img[..., ::-1] if self.is_rgb else img
        image = self.brightness(np.ascontiguousarray(image))
        steps = [self.contrast, self.saturation, self.hue]
        if np.random.randint(2):
            steps = steps[1:] + steps[:1]
        for step in steps:
            image = step(image)
        return np.ascontiguousarray(image[..., ::-1]) if self.is_rgb else image

    def convert(self, img: np.ndarray, alpha: float = 1, beta: float = 0) -> np.ndarray:
        """``img * alpha + beta``, clipped to 0..255, in the image's type."""
        return np.clip(img.astype(np.float32) * alpha + beta, 0, 255).astype(img.dtype)

    def brightness(self, img: np.ndarray) -> np.ndarray:
        """Half of the time, add the same random number to all of a BGR image."""
        if not np.random.randint(2):
            return img
        return self.convert(
            img, beta=np.random.uniform(-self.brightness_delta, self.brightness_delta)
        )

    def contrast(self, img: np.ndarray) -> np.ndarray:
        """Half of the time, multiply all of a BGR image by the same random number."""
        if not np.random.randint(2):
            return img
        return self.convert(img, alpha=np.random.uniform(self.contrast_low, self.contrast_high))

    def saturation(self, img: np.ndarray) -> np.ndarray:
        """Half of the time, multiply a BGR image's saturation by a random number."""
        if not np.random.randint(2):
            return img
        factor = np.random.uniform(self.saturation_low, self.saturation_high)
        if img.dtype != np.uint8:
            return img
        cv2 = _opencv()
        hsv = cv2.cvtColor(img, cv2.COLOR_BGR2HSV)
        hsv[..., 1] = self.convert(hsv[..., 1], alpha=factor)
        return cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)

    def hue(self, img: np.ndarray) -> np.ndarray:
        """Half of the time, turn a BGR image's hue by a random angle."""
        if not np.random.randint(2):
            return img
        turn = np.random.randint(-self.hue_delta, self.hue_delta + 1)
        if img.dtype != np.uint8:
            return img
        cv2 = _opencv()
        hsv = cv2.cvtColor(img, cv2.COLOR_BGR2HSV)
        # OpenCV keeps a hue of 0 to 360 degrees as 0 to 179.
        hsv[..., 0] = (hsv[..., 0].astype(np.int32) + turn) % 180
        return cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)


def _opencv() -> ModuleType:
    try:
        import cv2
    except ImportError as error:
        raise ImportError(
            "ColorAugSSDTransform needs OpenCV, which is not installed: pip install "
            "opencv-python-headless."
        ) from error
    return cv2
