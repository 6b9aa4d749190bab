"""The router of `redraft serve --route`: by rules, a request goes to a mode, an adapter or another server."""
