"""What people configure: services and rates, grouping rules, calendars, objectives, planned maintenance."""
