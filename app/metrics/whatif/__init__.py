"""What-if scenarios: what a period would have cost with faster or slower response, or fewer incidents."""
