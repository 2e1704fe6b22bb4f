"""A notebook that shows a drawing runs where graphs can become pictures."""

from rendering import CAN_RENDER

collect_ignore = [] if CAN_RENDER else ["trace_graph.ipynb"]
