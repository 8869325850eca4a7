"""Plain values and their vocabulary: times, severities, currencies, ids, facts."""
