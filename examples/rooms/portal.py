"""A bill of three levers: lines start where the last ended, so savings add up. Needs the extra "models"."""

from labkit import portal

lines = [
    portal.Line("03", "a stable prefix", "desk", portal.Prefix("desk", cached=0.85), "assumed"),
    portal.Line("04", "a cache of answers", "desk", portal.Answered("desk", hits=0.3), "assumed", wrong=0.0005),
    portal.Line("07", "the batch API", "summaries", portal.Batched("summaries"), "assumed"),
]
for link in portal.chain(lines):
    print(f"{link.line.name}: {link.saved:.0f} USD a month here, {link.alone:.0f} alone")
    if link.usd_per_wrong_answer is not None:
        print(f"each further wrong answer is sold for {link.usd_per_wrong_answer:.3f} USD")
saved = sum(link.saved for link in portal.chain(lines))
print(portal.today().usd - portal.last(lines).usd == saved)
