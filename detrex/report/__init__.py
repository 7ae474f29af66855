"""One page about a training: ``report.html`` in the run's folder, which needs no net.

::

    the loop --timeline, record--> report.json ----.
    metrics.json, log.txt -------------------------+--collect--> Run --page--> report.html
    the evaluator's detections --detections-----.  |
    annotations --------------------------------+--confusion, pictures

writing      read a run's folder, and write the page
record       what a run notes of itself beside its other files, and its seconds by part
coco_scores  AP and AR by class and size, of the arrays that an evaluation has computed
collect      all that the page tells, and what is not there
detections   truth and detections of a data set as columns of numbers
confusion    which detection is which object, the confusion matrix, the worst pictures
pictures     truth beside predictions, as pictures within the page
curves       curves as SVG
tables       tables of the page
html         elements of HTML, of which all text is escaped
sections     the sections of figures, texts and times
mistakes     the sections of the confusion matrix and the worst pictures
page         the whole page
"""

from detrex.report.writing import REPORT, write_report

__all__ = ["REPORT", "write_report"]
