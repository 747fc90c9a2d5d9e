"""What a request costs at a price list, exactly, and what a month costs at a published one."""

from labkit import cost, request

price = cost.self_defined("house-model", input="0.25", output="2", cached="0.025")
bill = cost.price_request(request.Usage(input_tokens=1_200, output_tokens=250, cached_tokens=1_000), price)
print(bill.total, "USD:", bill.fresh_input, "fresh,", bill.cached_input, "cached,", bill.visible_output, "written")

listed = cost.price_of("gpt-5-mini")
print(listed.provider, listed.rates.fresh_input < listed.rates.visible_output)
month = cost.api_month(cost.Scenario(users=1_000, retry_rate=0.0), price)
print(month.total, "USD a month")
