"""Rules: functions from a match to a description, found by a matcher, carried out by one file."""
