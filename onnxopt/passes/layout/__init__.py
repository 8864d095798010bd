"""How each operator works on a permuted layout, and where the fewest Transposes are."""
