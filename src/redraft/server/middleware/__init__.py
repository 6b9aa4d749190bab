"""What every request passes before its route: log, access, readiness, body; and how answers are sent."""
