"""Do two models compute the same? Inputs are drawn, both run, the outputs are judged."""
