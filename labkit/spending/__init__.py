"""Who spent it, and why did the bill change?

- `attribute(Slice(ledger), by) -> DataFrame`: the bill by any of `DIMENSIONS` (organisation, feature, model, prompt version,
  cache layer and more), with the cost of each kind of token, waste, and what nobody priced.
- `explain_change(before, after, by) -> Explanation`: the difference between two slices as a part for each of `FACTORS`;
  they add up to it to the last cent, in whatever order they came; `by_segment()` and `behind(factor)` drill down to segments
  and requests, `intervals()` says what other conversations would have shown, and `told()` is a sentence.
- `from_frame(frame, columns) -> Ledger`: all of this for a dataframe from anywhere; `labkit.logs.to_ledger` for a log.
- `board(Mirror(ledger), DayView(until))`: today beside yesterday for a dashboard, in hundredths of a second at 1,000,000
  attempts (`mirror.catch_up()` reads what is new); `receipt(ledger, number)`: every attempt of one request.
- `share_rent(Slice(ledger), Rental(invoice, since, until), by) -> RentShares`: a machine's rent by those who ran on it.
"""

from labkit.spending.attribution import attribute
from labkit.spending.factors import FACTORS
from labkit.spending.frames import from_frame
from labkit.spending.hosted import Rental, RentShares, share_rent
from labkit.spending.intervals import Intervals
from labkit.spending.mirror import SPLITS, Mirror
from labkit.spending.rates import priced
from labkit.spending.receipts import Receipt, ReceiptLine, receipt
from labkit.spending.slices import DIMENSIONS, Slice
from labkit.spending.today import Board, Costly, DayView, Period, SpentBy, Sums, board
from labkit.spending.why import Explanation, explain_change

__all__ = [
    "DIMENSIONS",
    "FACTORS",
    "SPLITS",
    "Board",
    "Costly",
    "DayView",
    "Explanation",
    "Intervals",
    "Mirror",
    "Period",
    "Receipt",
    "ReceiptLine",
    "RentShares",
    "Rental",
    "Slice",
    "SpentBy",
    "Sums",
    "attribute",
    "board",
    "explain_change",
    "from_frame",
    "priced",
    "receipt",
    "share_rent",
]
