"""An alert with a stated false-alarm rate, beside a plain threshold of the same rate, on days with a planted regression."""

from labkit import alerts

usual = alerts.spending_days(28, seed=1, planted=0)
hidden = alerts.spending_days(100, seed=2)
for kind in alerts.Cusum, alerts.PlainThreshold:
    score = alerts.score_alert(kind.fitted(usual, false_alarms=0.05).fires, hidden)
    lost = score.lost_usd / score.at_stake_usd
    print(f"{kind.__name__}: F1 {score.f1:.2f}, {score.false} false, {lost:.0%} of the dollars lost before it fired")
hour = alerts.Spending(range(60, 3601, 60), [0.25] * 60)
print([rule.factor for rule in alerts.burning(hour, at=3600, budget=720)], "times as fast as the month allows")
