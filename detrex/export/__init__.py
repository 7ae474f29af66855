"""Networks as files that other programs run: `torch.export`, ONNX, OpenVINO.

::

    exporting.py       from a model to a checked file, whole or not at all
    tensor_modules.py  a backbone, a detector, as functions of one tensor
    program.py         the graph, for images of any size
    symbolic.py        what keeps sizes symbolic while the graph is made
    formats.py         how each kind of file is written, and run
    comparison.py      how far two runs are apart
"""

from detrex.export.exporting import SIZES, ExportReport, export_model
from detrex.export.formats import FORMATS

__all__ = ["FORMATS", "SIZES", "ExportReport", "export_model"]
