"""Split a model between a device and an edge server: cuts, plans, halves, and the wire between."""
