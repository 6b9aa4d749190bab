"""Adapters in PEFT's layout: read, written, merged."""
