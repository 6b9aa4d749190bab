"""Months, currencies, countries and units of the normalizing task."""

MONTHS = {
    "en": "January February March April May June July August September October November December".split(),
    "de": "Januar Februar März April Mai Juni Juli August September Oktober November Dezember".split(),
    "fr": "janvier février mars avril mai juin juillet août septembre octobre novembre décembre".split(),
    "es": "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre".split(),
    "it": "gennaio febbraio marzo aprile maggio giugno luglio agosto settembre ottobre novembre dicembre".split(),
    "nl": "januari februari maart april mei juni juli augustus september oktober november december".split(),
}
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
CURRENCIES = {
    "EUR": ("€", "euros"), "USD": ("$", "dollars"), "GBP": ("£", "pounds"), "JPY": ("¥", "yen"),
    "CHF": ("Fr.", "francs"), "PLN": ("zł", "zloty"), "SEK": ("kr", "kronor"), "INR": ("₹", "rupees"),
    "BRL": ("R$", "reais"), "CZK": ("Kč", "crowns"),
}  # fmt: skip
COUNTRIES = {
    "Germany": "49", "France": "33", "Spain": "34", "Italy": "39", "Netherlands": "31", "Poland": "48", "Sweden": "46",
    "Austria": "43", "Switzerland": "41", "UK": "44", "Belgium": "32", "Portugal": "351", "Ireland": "353",
    "Finland": "358",
}  # fmt: skip
UNITS = {
    "weight": {"mg": 1, "g": 1_000, "kg": 1_000_000, "t": 1_000_000_000},
    "length": {"mm": 1, "cm": 10, "m": 1_000, "km": 1_000_000},
    "volume": {"ml": 1, "cl": 10, "l": 1_000},
    "size": {"kB": 1, "MB": 1_000, "GB": 1_000_000, "TB": 1_000_000_000},
    "duration": {"ms": 1, "s": 1_000, "min": 60_000, "h": 3_600_000},
}
"""The size of each unit in the smallest one of its kind."""
UNIT_NAMES = {
    "mg": "milligrams", "g": "grams", "kg": "kilograms", "t": "tonnes", "mm": "millimetres", "cm": "centimetres",
    "m": "metres", "km": "kilometres", "ml": "millilitres", "cl": "centilitres", "l": "litres", "kB": "kilobytes",
    "MB": "megabytes", "GB": "gigabytes", "TB": "terabytes", "ms": "milliseconds", "s": "seconds",
    "min": "minutes", "h": "hours",
}  # fmt: skip
