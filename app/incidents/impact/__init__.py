"""What incidents did to services over time: downtime, cost, availability, and the labor of responders."""
