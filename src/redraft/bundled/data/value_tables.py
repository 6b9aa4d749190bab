"""Months, currencies and countries of the normalizing task."""

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
