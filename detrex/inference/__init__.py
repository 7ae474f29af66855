"""Prediction in three lines: a trained detector, pictures of any kind, and what is found in them.

    detector = detrex.load("output/run")
    result = detector.predict("picture.jpg")
    result.save("found.jpg")

loading    from a run's folder, a checkpoint or a config to a `Detector`
finding    which config and which weights belong to what a user named
portable   a config that needs neither data nor weights of the machine that it was trained on
pretrained a folder that holds a whole detector: exact_weights, facts, model_card
hub        the same on the Hugging Face hub
detector   pictures -> results, one by one or in batches
inputs     files, folders, addresses, arrays, tensors, Pillow's pictures -> arrays
video      frames in and out
result     boxes, scores, classes: to be drawn, saved, handed on
"""

from detrex.inference.detector import Detector
from detrex.inference.loading import load
from detrex.inference.result import Result

__all__ = ["Detector", "Result", "load"]
