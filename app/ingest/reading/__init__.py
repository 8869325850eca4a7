"""What senders share to read their requests."""
