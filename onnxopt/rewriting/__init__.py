"""Rules: functions from a match to a description, found by a matcher and carried out by one file."""
