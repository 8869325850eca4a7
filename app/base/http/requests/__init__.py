"""What a request may contain: parameters, fields, paths, pages of lists."""
