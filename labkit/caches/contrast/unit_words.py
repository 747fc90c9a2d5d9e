# ruff: noqa: E501 - tables of words, one group after another
"""Units and currencies by their signs, words and short forms; each maps to one common name."""

from __future__ import annotations

from collections.abc import Mapping

SIGNS: Mapping[str, str] = {
    "$": "dollar", "€": "euro", "£": "pound", "¥": "yen", "₹": "rupee", "₽": "rouble", "₩": "krw", "₺": "lira", "¢": "cent",
    "₿": "bitcoin", "₫": "dong", "₪": "shekel", "₴": "hryvnia", "฿": "baht", "₦": "naira", "₱": "peso",
}  # fmt: skip
WORDS: Mapping[str, str] = {
    spelling: group.split()[0]
    for group in (
        # money
        "dollar dollars usd bucks", "euro euros eur", "pound pounds quid gbp sterling", "yen jpy", "rupee rupees inr",
        "rouble roubles ruble rubles rub", "franc francs chf", "yuan renminbi rmb cny", "krw", "lira", "cent cents",
        "penny pence pennies", "krone kroner", "nok", "dkk", "krona kronor sek", "zloty pln", "peso pesos", "mxn", "reais brl",
        "bitcoin bitcoins btc", "ether eth", "cad", "aud", "dirham aed",
        # time
        "second seconds sec secs", "minute minutes min mins", "hour hours hr hrs", "day days", "week weeks",
        "fortnight fortnights",
        "month months", "year years yr yrs", "decade decades", "century centuries", "millisecond milliseconds ms msec",
        "microsecond microseconds µs", "nanosecond nanoseconds ns", "night nights",
        # length, area, volume, mass
        "metre metres meter meters", "kilometre kilometres kilometer kilometers km kms",
        "centimetre centimetres centimeter centimeters cm", "millimetre millimetres millimeter millimeters mm",
        "micrometre micrometres µm", "nanometre nanometres nm", "mile miles mi", "yard yards yd", "foot feet ft",
        "inch inches", "acre acres", "hectare hectares", "litre litres liter liters", "millilitre millilitres ml",
        "centilitre cl", "gallon gallons gal", "pint pints", "quart quarts", "cup cups", "tablespoon tablespoons tbsp",
        "teaspoon teaspoons tsp", "gram grams gramme grammes", "kilogram kilograms kilo kilos kg kgs", "milligram mg milligrams",
        "microgram µg mcg micrograms", "ton tons", "tonne tonnes", "ounce ounces oz", "lb lbs",
        # physics
        "celsius centigrade", "fahrenheit", "kelvin", "volt volts", "millivolt mv", "amp amps ampere amperes", "milliamp",
        "watt watts", "kilowatt kilowatts", "megawatt megawatts", "joule joules", "calorie calories", "kilocalorie kcal",
        "kilojoule kj", "pascal pascals", "psi", "hertz hz", "kilohertz khz", "megahertz mhz", "gigahertz ghz",
        "newton newtons", "horsepower hp", "decibel decibels db", "degree degrees", "radian radians rad", "mph", "kmh kph",
        "knot knots", "ohm ohms", "lumen lumens", "lux",
        # data
        "bit bits", "byte bytes", "kilobyte kilobytes", "megabyte megabytes", "gigabyte gigabytes", "terabyte terabytes",
        "petabyte petabytes", "kilobit kilobits", "megabit megabits", "gigabit gigabits", "kib", "mib", "gib", "tib",
        "pixel pixels px", "dpi", "ppi", "fps", "rpm", "token tokens",
    )
    for spelling in group.split()
}  # fmt: skip
# As typed, and as units only beside a number: alone they are words or variables. Letter case tells them apart.
SHORT: Mapping[str, str] = {
    "m": "metre", "M": "million", "g": "gram", "G": "giga", "l": "litre", "L": "litre", "s": "second", "h": "hour",
    "d": "day", "C": "celsius", "c": "celsius", "F": "fahrenheit", "f": "fahrenheit", "K": "kelvin", "k": "thousand",
    "V": "volt", "A": "amp", "W": "watt", "J": "joule", "N": "newton", "t": "tonne", "B": "byte", "b": "bit", "in": "inch",
    "mW": "milliwatt", "MW": "megawatt", "kW": "kilowatt", "GW": "gigawatt", "kWh": "kilowatt-hour", "MWh": "megawatt-hour",
    "Wh": "watt-hour", "mA": "milliamp", "mAh": "milliamp-hour", "kB": "kilobyte", "KB": "kilobyte", "MB": "megabyte",
    "GB": "gigabyte", "TB": "terabyte", "PB": "petabyte", "kb": "kilobyte", "mb": "megabyte", "gb": "gigabyte", "tb": "terabyte", "Kb": "kilobit", "Mb": "megabit", "Gb": "gigabit",
    "Tb": "terabit", "Mbps": "megabit/s", "MBps": "megabyte/s", "Gbps": "gigabit/s", "mm": "millimetre", "Mm": "megametre",
    "Pa": "pascal", "kPa": "kilopascal", "MPa": "megapascal", "mPa": "millipascal", "mHz": "millihertz", "am": "am",
    "pm": "pm", "AM": "am", "PM": "pm", "a.m": "am", "p.m": "pm", "ha": "hectare", "Ω": "ohm",
    "MV": "megavolt", "ML": "megalitre", "Mg": "megagram", "Nm": "newton-metre", "mJ": "millijoule", "MJ": "megajoule",
}  # fmt: skip
