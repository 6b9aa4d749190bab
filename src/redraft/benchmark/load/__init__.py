"""Load for an engine or a server, and what it says of both."""
