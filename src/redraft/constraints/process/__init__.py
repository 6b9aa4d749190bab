"""Builds of constraints in a process of their own, which holds up nobody and can be ended."""
