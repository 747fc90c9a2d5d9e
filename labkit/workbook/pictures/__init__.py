"""The book's drawings: each is computed from data and returned as a `Picture`, which `draw_picture` shows.

    draw_picture(batch_fill([9, 2, 3, 2, 7, 3], seats=3))

They are SVG in the workbook's colours and follow the reader's theme. Those in which time is the point have an animation that
stands still until the reader presses Play.
"""

from labkit.workbook.pictures.case import CaseCall, case_calls
from labkit.workbook.pictures.climb import cascade
from labkit.workbook.pictures.heads import kv_heads
from labkit.workbook.pictures.partitions import Kept, cache_partitions
from labkit.workbook.pictures.path import Station, request_path
from labkit.workbook.pictures.picture import Picture, draw_picture
from labkit.workbook.pictures.ribbons import FormOfAnswer, answer_ribbons
from labkit.workbook.pictures.roofs import roofline
from labkit.workbook.pictures.seats import batch_fill
from labkit.workbook.pictures.sharing import prefix_blocks
from labkit.workbook.pictures.waiting import stream_timeline

__all__ = [
    "CaseCall",
    "FormOfAnswer",
    "Kept",
    "Picture",
    "Station",
    "answer_ribbons",
    "batch_fill",
    "cache_partitions",
    "cascade",
    "case_calls",
    "draw_picture",
    "kv_heads",
    "prefix_blocks",
    "request_path",
    "roofline",
    "stream_timeline",
]
